"""DATABASE_URL as people have it, read into what the storage can open.

No error repeats a part of it: where a special character was not percent-encoded, any part may be a piece of the
password. For the same reason no error is raised while another one is handled.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from sqlalchemy import URL

from identity_graphql.storage.parameters import TRUTH, Backend, Parameters, is_whole, refusal
from identity_graphql.storage.tls import encryption

__all__ = ["Address", "Backend"]


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where the database is and how to open it. Printed without the password."""

    backend: Backend
    url: URL
    connect_args: Mapping[str, Any] = field(default_factory=dict)
    schema: str | None = None
    pool_size: int | None = None
    pool_timeout: float | None = None
    ignored: tuple[str, ...] = ()
    """Parameters that have no effect here, for the log."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a DATABASE_URL. Raises ConfigurationError."""
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":  # pasted from a .env file
            text = text[1:-1].strip()
        if not (decoded := unquote(text)).isprintable() or "\ufffd" in decoded:
            raise refusal("holds control characters, invisible ones, or bytes that are not UTF-8")
        match = re.match(r"(?i:(file):|([a-z][a-z0-9+.-]{0,40}):(?=//))", text)
        if match is None:
            raise refusal(f"{'is not the URL of a database' if text else 'is empty'}; {_SCHEMES_ACCEPTED}")
        scheme = (match[1] or match[2]).lower()
        backend = _SCHEMES.get(scheme)
        if backend is None:
            raise refusal(f"the scheme {scheme!r} is not known; {_SCHEMES_ACCEPTED}")
        rest, _, query = text[match.end() :].partition("?")
        if backend is Backend.SQLITE:
            return _sqlite(scheme, rest, query)
        url, parameters = _server(backend, rest, query)
        return _postgresql(url, parameters) if backend is Backend.POSTGRESQL else _mysql(url, parameters)

    @property
    def pooled(self) -> bool:
        """Whether ?pgbouncer=true was given."""
        return "prepared_statement_name_func" in self.connect_args

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


_SCHEMES = {
    "postgres": Backend.POSTGRESQL,
    "postgresql": Backend.POSTGRESQL,
    "postgresql+asyncpg": Backend.POSTGRESQL,
    "mysql": Backend.MYSQL,
    "mysql+asyncmy": Backend.MYSQL,
    "mariadb": Backend.MYSQL,
    "mariadb+asyncmy": Backend.MYSQL,
    "sqlite": Backend.SQLITE,
    "sqlite+aiosqlite": Backend.SQLITE,
    "file": Backend.SQLITE,
}
_SCHEMES_ACCEPTED = (
    "accepted: postgresql:// (or postgres://, postgresql+asyncpg://), mysql:// or mariadb:// (or +asyncmy),"
    " sqlite:/// (or sqlite+aiosqlite:///) and file:./dev.db"
)
_DRIVERS = {
    Backend.POSTGRESQL: "postgresql+asyncpg",
    Backend.MYSQL: "mysql+asyncmy",
    Backend.SQLITE: "sqlite+aiosqlite",
}
_ENCODE = "special characters of a user name or password must be percent-encoded (@ is %40, # is %23, / is %2F)"


def _server(backend: Backend, rest: str, query: str) -> tuple[URL, Parameters]:
    authority, _, database = rest.removeprefix("//").partition("/")
    if re.search(r"[@#]", database + query) or " " in rest + query:
        raise refusal(f"there is a blank in it, or an @ or # after the host; {_ENCODE}")
    # The last @ counts: before it may stand the user@server of Azure, or a password that was not encoded.
    user, _, place = authority.rpartition("@")
    name, _, password = user.partition(":")
    match = re.fullmatch(r"(?:\[([^\[\]]*:[^\[\]]*)\]|([^:\[\]]*))(?::([^:]*))?", place)
    if match is None and "," not in place:
        raise refusal(f"host and port cannot be told apart; an IPv6 address stands in brackets; {_ENCODE}")
    if match is None or "," in place:
        raise refusal("several hosts are named; accepted: one")
    if match[3] and not is_whole(match[3], 1, 65535):
        raise refusal(f"the port must be a whole number from 1 to 65535; {_ENCODE}")
    if "/" in database:
        raise refusal("after the host stands more than the name of the database (a / in it is %2F)")
    parameters = Parameters.parse(backend, query)
    host = parameters.text("host") or unquote(match[1] or match[2] or "")
    if not re.fullmatch(r"[\w.-]*|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}(%\w+)?|/.*", host):
        raise refusal(f"the host is neither a name nor an IP address; {_ENCODE}")
    url = URL.create(
        _DRIVERS[backend],
        username=parameters.text("user") or unquote(name) or None,
        password=parameters.text("password") or unquote(password) or None,
        host=host or None,
        port=parameters.whole("port", 1, 65535) or (int(match[3]) if match[3] else None),
        database=unquote(database) or None,
    )
    return url, parameters


def _postgresql(url: URL, parameters: Parameters) -> Address:
    if not (url.host or url.database):
        raise refusal("neither a host nor a database is named, as in postgresql://user:password@localhost/identity")
    settings = {"application_name": parameters.text("application_name") or "identity_graphql", **_PLANNING}
    arguments: dict[str, Any] = {"server_settings": settings}
    if url.host and url.host.startswith("/"):
        # The folder of a socket. Not left in the URL: there, a colon in it would announce a port.
        arguments["host"] = url.host
        url = url.set(host="")
    if (mode := encryption(Backend.POSTGRESQL, parameters)) is not None:
        arguments["ssl"] = mode
    if timeout := parameters.seconds("connect_timeout"):
        arguments["timeout"] = timeout
    if attributes := parameters.word("target_session_attrs", _WRITABLE):
        arguments["target_session_attrs"] = attributes
    schema = parameters.text("schema")
    if schema is not None:
        if not schema or "," in schema or schema == "$user" or len(schema.encode()) > 63:
            raise parameters.refused("schema", "must be the name of one schema, of at most 63 bytes")
        # PgBouncer refuses it, unless it is told to track it (track_extra_parameters) or to drop it, which
        # would be another schema: better refused there than dropped here.
        plain = re.fullmatch(r"[a-z_][a-z0-9_]*", schema)
        settings["search_path"] = schema if plain else '"' + schema.replace('"', '""') + '"'
    cached = parameters.whole("statement_cache_size", 0, 100_000)
    if parameters.word("pgbouncer", TRUTH):
        # The next transaction may run where somebody else prepared another statement under the same name.
        arguments["prepared_statement_name_func"] = _unique_statement_name
        cached = 0
        for name in _PLANNING:  # refused by PgBouncer; it does know application_name
            del settings[name]
    if cached is not None:
        arguments |= {"statement_cache_size": cached, "prepared_statement_cache_size": cached}
    return _address(Backend.POSTGRESQL, url, parameters, arguments, schema)


# Every look-up is by an index, whatever the values: planning again for each of them costs more than it finds.
_PLANNING = {"jit": "off", "plan_cache_mode": "force_generic_plan"}
_WRITABLE = {"any": "any", "read-write": "read-write", "primary": "primary"}


def _unique_statement_name() -> str:
    return f"__asyncpg_{uuid4()}__"


def _mysql(url: URL, parameters: Parameters) -> Address:
    socket = parameters.text("socket")
    if not url.database or not (url.host or socket):
        raise refusal("host (or socket=) and database must be named, as in mysql://user:password@localhost/identity")
    if url.host and url.host.startswith("/"):
        raise refusal("the folder or file of a socket is not a host; write ?socket=/path/of/the.sock")
    parameters.word("charset", {"utf8mb4": True})  # the only one that holds every character
    arguments: dict[str, Any] = {"charset": "utf8mb4"}
    if socket:
        arguments["unix_socket"] = socket
    if timeout := parameters.seconds("connect_timeout"):
        arguments["connect_timeout"] = timeout
    if url.password and not url.password.isascii():
        arguments["password"] = url.password.encode()  # what servers hash; asyncmy would send Latin-1, or fail
    mode = encryption(Backend.MYSQL, parameters)
    if isinstance(mode, ssl.SSLContext):
        arguments["ssl"] = mode
    elif mode in {"allow", "prefer"}:
        # asyncmy encrypts or it does not: it cannot fall back. These words promise nothing.
        parameters.ignored.append(parameters.given["sslmode"][0])
    return _address(Backend.MYSQL, url, parameters, arguments)


_NO_MEMORY = "a database in memory would lose what was acknowledged; name a file, as in sqlite:///identity.db"
_FILES = "accepted: sqlite:///dev.db or file:./dev.db (in the working directory), sqlite:////data/dev.db"


def _sqlite(scheme: str, rest: str, query: str) -> Address:
    if ":memory:" in unquote(rest) or rest in {"", "//", "///"} or "mode=memory" in query:
        raise refusal(_NO_MEMORY)
    authority, path = "", rest
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        path = slash + path if scheme == "file" else path
    if authority and not (scheme == "file" and authority.lower() == "localhost"):
        raise refusal(f"a file has no host, and the path begins after a third slash; {_FILES}")
    if not path or path.endswith("/") or path.startswith("file:"):
        raise refusal(f"the path is not that of a file; {_FILES}")
    url = URL.create(_DRIVERS[Backend.SQLITE], database=unquote(path))
    return _address(Backend.SQLITE, url, Parameters.parse(Backend.SQLITE, query), {})


def _address(
    backend: Backend,
    url: URL,
    parameters: Parameters,
    arguments: Mapping[str, Any],
    schema: str | None = None,
) -> Address:
    size, timeout = parameters.whole("connection_limit", 1, 1000), parameters.seconds("pool_timeout")
    return Address(backend, url, arguments, schema, size, timeout, tuple(parameters.ignored))
