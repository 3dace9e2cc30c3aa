"""What resolvers may reach."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property

import strawberry
from strawberry.dataloader import DataLoader

from identity_graphql.domain.contacts import PROVISIONAL, Cluster, Contact
from identity_graphql.domain.events import Event
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.reconcile import Decision
from identity_graphql.domain.state import Bond
from identity_graphql.errors import TooComplex
from identity_graphql.services.finding import FindingService
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService

MOST_ITEMS = 200_000
"""Of all lists in one answer together: about a second of work."""


class Context:
    """One per HTTP request. The loaders turn many single look-ups into one statement; most requests need none."""

    def __init__(
        self, service: IdentityService, steward: StewardService, history: HistoryService, finding: FindingService
    ) -> None:
        self.service = service
        self.steward = steward
        self.history = history
        self.finding = finding
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
    """The log as it would be after requests that are only tried; read when something of it is asked for."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._decisions = decisions
        self._reading: asyncio.Future[ClusterHistory] | None = None

    async def history(self, context: Context) -> ClusterHistory:
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read(context))
        return await self._reading

    async def _read(self, context: Context) -> ClusterHistory:
        events = [decision.event for decision in self._decisions if decision.event is not None]
        named = {decision.cluster.primary.id for decision in self._decisions}
        named.update(contact_id for event in events for contact_id in event.contact_ids)
        known = [contact_id for contact_id in named if contact_id < PROVISIONAL]
        history = await context.history.of_contacts_after(known, events)
        context.charge(len(history.events))
        return history


Source = ClusterHistory | Preview | None
"""Where something is from: an earlier or a possible state, or (None) the present."""


async def history_of(context: Context, source: Source, contact_id: int) -> ClusterHistory:
    """Returns the log that led to where something is from."""
    if isinstance(source, ClusterHistory):
        return source
    return await (context.histories.load(contact_id) if source is None else source.history(context))


Info = strawberry.Info[Context, None]
