"""What resolvers may reach."""

from __future__ import annotations

from dataclasses import dataclass, field

import strawberry
from strawberry.dataloader import DataLoader

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.service import IdentityService


@dataclass(slots=True)
class Context:
    """One per HTTP request. The loaders turn many single look-ups into one statement."""

    service: IdentityService
    contacts: DataLoader[int, Contact | None] = field(init=False)
    clusters: DataLoader[int, Cluster | None] = field(init=False)

    def __post_init__(self) -> None:
        self.contacts = DataLoader(self.service.contacts, max_batch_size=1000)
        self.clusters = DataLoader(self.service.clusters_of, max_batch_size=1000)


Info = strawberry.Info[Context, None]
