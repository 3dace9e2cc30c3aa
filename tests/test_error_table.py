"""What the errors of the databases mean: every code of their lists has a class, and the right ones are retried."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
from asyncmy.constants import CR, ER

from identity_graphql.storage.error_table import MYSQL, POSTGRESQL, SQLITE, ErrorClass
from tests.support.databases import Databases
from tests.support.servers import bundled_postgresql

SQLSTATE = re.compile(r"^([0-9A-Z]{5}) ", re.MULTILINE)


def sqlstates() -> set[str]:
    """Of the list in asyncpg, and of the one that comes with PostgreSQL."""
    known = {getattr(error, "sqlstate", None) for error in vars(asyncpg.exceptions).values()}
    listed = SQLSTATE.findall((bundled_postgresql().parent / "share" / "errcodes.txt").read_text())
    return {state for state in known if isinstance(state, str)} | set(listed)


def test_every_class_of_postgresqls_list_is_in_the_table() -> None:
    assert len(sqlstates()) > 240
    assert [state for state in sorted(sqlstates()) if state not in POSTGRESQL and state[:2] not in POSTGRESQL] == []


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        (ErrorClass.RETRY, "40001 40P01 55P03 57014 72000"),
        (ErrorClass.AWAY, "08000 08001 08003 08006 08P01 25P03 26000 42P05 57P01 57P02 57P03 57P05"),
        (ErrorClass.UNWRITABLE, "25006 53100"),
        (ErrorClass.REFUSED, "28000 28P01 3D000 42501 53000 53200 53300 53400 55000 58000 58030 XX001 XX002"),
        (ErrorClass.NOT_MIGRATED, "3F000 42P01 42703"),
        (ErrorClass.OURS, "0A000 22001 22P05 23502 23503 25P02 42601 42804 42P18 54000 P0001 XX000 ?????"),
    ],
)
def test_what_postgresqls_states_mean(kind: ErrorClass, states: str) -> None:
    assert {POSTGRESQL.meaning(state, state[:2]).kind for state in states.split()} == {kind}


PRIMARY_CODES = range(1, 29)


def result_codes() -> Iterator[tuple[str, int]]:
    """Of the list in Python's sqlite3, which has other numbers beside them: of limits, of actions to authorize."""
    families = {
        *("ABORT", "AUTH", "BUSY", "CANTOPEN", "CONSTRAINT", "CORRUPT", "EMPTY", "ERROR", "FORMAT", "FULL", "INTERNAL"),
        *("INTERRUPT", "IOERR", "LOCKED", "MISMATCH", "MISUSE", "NOLFS", "NOMEM", "NOTADB", "NOTFOUND", "NOTICE"),
        *("PERM", "PROTOCOL", "RANGE", "READONLY", "SCHEMA", "TOOBIG", "WARNING"),
    }
    for name, code in vars(sqlite3).items():
        if name.startswith("SQLITE_") and isinstance(code, int) and name.split("_")[1] in families and code < 2**16:
            yield name, code


def test_every_result_code_of_sqlite_is_in_the_table() -> None:
    codes = dict(result_codes())
    assert set(codes.values()) >= set(PRIMARY_CODES)
    assert len(codes) > 90
    assert [name for name, code in codes.items() if code not in SQLITE and code & 0xFF not in SQLITE] == []


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ErrorClass.RETRY, "BUSY BUSY_SNAPSHOT BUSY_RECOVERY BUSY_TIMEOUT LOCKED LOCKED_SHAREDCACHE PROTOCOL SCHEMA"),
        (ErrorClass.DUPLICATE, "CONSTRAINT_PRIMARYKEY CONSTRAINT_UNIQUE"),
        (ErrorClass.AWAY, "CANTOPEN CANTOPEN_ISDIR IOERR IOERR_READ IOERR_SHMMAP"),
        (ErrorClass.UNWRITABLE, "FULL READONLY READONLY_DBMOVED READONLY_ROLLBACK IOERR_WRITE IOERR_FSYNC"),
        (ErrorClass.REFUSED, "CORRUPT CORRUPT_INDEX NOTADB NOMEM IOERR_NOMEM PERM AUTH"),
        (ErrorClass.OURS, "ERROR CONSTRAINT CONSTRAINT_CHECK CONSTRAINT_FOREIGNKEY MISMATCH MISUSE RANGE TOOBIG"),
    ],
)
def test_what_sqlites_result_codes_mean(kind: ErrorClass, names: str) -> None:
    codes = [getattr(sqlite3, f"SQLITE_{name}") for name in names.split()]
    assert {SQLITE.meaning(code, code & 0xFF).kind for code in codes} == {kind}


# What of the lists reads as if it were about our connection, locks, disk or rights, and is not: replication, DDL, LOAD
# DATA, other transports, and mistakes of a client.
OTHERS = {
    *(1011, 1025, 1027, 1085, 1086, 1095, 1098, 1099, 1100, 1131, 1132, 1145, 1150, 1153, 1165, 1177, 1179, 1189, 1190),
    *(1192, 1197, 1207, 1208, 1209, 1218, 1223, 1244, 1274, 1285, 1301, 1340, 1428, 1429, 1455, 1457, 1467, 4192),
    *(2010, 2011, 2015, 2020, 2021, 2023, 2024, 2025, *range(2037, 2047), 2060),
}
ABOUT_THE_SERVER = re.compile(
    "CONN|SHUTDOWN|ABORT|NET_|LOCK|READ_?ONLY|FULL|MEMORY|RESOURCES|DENIED|PASSWORD|HOST|TIMEOUT|INTERRUPTED|KILL|GONE"
    "|LOST|CRASH|CORRUPT|DISK|ERROR_ON|FILE|AUTH|NO_SUCH_TABLE|BAD_FIELD|BAD_DB|LIMIT_REACHED|TEMPORARY|SERVER|SSL"
    "|DURING|CHANGED"
)


def test_every_code_of_the_driver_for_mysql_that_is_about_the_server_is_in_the_table() -> None:
    names = {code: name for module in (ER, CR) for name, code in vars(module).items() if isinstance(code, int)}
    about = {code for code, name in names.items() if code >= 1000 and ABOUT_THE_SERVER.search(name)}
    assert len(names) > 500
    assert [names[code] for code in sorted(about - OTHERS) if code not in MYSQL] == []
    assert [names[code] for code in sorted(OTHERS) if code in MYSQL] == []


def test_every_code_of_mariadbs_own_list_is_of_the_class_that_its_state_speaks_of(databases: Databases) -> None:
    [(folder,)] = databases.server("mariadb").query("SELECT @@character_sets_dir")
    file = Path(folder).parent / "errmsg-utf8.txt"
    if not file.exists():
        pytest.skip(f"this MariaDB came without {file}")
    listed = dict(states_of_mariadb(file.read_text(errors="replace")))
    assert len(listed) > 1000

    def missing(state: str, *kinds: ErrorClass) -> list[int]:
        codes = [code for code, states in listed.items() if re.match(state, states) and code not in OTHERS]
        assert codes, state
        return [code for code in codes if MYSQL.meaning(code).kind not in kinds]

    assert missing("08", ErrorClass.AWAY, ErrorClass.REFUSED) == []
    assert missing("25006", ErrorClass.UNWRITABLE) == []
    assert missing("28", ErrorClass.REFUSED) == []
    assert missing("3D", ErrorClass.REFUSED) == []
    assert missing("40", ErrorClass.RETRY) == []
    assert missing("HY001", ErrorClass.REFUSED) == []
    assert missing("XA10", ErrorClass.RETRY) == []
    assert missing("70100", ErrorClass.RETRY, ErrorClass.AWAY) == []
    assert missing("23|22|21|20|24|0[0-7A-Z]|2F|44|XAE", ErrorClass.OURS, ErrorClass.DUPLICATE) == []


def states_of_mariadb(text: str) -> Iterator[tuple[int, str]]:
    """The codes of a file of MariaDB's messages, and the states behind their names."""
    code = 0
    for line in text.splitlines():
        if jump := re.match(r"(?:start-error|skip-to-error)-number (\d+)", line):
            code = int(jump[1])
        elif code and re.match("[A-Z]", line):
            yield code, line.partition(" ")[2]
            code += 1


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        (ErrorClass.RETRY, [1020, 1205, 1213, 1317, 1412, 1615, 1969, 3024, 3101, 3572]),
        (ErrorClass.DUPLICATE, [1062]),
        (ErrorClass.AWAY, [1047, 1053, 1927, 2002, 2003, 2006, 2013, 2055, 3032, 3169, 4031]),
        (ErrorClass.UNWRITABLE, [1021, 1026, 1114, 1290, 1792, 1836, 1874, 3675]),
        (
            ErrorClass.REFUSED,
            [1037, 1040, 1041, 1044, 1045, 1046, 1049, 1129, 1130, 1142, 1203, 1226, 1227, 1698, 3159],
        ),
        (ErrorClass.NOT_MIGRATED, [1054, 1146]),
        (ErrorClass.OURS, [1048, 1064, 1105, 1264, 1406, 1452, 3140, 3819, 99_999]),
    ],
)
def test_what_mysqls_codes_mean(kind: ErrorClass, codes: list[int]) -> None:
    assert {MYSQL.meaning(code).kind for code in codes} == {kind}


def test_a_meaning_is_called_by_its_code_and_its_name() -> None:
    assert POSTGRESQL.meaning("57P01", "57").name == "57P01 admin shutdown"
    assert POSTGRESQL.meaning("28ABC", "28").name == "28ABC invalid authorization"
    assert MYSQL.meaning(1213).name == "1213 deadlock"
    assert SQLITE.meaning(13, 13, called="SQLITE_FULL").name == "SQLITE_FULL disk full"
    assert MYSQL.meaning(99_999).name == "99999"
