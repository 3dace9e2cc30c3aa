"""The main table: requests per second and latency, side by side with the limit, in one run."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import limit, load
from benchmarks.databases import Databases
from benchmarks.figures import Figures, medians
from benchmarks.report import Progress, Table
from benchmarks.workload import KINDS
from tests.support.serving import process

CONNECTIONS = (1, 16, 64)
CALLERS = 64
LIMIT, SERVICE = f"limit: pgbench, {limit.CLIENTS} clients", f"service without HTTP, {CALLERS} callers"


@dataclass(frozen=True)
class Options:
    """How long and how often, with how many known customers."""

    customers: int = 20_000
    seconds: int = 8
    rounds: int = 3


def labels() -> Iterator[str]:
    """What keeps the new identifiers of every measurement apart."""
    return (f"{number:03}" for number in itertools.count(100))


async def speed(databases: Databases, options: Options, progress: Progress) -> Table:
    """Medians of alternating rounds; every system begins every round with the same known customers."""
    taken: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    label, server = labels(), databases.server("postgresql")
    steps = options.rounds * len(KINDS) * (2 + len(load.EDGES) * len(CONNECTIONS))
    with progress.task("Speed", steps) as advance:

        def note(system: str, kind: str, figures: Figures) -> None:
            taken[system, kind].append(figures)
            progress.say(f"{system}: {kind} {figures.rate:,.0f}/s")
            advance(1)

        for _ in range(options.rounds):
            async with databases.limit(options.customers) as name:
                for kind in KINDS:
                    note(
                        LIMIT,
                        kind,
                        await limit.measure(server, name, kind, options.customers, options.seconds, databases.folder),
                    )
            async with databases.known("postgresql", options.customers) as url:
                for kind in KINDS:
                    note(
                        SERVICE,
                        kind,
                        await load.service(url, kind, options.customers, next(label), CALLERS, options.seconds),
                    )
            for edge in load.EDGES:
                async with databases.known("postgresql", options.customers) as url, process(url) as address:
                    await load.measure(address, edge, "repeat", options.customers, next(label), 64, 2)  # warm up
                    for kind, connections in itertools.product(KINDS, CONNECTIONS):
                        figures = await load.measure(
                            address, edge, kind, options.customers, next(label), connections, options.seconds
                        )
                        note(f"{load.NAMES[edge]}, {connections} connections", kind, figures)
    return table(taken, options)


def table(taken: dict[tuple[str, str], list[Figures]], options: Options) -> Table:
    """The medians, each beside its ratio to the limit of its column."""
    systems = list(dict.fromkeys(system for system, _ in taken))
    middle = {key: medians(rounds) for key, rounds in taken.items()}
    rows = [[system, *(_cell(middle[system, kind], middle[LIMIT, kind].rate) for kind in KINDS)] for system in systems]
    return Table(
        "Speed",
        ["", *KINDS],
        rows,
        [
            "Requests per second (and of the limit); p50 / p99 in ms; errors, if there were any. "
            f"{options.customers:,} customers, medians of {options.rounds} rounds of {options.seconds} s, "
            f"load by {load.generator()}. Mix: 70 % repeat, 15 % new, 13 % link, 2 % merge.",
            "The limit is one call of a PL/pgSQL function per transaction (limit.sql), without HTTP, without a log "
            "of events, without versions. PostgreSQL is durable (fsync, synchronous_commit) in every row.",
        ],
    )


def _cell(figures: Figures, limit_rate: float) -> str:
    text = f"{figures.rate:,.0f} ({figures.rate / limit_rate:.2f}); {figures.p50:.1f} / {figures.p99:.1f}"
    return f"{text}; {figures.errors} errors" if figures.errors else text
