"""A consistent read of the log, with the right to append to it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.decide import VerbResult
from identity_graphql.domain.events import Event
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.errors import Conflict
from identity_graphql.storage import event_log, statements, verb_writes
from identity_graphql.storage.dialect import Dialect
from identity_graphql.storage.event_log import LogSearch


class Place:
    """A place in the queue: what one attempt at a verb leaves to the next, should it fail.

    ``rows`` have to be locked before anything is read; of the ``events``, which were read, only what came since is
    read again.
    """

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.events: dict[int, Event] = {}


class LogSession:
    """The log of some lineages, whole, and the time; with the right to append to it, if that was asked for.

    A session that is not ``locking`` reads one snapshot. One that is locks the rows that every writer of these
    lineages has to change, before it reads their log: so nobody writes to them until the transaction ends, however
    many would like to, and what is decided from the log can be written.
    """

    def __init__(
        self,
        dialect: Dialect,
        connection: AsyncConnection,
        place: Place,
        *,
        by_value: bool,
        by_banned_pair: bool,
        locking: bool,
    ) -> None:
        self.place = place
        self.events: list[Event] = []
        self.now = datetime.min
        self._dialect = dialect
        self._connection = connection
        self._by_value = by_value
        self._by_banned_pair = by_banned_pair
        self._locking = locking
        self._asked: set[int] = set()
        self._known: set[int] = set()
        self._locked: set[int] = set()

    async def include(self, contact_ids: Collection[int]) -> None:
        """Read the log of the lineages of these contacts, beside those that were asked for before.

        Raises Conflict where a row would have to be locked after others that come later: two who wait for each other
        would wait for ever. The next attempt locks it in its order.
        """
        self._asked.update(contact_ids)
        if self._locking:
            await self._lock(self.place.rows | await event_log.heads(self._connection, self._asked))
        while True:
            await self._read()
            if not self._locking:
                break
            # Whoever wrote to one of these contacts while they were read had to lock a row that was not ours; and
            # that row, or the one that took its place, is among these.
            heads = await event_log.heads(self._connection, self._known)
            if heads <= self._locked:
                break
            await self._lock(heads)
        self.now = (await self._connection.execute(statements.NOW)).scalar_one()

    def includes(self, contact_ids: Collection[int]) -> bool:
        """Whether the log of the lineages of these contacts was read."""
        return self._known.issuperset(contact_ids)

    async def search(self, identifiers: Collection[Identifier], search: LogSearch) -> None:
        """Search the whole log for these identifiers."""
        await search.extend(self._connection, identifiers)

    async def write(self, result: VerbResult) -> VerbResult:
        """Writes what a verb changes. Returns it with the numbers that it was given.

        Raises Conflict, with nothing written, if something has changed since it was read.
        """
        return await verb_writes.write(self._connection, self._dialect, result)

    async def _read(self) -> None:
        self.events, self._known = await event_log.lineage(
            self._connection,
            self._asked,
            by_value=self._by_value,
            by_banned_pair=self._by_banned_pair,
            read=self.place.events,
        )
        self.place.events = {event.seq: event for event in self.events}

    async def _lock(self, rows: set[int]) -> None:
        self.place.rows |= rows
        missing = rows - self._locked
        if self._locked and missing and min(missing) < max(self._locked):
            raise Conflict("a row that has to be locked before those that are")
        await event_log.listed(self._connection, statements.LOCK, missing)
        self._locked |= missing
