"""One customer whom everybody asks for, and nobody at all: what a queue does to the ones in it, and to none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import islice

from benchmarks import load
from benchmarks.client import Connection, connect
from benchmarks.databases import Databases
from benchmarks.figures import Figures, figures, medians
from benchmarks.report import Progress, Table
from benchmarks.speed import Options, labels
from benchmarks.workload import Item, requests
from tests.support.serving import process

CONNECTIONS = 64
PROCESSES = 4
LINKS = 1_280
PAUSE = 0.05  # seconds between the requests of an idle server
IDLE_REQUESTS = 100


async def hot(databases: Databases, options: Options, progress: Progress) -> Table:
    """Repeats of one identifier beside spread ones; links to one identifier through several processes; idle."""
    label = labels()
    taken: dict[str, list[Figures]] = {"repeat": [], "hot": []}
    with progress.task("Hot identifiers", 2 * options.rounds + 2) as advance:
        async with databases.known("postgresql", options.customers) as url, process(url) as address:
            await load.measure(address, "rest", "repeat", options.customers, next(label), CONNECTIONS, 2)
            for _ in range(options.rounds):
                for kind, rounds in taken.items():
                    rounds.append(
                        await load.measure(
                            address, "rest", kind, options.customers, next(label), CONNECTIONS, options.seconds
                        )
                    )
                    advance(1)
            idle = await _one_after_another(address, requests("repeat", options.customers, next(label)))
            advance(1)
        async with databases.known("postgresql", options.customers) as url:
            queue = await links_to_one(url, next(label))
            advance(1)
    spread, same = (medians(rounds) for rounds in taken.values())
    return Table(
        "Hot identifiers",
        ["", "requests/s", "p50 ms", "p99 ms", "errors"],
        [
            [f"repeats of {options.customers:,} customers, {CONNECTIONS} connections", *_cells(spread)],
            [f"repeats of one customer, {CONNECTIONS} connections", *_cells(same)],
            [f"{LINKS:,} links to one phone number, {CONNECTIONS} clients, {PROCESSES} processes", *_cells(queue)],
            [f"one repeat every {PAUSE * 1000:.0f} ms", *_cells(idle)],
        ],
        [
            f"One customer: {same.rate / spread.rate:.2f} of the throughput of many; "
            f"its p99 is {same.p99 / same.p50:.1f} times its p50. REST, medians of {options.rounds} rounds of "
            f"{options.seconds} s; the last two rows are one run.",
        ],
    )


def _cells(f: Figures) -> list[str]:
    return [f"{f.rate:,.0f}", f"{f.p50:.1f}", f"{f.p99:.1f}", str(f.errors)]


async def _one_after_another(address: str, items: Iterator[Item]) -> Figures:
    """Single requests with a pause before each: nothing is under way when they come."""
    latencies: list[float] = []
    started = time.perf_counter()
    connection = await connect(
        address, lambda: Connection("rest", islice(items, IDLE_REQUESTS), None, latencies, pause=PAUSE)
    )
    await connection.done
    return figures(latencies, time.perf_counter() - started, connection.errors)


async def links_to_one(url: str, label: str) -> Figures:
    """New emails with the phone number of customer 0, through processes that know nothing of each other."""
    latencies: list[float] = []
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(process(url, WORKERS="1")) for _ in range(PROCESSES)]
        items = requests("hot link", 1, label)
        started = time.perf_counter()
        connections = [
            await connect(
                addresses[number % PROCESSES],
                lambda: Connection("rest", islice(items, LINKS // CONNECTIONS), None, latencies),
            )
            for number in range(CONNECTIONS)
        ]
        await asyncio.gather(*(connection.done for connection in connections))
        elapsed = time.perf_counter() - started
    return figures(latencies, elapsed, sum(connection.errors for connection in connections))
