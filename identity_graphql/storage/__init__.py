"""What is known, in a database: find it in one statement, change it in one transaction.

Two rules judge every write, the same on every database:

1. absence is decided by a unique index: a new identifier is a plain INSERT;
2. presence is decided by compare-and-swap: every touched cluster must still have the version that was read.

Whoever loses rolls back and looks again (`Conflict`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain import history
from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.events import Event
from identity_graphql.domain.identifiers import Identifier, IdentifierKind
from identity_graphql.domain.reconcile import Found, Numbers, Plan
from identity_graphql.domain.state import Bond, Pair, Withheld
from identity_graphql.errors import Busy, Conflict, DatabaseAway
from identity_graphql.storage import log, migrations, statements, stewardship
from identity_graphql.storage.address import Address, Backend
from identity_graphql.storage.dialect import Dialect, Engines, Pool, Verdict
from identity_graphql.storage.mysql import MySQL
from identity_graphql.storage.postgresql import PostgreSQL
from identity_graphql.storage.sqlite import SQLite
from identity_graphql.storage.stewardship import Record
from identity_graphql.storage.survey import Survey

DIALECTS: Mapping[Backend, type[Dialect]] = {
    Backend.POSTGRESQL: PostgreSQL,
    Backend.SQLITE: SQLite,
    Backend.MYSQL: MySQL,
}

Pairs = Collection[tuple[str, str]]


class Turn:
    """One try at a batch: `find`, and `apply` what was decided from it.

    Without a queue it is optimistic: the look costs no transaction, and `apply` makes its own if it needs one.
    Behind a queue, all of it happens in one transaction, with locks on the primaries that the last try saw.
    """

    def __init__(
        self, storage: Storage, connection: AsyncConnection | None = None, locked: Collection[int] | None = None
    ) -> None:
        self._storage = storage
        self._connection = connection
        self._locked = locked

    async def find(self, identifiers: Collection[Identifier], pairs: Pairs) -> Found:
        """Every cluster that has one of the identifiers, those of the pairs that were seen, and the time."""
        if self._connection is not None:
            return await _find(self._connection, identifiers, pairs)
        return await self._storage.find(identifiers, pairs)

    async def bans(self, primary_ids: Collection[int]) -> frozenset[Bond]:
        """The contacts of these clusters that are banned from each other.

        Not part of `find`, as it matters only where clusters are to be joined. Looked up later than that, it is still
        right: whoever bans, or lifts a ban, changes the versions of both clusters.
        """
        if self._connection is not None:
            return await _bans(self._connection, primary_ids)
        async with self._storage.reading() as connection:
            return await _bans(connection, primary_ids)

    async def apply(self, plan: Plan) -> Numbers:
        """Write a plan; the ids of its new contacts and the numbers of its events.

        Raises Conflict, with nothing written, if anything it was decided from is no longer so.
        """
        if self._locked is not None and not {swap.primary_id for swap in plan.swaps}.issubset(self._locked):
            raise Conflict("a primary that this turn did not queue for")
        if self._connection is not None:
            return await self._storage.dialect.write(self._connection, plan)
        async with self._storage.transaction() as connection:
            return await self._storage.dialect.write(connection, plan)


class Desk:
    """What a steward has in front of him: the log of some families, whole, and the time; and the pen.

    At a desk that may ``write``, all of it happens in one transaction, behind the locks of the clusters.
    """

    def __init__(self, storage: Storage, connection: AsyncConnection, events: list[Event], now: datetime) -> None:
        self.events = events
        self.now = now
        self._storage = storage
        self._connection = connection

    async def naming(self, identifiers: Collection[Identifier], *, after: int) -> tuple[list[int], int]:
        """The events above this number that name one of these identifiers, and the number of the newest event."""
        return await log.naming(self._connection, identifiers, after=after)

    async def events_of(self, seqs: Collection[int]) -> list[Event]:
        """These events."""
        return await log.events(self._connection, seqs)

    async def write(self, record: Record) -> Record:
        """Write a verb; it with the real numbers. Raises Conflict, with nothing written, if something has changed."""
        return await stewardship.write(self._connection, self._storage.dialect, record)


class Storage:
    """The database. Begins and ends every transaction; nobody else does."""

    def __init__(self, dialect: Dialect, engines: Engines, *, schema: str | None = None) -> None:
        self.dialect = dialect
        self._engines = engines
        self._schema = schema

    @classmethod
    def open(cls, address: Address, pool: Pool | None = None) -> Self:
        """Open the pools; connects at the first use."""
        dialect = DIALECTS[address.backend]()
        return cls(dialect, dialect.engines(address, pool or Pool()), schema=address.schema)

    async def close(self) -> None:
        await self._engines.dispose()

    @asynccontextmanager
    async def turn(self, queue: Collection[int] = ()) -> AsyncIterator[Turn]:
        """One try at a batch; behind the locks on these primaries, if there are any.

        The locks are a queue, not the judge: they keep the writers of a hot cluster in line, and what is right
        is still decided by the compare-and-swap.
        """
        if queue:
            async with self.transaction() as connection:
                await connection.execute(statements.LOCK, {"ids": statements.padded(sorted(queue), 0)})
                yield Turn(self, connection, queue)
        elif self._engines.write_alone:
            async with self.reading() as connection:
                yield Turn(self, connection)
        else:
            yield Turn(self)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        with self._translated():
            async with self._engines.write.begin() as connection:
                yield connection

    @asynccontextmanager
    async def desk(
        self, contact_ids: Collection[int], *, by_value: bool = False, write: bool = False
    ) -> AsyncIterator[Desk]:
        """The log of the families of these contacts (`log.family`); with ``write``, to change something there."""
        async with self.transaction() if write else self.snapshot() as connection:
            events = await log.family(connection, contact_ids, by_value=by_value)
            if write:
                contacts = {contact_id for event in events for contact_id in history.named(event)}
                await log.lock(connection, contacts)
                again = await log.family(connection, contact_ids, by_value=by_value)
                if [event.seq for event in again] != [event.seq for event in events]:
                    raise Conflict("somebody wrote while we took our place in the queue")
            yield Desk(self, connection, events, (await connection.execute(statements.NOW)).scalar_one())

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """To read with several statements what was there at one moment."""
        with self._translated():
            async with self._engines.snapshot.begin() as connection:
                yield connection

    @asynccontextmanager
    async def survey(self) -> AsyncIterator[Survey]:
        """To go through all that was there at one moment, however long it takes."""
        async with self.snapshot() as connection, self.dialect.unhurried(connection):
            yield Survey(connection, self.dialect)

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
        except sa.exc.TimeoutError:  # no connection became free
            raise Busy from None
        except (sa.exc.DBAPIError, OSError) as error:
            verdict = self.dialect.judge(error)
            if verdict is Verdict.RETRY:
                raise Conflict("the database asked for a retry") from error
            lost = isinstance(error, OSError) or error.connection_invalidated
            if lost or verdict is Verdict.AWAY:
                raise DatabaseAway from error
            raise

    async def find(self, identifiers: Collection[Identifier], pairs: Pairs = ()) -> Found:
        """Every cluster that has one of the identifiers, those of the pairs that were seen, and the time."""
        async with self.reading() as connection:
            return await _find(connection, identifiers, pairs)

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

    async def settled(self, seq: int) -> bool:
        """Wait until no event up to this number is still to be committed; whether there is one of it or above it."""
        with self._translated():
            await self.dialect.settle(self._engines, seq)
        async with self.reading() as connection:
            newest: int = (await connection.execute(statements.NEWEST_SEQ)).scalar_one()
        return seq <= newest

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
            return await log.claimants(connection, identifiers)

    async def page_of_withheld(self, *, after: int, limit: int) -> list[tuple[Pair, Withheld]]:
        """The pairs that are kept back, by event, from the first event above ``after``."""
        rows = await self._rows(statements.PAGE_OF_WITHHELD, {"after": after, "limit": limit})
        return [((row.email, row.phone_number), Withheld(row.seq, row.banned)) for row in rows]

    async def page_of_bans(self, *, after: int, limit: int) -> list[tuple[int, int, int]]:
        """The bans (contact, the other contact, event) by event, from the first event above ``after``."""
        rows = await self._rows(statements.PAGE_OF_BANS, {"after": after, "limit": limit})
        return [(row.contact_id, row.other_id, row.seq) for row in rows]

    async def withheld_by(self, identifiers: Collection[Identifier]) -> list[int]:
        """The clusters whose events withheld a pair with one of these identifiers."""
        values = {
            kind.value: statements.padded([i.value for i in identifiers if i.kind is kind], "")
            for kind in IdentifierKind
        }
        rows = await self._rows(
            statements.WITHHELD_BY, {"emails": values["email"], "phone_numbers": values["phone_number"]}
        )
        return sorted({row[0] for row in rows})

    async def named_by(self, identifiers: Collection[Identifier]) -> list[int]:
        """The clusters whose events name one of these identifiers. Goes through the whole log."""
        async with self.snapshot() as connection:
            seqs, _ = await log.naming(connection, identifiers, after=0)
            return sorted({event.primary_id for event in await log.events(connection, seqs)})

    async def forget(self) -> bool:
        """After an erasure: leave nothing of it in the files of an embedded database; whether that was possible."""
        with self._translated():
            return await self.dialect.forget(self._engines)

    async def event(self, seq: int) -> Event | None:
        """One event; None if there is none of this number."""
        async with self.reading() as connection:
            return next(iter(await log.events(connection, [seq])), None)

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
        async with (
            self.transaction() as connection,
            self.dialect.unhurried(connection),
            self.dialect.migration_lock(connection),
        ):
            await self.dialect.allow_full_scans(connection)
            # Looked for first: who may use a schema need not be allowed to make one, not even IF NOT EXISTS.
            schema = self._schema
            if schema and not await connection.run_sync(lambda sync: sa.inspect(sync).has_schema(schema)):
                await connection.execute(sa.schema.CreateSchema(schema))
            yield connection

    async def migrate(self, *, reset: bool = False) -> None:
        """Bring the database to this program's revision; with ``reset``, empty it first. Several may try at once."""
        async with self.migrating() as connection:
            await connection.run_sync(lambda sync: migrations.upgrade(sync, reset=reset))

    async def is_migrated(self) -> bool:
        """Whether the database has this program's revision, or a newer one. Raises DatabaseAway."""
        async with self.reading() as connection:
            return not migrations.is_older(await migrations.revision(connection))

    async def check_revision(self) -> None:
        """Raises ConfigurationError unless the database has exactly this program's revision."""
        async with self.reading() as connection:
            migrations.check(await migrations.revision(connection))


async def _bans(connection: AsyncConnection, primary_ids: Collection[int]) -> frozenset[Bond]:
    rows = await connection.execute(statements.BANS, {"primary_ids": statements.padded(sorted(primary_ids), 0)})
    return frozenset((row[0], row[1]) for row in rows)


async def _find(connection: AsyncConnection, identifiers: Collection[Identifier], pairs: Pairs) -> Found:
    emails = sorted({i.value for i in identifiers if i.kind is IdentifierKind.EMAIL})
    phone_numbers = sorted({i.value for i in identifiers if i.kind is IdentifierKind.PHONE_NUMBER})
    rows = await connection.execute(
        statements.FIND,
        {
            "emails": statements.padded(emails, ""),
            "phone_numbers": statements.padded(phone_numbers, ""),
            "pair_emails": statements.padded(sorted({email for email, _ in pairs}), ""),
            "pair_phone_numbers": statements.padded(sorted({phone_number for _, phone_number in pairs}), ""),
        },
    )
    contacts, seen, withheld, now, any_ban = [], set(), {}, None, False
    for row in rows:
        if row[0] is not None:
            contacts.append(row)
        elif row[1] is not None and row[3] is not None:
            withheld[(row[1], row[2])] = bool(row[3])
        elif row[1] is not None:
            seen.add((row[1], row[2]))
        else:
            now, any_ban = row[4], bool(row[3])
    assert now is not None, "the clock is always among the rows"
    return Found(statements.clusters_from_rows(contacts), frozenset(seen), now, withheld, any_ban)
