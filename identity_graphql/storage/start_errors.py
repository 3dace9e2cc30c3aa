"""What is wrong with the database when the program starts, and what to do about it: for whoever waits there."""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from identity_graphql.errors import ConfigurationError, Conflict, DatabaseUnavailable
from identity_graphql.storage.address import Address, Backend
from identity_graphql.storage.migrations import ANOTHER_PLACE

_PERMISSION = (
    "The user of DATABASE_URL may not do that. Grant it (on PostgreSQL: GRANT CREATE ON SCHEMA), or migrate with a "
    "user who may (`identity-graphql migrate`) and serve with AUTO_MIGRATE=false."
)
_FULL_HOUSE = (
    "There are too many connections. The service takes up to POOL_SIZE (or ?connection_limit=) of them in each of its "
    "WORKERS: lower these, or raise the limit of the server or of this user."
)
_READ_ONLY = "It is read-only, perhaps a replica: DATABASE_URL must lead to the primary."
_DISK_FULL = "Its disk is full, or it cannot write there: make room."
_POOLER = "A pooler such as PgBouncer is in between, which needs ?pgbouncer=true at the end of DATABASE_URL."
_TOLD_POOLER = (
    "The pooler in between says so: look at its databases, its users and, for ?schema=, at its track_extra_parameters."
)
_PASSWORD = (
    "The user name or the password in DATABASE_URL is wrong (special characters must be percent-encoded), or this user "
    "may not log in from here, or not without TLS (?sslmode=require)."
)
_NO_DATABASE = "There is no such database: create it, or correct the name in DATABASE_URL."
_STARTING = "It is just starting or stopping: try again in a moment."

# The codes of PostgreSQL are texts, those of MySQL and SQLite numbers.
ADVICE: Mapping[object, str] = {
    "08P01": _POOLER,
    "26000": _POOLER,
    "42P05": _POOLER,
    "25006": _READ_ONLY,
    "28000": _PASSWORD,
    "28P01": _PASSWORD,
    "3D000": _NO_DATABASE,
    "42501": _PERMISSION,
    "42703": ANOTHER_PLACE,  # it reads first its table alembic_version: of that name, but not its own
    "42P07": ANOTHER_PLACE,
    "42710": ANOTHER_PLACE,
    "53100": _DISK_FULL,
    "53300": _FULL_HOUSE,
    "55000": "The database takes no connections: ALTER DATABASE ... ALLOW_CONNECTIONS true.",
    "57P03": _STARTING,
    1021: _DISK_FULL,
    1040: _FULL_HOUSE,
    1044: _PERMISSION,
    1045: _PASSWORD,
    1049: _NO_DATABASE,
    1050: ANOTHER_PLACE,
    1053: _STARTING,
    1054: ANOTHER_PLACE,
    1061: ANOTHER_PLACE,
    1114: _DISK_FULL,
    1129: "The server has blocked this host after many errors: FLUSH HOSTS.",
    1130: "The server lets nobody in from this host: create the user for it, as in 'user'@'%'.",
    1142: _PERMISSION,
    1143: _PERMISSION,
    1203: _FULL_HOUSE,
    1226: _FULL_HOUSE,
    1227: _PERMISSION,
    1290: _READ_ONLY,
    1665: "Set binlog_format to ROW or MIXED there, or ISOLATION_LEVEL to REPEATABLE READ here.",
    1698: _PASSWORD,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    1862: "The password has expired: set another one.",
    3118: "Unlock the account: ALTER USER ... ACCOUNT UNLOCK.",
    3159: "The server asks for TLS: add ?sslmode=require at the end of DATABASE_URL.",
    4151: "Unlock the account: ALTER USER ... ACCOUNT UNLOCK.",
    sqlite3.SQLITE_ERROR: ANOTHER_PLACE,
    sqlite3.SQLITE_FULL: _DISK_FULL,
}
_FILE = "The file must be a database, in a folder that exists and that this user may write to."
_SERVERS = {
    Backend.POSTGRESQL: "a server of PostgreSQL (mostly at port 5432)",
    Backend.MYSQL: "a server of MySQL or MariaDB (mostly at port 3306)",
}


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Raises ConfigurationError, which tells what is wrong with the database in its own words, and what to do.

    At start only: no customer's data is involved yet, so that none can be in those words.
    """
    try:
        yield
    except Conflict:
        raise ConfigurationError(f"The database {address} is in use by something that locks it; try again.") from None
    except (DatabaseUnavailable, sa.exc.DBAPIError) as error:
        origin = _origin(error)
        told = _words_of(origin)
        advice = _advice(address, origin, lost=isinstance(error, DatabaseUnavailable))
    else:
        return
    # Outside of the handler: what was caught may hold more than is to be shown.
    raise ConfigurationError(f"The database {address} cannot be used: {told}. {advice}")


def _origin(error: BaseException) -> BaseException:
    """What the driver raised, or the operating system."""
    cause = error.__cause__ or error
    origin = getattr(cause, "orig", None) or cause
    # The driver of MySQL wraps what the operating system says.
    return origin.__cause__ if isinstance(origin.__cause__, OSError) else origin


def _words_of(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify ({error.verify_message.rstrip('.')})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror | ssl.SSLError):
        return str(error.strerror or error).rstrip(".")
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)  # its own text is asyncio's: "Connect call failed"
    coded = len(error.args) == 2 and isinstance(error.args[0], int)
    return str(error.args[1] if coded else error).strip().partition("\n")[0].rstrip(".") or "it does not answer"


def _advice(address: Address, error: BaseException, *, lost: bool) -> str:
    if address.backend is Backend.SQLITE:
        return ADVICE.get(getattr(error, "sqlite_errorcode", None), _FILE)
    server = _SERVERS[address.backend]
    if isinstance(error, OSError):
        return _advice_of_the_system(address, error, server)
    # Of asyncmy or asyncpg. The former has a state as well, but that is coarser than its code.
    for code in (*error.args[:1], getattr(error, "sqlstate", None)):
        if code in ADVICE:
            advice = ADVICE[code]
            return _TOLD_POOLER if advice is _POOLER and address.pooled else advice
    if lost:
        return f"Is it running, is DATABASE_URL right, and is it {server}?"
    return "Check DATABASE_URL, what its user may do, and that nobody else's tables are there."


def _advice_of_the_system(address: Address, error: OSError, server: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "Name the file of the authority that signed it with ?sslrootcert=/path/to/ca.pem, and the host as the "
            "certificate has it; ?sslmode=require encrypts without looking at the certificate."
        )
    if isinstance(error, socket.gaierror):
        return "The name of the host is not known here: correct it in DATABASE_URL."
    if isinstance(error, FileNotFoundError | PermissionError):
        return "Is the server running here, and is the socket in DATABASE_URL its own, and open to this user?"
    if isinstance(error, TimeoutError):
        return f"Is a firewall in between, and is it {server}?"
    if isinstance(error, ConnectionRefusedError):
        return "Nothing listens there. Is it running, and are host and port in DATABASE_URL right?"
    if isinstance(error, ssl.SSLError) or address.connect_args.get("ssl") not in (None, "prefer", "allow"):
        return f"It does not encrypt as it was asked to: without TLS, ?sslmode=disable connects. And is it {server}?"
    return f"Is it running, is it {server}, and is DATABASE_URL right?"
