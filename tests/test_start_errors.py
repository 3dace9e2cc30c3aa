"""What is told when the program starts and the database cannot be used: what it is, and what to do."""

from __future__ import annotations

import asyncio
import re
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import sqlalchemy as sa

from identity_graphql.app import migrate, prepare
from identity_graphql.errors import ConfigurationError, DatabaseAway
from identity_graphql.storage import Storage, mysql, postgresql
from identity_graphql.storage.address import Address
from tests.support.databases import Database, Databases
from tests.support.servers import Server, guarded
from tests.support.serving import serving, settings_for

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def told(url: str) -> str:
    """What a person reads who starts the program with this DATABASE_URL."""
    with pytest.raises(ConfigurationError) as error:
        await prepare(settings_for(url))
    said = str(error.value)
    assert "hush" not in said
    assert "\n" not in said
    return said


@pytest.fixture
def server(databases: Databases) -> Server:
    return databases.server("postgresql")


async def test_a_wrong_password_and_a_missing_permission_on_postgresql(server: Server) -> None:
    with guarded(server, "poor") as at:
        wrong = await told(f"postgresql://poor:hush-hush@{at}/postgres")
        may_not = await told(f"postgresql://poor:hush@{at}/postgres")
        nor = await told(f"postgresql://poor:hush@{at}/postgres?schema=identity")

    assert_says(wrong, "password authentication failed.*password in DATABASE_URL is wrong")
    assert_says(may_not, "permission denied.*GRANT CREATE ON SCHEMA.*AUTO_MIGRATE=false")
    assert_says(nor, "permission denied.*GRANT CREATE ON SCHEMA.*AUTO_MIGRATE=false")


@pytest.mark.parametrize(
    ("prepared", "url", "says"),
    [
        ((), "nobody@{at}/postgres", r'role "nobody" does not exist.*user name or the password'),
        (("CREATE DATABASE closed ALLOW_CONNECTIONS false",), "postgres@{at}/closed", "ALLOW_CONNECTIONS true"),
        ((), "postgres@{at}/nowhere", r"does not exist.*create it"),
        (
            ("CREATE ROLE limited LOGIN CONNECTION LIMIT 0",),
            "limited@{at}/postgres",
            r"too many connections.*POOL_SIZE",
        ),
        ((), "postgres@{at}/postgres?sslmode=require", r"rejected SSL upgrade.*\?sslmode=disable"),
    ],
    ids=["unknown role", "no connections allowed", "unknown database", "too many connections", "no TLS"],
)
async def test_what_postgresql_refuses(server: Server, prepared: tuple[str, ...], url: str, says: str) -> None:
    with made(server, prepared):
        said = await told("postgresql://" + url.format(at=f"127.0.0.1:{server.port}"))
    assert_says(said, says)


@contextmanager
def made(server: Server, statements: tuple[str, ...]) -> Iterator[None]:
    """Run these statements; what they create is gone afterwards."""
    for statement in statements:
        server.query(statement)
    yield
    for word, kind, name, *_ in map(str.split, statements):
        if word == "CREATE":
            server.query(f"DROP {kind} {name}")


def assert_says(said: str, pattern: str) -> None:
    assert re.search(pattern, said), said


async def test_a_database_that_is_read_only_is_told_to_be_a_replica(server: Server) -> None:
    server.query("CREATE DATABASE replica")
    server.query("ALTER DATABASE replica SET default_transaction_read_only = on")
    said = await told(server.url("replica"))
    server.query("DROP DATABASE replica")
    assert "DATABASE_URL must lead to the primary" in said


@pytest.mark.parametrize(
    ("prepared", "url", "says"),
    [
        ((), "nobody:hush@{at}/mysql", "(?i)access denied.*user name or the password.*sslmode=require"),
        ((), "root@{at}/nowhere", r"(?i)unknown database.*create it"),
        (("CREATE USER picky REQUIRE SSL",), "picky@{at}/mysql", r"\?sslmode=require"),
        (("CREATE USER poor",), "poor@{at}/mysql", "(?i)access denied.*may not do that"),
        (
            ("CREATE USER poor", "CREATE DATABASE rich", "GRANT SELECT ON rich.* TO poor"),
            "poor@{at}/rich",
            "(?i)denied.*may not do that",
        ),
        (("CREATE USER shut ACCOUNT LOCK",), "shut@{at}/mysql", "ACCOUNT UNLOCK"),
        ((), "root@{at}/mysql?sslmode=require", r"\?sslmode=disable"),
    ],
    ids=["wrong password", "unknown database", "TLS required", "no access", "no permission", "locked", "no TLS"],
)
async def test_what_mariadb_refuses(databases: Databases, prepared: tuple[str, ...], url: str, says: str) -> None:
    server = databases.server("mariadb")
    with made(server, prepared):
        said = await told("mysql://" + url.format(at=f"127.0.0.1:{server.port}"))
    assert_says(said, says)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("auto_migrate", [True, False])
async def test_a_database_that_cannot_hold_every_character_is_refused(
    server: Server, encoding: str, auto_migrate: bool
) -> None:
    server.query(f"CREATE DATABASE narrow ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    settings = settings_for(server.url("narrow"), auto_migrate=auto_migrate)
    for start in (prepare, migrate):
        with pytest.raises(ConfigurationError) as told:
            await start(settings)
        assert_says(str(told.value), f"encoding {encoding}.*must be UTF8.*CREATE DATABASE identity ENCODING 'UTF8'")
    assert server.query("SELECT count(*) FROM pg_stat_activity WHERE datname = 'narrow'") == [(0,)]
    server.query("DROP DATABASE narrow")


async def test_on_mariadb_the_encoding_of_the_database_does_not_matter(databases: Databases) -> None:
    server = databases.server("mariadb")
    server.query("CREATE DATABASE narrow CHARACTER SET latin1")
    async with serving(server.url("narrow")) as client:
        answer = await client.post("/identify", json={"email": "\u0436@x.io"})
    server.query("DROP DATABASE narrow")
    assert answer.json()["contact"]["emails"] == ["\u0436@x.io"]


@pytest.mark.parametrize("auto_migrate", [True, False])
async def test_a_table_of_revisions_that_is_another_programs_is_told_to_be_so(
    unmigrated: Database, auto_migrate: bool
) -> None:
    storage = unmigrated.open(size=1)
    async with storage.transaction() as connection:
        await connection.execute(sa.text("CREATE TABLE alembic_version (id INTEGER)"))
    await storage.close()
    for start in (prepare, migrate):
        with pytest.raises(ConfigurationError) as told:
            await start(settings_for(unmigrated.url, auto_migrate=auto_migrate))
        assert_says(str(told.value), r"version_num.*Use another database or, on PostgreSQL, a schema of its own")


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """Something that listens, and answers in its own way."""

    async def talked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talked, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def refusal(state: str, text: str) -> bytes:
    """PostgreSQL's message of an error."""
    fields = b"".join(f"{kind}{value}\0".encode() for kind, value in (("S", "FATAL"), ("C", state), ("M", text)))
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"


async def test_a_pooler_that_refuses_a_setting_is_told_by_its_parameter() -> None:
    async def pooler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # may we encrypt?
        writer.write(b"N")
        await reader.read(10_000)
        writer.write(refusal("08P01", "unsupported startup parameter: plan_cache_mode"))

    async with listening(pooler) as at:
        assert_says(await told(f"postgresql://ann:hush@{at}/x"), r"unsupported startup parameter.*\?pgbouncer=true")
        said = await told(f"postgresql://ann:hush@{at}/x?pgbouncer=true&schema=identity")
        assert_says(said, "unsupported startup parameter.*track_extra_parameters")


async def test_a_certificate_that_does_not_verify_is_told_by_what_is_wrong_with_it(certificate: dict[str, str]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate["root"], certificate["key"])

    async def encrypted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.start_tls(context)

    async with listening(encrypted) as at:
        said = await told(f"postgresql://ann:hush@{at}/x?sslmode=verify-full")
        assert_says(said, r"certificate does not verify \(self.signed certificate.*sslrootcert=/path/to/ca.pem")
        said = await told(f"postgresql://ann:hush@{at}/x?sslmode=verify-full&sslrootcert={certificate['root']}")
        assert_says(said, r"certificate does not verify \(.*127.0.0.1.*the host as the certificate has it")

        storage = Storage.open(Address.parse(f"postgresql://ann:hush@{at}/x?sslmode=verify-full"))
        with pytest.raises(DatabaseAway) as away:
            await storage.is_migrated()
        await storage.close()
        assert away.value.cause == "SSLCertVerificationError", "not the system's error of the same number"


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await writer.drain()


async def ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read(100)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("talk", [http, ssh, silent])
@pytest.mark.parametrize(
    ("scheme", "says"),
    [("postgresql", "PostgreSQL .mostly at port 5432"), ("mysql", "MySQL or MariaDB .mostly at port 3306")],
)
async def test_what_is_no_such_server_is_told_within_the_time_to_connect(
    talk: Talk, scheme: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(postgresql, "CONNECT_TIMEOUT", 0.5)
    async with listening(talk) as at, asyncio.timeout(10):
        assert_says(await told(f"{scheme}://ann:hush@{at}/x"), f"is it a server of {says}")


async def test_a_server_of_the_other_kind_is_told(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "CONNECT_TIMEOUT", 0.5)
    ports = {name: databases.server(name).port for name in ("postgresql", "mariadb")}
    for scheme, port, says in (("postgresql", ports["mariadb"], "5432"), ("mysql", ports["postgresql"], "3306")):
        for mode in ("", "?sslmode=disable"):
            assert_says(await told(f"{scheme}://ann:hush@127.0.0.1:{port}/x{mode}"), f"mostly at port {says}")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://ann:hush@127.0.0.1:1/x", "Connection refused. Nothing listens there"),
        ("mysql://ann:hush@127.0.0.1:1/x", "Connection refused. Nothing listens there"),
        ("postgresql://ann:hush@no-such-host.invalid/x", "host is not known"),
        ("mysql://ann:hush@no-such-host.invalid/x", "host is not known"),
        ("postgresql:///x?host=/no/such/folder", "is the socket in DATABASE_URL its own"),
        ("mysql://ann:hush@/x?socket=/no/such.sock", "is the socket in DATABASE_URL its own"),
    ],
)
async def test_a_place_where_nobody_is_is_told(url: str, says: str) -> None:
    assert_says(await told(url), says)
