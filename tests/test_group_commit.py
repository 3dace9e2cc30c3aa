"""The queue of requests: who shares a batch, who is refused, and who is no longer waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from identity_graphql.services.group_commit import GroupCommit, QueueFull


class Slow:
    """Settles a batch when it is told to, and remembers each."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Semaphore(0)

    async def run_batch(self, items: Sequence[str], futures: Sequence[asyncio.Future[str]]) -> None:
        self.batches.append(list(items))
        await self.gate.acquire()
        for item, future in zip(items, futures, strict=True):
            if not future.done():
                future.set_result(item.upper())

    def queue(self, *, largest: int = 4, most: int = 100, longest: float = 60) -> GroupCommit[str, str]:
        return GroupCommit(self.run_batch, largest_batch=largest, most_waiting=most, longest_wait=longest)


async def test_the_first_goes_at_once_and_the_next_batch_is_who_came_meanwhile() -> None:
    slow = Slow()
    queue = slow.queue()
    futures = [*queue.join(["a"])]
    await asyncio.sleep(0)
    for item in "bcdefg":
        futures += queue.join([item])
    for _ in range(3):
        slow.gate.release()

    assert await asyncio.gather(*futures) == list("ABCDEFG")
    assert slow.batches == [["a"], ["b", "c", "d", "e"], ["f", "g"]]


async def test_who_joined_together_stays_together() -> None:
    slow = Slow()
    queue = slow.queue(largest=4)
    futures = [*queue.join(["a"])]
    await asyncio.sleep(0)
    for together in (["b", "c"], ["d", "e", "f"], ["g"] * 9):
        futures += queue.join(together)
    for _ in range(4):
        slow.gate.release()
    await asyncio.gather(*futures)

    assert slow.batches == [["a"], ["b", "c"], ["d", "e", "f"], ["g"] * 9]


async def test_those_who_come_back_after_a_batch_share_the_next_one() -> None:
    """Although the first of them is there before the others."""
    slow = Slow()
    queue = slow.queue()
    slow.gate.release()
    await queue.join(["alone"])[0]
    together = queue.join(["a", "b", "c"])

    async def come_back(future: asyncio.Future[str], turns: int) -> str:
        item = await future
        for _ in range(turns):
            await asyncio.sleep(0)
        return await queue.join([item])[0]

    tasks = [asyncio.create_task(come_back(future, turns)) for turns, future in enumerate(together)]
    for _ in range(2):
        slow.gate.release()

    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == ["A", "B", "C"]
    assert slow.batches == [["alone"], ["a", "b", "c"], ["A", "B", "C"]]


async def test_more_than_the_queue_holds_is_refused() -> None:
    slow = Slow()
    queue = slow.queue(most=3)
    queue.join(["a"])
    await asyncio.sleep(0)
    queue.join(["b", "c"])

    with pytest.raises(QueueFull):
        queue.join(["d", "e"])

    queue.join(["d"])
    for _ in range(2):
        slow.gate.release()
    await queue.drain()
    assert slow.batches == [["a"], ["b", "c", "d"]]


async def test_nobody_is_taken_behind_one_who_waits_too_long() -> None:
    """Else, under more load than can be served, everybody would be served too late."""
    slow = Slow()
    queue = slow.queue(longest=0.05)
    queue.join(["a"])
    await asyncio.sleep(0)
    queue.join(["b"])
    await asyncio.sleep(0.1)

    with pytest.raises(QueueFull):
        queue.join(["c"])

    for _ in range(2):
        slow.gate.release()
    await queue.drain()
    (future,) = queue.join(["d"])
    slow.gate.release()
    assert await future == "D"


async def test_who_has_stopped_waiting_is_not_settled() -> None:
    slow = Slow()
    queue = slow.queue()
    queue.join(["a"])
    await asyncio.sleep(0)
    gone, _, other = queue.join(["b", "c", "d"])
    (alone,) = queue.join(["e"])
    gone.cancel()
    other.set_result("answered already")
    alone.cancel()
    for _ in range(2):
        slow.gate.release()
    await queue.drain()

    assert slow.batches == [["a"], ["c"]]


async def test_a_batch_that_breaks_leaves_nobody_waiting() -> None:
    async def broken(items: Sequence[str], futures: Sequence[asyncio.Future[str]]) -> None:
        futures[0].set_result("A")

    queue = GroupCommit[str, str](broken, largest_batch=9, most_waiting=9, longest_wait=9)
    first, second = queue.join(["a", "b"])

    assert await first == "A"
    with pytest.raises(asyncio.CancelledError):
        await second
