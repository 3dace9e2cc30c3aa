"""DATABASE_URL, as people have it."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from identity_graphql.errors import ConfigurationError
from identity_graphql.storage.address import Address, Backend

PASSWORD = "s3cr3t-hunter2"
POSTGRESQL = "postgresql+asyncpg://"
MYSQL = "mysql+asyncmy://"
SQLITE = "sqlite+aiosqlite:///"


def refusal(address: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(address)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "backend", "opened"),
    [
        ("postgres://u:p@h/d", Backend.POSTGRESQL, POSTGRESQL + "u:p@h/d"),
        ("postgresql://u:p@h:5433/d", Backend.POSTGRESQL, POSTGRESQL + "u:p@h:5433/d"),
        ("postgresql+asyncpg://u@h/d", Backend.POSTGRESQL, POSTGRESQL + "u@h/d"),
        ("POSTGRES://h/d", Backend.POSTGRESQL, POSTGRESQL + "h/d"),
        ("postgres://u:p@h", Backend.POSTGRESQL, POSTGRESQL + "u:p@h"),
        ("postgres://u:p@h:/d", Backend.POSTGRESQL, POSTGRESQL + "u:p@h/d"),
        ("postgres://u:@h/d", Backend.POSTGRESQL, POSTGRESQL + "u@h/d"),
        ("postgresql:///d?user=u&password=p&host=h&port=1", Backend.POSTGRESQL, POSTGRESQL + "u:p@h:1/d"),
        ("postgres://[::1]:5433/d", Backend.POSTGRESQL, POSTGRESQL + "[::1]:5433/d"),
        ("mysql://u:p@h/d", Backend.MYSQL, MYSQL + "u:p@h/d"),
        ("mysql+asyncmy://u:p@h:3307/d", Backend.MYSQL, MYSQL + "u:p@h:3307/d"),
        ("mariadb://u:p@h/d", Backend.MYSQL, MYSQL + "u:p@h/d"),
        ("mariadb+asyncmy://u:p@[fe80::1]/d", Backend.MYSQL, MYSQL + "u:p@[fe80::1]/d"),
        ("sqlite:///dev.db", Backend.SQLITE, SQLITE + "dev.db"),
        ("sqlite+aiosqlite:///./dev.db", Backend.SQLITE, SQLITE + "./dev.db"),
        ("sqlite:////data/dev.db", Backend.SQLITE, SQLITE + "/data/dev.db"),
        ("file:./dev.db", Backend.SQLITE, SQLITE + "./dev.db"),
        ("file:dev.db?connection_limit=1", Backend.SQLITE, SQLITE + "dev.db"),
        ("file:/data/dev.db", Backend.SQLITE, SQLITE + "/data/dev.db"),
        ("file:///data/dev.db", Backend.SQLITE, SQLITE + "/data/dev.db"),
        ("file://localhost/data/dev.db", Backend.SQLITE, SQLITE + "/data/dev.db"),
        ('"postgres://u:p@h/d"', Backend.POSTGRESQL, POSTGRESQL + "u:p@h/d"),
        ("  'file:./dev.db'\n", Backend.SQLITE, SQLITE + "./dev.db"),
    ],
)
def test_what_people_have_is_accepted(given: str, backend: Backend, opened: str) -> None:
    address = Address.parse(given)

    assert address.backend is backend
    assert address.url.render_as_string(hide_password=False) == opened
    create_async_engine(address.url, connect_args=dict(address.connect_args))


@pytest.mark.parametrize(
    ("given", "user", "password"),
    [
        ("u:a%40b%2Fc%23d%3Fe%25", "u", "a@b/c#d?e%"),
        ("u:a+b", "u", "a+b"),
        ("u:a:b", "u", "a:b"),
        ("u:a@b", "u", "a@b"),
        ("u:a#b", "u", "a#b"),
        ("u:100%", "u", "100%"),
        ("u@server:p", "u@server", "p"),
        ("u:%C3%A9", "u", "é"),
    ],
)
def test_a_password_may_hold_special_characters(given: str, user: str, password: str) -> None:
    url = Address.parse(f"postgres://{given}@h/d").url

    assert (url.username, url.password, url.host) == (user, password, "h")


@pytest.mark.parametrize("character", ["/", "?", " "])
def test_a_character_that_was_not_encoded_is_explained(character: str) -> None:
    assert "percent-encoded" in refusal(f"postgres://u:12{character}{PASSWORD}@h/d")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("file:my%20dev.db", "my dev.db"),
        ("file:my dev.db", "my dev.db"),
        ("sqlite:///a%3Fb%23c.db", "a?b#c.db"),
        ("sqlite:///a@b#c.db", "a@b#c.db"),
        ("file:~/dev.db", "~/dev.db"),
        ("sqlite:///übung.db", "übung.db"),
    ],
)
def test_the_path_of_a_file_is_decoded_and_nothing_else(given: str, path: str) -> None:
    assert Address.parse(given).url.database == path


async def test_a_relative_file_is_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = Address.parse("file:./my%20dev.db?connection_limit=1")
    engine = create_async_engine(address.url, connect_args=dict(address.connect_args))

    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (id INTEGER)"))
    await engine.dispose()

    assert names(tmp_path) == ["my dev.db"]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    "given",
    [
        *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://:memory:", "file::memory:", "file:"),
        *("file:dev?mode=memory&cache=shared", "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true"),
        *("sqlite:///%3Amemory%3A", "sqlite:///:memory:?cache=shared"),
    ],
)
def test_a_database_in_memory_is_refused(given: str) -> None:
    assert "would lose what was acknowledged" in refusal(given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("", "is empty"),
        ('""', "is empty"),
        ("identity", "postgresql://"),
        ("u:p@h/d", "postgresql://"),
        ("postgres:/h/d", "postgresql://"),
        ("jdbc:postgresql://h/d", "postgresql://"),
        ("postgres+psycopg2://h/d", "'postgres+psycopg2' is not known; accepted: postgresql://"),
        ("mysql+pymysql://h/d", "'mysql+pymysql' is not known"),
        ("prisma+postgres://h/d", "'prisma+postgres' is not known"),
        ("mongodb://h/d", "'mongodb' is not known"),
        ("postgres://", "neither a host nor a database"),
        ("postgres://u:p@", "neither a host nor a database"),
        ("postgres://:@:/", "neither a host nor a database"),
        ("postgres://u:p@a,b/d", "several hosts"),
        ("postgres://u:p@a:1,b:2/d", "several hosts"),
        ("postgres://u:p@h:99999/d", "port"),
        ("postgres://u:p@h:0/d", "port"),
        ("postgres://u:p@h:${PORT}/d", "port"),
        ("postgres://u:p@${HOST}/d", "host"),
        ("postgres://u:p@::1/d", "brackets"),
        ("postgres://u:p@[zz]/d", "host"),
        ("postgres://h/d/e", "name of the database"),
        ("postgres://h/d?host=a&host=b", "'host' is given twice"),
        ("postgres://h/d?host=a,b", "host"),
        ("postgres://h/d%00", "control characters"),
        ("postgres://h/d\u200b", "invisible"),
        ("postgres://u:%E9@h/d", "UTF-8"),
        ("mysql://u:p@h", "database must be named"),
        ("mysql:///d", "host (or socket=)"),
        ("mysql://u:p@%2Ftmp%2Fsock/d", "socket"),
        ("sqlite://dev.db", "third slash"),
        ("file://dev.db", "third slash"),
        ("sqlite:///data/", "not that of a file"),
        ("sqlite:///file:dev.db", "not that of a file"),
    ],
)
def test_what_cannot_be_read_is_refused(given: str, named: str) -> None:
    message = refusal(given)

    assert message.startswith("DATABASE_URL: ")
    assert named in message


@pytest.mark.parametrize(
    ("given", "named", "accepted"),
    [
        (
            "postgres://h/d?colour=red",
            "'colour'",
            "accepted for PostgreSQL: application_name, channel_binding",
        ),
        ("postgres://h/d?options=-c%20x", "'options'", "accepted for PostgreSQL"),
        ("postgres://h/d?charset=utf8", "'charset'", "accepted for PostgreSQL"),
        ("mysql://h/d?schema=x", "'schema'", "accepted for MySQL and MariaDB"),
        ("file:d.db?schema=x", "'schema'", "accepted for SQLite"),
        ("file:d.db?mode=ro", "'mode'", "accepted for SQLite"),
        ("postgres://h/d?sslmode=require&ssl-mode=require", "'ssl-mode' is given twice", "another spelling"),
        ("postgres://h/d?pgbouncer", "name=value", "accepted for PostgreSQL"),
        ("postgres://h/d?%20=x", "name=value", "accepted for PostgreSQL"),
        ("postgres://h/d?connection_limit=0", "'connection_limit'", "from 1 to 1000"),
        ("mysql://h/d?connection_limit=1001", "'connection_limit'", "from 1 to 1000"),
        ("postgres://h/d?connection_limit=ten", "'connection_limit'", "from 1 to 1000"),
        ("postgres://h/d?connection_limit=", "'connection_limit'", "from 1 to 1000"),
        ("postgres://h/d?connection_limit=%D9%A3", "'connection_limit'", "from 1 to 1000"),
        ("postgres://h/d?pool_timeout=-1", "'pool_timeout'", "seconds"),
        ("file:d.db?pool_timeout=nan", "'pool_timeout'", "seconds"),
        ("postgres://h/d?connect_timeout=1e3", "'connect_timeout'", "seconds"),
        ("postgres://h/d?pgbouncer=perhaps", "'pgbouncer'", "true"),
        ("postgres://h/d?statement_cache_size=x", "'statement_cache_size'", "whole number"),
        ("postgres://h/d?target_session_attrs=standby", "'target_session_attrs'", "read-write"),
        ("postgres://h/d?port=x", "'port'", "65535"),
        ("postgres://h/d?schema=", "'schema'", "one schema"),
        ("postgres://h/d?schema=a,b", "'schema'", "one schema"),
        ("postgres://h/d?schema=%24user", "'schema'", "one schema"),
        ("postgres://h/d?schema=" + 64 * "x", "'schema'", "one schema"),
        ("mysql://h/d?charset=latin1", "'charset'", "utf8mb4"),
        ("postgres://h/d?sslmode=maybe", "'sslmode'", "verify-full"),
        ("mysql://h/d?ssl-mode=maybe", "'ssl-mode'", "verify_identity"),
        ("postgres://h/d?sslaccept=maybe", "'sslaccept'", "strict"),
        ("postgres://h/d?sslmode=verify-full&sslaccept=accept_invalid_certs", "'sslaccept'", "contradicts"),
        ("postgres://h/d?sslmode=verify-ca", "verify-ca", "'sslrootcert'"),
        ("mysql://h/d?ssl-mode=VERIFY_CA", "verify-ca", "'sslrootcert'"),
        ("postgres://h/d?sslmode=require&sslrootcert=system", "verify-ca", "'sslrootcert'"),
        ("postgres://h/d?sslmode=verify-full&sslrootcert=/no/such.pem", "'sslrootcert'", "cannot be read"),
        ("mysql://h/d?sslcert=/no/such.pem", "'sslcert'", "cannot be read"),
        ("postgres://h/d?sslmode=require&sslcert=/no/a.pem&sslkey=/no/b.pem", "'sslkey'", "cannot be read"),
        ("postgres://h/d?sslmode=require&sslkey=/no/b.pem", "'sslcert'", "need each other"),
        ("postgres://h/d?sslmode=prefer&sslrootcert=/no/such.pem", "'sslmode'", "require, verify-ca"),
        ("mysql://h/d?ssl_mode=DISABLED&ssl_ca=/no/such.pem", "'ssl_mode'", "require, verify-ca"),
    ],
)
def test_a_parameter_that_cannot_work_is_refused_by_name(given: str, named: str, accepted: str) -> None:
    message = refusal(given)

    assert message.startswith("DATABASE_URL: ")
    assert named in message
    assert accepted in message


def test_a_plain_postgresql_address_names_the_program() -> None:
    assert Address.parse("postgres://h/d") == Address(
        Backend.POSTGRESQL,
        Address.parse("postgres://h/d").url,
        {"server_settings": {"application_name": "identity_graphql"}},
    )


@pytest.mark.parametrize(
    ("schema", "search_path"),
    [
        ("crm", "crm"),
        ("Crm", '"Crm"'),
        ("my-crm", '"my-crm"'),
        ("a%22b", '"a""b"'),
        ("pub%20lic", '"pub lic"'),
    ],
)
def test_a_schema_becomes_the_search_path(schema: str, search_path: str) -> None:
    address = Address.parse(f"postgres://h/d?schema={schema}")

    assert address.connect_args["server_settings"]["search_path"] == search_path
    assert address.schema is not None
    assert address.schema == search_path.strip('"').replace('""', '"')


def test_behind_pgbouncer_no_statement_lasts() -> None:
    address = Address.parse("postgres://h/d?pgbouncer=true&statement_cache_size=50")

    assert address.pooled
    assert address.connect_args["statement_cache_size"] == address.connect_args["prepared_statement_cache_size"] == 0


def test_pgbouncer_false_changes_nothing() -> None:
    assert Address.parse("postgres://h/d?pgbouncer=false") == Address.parse("postgres://h/d")


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ("connect_timeout=2.5", {"timeout": 2.5}),
        ("connect_timeout=0", {}),
        ("statement_cache_size=7", {"statement_cache_size": 7, "prepared_statement_cache_size": 7}),
        ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("sslmode=disable", {"ssl": "disable"}),
        ("ssl-mode=allow", {"ssl": "allow"}),
        ("sslMode=PREFER", {"ssl": "prefer"}),
        ("ssl=true", {"ssl": "require"}),
        ("sslmode=require&channel_binding=require", {"ssl": "require"}),
        ("sslaccept=accept_invalid_certs", {"ssl": "prefer"}),
        ("sslmode=require&sslaccept=accept_invalid_certs&sslcert=/no/such.pem", {"ssl": "require"}),
        ("sslmode=disable&sslaccept=strict", {"ssl": "disable"}),
    ],
)
def test_postgresql_parameters_become_the_drivers(given: str, arguments: dict[str, object]) -> None:
    found = dict(Address.parse(f"postgres://h/d?{given}").connect_args)
    del found["server_settings"]

    assert found == arguments


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("postgresql:///d?host=/tmp/sock", "/tmp/sock", None),
        (
            "postgresql://localhost/d?host=/cloudsql/project:region:name",
            "/cloudsql/project:region:name",
            None,
        ),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql:5433/d", "/var/run/postgresql", 5433),
    ],
)
def test_postgresql_may_listen_in_a_folder(given: str, host: str, port: int | None) -> None:
    address = Address.parse(given)
    engine = create_async_engine(address.url)
    _, parameters = engine.dialect.create_connect_args(address.url)

    assert address.connect_args["host"] == host
    assert parameters.get("port") == port
    assert "host" not in parameters


def test_mysql_speaks_utf8mb4() -> None:
    assert Address.parse("mysql://h/d?charset=UTF8MB4").connect_args == {"charset": "utf8mb4"}


@pytest.mark.parametrize("name", ["socket", "unix_socket"])
def test_mysql_may_listen_in_a_socket(name: str) -> None:
    address = Address.parse(f"mysql:///d?{name}=/run/mysqld.sock&connect_timeout=3")

    assert address.connect_args == {
        "charset": "utf8mb4",
        "unix_socket": "/run/mysqld.sock",
        "connect_timeout": 3.0,
    }


def test_a_mysql_password_beyond_ascii_is_sent_as_utf_8() -> None:
    address = Address.parse("mysql://u:%E2%82%AC@h/d")

    assert address.connect_args["password"] == "€".encode()
    assert "€" not in f"{address} {address!r}"


@pytest.mark.parametrize("mode", ["ssl-mode=DISABLED", "sslmode=disable", "ssl_mode=PREFERRED", "ssl=false"])
def test_mysql_without_encryption(mode: str) -> None:
    address = Address.parse(f"mysql://h/d?{mode}")

    assert "ssl" not in address.connect_args
    # asyncmy cannot prefer: that this was not heard is logged
    assert address.ignored == (("ssl_mode",) if "PREFERRED" in mode else ())


@pytest.mark.parametrize(
    ("given", "verify_mode", "check_hostname"),
    [
        ("mysql://h/d?ssl-mode=REQUIRED", ssl.CERT_NONE, False),
        ("mysql://h/d?ssl=true", ssl.CERT_NONE, False),
        ("mysql://h/d?sslaccept=accept_invalid_certs", ssl.CERT_NONE, False),
        ("mysql://h/d?sslaccept=strict", ssl.CERT_REQUIRED, True),
        ("mysql://h/d?ssl-mode=VERIFY_IDENTITY", ssl.CERT_REQUIRED, True),
        ("mysql://h/d?sslaccept=strict&sslcert={root}", ssl.CERT_REQUIRED, True),
        ("mysql://h/d?ssl-mode=VERIFY_CA&ssl-ca={root}", ssl.CERT_REQUIRED, False),
        ("postgres://h/d?sslmode=verify-full", ssl.CERT_REQUIRED, True),
        ("postgres://h/d?sslmode=verify-full&sslrootcert=system", ssl.CERT_REQUIRED, True),
        ("postgres://h/d?sslmode=verify-full&sslrootcert={root}", ssl.CERT_REQUIRED, True),
        ("postgres://h/d?sslmode=verify-ca&sslrootcert={root}", ssl.CERT_REQUIRED, False),
        ("postgres://h/d?sslmode=require&sslrootcert={root}", ssl.CERT_REQUIRED, False),
        ("postgres://h/d?sslmode=require&sslaccept=strict", ssl.CERT_REQUIRED, True),
        ("postgres://h/d?sslrootcert={root}", ssl.CERT_REQUIRED, False),
        ("postgres://h/d?sslmode=require&sslcert={root}&sslkey={key}", ssl.CERT_NONE, False),
        (
            "postgres://h/d?sslmode=verify-full&sslrootcert={root}&sslcert={root}&sslkey={key}",
            ssl.CERT_REQUIRED,
            True,
        ),
    ],
)
def test_certificates_are_checked_as_far_as_the_words_say(
    certificate: dict[str, str], given: str, verify_mode: ssl.VerifyMode, check_hostname: bool
) -> None:
    context = Address.parse(given.format_map(certificate)).connect_args["ssl"]

    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (verify_mode, check_hostname)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_file_where_libpq_looks_for_its_authority_is_used(
    certificate: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".postgresql").mkdir()
    shutil.copy(certificate["root"], tmp_path / ".postgresql" / "root.crt")

    context = Address.parse("postgres://h/d?sslmode=verify-ca").connect_args["ssl"]

    assert context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize(
    ("given", "size", "timeout", "ignored"),
    [
        ("postgres://h/d?connection_limit=5&pool_timeout=2.5", 5, 2.5, ()),
        ("mysql://h/d?connection_limit=1000&pool_timeout=10", 1000, 10.0, ()),
        ("postgres://h/d?pool_timeout=0&connect_timeout=0", None, None, ("connect_timeout", "pool_timeout")),
        (
            "postgres://h/d?socket_timeout=3&keepalives-idle=5",
            None,
            None,
            ("socket_timeout", "keepalives-idle"),
        ),
        (
            "mysql://h/d?socket_timeout=3&statement_cache_size=9",
            None,
            None,
            ("socket_timeout", "statement_cache_size"),
        ),
        ("file:d.db?connection_limit=1&pool_timeout=4", None, 4.0, ("connection_limit",)),
    ],
)
def test_the_pool_is_sized_and_what_has_no_effect_is_named(
    given: str, size: int | None, timeout: float | None, ignored: tuple[str, ...]
) -> None:
    address = Address.parse(given)

    assert (address.pool_size, address.pool_timeout, address.ignored) == (size, timeout, ignored)


@pytest.mark.parametrize(
    "given",
    [
        f"postgres://u:{PASSWORD}@h/d",
        f"postgres:///d?host=/tmp&user=u&password={PASSWORD}",
        f"postgres://u:a@{PASSWORD}@h/d",
        f"mysql://u:{PASSWORD}@h/d",
        f"mysql://u:{PASSWORD}%C3%A9@h/d",
    ],
)
def test_an_address_is_printed_without_its_password(given: str) -> None:
    address = Address.parse(given)

    assert address.url.password is not None
    assert PASSWORD in address.url.password
    assert PASSWORD not in f"{address} {address!r} {address.url} {address.url!r}"


BROKEN = [
    f"u:{PASSWORD}@h/d",
    f"postgres:u:{PASSWORD}@h/d",
    f"postgres//u:{PASSWORD}@h/d",
    f"'postgres://u:{PASSWORD}@h/d\"",
    f"DATABASE_URL=postgres://u:{PASSWORD}@h/d",
    f"jdbc:postgresql://h/d?user=u&password={PASSWORD}",
    *(
        f"{scheme}://{rest}"
        for scheme in ("postgres", "mysql+asyncmy", "sqlite", "file", "postgres+psycopg2", "mongodb")
        for rest in (
            f"u:{PASSWORD}",
            f"u:{PASSWORD}/d",
            f"u:{PASSWORD}@h:x/d",
            f"u:{PASSWORD}@h:99999/d",
            f"u:{PASSWORD}@a,b/d",
            f"u:{PASSWORD}@h/d?colour=red",
            f"u:{PASSWORD}@h/d?connection_limit=x",
            f"u:{PASSWORD}@h/d?sslmode=verify-full&sslrootcert=/no/such.pem",
            f"u:{PASSWORD}@h/d/e",
            f"u:{PASSWORD}@h/d#e",
            f"u:{PASSWORD}@[::1/d",
            f"u:{PASSWORD}@::1/d",
            f"u:{PASSWORD}@h/d\n",
            f"u:{PASSWORD}@h/d\x00",
            f"u:{PASSWORD}@h /d",
            f"u:{PASSWORD}%E9@h/d",
            f"u:/{PASSWORD}@h/d",
            f"u:12/{PASSWORD}@h/d",
            f"u:?{PASSWORD}@h/d",
            f"u:?{PASSWORD}=x@h/d",
            f"u:1?a=b&{PASSWORD}=x@h/d",
            f"u:#{PASSWORD}/@h/d",
            f"u:[{PASSWORD}/@h/d",
            f"u:@{PASSWORD}:x@/d",
            f"h/d?{PASSWORD}",
            f"h/d?password=a&{PASSWORD}",
            f"h/d?sslpassword={PASSWORD}&sslpassword={PASSWORD}",
            f"h/d?sslmode={PASSWORD}",
            f"h/d?pgbouncer={PASSWORD}",
            f"h/d?sslaccept={PASSWORD}",
            f"h/d?schema=,{PASSWORD}",
            f"h/d?port={PASSWORD}",
            f"h/d?host=:{PASSWORD}",
            f"h/d?pool_timeout={PASSWORD}",
            f"h/d?sslcert={PASSWORD}&sslkey={PASSWORD}",
        )
    ),
]


@pytest.mark.parametrize("given", BROKEN)
def test_no_error_ever_shows_a_password(given: str) -> None:
    refused: ConfigurationError | None = None
    try:
        shown = repr(Address.parse(given))  # some of them are an address after all
    except ConfigurationError as error:
        refused, shown = error, f"{error} {error!r} {error.args}"

    assert PASSWORD not in shown
    if refused is not None:
        assert refused.__cause__ is refused.__context__ is None
