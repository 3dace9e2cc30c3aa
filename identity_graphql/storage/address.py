"""DATABASE_URL as people have it, read into what the storage can open.

What is not in the tables is refused at start, by name, rather than lost on the way. No error repeats a value:
where a special character was not percent-encoded, any part of the URL may be a piece of the password. For the
same reason no error is raised while another one is handled.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_plus
from uuid import uuid4

from sqlalchemy import URL

from identity_graphql.errors import ConfigurationError

T = TypeVar("T")


class Backend(StrEnum):
    """The kinds of database; MariaDB counts as MySQL."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"
    MYSQL = "mysql"


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
            raise _refusal("holds control characters, invisible ones, or bytes that are not UTF-8")
        match = re.match(r"(?i:(file):|([a-z][a-z0-9+.-]{0,40}):(?=//))", text)
        if match is None:
            raise _refusal(f"{'is not the URL of a database' if text else 'is empty'}; {_SCHEMES_ACCEPTED}")
        scheme = (match[1] or match[2]).lower()
        backend = _SCHEMES.get(scheme)
        if backend is None:
            raise _refusal(f"the scheme {scheme!r} is not known; {_SCHEMES_ACCEPTED}")
        rest, _, query = text[match.end() :].partition("?")
        if backend is Backend.SQLITE:
            return _sqlite(scheme, rest, query)
        url, parameters = _server(backend, rest, query)
        return _postgresql(url, parameters) if backend is Backend.POSTGRESQL else _mysql(url, parameters)

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


def _refusal(problem: str) -> ConfigurationError:
    return ConfigurationError(f"DATABASE_URL: {problem}.")


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
_LABELS = {Backend.POSTGRESQL: "PostgreSQL", Backend.MYSQL: "MySQL and MariaDB", Backend.SQLITE: "SQLite"}

_TLS = {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslaccept"}
_MEANT = {
    Backend.POSTGRESQL: _TLS
    | {
        "application_name",
        "connect_timeout",
        "connection_limit",
        "host",
        "password",
        "pgbouncer",
        "pool_timeout",
    }
    | {"port", "schema", "statement_cache_size", "target_session_attrs", "user"},
    Backend.MYSQL: _TLS | {"charset", "connect_timeout", "connection_limit", "pool_timeout", "socket"},
    Backend.SQLITE: {"pool_timeout"},
}
# Harmless to drop: requests have a deadline of their own, the drivers choose the encoding and a negotiation
# of TLS that every server knows, and channel binding, which asyncpg lacks, is a second lock behind TLS.
_IGNORED = {
    Backend.POSTGRESQL: {
        "channel_binding",
        "client_encoding",
        "fallback_application_name",
        "gssencmode",
        "keepalives",
    }
    | {"keepalives_count", "keepalives_idle", "keepalives_interval", "socket_timeout", "sslnegotiation"},
    Backend.MYSQL: {"socket_timeout", "statement_cache_size"},
    Backend.SQLITE: {"connect_timeout", "connection_limit", "socket_timeout", "timeout"},
}
_ALIASES = {  # beside case, and - for _
    "ssl": "sslmode",
    "ssl_mode": "sslmode",
    "sslca": "sslrootcert",
    "ssl_ca": "sslrootcert",
    "ssl_cert": "sslcert",
    "ssl_key": "sslkey",
    "unix_socket": "socket",
    "prepared_statement_cache_size": "statement_cache_size",
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(slots=True, repr=False)
class _Parameters:
    """What stands behind the `?`: by the names of the tables, each with its name as given and its value."""

    given: dict[str, tuple[str, str]]
    ignored: list[str]

    @classmethod
    def parse(cls, backend: Backend, query: str) -> _Parameters:
        meant, ignored = _MEANT[backend], _IGNORED[backend]
        accepted = f"accepted for {_LABELS[backend]}: {', '.join(sorted(meant | ignored))}"
        parameters, seen = cls({}, []), set()
        for piece in filter(None, query.split("&")):
            name, equals, value = piece.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,60}", name):
                raise _refusal(f"a parameter behind the ? is not of the form name=value; {accepted}")
            key = name.lower().replace("-", "_")
            key = _ALIASES.get(key, key)
            if key not in meant | ignored:
                raise _refusal(f"the parameter {name!r} is not known; {accepted}")
            if key in seen:
                raise _refusal(f"the parameter {name!r} is given twice, if only in another spelling")
            seen.add(key)
            if key in ignored:
                parameters.ignored.append(name)
            else:
                parameters.given[key] = (name, unquote_plus(value))
        return parameters

    def text(self, key: str) -> str | None:
        return self.given[key][1] if key in self.given else None

    def word(self, key: str, words: Mapping[str, T]) -> T | None:
        value = self.text(key)
        if value is not None and value.lower() not in words:
            raise self.refusal(key, f"must be one of {', '.join(words)}")
        return None if value is None else words[value.lower()]

    def whole(self, key: str, low: int, high: int) -> int | None:
        value = self.text(key)
        if value is not None and not _is_whole(value, low, high):
            raise self.refusal(key, f"must be a whole number from {low} to {high}")
        return None if value is None else int(value)

    def seconds(self, key: str) -> float | None:
        value = self.text(key)
        if value is not None and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
            raise self.refusal(key, "must be a number of seconds, such as 10")
        if value is not None and not float(value):
            # To Prisma and libpq: for ever. Nothing waits for ever here; the default stays.
            self.ignored.append(self.given[key][0])
            return None
        return None if value is None else float(value)

    def refusal(self, key: str, problem: str) -> ConfigurationError:
        return _refusal(f"the parameter {self.given[key][0]!r} {problem}")


def _is_whole(value: str, low: int, high: int) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", value) is not None and low <= int(value) <= high


_ENCODE = "special characters of a user name or password must be percent-encoded (@ is %40, # is %23, / is %2F)"


def _server(backend: Backend, rest: str, query: str) -> tuple[URL, _Parameters]:
    authority, _, database = rest.removeprefix("//").partition("/")
    if re.search(r"[@#]", database + query) or " " in rest + query:
        raise _refusal(f"there is a blank in it, or an @ or # after the host; {_ENCODE}")
    # The last @ counts: before it may stand the user@server of Azure, or a password that was not encoded.
    user, _, place = authority.rpartition("@")
    name, _, password = user.partition(":")
    match = re.fullmatch(r"(?:\[([^\[\]]*:[^\[\]]*)\]|([^:\[\]]*))(?::([^:]*))?", place)
    if match is None and "," not in place:
        raise _refusal(f"host and port cannot be told apart; an IPv6 address stands in brackets; {_ENCODE}")
    if match is None or "," in place:
        raise _refusal("several hosts are named; accepted: one")
    if match[3] and not _is_whole(match[3], 1, 65535):
        raise _refusal(f"the port must be a whole number from 1 to 65535; {_ENCODE}")
    if "/" in database:
        raise _refusal("after the host stands more than the name of the database (a / in it is %2F)")
    parameters = _Parameters.parse(backend, query)
    host = parameters.text("host") or unquote(match[1] or match[2] or "")
    if not re.fullmatch(r"[\w.-]*|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}(%\w+)?|/.*", host):
        raise _refusal(f"the host is neither a name nor an IP address; {_ENCODE}")
    url = URL.create(
        _DRIVERS[backend],
        username=parameters.text("user") or unquote(name) or None,
        password=parameters.text("password") or unquote(password) or None,
        host=host or None,
        port=parameters.whole("port", 1, 65535) or (int(match[3]) if match[3] else None),
        database=unquote(database) or None,
    )
    return url, parameters


def _postgresql(url: URL, parameters: _Parameters) -> Address:
    if not (url.host or url.database):
        raise _refusal("neither a host nor a database is named, as in postgresql://user:password@localhost/identity")
    settings = {"application_name": parameters.text("application_name") or "identity_graphql", "jit": "off"}
    arguments: dict[str, Any] = {"server_settings": settings}
    if url.host and url.host.startswith("/"):
        # The folder of a socket. Not left in the URL: there, a colon in it would announce a port.
        arguments["host"] = url.host
        url = url.set(host="")
    if (mode := _encryption(Backend.POSTGRESQL, parameters)) is not None:
        arguments["ssl"] = mode
    if timeout := parameters.seconds("connect_timeout"):
        arguments["timeout"] = timeout
    if attributes := parameters.word("target_session_attrs", _WRITABLE):
        arguments["target_session_attrs"] = attributes
    schema = parameters.text("schema")
    if schema is not None:
        if not schema or "," in schema or schema == "$user" or len(schema.encode()) > 63:
            raise parameters.refusal("schema", "must be the name of one schema, of at most 63 bytes")
        # PgBouncer refuses it, unless it is told to track it (track_extra_parameters) or to drop it, which
        # would be another schema: better refused there than dropped here.
        plain = re.fullmatch(r"[a-z_][a-z0-9_]*", schema)
        settings["search_path"] = schema if plain else '"' + schema.replace('"', '""') + '"'
    cached = parameters.whole("statement_cache_size", 0, 100_000)
    if parameters.word("pgbouncer", _TRUTH):
        # The next transaction may run where somebody else prepared another statement under the same name.
        arguments["prepared_statement_name_func"] = _unique_statement_name
        cached = 0
        del settings["jit"]  # refused by PgBouncer; it does know application_name
    if cached is not None:
        arguments |= {"statement_cache_size": cached, "prepared_statement_cache_size": cached}
    return _address(Backend.POSTGRESQL, url, parameters, arguments, schema)


_WRITABLE = {"any": "any", "read-write": "read-write", "primary": "primary"}


def _unique_statement_name() -> str:
    return f"__asyncpg_{uuid4()}__"


def _mysql(url: URL, parameters: _Parameters) -> Address:
    socket = parameters.text("socket")
    if not url.database or not (url.host or socket):
        raise _refusal("host (or socket=) and database must be named, as in mysql://user:password@localhost/identity")
    if url.host and url.host.startswith("/"):
        raise _refusal("the folder or file of a socket is not a host; write ?socket=/path/of/the.sock")
    parameters.word("charset", {"utf8mb4": True})  # the only one that holds every character
    arguments: dict[str, Any] = {"charset": "utf8mb4"}
    if socket:
        arguments["unix_socket"] = socket
    if timeout := parameters.seconds("connect_timeout"):
        arguments["connect_timeout"] = timeout
    if url.password and not url.password.isascii():
        arguments["password"] = url.password.encode()  # what servers hash; asyncmy would send Latin-1, or fail
    mode = _encryption(Backend.MYSQL, parameters)
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
        raise _refusal(_NO_MEMORY)
    authority, path = "", rest
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        path = slash + path if scheme == "file" else path
    if authority and not (scheme == "file" and authority.lower() == "localhost"):
        raise _refusal(f"a file has no host, and the path begins after a third slash; {_FILES}")
    if not path or path.endswith("/") or path.startswith("file:"):
        raise _refusal(f"the path is not that of a file; {_FILES}")
    url = URL.create(_DRIVERS[Backend.SQLITE], database=unquote(path))
    return _address(Backend.SQLITE, url, _Parameters.parse(Backend.SQLITE, query), {})


def _address(
    backend: Backend,
    url: URL,
    parameters: _Parameters,
    arguments: Mapping[str, Any],
    schema: str | None = None,
) -> Address:
    size, timeout = parameters.whole("connection_limit", 1, 1000), parameters.seconds("pool_timeout")
    return Address(backend, url, arguments, schema, size, timeout, tuple(parameters.ignored))


_TLS_MODES = {
    "disable": "disable",
    "allow": "allow",
    "prefer": "prefer",
    "require": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
    "disabled": "disable",  # MySQL's words, in the same order
    "preferred": "prefer",
    "required": "require",
    "verify_ca": "verify-ca",
    "verify_identity": "verify-full",
    "false": "disable",  # ssl=
    "true": "require",
}
_POSTGRESQL_ROOT = "~/.postgresql/root.crt"


def _encryption(backend: Backend, parameters: _Parameters) -> str | ssl.SSLContext | None:
    """How to encrypt, with the meaning of libpq: a word for the driver, or the context it needs."""
    mode = parameters.word("sslmode", _TLS_MODES)
    strict = parameters.word("sslaccept", {"strict": True, "accept_invalid_certs": False})  # Prisma's
    root, certificate, key = (parameters.text(name) for name in ("sslrootcert", "sslcert", "sslkey"))
    if certificate and not (key or root):
        root, certificate = certificate, None  # to Prisma, the authority; a client's certificate has a key
    if bool(certificate) != bool(key):
        raise _refusal("the parameters 'sslcert' and 'sslkey' need each other")
    if strict is False and mode in {"verify-ca", "verify-full"}:
        raise parameters.refusal("sslaccept", "contradicts 'sslmode'; leave one of them out")
    if strict is False:
        mode, root = mode or ("prefer" if backend is Backend.POSTGRESQL else "require"), None
    elif strict and mode != "disable":
        mode = "verify-full"
    files = root or certificate
    mode = mode or ("require" if files else None)
    if mode in {None, "disable", "allow", "prefer"}:
        if files:
            raise parameters.refusal(
                "sslmode", "must be require, verify-ca or verify-full where certificates are given"
            )
        return mode
    if backend is Backend.POSTGRESQL:
        if mode == "require" and not files:
            return mode
        default = os.path.expanduser(_POSTGRESQL_ROOT)
        root = root or (default if strict is not False and os.path.exists(default) else None)
    if mode != "verify-full" and (root == "system" or (mode == "verify-ca" and not root)):
        raise _refusal(
            "sslmode=verify-ca needs the file of an authority in 'sslrootcert'; sslmode=verify-full does not"
        )
    return _context(parameters, verify=mode, root=root, certificate=certificate, key=key)


def _context(
    parameters: _Parameters, *, verify: str, root: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify == "verify-full"
    unreadable = ""
    try:
        if root and root != "system":
            unreadable = "sslrootcert" if parameters.text("sslrootcert") else "sslcert"
            context.load_verify_locations(root)
        elif verify == "verify-full":
            context.load_default_certs()
        else:
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            unreadable = "sslkey"
            # Always a password: without one, OpenSSL would ask for it at the terminal.
            context.load_cert_chain(certificate, key, parameters.text("sslpassword") or "")
    except (OSError, ValueError):
        pass
    else:
        return context
    raise _refusal(f"the file of the parameter {unreadable!r} cannot be read, or is not what it should be (PEM)")
