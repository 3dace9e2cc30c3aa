"""Find the clusters that somebody should look at, and tell how much there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from identity_graphql.domain.contacts import LARGEST_ID, Cluster
from identity_graphql.domain.counts import CONTACTS, LEAST, least
from identity_graphql.domain.events import Event
from identity_graphql.domain.kinds import Kinds
from identity_graphql.errors import InvalidInput, Problem
from identity_graphql.services.retry import Deadline
from identity_graphql.storage import Storage
from identity_graphql.storage.finding import Totals

FIRST = LARGEST_ID, LARGEST_ID
"""Before the largest of all."""
FRESH = 60.0
"""Seconds for which totals that were counted are told again."""
SHARE = 20
"""How many times as long as it took to count they are told again: counting takes a twentieth of the time at most."""


class Statistics(Struct, frozen=True):
    """How much there was, and when that was counted; and the newest event, as it is now."""

    totals: Totals
    counted_at: datetime
    newest: Event | None


class Suspicion(Struct, frozen=True):
    """A cluster that has more than it should: values of a kind, or contacts (``kind`` None)."""

    cluster: Cluster
    kind: str | None
    count: int
    limit: int
    place: tuple[int, int, int]
    """where it stands in the list"""


class FindingService:
    """Answers in time, or raises Busy. Writes nothing."""

    def __init__(self, storage: Storage, kinds: Kinds, *, suspicious_size: int, timeout: float = 10.0) -> None:
        self._storage = storage
        self._deadline = Deadline(timeout, storage.outage)
        self._limits = [(CONTACTS, suspicious_size), *kinds.limits.items()]
        self._counting: asyncio.Task[None] | None = None
        self._counted: tuple[Totals, datetime] | None = None
        self._fresh_until = 0.0

    async def close(self) -> None:
        """Finish what is in flight. The storage may be closed afterwards."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait([self._counting])
        await self._deadline.close()

    async def largest(self, *, least_size: int, after: tuple[int, int], limit: int) -> list[Cluster]:
        """The clusters with the most contacts, behind one of so many contacts and with this id."""
        if least_size < LEAST:
            message = f"minSize must be at least {LEAST}: smaller clusters are not counted; `clusters` by id has all."
            raise InvalidInput(Problem("minSize", message))
        found = await self._largest(CONTACTS, least_size, after if after[0] else FIRST, limit)
        return [cluster for cluster, _ in found]

    async def last_changed(self, *, before: int, limit: int) -> list[tuple[int, Cluster]]:
        """The clusters that changed last, the last first, each with its last event, of events below one (0: all)."""

        async def read() -> list[tuple[int, Cluster]]:
            found = await self._storage.last_changed(before=before or LARGEST_ID, limit=limit)
            clusters = await self._storage.clusters_of({primary_id for _, primary_id in found})
            return [(seq, clusters[home]) for seq, home in found if home in clusters]

        return await self._deadline.retrying(read)

    async def suspicious(self, *, after: tuple[int, int, int], limit: int) -> list[Suspicion]:
        """The clusters that are over the limit of a kind, or over the suspicious size; the largest of each first."""
        found: list[Suspicion] = []
        start, most, primary_id = after
        for place, (kind, allowed) in enumerate(self._limits):
            if place < start or len(found) >= limit:
                continue
            behind = (most, primary_id) if place == start and most else FIRST
            fewest = max(allowed + 1, least(kind))
            for cluster, count in await self._largest(kind, fewest, behind, limit - len(found)):
                where = (place, count, cluster.primary.id)
                found.append(Suspicion(cluster, kind or None, count, allowed, where))
        return found

    async def statistics(self) -> Statistics:
        """How much there is. Counted by nobody's request: it is told as it was counted last."""
        if self._counted is None or time.monotonic() > self._fresh_until:
            self._count()
        if self._counted is None and self._counting is not None:
            await self._deadline.retrying(self._wait)
        assert self._counted is not None, "it was counted"
        newest = await self._deadline.retrying(self._newest)
        return Statistics(*self._counted, newest)

    async def _wait(self) -> None:
        if self._counting is None:
            self._count()
        assert self._counting is not None, "it is being counted"
        await asyncio.shield(self._counting)

    async def _newest(self) -> Event | None:
        return await self._storage.event(await self._storage.newest_seq())

    def _count(self) -> None:
        async def count() -> None:
            try:
                began = time.monotonic()
                self._counted = await self._storage.totals(), datetime.now(UTC)
                self._fresh_until = time.monotonic() + max(FRESH, SHARE * (time.monotonic() - began))
            finally:
                self._counting = None

        if self._counting is None:
            self._counting = asyncio.create_task(count())
            self._counting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _largest(
        self, kind: str, fewest: int, behind: tuple[int, int], limit: int
    ) -> Sequence[tuple[Cluster, int]]:
        async def read() -> list[tuple[Cluster, int]]:
            found = await self._storage.largest(kind, least=fewest, behind=behind, limit=limit)
            clusters = await self._storage.clusters_of({primary_id for primary_id, _ in found})
            return [(clusters[primary_id], count) for primary_id, count in found if primary_id in clusters]

        return await self._deadline.retrying(read)
