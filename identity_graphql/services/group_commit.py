"""Many requests, one transaction: what arrives while a batch is in flight forms the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


TURNS = 4
"""How often the event loop turns before a batch begins, if the one before it had more than one item."""


class QueueFull(Exception):
    """More is waiting than can be answered in time."""


class GroupCommit(Generic[Item, Result]):
    """Hands items to ``run_batch`` in batches, one batch at a time, in the order in which they came.

    There is no timer: an item that comes when nothing is in flight starts a batch at once, alone. ``run_batch`` gets
    a batch and one future for each of its items; it resolves each as soon as it knows its result, and all of them
    before it returns. Items that joined together stay together. Whoever stops waiting for a future harms nobody.

    After a batch of several, who sent them is about to come back. A few turns of the event loop, which take no time
    when nothing comes, let them share the next one: else the first would go alone, and the others wait for it.

    The queue is bounded by number and by time. By time, because a queue that is answered in order and never gets
    shorter would be answered too late from its first to its last: nobody would be served any more.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[Item], Sequence[asyncio.Future[Result]]], Awaitable[None]],
        *,
        largest_batch: int,
        most_waiting: int,
        longest_wait: float,
    ) -> None:
        self._run_batch = run_batch
        self._largest_batch = largest_batch
        self._most_waiting = most_waiting
        self._longest_wait = longest_wait
        self._waiting: deque[tuple[float, Sequence[Item], Sequence[asyncio.Future[Result]]]] = deque()
        self._count = 0
        self._worker: asyncio.Task[None] | None = None
        self._had_company = False

    def join(self, items: Sequence[Item]) -> Sequence[asyncio.Future[Result]]:
        """Returns the futures of these items' results. Raises QueueFull."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._waiting and (
            self._count + len(items) > self._most_waiting or now - self._waiting[0][0] > self._longest_wait
        ):
            raise QueueFull
        futures = [loop.create_future() for _ in items]
        self._waiting.append((now, items, futures))
        self._count += len(items)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return futures

    async def drain(self) -> None:
        """Wait until nothing is waiting or in flight."""
        while self._worker is not None:
            await asyncio.wait({self._worker})

    async def _work(self) -> None:
        try:
            while self._waiting:
                if self._had_company:
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                items, futures = self._next_batch()
                self._had_company = len(items) > 1
                if not items:
                    continue
                try:
                    await self._run_batch(items, futures)
                finally:
                    for future in futures:  # never leave anybody waiting, whatever happened
                        if not future.done():
                            future.cancel()
        finally:
            self._worker = None

    def _next_batch(self) -> tuple[list[Item], list[asyncio.Future[Result]]]:
        """What waits, up to the largest batch, and at least what joined together first; without those who have
        stopped waiting."""
        items: list[Item] = []
        futures: list[asyncio.Future[Result]] = []
        while self._waiting and (not items or len(items) + len(self._waiting[0][1]) <= self._largest_batch):
            _, more, theirs = self._waiting.popleft()
            self._count -= len(more)
            for item, future in zip(more, theirs, strict=True):
                if not future.done():
                    items.append(item)
                    futures.append(future)
        return items, futures
