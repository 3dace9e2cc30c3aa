"""What is special about PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

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

    async def insert(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        (key,) = table.primary_key
        statement = table.insert().returning(key, sort_by_parameter_order=True)
        return list((await connection.execute(statement, rows)).scalars())

    @asynccontextmanager
    async def migration_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        # Of the transaction, not of the session: a pooler in front may hand the session to somebody else.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        yield
