"""Answers in time: how long to wait for the database, and how often to try again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from identity_graphql.errors import Busy, Conflict, DatabaseUnavailable
from identity_graphql.storage.outage import Outage

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
    """The one way to the database: tries again what can be tried again, for so many seconds and no longer."""

    def __init__(self, timeout: float, outage: Outage) -> None:
        self._timeout = timeout
        self._outage = outage
        self._running: set[asyncio.Future[Any]] = set()

    async def close(self) -> None:
        """Wait for what was given up and is still being cleaned up."""
        if self._running:
            await asyncio.wait(self._running)

    async def retrying(self, attempt: Callable[[], Awaitable[T]], at_most: float | None = None) -> T:
        """The result of the first attempt that meets neither a Conflict nor a lost connection. Raises Busy.

        The answer does not wait until a hung connection is cleaned up.
        """
        seconds, since = at_most or self._timeout, time.monotonic()
        task = asyncio.ensure_future(self.attempted(attempt))
        self._running.add(task)
        task.add_done_callback(self._finished)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise self.late(since, seconds)
        return task.result()

    async def attempted(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """As `retrying`, for those who wait no longer than they want by themselves."""
        # For trying again: one attempt may take longer, a large cluster takes its time.
        deadline = time.monotonic() + CONFLICT_DEADLINE
        tries, reconnected = 0, False
        while True:
            try:
                return await attempt()
            except Conflict as conflict:
                if time.monotonic() > deadline:
                    raise Busy(str(conflict)) from None
                tries += 1
                await pause(tries)  # apart, so that those who collided do not collide again
            except DatabaseUnavailable as error:
                # The pool may hold connections from before a restart; they are thrown away by now.
                # Repeating is safe even if a commit had gone through.
                if reconnected or not error.once_more:
                    self._outage.failed(error)
                    raise
                reconnected = True

    def late(self, since: float, seconds: float) -> Busy:
        """The error for what began at this time, and has no result after so many seconds."""
        busy = Busy(f"no result within {seconds:g} s")
        self._outage.waited(since, busy.cause)
        return busy

    def _finished(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody waits for one that was late
