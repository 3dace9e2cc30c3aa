"""What stands behind the `?` of a DATABASE_URL: which names are known, and their values.

What is not in the tables is refused at start, by name, rather than lost on the way. No error repeats a value:
where a special character was not percent-encoded, any part of the URL may be a piece of the password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import unquote_plus

from identity_graphql.errors import ConfigurationError

T = TypeVar("T")


class Backend(StrEnum):
    """The kinds of database; MariaDB counts as MySQL."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"
    MYSQL = "mysql"


def refusal(problem: str) -> ConfigurationError:
    """Returns the error that says what is wrong with the URL."""
    return ConfigurationError(f"DATABASE_URL: {problem}.")


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
TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(slots=True, repr=False)
class Parameters:
    """What stands behind the `?`: by the names of the tables, each with its name as given and its value."""

    given: dict[str, tuple[str, str]]
    ignored: list[str]

    @classmethod
    def parse(cls, backend: Backend, query: str) -> Parameters:
        meant, ignored = _MEANT[backend], _IGNORED[backend]
        accepted = f"accepted for {_LABELS[backend]}: {', '.join(sorted(meant | ignored))}"
        parameters, seen = cls({}, []), set()
        for piece in filter(None, query.split("&")):
            name, equals, value = piece.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,60}", name):
                raise refusal(f"a parameter behind the ? is not of the form name=value; {accepted}")
            key = name.lower().replace("-", "_")
            key = _ALIASES.get(key, key)
            if key not in meant | ignored:
                raise refusal(f"the parameter {name!r} is not known; {accepted}")
            if key in seen:
                raise refusal(f"the parameter {name!r} is given twice, if only in another spelling")
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
            raise self.refused(key, f"must be one of {', '.join(words)}")
        return None if value is None else words[value.lower()]

    def whole(self, key: str, low: int, high: int) -> int | None:
        value = self.text(key)
        if value is not None and not is_whole(value, low, high):
            raise self.refused(key, f"must be a whole number from {low} to {high}")
        return None if value is None else int(value)

    def seconds(self, key: str) -> float | None:
        value = self.text(key)
        if value is not None and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
            raise self.refused(key, "must be a number of seconds, such as 10")
        if value is not None and not float(value):
            # To Prisma and libpq: for ever. Nothing waits for ever here; the default stays.
            self.ignored.append(self.given[key][0])
            return None
        return None if value is None else float(value)

    def refused(self, key: str, problem: str) -> ConfigurationError:
        return refusal(f"the parameter {self.given[key][0]!r} {problem}")


def is_whole(value: str, low: int, high: int) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", value) is not None and low <= int(value) <= high
