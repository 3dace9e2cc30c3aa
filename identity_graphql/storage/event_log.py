"""Read the log: the events of whole lineages of clusters, in order.

A lineage: the contacts that were ever in one cluster with each other, or of which a steward's verb spoke together. What
happened to one of them at any time is in its lineage's events, and nothing else decides it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain import erasure
from identity_graphql.domain.contacts import LARGEST_ID
from identity_graphql.domain.events import Event, EventFilter, EventKind, IdentifyEvent, VerbEvent
from identity_graphql.domain.history import SLACK
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.verbs import BlockIdentifier, UnblockIdentifier, Undo
from identity_graphql.storage import statements
from identity_graphql.storage.event_rows import event_of
from identity_graphql.storage.plan_writes import MOST_PARAMETERS

STRETCH = 100_000
"""Events that one statement goes through."""
FIRST_STRETCH = 1_000
"""Events among which those of a page are looked for first."""
ALWAYS = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Lineage(NamedTuple):
    """What belongs to some contacts: their events, in order of ``seq``, and every contact that was met there."""

    events: list[Event]
    contact_ids: set[int]


async def lineage(
    connection: AsyncConnection,
    contact_ids: Collection[int],
    *,
    by_value: bool = False,
    by_banned_pair: bool = False,
    read: Mapping[int, Event] | None = None,
) -> Lineage:
    """Returns the lineages of these contacts. In one snapshot, if the transaction is one.

    ``by_value``: also of those who had one of their identifiers before or after them, so that whatever the absence of
    an event could have changed is there. ``by_banned_pair``: also of those who have the other end of a pair that is
    banned itself: a request that brings it is an event of one of the two alone. ``read``: events that were read before,
    by number; they are not read again unless they were rewritten since.
    """
    events: dict[int, Event] = {}
    known: set[int] = set()
    looked_up: set[Identifier] = set()
    fresh = set(contact_ids)
    while fresh:
        # Only its present cluster tells of a primary who demoted it: that event is the other one's. A deleted contact
        # still has the primary of its last day, which has one of its own by now, perhaps. All members at once, so that
        # few rounds are left, however deep they were merged.
        primaries = fresh
        while primaries := {row[0] for row in await listed(connection, statements.PRIMARIES, primaries)} - fresh:
            fresh |= primaries
        fresh |= {row[0] for row in await listed(connection, statements.MEMBERS, fresh)}
        fresh -= known
        known |= fresh
        if read:
            found, wanted = await _unchanged(connection, fresh, read)
        else:
            found, wanted = await _events(connection, statements.EVENTS_OF_CLUSTERS, fresh), set()
        wanted |= {row[0] for row in await listed(connection, statements.EVENTS_ABOUT, fresh)}
        found += await _events(connection, statements.EVENTS, wanted - events.keys() - {event.seq for event in found})
        events.update((event.seq, event) for event in found)
        fresh = {contact_id for event in found for contact_id in event.contact_ids} - known
        if by_value and not fresh:
            values = _brought(events.values()) - looked_up
            looked_up |= values
            fresh = set(await claimants(connection, values)) - known
        if by_banned_pair and not fresh:
            values = _brought(events.values()) - looked_up
            looked_up |= values
            fresh = set(await claimants(connection, await _banned_with(connection, values))) - known
    return Lineage([events[seq] for seq in sorted(events)], known)


def _brought(events: Iterable[Event]) -> set[Identifier]:
    """What the requests among these events brought, and what the verbs blocked or let count again."""
    brought: set[Identifier] = set()
    for event in events:
        if isinstance(event, IdentifyEvent):
            brought.update(event.identifiers)
        elif isinstance(event.verb, BlockIdentifier | UnblockIdentifier):
            brought.add(event.verb.identifier)
    return brought


async def claimants(connection: AsyncConnection, identifiers: Iterable[Identifier]) -> list[int]:
    """The contacts that claim one of these identifiers, or ever did."""
    found: list[int] = []
    for some in statements.by_kind(identifiers, MOST_PARAMETERS // 2):  # in two tables
        found += filter(None, (await connection.execute(statements.CLAIMANTS, some)).scalars())
    return found


async def blocked_among(connection: AsyncConnection, identifiers: Iterable[Identifier]) -> dict[Identifier, int]:
    """Which of these identifiers are blocked, each with the event that decided so."""
    found: dict[Identifier, int] = {}
    for some in statements.by_kind(identifiers, MOST_PARAMETERS):
        rows = await connection.execute(statements.BLOCKED, some)
        found.update((Identifier(kind, value), seq) for kind, value, seq in rows)
    return found


_BLOCKS = EventFilter(frozenset({EventKind.BLOCK_IDENTIFIER}))


async def page_of_blocked(
    connection: AsyncConnection, *, after: int, upto: int, limit: int
) -> list[tuple[Identifier, int]]:
    """The identifiers that are blocked now, by the events that decided so, from the first event above ``after``."""
    found: list[tuple[Identifier, int]] = []
    while len(found) < limit:
        events = await page(connection, _BLOCKS, after=after, upto=upto, limit=limit)
        if not events:
            break
        verbs = [(event.seq, event.verb) for event in events if isinstance(event, VerbEvent)]
        named = [(verb.identifier, seq) for seq, verb in verbs if isinstance(verb, BlockIdentifier)]
        blocked = await blocked_among(connection, [identifier for identifier, _ in named])
        found += [(identifier, seq) for identifier, seq in named if blocked.get(identifier) == seq]
        after = events[-1].seq
    return found[:limit]


async def _banned_with(connection: AsyncConnection, identifiers: Iterable[Identifier]) -> set[Identifier]:
    """Both ends of the banned pairs that have one of these identifiers."""
    found: set[Identifier] = set()
    wanted = set(identifiers)
    for kept in await withheld_with(connection, wanted):
        if kept.banned:
            found.update(statements.pair_from_row(kept))
    return found


async def withheld_with(connection: AsyncConnection, identifiers: Iterable[Identifier]) -> list[Any]:
    """The rows of the withheld pairs that have one of these identifiers; some of them twice."""
    rows: list[Any] = []
    for some in statements.by_kind(identifiers, MOST_PARAMETERS // 2):  # each is given twice
        rows += await connection.execute(statements.WITHHELD_WITH, some)
    return rows


class LogSearch:
    """Who is named together with some identifiers: `clusters`, the primaries of the events that name them.

    Goes through the log, as an erasure has to be complete, not fast; but only once: asked again, only through the
    events that came since.
    """

    def __init__(self) -> None:
        self.clusters: set[int] = set()
        self._searched: dict[Identifier, int] = {}  # up to which event

    async def extend(self, connection: AsyncConnection, identifiers: Collection[Identifier]) -> None:
        """Search for these identifiers, for each of them from where it was last searched for."""
        newest: int = (await connection.execute(statements.NEWEST_SEQ)).scalar_one()
        for after in {self._searched.get(identifier, 0) for identifier in identifiers}:
            some = [identifier for identifier in identifiers if self._searched.get(identifier, 0) == after]
            self.clusters |= await _naming(connection, some, after=after, newest=newest)
            self._searched.update(dict.fromkeys(some, newest))


async def _naming(
    connection: AsyncConnection, identifiers: Collection[Identifier], *, after: int, newest: int
) -> set[int]:
    """The primaries of the events between these two numbers that name one of these identifiers."""
    found: set[int] = set()
    emails = sorted(i.value for i in identifiers if i.kind == EMAIL)
    phone_numbers = sorted(i.value for i in identifiers if i.kind == PHONE_NUMBER)
    longest = max(len(emails), len(phone_numbers), 1)  # those of other kinds are looked for in all that has such
    for start in range(0, longest, MOST_PARAMETERS):
        some = {
            "emails": statements.padded(emails[start : start + MOST_PARAMETERS], ""),
            "phone_numbers": statements.padded(phone_numbers[start : start + MOST_PARAMETERS], ""),
        }
        for low in range(after, newest, STRETCH):
            window = {"after": low, "upto": min(low + STRETCH, newest)}
            rows = await connection.execute(statements.NAMING, {**some, **window})
            events = [event_of(row) for row in rows]
            found |= {event.primary_id for event in events if erasure.names(event, identifiers)}
    return found


async def heads(connection: AsyncConnection, contact_ids: Collection[int]) -> set[int]:
    """The rows that every writer about these contacts has to change: their primaries, and of the deleted ones, where
    no other row stands for them, their own."""
    return {row[0] for row in await listed(connection, statements.HEADS, contact_ids)}


async def events(connection: AsyncConnection, seqs: Collection[int]) -> list[Event]:
    """These events, in any order."""
    return await _events(connection, statements.EVENTS, seqs)


async def page(connection: AsyncConnection, wanted: EventFilter, *, after: int, upto: int, limit: int) -> list[Event]:
    """The first wanted events above one number and up to another, in order.

    Stewards' kinds, and what an actor did, are found by an index that has nothing else; times by halving the log.
    """
    kinds = frozenset(EventKind) if wanted.kinds is None else wanted.kinds
    if wanted.actor is not None:
        kinds -= {EventKind.IDENTIFY}  # it has no actor
    if wanted.since is not None:
        after, _ = await _around(connection, _moved(wanted.since, -SLACK), after, upto)
    if wanted.until is not None:
        _, upto = await _around(connection, _moved(wanted.until, SLACK), after, upto)
    begin, end = ALWAYS
    within = {
        "after": after,
        "upto": upto,
        "since": wanted.since or begin,
        "until": wanted.until or end,
        "limit": limit,
    }
    if EventKind.IDENTIFY in kinds:
        return await _page_of_any(connection, {**within, "kinds": statements.padded(sorted(kinds), "")})
    for number, kind in enumerate(statements.VERB_KINDS):
        within[f"kind_{number}"] = kind.value if kind in kinds else ""
    if wanted.actor is None:
        found = await connection.execute(statements.PAGE_OF_VERBS, within)
    else:
        found = await connection.execute(statements.PAGE_OF_VERBS_BY_ACTOR, {**within, "actor": wanted.actor})
    seqs = sorted(found.scalars())[:limit]
    return sorted(await events(connection, seqs), key=lambda event: event.seq)


async def _page_of_any(connection: AsyncConnection, within: dict[str, Any]) -> list[Event]:
    """The same of any kind, a stretch of the log at a time, each twice as long as the last.

    In one statement, PostgreSQL may read all and then sort it, where it knows nothing of the table.
    """
    found: list[Event] = []
    after, upto, limit = within["after"], within["upto"], within["limit"]
    length = FIRST_STRETCH
    while after < upto and len(found) < limit:
        stretch = {"after": after, "upto": min(after + length, upto), "limit": limit - len(found)}
        rows = await connection.execute(statements.PAGE_OF_EVENTS, {**within, **stretch})
        found += [event_of(row) for row in rows]
        after, length = stretch["upto"], 2 * length
    return found


async def _around(connection: AsyncConnection, moment: datetime, low: int, high: int) -> tuple[int, int]:
    """Two numbers next to each other, within these two: up to the one the log had not come to a moment yet, up to the
    other it had.

    A number further off is on the wrong side only if its event's time differs from its neighbours' (`SLACK`).
    """
    while high - low > 1:
        middle = (low + high) // 2
        at: datetime | None = (await connection.execute(statements.NEWEST_EVENT, {"seq": middle})).scalar()
        if at is None or at < moment:
            low = middle
        else:
            high = middle
    return low, high


def _moved(moment: datetime, by: timedelta) -> datetime:
    """A moment somewhat earlier or later; at the ends of all time, where nothing happens, the same."""
    try:
        return moment + by
    except OverflowError:
        return moment


async def undos_of(connection: AsyncConnection, events: Iterable[Event]) -> list[VerbEvent]:
    """The undos of these events, the undos of those, and so on, in order: they name the cluster of what they undo."""
    undos: dict[int, VerbEvent] = {}
    fresh = {event.seq: event for event in events}
    while fresh:
        primaries = {event.primary_id for event in fresh.values()}
        about = await _events(connection, statements.UNDOS_ABOUT, primaries)
        fresh = {
            event.seq: event
            for event in about
            if isinstance(event, VerbEvent) and isinstance(event.verb, Undo) and event.verb.event in fresh
        }
        undos.update((seq, event) for seq, event in fresh.items() if isinstance(event, VerbEvent))
    return [undos[seq] for seq in sorted(undos)]


async def _unchanged(
    connection: AsyncConnection, contact_ids: Collection[int], read: Mapping[int, Event]
) -> tuple[list[Event], set[int]]:
    """The events of these clusters that are as they were read before, and the numbers of the others.

    Only an erasure rewrites events: a request has other identifiers then. Where it stood in a steward's
    is not known, so these are always read again.
    """
    same, others = list[Event](), set[int]()
    for seq, *said, document in await listed(connection, statements.REQUESTS_OF_CLUSTERS, contact_ids):
        event = read.get(seq)
        if (
            isinstance(event, IdentifyEvent)
            and said == [EventKind.IDENTIFY, event.email, event.phone_number]
            and event.others == statements.others_of(document)
        ):
            same.append(event)
        else:
            others.add(seq)
    return same, others


async def _events(connection: AsyncConnection, statement: sa.Executable, numbers: Collection[int]) -> list[Event]:
    return [event_of(row) for row in await listed(connection, statement, numbers)]


async def listed(connection: AsyncConnection, statement: sa.Executable, numbers: Collection[int]) -> list[Any]:
    """The rows for a list of numbers, however long it is. What no number of the database can be finds nothing; those
    below 0 stand for nobody (`VerbEvent`)."""
    rows: list[Any] = []
    for some in _chunks(sorted(number for number in numbers if number and abs(number) <= LARGEST_ID)):
        rows += await connection.execute(statement, {"ids": statements.padded(some, 0)})
    return rows


def _chunks(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[start : start + MOST_PARAMETERS] for start in range(0, len(values), MOST_PARAMETERS))
