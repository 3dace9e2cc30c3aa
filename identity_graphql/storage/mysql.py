"""What is special about MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from identity_graphql.domain.reconcile import Numbers, Plan
from identity_graphql.errors import ConfigurationError
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Engines, Pool, Verdict
from identity_graphql.storage.writes import write

# deadlock, lock wait timeout, record has changed since last read
RETRY = frozenset({1213, 1205, 1020})
# cannot connect (2002, 2003), gone away, lost, killed while idle, shutdown in progress, connection killed,
# too many connections, read-only (a replica after failover), a statement timeout (MariaDB, MySQL)
AWAY = frozenset({2002, 2003, 2006, 2013, 2055, 4031, 1053, 1927, 1040, 1290, 1836, 1969, 3024})
DUPLICATE = 1062
# A migration takes as long as it takes.
NO_TIMEOUT = sa.text("SET @before = 0 /*M!, @before = @@max_statement_time, SESSION max_statement_time = 0 */")
TIMEOUT_AGAIN = sa.text("SET @before = @before /*M!, SESSION max_statement_time = @before */")
RECENT = sa.text("SELECT seq FROM event WHERE seq <= :seq ORDER BY seq DESC LIMIT 1000 LOCK IN SHARE MODE")
MIGRATION_LOCK = "identity_graphql.migrations"
MIGRATION_WAIT = 120  # seconds


class MySQL:
    def engines(self, address: Address, pool: Pool) -> Engines:
        arguments = dict(address.connect_args)
        arguments["init_command"] = (
            f"SET SESSION innodb_lock_wait_timeout = {max(1, round(pool.lock_timeout))}, sql_mode = 'TRADITIONAL'"
            # Each of the two reads only its own kind of comment; MySQL's is for reading alone.
            f"/*M!, max_statement_time = {pool.statement_timeout} */"
            f"/*!50708 , max_execution_time = {round(pool.statement_timeout * 1000)} */"
        )
        engine = create_async_engine(
            address.url,
            connect_args=arguments,
            pool_size=pool.size,
            max_overflow=0,
            pool_timeout=pool.timeout,
            isolation_level=pool.isolation_level,
            hide_parameters=True,
        )
        snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
        return Engines(read=engine, write=engine, snapshot=snapshot)

    def judge(self, error: BaseException) -> Verdict:
        origin = getattr(error, "orig", None) or error
        code = origin.args[0] if origin.args else None
        if code in RETRY:
            return Verdict.RETRY
        if code == DUPLICATE:
            return Verdict.DUPLICATE
        return Verdict.AWAY if code in AWAY else Verdict.UNEXPECTED

    async def write(self, connection: AsyncConnection, plan: Plan) -> Numbers:
        return await write(connection, plan, number=self.number, judge=self.judge)

    async def number(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        # MySQL has no RETURNING, and the ids of one INSERT of many rows need not follow each other on a cluster.
        statement = table.insert()
        return [(await connection.execute(statement, row)).lastrowid for row in rows]

    async def settle(self, connection: AsyncConnection, seq: int) -> None:
        # Reading with a lock waits for the rows of those who have not committed yet.
        await connection.execute(RECENT, {"seq": seq})

    async def forget(self, engines: Engines) -> bool:
        return True  # no table has it any more; what the server keeps of them is not ours to see

    @asynccontextmanager
    async def migration_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        # Of the session: its DDL commits by itself, so a lock of the transaction would be lost at once.
        await connection.execute(NO_TIMEOUT)
        taken = await connection.scalar(sa.select(sa.func.get_lock(MIGRATION_LOCK, MIGRATION_WAIT)))
        if taken != 1:
            raise ConfigurationError(
                f"Another process has been migrating this database for {MIGRATION_WAIT} seconds; try again later."
            )
        try:
            yield
        finally:
            await connection.execute(sa.select(sa.func.release_lock(MIGRATION_LOCK)))
            await connection.execute(TIMEOUT_AGAIN)
