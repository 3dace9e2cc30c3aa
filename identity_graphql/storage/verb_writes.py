"""Write what a steward's verb changed: its event, and every row that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.changes import THIS_EVENT, Changes
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.decide import VerbResult
from identity_graphql.errors import Conflict
from identity_graphql.storage import statements, tables
from identity_graphql.storage.dialect import Dialect
from identity_graphql.storage.event_log import listed
from identity_graphql.storage.event_rows import row_of
from identity_graphql.storage.plan_writes import claiming, contact_row, key_of, pair_key


async def write(connection: AsyncConnection, dialect: Dialect, result: VerbResult) -> VerbResult:
    """Writes it in the transaction of this connection, in the order of `plan_writes.write`. Returns it with the real
    numbers.

    Raises Conflict, and then the transaction must be rolled back, if anything it was decided from is no longer so.
    """
    await _compare(connection, {swap.primary_id: swap.seen for swap in result.swaps if swap.version == swap.seen})
    for swap in (swap for swap in result.swaps if swap.version != swap.seen):
        values = {
            "primary_id": swap.primary_id,
            "seen": swap.seen,
            "new_version": swap.version,
            "new_changed_at": swap.changed_at,
        }
        if (await connection.execute(statements.SWAP, values)).rowcount != 1:
            raise Conflict("a cluster changed since it was read")
    ids = await _created(connection, dialect, result.changes.created)
    event, changes = result.event.renumbered(ids), result.table_changes.renumbered(ids)
    changed = [result.after.contacts[change.id].renumbered(ids) for change in changes.contacts]
    # The new ones again: they may be linked to each other, whose ids were not known before.
    await _many(connection, statements.UPDATE_CONTACT, [_changed_row(contact) for contact in changes.created])
    await _many(connection, statements.UPDATE_CONTACT, [_changed_row(contact) for contact in changed])
    with claiming(dialect.classify_error):
        await _claim(connection, result, changes)
    (seq,) = await dialect.insert_numbered(connection, tables.event, [row_of(event)])
    with claiming(dialect.classify_error):
        await _set(connection, tables.pair, [(*pair_key(pair), _number(now, seq)) for pair, now in changes.pairs])
    withheld = [(*pair_key(pair), _number(now, seq), banned) for pair, now, banned in changes.withheld]
    await _set(connection, tables.withheld_pair, withheld)
    await _set(connection, tables.ban, [(*bond, _number(now, seq)) for *bond, now in changes.bans])
    about = [{"contact_id": contact_id, "seq": seq} for contact_id in sorted(event.contact_ids)]
    await _many(connection, tables.event_contact.insert(), about)
    await _set(connection, tables.former_claim, [(*claim, True) for claim in result.former_claims])
    erased = [{"of_kind": identifier.kind, "of_value": identifier.value} for identifier in result.tokens]
    await _many(connection, statements.FORGET_CLAIMS, erased)
    await _many(connection, statements.REWRITE_EVENT, [{**row_of(old), "of_seq": old.seq} for old in result.rewritten])
    return result.numbered(ids, seq)


async def _compare(connection: AsyncConnection, seen: Mapping[int, int]) -> None:
    """The clusters that are only looked at: in one statement, as there may be many."""
    if dict(await listed(connection, statements.LOCK, seen)) != seen:
        raise Conflict("a cluster changed since it was looked at")


async def _claim(connection: AsyncConnection, result: VerbResult, changes: Changes) -> None:
    """Only those claims are taken out that somebody had. What was nobody's, a new contact may have claimed by now,
    which no lock keeps away: then it is there already."""
    erased = {(identifier.kind, identifier.value) for identifier in result.tokens}
    claims = [(identifier.kind, identifier.value, contact_id) for identifier, contact_id in changes.claims]
    had = {claim[:2] for claim in result.former_claims} | {claim[:2] for claim in claims}.intersection(erased)
    await _many(connection, statements.UNCLAIM, [{"of_kind": kind, "of_value": value} for kind, value in sorted(had)])
    await _insert(connection, tables.identifier, [claim for claim in claims if claim[2] is not None])


async def _created(connection: AsyncConnection, dialect: Dialect, created: Sequence[Contact]) -> dict[int, int]:
    """Insert new contacts; their ids, by their provisional ones."""
    if not created:
        return {}
    numbers = await dialect.insert_numbered(connection, tables.contact, [contact_row(contact) for contact in created])
    return {contact.id: number for contact, number in zip(created, numbers, strict=True)}


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


def _number(now: int | None, seq: int) -> int | None:
    return seq if now == THIS_EVENT else now


async def _set(connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Make rows as they are now: those that changed are taken out, and put in again unless they are gone."""
    delete = table.delete().where(*(column == sa.bindparam(f"of_{column.name}") for column in table.primary_key))
    await _many(connection, delete, [key_of(table, row) for row in rows])
    await _insert(connection, table, [row for row in rows if row[len(table.primary_key)] is not None])


async def _insert(connection: AsyncConnection, table: sa.Table, rows: Iterable[tuple[Any, ...]]) -> None:
    names = [column.name for column in table.columns]
    await _many(connection, table.insert(), [dict(zip(names, row, strict=False)) for row in rows])


async def _many(connection: AsyncConnection, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        await connection.execute(statement, rows)
