"""The benchmarks measure what they say: the same customers for everybody, no answer that is none, nobody refused."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from benchmarks import beside, cold, hot, limit, load, report, workload
from benchmarks.databases import Databases as BenchmarkDatabases
from benchmarks.figures import Figures, figures, medians
from benchmarks.report import Progress
from benchmarks.speed import Options
from identity_graphql.domain.events import EventKind
from identity_graphql.domain.identifiers import Normalisation
from identity_graphql.services.identify import IdentityService
from tests.support import servers
from tests.support.databases import Database, Databases, migrate
from tests.support.serving import process

CUSTOMERS = 30


async def customers_of(database: Database) -> set[tuple[str, str, bool]]:
    client = await asyncpg.connect(database.url)
    try:
        rows = await client.fetch("SELECT email, phone_number, link_precedence::text = 'primary' FROM contact")
    finally:
        await client.close()
    return {tuple(row) for row in rows}


async def load_customers(database: Database) -> None:
    await migrate(database)
    storage = database.open()
    service = IdentityService(storage, Normalisation())
    await workload.preload(service, CUSTOMERS, lambda done: None)
    await service.close()
    await storage.close()


async def test_the_limit_knows_the_same_customers_and_answers_the_same_requests(
    postgresql: Database, databases: Databases, tmp_path: Path
) -> None:
    await load_customers(postgresql)
    ours = await customers_of(postgresql)
    with databases.another("postgresql") as beside:
        server, name = databases.server("postgresql"), beside.url.rpartition("/")[2]
        await limit.preload(server, name, CUSTOMERS)
        assert await customers_of(beside) == ours
        assert len(ours) == CUSTOMERS + CUSTOMERS // 3

        repeat = await limit.measure(server, name, "repeat", CUSTOMERS, 1, tmp_path)
        assert await customers_of(beside) == ours
        mix = await limit.measure(server, name, "mix", CUSTOMERS, 1, tmp_path)
    assert (repeat.errors, mix.errors) == (0, 0)
    assert 0 < repeat.p50 <= repeat.p99


@pytest.mark.parametrize("edge", load.EDGES)
@pytest.mark.parametrize("generator", ["wrk", "client.py"])
async def test_a_load_generator_counts_what_was_answered_and_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: str, edge: str
) -> None:
    if generator == "wrk" and not shutil.which("wrk"):
        pytest.skip("no program wrk is installed")
    if generator == "client.py":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    database = Database("sqlite", f"sqlite:///{tmp_path}/bench.db")
    await load_customers(database)
    async with process(database.url) as address:
        new = await load.measure(address, edge, "new", CUSTOMERS, "101", 4, 1)
        refused = await load.measure(address, edge, "new", CUSTOMERS, "x@", 4, 1)  # no phone number has an @

    assert new.errors == 0
    assert refused.errors > 0
    assert 0 < new.p50 <= new.p99
    contacts = len((await database.check())["contact"]) - (CUSTOMERS + CUSTOMERS // 3)
    # What was on its way when the time was over is written, and not counted.
    assert 0.5 * new.rate <= contacts <= 1.5 * new.rate + 4


async def test_nobody_is_refused_who_links_to_a_hot_identifier_through_several_processes(postgresql: Database) -> None:
    await load_customers(postgresql)

    taken = await hot.links_to_one(postgresql.url, "100")

    assert taken.errors == 0
    contacts = (await postgresql.check())["contact"]
    assert sum(contact["phone_number"] == workload.phone(0) for contact in contacts) == 2 + hot.LINKS


async def test_every_verb_is_done_beside_the_links(tmp_path: Path) -> None:
    database = Database("sqlite", f"sqlite:///{tmp_path}/bench.db")
    await load_customers(database)
    scene = beside.Scene("two clusters", "sqlite", writes=20, verbs=10, busy=2)

    rate, verbs, busy, *_, errors = await beside.measured(scene, database.url, "100", 1, lambda done: None)

    assert float(rate) > 0
    assert (verbs, busy, errors) == ("10", "0", "0")
    kinds = {event["kind"] for event in (await database.check())["event"]}
    blocks = {EventKind.BLOCK_IDENTIFIER, EventKind.UNBLOCK_IDENTIFIER}
    reviews = {EventKind.ACCEPT_WITHHELD, EventKind.REJECT_WITHHELD}
    assert kinds == set(EventKind) - blocks - reviews, "of every kind but those that nobody does every day"


def test_figures_are_percentiles_and_medians_hide_no_error() -> None:
    taken = figures([n / 1000 for n in range(1, 101)], seconds=2)

    assert taken == Figures(rate=50, p50=50, p99=99, errors=0)
    assert medians([Figures(1, 1, 9, 1), Figures(3, 3, 3), Figures(2, 2, 1, 4)]) == Figures(2, 2, 3, 5)


def test_a_table_replaces_its_predecessor_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    for title, value in (("A", "1"), ("B", "2"), ("A", "3")):
        report.show(report.Table(title, ["", "x"], [["row", value]], ["note"]))

    written = (tmp_path / "RESULTS.md").read_text()
    assert written.startswith("# Results")
    assert [line for line in written.splitlines() if line.startswith(("## ", "| row"))] == [
        "## A",
        "| row | 3 |",
        "## B",
        "| row | 2 |",
    ]
    assert f"Python {sys.version_info[0]}" in written
    assert "row" in capsys.readouterr().out


@pytest.mark.parametrize("measured", [cold.cold, pytest.param(cold.cold_pooled, marks=pytest.mark.long)])
async def test_a_database_without_statistics_is_measured_beside_one_that_was_analysed(
    tmp_path: Path, measured: Callable[..., Awaitable[report.Table]]
) -> None:
    try:
        with Progress() as progress, BenchmarkDatabases(tmp_path, progress) as databases:
            table = await measured(databases, Options(customers=100, seconds=1, rounds=1), progress)
    except servers.Unavailable as reason:
        servers.skip_or_fail("pgbouncer", reason)
    never, after, ratio = table.rows
    assert [never[0], after[0], ratio[0]] == ["never analysed", "after ANALYZE", "ratio"]
    assert all(float(cell) > 0 for cell in ratio[1:])
    assert not any("error" in cell for cell in (*never, *after))
