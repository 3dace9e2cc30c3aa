"""What is special about PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from identity_graphql.storage import tables
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Engines, Pool, Verdict

# serialization_failure, deadlock_detected, lock_not_available
RETRY = frozenset({"40001", "40P01", "55P03"})
# Beside class 08 (connection exception): admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
# query_canceled (a statement timeout), too_many_connections, read_only_sql_transaction (a replica after failover)
AWAY = frozenset({"57P01", "57P02", "57P03", "57P04", "57014", "53300", "25006"})
MIGRATION_LOCK = 0x1DE7717  # any number that nobody else uses


class PostgreSQL:
    def engines(self, address: Address, pool: Pool) -> Engines:
        engine = create_async_engine(
            address.url,
            connect_args=dict(address.connect_args),
            pool_size=pool.size,
            max_overflow=0,
            pool_timeout=pool.timeout,
            # Set rather than inherited: correct at every level, this one only avoids needless conflicts.
            isolation_level=pool.isolation_level,
            hide_parameters=True,  # error texts hold no personal data
        )
        # One statement needs no BEGIN and ROLLBACK around it.
        return Engines(read=engine.execution_options(isolation_level="AUTOCOMMIT"), write=engine)

    def judge(self, error: BaseException) -> Verdict:
        origin = getattr(error, "orig", None) or error
        state: str = getattr(origin, "sqlstate", None) or ""
        if state in RETRY:
            return Verdict.RETRY
        if state == "23505":  # unique_violation
            return Verdict.DUPLICATE
        if state in AWAY or state.startswith("08"):
            return Verdict.AWAY
        return Verdict.UNEXPECTED

    async def swap(self, connection: AsyncConnection, swaps: Sequence[Mapping[str, Any]]) -> int:
        return (await connection.execute(_SWAP, _arrays(tables.contact, swaps))).rowcount

    async def insert(self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        await connection.execute(_insert(table, tuple(rows[0])), _arrays(table, rows))

    async def number(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        statement = _insert(table, tuple(rows[0])).returning(*table.primary_key)
        # Numbered in the order of the rows, but not promised to be returned in it.
        return sorted((await connection.execute(statement, _arrays(table, rows))).scalars())

    @asynccontextmanager
    async def migration_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        # Of the transaction, not of the session: a pooler in front may hand the session to somebody else.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        yield


def _rows(**types: Any) -> sa.TableValuedAlias:
    """The rows that come as one array per column: one statement, however many they are."""
    arrays = [sa.bindparam(name, type_=ARRAY(kind)) for name, kind in types.items()]
    columns = [sa.column(name, kind) for name, kind in types.items()]
    return sa.func.unnest(*arrays).table_valued(*columns, with_ordinality="position").render_derived(name="given")


def _arrays(table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The parameters of such a statement."""
    documents = {column.name for column in table.columns if isinstance(column.type, sa.JSON)}
    return {
        name: [orjson.dumps(row[name]).decode() for row in rows] if name in documents else [row[name] for row in rows]
        for name in rows[0]
    }


@cache
def _insert(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    """Insert such rows, in their order."""
    # Without lengths: a cast to VARCHAR(n) would cut what an INSERT refuses. JSON has arrays only of its text.
    given = _rows(
        **{
            name: sa.Text if isinstance(table.c[name].type, sa.String | sa.JSON) else table.c[name].type
            for name in names
        }
    )
    values = [
        sa.cast(given.c[name], sa.JSON) if isinstance(table.c[name].type, sa.JSON) else given.c[name] for name in names
    ]
    return table.insert().from_select(names, sa.select(*values).order_by(given.c.position))


def _swap() -> sa.Update:
    """`statements.SWAP` for many contacts at once."""
    contact = tables.contact
    given = _rows(
        primary_id=sa.BigInteger, seen=sa.BigInteger, new_version=sa.BigInteger, new_changed_at=tables.UtcDateTime
    )
    # An UPDATE alone locks its rows in any order, and two of them would wait for each other.
    locked = (
        sa.select(contact.c.id)
        .where(tables.among(contact.c.id, "primary_id"))
        .order_by(contact.c.id)
        .with_for_update(key_share=True)
        .cte("locked")
        .prefix_with("MATERIALIZED")
    )
    return (
        contact.update()
        .where(
            contact.c.id == locked.c.id,
            contact.c.id == given.c.primary_id,
            contact.c.version == given.c.seen,
        )
        .values(version=given.c.new_version, changed_at=given.c.new_changed_at)
    )


_SWAP = _swap()
