"""Go through everything that is in the database at one moment, in parts."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, EventKind, Outcome, VerbEvent
from identity_graphql.domain.identifiers import BUILT_IN, EMAIL, PHONE_NUMBER, Identifier, identifiers
from identity_graphql.domain.state import Bond, Pair, Withheld
from identity_graphql.storage import event_log
from identity_graphql.storage.dialect import Dialect
from identity_graphql.storage.event_rows import DEMOTED, MALFORMED, SCANNED, demotions_of, scanned_event_of
from identity_graphql.storage.plan_writes import MOST_PARAMETERS
from identity_graphql.storage.statements import by_kind, claimed, on_identifiers, pair_from_row
from identity_graphql.storage.tables import (
    among,
    ban,
    contact,
    event,
    event_contact,
    former_claim,
    identifier,
    looked_up,
    pair,
    withheld_pair,
)

PAGE = 5_000
LOWEST = -(2**63)
RARE = (withheld_pair, ban, event_contact, former_claim)
"""What only a steward's verbs and their consequences fill: empty, most often."""
Claim = tuple[str, str, int]
"""A row of a table of claims: kind, value, contact."""


class Outline(Struct, frozen=True):
    """Of an event, what tells whose component it is of."""

    seq: int
    contacts: Collection[int]
    pair: Pair | None
    kept_back: Sequence[Pair] = ()
    """pairs that it withheld, or of which it said whether they are"""


class EventBatch(Struct, frozen=True):
    """Events by their numbers: those that can be read. And which of their pairs are in the table."""

    events: dict[int, Event]
    contacts: dict[int, set[int]]
    """the contacts that each of them names"""
    live: set[int]


class TableRows(Struct, frozen=True):
    """The rows of the tables by whom they belong to: a contact, or (of withheld pairs) an event."""

    contacts: dict[int, Contact]
    claims: dict[int, tuple[Identifier, ...]]
    withheld: dict[int, list[tuple[Pair, Withheld]]]
    bans: dict[int, list[tuple[Bond, int]]]
    marks: dict[int, list[int]]
    former: dict[int, list[Identifier]]


class TableScan:
    """Reads the tables on one connection, in a transaction that sees one moment."""

    def __init__(self, connection: AsyncConnection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self._empty: set[sa.Table] = set()

    async def size(self) -> int:
        """How many events there are. To be asked first: it also looks which tables are empty."""
        for table in RARE:
            if (await self._connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1))).first() is None:
                self._empty.add(table)
        count: int = (await self._connection.execute(sa.select(sa.func.count()).select_from(event))).scalar_one()
        return count

    async def contact_ids(self) -> array[int]:
        """Of all contacts, ascending."""
        ids = array("q")
        async for rows in self._pages(_IDS):
            ids.extend(row[0] for row in rows)
        return ids

    async def outlines(self) -> AsyncIterator[list[Outline]]:
        """The whole log in order, some events at a time."""
        async for rows in self._pages(_OUTLINES):
            told = await self.events([row[0] for row in rows if row[1] != EventKind.IDENTIFY.value])
            yield [_outline(row, told) for row in rows]

    async def events(self, seqs: Collection[int]) -> EventBatch:
        """These events, as far as the tables follow from them: without what was typed, who asked, and why."""
        told = EventBatch({}, {}, set())
        for row in await event_log.listed(self._connection, _EVENTS, seqs):
            seq = row[0]
            try:
                event = scanned_event_of(row[:-1])
                told.contacts[seq] = set(event.contact_ids)
                told.events[seq] = event
            except MALFORMED:
                continue
            if row[-1]:
                told.live.add(seq)
        return told

    async def rows(self, contact_ids: Collection[int], seqs: Collection[int]) -> TableRows:
        """All rows that belong to these contacts and events, but for `stray_claims` and `stray_former_claims`."""
        rows = TableRows({}, {}, defaultdict(list), defaultdict(list), defaultdict(list), defaultdict(list))
        for row in await event_log.listed(self._connection, _CONTACTS, contact_ids):
            contact = Contact(*row[:13])
            rows.contacts[contact.id] = contact
            rows.claims[contact.id] = identifiers(
                contact.email if row[13] else None, contact.phone_number if row[14] else None
            )
        for *both, seq, banned in await self._rare(withheld_pair, _WITHHELD, seqs):
            rows.withheld[seq].append((pair_from_row(both), Withheld(seq, bool(banned))))
        for one, other, seq in await self._rare(ban, _BANS, contact_ids):
            rows.bans[one].append(((one, other), seq))
        for contact_id, seq in await self._rare(event_contact, _MARKS, contact_ids):
            rows.marks[contact_id].append(seq)
        for contact_id, kind, value in await self._rare(former_claim, _FORMER, contact_ids):
            rows.former[contact_id].append(Identifier(kind, value))
        return rows

    async def claims(self, wanted: Collection[Identifier]) -> set[Claim]:
        """Who claims these identifiers, whatever the contact carries."""
        return await self._holders(identifier, wanted)

    async def former_claims(self, wanted: Collection[Identifier]) -> set[Claim]:
        """Who claimed these identifiers before, whatever the contact carries now."""
        return await self._holders(former_claim, wanted)

    # What belongs to nobody: claims; numbers of events; contacts with another contact, or with an event.

    def stray_claims(self) -> AsyncIterator[Any]:
        """The claims on what the contact does not carry."""
        return self._streamed(_STRAY_CLAIMS)

    def stray_former_claims(self) -> AsyncIterator[Any]:
        """The former claims on what the contact does not carry (now)."""
        return self._streamed(_STRAY_FORMER_CLAIMS)

    def stray_pairs(self) -> AsyncIterator[Any]:
        """The live pairs that are not of their events."""
        return self._streamed(_STRAY_PAIRS)

    def stray_withheld_pairs(self) -> AsyncIterator[Any]:
        """The withheld pairs whose event is not there."""
        return self._streamed(_STRAY_WITHHELD)

    def stray_bans(self) -> AsyncIterator[Any]:
        """The bans of a contact that is not in the table."""
        return self._streamed(_STRAY_BANS)

    def stray_marks(self) -> AsyncIterator[Any]:
        """The marks on a contact that is not in the table."""
        return self._streamed(_STRAY_MARKS)

    async def _rare(self, table: sa.Table, statement: sa.Executable, numbers: Collection[int]) -> list[Any]:
        return [] if table in self._empty else await event_log.listed(self._connection, statement, numbers)

    async def _holders(self, table: sa.Table, wanted: Collection[Identifier]) -> set[Claim]:
        found: set[Claim] = set()
        for some in by_kind(wanted, MOST_PARAMETERS):
            rows = await self._connection.execute(_HOLDERS[table.name], some)
            found.update((kind, value, contact_id) for kind, value, contact_id in rows)
        return found

    async def _pages(self, statement: sa.Executable) -> AsyncIterator[Sequence[Any]]:
        """The rows of a statement that is ordered by its first column, in which no number comes twice."""
        after = LOWEST
        while rows := (await self._connection.execute(statement, {"after": after, "limit": PAGE})).all():
            yield rows
            after = rows[-1][0]

    async def _streamed(self, statement: sa.Executable) -> AsyncIterator[Any]:
        """The rows of a statement that has to go through a table, which is then best read as it lies there."""
        await self._dialect.allow_full_scans(self._connection)
        async with self._connection.stream(statement) as rows:
            async for row in rows:
                yield row


def _page(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    key = columns[0]
    return sa.select(*columns).where(key > sa.bindparam("after")).order_by(key).limit(sa.bindparam("limit"))


def _carries(table: sa.FromClause, kind: str) -> sa.ColumnElement[bool]:
    """A claim is its contact's, on what that carries."""
    return (table.c.kind == kind) & (table.c.value == contact.c[kind]) & (table.c.contact_id == contact.c.id)


def _contacts() -> sa.Select[Any]:
    email, on_email = claimed(contact, EMAIL)
    phone_number, on_phone_number = claimed(contact, PHONE_NUMBER)
    found = looked_up(contact, email, on_email, isouter=True)
    left_out = ("link_precedence", "erased_at", "undone_at")
    return (
        sa.select(
            *(column for column in contact.c if column.name not in left_out),
            *(sa.false(), sa.false()),  # the claims are apart
            contact.c.erased_at,
            contact.c.undone_at,
            email.c.contact_id.is_not_distinct_from(contact.c.id),
            phone_number.c.contact_id.is_not_distinct_from(contact.c.id),
        )
        .select_from(looked_up(found, phone_number, on_phone_number, isouter=True))
        .where(among(contact.c.id, "ids"))
    )


def _former() -> sa.CompoundSelect[Any]:
    return sa.union_all(
        *(
            sa.select(contact.c.id, former_claim.c.kind, former_claim.c.value)
            .select_from(looked_up(contact, former_claim, _carries(former_claim, kind)))
            .where(among(contact.c.id, "ids"))
            for kind in BUILT_IN
        )
    )


def _stray_claims(table: sa.Table) -> sa.Select[Any]:
    carried = sa.or_(*(_carries(table, kind) for kind in BUILT_IN))
    return (
        sa.select(table.c.kind, table.c.value, table.c.contact_id)
        .select_from(table.outerjoin(contact, (table.c.contact_id == contact.c.id) & carried))
        .where(contact.c.id.is_(None))
    )


def _without_contact(table: sa.Table, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    there = table.outerjoin(contact, contact.c.id == table.c.contact_id)
    return sa.select(*columns).select_from(there).where(contact.c.id.is_(None))


_IDS = _page(contact.c.id)
_OUTLINES = _page(
    event.c.seq,
    event.c.kind,
    event.c.outcome,
    event.c.primary_id,
    event.c.contact_id,
    DEMOTED,
    event.c.email,
    event.c.phone_number,
)
_BROUGHT = (
    (pair.c.kind == EMAIL)
    & (pair.c.value == event.c.email)
    & (pair.c.other_kind == PHONE_NUMBER)
    & (pair.c.other_value == event.c.phone_number)
    & (pair.c.seq == event.c.seq)
)
_EVENTS = (
    sa.select(*SCANNED, pair.c.seq.is_not(None))
    .select_from(looked_up(event, pair, _BROUGHT, isouter=True))
    .where(among(event.c.seq, "ids"))
)
_CONTACTS = _contacts()
_WITHHELD = sa.select(withheld_pair).where(among(withheld_pair.c.seq, "ids"))
_BANS = sa.select(ban).where(among(ban.c.contact_id, "ids"))
_MARKS = sa.select(event_contact).where(among(event_contact.c.contact_id, "ids"))
_FORMER = _former()
_HOLDERS = {
    table.name: sa.select(table.c.kind, table.c.value, table.c.contact_id).where(on_identifiers(table))
    for table in (identifier, former_claim)
}
_STRAY_CLAIMS = _stray_claims(identifier)
_STRAY_FORMER_CLAIMS = _stray_claims(former_claim)
_STRAY_PAIRS = sa.select(pair.c.seq).select_from(pair.outerjoin(event, _BROUGHT)).where(event.c.seq.is_(None))
_STRAY_WITHHELD = (
    sa.select(withheld_pair.c.seq)
    .select_from(withheld_pair.outerjoin(event, event.c.seq == withheld_pair.c.seq))
    .where(event.c.seq.is_(None))
)
_STRAY_BANS = _without_contact(ban, ban.c.contact_id, ban.c.other_id)
_STRAY_MARKS = _without_contact(event_contact, event_contact.c.contact_id, event_contact.c.seq)


def _outline(row: Sequence[Any], verbs: EventBatch) -> Outline:
    seq, kind, outcome, primary_id, contact_id, demoted, email, phone_number = row
    if kind != EventKind.IDENTIFY.value:
        verb = verbs.events.get(seq)
        if not isinstance(verb, VerbEvent):
            return Outline(seq, (primary_id,), None)
        return Outline(seq, verbs.contacts[seq], None, [pair for pair, *_ in verb.changes.withheld])
    contacts = [primary_id] if contact_id is None or contact_id == primary_id else [primary_id, contact_id]
    if demoted != "[]":
        with suppress(*MALFORMED):  # it is told of when the event is played
            contacts += [demotion.id for demotion in demotions_of(demoted)]
    found = identifiers(email, phone_number)
    told = (found[0], found[1]) if len(found) == 2 else None
    return Outline(seq, contacts, told, (told,) if told and outcome == Outcome.WITHHELD.value else ())
