"""Go through everything that is in the database at one moment, in parts."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, EventKind, IdentifyEvent, Outcome, VerbEvent
from identity_graphql.domain.identifiers import BUILT_IN, EMAIL, PHONE_NUMBER, Identifier, identifiers, pairs_of
from identity_graphql.domain.joining import withheld_pairs
from identity_graphql.domain.simulation import LoggedRequest
from identity_graphql.domain.state import Bond, Pair, Withheld
from identity_graphql.domain.verbs import BlockIdentifier
from identity_graphql.errors import ConfigurationError
from identity_graphql.storage import event_log
from identity_graphql.storage.dialect import Dialect
from identity_graphql.storage.event_rows import (
    DEMOTED,
    MALFORMED,
    OTHERS,
    SAID,
    SCANNED,
    demotions_of,
    kept_back_of,
    logged_request_of,
    scanned_event_of,
)
from identity_graphql.storage.plan_writes import MOST_PARAMETERS
from identity_graphql.storage.statements import (
    CONTACT_COLUMNS,
    by_kind,
    claimed,
    contact_from_row,
    on_identifiers,
    others_of,
    padded,
    pair_from_row,
)
from identity_graphql.storage.tables import (
    NOBODY,
    among,
    as_text,
    ban,
    cluster_count,
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
RARE = (withheld_pair, ban, event_contact, former_claim, cluster_count)
"""What only a steward's verbs and their consequences fill, and large clusters: empty, most often."""
Claim = tuple[str, str, int]
"""A row of a table of claims: kind, value, contact."""


class Outline(Struct, frozen=True):
    """Of an event, what tells whose component it is of."""

    seq: int
    contacts: Collection[int]
    pairs: Sequence[Pair] = ()
    kept_back: Sequence[Pair] = ()
    """pairs that it withheld, or of which it said whether they are"""


class EventBatch(Struct, frozen=True):
    """Events by their numbers: those that can be read. And those of their pairs that are in the table as theirs."""

    events: dict[int, Event]
    contacts: dict[int, set[int]]
    """the contacts that each of them names"""
    pairs: dict[int, list[Pair]]


class TableRows(Struct, frozen=True):
    """The rows of the tables by whom they belong to: a contact, or (of withheld pairs) an event."""

    contacts: dict[int, Contact]
    claims: dict[int, tuple[Identifier, ...]]
    withheld: dict[int, list[tuple[Pair, Withheld]]]
    bans: dict[int, list[tuple[Bond, int]]]
    marks: dict[int, list[int]]
    former: dict[int, list[Identifier]]
    counts: dict[int, list[tuple[str, int]]]


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

    async def all_blocked(self) -> dict[Identifier, int]:
        """Returns the identifiers that are blocked, and the events that did it."""
        rows = self._streamed(_BLOCKED)
        return {Identifier(kind, value): seq async for kind, value, seq in rows}

    async def requests(self) -> AsyncIterator[list[LoggedRequest | None]]:
        """What the requests of the whole log said, in order, some events at a time; None stands for a steward's verb.

        Raises ConfigurationError for an event that cannot be read.
        """
        async for rows in self._pages(_REQUESTS):
            page = []
            for row in rows:
                try:
                    page.append(logged_request_of(row))
                except MALFORMED:
                    raise ConfigurationError(f"Event {row[0]} cannot be read; see what `verify` says of it.") from None
            yield page

    async def events(self, seqs: Collection[int]) -> EventBatch:
        """These events, as far as the tables follow from them: without what was typed, who asked, and why."""
        told = EventBatch({}, {}, defaultdict(list))
        several: dict[int, set[Pair]] = {}
        for row in await event_log.listed(self._connection, _EVENTS, seqs):
            seq = row[0]
            try:
                event = scanned_event_of(row[:-1])
                told.contacts[seq] = set(event.contact_ids)
                told.events[seq] = event
            except MALFORMED:
                continue
            if isinstance(event, IdentifyEvent) and event.others:
                several[seq] = set(event.pairs)
            elif isinstance(event, IdentifyEvent) and row[-1]:
                told.pairs[seq] += event.pairs
        for both, seq in await self._pairs(several):
            told.pairs[seq].append(both)
        return told

    async def _pairs(self, wanted: Mapping[int, Collection[Pair]]) -> list[tuple[Pair, int]]:
        """Which of these pairs, by the numbers of events, are in the table as those of their events."""
        values = sorted({pair[0].value for pairs in wanted.values() for pair in pairs})
        others = sorted({pair[1].value for pairs in wanted.values() for pair in pairs})
        found = []
        for start in range(0, len(values), MOST_PARAMETERS):
            some = padded(values[start : start + MOST_PARAMETERS], "")
            for other in range(0, len(others), MOST_PARAMETERS):
                ends = {"values": some, "others": padded(others[other : other + MOST_PARAMETERS], "")}
                for row in await self._connection.execute(_PAIRS, ends):
                    pair = pair_from_row(row)
                    if pair in wanted.get(row.seq, ()):
                        found.append((pair, row.seq))
        return found

    async def rows(self, contact_ids: Collection[int], seqs: Collection[int]) -> TableRows:
        """All rows that belong to these contacts and events, but for `stray_claims` and `stray_former_claims`."""
        rows = TableRows(
            {}, {}, defaultdict(list), defaultdict(list), defaultdict(list), defaultdict(list), defaultdict(list)
        )
        for row in await event_log.listed(self._connection, _CONTACTS, contact_ids):
            try:
                contact = contact_from_row(row)
            except MALFORMED:
                contact = contact_from_row((*row[:11], None, *row[12:]))
            rows.contacts[contact.id] = contact
            rows.claims[contact.id] = identifiers(
                contact.email if row[14] else None, contact.phone_number if row[15] else None
            )
        others = {(i, contact.id) for contact in rows.contacts.values() for i in contact.others}
        for kind, value, contact_id in await self.claims({one for one, _ in others}):
            if (Identifier(kind, value), contact_id) in others:
                rows.claims[contact_id] += (Identifier(kind, value),)
        for *both, seq, banned, limit_kind in await self._rare(withheld_pair, _WITHHELD, seqs):
            rows.withheld[seq].append((pair_from_row(both), Withheld(seq, bool(banned), limit_kind)))
        for one, other, seq in await self._rare(ban, _BANS, contact_ids):
            rows.bans[one].append(((one, other), seq))
        for contact_id, seq in await self._rare(event_contact, _MARKS, contact_ids):
            rows.marks[contact_id].append(seq)
        for primary_id, kind, count in await self._rare(cluster_count, _COUNTS, contact_ids):
            rows.counts[primary_id].append((kind, count))
        for contact_id, kind, value in await self._rare(former_claim, _FORMER, contact_ids):
            rows.former[contact_id].append(Identifier(kind, value))
        if others and former_claim not in self._empty:
            for kind, value, contact_id in await self.former_claims({one for one, _ in others}):
                if (Identifier(kind, value), contact_id) in others:
                    rows.former[contact_id].append(Identifier(kind, value))
        return rows

    async def claims(self, wanted: Collection[Identifier]) -> set[Claim]:
        """Who claims these identifiers, whatever the contact carries."""
        return {claim for claim in await self._holders(identifier, wanted) if claim[2] != NOBODY}

    async def blocked(self, events: EventBatch) -> dict[Identifier, int]:
        """What is blocked of that which these events blocked, with the events that decided so."""
        verbs = (event.verb for event in events.events.values() if isinstance(event, VerbEvent))
        named = {verb.identifier for verb in verbs if isinstance(verb, BlockIdentifier)}
        return await event_log.blocked_among(self._connection, named)

    def stray_blocked(self) -> AsyncIterator[Any]:
        """All that is blocked: kind, value, event."""
        return self._streamed(_BLOCKED)

    async def former_claims(self, wanted: Collection[Identifier]) -> set[Claim]:
        """Who claimed these identifiers before, whatever the contact carries now."""
        return await self._holders(former_claim, wanted)

    # What belongs to nobody: claims; numbers of events; contacts with another contact, or with an event.

    def stray_claims(self) -> AsyncIterator[Any]:
        """The claims on what the contact does not carry."""
        return self._stray_claims(_STRAY_CLAIMS)

    def stray_former_claims(self) -> AsyncIterator[Any]:
        """The former claims on what the contact does not carry (now)."""
        return self._stray_claims(_STRAY_FORMER_CLAIMS)

    async def stray_pairs(self) -> AsyncIterator[int]:
        """The events of the live pairs that are not of their events."""
        async for *both, seq, email, phone_number, others in self._streamed(_STRAY_PAIRS):
            if not set(pair_from_row(both)).issubset(identifiers(email, phone_number, _readable(others))):
                yield seq

    def stray_withheld_pairs(self) -> AsyncIterator[Any]:
        """The withheld pairs whose event is not there."""
        return self._streamed(_STRAY_WITHHELD)

    def stray_bans(self) -> AsyncIterator[Any]:
        """The bans of a contact that is not in the table."""
        return self._streamed(_STRAY_BANS)

    def stray_counts(self) -> AsyncIterator[Any]:
        """The counts of a contact that is not in the table."""
        return self._streamed(_STRAY_COUNTS)

    def stray_marks(self) -> AsyncIterator[Any]:
        """The marks on a contact that is not in the table."""
        return self._streamed(_STRAY_MARKS)

    async def _stray_claims(self, statement: sa.Executable) -> AsyncIterator[Claim]:
        async for kind, value, contact_id, others in self._streamed(statement):
            if Identifier(kind, value) not in _readable(others):
                yield kind, value, contact_id

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
    return (
        sa.select(
            *CONTACT_COLUMNS,  # the claims are apart
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


def _stray_claims(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    carried = sa.or_(*(_carries(table, kind) for kind in BUILT_IN))
    return (
        sa.select(table.c.kind, table.c.value, table.c.contact_id, as_text(contact.c.others))
        .select_from(table.outerjoin(contact, table.c.contact_id == contact.c.id))
        .where(sa.func.coalesce(carried, sa.false()).is_(sa.false()), *conditions)
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
    OTHERS,
    as_text(event.c.detail),
)
_REQUESTS = _page(*SAID)
_PAIRS = sa.select(pair).where(among(pair.c.value, "values"), among(pair.c.other_value.concat(""), "others"))
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
_COUNTS = sa.select(cluster_count).where(among(cluster_count.c.primary_id, "ids"))
_MARKS = sa.select(event_contact).where(among(event_contact.c.contact_id, "ids"))
_FORMER = _former()
_HOLDERS = {
    table.name: sa.select(table.c.kind, table.c.value, table.c.contact_id).where(on_identifiers(table))
    for table in (identifier, former_claim)
}
_STRAY_CLAIMS = _stray_claims(identifier, (identifier.c.contact_id != NOBODY) | identifier.c.blocked.is_(None))
_BLOCKED = sa.select(identifier.c.kind, identifier.c.value, identifier.c.blocked).where(
    identifier.c.blocked.is_not(None)
)
_STRAY_FORMER_CLAIMS = _stray_claims(former_claim)
_STRAY_PAIRS = (
    sa.select(pair, event.c.email, event.c.phone_number, OTHERS)
    .select_from(pair.outerjoin(event, event.c.seq == pair.c.seq))
    .where(event.c.seq.is_(None) | event.c.others.is_not(None) | sa.func.coalesce(_BROUGHT, sa.false()).is_(sa.false()))
)
_STRAY_WITHHELD = (
    sa.select(withheld_pair.c.seq)
    .select_from(withheld_pair.outerjoin(event, event.c.seq == withheld_pair.c.seq))
    .where(event.c.seq.is_(None))
)
_STRAY_COUNTS = (
    sa.select(cluster_count.c.primary_id, cluster_count.c.kind)
    .select_from(cluster_count.outerjoin(contact, contact.c.id == cluster_count.c.primary_id))
    .where(contact.c.id.is_(None))
)
_BLOCKED = sa.select(identifier.c.kind, identifier.c.value, identifier.c.blocked).where(
    identifier.c.blocked.is_not(None)
)
_STRAY_BANS = _without_contact(ban, ban.c.contact_id, ban.c.other_id)
_STRAY_MARKS = _without_contact(event_contact, event_contact.c.contact_id, event_contact.c.seq)


def _readable(others: str | None) -> tuple[Identifier, ...]:
    """What a column `others` says, as far as that can be read."""
    try:
        return others_of(others)
    except MALFORMED:
        return ()


def _outline(row: Sequence[Any], verbs: EventBatch) -> Outline:
    seq, kind, outcome, primary_id, contact_id, demoted, email, phone_number, others, detail = row
    if kind != EventKind.IDENTIFY.value:
        verb = verbs.events.get(seq)
        if not isinstance(verb, VerbEvent):
            return Outline(seq, (primary_id,))
        return Outline(seq, verbs.contacts[seq], (), [row.pair for row in verb.changes.withheld])
    contacts = [primary_id] if contact_id is None or contact_id == primary_id else [primary_id, contact_id]
    if demoted != "[]":
        with suppress(*MALFORMED):  # it is told of when the event is played
            contacts += [demotion.id for demotion in demotions_of(demoted)]
    found = identifiers(email, phone_number, _readable(others))
    if outcome != Outcome.WITHHELD.value:
        return Outline(seq, contacts, pairs_of(found))
    with suppress(*MALFORMED):
        kept_back, kept_from = kept_back_of(detail)
        apart = {kept.identifier for kept in kept_back}
        joined = [identifier for identifier in found if identifier not in apart]
        kept = [pair for pair, _ in withheld_pairs(joined, kept_back)]
        return Outline(seq, [*contacts, *kept_from], pairs_of(joined), kept)
    return Outline(seq, contacts)
