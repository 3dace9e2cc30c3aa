"""The migrations: one tree for three databases, applied by the program and by Alembic's own command line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.util import await_only

from identity_graphql.domain.events import EventFilter, EventKind, IdentifyEvent
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.errors import ConfigurationError
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.verification import verify
from identity_graphql.settings import Settings
from identity_graphql.storage import Storage, migrations
from identity_graphql.storage.tables import metadata
from tests.support.databases import Database, Databases, Dump, Tables
from tests.support.databases import tables_of as rows_of
from tests.support.identifiers import email, phone_number
from tests.support.stewards import Steward, working

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
TABLES = {
    "contact",
    "identifier",
    "pair",
    "event",
    "withheld_pair",
    "ban",
    "event_contact",
    "former_claim",
    "rule_set",
    "cluster_count",
}


@pytest.fixture
async def storage(unmigrated: Database) -> AsyncIterator[Storage]:
    storage = unmigrated.open()
    yield storage
    await storage.close()


@pytest.fixture
def alembic_copy(tmp_path: Path) -> Path:
    """A checkout whose migrations a test may change."""
    checkout = tmp_path / "checkout"
    for name in ("alembic", "identity_graphql"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    return checkout


async def inspect(storage: Storage, question: Callable[[sa.Connection], T]) -> T:
    async with storage.transaction() as connection:
        return await connection.run_sync(question)


async def ask(storage: Storage, statement: str) -> list[tuple[Any, ...]]:
    async with storage.transaction() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(statement))]


async def tables_of(storage: Storage) -> set[str]:
    return set(await inspect(storage, lambda connection: sa.inspect(connection).get_table_names()))


async def differences(storage: Storage) -> list[Any]:
    """Between the database and what the program declares."""

    def compare(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, metadata))

    return await inspect(storage, compare)


def program(url: str, *arguments: str, folder: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**clean, "DATABASE_URL": url, **{name.upper(): value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def alembic(url: str, *arguments: str, folder: Path = ROOT) -> str:
    """Alembic's own command line."""
    result = program(url, "-m", "alembic", *arguments, folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# --- the schema ---


async def test_the_migrations_make_what_the_program_declares(storage: Storage) -> None:
    await storage.migrate()
    assert await differences(storage) == []
    assert await tables_of(storage) == {*TABLES, "alembic_version"}


async def test_alembics_commands_work_from_the_checkout(unmigrated: Database) -> None:
    alembic(unmigrated.url, "upgrade", "head")
    assert "No new upgrade operations" in alembic(unmigrated.url, "check")
    alembic(unmigrated.url, "downgrade", "base")
    storage = unmigrated.open()
    assert await tables_of(storage) == {"alembic_version"}
    await storage.close()


async def test_every_revision_goes_down_and_up_again_twice(storage: Storage) -> None:
    await storage.migrate()
    revisions = list(ScriptDirectory.from_config(migrations.configuration()).walk_revisions())

    for _ in range(2):
        for move, steps in ((command.downgrade, "-1"), (command.upgrade, "+1")):
            for _ in revisions:
                async with storage.migrating() as connection:
                    await connection.run_sync(step, move, steps)
            assert await tables_of(storage) - {"alembic_version"} == (TABLES if steps == "+1" else set())
        assert await differences(storage) == []


def step(connection: sa.Connection, move: Callable[..., None], to: str) -> None:
    configuration = migrations.configuration()
    configuration.attributes["connection"] = connection
    move(configuration, to)


async def go_down(storage: Storage, to: str) -> None:
    async with storage.migrating() as connection:
        await connection.run_sync(step, command.downgrade, to)


async def test_a_log_from_before_there_were_stewards_is_theirs_after_the_upgrade(
    storage: Storage, unmigrated: Database
) -> None:
    await storage.migrate()
    steward = Steward(storage)
    await steward.requests(
        ("a@x.io", "111"), ("b@x.io", "222"), ("a@x.io", "222"), ("b@x.io", "111"), ("c@x.io", "111")
    )
    before = await unmigrated.dump()
    await go_down(storage, "0001")
    assert await tables_of(storage) == {"contact", "identifier", "pair", "event", "alembic_version"}
    assert len(await ask(storage, "SELECT * FROM event")) == 5

    await storage.migrate()

    assert await unmigrated.dump() == before
    await unmigrated.check()
    history = (await HistoryService(storage).of_contacts([1])).histories.clusters[1]
    assert [event.outcome for event in history if isinstance(event, IdentifyEvent)] == [
        "CREATED",
        "CREATED",
        "MERGED",
        "OBSERVED",
        "LINKED",
    ]
    await steward.split(3)
    await steward.undo(4)
    assert await steward.clusters() == [[1, 2], [3]]
    await unmigrated.check()
    await steward.close()


# Three verbs of the log as revision 0003 has them, and as they are now: pairs are of any two identifiers since 0004,
# and an undo bans several of them since 0005.
VERBS = {
    "split_cluster": (
        {
            "asked": {
                "verb": "split_cluster",
                "contact_ids": [2],
                "identifiers": [{"kind": "phone_number", "value": "111"}],
                "ban": True,
            },
            "changes": {
                "claims": [["phone_number", "111", 2]],
                "pairs": [["a@x.io", "111", None]],
                "bans": [[1, 2, 0]],
            },
            "about": [2],
        },
        {
            "asked": {
                "verb": "split_cluster",
                "contact_ids": [2],
                "identifiers": [["phone_number", "111"]],
                "ban": True,
            },
            "changes": {
                "claims": [[["phone_number", "111"], 2]],
                "pairs": [[[["email", "a@x.io"], ["phone_number", "111"]], None]],
                "bans": [[1, 2, 0]],
            },
            "about": [2],
        },
    ),
    "undo": (
        {
            "asked": {"verb": "undo", "event": 1, "pair": ["a@x.io", "111"], "contacts": None},
            "changes": {"withheld": [["a@x.io", "111", 0, True]], "claims": [["email", "a@x.io", None]]},
            "about": [1],
            "born": [[3, 4]],
        },
        {
            "asked": {
                "verb": "undo",
                "event": 1,
                "pairs": [[["email", "a@x.io"], ["phone_number", "111"]]],
                "contacts": None,
            },
            "changes": {
                "withheld": [[[["email", "a@x.io"], ["phone_number", "111"]], 0, True]],
                "claims": [[["email", "a@x.io"], None]],
            },
            "about": [1],
            "born": [[3, 4]],
        },
    ),
    "delete_contact": (
        {
            "asked": {"verb": "delete_contact", "contact_id": 1},
            "changes": {"parked": [[1, "a@x.io", "111", 7]]},
            "about": [1],
        },
        {
            "asked": {"verb": "delete_contact", "contact_id": 1},
            "changes": {"parked": [[1, [["email", "a@x.io"], ["phone_number", "111"]], 7]]},
            "about": [1],
        },
    ),
}


async def test_what_the_log_says_of_verbs_is_rewritten_and_back(storage: Storage) -> None:
    await storage.migrate()
    await go_down(storage, "0003")
    old = sa.table("event", *(sa.column(column.name, column.type) for column in metadata.tables["event"].columns))
    about = {"at": datetime(2026, 1, 1, tzinfo=UTC), "outcome": "DONE", "raw": {}, "norm": "1", "demoted": []}
    versions = {"primary_id": 1, "version_before": 0, "version_after": 1}
    async with storage.transaction() as connection:
        for kind, (before, _) in VERBS.items():
            await connection.execute(old.insert().values(kind=kind, detail=before, **about, **versions))

    for _ in range(2):
        await storage.migrate()
        assert await documents(storage) == {kind: after for kind, (_, after) in VERBS.items()}
        await go_down(storage, "0003")
        assert await documents(storage) == {kind: before for kind, (before, _) in VERBS.items()}


async def documents(storage: Storage) -> dict[str, Any]:
    event = metadata.tables["event"]
    async with storage.reading() as connection:
        rows = await connection.execute(sa.select(event.c.kind, event.c.detail).where(event.c.kind != "identify"))
        return {row.kind: row.detail for row in rows}


async def test_evidence_and_verbs_are_the_same_after_going_down_and_up(storage: Storage, unmigrated: Database) -> None:
    await storage.migrate()
    async with working(unmigrated) as steward:
        await steward.requests(("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "222"), ("a@x.io", "222"))
        await steward.undo(4, then_ban=True)
        await steward.requests(("a@x.io", "222"), ("d@x.io", "333"), ("e@x.io", "333"))
        await steward.split(2, identifiers=[phone_number("111")])
        await steward.delete(5)
        await steward.erase(email("d@x.io"))
        before = await unmigrated.dump()
        await go_down(storage, "0003")
        rows = await ask(
            storage, "SELECT email, phone_number FROM pair UNION SELECT email, phone_number FROM withheld_pair"
        )
        assert ("a@x.io", "222") in rows

        await storage.migrate()

        assert as_0004_tells_it(await unmigrated.dump()) == as_0004_tells_it(before)
        await unmigrated.check()
        assert await found_by_verify(storage) == []
        await steward.restore(5)


async def found_by_verify(storage: Storage) -> list[Any]:
    """The differences between the log and the tables."""
    found: list[Any] = []
    await verify(storage, found.append)
    return found


def as_0004_tells_it(dump: Dump) -> Tables:
    """A dump without the clusters that have what a ban kept back: older logs do not name them."""
    rows = rows_of(dump)
    withheld = {row["seq"] for row in rows["event"] if row["outcome"] == "WITHHELD"}
    rows["event_contact"] = [row for row in rows["event_contact"] if row["seq"] not in withheld]
    for row in rows["event"]:
        if row["seq"] in withheld:
            row["detail"] = {"kept_back": row["detail"]["kept_back"]}
    return rows


OF_OTHER_KINDS = {
    "identifier": Given(email="a@x.io", identifiers=[("customer_id", "C-1")]),
    "second email": Given(email="a@x.io", identifiers=[("email", "b@x.io")]),
    "source": Given(email="a@x.io", source="shop"),
    "occurred": Given(email="a@x.io", occurred_at=datetime(2020, 1, 1, tzinfo=UTC)),
    "limit": Given(email="a@x.io", phone_number="111"),
    "alarm": Given(email="c@x.io", phone_number="111"),
}


@pytest.mark.parametrize("said", OF_OTHER_KINDS)
async def test_what_0004_has_no_place_for_is_not_given_up(storage: Storage, unmigrated: Database, said: str) -> None:
    await storage.migrate()
    limit = {"limit": 1, "on_limit": "alarm" if said == "alarm" else "withhold"}
    kinds = Kinds.parse(json.dumps({"customer_id": {}, "email": limit, "phone_number": {"limit": 1}}))
    service = IdentityService(storage, Normalisation(kinds=kinds))
    for plain in (Given(phone_number="111", email="d@x.io"), Given(phone_number="222")):
        await service.identify(plain)
    await go_down(storage, "0004")
    await storage.migrate()
    await service.identify(OF_OTHER_KINDS[said])
    if said == "limit":  # what a limit kept back is in the log alone, once it is believed
        kinds = Kinds.parse('{"customer_id": {}, "email": {}, "phone_number": {}}')
        other = IdentityService(storage, Normalisation(kinds=kinds))
        await other.identify(OF_OTHER_KINDS[said])
        await other.close()
    before = await unmigrated.dump()

    for target in ("0004", "0001"):
        with pytest.raises(ConfigurationError, match=r"revision 0004 has no place for.*migrate --reset"):
            await go_down(storage, target)

    assert await unmigrated.dump() == before
    assert await storage.is_migrated()
    assert await differences(storage) == []
    await storage.migrate(reset=True)
    for table in TABLES:
        assert await ask(storage, f"SELECT * FROM {table}") == []
    await service.close()


@pytest.mark.parametrize("verb", ["ban", "withheld"])
async def test_what_stewards_decided_is_not_given_up_for_an_older_revision(
    storage: Storage, unmigrated: Database, verb: str
) -> None:
    await storage.migrate()
    steward = Steward(storage)
    await steward.requests(("a@x.io", "111"), ("b@x.io", "222"))
    await steward.ban(1, 2)
    if verb == "withheld":
        await steward.requests(("a@x.io", "222"))
        await ask_to(storage, "DELETE FROM event WHERE kind <> 'identify'")
    before = await unmigrated.dump()

    for target in ("0001", "base"):
        with pytest.raises(ConfigurationError, match=r"first in event [34], .*migrate --reset") as refused:
            await go_down(storage, target)
        assert "backup" in str(refused.value)

    assert await unmigrated.dump() == before
    assert await storage.is_migrated()
    assert await differences(storage) == []
    await storage.migrate(reset=True)
    for table in TABLES:
        assert await ask(storage, f"SELECT * FROM {table}") == []
    await steward.close()


async def test_what_is_blocked_is_not_let_go_by_a_way_back(storage: Storage, unmigrated: Database) -> None:
    await storage.migrate()
    steward = Steward(storage)
    await steward.requests(("a@x.io", "111"))
    await go_down(storage, "0005")
    await storage.migrate()
    await steward.block(phone_number("111"))
    before = await unmigrated.dump()

    with pytest.raises(RuntimeError, match="Identifiers were blocked"):
        await go_down(storage, "0005")

    assert await unmigrated.dump() == before
    await steward.close()


async def test_alembics_command_says_why_it_does_not_go_down_and_still_prints_how(sqlite: Database) -> None:
    storage = sqlite.open()
    steward = Steward(storage)
    await steward.requests(("a@x.io", "111"), ("b@x.io", "222"))
    await steward.ban(1, 2)
    await steward.close()
    await storage.close()

    refused = program(sqlite.url, "-m", "alembic", "downgrade", "base")

    assert refused.returncode != 0
    assert "first in event 3, ban_link" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
    printed = alembic("postgresql://nobody@nowhere/none", "downgrade", "0002:0001", "--sql")
    assert "DROP TABLE ban;" in printed


async def test_what_stewards_did_is_found_after_the_upgrade_and_kept_by_a_way_back(
    storage: Storage, unmigrated: Database
) -> None:
    await storage.migrate()
    steward, history = Steward(storage, actor="ann"), HistoryService(storage)
    await steward.requests(("a@x.io", "111"), ("b@x.io", "222"))
    await steward.ban(1, 2)

    async def found(**wanted: Any) -> list[int]:
        page = await history.page_of_events(EventFilter(**wanted), after=0, limit=9)
        return [logged.event.seq for logged in page]

    before = await unmigrated.dump()
    for _ in range(2):
        await go_down(storage, "0002")
        assert await indexes_of_the_log(storage) == {"ix_event_primary_id"}
        await storage.migrate()
        assert await unmigrated.dump() == before
        assert await indexes_of_the_log(storage) == {
            "ix_event_primary_id",
            "ix_event_kind_seq",
            "ix_event_actor_kind_seq",
        }
        assert await differences(storage) == []
        assert await found(actor="ann") == await found(kinds=frozenset({EventKind.BAN_LINK})) == [3]
    await unmigrated.check()
    await steward.close()


async def indexes_of_the_log(storage: Storage) -> set[str | None]:
    found = await inspect(storage, lambda connection: sa.inspect(connection).get_indexes("event"))
    return {index["name"] for index in found}


@pytest.mark.parametrize("unmigrated", ["postgresql", "sqlite"], indirect=True)
async def test_where_an_index_can_have_some_rows_requests_are_not_in_those_of_stewards(storage: Storage) -> None:
    await storage.migrate()
    catalogue = {
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE tablename = 'event' AND indexname LIKE 'ix_event_%kind%'",
        "sqlite": "SELECT sql FROM sqlite_master WHERE name LIKE 'ix_event_%kind%'",
    }
    async with storage.reading() as connection:
        name = connection.dialect.name

    conditions = [str(row[0]).partition(" WHERE ")[2] for row in await ask(storage, catalogue[name])]
    assert ["kind" in condition for condition in sorted(conditions)] in ([True, False], [False, True])
    assert all(conditions)


def test_the_history_is_one_line() -> None:
    scripts = ScriptDirectory.from_config(migrations.configuration())
    assert len(scripts.get_heads()) == len(scripts.get_bases()) == 1
    assert all(not (script.is_branch_point or script.is_merge_point) for script in scripts.walk_revisions())


async def test_the_link_precedence_is_stored_and_follows_from_the_link(storage: Storage) -> None:
    await storage.migrate()
    columns = await inspect(storage, lambda connection: sa.inspect(connection).get_columns("contact"))
    (precedence,) = [column for column in columns if column["name"] == "link_precedence"]
    assert precedence["computed"]["persisted"]
    assert "linked_id" in precedence["computed"]["sqltext"]


async def test_postgresql_keeps_moments_in_utc_and_compares_keys_byte_by_byte(postgresql: Database) -> None:
    storage = postgresql.open()
    await storage.migrate()
    columns = await ask(
        storage,
        "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
    )
    await storage.close()
    assert {kind for _, _, kind, _ in columns if kind.startswith("time")} == {"timestamp with time zone"}
    keys = {(table, name) for table, name, _, collation in columns if collation == "C"}
    assert keys == {
        *{("contact", "email"), ("contact", "phone_number"), ("event", "email"), ("event", "phone_number")},
        *{(table, name) for table in ("identifier", "former_claim") for name in ("kind", "value")},
        ("cluster_count", "kind"),
        *{
            (table, name)
            for table in ("pair", "withheld_pair")
            for name in ("kind", "value", "other_kind", "other_value")
        },
        ("withheld_pair", "limit_kind"),
    }


async def test_mariadb_keeps_microseconds_and_compares_keys_byte_by_byte(databases: Databases) -> None:
    storage = (await databases.get("mariadb")).open()
    columns = await ask(
        storage,
        "SELECT table_name, column_name, column_type, collation_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name <> 'alembic_version'",
    )
    engines = await ask(
        storage,
        "SELECT DISTINCT engine FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name <> 'alembic_version'",
    )
    await storage.close()
    assert {kind for _, _, kind, _ in columns if kind.startswith(("date", "time"))} == {"datetime(6)"}
    keys = {"email", "phone_number", "value"}
    assert {collation for _, name, _, collation in columns if name in keys} == {"utf8mb4_bin"}
    assert {collation for table, name, _, collation in columns if name == "kind" and table != "event"} == {
        "utf8mb4_bin"
    }
    assert engines == [("InnoDB",)]


async def test_sqlite_never_gives_an_id_out_again(sqlite: Database) -> None:
    storage = sqlite.open()
    numbered = await ask(storage, "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY name")
    await storage.close()
    assert numbered == [("contact",), ("event",)]


# --- several at once, and other versions ---

# One process that has everything imported becomes several, which begin together what a server begins with.
START = """
import asyncio, logging, multiprocessing, sys
from identity_graphql.app import prepare
from identity_graphql.settings import Settings

def run(together):
    together.wait()
    asyncio.run(prepare(Settings.load()))

logging.basicConfig(stream=sys.stderr, format="%(message)s")
logging.getLogger("alembic.runtime.migration").setLevel("INFO")
fork = multiprocessing.get_context("fork")
number = int(sys.argv[1])
together = fork.Barrier(number)
processes = [fork.Process(target=run, args=[together]) for _ in range(number)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_of_several_servers_that_start_at_once_exactly_one_migrates(
    unmigrated: Database, isolation_level: str
) -> None:
    await assert_one_migrates(unmigrated, 6, isolation_level)


async def test_of_several_servers_that_start_at_once_exactly_one_makes_the_schema(postgresql: Database) -> None:
    assert postgresql.server is not None
    url = postgresql.server.url(postgresql.url.rpartition("/")[2], schema="identity")
    await assert_one_migrates(Database("postgresql", url), 6, "SERIALIZABLE")


async def assert_one_migrates(unmigrated: Database, number: int, isolation_level: str) -> None:
    result = program(unmigrated.url, "-c", START, str(number), isolation_level=isolation_level)
    assert result.stdout == f"{[0] * number}\n", result.stderr
    revisions = list(ScriptDirectory.from_config(migrations.configuration()).walk_revisions())
    assert result.stderr.count("Running upgrade") == len(revisions)
    storage = unmigrated.open()
    assert await storage.is_migrated()
    await storage.close()


async def test_who_migrates_is_waited_for(storage: Storage, unmigrated: Database) -> None:
    other = unmigrated.open()
    async with storage.migrating():
        waiting = asyncio.create_task(other.migrate())
        await asyncio.sleep(0.5)
        assert not waiting.done()
    await waiting
    assert await other.is_migrated()
    await other.close()


async def test_who_waited_for_a_migration_sees_all_of_it(storage: Storage, unmigrated: Database) -> None:
    await storage.migrate()
    other, begun = unmigrated.open(), asyncio.Event()

    async def migrate() -> None:
        async with storage.migrating() as connection:
            begun.set()
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    async def look() -> Any:
        await begun.wait()
        async with other.migrating() as connection:
            return await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))

    def slowly(_: sa.Connection) -> None:
        await_only(asyncio.sleep(0.3))

    sa.event.listen(sa.Engine, "commit", slowly)
    try:
        _, seen = await asyncio.gather(migrate(), look())
    finally:
        sa.event.remove(sa.Engine, "commit", slowly)
        await other.close()

    assert seen == "9999"


async def test_a_database_is_ready_with_this_programs_revision_or_a_newer_one(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await storage.is_migrated()
    await storage.migrate()
    assert await storage.is_migrated()

    with monkeypatch.context() as later:
        later.setattr(migrations, "head", lambda: "9999")  # this program, when it will have more migrations
        assert not await storage.is_migrated()

    await ask_to(storage, "UPDATE alembic_version SET version_num = '9999'")  # a newer program was here
    assert await storage.is_migrated()
    await storage.migrate()
    assert await ask(storage, "SELECT version_num FROM alembic_version") == [("9999",)]
    with pytest.raises(ConfigurationError, match="newer version"):
        await storage.migrate(reset=True)
    assert await tables_of(storage) >= TABLES


async def test_another_programs_database_is_not_taken_for_a_newer_one_of_ours(storage: Storage) -> None:
    await storage.migrate()
    await ask_to(storage, "UPDATE alembic_version SET version_num = '3f2a1b9c7d4e'")

    for branch in ("0001", "0002"):
        for refused in (storage.migrate(), storage.migrate(reset=True), storage.is_migrated()):
            with pytest.raises(ConfigurationError, match=r"another program's.*3f2a1b9c7d4e"):
                await refused
        await ask_to(storage, f"INSERT INTO alembic_version VALUES ('{branch}')")  # its history has branches
    assert await tables_of(storage) >= TABLES


async def ask_to(storage: Storage, statement: str) -> None:
    async with storage.transaction() as connection:
        await connection.execute(sa.text(statement))


async def test_reset_empties_the_database_and_leaves_what_is_not_ours(storage: Storage) -> None:
    await storage.migrate()
    await ask_to(storage, "CREATE TABLE theirs (id INTEGER)")
    for _ in range(2):
        decision = await IdentityService(storage, Normalisation()).identify(
            Given(email="ann@example.com", phone_number=None)
        )
        assert decision.cluster.primary.id == 1
        await storage.migrate(reset=True)
        for table in TABLES:
            assert await ask(storage, f"SELECT * FROM {table}") == []
    assert "theirs" in await tables_of(storage)


async def test_somebody_elses_table_of_that_name_is_not_touched(
    databases: Databases, tmp_path: Path, storage: Storage, unmigrated: Database
) -> None:
    await ask_to(storage, "CREATE TABLE event (id INTEGER)")
    with pytest.raises(ConfigurationError, match=r"event.*another database.*\?schema=identity"):
        await storage.migrate()
    assert not await storage.is_migrated()
    assert await tables_of(storage) == {"event"}, "nothing is left half done, not even where DDL commits by itself"


# --- new migrations ---


async def test_autogenerate_without_a_change_writes_an_empty_migration(sqlite: Database, alembic_copy: Path) -> None:
    alembic(sqlite.url, "revision", "--autogenerate", "-m", "nothing", folder=alembic_copy)
    head = migrations.head()
    (new,) = (alembic_copy / "alembic/versions").glob(f"{int(head) + 1:04}_nothing.py")
    script: dict[str, Any] = {}
    exec(compile(new.read_text(), new, "exec"), script)
    assert script["down_revision"] == head
    code = [line for line in new.read_text().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert [line.strip() for line in code if line.startswith("    ")] == ["pass", "pass"]


async def test_autogenerate_writes_a_change_down_so_that_it_runs(
    unmigrated: Database, storage: Storage, alembic_copy: Path
) -> None:
    tables = alembic_copy / "identity_graphql/storage/tables.py"
    column = '    sa.Column("reason", sa.Text),\n'
    assert column in tables.read_text()
    tables.write_text(tables.read_text().replace(column, column + '    sa.Column("seen_at", UtcDateTime),\n'))
    await storage.migrate()
    alembic(unmigrated.url, "revision", "--autogenerate", "-m", "add a moment", folder=alembic_copy)

    alembic(unmigrated.url, "upgrade", "head", folder=alembic_copy)
    assert [difference[0] for difference in await differences(storage)] == ["remove_column"]
    alembic(unmigrated.url, "downgrade", "-1", folder=alembic_copy)
    assert await differences(storage) == []


# --- schemas of PostgreSQL, and printed SQL ---


@pytest.mark.parametrize("schema", ["tenant_1", "Müller & Co"], ids=["plain", "quoted"])
async def test_a_schema_of_its_own_holds_all_tables(postgresql: Database, schema: str) -> None:
    assert postgresql.server is not None
    database = postgresql.url.rpartition("/")[2]
    url = postgresql.server.url(database, schema=schema)
    storage = Database("postgresql", url).open()
    assert not await storage.is_migrated()
    await storage.migrate()
    assert await storage.is_migrated()
    assert await differences(storage) == []
    places = await ask(storage, "SELECT tablename, schemaname FROM pg_tables WHERE schemaname !~ '^(pg_|information_)'")
    await storage.close()
    assert dict(places) == dict.fromkeys({*TABLES, "alembic_version"}, schema)
    assert "No new upgrade operations" in alembic(url, "check")

    beside = postgresql.open()
    assert not await beside.is_migrated(), "another schema's tables are not ours"
    await beside.close()


async def test_who_may_not_make_schemas_may_use_one_that_is_there(postgresql: Database) -> None:
    assert postgresql.server is not None
    database = postgresql.url.rpartition("/")[2]
    postgresql.server.query(f"CREATE ROLE {database} LOGIN")
    client = await asyncpg.connect(postgresql.url)
    await client.execute(f"CREATE SCHEMA theirs AUTHORIZATION {database}")
    await client.close()
    url = postgresql.server.url(database, schema="theirs").replace("//postgres@", f"//{database}@")
    storage = Database("postgresql", url).open()
    await storage.migrate()
    assert await differences(storage) == []
    await storage.close()


async def test_the_printed_sql_does_the_same(postgresql: Database) -> None:
    assert postgresql.server is not None
    url = postgresql.server.url(postgresql.url.rpartition("/")[2], schema="printed")
    statements = alembic(url, "upgrade", "head", "--sql")
    client = await asyncpg.connect(postgresql.url)
    await client.execute(statements)
    await client.close()
    storage = Database("postgresql", url).open()
    assert await storage.is_migrated()
    assert await differences(storage) == []
    await storage.close()
