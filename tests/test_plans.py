"""Every look-up is by an index, whatever the database knows of its tables: nothing, or what was true of a few rows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.events import EventFilter, EventKind
from identity_graphql.domain.identifiers import Given, Identifier, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.state import WithheldFilter
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.verification import verify
from identity_graphql.storage import Storage, statements
from tests.support.databases import TABLES, Database, Databases, migrate
from tests.support.identifiers import email, pair_of
from tests.support.replayed import pair_row
from tests.support.stewards import Steward

FEW, MANY = 8, 2_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BY_KEY = re.compile(
    r"\b(id|linked_id|contact_id|other_id|(other_)?value|email|phone_number|seq|primary_id)\)?(::text)? [=<>]"
)
"""A condition on what tells rows apart: a kind does not, and neither does that something is null or not."""

DELETED = EventFilter(kinds=frozenset({EventKind.DELETE_CONTACT}))
BY_ACTOR = EventFilter(actor="steward")
DURING = EventFilter(since=NOW, until=datetime(2100, 1, 1, tzinfo=UTC))
Sent = dict[str, Sequence[Any]]
"""Statements as the driver gets them, each with the parameters that came with it first"""


class Recorder:
    """Notes what is sent, and which of the shared statements were among it."""

    def __init__(self) -> None:
        self.sent: Sent = {}
        self.used: set[object] = set()

    def note(
        self, connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self.sent.setdefault(statement, parameters[0] if many else parameters)
        if context.compiled is not None:
            self.used.add(context.compiled.statement)

    @contextmanager
    def recording(self) -> Iterator[None]:
        sa.event.listen(sa.Engine, "before_cursor_execute", self.note)
        try:
            yield
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", self.note)


async def everything(storage: Storage) -> None:
    """Use all that the storage can do, but for what goes through whole tables."""
    steward, archive = Steward(storage), HistoryService(storage)
    device = ("device_id", "D-1")
    await steward.requests(("a@x.io", "100001"), ("b@x.io", "100001"), ("b@x.io", "100002"), ("c@x.io", "100003"))
    await steward.requests(("a@x.io", "100003"), ("d@x.io", None), (None, "100004"), ("d@x.io", "100004"))
    await steward.service.preview(Given(email="a@x.io", phone_number="100005"))
    async with storage.attempt([1]) as attempt:
        await attempt.bans([1, 4])
    await steward.split(2)
    await steward.identify("b@x.io", "100003")  # withheld
    await storage.withheld_by([email("b@x.io")])
    await steward.unban(1, 2)
    await steward.identify("b@x.io", "100003")  # believed
    await steward.undo((await steward.merge(1, 5)).event.seq)
    await steward.ban(email("a@x.io"), email("d@x.io"))
    await steward.delete(3)
    await steward.restore(3)
    for number in range(10):  # a large cluster, and one that is large no longer
        large = (await steward.identify(f"l{number}@x.io", "100009")).cluster
    await steward.delete(large.contacts[-1].id)
    await steward.service.check_normalisation()
    more = IdentityService(storage, Normalisation(kinds=Kinds.parse('{"device_id": {"limit": 1}, "card": {}}')))
    for said in ([device, ("email", "a@x.io"), ("email", "z@x.io")], [("card", "C"), device], [("card", "C")]):
        await more.identify(Given(identifiers=said))  # found with all kinds, however many
    await more.cluster(Identifier(*device))
    await more.close()
    await steward.service.check_ready()
    await steward.service.contacts([1, 2])
    await steward.service.clusters_of([1, 2])
    await steward.service.page_of_contacts(after=0, limit=10)
    await steward.service.page_of_clusters(after=0, limit=10)
    await archive.event(1)
    for wanted in (EventFilter(), DELETED, BY_ACTOR, DURING):
        await archive.page_of_events(wanted, after=0, limit=10)
    await archive.page_of_withheld(WithheldFilter(), after=(0, 0), limit=10)
    # Not those of all limits, and not how many a ban kept back: both may go through the others as well.
    for kept in (WithheldFilter(False), WithheldFilter(None, "device_id")):
        await archive.page_of_withheld(kept, after=(0, 0), limit=10)
    await archive.count_withheld(WithheldFilter(None, "device_id"))
    await archive.page_of_bans(after=(0, 0, 0), limit=10)
    await storage.largest("", least=5, behind=(9, 5), limit=10)
    await storage.last_changed(before=100, limit=10)
    await archive.kept_apart([(1, 4)])
    await archive.events([1, 2])
    await archive.of(email("a@x.io"))
    assert await storage.wait_for_event(1)
    await storage.newest_event(1)
    await storage.contact_ids(after=0, limit=10, born=NOW)
    await steward.block(email("d@x.io"), retract=True)
    await archive.page_of_blocked(after=0, limit=10)
    await steward.unblock(email("d@x.io"))
    await steward.erase(email("c@x.io"))
    await steward.erase_cluster(1)
    await steward.close()
    await archive.close()


async def verified(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go through the log and look up its rows, until it goes through whole tables."""

    class Enough(Exception):
        pass

    async def enough(connection: AsyncConnection) -> None:
        raise Enough

    with monkeypatch.context() as patch:
        patch.setattr(storage.dialect, "allow_full_scans", enough)
        with pytest.raises(Enough):
            await verify(storage, lambda difference: None)


@pytest.fixture
async def sent(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """All that is sent to look something up, or to write it."""
    recorder = Recorder()
    with recorder.recording():
        await everything(storage)
        await verified(storage, monkeypatch)
    return recorder


@pytest.fixture
async def fresh(database: Database, databases: Databases) -> AsyncIterator[Database]:
    """Another database of this kind that nobody has used yet."""
    with databases.another(database.name) as made:
        await migrate(made)
        yield made


@pytest.fixture
async def unknown(fresh: Database) -> AsyncIterator[Storage]:
    """Its storage. The server does not look by itself at what is in its tables."""
    storage = fresh.open()
    never = {"postgresql": "SET (autovacuum_enabled = off)", "mariadb": "STATS_PERSISTENT = 1 STATS_AUTO_RECALC = 0"}
    if fresh.name in never:
        await run(storage, *(f"ALTER TABLE {table.name} {never[fresh.name]}" for table in TABLES))
    yield storage
    await storage.close()


async def run(storage: Storage, *commands: str) -> None:
    async with storage.transaction() as connection:
        for command in commands:
            await connection.execute(sa.text(command))


def row(n: int) -> dict[str, dict[str, Any]]:
    """A row of every table. Every fourth contact is a primary, and the next three are its secondaries."""
    primary = n - n % 4
    values = {"email": f"u{n}@x.io", "phone_number": f"+1555{primary:06}"}
    return {
        "contact": {
            **values,
            "id": n,
            "linked_id": None if n == primary else primary,
            "created_at": NOW,
            "updated_at": NOW,
            "version": 1,
            "changed_at": NOW,
        },
        "identifier": {"kind": "email", "value": values["email"], "contact_id": n},
        "pair": {**pair_row(pair_of(**values)), "seq": n},
        "event": {
            **values,
            "seq": n,
            "at": NOW,
            "kind": "identify",
            "outcome": "LINKED",
            "raw": {},
            "norm": "1",
            "contact_id": n,
            "primary_id": primary,
            "demoted": [],
            "version_before": 0,
            "version_after": 1,
        },
        "withheld_pair": {**pair_row(pair_of(values["email"], "+1777")), "seq": n, "banned": False},
        "ban": {"contact_id": n, "other_id": n + 1, "seq": n},
        "event_contact": {"contact_id": n, "seq": n},
        "former_claim": {"kind": "email", "value": values["email"], "contact_id": n},
        "cluster_count": {"primary_id": n, "kind": "", "count": 10 + n % 90},
    }


async def fill(storage: Storage, numbers: Iterable[int]) -> None:
    rows = [row(n) for n in numbers]
    async with storage.transaction() as connection:
        for table in TABLES:
            await connection.execute(table.insert(), [tables[table.name] for tables in rows])


def postgresql_faults(plan: dict[str, Any], above: str = "") -> Iterator[str]:
    """The steps of a plan that go through a table, or through much of one."""
    kind, condition = plan["Node Type"], plan.get("Index Cond", "")
    reads = kind in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan")
    first = above == "Limit" and "Filter" not in plan  # in the order of the index, and as many as are wanted
    if reads and not BY_KEY.search(condition) and not first:
        yield f"{kind} of {plan.get('Relation Name') or plan.get('Index Name')} by {condition or 'nothing'}"
    for step in plan.get("Plans", ()):
        yield from postgresql_faults(step, kind)


def mariadb_faults(plan: sa.Row[Any]) -> Iterator[str]:
    if not plan.table or plan.table.startswith("<") or "Table function" in (plan.Extra or ""):
        return
    if plan.type in ("ALL", "index") or plan.key_len == KIND_ALONE:
        yield f"{plan.type} of {plan.table} by {plan.key or 'nothing'}"


KIND_ALONE = "130"  # bytes: thirty-two characters of four, and their length


def sqlite_faults(plan: sa.Row[Any]) -> Iterator[str]:
    if re.match(r"SCAN (?!touched|waiting|sought|members|other VIRTUAL|of_kind|CONSTANT)|.*\(kind=\?\)", plan.detail):
        yield plan.detail


async def faults(name: str, storage: Storage, sent: Sent) -> dict[str, list[str]]:
    """What is wrong with the plans, by statement."""
    found: dict[str, list[str]] = {}
    async with storage.reading() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for statement, parameters in sent.items():
            if not any(re.search(rf"\b{table.name}\b", statement) for table in TABLES) or reads_first(statement):
                continue
            if name == "postgresql":
                # Without values: it plans once, for all of them.
                await driver.execute(f"PREPARE plan AS {statement}")
                count = len(set(re.findall(r"\$\d+", statement)))
                given = f"({', '.join(['NULL'] * count)})" if count else ""
                plan = await driver.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE plan{given}")
                await driver.execute("DEALLOCATE plan")
                wrong = list(postgresql_faults(plan[0]["Plan"]))
            elif not statement.startswith("INSERT"):
                explain, check = EXPLAIN[name]
                rows = await connection.exec_driver_sql(f"{explain} {statement}", tuple(parameters))
                wrong = [fault for step in rows for fault in check(step)]
            else:
                wrong = []
            if wrong:
                found[" ".join(statement.split())] = wrong
    return found


EXPLAIN: dict[str, tuple[str, Callable[[Any], Iterator[str]]]] = {
    "mariadb": ("EXPLAIN", mariadb_faults),
    "sqlite": ("EXPLAIN QUERY PLAN", sqlite_faults),
}


def reads_first(statement: str) -> bool:
    """Whether it takes the first rows as they come; or counts all of them, as `verify` does once."""
    return "WHERE" not in statement and bool(re.search(r"LIMIT|max\(|count\(\*\)", statement))


def test_the_rule_knows_an_index_that_finds_rows_from_one_that_only_orders_them() -> None:
    for condition in ("(id = ANY ($1))", "(((kind)::text = $1) AND ((value)::text = ANY ($2)))", "(seq > $1)"):
        assert not list(postgresql_faults({"Node Type": "Index Scan", "Index Cond": condition}))
    for condition in ("((kind)::text = ($1)::text)", "(linked_id IS NULL)", ""):
        assert list(postgresql_faults({"Node Type": "Index Scan", "Index Cond": condition}))
    scan = {"Node Type": "Seq Scan", "Relation Name": "pair"}
    assert not list(postgresql_faults({"Node Type": "Limit", "Plans": [scan]}))
    assert list(postgresql_faults({"Node Type": "Limit", "Plans": [{**scan, "Filter": "(seq = 1)"}]}))


async def test_every_shared_statement_is_among_those_that_are_examined(sent: Recorder, database: Database) -> None:
    shared = {
        name: value for name, value in vars(statements).items() if isinstance(value, sa.Executable) and name[0] != "_"
    }
    # What they do is part of the one statement that writes there; and where there is one writer, nobody queues by rows.
    elsewhere = {"postgresql": {"BELIEVE", "RELINK", "SWAP"}, "sqlite": {"HEADS"}}.get(database.name, set())

    assert {name for name, statement in shared.items() if statement not in sent.used} == elsewhere


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_postgresql_plans_look_ups_by_index_whatever_it_knows(sent: Recorder, unknown: Storage) -> None:
    async def check(known: str) -> None:
        assert await faults("postgresql", unknown, sent.sent) == {}, known

    await check("of tables that are empty, nothing")
    await fill(unknown, range(4, MANY))
    await check("of thousands of rows, nothing")
    await run(unknown, f"TRUNCATE {', '.join(table.name for table in TABLES)}", "ANALYZE")
    await check("of tables that are empty, that they are")
    await fill(unknown, range(4, 4 + FEW))
    await run(unknown, "ANALYZE")
    await check("of a few rows, all")
    await fill(unknown, range(4 + FEW, MANY))
    await check("of thousands of rows, what was true of a few")
    await run(unknown, "ANALYZE")
    await check("of thousands of rows, all")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_postgresql_finds_what_stewards_did_by_indexes_that_have_nothing_else(
    sent: Recorder, unknown: Storage
) -> None:
    by_actor = {text: "event.actor =" in text for text in sent.sent if "of_kind_7" in text}
    assert sorted(by_actor.values()) == [False, True]

    async def check(known: str) -> None:
        async with unknown.reading() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            for statement, is_by_actor in by_actor.items():
                await driver.execute(f"PREPARE plan AS {statement}")
                given = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", statement))))
                plan = await driver.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE plan ({given})")
                await driver.execute("DEALLOCATE plan")
                used = set(re.findall(r"'Index Name': '(\w+)'", str(plan)))
                assert used == {"ix_event_actor_kind_seq" if is_by_actor else "ix_event_kind_seq"}, known

    await check("of tables that are empty, nothing")
    await fill(unknown, range(4, 4 + FEW))
    await run(unknown, "ANALYZE")
    await check("of a few rows, all")
    await fill(unknown, range(4 + FEW, MANY))
    await check("of thousands of rows, what was true of a few")
    await run(unknown, "ANALYZE")
    await check("of thousands of rows, all")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_sqlite_finds_what_stewards_did_by_indexes_that_have_nothing_else(
    sent: Recorder, unknown: Storage
) -> None:
    await fill(unknown, range(4, MANY))
    used: dict[bool, set[str]] = {}
    async with unknown.reading() as connection:
        for statement, parameters in sent.sent.items():
            if "of_kind_7" in statement:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", tuple(parameters))
                steps = [step.detail for step in plan if step.detail.startswith("SEARCH")]
                used["event.actor =" in statement] = {re.sub(r".* INDEX (\w+) .*", r"\1", step) for step in steps}

    assert used == {False: {"ix_event_kind_seq"}, True: {"ix_event_actor_kind_seq"}}


@pytest.mark.parametrize(
    ("database", "known"),
    # Nobody tells SQLite to look at its tables.
    [("mariadb", "nothing"), ("mariadb", "what was true of a few"), ("sqlite", "nothing")],
    indirect=["database"],
)
async def test_the_others_look_up_among_thousands_of_rows_by_index_whatever_they_know(
    sent: Recorder, unknown: Storage, fresh: Database, known: str
) -> None:
    await fill(unknown, range(4, 4 + FEW))
    if known != "nothing":
        await run(unknown, f"ANALYZE TABLE {', '.join(table.name for table in TABLES)}")
    await fill(unknown, range(4 + FEW, MANY))

    assert await faults(fresh.name, unknown, sent.sent) == {}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_whole_tables_are_read_only_where_that_is_allowed(storage: Storage) -> None:
    scans = sa.text("SELECT current_setting('enable_seqscan')")
    async with storage.transaction() as connection:
        before = await connection.scalar(scans)
        await storage.dialect.allow_full_scans(connection)
        allowed = await connection.scalar(scans)
    async with storage.transaction() as connection:
        after = await connection.scalar(scans)

    assert (before, allowed, after) == ("off", "on", "off")
