"""The statements, one set for every database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.events import EventKind
from identity_graphql.domain.identifiers import Identifier, IdentifierKind
from identity_graphql.domain.reconcile import Found
from identity_graphql.domain.state import Pair
from identity_graphql.storage.tables import (
    among,
    ban,
    clock,
    contact,
    event,
    event_contact,
    former_claim,
    identifier,
    pair,
    withheld_pair,
)

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

    Three kinds of rows: contacts; pairs that were seen before (no id, but an email; in the fourth column, of a pair
    that was kept back, whether it is banned itself); the clock (neither), with whether there is any ban at all.
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
    seen = _pairs(pair, nothing)
    withheld = _pairs(withheld_pair, sa.case((withheld_pair.c.banned, 1), else_=0))
    any_ban = sa.case((sa.exists().select_from(ban), 1), else_=0)
    now = sa.select(nothing, nothing, nothing, any_ban, clock(), *[nothing] * 6)
    return sa.union_all(*_clusters(touched), seen, withheld, now)


def _pairs(table: sa.Table, banned: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Those of the batch's pairs that are in a table."""
    nothing = sa.null()
    return sa.select(nothing, table.c.email, table.c.phone_number, banned, *[nothing] * 7).where(
        among(table.c.email, "pair_emails"),
        # Not by the index: with both lists PostgreSQL up to 16, SQLite and MariaDB try every email with every number.
        among(table.c.phone_number.concat(""), "pair_phone_numbers"),
    )


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

_ROW = [column for column in contact.c if column.name not in ("link_precedence", "erased_at", "undone_at")]
_CONTACT = sa.select(
    *_ROW,
    sa.false().label("claims_email"),
    sa.false().label("claims_phone_number"),
    contact.c.erased_at,
    contact.c.undone_at,
)
CONTACTS = _CONTACT.where(among(contact.c.id, "ids"))
PAGE_OF_CONTACTS = (
    _CONTACT.where(contact.c.deleted_at.is_(None), contact.c.id > sa.bindparam("after"))
    .order_by(contact.c.id)
    .limit(sa.bindparam("limit"))
)


def _bans() -> sa.Select[Any]:
    """The bans between clusters of these primaries."""
    one, other = contact.alias("one"), contact.alias("other")
    return (
        sa.select(ban.c.contact_id, ban.c.other_id)
        .select_from(ban.join(one, one.c.id == ban.c.contact_id).join(other, other.c.id == ban.c.other_id))
        .where(
            among(one.c.id, "primary_ids") | among(one.c.linked_id, "primary_ids"),
            among(sa.func.coalesce(other.c.linked_id, other.c.id), "primary_ids"),
            one.c.deleted_at.is_(None),
            other.c.deleted_at.is_(None),
        )
    )


BANS = _bans()

PAGE_OF_IDS = (
    sa.select(contact.c.id)
    .where(contact.c.id > sa.bindparam("after"), contact.c.created_at <= sa.bindparam("born"))
    .order_by(contact.c.id)
    .limit(sa.bindparam("limit"))
)

# A queue, not a judge: it only keeps writers of one cluster from overtaking each other for ever.
# NO KEY UPDATE where there is such a thing: it lets the foreign keys of others pass.
LOCK = (
    sa.select(contact.c.id, contact.c.version)
    .where(among(contact.c.id, "ids"))
    .order_by(contact.c.id)
    .with_for_update(key_share=True)
)

# No further condition: with `linked_id IS NULL` MariaDB takes another index, and deadlocks.
SWAP = (
    contact.update()
    .where(contact.c.id == sa.bindparam("primary_id"), contact.c.version == sa.bindparam("seen"))
    .values(version=sa.bindparam("new_version"), changed_at=sa.bindparam("new_changed_at"))
)

BELIEVE = withheld_pair.delete().where(
    withheld_pair.c.email == sa.bindparam("of_email"),
    withheld_pair.c.phone_number == sa.bindparam("of_phone_number"),
)

RELINK = (
    contact.update()
    .where(among(contact.c.id, "ids"))
    .values(linked_id=sa.bindparam("primary_id"), updated_at=sa.bindparam("at"))
)

# Of whatever may change in a row; its id, its time of birth, and what the database computes may not.
UPDATE_CONTACT = (
    contact.update()
    .where(contact.c.id == sa.bindparam("of_id"))
    .values(
        {
            column.name: sa.bindparam(f"new_{column.name}")
            for column in contact.c
            if column.name not in ("id", "created_at", "link_precedence")
        }
    )
)

PRIMARIES = sa.select(contact.c.linked_id).where(among(contact.c.id, "ids"), contact.c.linked_id.is_not(None))
MEMBERS = sa.select(contact.c.id).where(among(contact.c.linked_id, "ids"))
HEADS = sa.select(sa.func.coalesce(contact.c.linked_id, contact.c.id)).distinct().where(among(contact.c.id, "ids"))
_EVENT = sa.select(event)
EVENTS = _EVENT.where(among(event.c.seq, "ids"))
EVENTS_OF_CLUSTERS = _EVENT.where(among(event.c.primary_id, "ids"))
REQUESTS_OF_CLUSTERS = sa.select(event.c.seq, event.c.kind, event.c.email, event.c.phone_number).where(
    among(event.c.primary_id, "ids")
)
EVENTS_ABOUT = sa.select(event_contact.c.seq).where(among(event_contact.c.contact_id, "ids")).distinct()
CLAIMANTS = sa.union(
    *(
        sa.select(table.c.contact_id).where(table.c.kind == sa.bindparam("of_kind"), among(table.c.value, "values"))
        for table in (identifier, former_claim)
    )
)
UNCLAIM = identifier.delete().where(
    identifier.c.kind == sa.bindparam("of_kind"), identifier.c.value == sa.bindparam("of_value")
)
FORGET_CLAIMS = former_claim.delete().where(
    former_claim.c.kind == sa.bindparam("of_kind"), former_claim.c.value == sa.bindparam("of_value")
)
REWRITE_EVENT = (
    event.update()
    .where(event.c.seq == sa.bindparam("of_seq"))
    .values({name: sa.bindparam(name) for name in ("email", "phone_number", "raw", "actor", "reason", "detail")})
)

PAGE_OF_WITHHELD = (
    sa.select(withheld_pair)
    .where(withheld_pair.c.seq > sa.bindparam("after"))
    .order_by(withheld_pair.c.seq)
    .limit(sa.bindparam("limit"))
)

PAGE_OF_BANS = sa.select(ban).where(ban.c.seq > sa.bindparam("after")).order_by(ban.c.seq).limit(sa.bindparam("limit"))

WITHHELD_BY = (
    sa.select(event.c.primary_id)
    .distinct()
    .select_from(withheld_pair.join(event, event.c.seq == withheld_pair.c.seq))
    .where(among(withheld_pair.c.email, "emails") | among(withheld_pair.c.phone_number, "phone_numbers"))
)

NOW = sa.select(clock())
NEWEST_SEQ = sa.select(sa.func.coalesce(sa.func.max(event.c.seq), 0))
# Without an index, which only an erasure would use: a stretch of the log at a time.
NAMING = _EVENT.where(
    event.c.seq > sa.bindparam("after"),
    event.c.seq <= sa.bindparam("upto"),
    (event.c.kind != EventKind.IDENTIFY.value)
    | among(event.c.email, "emails")
    | among(event.c.phone_number, "phone_numbers"),
)

NEWEST_EVENT = sa.select(event.c.at).where(event.c.seq <= sa.bindparam("seq")).order_by(event.c.seq.desc()).limit(1)
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


def sought(identifiers: Collection[Identifier], pairs: Collection[Pair]) -> dict[str, list[str]]:
    """Returns the parameters of `FIND`."""
    emails = sorted({i.value for i in identifiers if i.kind is IdentifierKind.EMAIL})
    phone_numbers = sorted({i.value for i in identifiers if i.kind is IdentifierKind.PHONE_NUMBER})
    return {
        "emails": padded(emails, ""),
        "phone_numbers": padded(phone_numbers, ""),
        "pair_emails": padded(sorted({email for email, _ in pairs}), ""),
        "pair_phone_numbers": padded(sorted({phone_number for _, phone_number in pairs}), ""),
    }


def found_from_rows(rows: Iterable[Sequence[Any]]) -> Found:
    """Returns what the rows of `FIND` say."""
    contacts, seen, withheld, now, any_ban = [], set(), {}, None, False
    for row in rows:
        if row[0] is not None:
            contacts.append(row)
        elif row[1] is not None and row[3] is not None:
            withheld[(row[1], row[2])] = bool(row[3])
        elif row[1] is not None:
            seen.add((row[1], row[2]))
        else:
            now, any_ban = row[4], bool(row[3])
    assert now is not None, "the clock is always among the rows"
    return Found(clusters_from_rows(contacts), frozenset(seen), now, withheld, any_ban)
