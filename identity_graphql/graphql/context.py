"""What resolvers may reach."""

from __future__ import annotations

from functools import cached_property

import strawberry
from strawberry.dataloader import DataLoader

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.service import IdentityService


class Context:
    """One per HTTP request. The loaders turn many single look-ups into one statement; most requests need none."""

    def __init__(self, service: IdentityService) -> None:
        self.service = service

    @cached_property
    def contacts(self) -> DataLoader[int, Contact | None]:
        return DataLoader(self.service.contacts, max_batch_size=1000)

    @cached_property
    def clusters(self) -> DataLoader[int, Cluster | None]:
        return DataLoader(self.service.clusters_of, max_batch_size=1000)


Info = strawberry.Info[Context, None]
