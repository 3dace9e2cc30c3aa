"""The statements, one set for every database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from identity_graphql.domain.contacts import Cluster, Contact, LinkPrecedence
from identity_graphql.domain.events import EventKind
from identity_graphql.domain.identifiers import BUILT_IN, EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.reconcile import Found
from identity_graphql.domain.state import Pair
from identity_graphql.storage.tables import (
    among,
    as_text,
    ban,
    clock,
    cluster_count,
    contact,
    each_of,
    event,
    event_contact,
    exactly,
    former_claim,
    identifier,
    item_of,
    looked_up,
    pair,
    rule_set,
    withheld_pair,
)

T = TypeVar("T")


def padded(values: Sequence[T], nothing: T) -> list[T]:
    """The values, repeated up to a power of two: a list of a new length is a new statement to prepare."""
    values = values or [nothing]
    length = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (length - len(values))]


def on_identifiers(table: sa.Table, kinds: int = 2) -> sa.ColumnElement[bool]:
    """Whether a claim is on one of the identifiers that are given, so many kinds, each with a list of its own
    (`by_kind`, `listed_by_kind`).

    An OR, so that both columns of the key are looked up: PostgreSQL 15 may look up one kind alone, and then go through
    all values of it.
    """
    return sa.or_(
        *(
            (table.c.kind == sa.bindparam(f"kind{number}")) & among(table.c.value, f"values{number}")
            for number in range(kinds)
        )
    )


def by_kind(identifiers: Iterable[Identifier], most: int) -> Iterator[dict[str, Any]]:
    """The parameters of `on_identifiers` for one kind after the other, in pieces of so many values."""
    for kind, values in _values_by_kind(identifiers).items():
        for start in range(0, len(values), most):
            # The second is no kind, and there for the OR (`on_identifiers`).
            yield {"kind0": kind, "values0": padded(values[start : start + most], ""), "kind1": "", "values1": [""]}


def listed_by_kind(identifiers: Iterable[Identifier]) -> dict[str, Any]:
    """The parameters of `on_identifiers` for all kinds at once: as many as a power of two, and at least two."""
    lists = {**{kind: [] for kind in BUILT_IN}, **_values_by_kind(identifiers)}
    kinds = padded(list(lists), "")
    return {
        **{f"kind{number}": kind for number, kind in enumerate(kinds)},
        **{f"values{number}": padded(lists[kind], "") for number, kind in enumerate(kinds)},
    }


def _values_by_kind(identifiers: Iterable[Identifier]) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for kind, value in sorted({(one.kind, one.value) for one in identifiers}):
        lists.setdefault(kind, []).append(value)
    return lists


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
            as_text(member.c.others).label("others"),
            sa.null().label("more"),
        ).select_from(found),
        member,
        index,
    )


def _clusters(touched: sa.CTE, *, others: bool = True) -> list[sa.Select[Any]]:
    """All contacts of the touched clusters: the primaries, and what is linked to them.

    With ``others`` also a row for each identifier beside the first email and phone number that one of them claims: its
    id, the kind and the value, and no version.
    """
    parts = [_members(touched, "id", "PRIMARY"), _members(touched, "linked_id", "ix_contact_linked_id")]
    if not others:
        return parts
    member = sa.union_all(*parts).cte("members")
    other = each_of(member.c.others).table_valued("value", name="other", joins_implicitly=True)
    kind, value = (item_of(other.c.value, place) for place in (0, 1))
    on = (identifier.c.kind == kind) & (identifier.c.value == value) & (identifier.c.contact_id == member.c.id)
    found = looked_up(member.join(other, sa.true()), identifier, on)
    nothing = sa.null()
    claims = (
        sa.select(member.c.id, identifier.c.kind, identifier.c.value, *[nothing] * 10)
        .select_from(found)
        .where(member.c.others.is_not(None))
    )
    return [sa.select(member), claims]


def _find(kinds: int, *, others: bool) -> sa.CompoundSelect[Any]:
    """Everything that a batch has to know, in one statement and so in one snapshot.

    Five kinds of rows: contacts; what they claim beside an email and a phone number (`_clusters`); pairs that were seen
    before (no id, but both values, their kinds in the last two columns; in the fourth, of a pair that was kept back,
    whether it is banned itself); identifiers that are blocked (no id, one value, its kind); the clock (none of these),
    with whether there is any ban at all.
    """
    owner = contact.alias("owner")
    sought = sa.select(identifier).where(on_identifiers(identifier, kinds)).cte("sought")
    touched = (
        sa.select(sa.func.coalesce(owner.c.linked_id, owner.c.id).label("primary_id"))
        .distinct()
        .select_from(looked_up(sought, owner, owner.c.id == sought.c.contact_id))
        .cte("touched")
    )
    nothing = sa.null()
    blocked = sa.select(nothing, sought.c.value, *[nothing] * 9, sought.c.kind, nothing).where(
        sought.c.blocked.is_not(None)
    )
    seen = _pairs(pair, nothing, others=others)
    withheld = _pairs(withheld_pair, sa.case((withheld_pair.c.banned, 1), else_=0), others=others)
    any_ban = sa.case((sa.exists().where(ban.c.contact_id > 0), 1), else_=0)
    now = sa.select(nothing, nothing, nothing, any_ban, clock(), *[nothing] * 8)
    return sa.union_all(*_clusters(touched, others=others), seen, withheld, blocked, now)


def _pairs(table: sa.Table, banned: sa.ColumnElement[Any], *, others: bool) -> sa.Select[Any]:
    """Those of the batch's pairs that are in a table, and some more of the same values."""
    nothing = sa.null()
    kinds = table.c.kind, table.c.other_kind
    found = sa.select(nothing, table.c.value, table.c.other_value, banned, *[nothing] * 7, *kinds).where(
        among(table.c.value, "pair_values"),
        # Not by the index: with both lists PostgreSQL up to 16, SQLite and MariaDB try every one with every other.
        among(table.c.other_value.concat(""), "pair_other_values"),
    )
    if others:
        return found
    # Neither by the index: a kind alone is half of the table.
    return found.where(kinds[0].concat("") == EMAIL, kinds[1].concat("") == PHONE_NUMBER)


FIND = _find(len(BUILT_IN), others=False)
"""For requests of an email and a phone number. What a contact carries beside them is in its row, not who claims it."""


@cache
def find_all(kinds: int) -> sa.CompoundSelect[Any]:
    """The statement that finds all that is known of identifiers of so many kinds (`listed_by_kind`)."""
    return _find(kinds, others=True)


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

_APART = ("link_precedence", "others", "erased_at", "undone_at")
CONTACT_COLUMNS = (
    *(column for column in contact.c if column.name not in _APART),
    sa.false().label("claims_email"),
    sa.false().label("claims_phone_number"),
    as_text(contact.c.others).label("others"),
    contact.c.erased_at,
    contact.c.undone_at,
)
"""A contact, without its claims (`contact_from_row`)."""
_CONTACT = sa.select(*CONTACT_COLUMNS)
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

# Behind the last one, by count and then by id: clusters of one size are many.
LARGEST = by_index(
    sa.select(cluster_count.c.primary_id, cluster_count.c.count)
    .where(
        cluster_count.c.kind == sa.bindparam("kind"),
        cluster_count.c.count >= sa.bindparam("least"),
        sa.tuple_(cluster_count.c.count, cluster_count.c.primary_id)
        < sa.tuple_(sa.bindparam("most", type_=sa.BigInteger), sa.bindparam("before", type_=sa.BigInteger)),
    )
    .order_by(cluster_count.c.count.desc(), cluster_count.c.primary_id.desc())
    .limit(sa.bindparam("limit")),
    cluster_count,
    "ix_cluster_count_kind_count_primary_id",
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
REQUESTS_OF_CLUSTERS = sa.select(
    event.c.seq, event.c.kind, event.c.email, event.c.phone_number, as_text(event.c.others)
).where(among(event.c.primary_id, "ids"))
EVENTS_ABOUT = sa.select(event_contact.c.seq).where(among(event_contact.c.contact_id, "ids")).distinct()
UNDOS_ABOUT = _EVENT.select_from(looked_up(event_contact, event, event.c.seq == event_contact.c.seq)).where(
    among(event_contact.c.contact_id, "ids"), event.c.kind == EventKind.UNDO.value
)
CLAIMANTS = sa.union(
    *(sa.select(table.c.contact_id).where(on_identifiers(table)) for table in (identifier, former_claim))
)
UNCOUNT = cluster_count.delete().where(
    cluster_count.c.primary_id == sa.bindparam("of_primary_id"), cluster_count.c.kind == sa.bindparam("of_kind")
)
UNCLAIM = identifier.delete().where(
    identifier.c.kind == sa.bindparam("of_kind"), identifier.c.value == sa.bindparam("of_value")
)
UNBLOCK = UNCLAIM.where(identifier.c.blocked == sa.bindparam("of_blocked"))
BLOCK = (
    identifier.update()
    .where(identifier.c.kind == sa.bindparam("of_kind"), identifier.c.value == sa.bindparam("of_value"))
    .values(blocked=sa.bindparam("seq"))
)
BLOCKED = sa.select(identifier.c.kind, identifier.c.value, identifier.c.blocked).where(
    on_identifiers(identifier), identifier.c.blocked.is_not(None)
)
FORGET_CLAIMS = former_claim.delete().where(
    former_claim.c.kind == sa.bindparam("of_kind"), former_claim.c.value == sa.bindparam("of_value")
)
_REWRITTEN = ("email", "phone_number", "others", "raw", "actor", "reason", "source", "request_id", "detail")
REWRITE_EVENT = (
    event.update()
    .where(event.c.seq == sa.bindparam("of_seq"))
    .values({name: sa.bindparam(name) for name in _REWRITTEN})
)

RULE_SETS = sa.select(rule_set.c.norm, rule_set.c.kinds)
RULE_SET = RULE_SETS.where(rule_set.c.norm == sa.bindparam("norm"))

_WAITING = withheld_pair.c.banned == sa.false()


def _queue(condition: sa.ColumnElement[bool] | None, index: str) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """A page of the pairs that wait, and how many there are, up to a limit. One event may have kept back several."""
    conditions = [_WAITING] if condition is None else [_WAITING, condition]
    page = (
        sa.select(withheld_pair)
        .where(withheld_pair.c.seq >= sa.bindparam("after"), *conditions)
        .order_by(withheld_pair.c.seq, *withheld_pair.primary_key)
        .limit(sa.bindparam("limit"))
    )
    some = sa.select(withheld_pair.c.seq).where(*conditions).limit(sa.bindparam("limit"))
    counted = by_index(some, withheld_pair, index).subquery("waiting")
    return by_index(page, withheld_pair, index), sa.select(sa.func.count()).select_from(counted)


QUEUE = _queue(None, "ix_withheld_pair_banned_seq")
QUEUE_OF_BANS = _queue(withheld_pair.c.limit_kind.is_(None), "ix_withheld_pair_banned_limit_kind_seq")
QUEUE_OF_LIMITS = _queue(withheld_pair.c.limit_kind.is_not(None), "ix_withheld_pair_banned_seq")
QUEUE_OF_LIMIT = _queue(
    withheld_pair.c.limit_kind == sa.bindparam("limit_kind"), "ix_withheld_pair_banned_limit_kind_seq"
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
                withheld_pair.c[kind].concat("") == sa.bindparam("kind0"), among(withheld_pair.c[value], "values0")
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
    | event.c.others.is_not(None)
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
    """Returns the contact of a row of `CONTACT_COLUMNS`, which begin with them in the order of its fields."""
    return Contact(*(*row[:11], others_of(row[11]), (), *row[12:14]))


def others_of(text: str | None) -> tuple[Identifier, ...]:
    """Returns what a column `others` says, as text. Raises msgspec.MsgspecError where it says something else."""
    return () if text is None else _OTHERS.decode(text)


def others_row(others: Sequence[Identifier]) -> list[list[str]] | None:
    """Returns identifiers as the columns `others` have them."""
    return [[one.kind, one.value] for one in others] if others else None


_OTHERS = msgspec.json.Decoder(tuple[Identifier, ...])


def clusters_from_rows(rows: Iterable[Sequence[Any]]) -> tuple[Cluster, ...]:
    """Returns the clusters that the live ones of these contacts form (`_clusters`)."""
    members: dict[int, list[Contact]] = {}
    claims: dict[int, set[Identifier]] = {}
    some_have_others = False
    for row in rows:
        if row[7] is None:
            claims.setdefault(row[0], set()).add(Identifier(row[1], row[2]))
        elif row[6] is None:  # a live one
            member = Contact(*row[:11]) if row[11] is None else Contact(*(*row[:11], _OTHERS.decode(row[11])))
            some_have_others = some_have_others or row[11] is not None
            members.setdefault(member.linked_id or member.id, []).append(member)
    if some_have_others:
        members = {home: [_claiming(member, claims) for member in contacts] for home, contacts in members.items()}
    return tuple(Cluster.of(contacts) for contacts in members.values())


def _claiming(member: Contact, claims: Mapping[int, Collection[Identifier]]) -> Contact:
    claimed = claims.get(member.id, ())
    return replace(member, claims_others=tuple(i for i in member.others if i in claimed)) if claimed else member


def are_plain(identifiers: Collection[Identifier], pairs: Collection[Pair]) -> bool:
    """Returns whether `FIND` finds what is known of these, unless a contact carries something else."""
    return all(identifier.kind in BUILT_IN for identifier in identifiers) and all(
        one.kind == EMAIL and other.kind == PHONE_NUMBER for one, other in pairs
    )


def sought(identifiers: Collection[Identifier], pairs: Collection[Pair]) -> dict[str, Any]:
    """Returns the parameters of `FIND` and `find_all`."""
    return {
        **listed_by_kind(identifiers),
        "pair_values": padded(sorted({one.value for one, _ in pairs}), ""),
        "pair_other_values": padded(sorted({other.value for _, other in pairs}), ""),
    }


def found_from_rows(rows: Iterable[Sequence[Any]]) -> Found:
    """Returns what the rows of `FIND` or `find_all` say."""
    contacts, seen, withheld, blocked, now, any_ban = [], set(), {}, [], None, False
    for row in rows:
        if row[0] is not None:
            contacts.append(row)
        elif row[1] is not None and row[2] is None:
            blocked.append(Identifier(row[11], row[1]))
        elif row[1] is not None and row[3] is not None:
            withheld[Identifier(row[11], row[1]), Identifier(row[12], row[2])] = bool(row[3])
        elif row[1] is not None:
            seen.add((Identifier(row[11], row[1]), Identifier(row[12], row[2])))
        else:
            now, any_ban = row[4], bool(row[3])
    assert now is not None, "the clock is always among the rows"
    return Found(clusters_from_rows(contacts), frozenset(seen), now, withheld, any_ban, blocked=frozenset(blocked))
