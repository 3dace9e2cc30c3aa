"""What a steward's verbs are given and answer: twins of the domain's, joined by `from_domain`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import strawberry
from strawberry import ID

from identity_graphql.api.graphql.contacts import Cluster, Contact
from identity_graphql.api.graphql.context import Info
from identity_graphql.api.graphql.history import Event, PairStanding, WithheldBy
from identity_graphql.api.graphql.identifiers import Identifier as ShownIdentifier
from identity_graphql.api.graphql.scalars import given, id_of
from identity_graphql.domain import bans
from identity_graphql.domain import state as domain
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.erasure import is_token
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier

Actor = Annotated[str, strawberry.argument(description="Who does it. The log keeps it.")]
Reason = Annotated[str, strawberry.argument(description="Why. The log keeps it.")]
ExpectedVersion = Annotated[
    int | None,
    strawberry.argument(
        description="Required unless `dryRun` is true: the version of the cluster as you saw it, which a dry run tells."
        " If the cluster has another by now, nothing is done (CONFLICT)."
    ),
]
ExpectedOtherVersion = Annotated[
    int | None,
    strawberry.argument(
        description="The same for the cluster that is named second. Not needed where a dry run tells null: there is"
        " no second cluster then."
    ),
]
DryRun = Annotated[bool, strawberry.argument(description="Answer what would change, and change nothing.")]


def command(
    actor: str, reason: str, expected_version: int | None, dry_run: bool, expected_other_version: int | None = None
) -> Command:
    """What every verb is given."""
    return Command(actor, reason, given(expected_version), given(expected_other_version), dry_run)


@strawberry.type(description="A contact whose record changed.")
class ContactChange:
    id: ID = strawberry.field(description="The contact.")
    before: Contact | None = strawberry.field(description="As it was; null for a new one.")
    after: Contact = strawberry.field(description="As it is, or would be.")


@strawberry.type(description="An identifier that changed hands.")
class ClaimChange:
    kind: str = strawberry.field(description="Its kind.")
    value: str | None = strawberry.field(description="Its value; null if it was erased.")
    before: ID | None = strawberry.field(description="The contact that claimed it; null if nobody did.")
    after: ID | None = strawberry.field(description="The contact that claims it, or would; null for nobody.")


@strawberry.type(description="Two identifiers whose standing as evidence changed.")
class PairChange:
    identifiers: list[ShownIdentifier] = strawberry.field(description="The two, in the order of their kinds.")
    before: PairStanding | None = strawberry.field(description="As it was; null if it did not count at all.")
    after: PairStanding | None = strawberry.field(description="As it is, or would be; null if it counts no more.")
    withheld_by: WithheldBy | None = strawberry.field(
        description="What keeps it back then; null if it is evidence, or counts no more."
    )


@strawberry.type(description="Two contacts that were linked or banned by hand, or are no longer.")
class BondChange:
    contact_id: ID = strawberry.field(description="The one.")
    other_id: ID = strawberry.field(description="The other.")
    added: bool = strawberry.field(description="Whether it came, or went.")
    event: ID | None = strawberry.field(
        description="The `seq` of the event that decided so: of a ban that a part of a cluster keeps, an earlier one."
        " Null for what a dry run would decide."
    )


@strawberry.type(description="An identifier that was blocked, or is no longer.")
class BlockChange:
    identifier: ShownIdentifier = strawberry.field(description="The identifier.")
    before: ID | None = strawberry.field(description="The `seq` of the event that had blocked it; null if none had.")
    blocked: bool = strawberry.field(description="Whether it is blocked afterwards.")


@strawberry.type(description="An identifier that counts as not given where a request brings it.")
class BlockedIdentifier:
    identifier: ShownIdentifier = strawberry.field(description="The identifier.")
    seq: strawberry.Private[int]

    @classmethod
    def from_domain(cls, identifier: Identifier, seq: int) -> BlockedIdentifier:
        return cls(identifier=ShownIdentifier.from_domain(identifier), seq=seq)

    @strawberry.field(description="The event that blocked it: who, when and why.")
    async def event(self, info: Info) -> Event:
        found = await info.context.events.load(self.seq)
        assert found is not None, "what blocked it is in the log"
        return Event.from_domain(found)


@strawberry.type(description="Every difference between before and after.")
class Changes:
    contacts: list[ContactChange] = strawberry.field(description="Records that changed or were made.")
    identifiers: list[ClaimChange] = strawberry.field(description="Identifiers that changed hands.")
    pairs: list[PairChange] = strawberry.field(description="Evidence that came, went, or was withheld.")
    links: list[BondChange] = strawberry.field(description="Contacts that a steward holds together, or no longer.")
    bans: list[BondChange] = strawberry.field(description="Contacts that are banned from each other, or no longer.")
    blocked: list[BlockChange] = strawberry.field(description="Identifiers that were blocked, or are no longer.")

    @classmethod
    def from_domain(cls, result: VerbResult, afterwards: ClusterHistory | None) -> Changes:
        before, after, rows = result.before, result.after, result.shown_changes
        ids = [contact.id for contact in rows.created] + [change.id for change in rows.contacts]
        return cls(
            contacts=[_contact_change(result, contact_id, afterwards) for contact_id in sorted(ids)],
            identifiers=[
                ClaimChange(
                    kind=identifier.kind,
                    value=_shown(identifier.value),
                    before=_id(before.claims.get(identifier)),
                    after=_id(now),
                )
                for identifier, now in rows.claims
            ],
            pairs=[
                PairChange(
                    identifiers=[ShownIdentifier.from_domain(identifier) for identifier in pair],
                    before=_standing(before, pair),
                    after=_standing(after, pair),
                    withheld_by=_withheld_by(after, pair),
                )
                for pair in sorted(rows.all_pairs)
            ],
            links=_bonds(before.links, rows.links, result.event.seq),
            bans=_bonds(before.bans, rows.bans, result.event.seq),
            blocked=[
                BlockChange(
                    identifier=ShownIdentifier.from_domain(identifier),
                    before=None if (seq := before.blocked.get(identifier)) is None else ID(str(seq)),
                    blocked=now is not None,
                )
                for identifier, now in rows.blocked
            ],
        )


@strawberry.type(description="What a steward's verb changed, or would change.")
class StewardPayload:
    dry_run: bool = strawberry.field(description="Whether nothing was written.")
    event: Event = strawberry.field(description="Its entry in the log, or what that would be; `undo` takes its `seq`.")
    clusters: list[Cluster] = strawberry.field(description="Every cluster that changed, as it is or would be.")
    changes: Changes = strawberry.field(description="Every difference.")
    expected_version: int = strawberry.field(description="What `expectedVersion` has to be for exactly this.")
    expected_other_version: int | None = strawberry.field(
        description="What `expectedOtherVersion` has to be; null if there is no second cluster."
    )
    waiting: int = strawberry.field(description="How many pairs the ban that is lifted has kept back.")

    @classmethod
    def from_domain(cls, result: VerbResult) -> StewardPayload:
        afterwards = result.afterwards if result.dry_run else None
        return cls(
            dry_run=result.dry_run,
            event=Event.from_domain(result.event),
            clusters=[Cluster.from_domain(cluster, afterwards) for cluster in result.clusters],
            changes=Changes.from_domain(result, afterwards),
            expected_version=result.expected_version,
            expected_other_version=result.expected_other_version,
            waiting=len(result.waiting),
        )


def _contact_change(result: VerbResult, contact_id: int, afterwards: ClusterHistory | None) -> ContactChange:
    before = result.history.contact(contact_id)
    return ContactChange(
        id=id_of(contact_id),
        before=None if before is None else Contact.from_domain(before, None, result.history),
        after=Contact.from_domain(result.after.contacts[contact_id], None, afterwards),
    )


def _standing(state: domain.State, pair: domain.Pair) -> PairStanding | None:
    if pair in state.pairs:
        return PairStanding.LIVE
    withheld = state.withheld.get(pair)
    if withheld is None:
        return None
    return PairStanding.BANNED if withheld.banned else PairStanding.WITHHELD


def _withheld_by(state: domain.State, pair: domain.Pair) -> WithheldBy | None:
    if pair not in state.withheld:
        return None
    if bans.withholds(state, pair):
        return WithheldBy.BAN
    return WithheldBy.NOTHING if state.withheld[pair].limit_kind is None else WithheldBy.LIMIT


def _bonds(
    before: Mapping[domain.Bond, int], rows: Iterable[tuple[int, int, int | None]], seq: int
) -> list[BondChange]:
    """What went and what came. Of two contacts, one decision may take the place of another."""
    found = []
    for a, b, now in rows:
        for number, added in ((before.get((a, b)), False), (now, True)):
            if number is not None:
                event = ID(str(number or seq)) if number or seq else None
                found.append(BondChange(contact_id=id_of(a), other_id=id_of(b), added=added, event=event))
    return found


def _id(contact_id: int | None) -> ID | None:
    return None if contact_id is None else id_of(contact_id)


def _shown(value: str) -> str | None:
    return None if is_token(value) else value
