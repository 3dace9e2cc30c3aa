"""Write what a steward's verb changed: its event, and every row that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.changes import THIS_EVENT, Changes
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.decide import VerbResult
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.errors import Conflict
from identity_graphql.storage import statements, tables
from identity_graphql.storage.dialect import Dialect
from identity_graphql.storage.event_log import listed
from identity_graphql.storage.event_rows import row_of
from identity_graphql.storage.plan_writes import claiming, contact_row, key_of, pair_key, write_counts


async def write(connection: AsyncConnection, dialect: Dialect, result: VerbResult) -> VerbResult:
    """Writes it in the transaction of this connection, in the order of `plan_writes.write`. Returns it with the real
    numbers.

    Raises Conflict, and then the transaction must be rolled back, if anything it was decided from is no longer so.
    """
    await _compare(connection, {swap.primary_id: swap.seen for swap in result.swaps})
    ids = await _created(connection, dialect, result.changes.created)
    event, changes = result.event.renumbered(ids), result.table_changes.renumbered(ids)
    changed = [result.after.contacts[change.id].renumbered(ids) for change in changes.contacts]
    # The new ones again: they may be linked to each other, whose ids were not known before.
    await _many(connection, statements.UPDATE_CONTACT, [_changed_row(contact) for contact in changes.created])
    await _many(connection, statements.UPDATE_CONTACT, [_changed_row(contact) for contact in changed])
    with claiming(dialect.classify_error):
        await _claim(connection, result, changes, ids)
    (seq,) = await dialect.insert_numbered(connection, tables.event, [row_of(event)])
    # Which had no number before: those that this event blocked.
    new = [{**_of(identifier), "seq": seq} for identifier, now in changes.blocked if now == THIS_EVENT]
    await _many(connection, statements.BLOCK, new)
    with claiming(dialect.classify_error):
        await _set(connection, tables.pair, [(*pair_key(pair), _number(now, seq)) for pair, now in changes.pairs])
    withheld = [(*pair_key(row.pair), _number(row.seq, seq), row.banned, row.limit_kind) for row in changes.withheld]
    await _set(connection, tables.withheld_pair, withheld)
    await _set(connection, tables.ban, [(*bond, _number(now, seq)) for *bond, now in changes.bans])
    await write_counts(connection, result.counts, ids)
    about = [{"contact_id": contact_id, "seq": seq} for contact_id in sorted(event.contact_ids)]
    await _many(connection, tables.event_contact.insert(), about)
    await _set(connection, tables.former_claim, [(*claim, True) for claim in result.former_claims])
    erased = [_of(identifier) for identifier in result.tokens]
    await _many(connection, statements.FORGET_CLAIMS, erased)
    await _many(connection, statements.REWRITE_EVENT, [{**row_of(old), "of_seq": old.seq} for old in result.rewritten])
    return result.numbered(ids, seq)


async def _compare(connection: AsyncConnection, seen: Mapping[int, int]) -> None:
    """The clusters that were looked at, and their rows locked: in one statement, as there may be many."""
    if dict(await listed(connection, statements.LOCK, seen)) != seen:
        raise Conflict("a cluster changed since it was looked at")


async def _claim(connection: AsyncConnection, result: VerbResult, changes: Changes, ids: Mapping[int, int]) -> None:
    """Take out the rows of identifiers that change, and put them in as they are now.

    Only what was there is taken out. What was nobody's, a new contact may have claimed by now, which no lock keeps
    away: then it is there already. What was blocked, another steward may have let go.
    """
    logged = dict.fromkeys(identifier for identifier, _ in (*result.changes.claims, *result.changes.blocked))
    shown = dict.fromkeys(identifier for identifier, _ in (*changes.claims, *changes.blocked))
    former, now = [], []
    for known, identifier in zip(logged, shown, strict=True):  # of an erasure, the log has tokens
        blocked = result.before.blocked.get(known)
        if blocked is not None:
            given = {**_of(identifier), "of_blocked": blocked}
            if (await connection.execute(statements.UNBLOCK, given)).rowcount != 1:
                raise Conflict("somebody else was faster to unblock an identifier")
        elif known in result.before.claims:
            former.append(_of(identifier))
        claimant, blocked = result.after.claims.get(known), result.after.blocked.get(known)
        if claimant is not None or blocked is not None:
            contact_id = tables.NOBODY if claimant is None else ids.get(claimant, claimant)
            now.append((identifier.kind, identifier.value, contact_id, blocked))
    await _many(connection, statements.UNCLAIM, former)
    await _insert(connection, tables.identifier, now)


def _of(identifier: Identifier) -> dict[str, str]:
    return {"of_kind": identifier.kind, "of_value": identifier.value}


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
        "new_others": statements.others_row(contact.others),
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
