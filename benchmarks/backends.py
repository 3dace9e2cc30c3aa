"""The three databases side by side, each durable."""

from __future__ import annotations

from collections import defaultdict

from benchmarks import load
from benchmarks.databases import Databases
from benchmarks.figures import Figures, medians
from benchmarks.report import Progress, Table
from benchmarks.speed import CALLERS, Options, labels
from benchmarks.workload import KINDS
from tests.support.serving import process

BACKENDS = ("postgresql", "mariadb", "sqlite")
CONNECTIONS = 64


async def backends(databases: Databases, options: Options, progress: Progress) -> Table:
    """The service without HTTP and REST on every database, in alternating rounds."""
    label = labels()
    taken: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    with progress.task("Databases", options.rounds * len(BACKENDS) * 2 * len(KINDS)) as advance:
        for _ in range(options.rounds):
            for name in BACKENDS:
                async with databases.known(name, options.customers) as url:
                    for kind in KINDS:
                        figures = await load.service(
                            url, kind, options.customers, next(label), CALLERS, options.seconds
                        )
                        taken[f"{name}: service, {CALLERS} callers", kind].append(figures)
                        advance(1)
                    async with process(url) as address:
                        for kind in KINDS:
                            figures = await load.measure(
                                address, "rest", kind, options.customers, next(label), CONNECTIONS, options.seconds
                            )
                            taken[f"{name}: REST, {CONNECTIONS} connections", kind].append(figures)
                            advance(1)
    systems = sorted(dict.fromkeys(system for system, _ in taken), key=lambda system: system.partition(":")[2])
    middle = {key: medians(rounds) for key, rounds in taken.items()}
    return Table(
        "Databases",
        ["", *KINDS],
        [[system, *(_cell(middle[system, kind]) for kind in KINDS)] for system in systems],
        [
            "Requests per second; p50 / p99 in ms; errors, if there were any. "
            f"{options.customers:,} customers, medians of {options.rounds} rounds of {options.seconds} s. "
            "SQLite is served by one process, the others by one per core."
        ],
    )


def _cell(figures: Figures) -> str:
    text = f"{figures.rate:,.0f}; {figures.p50:.1f} / {figures.p99:.1f}"
    return f"{text}; {figures.errors} errors" if figures.errors else text
