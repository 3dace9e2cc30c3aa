"""What is special about MySQL and MariaDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncmy
import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from identity_graphql.domain.reconcile import Numbers, Plan
from identity_graphql.errors import ConfigurationError
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import CONNECT_TIMEOUT, Engines, Pool
from identity_graphql.storage.error_table import MYSQL, ErrorClass, Meaning
from identity_graphql.storage.plan_writes import write

# MariaDB's and MySQL's, as where they are set (`engines`).
NO_TIMEOUT = sa.text(
    "SET @before = 0, @waited = @@lock_wait_timeout, SESSION lock_wait_timeout = 86400"
    "/*M!, @before = @@max_statement_time, SESSION max_statement_time = 0 */"
    "/*!50708 , @before = @@max_execution_time, SESSION max_execution_time = 0 */"
)
TIMEOUT_AGAIN = sa.text(
    "SET @before = @before, SESSION lock_wait_timeout = @waited /*M!, SESSION max_statement_time = @before */"
    "/*!50708 , SESSION max_execution_time = @before */"
)
RECENT = sa.text("SELECT seq FROM event WHERE seq <= :seq ORDER BY seq DESC LIMIT 10000")
MIGRATION_LOCK = "identity_graphql.migrations"
MIGRATION_WAIT = 120  # seconds


class MySQL:
    def engines(self, address: Address, pool: Pool) -> Engines:
        arguments = {"connect_timeout": CONNECT_TIMEOUT, **address.connect_args, "async_creator_fn": _connect}
        wait = max(1, round(pool.lock_timeout))
        arguments["init_command"] = (
            # The former is for rows, the latter for tables, which DDL locks.
            f"SET SESSION innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}, sql_mode = 'TRADITIONAL'"
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
            json_deserializer=msgspec.json.decode,  # to read the log is to read JSON
            hide_parameters=True,
        )
        return Engines(
            read=engine,
            write=engine,
            snapshot=engine.execution_options(isolation_level="REPEATABLE READ"),
            queue=engine.execution_options(isolation_level="READ COMMITTED"),
        )

    def classify_error(self, error: BaseException) -> Meaning:
        origin = getattr(error, "orig", None) or error
        code = origin.args[0] if origin.args else None
        if isinstance(code, int):
            return MYSQL.meaning(code)
        # The driver's own: what came is not MySQL's protocol, or no longer in step.
        kind = ErrorClass.AWAY if isinstance(origin, asyncmy.errors.InternalError) else ErrorClass.OURS
        return Meaning(kind, type(origin).__name__)

    async def check_encoding(self, connection: AsyncConnection) -> None:
        pass  # the tables and the connections have their own, whatever that of the database is: utf8mb4

    async def write(self, connection: AsyncConnection, plan: Plan) -> Numbers:
        return await write(connection, plan, insert_numbered=self.insert_numbered, classify_error=self.classify_error)

    async def insert_numbered(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        # MySQL has no RETURNING, and the ids of one INSERT of many rows need not follow each other on a cluster.
        statement = table.insert()
        return [(await connection.execute(statement, row)).lastrowid for row in rows]

    async def wait_for_writers(self, engines: Engines, seq: int) -> None:
        # What is written and not committed can be seen here: no lock is needed, and nobody waits for us.
        dirty = engines.read.execution_options(isolation_level="READ UNCOMMITTED")
        async with dirty.connect() as connection:
            written = set((await connection.execute(RECENT, {"seq": seq})).scalars())
        while written:
            async with engines.read.connect() as connection:
                written -= set((await connection.execute(RECENT, {"seq": seq})).scalars())
            if written:
                await asyncio.sleep(0.002)
                async with dirty.connect() as connection:  # whoever gave up is gone
                    written &= set((await connection.execute(RECENT, {"seq": seq})).scalars())

    async def truncate_wal(self, engines: Engines) -> bool:
        return True  # no table has it any more; what the server keeps of them is not ours to see

    @asynccontextmanager
    async def without_timeouts(self, connection: AsyncConnection) -> AsyncIterator[None]:
        await connection.execute(NO_TIMEOUT)
        try:
            yield
        finally:
            await connection.execute(TIMEOUT_AGAIN)

    async def allow_full_scans(self, connection: AsyncConnection) -> None:
        pass  # they may

    @asynccontextmanager
    async def migration_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        # Of the session: its DDL commits by itself, so a lock of the transaction would be lost at once.
        taken = await connection.scalar(sa.select(sa.func.get_lock(MIGRATION_LOCK, MIGRATION_WAIT)))
        if taken != 1:
            raise ConfigurationError(
                f"Another process has been migrating this database for {MIGRATION_WAIT} seconds; try again later."
            )
        try:
            yield
            # Whoever has the lock next must see it: its DDL is committed, the number of its revision is not yet.
            await connection.execute(sa.text("COMMIT"))
        finally:
            await connection.execute(sa.select(sa.func.release_lock(MIGRATION_LOCK)))


async def _connect(*, connect_timeout: float, **arguments: Any) -> asyncmy.Connection:
    # The driver's own time-out is over once the server has picked up; whether it then says anything is not its concern.
    async with asyncio.timeout(connect_timeout):
        return await asyncmy.connect(**arguments)
