"""A consistent read of the log, with the right to append to it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.decide import VerbResult
from identity_graphql.domain.events import Event
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.storage import event_log, verb_writes
from identity_graphql.storage.dialect import Dialect


class LogSession:
    """The log of some lineages, whole, and the time; with the right to append to it, if that was asked for.

    Then all of it happens in one transaction, behind the locks of the clusters.
    """

    def __init__(self, dialect: Dialect, connection: AsyncConnection, events: list[Event], now: datetime) -> None:
        self.events = events
        self.now = now
        self._dialect = dialect
        self._connection = connection

    async def naming(self, identifiers: Collection[Identifier], *, after: int) -> tuple[list[int], int]:
        """The events above this number that name one of these identifiers, and the number of the newest event."""
        return await event_log.naming(self._connection, identifiers, after=after)

    async def events_of(self, seqs: Collection[int]) -> list[Event]:
        """These events."""
        return await event_log.events(self._connection, seqs)

    async def write(self, result: VerbResult) -> VerbResult:
        """Writes what a verb changes. Returns it with the real numbers.

        Raises Conflict, with nothing written, if something has changed.
        """
        return await verb_writes.write(self._connection, self._dialect, result)
