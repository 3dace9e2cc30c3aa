"""Find clusters among millions, and count what there is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.contacts import LinkPrecedence
from identity_graphql.domain.counts import CONTACTS, LEAST
from identity_graphql.domain.events import Event, VerbEvent
from identity_graphql.storage import event_log, statements
from identity_graphql.storage.event_rows import event_of
from identity_graphql.storage.tables import among, cluster_count, contact, event, identifier

STRETCH = 1_000
"""Events that one statement goes back."""
MOST_EVENTS = 100_000
"""Events among which those of one page are looked for."""


class Totals(Struct, frozen=True):
    """How much there is."""

    contacts: int
    clusters: int
    identifiers: Mapping[str, int]
    """by kind"""
    sizes: Mapping[int, int]
    """how many clusters have so many contacts"""


async def largest(
    connection: AsyncConnection, kind: str, *, least: int, behind: tuple[int, int], limit: int
) -> list[tuple[int, int]]:
    """Returns the primaries of clusters with at least so many values of a kind (or contacts), and how many these are:
    the largest first, of equal ones the newest, behind one with a count and an id."""
    most, before = behind
    given = {"kind": kind, "least": least, "most": most, "before": before, "limit": limit}
    return [(row[0], row[1]) for row in await connection.execute(statements.LARGEST, given)]


async def last_changed(connection: AsyncConnection, *, before: int, limit: int) -> list[tuple[int, int]]:
    """Returns the clusters that changed last, as (event, primary), the last first, of events below a number.

    Fewer than the limit where the log is at its end, or `MOST_EVENTS` were read.
    """
    found: list[tuple[int, int]] = []
    low = before
    for _ in range(MOST_EVENTS // STRETCH):
        rows = await connection.execute(_BACKWARDS, {"before": low, "limit": STRETCH})
        events = [event_of(row) for row in rows]
        if not events:
            return found
        named = {contact_id for event in events for contact_id in _named(event)}
        changed: dict[int, datetime] = {}
        for id_, at in await event_log.listed(connection, _CHANGED, named):
            changed[id_] = at
        for one in events:
            # What an event counts in has its time: no later one has come to it.
            ids = sorted(contact_id for contact_id in _named(one) if changed.get(contact_id) == one.at)
            found += [(one.seq, contact_id) for contact_id in ids]
            if len(found) >= limit:
                return found
        low = events[-1].seq
    return found


def _named(one: Event) -> frozenset[int]:
    return one.contact_ids if isinstance(one, VerbEvent) else frozenset({one.primary_id})


async def totals(connection: AsyncConnection) -> Totals:
    """Returns how much there is. Goes through all of it."""
    contacts, clusters = (await connection.execute(_CONTACTS)).one()
    identifiers = dict(tuple(row) for row in await connection.execute(_IDENTIFIERS))
    sizes = {size: count for size, count in await connection.execute(_SIZES) if size < LEAST}
    sizes.update((size, count) for size, count in await connection.execute(_LARGE_SIZES))
    alone = int(clusters) - sum(sizes.values())
    return Totals(contacts, clusters, identifiers, dict(sorted({**({1: alone} if alone else {}), **sizes}.items())))


_BACKWARDS = (
    sa.select(event)
    .where(event.c.seq < sa.bindparam("before"))
    .order_by(event.c.seq.desc())
    .limit(sa.bindparam("limit"))
)
_CHANGED = sa.select(contact.c.id, contact.c.changed_at).where(
    among(contact.c.id, "ids"),
    statements.is_linked_as(LinkPrecedence.PRIMARY, contact),
    contact.c.deleted_at.is_(None),
)
_CONTACTS = sa.select(
    sa.func.count(), sa.func.coalesce(sa.func.sum(sa.case((contact.c.linked_id.is_(None), 1), else_=0)), 0)
).where(contact.c.deleted_at.is_(None))
_IDENTIFIERS = (
    sa.select(identifier.c.kind, sa.func.count()).where(identifier.c.contact_id > 0).group_by(identifier.c.kind)
)
_OF_TWO_OR_MORE = (
    sa.select((sa.func.count() + 1).label("size"))
    .where(contact.c.linked_id.is_not(None), contact.c.deleted_at.is_(None))
    .group_by(contact.c.linked_id)
    .subquery("sizes")
)
_SIZES = sa.select(_OF_TWO_OR_MORE.c.size, sa.func.count()).group_by(_OF_TWO_OR_MORE.c.size)
_LARGE_SIZES = (
    sa.select(cluster_count.c.count, sa.func.count())
    .where(cluster_count.c.kind == CONTACTS)
    .group_by(cluster_count.c.count)
)
