"""The statements, one set for every database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from identity_graphql.domain.contacts import Cluster, Contact, LinkPrecedence
from identity_graphql.domain.events import EventKind
from identity_graphql.domain.identifiers import Identifier, IdentifierKind
from identity_graphql.storage.tables import (
    among,
    ban,
    clock,
    contact,
    event,
    event_contact,
    former_claim,
    identifier,
    looked_up,
    pair,
    withheld_pair,
)

T = TypeVar("T")


def padded(values: Sequence[T], nothing: T) -> list[T]:
    """The values, repeated up to a power of two: a list of a new length is a new statement to prepare."""
    values = values or [nothing]
    length = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (length - len(values))]


def on_identifiers(table: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a claim is on one of the identifiers that are given, each kind as a list of its own (`by_kind`).

    An OR, so that both columns of the key are looked up: PostgreSQL 15 may look up one kind alone, and then go through
    all values of it.
    """
    return sa.or_(*((table.c.kind == kind.value) & among(table.c.value, f"{kind.value}s") for kind in IdentifierKind))


def by_kind(identifiers: Iterable[Identifier], most: int) -> Iterator[dict[str, list[str]]]:
    """The parameters of `on_identifiers`; several, if there are more than so many of a kind."""
    lists = {f"{kind.value}s": sorted({i.value for i in identifiers if i.kind is kind}) for kind in IdentifierKind}
    for start in range(0, max(map(len, lists.values())), most):
        yield {name: padded(values[start : start + most], "") for name, values in lists.items()}


def by_index(select: sa.Select[Any], table: sa.FromClause, index: str) -> sa.Select[Any]:
    """Make MySQL and MariaDB use this index, where they may think that it is shorter to read the whole table."""
    return select.with_hint(table, f"FORCE INDEX ({index})", "mysql")


def is_linked_as(precedence: LinkPrecedence, member: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether this is a primary, or a secondary. By the column without an index: half of the contacts are, and
    `linked_id IS NULL` makes PostgreSQL go through all of them where it knows nothing better."""
    return member.c.link_precedence == precedence.value


def claimed(member: sa.FromClause, kind: IdentifierKind) -> tuple[sa.FromClause, sa.ColumnElement[bool]]:
    """The claims, to be looked up by what this member carries of this kind."""
    claim = identifier.alias(f"claim_{kind.value}")
    return claim, (claim.c.kind == kind.value) & (claim.c.value == member.c[kind.value])


def _members(touched: sa.CTE, link: str, index: str) -> sa.Select[Any]:
    """The contacts that are linked to the touched clusters by this column.

    Deleted ones too: they are few, and left out when the rows are read.
    """
    member = contact.alias("member")
    email, on_email = claimed(member, IdentifierKind.EMAIL)
    phone_number, on_phone_number = claimed(member, IdentifierKind.PHONE_NUMBER)
    found = looked_up(touched, member, member.c[link] == touched.c.primary_id)
    found = looked_up(found, email, on_email, isouter=True)
    found = looked_up(found, phone_number, on_phone_number, isouter=True)
    return by_index(
        sa.select(
            member.c.id,
            member.c.email,
            member.c.phone_number,
            member.c.linked_id,
            member.c.created_at,
            member.c.updated_at,
            member.c.deleted_at,
            member.c.version,
            member.c.changed_at,
            email.c.contact_id.is_not_distinct_from(member.c.id).label("claims_email"),
            phone_number.c.contact_id.is_not_distinct_from(member.c.id).label("claims_phone_number"),
        ).select_from(found),
        member,
        index,
    )


def _clusters(touched: sa.CTE) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """All contacts of the touched clusters: the primaries, and what is linked to them."""
    return _members(touched, "id", "PRIMARY"), _members(touched, "linked_id", "ix_contact_linked_id")


def _find() -> sa.CompoundSelect[Any]:
    """Everything that a batch has to know, in one statement and so in one snapshot.

    Three kinds of rows: contacts; pairs that were seen before (no id, but an email; in the fourth column, of a pair
    that was kept back, whether it is banned itself); the clock (neither), with whether there is any ban at all.
    """
    owner = contact.alias("owner")
    touched = (
        sa.select(sa.func.coalesce(owner.c.linked_id, owner.c.id).label("primary_id"))
        .distinct()
        .select_from(looked_up(identifier, owner, owner.c.id == identifier.c.contact_id))
        .where(on_identifiers(identifier))
        .cte("touched")
    )
    nothing = sa.null()
    seen = _pairs(pair, nothing)
    withheld = _pairs(withheld_pair, sa.case((withheld_pair.c.banned, 1), else_=0))
    any_ban = sa.case((sa.exists().where(ban.c.contact_id > 0), 1), else_=0)
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
            is_linked_as(LinkPrecedence.PRIMARY, primary),
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
    found = looked_up(looked_up(one, ban, ban.c.contact_id == one.c.id), other, other.c.id == ban.c.other_id)
    return (
        sa.select(ban.c.contact_id, ban.c.other_id)
        .select_from(found)
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
LOCK = sa.select(contact.c.id).where(among(contact.c.id, "ids")).order_by(contact.c.id).with_for_update(key_share=True)

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

PRIMARIES = sa.select(contact.c.linked_id).where(
    among(contact.c.id, "ids"), is_linked_as(LinkPrecedence.SECONDARY, contact)
)
MEMBERS = sa.select(contact.c.id).where(among(contact.c.linked_id, "ids"))
LIVE_PRIMARIES = sa.select(contact.c.id).where(
    among(contact.c.id, "ids"), is_linked_as(LinkPrecedence.PRIMARY, contact), contact.c.deleted_at.is_(None)
)
_EVENT = sa.select(event)
EVENTS = _EVENT.where(among(event.c.seq, "ids"))
EVENTS_OF_CLUSTERS = _EVENT.where(among(event.c.primary_id, "ids"))
EVENTS_ABOUT = sa.select(event_contact.c.seq).where(among(event_contact.c.contact_id, "ids")).distinct()
CLAIMANTS = sa.union(
    *(sa.select(table.c.contact_id).where(on_identifiers(table)) for table in (identifier, former_claim))
)
FORGET_CLAIMS = former_claim.delete().where(
    former_claim.c.kind == sa.bindparam("of_kind"), former_claim.c.value == sa.bindparam("of_value")
)
REWRITE_EVENT = (
    event.update()
    .where(event.c.seq == sa.bindparam("of_seq"))
    .values({name: sa.bindparam(name) for name in ("email", "phone_number", "raw", "actor", "reason", "detail")})
)

PAGE_OF_WITHHELD = by_index(
    sa.select(withheld_pair)
    .where(withheld_pair.c.seq > sa.bindparam("after"))
    .order_by(withheld_pair.c.seq)
    .limit(sa.bindparam("limit")),
    withheld_pair,
    "ix_withheld_pair_seq",
)

PAGE_OF_BANS = sa.select(ban).where(ban.c.seq > sa.bindparam("after")).order_by(ban.c.seq).limit(sa.bindparam("limit"))

WITHHELD_BY = (
    sa.select(event.c.primary_id)
    .distinct()
    .select_from(looked_up(withheld_pair, event, event.c.seq == withheld_pair.c.seq))
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
