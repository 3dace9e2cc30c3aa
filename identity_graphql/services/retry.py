"""Answers in time: how long to wait for the database, and how often to try again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from identity_graphql.errors import Busy, Conflict, DatabaseAway

T = TypeVar("T")

CONFLICT_DEADLINE = 5.0
"""Seconds for which something is tried against other writers: a time, not a number of tries."""
SHORTEST_PAUSE = 0.003
"""Seconds that a loser waits at most before its second try; twice that before the next, and so on."""
MOST_DOUBLINGS = 6


async def pause(tries: int) -> None:
    """Stay away from those one has collided with; further with every try, as SERIALIZABLE refuses many for one that
    goes through."""
    await asyncio.sleep(random.uniform(0, SHORTEST_PAUSE * 2 ** min(tries, MOST_DOUBLINGS)))


class Deadline:
    """Waits for work for so many seconds and no longer."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._running: set[asyncio.Future[Any]] = set()

    async def close(self) -> None:
        """Wait for what was given up and is still being cleaned up."""
        if self._running:
            await asyncio.wait(self._running)

    async def wait_for(self, work: Awaitable[T], at_most: float | None = None) -> T:
        """The result of this work, or Busy: the answer does not wait until a hung connection is cleaned up."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        try:
            done, _ = await asyncio.wait({task}, timeout=at_most or self._timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise Busy
        return task.result()

    async def retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that meets no Conflict, or Busy."""
        return await self.wait_for(_attempted(attempt))

    def _finished(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody waits for one that was late


async def _attempted(attempt: Callable[[], Awaitable[T]]) -> T:
    clock = asyncio.get_running_loop().time
    # For trying again: one attempt may take longer, a large cluster takes its time.
    deadline = clock() + CONFLICT_DEADLINE
    tries, reconnected = 0, False
    while True:
        try:
            return await attempt()
        except Conflict:
            if clock() > deadline:
                raise Busy from None
            tries += 1
            await pause(tries)
        except DatabaseAway:
            # The pool may hold connections from before a restart; they are thrown away by now.
            if reconnected:
                raise
            reconnected = True
