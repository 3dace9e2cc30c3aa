"""What statistics matter: a server whose database never had any, beside one whose database was analysed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg  # type: ignore[import-untyped]

from benchmarks import load
from benchmarks.client import Connection, connect
from benchmarks.databases import Databases
from benchmarks.figures import Figures, medians
from benchmarks.report import Progress, Table
from benchmarks.speed import Options, labels
from benchmarks.workload import Item, known
from identity_graphql.settings import Settings
from tests.support.servers import Server, pgbouncer
from tests.support.serving import process

CONNECTIONS = 64
POOLED = Settings.model_fields["pool_size"].default
"""Connections that the pooler has to each database: as many as a server has without it."""
CHECKED = ("repeat", "new", "link")
STATISTICS = "SELECT tablename FROM pg_stats WHERE schemaname = 'public'"


async def cold(databases: Databases, options: Options, progress: Progress) -> Table:
    """Two empty databases, autovacuum off, are filled over HTTP. One goes on as it is, its connections and their plans
    from when it was empty; the other is analysed, and served by a new process. Rounds alternate between the two.
    """
    server = databases.server("postgresql")
    return await _measured(server, server.port, options, progress)


async def cold_pooled(databases: Databases, options: Options, progress: Progress) -> Table:
    """The same with a PgBouncer between the servers and PostgreSQL, which gives each transaction any connection."""
    server = databases.server("postgresql")
    with pgbouncer(server, connections=POOLED) as port:
        return await _measured(server, port, options, progress)


async def _measured(server: Server, port: int, options: Options, progress: Progress) -> Table:
    """``port``: of the server itself, or of the pooler in front of it."""
    label, pooled = labels(), port != server.port
    taken: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    with (
        _without_autovacuum(server),
        _database(server, port, "cold") as without,
        _database(server, port, "analysed") as analysed,
    ):
        async with process(without) as first:
            await _fill(first, options.customers, progress, "no statistics")
            async with process(analysed) as address:
                await _fill(address, options.customers, progress, "to be analysed")
            await _fetch(server, "analysed", "ANALYZE")
            async with process(analysed) as second:
                addresses = {"cold": first, "analysed": second}
                for address in addresses.values():  # the second process has nothing prepared yet
                    await load.measure(address, "rest", "mix", options.customers, next(label), CONNECTIONS, 2)
                with progress.task("Cold", options.rounds * len(CHECKED) * 2) as advance:
                    for number in range(options.rounds):
                        for kind in CHECKED:
                            for name in sorted(addresses, reverse=number % 2 == 1):
                                at = (addresses[name], "rest", kind, options.customers, next(label), CONNECTIONS)
                                taken[name, kind].append(await load.measure(*at, options.seconds))
                                advance(1)
        counts = [len(await _fetch(server, name, STATISTICS)) for name in ("cold", "analysed")]
    if not counts[0] == 0 < counts[1]:
        raise RuntimeError("the database that was never analysed has statistics, or the other one none")
    found = {key: medians(rounds) for key, rounds in taken.items()}
    ratios = (f"{found['cold', kind].rate / found['analysed', kind].rate:.2f}" for kind in CHECKED)
    return Table(
        f"Without statistics, PostgreSQL {server.version.split('.')[0]}" + " behind PgBouncer" * pooled,
        ["requests/s; p50 / p99 in ms", *CHECKED],
        [
            ["never analysed", *(_cell(found["cold", kind]) for kind in CHECKED)],
            ["after ANALYZE", *(_cell(found["analysed", kind]) for kind in CHECKED)],
            ["ratio", *ratios],
        ],
        [
            f"{options.customers:,} customers filled in over HTTP into empty databases, autovacuum off; REST, "
            f"{CONNECTIONS} connections, medians of {options.rounds} alternating rounds of {options.seconds} s. "
            "Of the one that was never analysed PostgreSQL has no statistics at the end either."
            + f" The pooler has {POOLED} connections to each, one for every transaction."
            * pooled
        ],
    )


@contextmanager
def _without_autovacuum(server: Server) -> Iterator[None]:
    server.query("ALTER SYSTEM SET autovacuum = off")
    server.query("SELECT pg_reload_conf()")
    yield
    server.query("ALTER SYSTEM RESET autovacuum")
    server.query("SELECT pg_reload_conf()")


@contextmanager
def _database(server: Server, port: int, name: str) -> Iterator[str]:
    """The URL of an empty database, on the server or through the pooler, which is dropped afterwards."""
    server.query(f"CREATE DATABASE {name}")
    through = server.url(name).replace(f":{server.port}/", f":{port}/")
    yield through if port == server.port else f"{through}?pgbouncer=true"
    server.query(f"DROP DATABASE {name} WITH (FORCE)")


def _cell(f: Figures) -> str:
    return f"{f.rate:,.0f}; {f.p50:.1f} / {f.p99:.1f}" + (f"; {f.errors} errors" if f.errors else "")


async def _fill(address: str, customers: int, progress: Progress, name: str) -> None:
    """Make the customers known over HTTP, one request each."""
    with progress.task(f"Fill over HTTP ({name})", customers + -(-customers // 3)) as advance:

        def items() -> Iterator[Item]:
            for item in known(customers):
                advance(1)
                yield item

        latencies: list[float] = []
        shared = items()
        connections = [
            await connect(address, lambda: Connection("rest", shared, None, latencies)) for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(connection.done for connection in connections))
    if errors := sum(connection.errors for connection in connections):
        raise RuntimeError(f"{errors} requests failed")


async def _fetch(server: Server, database: str, statement: str) -> list[asyncpg.Record]:
    client = await asyncpg.connect(host="127.0.0.1", port=server.port, user="postgres", database=database)
    try:
        return list(await client.fetch(statement))
    finally:
        await client.close()
