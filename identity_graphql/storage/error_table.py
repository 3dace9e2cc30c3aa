"""What the errors of the three databases mean, by their codes, never by their texts.

One table per database, in one shape. What is not in it is OURS.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

Code = TypeVar("Code", int, str)


class ErrorClass(Enum):
    """What a database error means for the request."""

    RETRY = auto()
    """the database rolled back because of others, or of a time-out: try again as long as there is time"""
    DUPLICATE = auto()
    """a key exists already that was to be new"""
    AWAY = auto()
    """no connection, or none that can go on: it is dropped, and tried once more on a new one"""
    UNWRITABLE = auto()
    """it can be read, and not written to. As AWAY: after a failover, a new connection leads to the new primary"""
    REFUSED = auto()
    """it is there, and lets nobody in or lacks what it needs: somebody has to see to it"""
    NOT_MIGRATED = auto()
    """a table or a column is missing"""
    OURS = auto()
    """a fault of this program"""


DROPPED = frozenset({ErrorClass.AWAY, ErrorClass.UNWRITABLE})
"""After an error of these classes, the connection is not used again."""


class Meaning(NamedTuple):
    """The class of an error, and what to call it in a log: the code and its name, never a text of the database."""

    kind: ErrorClass
    name: str


class ErrorTable(Generic[Code]):
    """The codes of one database by their classes. The first code of a lookup that is there counts."""

    def __init__(self, rows: Mapping[ErrorClass, Mapping[Code, str]]) -> None:
        self._meanings: dict[Code, Meaning] = {}
        for kind, names in rows.items():
            for code, name in names.items():
                assert code not in self._meanings, f"{code} has two classes"
                self._meanings[code] = Meaning(kind, name)

    def __contains__(self, code: object) -> bool:
        return code in self._meanings

    def meaning(self, code: Code, family: Code | None = None, *, called: str | None = None) -> Meaning:
        """Returns what a code means, or else its family; ``called``: how the code is written in a log."""
        found = self._meanings.get(code) or (None if family is None else self._meanings.get(family))
        if found is None:
            return Meaning(ErrorClass.OURS, called or str(code))
        return Meaning(found.kind, f"{called or code} {found.name}")


# https://www.postgresql.org/docs/current/errcodes-appendix.html: two characters stand for the rest of their class
POSTGRESQL = ErrorTable[str](
    {
        ErrorClass.RETRY: {
            "22012": "division by zero",  # our own statement fails so when a swap falls short
            "40": "transaction rollback",
            "40001": "serialization failure",
            "40P01": "deadlock detected",
            "55P03": "lock not available",  # within lock_timeout
            "57014": "query canceled",  # by statement_timeout, or by hand
            "72": "snapshot too old",  # of a long read, beside old_snapshot_threshold
        },
        ErrorClass.DUPLICATE: {"23505": "unique violation"},
        ErrorClass.AWAY: {
            "08": "connection exception",
            "08P01": "protocol violation",
            "25P03": "idle-in-transaction session timeout",
            "25P04": "transaction timeout",
            "26": "invalid statement name",  # with 42P05: another session than the one that prepared it
            "42P05": "duplicate prepared statement",
            "57": "operator intervention",
            "57P01": "admin shutdown",
            "57P02": "crash shutdown",
            "57P03": "cannot connect now",
            "57P04": "database dropped",
            "57P05": "idle session timeout",
        },
        ErrorClass.UNWRITABLE: {"25006": "read-only transaction", "53100": "disk full"},
        ErrorClass.REFUSED: {
            "28": "invalid authorization",
            "28P01": "invalid password",
            "3D": "no such database",
            "42501": "insufficient privilege",
            "53": "insufficient resources",
            "53200": "out of memory",
            "53300": "too many connections",
            "53400": "configuration limit exceeded",
            "55": "object not in prerequisite state",
            "58": "system error",
            "58030": "I/O error",
            "F0": "configuration file error",
            "XX001": "data corrupted",
            "XX002": "index corrupted",
        },
        ErrorClass.NOT_MIGRATED: {"3F": "invalid schema name", "42703": "undefined column", "42P01": "undefined table"},
        ErrorClass.OURS: {
            "00": "successful completion",
            "01": "warning",
            "02": "no data",
            "03": "SQL statement not yet complete",
            "09": "triggered action exception",
            "0A": "feature not supported",
            "0B": "invalid transaction initiation",
            "0F": "locator exception",
            "0L": "invalid grantor",
            "0P": "invalid role specification",
            "0Z": "diagnostics exception",
            "10": "XQuery error",
            "20": "case not found",
            "21": "cardinality violation",
            "22": "data exception",
            "23": "integrity constraint violation",
            "24": "invalid cursor state",
            "25": "invalid transaction state",
            "27": "triggered data change violation",
            "2B": "dependent privilege descriptors still exist",
            "2D": "invalid transaction termination",
            "2F": "SQL routine exception",
            "34": "invalid cursor name",
            "38": "external routine exception",
            "39": "external routine invocation exception",
            "3B": "savepoint exception",
            "42": "syntax error or access rule violation",
            "44": "WITH CHECK OPTION violation",
            "54": "program limit exceeded",
            "HV": "foreign data wrapper error",
            "P0": "PL/pgSQL error",
            "XX": "internal error",
        },
    }
)

# MySQL's and MariaDB's servers (1000-1999, from 3000) and the client (2000-2999). Where the two servers gave a number
# to different errors, the other one is none that this program can meet.
# https://dev.mysql.com/doc/mysql-errors/en/, https://mariadb.com/docs/server/reference/error-codes
MYSQL = ErrorTable[int](
    {
        ErrorClass.RETRY: {
            1020: "record has changed since it was read",
            1028: "sort aborted",
            1205: "lock wait timeout",
            1213: "deadlock",
            1297: "temporary error of the storage engine",
            1317: "query interrupted",
            1402: "transaction branch rolled back",
            1412: "table definition has changed",
            1613: "transaction branch rolled back: took too long",
            1614: "transaction branch rolled back: deadlock",
            1615: "statement needs to be prepared again",
            1689: "lock wait aborted",
            1964: "an earlier commit failed",
            1969: "statement timeout",
            3024: "statement timeout",
            3058: "deadlock of user-level locks",
            3101: "rolled back by the replication group",
            3177: "lock refused by the storage engine",
            3572: "lock not available at once",
        },
        ErrorClass.DUPLICATE: {1022: "duplicate key", 1062: "duplicate entry", 1586: "duplicate entry"},
        ErrorClass.AWAY: {
            0: "not connected",
            1042: "host name not found",
            1043: "bad handshake",
            1047: "unknown command",  # what a node of a Galera cluster says that is not ready
            1053: "server shutdown",
            1077: "normal shutdown",
            1078: "got a signal",
            1079: "shutdown complete",
            1080: "connection closed by force",
            1081: "no IP socket",
            1152: "connection aborted",
            1154: "read error from the connection pipe",
            1155: "fcntl error",
            1156: "packets out of order",
            1157: "packet not uncompressed",
            1158: "network read error",
            1159: "network read timeout",
            1160: "network write error",
            1161: "network write timeout",
            1184: "connection aborted",
            1835: "malformed packet",
            1927: "connection killed",
            2000: "unknown error of the client",
            2001: "no UNIX socket",
            2002: "cannot connect through the socket",
            2003: "cannot connect",
            2004: "no IP socket",
            2005: "unknown host",
            2006: "server has gone away",
            2007: "another protocol",
            2009: "wrong host info",
            2012: "handshake error",
            2013: "lost connection",
            2014: "commands out of sync",
            2026: "TLS error",
            2027: "malformed packet",
            2047: "unknown protocol",
            2048: "invalid connection handle",
            2050: "fetch canceled",
            2055: "lost connection",
            3032: "server in offline mode",
            3168: "server not available",
            3169: "session killed",
            4031: "disconnected because of inactivity",
            9001: "ProxySQL reaches no server",
        },
        ErrorClass.UNWRITABLE: {
            1021: "disk full",
            1026: "error writing a file",
            1036: "table is read-only",
            1114: "table is full",
            1290: "server is read-only",
            1792: "read-only transaction",
            1811: "I/O write error",
            1836: "read-only mode",
            1874: "InnoDB is read-only",
            1878: "temporary file not written",
            1881: "InnoDB in forced recovery",
            3019: "undo log full",
            3100: "refused by the replication group",
            3675: "disk full",
            3989: "schema is read-only",
            4139: "index file is full",
        },
        ErrorClass.REFUSED: {
            1004: "cannot create a file",
            1015: "cannot lock a file",
            1016: "cannot open a file",
            1017: "file not found",
            1018: "cannot read a directory",
            1023: "error closing a file",
            1024: "error reading a file",
            1030: "error of the storage engine",
            1033: "incorrect information in a file",
            1034: "index corrupt",
            1035: "old key file",
            1037: "out of memory",
            1038: "out of sort memory",
            1039: "unexpected end of a file",
            1040: "too many connections",
            1041: "out of memory",
            1044: "access to the database denied",
            1045: "access denied",
            1046: "no database selected",  # dropped since
            1049: "unknown database",
            1129: "host is blocked",
            1130: "host is not allowed to connect",
            1133: "no such user",
            1135: "cannot create a thread",
            1142: "access to a table denied",
            1143: "access to a column denied",
            1180: "error during commit",
            1181: "error during rollback",
            1182: "error during flush of logs",
            1183: "error during checkpoint",
            1194: "table crashed",
            1195: "table crashed and not repaired",
            1203: "user has too many connections",
            1206: "lock table full",
            1226: "user has exceeded a limit",
            1227: "a privilege is missing",
            1251: "authentication protocol not supported",
            1275: "old password format",
            1286: "unknown storage engine",
            1296: "error of the storage engine",
            1370: "access to a routine denied",
            1388: "cannot map a file",
            1459: "table needs an upgrade",
            1524: "plugin not loaded",
            1534: "binary log not written",
            1598: "binary logging not possible",
            1637: "too many transactions",
            1665: "binary log needs binlog_format=ROW or MIXED",
            1698: "access denied",
            1707: "table needs a rebuild",
            1712: "index corrupt",
            1728: "system table corrupt",
            1805: "system table corrupt",
            1810: "I/O read error",
            1812: "tablespace missing",
            1814: "tablespace discarded",
            1817: "index corrupt",
            1820: "password must be changed",
            1862: "password expired",
            1873: "access denied",
            1877: "table corrupt",
            1932: "table missing in the storage engine",
            2008: "client out of memory",
            2049: "old authentication protocol",
            2058: "authentication plugin missing",
            2059: "authentication plugin cannot be loaded",
            2061: "authentication plugin error",
            3000: "file corrupt",
            3003: "storage engine not loaded",
            3015: "storage engine out of memory",
            3118: "account locked",
            3159: "TLS required",
            3161: "storage engine disabled",
            3879: "access to the database denied",
            3950: "out of memory",
            3955: "account blocked after failed logins",
            3985: "out of resources for metadata locks",
            4150: "user blocked after failed logins",
            4151: "account locked",
        },
        ErrorClass.NOT_MIGRATED: {1054: "unknown column", 1146: "no such table"},
    }
)

# https://www.sqlite.org/rescode.html: the lowest byte of an extended code is that of its family
SQLITE = ErrorTable[int](
    {
        ErrorClass.RETRY: {
            sqlite3.SQLITE_ABORT: "callback requested an abort",
            sqlite3.SQLITE_BUSY: "busy",
            sqlite3.SQLITE_LOCKED: "locked",
            sqlite3.SQLITE_INTERRUPT: "interrupted",
            sqlite3.SQLITE_PROTOCOL: "locking protocol",
            sqlite3.SQLITE_SCHEMA: "schema has changed",
            sqlite3.SQLITE_ERROR_RETRY: "statement needs to be prepared again",
            sqlite3.SQLITE_ERROR_SNAPSHOT: "snapshot is gone",
            sqlite3.SQLITE_IOERR_BLOCKED: "busy",
        },
        ErrorClass.DUPLICATE: {
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "primary key exists",
            sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique key exists",
        },
        ErrorClass.AWAY: {sqlite3.SQLITE_IOERR: "I/O error", sqlite3.SQLITE_CANTOPEN: "file cannot be opened"},
        ErrorClass.UNWRITABLE: {
            sqlite3.SQLITE_READONLY: "file is read-only",
            sqlite3.SQLITE_FULL: "disk full",
            sqlite3.SQLITE_IOERR_WRITE: "write error",
            sqlite3.SQLITE_IOERR_FSYNC: "write error",
            sqlite3.SQLITE_IOERR_DIR_FSYNC: "write error",
            sqlite3.SQLITE_IOERR_TRUNCATE: "write error",
        },
        ErrorClass.REFUSED: {
            sqlite3.SQLITE_PERM: "access denied",
            sqlite3.SQLITE_NOMEM: "out of memory",
            sqlite3.SQLITE_CORRUPT: "file is damaged",
            sqlite3.SQLITE_NOLFS: "large files not supported",
            sqlite3.SQLITE_AUTH: "authorization denied",
            sqlite3.SQLITE_NOTADB: "file is not a database",
            sqlite3.SQLITE_IOERR_NOMEM: "out of memory",
            sqlite3.SQLITE_IOERR_CORRUPTFS: "file system is damaged",
        },
        ErrorClass.OURS: {
            sqlite3.SQLITE_ERROR: "error",
            sqlite3.SQLITE_INTERNAL: "internal error",
            sqlite3.SQLITE_NOTFOUND: "not found",
            sqlite3.SQLITE_EMPTY: "empty",
            sqlite3.SQLITE_TOOBIG: "too big",
            sqlite3.SQLITE_CONSTRAINT: "constraint violation",
            sqlite3.SQLITE_MISMATCH: "datatype mismatch",
            sqlite3.SQLITE_MISUSE: "misuse",
            sqlite3.SQLITE_FORMAT: "format",
            sqlite3.SQLITE_RANGE: "out of range",
            sqlite3.SQLITE_NOTICE: "notice",
            sqlite3.SQLITE_WARNING: "warning",
        },
    }
)
