"""The statements, one set for every database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from identity_graphql.domain.contacts import Cluster, Contact, LinkPrecedence
from identity_graphql.domain.events import EventKind
from identity_graphql.domain.identifiers import BUILT_IN, EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.reconcile import Found
from identity_graphql.domain.state import Pair
from identity_graphql.storage.tables import (
    among,
    ban,
    clock,
    contact,
    event,
    event_contact,
    exactly,
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
    return sa.or_(*((table.c.kind == kind) & among(table.c.value, f"{kind}s") for kind in BUILT_IN))


def by_kind(identifiers: Iterable[Identifier], most: int) -> Iterator[dict[str, list[str]]]:
    """The parameters of `on_identifiers`; several, if there are more than so many of a kind."""
    lists = {f"{kind}s": sorted({i.value for i in identifiers if i.kind == kind}) for kind in BUILT_IN}
    for start in range(0, max(map(len, lists.values())), most):
        yield {name: padded(values[start : start + most], "") for name, values in lists.items()}


def by_index(select: sa.Select[Any], table: sa.FromClause, index: str) -> sa.Select[Any]:
    """Make MySQL and MariaDB use this index, where they may think that it is shorter to read the whole table."""
    return select.with_hint(table, f"FORCE INDEX ({index})", "mysql")


def is_linked_as(precedence: LinkPrecedence, member: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether this is a primary, or a secondary. By the column without an index: half of the contacts are, and
    `linked_id IS NULL` makes PostgreSQL go through all of them where it knows nothing better."""
    return member.c.link_precedence == precedence.value


def claimed(member: sa.FromClause, kind: str) -> tuple[sa.FromClause, sa.ColumnElement[bool]]:
    """The claims, to be looked up by what this member carries of this kind."""
    claim = identifier.alias(f"claim_{kind}")
    return claim, (claim.c.kind == kind) & (claim.c.value == member.c[kind])


def _members(touched: sa.CTE, link: str, index: str) -> sa.Select[Any]:
    """The contacts that are linked to the touched clusters by this column.

    Deleted ones too: they are few, and left out when the rows are read.
    """
    member = contact.alias("member")
    email, on_email = claimed(member, EMAIL)
    phone_number, on_phone_number = claimed(member, PHONE_NUMBER)
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

    Three kinds of rows: contacts; pairs that were seen before (no id, but both values; in the fourth column, of a pair
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
    return sa.select(nothing, table.c.value, table.c.other_value, banned, *[nothing] * 7).where(
        among(table.c.value, "pair_emails"),
        # Not by the index: with both lists PostgreSQL up to 16, SQLite and MariaDB try every email with every number,
        # and a kind alone is half of the table.
        table.c.kind.concat("") == EMAIL,
        table.c.other_kind.concat("") == PHONE_NUMBER,
        among(table.c.other_value.concat(""), "pair_phone_numbers"),
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


def _bans(*, by_primaries: bool = False) -> sa.Select[Any]:
    """The bans between clusters of these primaries, as pairs of contacts or of the primaries they now have."""
    one, other = contact.alias("one"), contact.alias("other")
    pair_of = (
        (sa.func.coalesce(one.c.linked_id, one.c.id), sa.func.coalesce(other.c.linked_id, other.c.id))
        if by_primaries
        else (ban.c.contact_id, ban.c.other_id)
    )
    found = looked_up(looked_up(one, ban, ban.c.contact_id == one.c.id), other, other.c.id == ban.c.other_id)
    return (
        sa.select(pair_of[0].label("one"), pair_of[1].label("other"))
        .select_from(found)
        .where(
            among(one.c.id, "primary_ids") | among(one.c.linked_id, "primary_ids"),
            among(sa.func.coalesce(other.c.linked_id, other.c.id), "primary_ids"),
            one.c.deleted_at.is_(None),
            other.c.deleted_at.is_(None),
        )
    )


BANS = _bans()
KEPT_APART = _bans(by_primaries=True).distinct()

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

# Asks the database whether it may be written to, and for no row.
WRITE_NOTHING = contact.update().where(contact.c.id == 0).values(version=contact.c.version)

BELIEVE = withheld_pair.delete().where(
    *(column == sa.bindparam(f"of_{column.name}") for column in withheld_pair.primary_key)
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
HEADS = sa.select(sa.func.coalesce(contact.c.linked_id, contact.c.id)).distinct().where(among(contact.c.id, "ids"))
_EVENT = sa.select(event)
EVENTS = _EVENT.where(among(event.c.seq, "ids"))
EVENTS_OF_CLUSTERS = _EVENT.where(among(event.c.primary_id, "ids"))
REQUESTS_OF_CLUSTERS = sa.select(event.c.seq, event.c.kind, event.c.email, event.c.phone_number).where(
    among(event.c.primary_id, "ids")
)
EVENTS_ABOUT = sa.select(event_contact.c.seq).where(among(event_contact.c.contact_id, "ids")).distinct()
UNDOS_ABOUT = _EVENT.select_from(looked_up(event_contact, event, event.c.seq == event_contact.c.seq)).where(
    among(event_contact.c.contact_id, "ids"), event.c.kind == EventKind.UNDO.value
)
CLAIMANTS = sa.union(
    *(sa.select(table.c.contact_id).where(on_identifiers(table)) for table in (identifier, former_claim))
)
UNCLAIM = identifier.delete().where(
    identifier.c.kind == sa.bindparam("of_kind"), identifier.c.value == sa.bindparam("of_value")
)
FORGET_CLAIMS = former_claim.delete().where(
    former_claim.c.kind == sa.bindparam("of_kind"), former_claim.c.value == sa.bindparam("of_value")
)
_REWRITTEN = ("email", "phone_number", "raw", "actor", "reason", "request_id", "detail")
REWRITE_EVENT = (
    event.update()
    .where(event.c.seq == sa.bindparam("of_seq"))
    .values({name: sa.bindparam(name) for name in _REWRITTEN})
)

PAGE_OF_WITHHELD = by_index(
    sa.select(withheld_pair)
    .where(withheld_pair.c.seq > sa.bindparam("after"))
    .order_by(withheld_pair.c.seq)
    .limit(sa.bindparam("limit")),
    withheld_pair,
    "ix_withheld_pair_seq",
)

# An event may have made several of them: it is behind the last one by its contacts, too.
PAGE_OF_BANS = (
    sa.select(ban)
    .where(
        ban.c.seq >= sa.bindparam("after"),
        (ban.c.seq > sa.bindparam("after"))
        | (ban.c.contact_id > sa.bindparam("after_contact"))
        | ((ban.c.contact_id == sa.bindparam("after_contact")) & (ban.c.other_id > sa.bindparam("after_other"))),
    )
    .order_by(ban.c.seq, ban.c.contact_id, ban.c.other_id)
    .limit(sa.bindparam("limit"))
)


def _withheld_with() -> sa.CompoundSelect[Any]:
    """The withheld pairs that have one of the identifiers of a kind, at either end."""
    ends = (("kind", "value"), ("other_kind", "other_value"))
    return sa.union_all(
        *(
            sa.select(withheld_pair).where(
                withheld_pair.c[kind].concat("") == sa.bindparam("kind"), among(withheld_pair.c[value], "values")
            )
            for kind, value in ends
        )
    )


WITHHELD_WITH = _withheld_with()
CLUSTERS_OF_EVENTS = sa.select(event.c.primary_id).where(among(event.c.seq, "ids"))

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

VERB_KINDS = tuple(kind for kind in EventKind if kind is not EventKind.IDENTIFY)
_WITHIN = (
    (event.c.seq > sa.bindparam("after"))
    & (event.c.seq <= sa.bindparam("upto"))
    & (event.c.at >= sa.bindparam("since"))
    & (event.c.at < sa.bindparam("until"))
)
PAGE_OF_EVENTS = by_index(
    _EVENT.where(_WITHIN, among(event.c.kind, "kinds")).order_by(event.c.seq).limit(sa.bindparam("limit")),
    event,
    "PRIMARY",
)


def _page_of_verbs(index: str, *conditions: sa.ColumnElement[bool]) -> sa.CompoundSelect[Any]:
    """The numbers of a page of stewards' events, of each kind by itself: so the index has them in order, and nothing
    else is read. The kinds are given as ``kind_0`` to the last; "" is none."""
    pages = (
        by_index(
            sa.select(event.c.seq)
            .where(event.c.kind == sa.bindparam(f"kind_{number}"), _WITHIN, *conditions)
            .order_by(event.c.seq)
            .limit(sa.bindparam("limit")),
            event,
            index,
        ).subquery(f"of_kind_{number}")
        for number in range(len(VERB_KINDS))
    )
    return sa.union_all(*(sa.select(page.c.seq) for page in pages))


PAGE_OF_VERBS = _page_of_verbs("ix_event_kind_seq", event.c.kind != sa.literal_column(f"'{EventKind.IDENTIFY}'"))
PAGE_OF_VERBS_BY_ACTOR = _page_of_verbs("ix_event_actor_kind_seq", exactly(event.c.actor, "actor"))

NEWEST_EVENT = sa.select(event.c.at).where(event.c.seq <= sa.bindparam("seq")).order_by(event.c.seq.desc()).limit(1)
NEWEST_NORM = sa.select(event.c.norm).order_by(event.c.seq.desc()).limit(1)


def pair_from_row(row: Sequence[Any]) -> Pair:
    """Returns the pair that a row begins with: kind and value of both identifiers."""
    return Identifier(row[0], row[1]), Identifier(row[2], row[3])


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
    emails = sorted({i.value for i in identifiers if i.kind == EMAIL})
    phone_numbers = sorted({i.value for i in identifiers if i.kind == PHONE_NUMBER})
    return {
        "emails": padded(emails, ""),
        "phone_numbers": padded(phone_numbers, ""),
        "pair_emails": padded(sorted({email.value for email, _ in pairs}), ""),
        "pair_phone_numbers": padded(sorted({phone_number.value for _, phone_number in pairs}), ""),
    }


def found_from_rows(rows: Iterable[Sequence[Any]]) -> Found:
    """Returns what the rows of `FIND` say."""
    contacts, seen, withheld, now, any_ban = [], set(), {}, None, False
    for row in rows:
        if row[0] is not None:
            contacts.append(row)
        elif row[1] is not None and row[3] is not None:
            withheld[Identifier(EMAIL, row[1]), Identifier(PHONE_NUMBER, row[2])] = bool(row[3])
        elif row[1] is not None:
            seen.add((Identifier(EMAIL, row[1]), Identifier(PHONE_NUMBER, row[2])))
        else:
            now, any_ban = row[4], bool(row[3])
    assert now is not None, "the clock is always among the rows"
    return Found(clusters_from_rows(contacts), frozenset(seen), now, withheld, any_ban)
