"""The difference between two states: what an event of a steward's did, row by row, so that it can be done again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, Self, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict, replace

from identity_graphql.domain.contacts import PROVISIONAL, Contact
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.state import Pair, State, Withheld, bond

K = TypeVar("K")
V = TypeVar("V")

THIS_EVENT = 0
"""In the place of an event's number: the one whose changes these are. It has no number before it is written."""


class ContactChange(Struct, frozen=True, omit_defaults=True):
    """The columns of one row that changed, as they are afterwards."""

    id: int
    email: str | UnsetType | None = UNSET
    phone_number: str | UnsetType | None = UNSET
    others: tuple[Identifier, ...] | UnsetType = UNSET
    linked_id: int | UnsetType | None = UNSET
    updated_at: datetime | UnsetType = UNSET
    deleted_at: datetime | UnsetType | None = UNSET
    erased_at: datetime | UnsetType | None = UNSET
    undone_at: datetime | UnsetType | None = UNSET
    version: int | UnsetType = UNSET
    changed_at: datetime | UnsetType | None = UNSET


_COLUMNS = ContactChange.__struct_fields__[1:]


class WithheldRow(Struct, frozen=True, array_like=True):
    """A pair that is kept back now (`Withheld`): by the event ``seq``, or no longer (None)."""

    pair: Pair
    seq: int | None
    banned: bool
    limit_kind: str | None = None


class Changes(Struct, frozen=True, omit_defaults=True):
    """Rows that changed. Each ends with what is there now (the contact that claims, the event); None: it is gone."""

    created: tuple[Contact, ...] = ()
    contacts: tuple[ContactChange, ...] = ()
    claims: tuple[tuple[Identifier, int | None], ...] = ()
    pairs: tuple[tuple[Pair, int | None], ...] = ()
    withheld: tuple[WithheldRow, ...] = ()
    links: tuple[tuple[int, int, int | None], ...] = ()
    bans: tuple[tuple[int, int, int | None], ...] = ()
    parked: tuple[tuple[int, Pair, int | None], ...] = ()
    blocked: tuple[tuple[Identifier, int | None], ...] = ()

    @classmethod
    def between(cls, before: State, after: State) -> Self:
        """Returns what turns one state into the other."""
        created = [contact for contact in after.contacts.values() if contact.id not in before.contacts]
        return cls(
            created=tuple(sorted(created, key=lambda contact: contact.id)),
            contacts=tuple(
                _change(before.contacts[contact.id], contact)
                for contact in sorted(after.contacts.values(), key=lambda contact: contact.id)
                if contact.id in before.contacts
                and before.contacts[contact.id] is not contact
                and before.contacts[contact.id] != contact
            ),
            claims=tuple(_differing(before.claims, after.claims)),
            pairs=tuple(_differing(before.pairs, after.pairs)),
            withheld=tuple(
                WithheldRow(pair, None, False)
                if now is None
                else WithheldRow(pair, now.seq, now.banned, now.limit_kind)
                for pair, now in _differing(before.withheld, after.withheld)
            ),
            links=tuple((*bound, now) for bound, now in _differing(before.links, after.links)),
            bans=tuple((*bound, now) for bound, now in _differing(before.bans, after.bans)),
            parked=tuple((*key, now) for key, now in _differing(before.parked, after.parked)),
            blocked=tuple(_differing(before.blocked, after.blocked)),
        )

    def with_contacts(self, before: State, contacts: Iterable[Contact]) -> Self:
        """Returns the same difference after these rows, which it may have already, were changed (again)."""
        made = {contact.id: contact for contact in self.created}
        changed = {change.id: change for change in self.contacts}
        for contact in contacts:
            if contact.id in before.contacts:
                changed[contact.id] = _change(before.contacts[contact.id], contact)
            else:
                made[contact.id] = contact
        return replace(
            self,
            created=tuple(made[contact_id] for contact_id in sorted(made)),
            contacts=tuple(changed[contact_id] for contact_id in sorted(changed)),
        )

    def apply(self, state: State, seq: int) -> None:
        """Do it again, as the event of this number."""
        for contact in self.created:
            state.put(contact)
        for change in self.contacts:
            columns = {name: value for name, value in asdict(change).items() if value is not UNSET}
            state.put(replace(state.contacts[change.id], **columns))
        for identifier, contact_id in self.claims:
            _set(state.claims, identifier, contact_id)
        for pair, number in self.pairs:
            _set(state.pairs, pair, _number(number, seq))
        for row in self.withheld:
            given = _number(row.seq, seq)
            kept = None if given is None else Withheld(given, row.banned, row.limit_kind)
            _set(state.withheld, row.pair, kept)
        for bonds, rows in ((state.links, self.links), (state.bans, self.bans)):
            for a, b, number in rows:
                _set(bonds, (a, b), _number(number, seq))
        for contact_id, pair, number in self.parked:
            _set(state.parked, (contact_id, pair), _number(number, seq))
        for identifier, number in self.blocked:
            _set(state.blocked, identifier, _number(number, seq))

    @property
    def contact_ids(self) -> frozenset[int]:
        """Every contact that it is about: whose row, claim, link or ban it changes."""
        return frozenset(
            chain(
                (contact.id for contact in self.created),
                (change.id for change in self.contacts),
                (contact_id for *_, contact_id in self.claims if contact_id is not None),
                (contact_id for a, b, _ in (*self.links, *self.bans) for contact_id in (a, b)),
            )
        )

    @property
    def all_pairs(self) -> frozenset[Pair]:
        """Every pair whose standing as evidence it changes."""
        return frozenset({row[0] for row in self.pairs} | {row.pair for row in self.withheld})

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """Returns the same after the database gave out the real ids."""
        if not ids:
            return self
        return replace(
            self,
            created=tuple(contact.renumbered(ids) for contact in self.created),
            contacts=tuple(
                replace(change, linked_id=ids.get(change.linked_id, change.linked_id))
                if isinstance(change.linked_id, int)
                else change
                for change in self.contacts
            ),
            claims=tuple(
                (identifier, contact_id if contact_id is None else ids.get(contact_id, contact_id))
                for identifier, contact_id in self.claims
            ),
            links=tuple((*bond(ids.get(a, a), ids.get(b, b)), number) for a, b, number in self.links),
            bans=tuple((*bond(ids.get(a, a), ids.get(b, b)), number) for a, b, number in self.bans),
            parked=tuple((ids.get(contact_id, contact_id), pair, number) for contact_id, pair, number in self.parked),
        )


def touched(before: State, after: State, changes: Changes) -> set[int]:
    """Returns the primaries, of before or of afterwards, of the clusters that these changes are of."""
    contacts = {contact_id for contact_id in changes.contact_ids if contact_id < PROVISIONAL}
    contacts |= {contact.id for contact in changes.created}
    identifiers = {identifier for identifier, _ in (*changes.claims, *changes.blocked)}
    identifiers.update(*changes.all_pairs)
    primaries: set[int] = set()
    for state in (before, after):
        known = (contact_id for contact_id in contacts if state.is_live(contact_id))
        claimants = (state.claims[identifier] for identifier in identifiers if identifier in state.claims)
        primaries.update(state.primary_of(contact_id) for contact_id in chain(known, claimants))
    return primaries


def _change(before: Contact, after: Contact) -> ContactChange:
    columns = {name: getattr(after, name) for name in _COLUMNS if getattr(after, name) != getattr(before, name)}
    return ContactChange(id=after.id, **columns)


def _differing(before: Mapping[K, V], after: Mapping[K, V]) -> Iterator[tuple[K, V | None]]:
    """The keys whose values differ, in order, and the values now: None for those that are gone."""
    keys: Iterable[Any] = {key for key, value in after.items() if before.get(key) != value} | (
        before.keys() - after.keys()
    )
    return ((key, after.get(key)) for key in sorted(keys))


def _set(rows: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        rows.pop(key, None)
    else:
        rows[key] = value


def _number(number: int | None, seq: int) -> int | None:
    return seq if number == THIS_EVENT else number
