"""Write a plan: five kinds of rows, in one global order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.contacts import PROVISIONAL, Contact
from identity_graphql.domain.reconcile import CountRow, Numbers, Plan, Swap
from identity_graphql.domain.state import Pair
from identity_graphql.errors import Conflict
from identity_graphql.storage import statements, tables
from identity_graphql.storage.error_table import ErrorClass, Meaning
from identity_graphql.storage.event_rows import row_of

MOST_PARAMETERS = 8_192
"""In one list: SQLite takes 32,766 parameters in a statement, unless it was built otherwise."""
ClassifyError = Callable[[BaseException], Meaning]
InsertNumbered = Callable[[AsyncConnection, sa.Table, Sequence[Mapping[str, Any]]], Awaitable[list[int]]]


async def write(
    connection: AsyncConnection, plan: Plan, *, insert_numbered: InsertNumbered, classify_error: ClassifyError
) -> Numbers:
    """Write a plan in the transaction of this connection; the ids and numbers that were given out.

    Every writer writes in this order, so that no two can wait for each other. Raises Conflict, and then the
    transaction must be rolled back, if anything the plan was decided from is no longer so. ``insert_numbered`` inserts
    rows into a table that numbers them, and returns the numbers in the order of the rows.
    """
    await _swap(connection, plan.swaps)
    ids: dict[int, int] = {}
    if plan.contacts:
        numbers = await insert_numbered(connection, tables.contact, [contact_row(contact) for contact in plan.contacts])
        ids = {contact.id: number for contact, number in zip(plan.contacts, numbers, strict=True)}
        # Linked to a primary of the same batch: its id was not known before.
        await _relink(connection, [c.renumbered(ids) for c in plan.contacts if (c.linked_id or 0) >= PROVISIONAL])
    with claiming(classify_error):
        await _insert(connection, tables.identifier, [(kind, value, ids[id]) for kind, value, id in claims(plan)])
    await _relink(connection, [contact.renumbered(ids) for contact in plan.relinks])
    events = [event.renumbered(ids) for event in plan.events]
    seqs = await insert_numbered(connection, tables.event, [row_of(event) for event in events])
    # After the events, whose numbers they carry. No two writers meet here: each of them holds the claim or the
    # swap that makes the pair new.
    with claiming(classify_error):
        await _insert(connection, tables.pair, [(*pair_key(pair), seqs[number]) for pair, number in plan.new_pairs])
        withheld = [
            (*pair_key(pair), seqs[number], False, limit_kind) for pair, number, limit_kind in plan.new_withheld
        ]
        await _insert(connection, tables.withheld_pair, withheld)
    if plan.believed:
        believed = [key_of(tables.withheld_pair, pair_key(pair)) for pair in plan.believed]
        await connection.execute(statements.BELIEVE, believed)
    await write_counts(connection, plan.counts, ids)
    marks = sorted((contact_id, seq) for event, seq in zip(events, seqs, strict=True) for contact_id in event.kept_from)
    await _insert(connection, tables.event_contact, marks)
    return Numbers(ids, seqs)


async def write_counts(connection: AsyncConnection, counts: Sequence[CountRow], ids: Mapping[int, int]) -> None:
    """Write how large clusters are: what changed is taken out, and put in again unless it is small by now."""
    rows = [(ids.get(row.primary_id, row.primary_id), row.kind, row.count) for row in counts]
    if gone := [{"of_primary_id": primary_id, "of_kind": kind} for primary_id, kind, _ in rows]:
        await connection.execute(statements.UNCOUNT, gone)
    await _insert(connection, tables.cluster_count, [row for row in rows if row[2] is not None])


def pair_key(pair: Pair) -> tuple[str, str, str, str]:
    """Returns the key of a pair in the tables of pairs."""
    one, other = pair
    return one.kind, one.value, other.kind, other.value


def key_of(table: sa.Table, row: Sequence[Any]) -> dict[str, Any]:
    """Returns the key of a row as the parameters of a statement about it."""
    keys = (column for column in table.columns if column.primary_key)
    return {f"of_{column.name}": part for column, part in zip(keys, row, strict=False)}


def claims(plan: Plan) -> list[tuple[str, str, int]]:
    """The identifiers that are new with a plan, in the order of their key: kind, value, provisional contact id."""
    return sorted(
        (identifier.kind, identifier.value, contact.id) for contact in plan.contacts for identifier in contact.claims
    )


@contextmanager
def claiming(classify_error: ClassifyError) -> Iterator[None]:
    """Absence: what is inserted must be new. Whoever was faster has it."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        if classify_error(error).kind is ErrorClass.DUPLICATE:
            raise Conflict("somebody else was faster with a new identifier") from None
        raise


async def _swap(connection: AsyncConnection, swaps: Sequence[Swap]) -> None:
    """Presence: every cluster must be as it was read."""
    rows = [
        {
            "primary_id": swap.primary_id,
            "seen": swap.seen,
            "new_version": swap.version,
            "new_changed_at": swap.changed_at,
        }
        for swap in swaps
    ]
    if rows and (await connection.execute(statements.SWAP, rows)).rowcount != len(rows):
        raise Conflict("a cluster changed since it was read")


async def _insert(connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows: the values of the first columns, in their order."""
    names = [column.name for column in table.columns]
    if rows:
        await connection.execute(table.insert(), [dict(zip(names, row, strict=False)) for row in rows])


async def _relink(connection: AsyncConnection, contacts: Iterable[Contact]) -> None:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for contact in contacts:
        groups.setdefault((contact.linked_id, contact.updated_at), []).append(contact.id)
    for (primary_id, at), ids in groups.items():
        ids.sort()
        for start in range(0, len(ids), MOST_PARAMETERS):
            some = statements.padded(ids[start : start + MOST_PARAMETERS], 0)
            await connection.execute(statements.RELINK, {"ids": some, "primary_id": primary_id, "at": at})


def contact_row(contact: Contact) -> dict[str, Any]:
    linked_id = contact.linked_id
    return {
        "email": contact.email,
        "phone_number": contact.phone_number,
        "linked_id": linked_id if linked_id is not None and linked_id < PROVISIONAL else None,
        "created_at": contact.created_at,
        "updated_at": contact.updated_at,
        "version": contact.version,
        "changed_at": contact.changed_at,
        "others": statements.others_row(contact.others),
    }
