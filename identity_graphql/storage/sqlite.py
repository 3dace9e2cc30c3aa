"""What is special about SQLite."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from identity_graphql.domain.reconcile import Numbers, Plan
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Engines, Pool
from identity_graphql.storage.error_table import SQLITE, ErrorClass, Meaning
from identity_graphql.storage.plan_writes import write

BUSY_TIMEOUT = 5000  # milliseconds
PRAGMAS = (
    "journal_mode=WAL",  # readers do not wait for the writer
    "synchronous=FULL",  # what was acknowledged survives a loss of power
    "foreign_keys=ON",
    f"busy_timeout={BUSY_TIMEOUT}",  # another process may be writing
    "secure_delete=ON",  # what is erased is overwritten, not only given up
)
CHECKPOINT = sa.text("PRAGMA wal_checkpoint(TRUNCATE)")
CHECKPOINTS = 4
"""Times to try. Each waits for readers, and writers for it: so a little only."""
CHECKPOINT_TIMEOUT = 250  # milliseconds
LAST_NUMBER = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :table")
MISSING = re.compile("no such (table|column)|table .* has no column")
"""What SQLite has no code for."""


class SQLite:
    def engines(self, address: Address, pool: Pool) -> Engines:
        # Writers take turns in one connection instead of polling the file for their turn. Isolation needs no
        # setting: a transaction of SQLite is always serializable.
        write = _beginning("BEGIN IMMEDIATE", self._engine(address, size=1, timeout=pool.timeout))
        return Engines(
            read=self._engine(address, size=pool.size, timeout=pool.timeout),
            write=write,
            snapshot=_beginning("BEGIN", self._engine(address, size=pool.size, timeout=pool.timeout)),
            queue=write,
            many_writers=False,
        )

    def _engine(self, address: Address, *, size: int, timeout: float) -> AsyncEngine:
        engine = create_async_engine(
            address.url,
            connect_args=dict(address.connect_args),
            pool_size=size,
            max_overflow=0,
            pool_timeout=timeout,
            json_deserializer=msgspec.json.decode,  # to read the log is to read JSON
            hide_parameters=True,
        )

        @sa.event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: Any, _: object) -> None:
            connection.isolation_level = None  # the driver begins no transactions of its own
            cursor = connection.cursor()
            for pragma in PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        return engine

    def classify_error(self, error: BaseException) -> Meaning:
        origin = getattr(error, "orig", None) or error
        code: int | None = getattr(origin, "sqlite_errorcode", None)
        if code is None:
            return Meaning(ErrorClass.OURS, type(origin).__name__)
        if code == sqlite3.SQLITE_ERROR and MISSING.match(str(origin)):
            return Meaning(ErrorClass.NOT_MIGRATED, "SQLITE_ERROR no such table or column")
        family = code & 0xFF  # BUSY_SNAPSHOT and the like are kinds of BUSY
        return SQLITE.meaning(code, family, called=getattr(origin, "sqlite_errorname", None))

    async def check_encoding(self, connection: AsyncConnection) -> None:
        pass  # UTF-8 or UTF-16: it knows no other

    async def write(self, connection: AsyncConnection, plan: Plan) -> Numbers:
        return await write(connection, plan, insert_numbered=self.insert_numbered, classify_error=self.classify_error)

    async def insert_numbered(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        # The write lock is ours: nobody else draws numbers meanwhile, and AUTOINCREMENT keeps the highest ever used.
        last = await connection.scalar(LAST_NUMBER, {"table": table.name}) or 0
        (key,) = table.primary_key
        numbers = range(last + 1, last + 1 + len(rows))
        await connection.execute(
            table.insert(), [{**row, key.name: number} for row, number in zip(rows, numbers, strict=True)]
        )
        return list(numbers)

    async def wait_for_writers(self, engines: Engines, seq: int) -> None:
        pass  # there is one writer at a time: numbers are committed in their order

    async def truncate_wal(self, engines: Engines) -> bool:
        """Empty the write-ahead log, which keeps pages as they were before. Not as long as somebody reads them."""
        async with engines.read.connect() as connection:
            await connection.exec_driver_sql(f"PRAGMA busy_timeout={CHECKPOINT_TIMEOUT}")
            try:
                for _ in range(CHECKPOINTS):
                    busy, *_ = (await connection.execute(CHECKPOINT)).one()
                    if not busy:
                        return True
                return False
            finally:
                await connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")

    @asynccontextmanager
    async def without_timeouts(self, connection: AsyncConnection) -> AsyncIterator[None]:
        yield  # there is no limit

    async def allow_full_scans(self, connection: AsyncConnection) -> None:
        pass  # they may

    @asynccontextmanager
    async def migration_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        yield  # BEGIN IMMEDIATE is the lock


def _beginning(statement: str, engine: AsyncEngine) -> AsyncEngine:
    """Begin every transaction in this way. IMMEDIATE takes the write lock at once: one that reads first and writes
    later could not be retried inside."""

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(statement)

    return engine
