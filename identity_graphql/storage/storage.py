"""The database: opens the pools, begins and ends every transaction, translates the errors of the drivers."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.events import Event, EventFilter, VerbEvent
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.reconcile import Found
from identity_graphql.domain.state import Ban, Bond, Pair, Withheld, WithheldFilter, bond
from identity_graphql.errors import (
    ConfigurationError,
    Conflict,
    DatabaseAway,
    DatabaseNotMigrated,
    DatabaseRefuses,
    DatabaseUnavailable,
    DatabaseUnwritable,
)
from identity_graphql.storage import event_log, finding, migrations, statements
from identity_graphql.storage.address import Address, Backend
from identity_graphql.storage.attempt import Attempt, find
from identity_graphql.storage.dialect import Dialect, Engines, Pool
from identity_graphql.storage.error_table import DROPPED, ErrorClass, Meaning
from identity_graphql.storage.finding import Totals
from identity_graphql.storage.log_session import LogSession, Place
from identity_graphql.storage.migrations import Migrated
from identity_graphql.storage.mysql import MySQL
from identity_graphql.storage.outage import Outage
from identity_graphql.storage.postgresql import PostgreSQL
from identity_graphql.storage.sqlite import SQLite
from identity_graphql.storage.table_scan import TableScan
from identity_graphql.storage.tables import rule_set
from identity_graphql.storage.trial import try_to_write

DIALECTS: Mapping[Backend, type[Dialect]] = {
    Backend.POSTGRESQL: PostgreSQL,
    Backend.SQLITE: SQLite,
    Backend.MYSQL: MySQL,
}
UNAVAILABLE: Mapping[ErrorClass, type[DatabaseUnavailable]] = {
    ErrorClass.AWAY: DatabaseAway,
    ErrorClass.UNWRITABLE: DatabaseUnwritable,
    ErrorClass.REFUSED: DatabaseRefuses,
    ErrorClass.NOT_MIGRATED: DatabaseNotMigrated,
}


class Storage:
    """The database. Begins and ends every transaction; nobody else does."""

    def __init__(self, dialect: Dialect, engines: Engines, *, schema: str | None = None) -> None:
        self.dialect = dialect
        self.outage = Outage()
        self._engines = engines
        self._schema = schema
        for spoken in engines.spoken:
            sa.event.listen(spoken, "handle_error", self._drop_what_is_lost)

    @classmethod
    def open(cls, address: Address, pool: Pool | None = None) -> Self:
        """Open the pools; connects at the first use."""
        dialect = DIALECTS[address.backend]()
        return cls(dialect, dialect.engines(address, pool or Pool()), schema=address.schema)

    async def close(self) -> None:
        await self._engines.dispose()

    @asynccontextmanager
    async def attempt(self, queue: Collection[int] = ()) -> AsyncIterator[Attempt]:
        """One try at a batch; behind the locks on these primaries, if there are any.

        The locks are a queue, not the judge: they keep the writers of a hot cluster in line, and what is right
        is still decided by the compare-and-swap.
        """
        if queue:
            async with self.transaction() as connection:
                await connection.execute(statements.LOCK, {"ids": statements.padded(sorted(queue), 0)})
                attempt = Attempt.on(self.dialect, connection, queue)
                yield attempt
        elif self._engines.write_alone:
            async with self.reading() as connection:
                attempt = Attempt.on(self.dialect, connection)
                yield attempt
        else:
            attempt = Attempt(self.dialect, reading=self.reading, writing=self.transaction)
            yield attempt
        self.outage.answered(wrote=attempt.wrote)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        with self._translated():
            async with self._engines.write.begin() as connection:
                yield connection

    @asynccontextmanager
    async def log_session(
        self,
        contact_ids: Collection[int],
        *,
        by_value: bool = False,
        by_banned_pair: bool = False,
        place: Place | None = None,
    ) -> AsyncIterator[LogSession]:
        """The log of the lineages of these contacts (`event_log.lineage`); with a ``place`` in the queue, to append
        to it."""
        engine = self._engines.snapshot if place is None else self._engines.queue
        locking = place is not None and self._engines.many_writers
        with self._translated():
            async with engine.begin() as connection:
                session = LogSession(
                    self.dialect,
                    connection,
                    place or Place(),
                    by_value=by_value,
                    by_banned_pair=by_banned_pair,
                    locking=locking,
                )
                await session.include(contact_ids)
                yield session
        self.outage.answered(wrote=place is not None)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """To read with several statements what was there at one moment."""
        with self._translated():
            async with self._engines.snapshot.begin() as connection:
                yield connection

    @asynccontextmanager
    async def table_scan(self) -> AsyncIterator[TableScan]:
        """To go through all that was there at one moment, however long it takes."""
        async with self.snapshot() as connection, self.dialect.without_timeouts(connection):
            yield TableScan(connection, self.dialect)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        with self._translated():
            async with self._engines.read.connect() as connection:
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the errors of the driver into ours; what is left over is a fault of the program."""
        try:
            yield
        except sa.exc.TimeoutError:
            raise Conflict("no connection became free") from None
        except (sa.exc.DBAPIError, OSError) as error:
            found = self._meaning(error)
            if unavailable := UNAVAILABLE.get(found.kind):
                raise unavailable(found.name) from error
            self.outage.answered()
            if found.kind is ErrorClass.RETRY:
                raise Conflict(found.name) from error
            raise
        self.outage.answered()

    def _meaning(self, error: sa.exc.DBAPIError | OSError) -> Meaning:
        if isinstance(error, OSError):
            # The numbers of these two are not the system's.
            number = 0 if isinstance(error, ssl.SSLError | socket.gaierror) else error.errno or 0
            return Meaning(ErrorClass.AWAY, errno.errorcode.get(number, type(error).__name__))
        found = self.dialect.classify_error(error)
        if found.kind is ErrorClass.OURS and error.connection_invalidated:
            return Meaning(ErrorClass.AWAY, found.name)
        return found

    def _drop_what_is_lost(self, context: sa.engine.ExceptionContext) -> None:
        """Have the pool drop the connection that an error makes useless, and those that are as old."""
        if self.dialect.classify_error(context.original_exception).kind in DROPPED:
            context.is_disconnect = True

    async def find(self, identifiers: Collection[Identifier], pairs: Collection[Pair] = ()) -> Found:
        """Every cluster that has one of the identifiers, those of the pairs that were seen, and the time."""
        async with self.reading() as connection:
            return await find(connection, identifiers, pairs)

    async def contacts(self, ids: Collection[int]) -> dict[int, Contact]:
        """These contacts, deleted ones too; an id that was never given out is missing."""
        rows = await self._rows(statements.CONTACTS, {"ids": statements.padded(sorted(ids), 0)})
        return {contact.id: contact for contact in map(statements.contact_from_row, rows)}

    async def clusters_of(self, contact_ids: Collection[int]) -> dict[int, Cluster]:
        """The clusters of these contacts, by contact id; deleted and unknown ones are missing."""
        rows = await self._rows(statements.CLUSTERS_OF_CONTACTS, {"ids": statements.padded(sorted(contact_ids), 0)})
        found = statements.clusters_from_rows(rows)
        return {contact.id: cluster for cluster in found for contact in cluster.contacts}

    async def page_of_contacts(self, *, after: int, limit: int) -> list[Contact]:
        """Live contacts in id order, from the first id above ``after``."""
        rows = await self._rows(statements.PAGE_OF_CONTACTS, {"after": after, "limit": limit})
        return [statements.contact_from_row(row) for row in rows]

    async def page_of_clusters(self, *, after: int, limit: int) -> list[Cluster]:
        """Clusters in the order of their primaries' ids, from the first id above ``after``."""
        rows = await self._rows(statements.PAGE_OF_CLUSTERS, {"after": after, "limit": limit})
        return sorted(statements.clusters_from_rows(rows), key=lambda cluster: cluster.primary.id)

    async def wait_for_event(self, seq: int) -> bool:
        """Wait until no event up to this number is still to be committed; whether there is one of it or above it."""
        with self._translated():
            await self.dialect.wait_for_writers(self._engines, seq)
        return seq <= await self.newest_seq()

    async def newest_seq(self) -> int:
        """The number of the newest event; 0 for an empty log."""
        newest: int = (await self._rows(statements.NEWEST_SEQ, {}))[0][0]
        return newest

    async def contact_ids(self, *, after: int, limit: int, born: datetime | None) -> list[int]:
        """The ids of contacts born by a time, deleted ones too, from the first above ``after``; None: none."""
        if born is None:
            return []
        given = {"after": after, "limit": limit, "born": born}
        return [row[0] for row in await self._rows(statements.PAGE_OF_IDS, given)]

    async def newest_event(self, seq: int) -> datetime | None:
        """When the newest of the events up to this number happened; None if there are none."""
        rows = await self._rows(statements.NEWEST_EVENT, {"seq": seq})
        return rows[0][0] if rows else None

    async def claimants(self, identifiers: Collection[Identifier]) -> list[int]:
        """The contacts that claim one of these identifiers, or ever did."""
        async with self.reading() as connection:
            return await event_log.claimants(connection, identifiers)

    async def page_of_withheld(
        self, wanted: WithheldFilter, *, after: tuple[int, int], limit: int
    ) -> list[tuple[Pair, Withheld]]:
        """The wanted pairs that wait, by event: behind so many (``after[1]``) of the event ``after[0]``."""
        seq, behind = after
        page, _ = _queue_of(wanted)
        rows = await self._rows(page, {"after": seq, "limit": limit + behind, **_limit_kind(wanted)})
        rows = [row for place, row in enumerate(rows) if row.seq > seq or place >= behind][:limit]
        return [(statements.pair_from_row(row), Withheld(row.seq, row.banned, row.limit_kind)) for row in rows]

    async def count_withheld(self, wanted: WithheldFilter, *, limit: int) -> int:
        """How many wanted pairs wait, or ``limit`` if there are more."""
        _, count = _queue_of(wanted)
        found: int = (await self._rows(count, {"limit": limit, **_limit_kind(wanted)}))[0][0]
        return found

    async def largest(self, kind: str, *, least: int, behind: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """The clusters with the most values of a kind (`finding.largest`)."""
        async with self.reading() as connection:
            return await finding.largest(connection, kind, least=least, behind=behind, limit=limit)

    async def last_changed(self, *, before: int, limit: int) -> list[tuple[int, int]]:
        """The clusters that changed last (`finding.last_changed`)."""
        async with self.snapshot() as connection:
            return await finding.last_changed(connection, before=before, limit=limit)

    async def totals(self) -> Totals:
        """How much there is. Takes as long as it takes."""
        async with self.snapshot() as connection, self.dialect.without_timeouts(connection):
            await self.dialect.allow_full_scans(connection)
            return await finding.totals(connection)

    async def rule_sets(self) -> dict[str, str]:
        """The documents of the kinds under which events were decided, by `norm`."""
        return {row.norm: row.kinds for row in await self._rows(statements.RULE_SETS, {})}

    async def keep_rule_set(self, norm: str, kinds: str) -> None:
        """Keep the document of the kinds under which events are decided from now on. It never changes."""
        if not await self._rows(statements.RULE_SET, {"norm": norm}):
            with suppress(sa.exc.IntegrityError):  # another process was faster, and keeps the same
                async with self.transaction() as connection:
                    await connection.execute(rule_set.insert(), {"norm": norm, "kinds": kinds})

    async def blocked_by(self, identifier: Identifier) -> int | None:
        """The event that blocked an identifier; None if it is not blocked."""
        async with self.reading() as connection:
            return (await event_log.blocked_among(connection, [identifier])).get(identifier)

    async def page_of_blocked(self, *, after: int, limit: int) -> list[tuple[Identifier, int]]:
        """The identifiers that are blocked, by event, from the first event above ``after``."""
        newest = await self.newest_seq()
        async with self.reading() as connection:
            return await event_log.page_of_blocked(connection, after=after, upto=newest, limit=limit)

    async def page_of_bans(self, *, after: Ban, limit: int) -> list[Ban]:
        """The bans by event, then by contacts, from the first behind ``after``."""
        contact_id, other_id, seq = after
        last = {"after": seq, "after_contact": contact_id, "after_other": other_id}
        rows = await self._rows(statements.PAGE_OF_BANS, {**last, "limit": limit})
        return [(row.contact_id, row.other_id, row.seq) for row in rows]

    async def kept_apart(self, primary_ids: Collection[int]) -> set[Bond]:
        """Which of these clusters a ban keeps apart, two by two, by their primaries."""
        given = {"primary_ids": statements.padded(sorted(primary_ids), 0)}
        return {bond(row.one, row.other) for row in await self._rows(statements.KEPT_APART, given)}

    async def withheld_by(self, identifiers: Collection[Identifier]) -> list[int]:
        """The clusters whose events withheld a pair with one of these identifiers."""
        async with self.reading() as connection:
            seqs = {row.seq for row in await event_log.withheld_with(connection, identifiers)}
            rows = await event_log.listed(connection, statements.CLUSTERS_OF_EVENTS, seqs)
        return sorted({row[0] for row in rows})

    async def named_by(self, identifiers: Collection[Identifier]) -> list[int]:
        """The clusters whose events name one of these identifiers. Goes through the whole log."""
        async with self.snapshot() as connection:
            search = event_log.LogSearch()
            await search.extend(connection, identifiers)
            return sorted(search.clusters)

    async def truncate_wal(self) -> bool:
        """After an erasure: leave nothing of it in the files of an embedded database; whether that was possible."""
        with self._translated():
            return await self.dialect.truncate_wal(self._engines)

    async def event(self, seq: int) -> Event | None:
        """One event; None if there is none of this number."""
        async with self.reading() as connection:
            return next(iter(await event_log.events(connection, [seq])), None)

    async def events(self, seqs: Collection[int]) -> dict[int, Event]:
        """These events, by number; one that there is not is missing."""
        async with self.reading() as connection:
            return {event.seq: event for event in await event_log.events(connection, seqs)}

    async def page_of_events(self, wanted: EventFilter, *, after: int, limit: int) -> list[Event]:
        """The wanted events in order, from the first number above ``after``.

        As far as no event can come in between any more: whoever goes on behind the last one misses none.
        """
        newest = await self.newest_seq()
        await self.wait_for_event(newest)
        async with self.reading() as connection:
            return await event_log.page(connection, wanted, after=after, upto=newest, limit=limit)

    async def undos_of(self, events: Collection[Event]) -> list[VerbEvent]:
        """The undos of these events, the undos of those, and so on, in order."""
        async with self.reading() as connection:
            return await event_log.undos_of(connection, events)

    async def newest_norm(self) -> str | None:
        """The normalisation that the newest event was written under; None for an empty log."""
        rows = await self._rows(statements.NEWEST_NORM, {})
        return rows[0][0] if rows else None

    async def _rows(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[sa.Row[Any]]:
        async with self.reading() as connection:
            return (await connection.execute(statement, parameters)).all()

    @asynccontextmanager
    async def migrating(self) -> AsyncIterator[AsyncConnection]:
        """A connection that nobody else migrates beside: the one place where a database lock is taken."""
        with self._translated():
            async with (
                self._engines.queue.begin() as connection,
                self.dialect.without_timeouts(connection),
                self.dialect.migration_lock(connection),
            ):
                await self.dialect.allow_full_scans(connection)
                # Looked for first: who may use a schema need not be allowed to make one, not even IF NOT EXISTS.
                schema = self._schema
                if schema and not await connection.run_sync(lambda sync: sa.inspect(sync).has_schema(schema)):
                    await connection.execute(sa.schema.CreateSchema(schema))
                yield connection

    async def check_encoding(self) -> None:
        """Raises ConfigurationError unless the database can hold every character."""
        async with self.reading() as connection:
            await self.dialect.check_encoding(connection)

    async def migrate(self, *, reset: bool = False) -> Migrated:
        """Bring the database to this program's revision; with ``reset``, empty it first. Several may try at once."""
        async with self.migrating() as connection:
            return await connection.run_sync(lambda sync: migrations.upgrade(sync, reset=reset))

    async def is_migrated(self) -> bool:
        """Whether the database has this program's revision, or a newer one. Raises DatabaseUnavailable."""
        async with self.reading() as connection:
            return not migrations.is_older(await migrations.revision(connection))

    async def check_ready(self) -> None:
        """Raises DatabaseUnavailable unless the database can be read and written to as this program does.

        It is asked whether it may be written to, which costs nothing. That says little once a write was refused: then
        one is tried, as nobody else may come to do so while this says that it is not ready.
        """
        refused = self.outage.until_written
        async with self.transaction() as connection:
            try:
                older = migrations.is_older(await migrations.revision(connection))
            except ConfigurationError:  # another program's revision
                older = True
            if older:
                raise DatabaseNotMigrated("not this program's revision")
            if refused:
                await try_to_write(self.dialect, connection)
            else:
                await connection.execute(statements.WRITE_NOTHING)
        self.outage.answered(wrote=refused)

    async def check_revision(self) -> None:
        """Raises ConfigurationError unless the database has exactly this program's revision."""
        async with self.reading() as connection:
            migrations.check(await migrations.revision(connection))


def _queue_of(wanted: WithheldFilter) -> tuple[sa.Select[Any], sa.Select[Any]]:
    if wanted.limit_kind is not None:
        return statements.QUEUE_OF_LIMIT
    if wanted.by_limit is None:
        return statements.QUEUE
    return statements.QUEUE_OF_LIMITS if wanted.by_limit else statements.QUEUE_OF_BANS


def _limit_kind(wanted: WithheldFilter) -> dict[str, str]:
    return {} if wanted.limit_kind is None else {"limit_kind": wanted.limit_kind}
