"""Read the log: the events of whole lineages of clusters, in order.

A lineage: the contacts that were ever in one cluster with each other, or of which a steward's verb spoke together. What
happened to one of them at any time is in its lineage's events, and nothing else decides it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain import erasure, history
from identity_graphql.domain.events import Demotion, Event, EventKind, Outcome
from identity_graphql.domain.identifiers import Identifier, IdentifierKind
from identity_graphql.storage import statements
from identity_graphql.storage.plan_writes import MOST_PARAMETERS

LARGEST = 2**63 - 1
STRETCH = 100_000
"""Events that one statement goes through."""


class Lineage(NamedTuple):
    """What belongs to some contacts: their events, in order of ``seq``, and every contact that was met there."""

    events: list[Event]
    contact_ids: set[int]


async def lineage(
    connection: AsyncConnection,
    contact_ids: Collection[int],
    *,
    by_value: bool = False,
    read: Mapping[int, Event] | None = None,
) -> Lineage:
    """The lineages of these contacts. In one snapshot, if the transaction is one.

    ``by_value``: also of those who had one of their identifiers before or after them, so that whatever the absence of
    an event could have changed is there. ``read``: events that were read before, by number; they are not read again
    unless they were rewritten since.
    """
    events: dict[int, Event] = {}
    known: set[int] = set()
    looked_up: set[Identifier] = set()
    fresh = set(contact_ids)
    while fresh:
        # Only its present cluster tells of a primary who demoted it: that event is the other one's. All members at
        # once, so that few rounds are left, however deep they were merged.
        for statement in (statements.PRIMARIES, statements.MEMBERS):
            fresh |= {row[0] for row in await listed(connection, statement, fresh)}
        fresh -= known
        known |= fresh
        if read:
            found, wanted = await _unchanged(connection, fresh, read)
        else:
            found, wanted = await _events(connection, statements.EVENTS_OF_CLUSTERS, fresh), set()
        wanted |= {row[0] for row in await listed(connection, statements.EVENTS_ABOUT, fresh)}
        found += await _events(connection, statements.EVENTS, wanted - events.keys() - {event.seq for event in found})
        events.update((event.seq, event) for event in found)
        fresh = {contact_id for event in found for contact_id in history.named(event)} - known
        if by_value and not fresh:
            values = {i for event in events.values() for i in event.identifiers} - looked_up
            looked_up |= values
            fresh = set(await claimants(connection, values)) - known
    return Lineage([events[seq] for seq in sorted(events)], known)


async def claimants(connection: AsyncConnection, identifiers: Iterable[Identifier]) -> list[int]:
    """The contacts that claim one of these identifiers, or ever did."""
    found: list[int] = []
    for kind in IdentifierKind:
        values = sorted({identifier.value for identifier in identifiers if identifier.kind is kind})
        for some in _chunks(values):
            rows = await connection.execute(
                statements.CLAIMANTS, {"of_kind": kind.value, "values": statements.padded(some, "")}
            )
            found += [row[0] for row in rows]
    return found


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
    emails = sorted(i.value for i in identifiers if i.kind is IdentifierKind.EMAIL)
    phone_numbers = sorted(i.value for i in identifiers if i.kind is IdentifierKind.PHONE_NUMBER)
    longest = max(len(emails), len(phone_numbers))
    for start in range(0, longest, MOST_PARAMETERS):
        some = {
            "emails": statements.padded(emails[start : start + MOST_PARAMETERS], ""),
            "phone_numbers": statements.padded(phone_numbers[start : start + MOST_PARAMETERS], ""),
        }
        for low in range(after, newest, STRETCH):
            window = {"after": low, "upto": min(low + STRETCH, newest)}
            rows = await connection.execute(statements.NAMING, {**some, **window})
            events = [event_from_row(row) for row in rows]
            found |= {event.primary_id for event in events if erasure.names(event, identifiers)}
    return found


async def heads(connection: AsyncConnection, contact_ids: Collection[int]) -> set[int]:
    """The rows that every writer about these contacts has to change: their primaries, and of the deleted ones, where
    no other row stands for them, their own."""
    return {row[0] for row in await listed(connection, statements.HEADS, contact_ids)}


async def events(connection: AsyncConnection, seqs: Collection[int]) -> list[Event]:
    """These events, in any order."""
    return await _events(connection, statements.EVENTS, seqs)


async def _unchanged(
    connection: AsyncConnection, contact_ids: Collection[int], read: Mapping[int, Event]
) -> tuple[list[Event], set[int]]:
    """The events of these clusters that are as they were read before, and the numbers of the others.

    Only an erasure rewrites events: a request has another email or phone number then. Where it stood in a steward's
    is not known, so these are always read again.
    """
    same, others = list[Event](), set[int]()
    for seq, *said in await listed(connection, statements.REQUESTS_OF_CLUSTERS, contact_ids):
        event = read.get(seq)
        if event is not None and said == [EventKind.IDENTIFY, event.email, event.phone_number]:
            same.append(event)
        else:
            others.add(seq)
    return same, others


async def _events(connection: AsyncConnection, statement: sa.Executable, numbers: Collection[int]) -> list[Event]:
    return [event_from_row(row) for row in await listed(connection, statement, numbers)]


async def listed(connection: AsyncConnection, statement: sa.Executable, numbers: Collection[int]) -> list[Any]:
    """The rows for a list of numbers, however long it is. What no number of the database can be finds nothing."""
    rows: list[Any] = []
    for some in _chunks(sorted(number for number in numbers if 0 < number <= LARGEST)):
        rows += await connection.execute(statement, {"ids": statements.padded(some, 0)})
    return rows


def _chunks(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[start : start + MOST_PARAMETERS] for start in range(0, len(values), MOST_PARAMETERS))


def event_from_row(row: Sequence[Any]) -> Event:
    """A row of `statements.EVENTS` and its like."""
    (seq, at, kind, outcome, email, phone_number, raw, norm, contact_id, primary_id, demoted, before, after) = row[:13]
    actor, reason, request_id, detail = row[13:]
    return Event(
        seq=seq,
        at=at,
        kind=EventKind(kind),
        outcome=Outcome(outcome),
        email=email,
        phone_number=phone_number,
        raw=raw,
        norm=norm,
        contact_id=contact_id,
        primary_id=primary_id,
        demoted=tuple(Demotion(**demotion) for demotion in demoted),
        version_before=before,
        version_after=after,
        actor=actor,
        reason=reason,
        request_id=request_id,
        detail=detail,
    )
