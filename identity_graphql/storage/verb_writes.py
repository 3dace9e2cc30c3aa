"""Write what a steward's verb changed: its event, and every row that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.changes import THIS_EVENT, Changes
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event
from identity_graphql.domain.reconcile import Swap
from identity_graphql.errors import Conflict
from identity_graphql.storage import statements, tables
from identity_graphql.storage.dialect import Dialect
from identity_graphql.storage.event_log import listed
from identity_graphql.storage.plan_writes import claiming, contact_row, event_row


class Record(Struct, frozen=True):
    """One verb, decided: the event without its number, and the rows that differ."""

    event: Event
    swaps: tuple[Swap, ...]
    """every cluster that was looked at: it must still be as it was; and the versions of those that changed"""
    changes: Changes
    contacts: Mapping[int, Contact]
    """those whose rows changed, as they are afterwards"""
    former: tuple[tuple[str, str, int], ...] = ()
    """claims that are no longer: kind, value, contact"""
    rewritten: tuple[Event, ...] = ()
    """events of which values were erased"""
    erased: tuple[tuple[str, str], ...] = ()
    """kind and value of what was erased"""


async def write(connection: AsyncConnection, dialect: Dialect, record: Record) -> Record:
    """Write it in the transaction of this connection, in the order of `writes.write`; it with the real numbers.

    Raises Conflict, and then the transaction must be rolled back, if anything it was decided from is no longer so.
    """
    await _compare(connection, {swap.primary_id: swap.seen for swap in record.swaps if swap.version == swap.seen})
    changing = (swap for swap in record.swaps if swap.version != swap.seen)
    for swap in sorted(changing, key=lambda swap: swap.primary_id):
        values = {
            "primary_id": swap.primary_id,
            "seen": swap.seen,
            "new_version": swap.version,
            "new_changed_at": swap.changed_at,
        }
        if (await connection.execute(statements.SWAP, values)).rowcount != 1:
            raise Conflict("a cluster changed since it was read")
    record = await _with_ids(connection, dialect, record)
    changes = record.changes
    changed = [record.contacts[change.id] for change in changes.contacts]
    await _many(connection, statements.UPDATE_CONTACT, [_changed_row(contact) for contact in changed])
    with claiming(dialect.classify_error):
        await _claim(connection, record)
    (seq,) = await dialect.insert_numbered(connection, tables.event, [event_row(record.event)])
    with claiming(dialect.classify_error):
        await _set(connection, tables.pair, _numbered(changes.pairs, seq))
    await _set(connection, tables.withheld_pair, _numbered(changes.withheld, seq))
    await _set(connection, tables.ban, _numbered(changes.bans, seq))
    about = {*changes.contact_ids, *(record.event.detail or {}).get("about", ()), record.event.primary_id}
    await _many(connection, tables.event_contact.insert(), [{"contact_id": i, "seq": seq} for i in sorted(about)])
    await _set(connection, tables.former_claim, [(*claim, True) for claim in record.former])
    if record.erased:
        await _many(
            connection,
            statements.FORGET_CLAIMS,
            [{"of_kind": kind, "of_value": value} for kind, value in record.erased],
        )
    await _many(
        connection, statements.REWRITE_EVENT, [{**event_row(event), "of_seq": event.seq} for event in record.rewritten]
    )
    return replace(record, event=replace(record.event, seq=seq))


async def _compare(connection: AsyncConnection, seen: Mapping[int, int]) -> None:
    """The clusters that are only looked at: in one statement, as there may be many."""
    if dict(await listed(connection, statements.LOCK, seen)) != seen:
        raise Conflict("a cluster changed since it was looked at")


async def _claim(connection: AsyncConnection, record: Record) -> None:
    """Only those claims are taken out that somebody had. What was nobody's, a new contact may have claimed by now,
    which no lock keeps away: then it is there already."""
    changed = record.changes.claims
    had = {claim[:2] for claim in record.former} | {claim[:2] for claim in changed}.intersection(record.erased)
    await _many(connection, statements.UNCLAIM, [{"of_kind": kind, "of_value": value} for kind, value in sorted(had)])
    await _insert(connection, tables.identifier, [claim for claim in changed if claim[2] is not None])


async def _with_ids(connection: AsyncConnection, dialect: Dialect, record: Record) -> Record:
    """The record after its new contacts, if it has any, were inserted."""
    created = record.changes.created
    if not created:
        return record
    numbers = await dialect.insert_numbered(connection, tables.contact, [contact_row(contact) for contact in created])
    ids = {contact.id: number for contact, number in zip(created, numbers, strict=True)}
    changes = record.changes.renumbered(ids)
    # Linked to each other, perhaps: their ids were not known before.
    await _many(connection, statements.UPDATE_CONTACT, [_changed_row(contact) for contact in changes.created])
    detail = dict(record.event.detail or {})
    detail["changes"] = changes.document()
    detail["born"] = [[seq, ids.get(contact_id, contact_id)] for seq, contact_id in detail.get("born", ())]
    contacts = {ids.get(i, i): contact.renumbered(ids) for i, contact in record.contacts.items()}
    event = replace(record.event.renumbered(ids), detail=detail)
    return replace(record, changes=changes, contacts=contacts, event=event)


def _changed_row(contact: Contact) -> dict[str, Any]:
    return {
        "of_id": contact.id,
        "new_email": contact.email,
        "new_phone_number": contact.phone_number,
        "new_linked_id": contact.linked_id,
        "new_updated_at": contact.updated_at,
        "new_deleted_at": contact.deleted_at,
        "new_version": contact.version,
        "new_changed_at": contact.changed_at,
        "new_erased_at": contact.erased_at,
        "new_undone_at": contact.undone_at,
    }


def _numbered(rows: Iterable[tuple[Any, ...]], seq: int) -> list[tuple[Any, ...]]:
    """The rows of a table whose third column is the number of an event."""
    return [(*row[:2], seq if row[2] == THIS_EVENT and row[2] is not None else row[2], *row[3:]) for row in rows]


async def _set(connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Make rows as they are now: those that changed are taken out, and put in again unless they are gone."""
    keys = [column.name for column in table.primary_key]
    delete = table.delete().where(*(table.c[key] == sa.bindparam(f"of_{key}") for key in keys))
    await _many(connection, delete, [{f"of_{key}": part for key, part in zip(keys, row, strict=False)} for row in rows])
    await _insert(connection, table, [row for row in rows if row[len(keys)] is not None])


async def _insert(connection: AsyncConnection, table: sa.Table, rows: Iterable[tuple[Any, ...]]) -> None:
    names = [column.name for column in table.columns]
    await _many(connection, table.insert(), [dict(zip(names, row, strict=False)) for row in rows])


async def _many(connection: AsyncConnection, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        await connection.execute(statement, rows)
