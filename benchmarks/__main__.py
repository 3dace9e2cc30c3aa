"""`python -m benchmarks`: how fast it is, on this machine, now."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.backends import backends
from benchmarks.beside import beside
from benchmarks.cold import cold, cold_pooled
from benchmarks.databases import Databases
from benchmarks.edges import edges
from benchmarks.hot import hot
from benchmarks.memory import memory
from benchmarks.past import past
from benchmarks.report import Progress, show
from benchmarks.sizes import clusters, sizes
from benchmarks.speed import Options, speed

TABLES = {
    "speed": speed,
    "hot": hot,
    "cold": cold,
    "cold-pooled": cold_pooled,
    "edges": edges,
    "clusters": clusters,
    "past": past,
    "beside": beside,
    "memory": memory,
    "backends": backends,
    "sizes": sizes,
}

HELP = """Measure, print tables, and keep the last of each in benchmarks/RESULTS.md.

\b
python -m benchmarks                            the main table: against the limit, through REST and GraphQL
python -m benchmarks speed --seconds 1 --rounds 1     the same in a minute, roughly
python -m benchmarks hot edges clusters         others, a few minutes together
python -m benchmarks all                        every one; about an hour, half of it for a million contacts

Nothing else should run meanwhile. It starts its own servers and databases, durable ones, and removes them."""


def main(
    tables: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(TABLES)}, or all.")] = None,
    customers: Annotated[int, typer.Option(min=100, help="How many are known before.")] = Options.customers,
    seconds: Annotated[int, typer.Option(min=1, help="Length of one measurement.")] = Options.seconds,
    rounds: Annotated[int, typer.Option(min=1, help="How often; the table has the medians.")] = Options.rounds,
) -> None:
    chosen = list(TABLES) if tables == ["all"] else tables or ["speed"]
    if unknown := set(chosen) - set(TABLES):
        raise typer.BadParameter(f"there is no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    asyncio.run(measure(chosen, Options(customers=customers, seconds=seconds, rounds=rounds)))


async def measure(chosen: list[str], options: Options) -> None:
    for name in chosen:
        with (
            tempfile.TemporaryDirectory() as folder,
            Progress() as progress,
            Databases(Path(folder), progress) as databases,
        ):
            table = await TABLES[name](databases, options, progress)
        show(table)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(main)
    app()
