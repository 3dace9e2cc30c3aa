"""What is asked for by a list is looked up by an index, on every database."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from identity_graphql.storage import event_log, statements, tables
from tests.support.databases import Database

GIVEN: dict[str, Any] = {
    "ids": [1, 2],
    "primary_ids": [1, 2],
    "emails": ["a@x.io", "b@x.io"],
    "phone_numbers": ["111111", "222222"],
    "pair_values": ["a@x.io", "b@x.io"],
    "pair_other_values": ["111111", "222222"],
    "kind0": "email",
    "values0": ["a@x.io", "b@x.io"],
    "kind1": "phone_number",
    "values1": ["111111", "222222"],
    "of_kind": "email",
    "after": 0,
    "upto": 10,
    "since": event_log.ALWAYS[0],
    "until": event_log.ALWAYS[1],
    "kinds": ["identify", "undo"],
    "limit": 10,
    "primary_id": 1,
    "at": None,
}
LISTS = {
    name: statement
    for name, statement in vars(statements).items()
    if isinstance(statement, sa.Select | sa.CompoundSelect | sa.Update)
    and "POSTCOMPILE" in str(statement.compile(dialect=sqlite.dialect()))
} | {"find_all": statements.find_all(2)}


def test_there_are_statements_with_lists() -> None:
    assert {"FIND", "LOCK", "RELINK", "EVENTS", "CLAIMANTS", "BANS"} <= set(LISTS)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("dialect", [mysql.dialect(), sqlite.dialect()], ids=["mysql", "sqlite"])
def test_a_list_is_not_compared_with_a_number(name: str, dialect: sa.Dialect) -> None:
    """`id IN (1, 2) = 1`, as booleans are written where there are none, goes through the whole table."""
    assert ") = 1" not in str(LISTS[name].compile(dialect=dialect))


@pytest.mark.parametrize("name", LISTS)
async def test_no_table_is_gone_through_for_a_list(sqlite: Database, name: str) -> None:
    storage = sqlite.open(size=1)
    plans: list[str] = []
    async with storage.reading() as connection:

        @sa.event.listens_for(connection.sync_connection, "before_cursor_execute", retval=True)
        def explain(*given: Any) -> tuple[str, Any]:
            return f"EXPLAIN QUERY PLAN {given[2]}", given[3]

        result = await connection.execute(LISTS[name], GIVEN)
        plans = [row[3] for row in result.cursor.fetchall()]
    await storage.close()

    assert plans
    gone_through = {plan.split()[1] for plan in plans if plan.startswith("SCAN")}
    assert gone_through & set(tables.metadata.tables) <= {"ban"}, "of the bans: whether there is any"
