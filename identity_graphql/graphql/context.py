"""What resolvers may reach."""

from __future__ import annotations

from functools import cached_property

import strawberry
from graphql import GraphQLError
from strawberry.dataloader import DataLoader

from identity_graphql.archive import Archive, Book
from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.service import IdentityService
from identity_graphql.steward import Steward

MOST_ITEMS = 200_000
"""Of all lists in one answer together: about a second of work."""


class Context:
    """One per HTTP request. The loaders turn many single look-ups into one statement; most requests need none."""

    def __init__(self, service: IdentityService, steward: Steward, archive: Archive) -> None:
        self.service = service
        self.steward = steward
        self.archive = archive
        self._items = MOST_ITEMS

    def charge(self, items: int) -> None:
        """Count the items of a list that is about to be answered. Raises GraphQLError when there are too many.

        Beside the limits on documents, which cannot know how long a list will be.
        """
        self._items -= items
        if self._items < 0:
            raise GraphQLError(
                f"The answer has more than {MOST_ITEMS:,} list items: ask for less of each cluster, or for fewer at "
                "once. What a mutation was to do is done.",
                extensions={"code": "QUERY_TOO_COMPLEX"},
            )

    @cached_property
    def contacts(self) -> DataLoader[int, Contact | None]:
        return DataLoader(self.service.contacts, max_batch_size=1000)

    @cached_property
    def clusters(self) -> DataLoader[int, Cluster | None]:
        return DataLoader(self.service.clusters_of, max_batch_size=1000)

    @cached_property
    def books(self) -> DataLoader[int, Book]:
        return DataLoader(self.archive.books, max_batch_size=100)


Info = strawberry.Info[Context, None]
