"""What becomes of the errors that a database can answer while the service runs: never a 500 that is not ours, and a log
that tells why."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncmy
import asyncpg  # type: ignore[import-untyped]
import httpx2
import pytest
import sqlalchemy as sa

from identity_graphql.services import retry
from identity_graphql.storage import Storage, dialect
from identity_graphql.storage import sqlite as embedded
from tests.support.databases import Database, Databases, migrate
from tests.support.logs import logged, outages, refusals
from tests.support.servers import guarded, reload
from tests.support.serving import serving

READS = {
    "cluster by id": "{ cluster(id: 1) { id } }",
    "cluster by email": '{ cluster(email: "a@x.io") { id } }',
    "contact": "{ contact(id: 1) { id cluster { id } } }",
    "contacts": "{ contacts { edges { node { id } } } }",
    "clusters": "{ clusters { edges { node { id } } } }",
    "an earlier cluster": "{ cluster(id: 1, asOfSeq: 1) { id } }",
    "earlier clusters": "{ clusters(asOfSeq: 1) { edges { node { id } } } }",
    "history": "{ cluster(id: 1) { history { edges { node { seq } } } } }",
    "explain": "{ explain(from: {contactId: 1}, to: {contactId: 1}) { connected } }",
    "event": '{ event(seq: "1") { seq } }',
    "withheld": "{ withheld { edges { node { event } } } }",
    "bans": "{ bans { edges { node { event } } } }",
    "a dry run": 'mutation { identify(email: "a@x.io", phoneNumber: "5550", dryRun: true) { outcome } }',
    "a dry run of many": 'mutation { identifyMany(items: [{email: "a@x.io"}], dryRun: true) { error { code } } }',
}
DRY_VERBS = {
    "delete": "deleteContact(id: 1, {by})",
    "undo": 'undo(event: "1", {by})',
    "ban by email": 'banLink(a: {email: "a@x.io"}, b: {email: "b@x.io"}, {by})',
    "erase": 'eraseIdentifier(email: "a@x.io", {by})',
}


def asked(verb: str, by: str = 'actor: "ann", reason: "r", dryRun: true') -> str:
    return "mutation { " + verb.replace("{by}", by) + " { dryRun } }"


QUESTIONS = {**READS, **{name: asked(verb) for name, verb in DRY_VERBS.items()}}


async def identify(client: httpx2.AsyncClient, email: str) -> httpx2.Response:
    return await client.post("/identify", json={"email": email})


async def codes(client: httpx2.AsyncClient, query: str) -> list[str]:
    """The codes of the errors of an operation; none if it was answered."""
    answer = (await client.post("/graphql", json={"query": query})).json()
    return [error["extensions"]["code"] for error in answer.get("errors", ())]


async def all_codes(client: httpx2.AsyncClient) -> dict[str, str]:
    """The codes of all questions, asked at once; empty for what was answered."""
    found = await asyncio.gather(*(codes(client, query) for query in QUESTIONS.values()))
    return dict(zip(QUESTIONS, map(" ".join, found), strict=True))


async def sentence(client: httpx2.AsyncClient, path: str = "/ready", email: str = "new@x.io") -> str:
    """What is said with a 503."""
    response = await (client.get(path) if path == "/ready" else identify(client, email))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    return str(response.json()["details"][0]["message"])


# --- a database that was not migrated ---


async def test_a_database_that_was_not_migrated_is_503_with_what_to_do_until_it_is(unmigrated: Database) -> None:
    with logged() as entries:
        async with serving(unmigrated.url, auto_migrate=False) as client:
            for path in ("/ready", "/identify", "/identify"):
                assert "run `identity-graphql migrate`" in await sentence(client, path)
            assert await codes(client, READS["cluster by id"]) == ["BUSY"]
            await migrate(unmigrated)
            assert (await identify(client, "a@x.io")).status_code == 200
            assert (await client.get("/ready")).status_code == 200

    began, over = outages(entries)
    assert began[0] == "not migrated"
    assert over == ("back",)


async def test_another_programs_revision_is_not_ready(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        await execute(sqlite, "UPDATE alembic_version SET version_num = '3f2a1b9c7d4e'")
        assert "not migrated" in await sentence(client)


async def execute(database: Database, *statements: str) -> None:
    storage = database.open(size=1)
    async with storage.transaction() as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))
    await storage.close()


# --- a database that is read-only ---


@asynccontextmanager
async def read_only_postgresql(database: Database) -> AsyncIterator[None]:
    """As it is for all sessions, those that are open too, where a server was made a replica."""
    client = await asyncpg.connect(database.url, server_settings={"default_transaction_read_only": "off"})

    async def become(statement: str) -> None:
        assert database.server is not None
        await client.execute(statement)
        await asyncio.to_thread(reload, database.server)

    await become("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await become("ALTER SYSTEM RESET default_transaction_read_only")
        await client.close()


@asynccontextmanager
async def read_only_mariadb(database: Database) -> AsyncIterator[None]:
    assert database.server is not None
    database.server.query("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        database.server.query("SET GLOBAL read_only = 0")


@pytest.fixture(params=["postgresql", "mariadb"])
async def writer(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Database]:
    """A database whose user is bound by what the server allows: no superuser."""
    database = await databases.get(request.param)
    assert database.server is not None
    if database.name == "postgresql":
        yield database
        return
    database.server.query("CREATE USER writer")
    database.server.query("GRANT ALL ON test.* TO writer")
    yield Database(database.name, database.url.replace("//root@", "//writer@"), database.server)
    database.server.query("DROP USER writer")


READ_ONLY = {"postgresql": read_only_postgresql, "mariadb": read_only_mariadb}


async def test_a_database_that_became_read_only_is_not_ready_and_its_connections_are_dropped(writer: Database) -> None:
    with logged() as entries:
        async with serving(writer.url) as client:
            await identify(client, "a@x.io")
            before = await sessions(writer)
            async with READ_ONLY[writer.name](writer):
                for _ in range(3):
                    assert "read-only" in await sentence(client, "/identify")
                    assert "read-only" in await sentence(client, "/ready")
                assert (await identify(client, "a@x.io")).status_code == 200, "what is known can be read"
                assert await codes(client, READS["history"]) == []
                assert before.isdisjoint(await sessions(writer))

            assert (await client.get("/ready")).status_code == 200
            assert (await identify(client, "b@x.io")).status_code == 200

    code = {"postgresql": "25006 read-only transaction", "mariadb": "1290 server is read-only"}[writer.name]
    assert outages(entries) == [("unwritable", code), ("back",)]
    assert refusals(entries) == [("/identify", code), ("/ready", code)] * 3


async def sessions(database: Database) -> set[int]:
    """The connections of the service."""
    assert database.server is not None
    if database.name == "postgresql":
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'identity_graphql'"
    else:
        query = "SELECT id FROM information_schema.processlist WHERE user = 'writer'"
    return {row[0] for row in database.server.query(query)}


async def test_a_sqlite_connection_that_cannot_write_is_dropped_and_the_request_served_by_a_new_one(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "PRAGMAS", [*embedded.PRAGMAS, "query_only=ON"])
        async with serving(sqlite.url) as client:
            assert "read-only" in await sentence(client)
            assert "read-only" in await sentence(client, "/identify")
            patch.undo()
            assert (await identify(client, "a@x.io")).status_code == 200


# --- a disk that is full, and whatever else a server can answer to a write ---

RAISING = {
    "postgresql": (
        "CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'secret@x.io' USING ERRCODE = '{code}'; END $$",
        "CREATE TRIGGER raising BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION raising()",
    ),
    "mariadb": (
        "CREATE TRIGGER raising BEFORE INSERT ON {table} FOR EACH ROW"
        " SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'secret@x.io'",
    ),
}
CALM = {
    "postgresql": ("DROP TRIGGER raising ON {table}", "DROP FUNCTION raising"),
    "mariadb": ("DROP TRIGGER raising",),
}


@asynccontextmanager
async def raising(database: Database, code: str | int, table: str = "contact") -> AsyncIterator[None]:
    """The server answers this code to whoever inserts into this table."""
    await execute(database, *(s.replace("{code}", str(code)).replace("{table}", table) for s in RAISING[database.name]))
    try:
        yield
    finally:
        await execute(database, *(s.replace("{table}", table) for s in CALM[database.name]))


@pytest.mark.parametrize(
    ("name", "code", "state"),
    [
        ("postgresql", "53100", "unwritable"),
        ("postgresql", "53200", "refuses"),
        ("postgresql", "58030", "refuses"),
        ("postgresql", "42501", "refuses"),
        ("postgresql", "XX002", "refuses"),
        ("mariadb", 1021, "unwritable"),
        ("mariadb", 1114, "unwritable"),
        ("mariadb", 1041, "refuses"),
        ("mariadb", 1142, "refuses"),
        ("mariadb", 1180, "refuses"),
    ],
)
async def test_what_the_database_cannot_do_is_503_and_told_once(
    databases: Databases, name: str, code: str | int, state: str
) -> None:
    database = await databases.get(name)
    with logged() as entries:
        async with serving(database.url) as client:
            async with raising(database, code):
                for number in range(3):
                    response = await identify(client, f"{number}@x.io")
                    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
                    (error,) = await codes(client, f'mutation {{ identify(email: "{number}@x.io") {{ outcome }} }}')
                    assert error == "BUSY"
            assert (await identify(client, "a@x.io")).status_code == 200

    began, over = outages(entries)
    assert (began[0], began[1].split()[0]) == (state, str(code))
    assert over == ("back",)
    assert [path for path, _ in refusals(entries)] == ["/identify", "/graphql"] * 3
    assert "secret" not in repr(entries)
    assert [row["email"] for row in (await database.check())["contact"]] == ["a@x.io"]


@pytest.mark.parametrize("table", ["contact", "identifier", "pair", "event"])
@pytest.mark.parametrize(
    ("name", "code"), [("postgresql", "53100"), ("postgresql", "42501"), ("mariadb", 1021), ("mariadb", 1142)]
)
async def test_where_a_write_was_refused_ready_is_503_until_one_is_possible_again(
    databases: Databases, name: str, code: str | int, table: str
) -> None:
    database = await databases.get(name)
    with logged() as entries:
        async with serving(database.url) as client:
            await client.post("/identify", json={"email": "known@x.io", "phoneNumber": "5550"})
            async with raising(database, code, table):
                assert (await client.get("/ready")).status_code == 200, "nobody has met it yet"
                for number in range(3):
                    await client.post("/identify", json={"email": f"{number}@x.io", "phoneNumber": f"555{number}1"})
                    assert (await identify(client, "known@x.io")).status_code == 200
                    await sentence(client)
            assert (await client.get("/ready")).status_code == 200, "it finds out by itself, as nobody writes meanwhile"

    (_, began), over = outages(entries)
    assert began.split()[0] == str(code)
    assert over == ("back",)
    assert [path for path, _ in refusals(entries)] == ["/identify", "/ready"] * 3
    rows = await database.check()
    assert [row["email"] for row in rows["contact"]] == ["known@x.io"], "what was tried is not there"
    assert [row["email"] for row in rows["event"]] == ["known@x.io"]


async def test_a_table_that_is_missing_is_not_ready_until_it_is_there(altered: Database) -> None:
    with logged() as entries:
        async with serving(altered.url) as client:
            await execute(altered, "ALTER TABLE withheld_pair RENAME TO aside")
            for _ in range(2):
                assert "not migrated" in await sentence(client, "/identify")
                assert "not migrated" in await sentence(client)
            await execute(altered, "ALTER TABLE aside RENAME TO withheld_pair")
            assert (await client.get("/ready")).status_code == 200

    assert [told[0] for told in outages(entries)] == ["not migrated", "back"]


async def test_an_item_of_many_that_is_refused_is_in_the_log_as_well(databases: Databases) -> None:
    database = await databases.get("postgresql")
    query = 'mutation { identifyMany(items: [{email: "a@x.io"}]) { error { code } } }'
    with logged() as entries:
        async with serving(database.url) as client, raising(database, "53100"):
            answer = (await client.post("/graphql", json={"query": query})).json()

    assert answer["data"]["identifyMany"] == [{"error": {"code": "BUSY"}}]
    assert refusals(entries) == [("/graphql", "53100 disk full")]


async def test_a_full_disk_under_sqlite_is_503_and_reads_go_on(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long(number: int) -> str:
        return f"{number}@{'.'.join(['a' * 49] * 4)}.io"

    with logged() as entries, monkeypatch.context() as patch:
        patch.setattr(embedded, "PRAGMAS", [*embedded.PRAGMAS, "max_page_count=1"])  # no more than there are
        async with serving(sqlite.url) as client:
            number = 0
            while (await identify(client, long(number))).status_code == 200:
                number += 1
            for _ in range(3):
                assert "its disk is full" in await sentence(client, "/identify", long(number))
            assert await codes(client, READS["clusters"]) == []
            patch.undo()
            assert (await identify(client, long(number))).status_code == 200

    assert outages(entries) == [("unwritable", "SQLITE_FULL disk full"), ("back",)]


async def test_sqlite_on_a_disk_that_is_full_is_not_ready_until_there_is_room(sqlite: Database) -> None:
    wal = f"{sqlite.url.removeprefix('sqlite:///')}-wal"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with logged() as entries:
        async with serving(sqlite.url) as client:
            assert (await identify(client, "a@x.io")).status_code == 200
            resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(wal).st_size, hard))
            try:
                for _ in range(3):
                    await sentence(client, "/identify")
                    await sentence(client)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            before = await sqlite.dump()
            assert (await client.get("/ready")).status_code == 200
            assert await sqlite.dump() == before, "no number is lost either"

    assert [told[0] for told in outages(entries)] == ["unwritable", "back"]


# --- a database that lets nobody in any more ---


@pytest.mark.parametrize(
    ("shut", "opened", "code"),
    [
        ("ALTER ROLE visitor PASSWORD 'another'", "ALTER ROLE visitor PASSWORD 'hush'", "28P01 invalid password"),
        ("ALTER ROLE visitor NOLOGIN", "ALTER ROLE visitor LOGIN", "28000 invalid authorization"),
        (
            "ALTER DATABASE visited RENAME TO gone",
            "ALTER DATABASE gone RENAME TO visited",
            "3D000 no such database",
        ),
        (
            "ALTER DATABASE visited ALLOW_CONNECTIONS false",
            "ALTER DATABASE visited ALLOW_CONNECTIONS true",
            "55000 object not in prerequisite state",
        ),
        (
            "ALTER ROLE visitor CONNECTION LIMIT 0",
            "ALTER ROLE visitor CONNECTION LIMIT -1",
            "53300 too many connections",
        ),
    ],
    ids=["password", "login", "database", "closed", "limit"],
)
async def test_who_is_not_let_in_any_more_answers_503_everywhere(
    visited: Database, shut: str, opened: str, code: str
) -> None:
    with logged() as entries:
        async with serving(visited.url) as client:
            assert (await identify(client, "a@x.io")).status_code == 200
            # A database is renamed when nobody is in it.
            assert visited.server is not None
            visited.server.query("ALTER ROLE visitor CONNECTION LIMIT 0")
            await vacated(visited)
            visited.server.query("ALTER ROLE visitor CONNECTION LIMIT -1")
            visited.server.query(shut)
            try:
                assert "refuses" in await sentence(client, "/identify")
                assert "refuses" in await sentence(client, "/ready")
                assert await codes(client, READS["cluster by id"]) == ["BUSY"]
                assert await codes(client, READS["history"]) == ["BUSY"]
            finally:
                visited.server.query(opened)
            assert (await identify(client, "b@x.io")).status_code == 200
            assert (await client.get("/ready")).status_code == 200

    assert outages(entries) == [("refuses", code), ("back",)]
    assert {cause for _, cause in refusals(entries)} == {code}


async def vacated(database: Database) -> None:
    assert database.server is not None
    there = "FROM pg_stat_activity WHERE datname = 'visited'"
    while database.server.query(f"SELECT pg_terminate_backend(pid) {there}"):
        await asyncio.sleep(0.02)


@pytest.fixture
async def visited(databases: Databases) -> AsyncIterator[Database]:
    """A database of PostgreSQL with an owner who needs a password."""
    server = databases.server("postgresql")
    with guarded(server, "visitor") as at:
        server.query("CREATE DATABASE visited OWNER visitor")
        yield Database("postgresql", f"postgresql://visitor:hush@{at}/visited", server)
        server.query("DROP DATABASE visited WITH (FORCE)")


async def test_a_user_of_mariadb_who_is_not_let_in_any_more_is_503(databases: Databases) -> None:
    database = await databases.get("mariadb")
    server = database.server
    assert server is not None
    server.query("CREATE USER visitor IDENTIFIED BY 'hush'")
    server.query("GRANT ALL ON test.* TO visitor")
    with logged() as entries:
        async with serving(database.url.replace("//root@", "//visitor:hush@")) as client:
            assert (await identify(client, "a@x.io")).status_code == 200
            server.query("ALTER USER visitor IDENTIFIED BY 'another'")
            server.query("KILL USER visitor")
            try:
                assert "refuses" in await sentence(client, "/identify")
                assert "refuses" in await sentence(client, "/ready")
                assert await codes(client, READS["cluster by id"]) == ["BUSY"]
            finally:
                server.query("ALTER USER visitor IDENTIFIED BY 'hush'")
            assert (await identify(client, "b@x.io")).status_code == 200
    server.query("DROP USER visitor")

    assert outages(entries) == [("refuses", "1045 access denied"), ("back",)]


# --- tables that are locked, and changed ---


@asynccontextmanager
async def locked(database: Database) -> AsyncIterator[None]:
    """As ALTER TABLE and VACUUM FULL lock them: against reading, too."""
    if database.name == "postgresql":
        client = await asyncpg.connect(database.url)
        transaction = client.transaction()
        await transaction.start()
        await client.execute("LOCK TABLE contact, event, ban, withheld_pair, identifier IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            await transaction.rollback()
            await client.close()
        return
    assert database.server is not None
    async with (
        asyncmy.connect(host="127.0.0.1", port=database.server.port, user="root", database="test") as connection,
        connection.cursor() as cursor,
    ):
        await cursor.execute(
            "LOCK TABLES contact WRITE, event WRITE, ban WRITE, withheld_pair WRITE, identifier WRITE, pair WRITE"
        )
        yield
        await cursor.execute("UNLOCK TABLES")


@pytest.fixture(params=["postgresql", "mariadb"])
async def served(request: pytest.FixtureRequest, databases: Databases) -> Database:
    return await databases.get(request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "LONGEST_LOCK_WAIT", 0.1)
    monkeypatch.setattr(retry, "CONFLICT_DEADLINE", 0.3)


async def test_whatever_is_asked_of_a_table_that_is_locked_for_long_is_busy(served: Database, impatient: None) -> None:
    with logged() as entries:
        async with serving(served.url, pool_size=20) as client:
            await identify(client, "a@x.io")
            await identify(client, "b@x.io")
            async with locked(served):
                assert await all_codes(client) == dict.fromkeys(QUESTIONS, "BUSY")
                assert (await identify(client, "a@x.io")).status_code == 503
            assert await all_codes(client) == dict.fromkeys(QUESTIONS, "")

    causes = {cause.split()[0] for _, cause in refusals(entries)}
    assert causes == {"55P03" if served.name == "postgresql" else "1205"}
    assert len(refusals(entries)) == len(QUESTIONS) + 1
    assert outages(entries) == [], "it is there, and answers"


@pytest.mark.parametrize("pool", ["connection_limit=20", "connection_limit=2&pool_timeout=0.1"], ids=["wide", "narrow"])
async def test_whatever_is_asked_of_a_table_that_is_locked_for_a_while_is_answered(
    served: Database, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setattr(dialect, "LONGEST_LOCK_WAIT", 0.1)
    async with serving(f"{served.url}?{pool}") as client:
        await identify(client, "a@x.io")
        await identify(client, "b@x.io")
        async with locked(served):
            answers = asyncio.create_task(all_codes(client))
            await asyncio.sleep(0.4 if served.name == "postgresql" else 1.4)  # MariaDB counts whole seconds
            assert not answers.done()
        assert await answers == dict.fromkeys(QUESTIONS, "")


async def test_readers_at_serializable_on_mariadb_that_meet_a_writer_are_busy_or_answered(
    databases: Databases, impatient: None
) -> None:
    database = await databases.get("mariadb")
    questions = ("cluster by id", "cluster by email", "contact", "contacts", "clusters", "a dry run")
    async with serving(database.url, isolation_level="SERIALIZABLE", pool_size=20) as client:
        await identify(client, "a@x.io")
        await identify(client, "b@x.io")
        assert database.server is not None
        async with (
            asyncmy.connect(host="127.0.0.1", port=database.server.port, user="root", database="test") as connection,
            connection.cursor() as cursor,
        ):
            await cursor.execute("UPDATE contact SET version = version + 1")
            refused = await asyncio.gather(*(codes(client, READS[name]) for name in questions))
            assert refused == [["BUSY"]] * len(questions)
            await connection.rollback()
        assert await all_codes(client) == dict.fromkeys(QUESTIONS, "")


CHANGES = {
    "postgresql": (
        "ALTER TABLE contact ALTER email TYPE varchar(300)",
        "ALTER TABLE event ALTER reason TYPE varchar(3000)",
        'ALTER TABLE identifier ALTER value TYPE varchar(300) COLLATE "C"',
    ),
    "mariadb": (
        "ALTER TABLE contact MODIFY email VARCHAR(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "ALTER TABLE event ADD COLUMN more INT",
    ),
    "sqlite": ("ALTER TABLE contact ADD COLUMN more INTEGER", "ALTER TABLE event ADD COLUMN more INTEGER"),
}


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "REPEATABLE READ"])
async def test_a_column_whose_type_changes_while_it_serves_is_not_noticed(
    altered: Database, isolation_level: str
) -> None:
    async with serving(altered.url, isolation_level=isolation_level) as client:
        await identify(client, "a@x.io")
        await identify(client, "b@x.io")
        for query in QUESTIONS.values():
            for _ in range(2):
                assert await codes(client, query) == []
        for number, change in enumerate(CHANGES[altered.name]):
            await execute(altered, change)
            for name, query in QUESTIONS.items():
                assert await codes(client, query) == [], (change, name)
            assert (await identify(client, "a@x.io")).status_code == 200
            assert (await identify(client, f"{number}@x.io")).status_code == 200
            assert (await client.get("/ready")).status_code == 200


@pytest.fixture
async def altered(unmigrated: Database) -> Database:
    """A database of its own, as its tables are changed."""
    await migrate(unmigrated)
    return unmigrated


# --- /ready ---


@pytest.mark.parametrize("fault", [RuntimeError, ValueError, sa.exc.ProgrammingError])
async def test_ready_is_never_500(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Exception]
) -> None:
    async def broken(self: Storage) -> None:
        raise fault("secret@x.io", None, Exception("secret@x.io")) if fault is sa.exc.ProgrammingError else fault("x")

    monkeypatch.setattr(Storage, "check_ready", broken)
    with logged() as entries:
        async with serving(sqlite.url) as client:
            await sentence(client)

    (failed,) = [entry for entry in entries if entry["log_level"] == "error"]
    assert failed["event"] == "ready.failed"
    assert "secret" not in repr(entries)


async def test_ready_asks_whether_writing_is_allowed_and_writes_nothing(database: Database) -> None:
    async with serving(database.url) as client:
        await identify(client, "a@x.io")
        before: dict[str, Any] = dict(await database.dump())
        assert (await client.get("/ready")).status_code == 200
        assert await database.dump() == before
