"""What resolvers may reach."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import cached_property

import strawberry
from strawberry.dataloader import DataLoader

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.events import Event
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.state import Bond
from identity_graphql.errors import TooComplex
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService

MOST_ITEMS = 200_000
"""Of all lists in one answer together: about a second of work."""


class Context:
    """One per HTTP request. The loaders turn many single look-ups into one statement; most requests need none."""

    def __init__(self, service: IdentityService, steward: StewardService, history: HistoryService) -> None:
        self.service = service
        self.steward = steward
        self.history = history
        self._items = MOST_ITEMS

    def charge(self, items: int) -> None:
        """Count the items of a list, or the events, that an answer takes. Raises TooComplex when they are too many.

        Beside the limits on documents, which cannot know how long a list will be.
        """
        self._items -= items
        if self._items < 0:
            raise TooComplex(
                f"The answer takes more than {MOST_ITEMS:,} list items and events of the log: ask for less of each "
                "cluster, or for fewer at once. If this is a mutation, what it was to do is done."
            )

    @cached_property
    def contacts(self) -> DataLoader[int, Contact | None]:
        return DataLoader(self.service.contacts, max_batch_size=1000)

    @cached_property
    def clusters(self) -> DataLoader[int, Cluster | None]:
        return DataLoader(self.service.clusters_of, max_batch_size=1000)

    @cached_property
    def holders(self) -> DataLoader[Identifier, Cluster | None]:
        return DataLoader(self.service.holders, max_batch_size=1000)

    @cached_property
    def histories(self) -> DataLoader[int, ClusterHistory]:
        return DataLoader(self._histories, max_batch_size=100)

    @cached_property
    def events(self) -> DataLoader[int, Event | None]:
        return DataLoader(self.history.events, max_batch_size=1000)

    @cached_property
    def kept_apart(self) -> DataLoader[Bond, bool]:
        """Whether a ban stands between two clusters, by their primaries."""
        return DataLoader(self.history.kept_apart, max_batch_size=1000)

    async def _histories(self, contact_ids: Sequence[int]) -> list[ClusterHistory]:
        history = await self.history.of_contacts(contact_ids)
        self.charge(len(history.events))
        return [history] * len(contact_ids)


class Preview:
    """The log as it would be after a request that is only tried; read when something of it is asked for."""

    def __init__(self, contact_ids: Collection[int], event: Event) -> None:
        self._contact_ids = contact_ids
        self._event = event
        self._reading: asyncio.Future[ClusterHistory] | None = None

    async def history(self, context: Context) -> ClusterHistory:
        if self._reading is None:
            reading = context.history.of_contacts_after(self._contact_ids, self._event)
            self._reading = asyncio.ensure_future(reading)
        return await self._reading


Source = ClusterHistory | Preview | None
"""Where something is from: an earlier or a possible state, or (None) the present."""


async def history_of(context: Context, source: Source, contact_id: int) -> ClusterHistory:
    """Returns the log that led to where something is from."""
    if isinstance(source, ClusterHistory):
        return source
    return await (context.histories.load(contact_id) if source is None else source.history(context))


Info = strawberry.Info[Context, None]
