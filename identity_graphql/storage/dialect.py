"""What differs between databases, and nothing else: a few hooks, one small module per database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from identity_graphql.domain.reconcile import Numbers, Plan
from identity_graphql.storage.address import Address
from identity_graphql.storage.error_table import Meaning


@dataclass(frozen=True, slots=True)
class Engines:
    """Where to read (one statement, no transaction) and where to write. May be one and the same pool."""

    read: AsyncEngine
    write: AsyncEngine
    snapshot: AsyncEngine
    """to read several statements of one and the same moment"""
    queue: AsyncEngine
    """where every statement sees what was committed before it, so that whoever waited, for rows or for a migration,
    sees what was done meanwhile: always READ COMMITTED, as at a higher level one reads what was there before the wait,
    or is refused for having waited"""
    many_writers: bool = True
    """whether rows have to be locked: not where a transaction that writes is the only one that does"""
    write_alone: bool = False
    """whether `Dialect.write` is one statement that may run where it reads, without a transaction around it"""

    @property
    def spoken(self) -> set[sa.Dialect]:
        """SQLAlchemy's own dialects, of which the engines share some."""
        return {engine.sync_engine.dialect for engine in self._all()}

    async def dispose(self) -> None:
        for engine in self._all():
            await engine.dispose()

    def _all(self) -> list[AsyncEngine]:
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if isinstance(value, AsyncEngine)]


DEFAULT_WAIT = 2.0
CONNECT_TIMEOUT = 10.0
"""Seconds within which a server has to let somebody in: what is no database may say nothing, and for ever."""
LONGEST_LOCK_WAIT = 4.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Connections kept at most, seconds to wait for one, the isolation level of the transactions, and the seconds
    after which the database itself gives up a statement."""

    size: int = 5
    timeout: float = DEFAULT_WAIT
    isolation_level: str = "READ COMMITTED"
    statement_timeout: float = 10.0

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another writer's lock: shorter than a request takes, as it is tried again then."""
        return min(LONGEST_LOCK_WAIT, self.statement_timeout)


class Dialect(Protocol):
    def engines(self, address: Address, pool: Pool) -> Engines:
        """Open the pools. Connects to nothing yet."""

    def classify_error(self, error: BaseException) -> Meaning:
        """What an error of this database's driver means."""

    async def check_encoding(self, connection: AsyncConnection) -> None:
        """Raises ConfigurationError unless the database can hold every character."""

    async def write(self, connection: AsyncConnection, plan: Plan) -> Numbers:
        """Write a plan in the transaction of this connection, in the order of `writes`, and answer as it does."""

    async def insert_numbered(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        """Insert rows into a table that numbers them; the numbers, in the order of the rows."""

    async def wait_for_writers(self, engines: Engines, seq: int) -> None:
        """Wait until every transaction that may have drawn an event number up to this one has ended."""

    async def truncate_wal(self, engines: Engines) -> bool:
        """After an erasure: leave nothing of it in the database's own files, as far as they are ours; whether it
        could."""

    def without_timeouts(self, connection: AsyncConnection) -> AbstractAsyncContextManager[None]:
        """Let the statements of this transaction take as long as they take."""

    async def allow_full_scans(self, connection: AsyncConnection) -> None:
        """Let the statements of this transaction read whole tables, where they would have to use indexes otherwise."""

    def migration_lock(self, connection: AsyncConnection) -> AbstractAsyncContextManager[None]:
        """Keep every other process from migrating this database meanwhile."""
