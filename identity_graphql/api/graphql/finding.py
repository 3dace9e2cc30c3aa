"""Clusters that somebody should look at, and how much there is: twins of the domain's."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry

from identity_graphql.api.graphql.contacts import Cluster
from identity_graphql.api.graphql.history import Event
from identity_graphql.services import finding as services


@strawberry.enum(description="The order of clusters in a list.")
class ClusterOrder(Enum):
    ID = strawberry.enum_value("ID", description="By the id of their primary.")
    SIZE_DESC = strawberry.enum_value("SIZE_DESC", description="The largest first, of those with 10 contacts or more.")
    CHANGED_AT_DESC = strawberry.enum_value("CHANGED_AT_DESC", description="Those that changed last first.")


@strawberry.type(description="A customer that has more of something than it should: perhaps several people.")
class SuspiciousCluster:
    cluster: Cluster = strawberry.field(description="The customer.")
    kind: str | None = strawberry.field(description="The kind of which it has too many values; null: contacts.")
    count: int = strawberry.field(description="How many it has.")
    limit: int = strawberry.field(description="The limit of the kind, or the setting SUSPICIOUS_SIZE.")

    @classmethod
    def from_domain(cls, found: services.Suspicion) -> SuspiciousCluster:
        return cls(cluster=Cluster.from_domain(found.cluster), kind=found.kind, count=found.count, limit=found.limit)


@strawberry.type(description="How many identifiers of a kind there are.")
class KindCount:
    kind: str = strawberry.field(description="The kind.")
    count: int = strawberry.field(description="How many values of it some customer has.")


@strawberry.type(description="How many clusters have so many contacts.")
class SizeCount:
    size: int = strawberry.field(description="Contacts.")
    count: int = strawberry.field(description="Clusters.")


@strawberry.type(description="How much there is. Counted in the background, at most once a minute.")
class Statistics:
    contacts: int = strawberry.field(description="Live contacts.")
    clusters: int = strawberry.field(description="Customers.")
    identifiers: list[KindCount] = strawberry.field(description="By kind.")
    sizes: list[SizeCount] = strawberry.field(description="Clusters by size, the smallest first.")
    counted_at: datetime = strawberry.field(description="When these were counted.")
    newest_event: Event | None = strawberry.field(description="The newest entry of the log, now.")

    @classmethod
    def from_domain(cls, found: services.Statistics) -> Statistics:
        totals = found.totals
        return cls(
            contacts=totals.contacts,
            clusters=totals.clusters,
            identifiers=[KindCount(kind=kind, count=count) for kind, count in sorted(totals.identifiers.items())],
            sizes=[SizeCount(size=size, count=count) for size, count in totals.sizes.items()],
            counted_at=found.counted_at,
            newest_event=None if found.newest is None else Event.from_domain(found.newest),
        )
