"""The statements, one set for every database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.identifiers import IdentifierKind
from identity_graphql.storage.tables import among, clock, contact, event, identifier, pair

T = TypeVar("T")


def padded(values: Sequence[T], nothing: T) -> list[T]:
    """The values, repeated up to a power of two: a list of a new length is a new statement to prepare."""
    values = values or [nothing]
    length = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (length - len(values))]


def _claimed(kind: IdentifierKind, member: sa.FromClause) -> tuple[sa.FromClause, sa.ColumnElement[bool]]:
    """The claim that this member has on its identifier of this kind, to be joined from the left."""
    claim = identifier.alias(f"claim_{kind.value}")
    return claim, (claim.c.kind == kind.value) & (claim.c.value == member.c[kind.value]) & (
        claim.c.contact_id == member.c.id
    )


def _members(touched: sa.CTE, member: sa.FromClause, link: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The contacts of the touched clusters that are linked this way.

    Deleted ones too: they are few, and left out when the rows are read. A condition on ``deleted_at`` here makes
    PostgreSQL, before its first ANALYZE, take so few rows for granted that it reads whole tables instead.
    """
    email, on_email = _claimed(IdentifierKind.EMAIL, member)
    phone_number, on_phone_number = _claimed(IdentifierKind.PHONE_NUMBER, member)
    return sa.select(
        member.c.id,
        member.c.email,
        member.c.phone_number,
        member.c.linked_id,
        member.c.created_at,
        member.c.updated_at,
        member.c.deleted_at,
        member.c.version,
        member.c.changed_at,
        email.c.contact_id.is_not(None).label("claims_email"),
        phone_number.c.contact_id.is_not(None).label("claims_phone_number"),
    ).select_from(touched.join(member, link).outerjoin(email, on_email).outerjoin(phone_number, on_phone_number))


def _clusters(touched: sa.CTE) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """All contacts of the touched clusters: the primaries, and what is linked to them."""
    primary, secondary = contact.alias("primary_contact"), contact.alias("secondary_contact")
    return (
        _members(touched, primary, primary.c.id == touched.c.primary_id),
        _members(touched, secondary, secondary.c.linked_id == touched.c.primary_id),
    )


def _find() -> sa.CompoundSelect[Any]:
    """Everything that a batch has to know, in one statement and so in one snapshot.

    Three kinds of rows: contacts; pairs that were seen before (no id, but an email); the clock (neither).
    """
    owner = contact.alias("owner")
    touched = (
        sa.select(sa.func.coalesce(owner.c.linked_id, owner.c.id).label("primary_id"))
        .distinct()
        .select_from(identifier.join(owner, owner.c.id == identifier.c.contact_id))
        .where(
            ((identifier.c.kind == IdentifierKind.EMAIL.value) & among(identifier.c.value, "emails"))
            | ((identifier.c.kind == IdentifierKind.PHONE_NUMBER.value) & among(identifier.c.value, "phone_numbers"))
        )
        .cte("touched")
    )
    nothing = sa.null()
    seen = sa.select(nothing, pair.c.email, pair.c.phone_number, *[nothing] * 8).where(
        among(pair.c.email, "pair_emails"),
        # Not by the index: with both lists PostgreSQL up to 16, SQLite and MariaDB try every email with every number.
        among(pair.c.phone_number.concat(""), "pair_phone_numbers"),
    )
    now = sa.select(nothing, nothing, nothing, nothing, clock(), *[nothing] * 6)
    return sa.union_all(*_clusters(touched), seen, now)


FIND = _find()


def _clusters_of_contacts() -> sa.CompoundSelect[Any]:
    owner = contact.alias("owner")
    touched = (
        sa.select(sa.func.coalesce(owner.c.linked_id, owner.c.id).label("primary_id"))
        .distinct()
        .where(among(owner.c.id, "ids"), owner.c.deleted_at.is_(None))
        .cte("touched")
    )
    return sa.union_all(*_clusters(touched))


CLUSTERS_OF_CONTACTS = _clusters_of_contacts()


def _page_of_clusters() -> sa.CompoundSelect[Any]:
    primary = contact.alias("page")
    touched = (
        sa.select(primary.c.id.label("primary_id"))
        .where(
            primary.c.linked_id.is_(None),
            primary.c.deleted_at.is_(None),
            primary.c.id > sa.bindparam("after"),
        )
        .order_by(primary.c.id)
        .limit(sa.bindparam("limit"))
        .cte("touched")
    )
    return sa.union_all(*_clusters(touched))


PAGE_OF_CLUSTERS = _page_of_clusters()

_CONTACT = sa.select(
    *(column for column in contact.c if column.name != "link_precedence"),
    sa.false().label("claims_email"),
    sa.false().label("claims_phone_number"),
)
CONTACTS = _CONTACT.where(among(contact.c.id, "ids"))
PAGE_OF_CONTACTS = (
    _CONTACT.where(contact.c.deleted_at.is_(None), contact.c.id > sa.bindparam("after"))
    .order_by(contact.c.id)
    .limit(sa.bindparam("limit"))
)

# A queue, not a judge: it only keeps writers of one cluster from overtaking each other for ever.
# NO KEY UPDATE where there is such a thing: it lets the foreign keys of others pass.
LOCK = sa.select(contact.c.id).where(among(contact.c.id, "ids")).order_by(contact.c.id).with_for_update(key_share=True)

# No further condition: with `linked_id IS NULL` MariaDB takes another index, and deadlocks.
SWAP = (
    contact.update()
    .where(contact.c.id == sa.bindparam("primary_id"), contact.c.version == sa.bindparam("seen"))
    .values(version=sa.bindparam("new_version"), changed_at=sa.bindparam("new_changed_at"))
)

RELINK = (
    contact.update()
    .where(among(contact.c.id, "ids"))
    .values(linked_id=sa.bindparam("primary_id"), updated_at=sa.bindparam("at"))
)

NEWEST_NORM = sa.select(event.c.norm).order_by(event.c.seq.desc()).limit(1)


def contact_from_row(row: Sequence[Any]) -> Contact:
    """A row of the statements above, as a contact: the columns are in the order of its fields."""
    return Contact(*row)


def clusters_from_rows(rows: Iterable[Sequence[Any]]) -> tuple[Cluster, ...]:
    """The clusters that the live ones of these contacts form."""
    members: dict[int, list[Contact]] = {}
    for row in rows:
        member = contact_from_row(row)
        if member.deleted_at is None:
            members.setdefault(member.linked_id or member.id, []).append(member)
    return tuple(Cluster.of(contacts) for contacts in members.values())
