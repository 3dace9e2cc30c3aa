"""A steward's decisions about two customers, judged again: they are about whom the steward saw, and stay so.

Where an earlier event is taken back, the two may be more customers than they were, or fewer, or have other contacts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain import bans, verbs
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.state import Bond, State, bond
from identity_graphql.errors import IdentityError


class Customer(Struct, frozen=True):
    """A customer as a steward saw it: its contacts, and the identifiers that it had."""

    contacts: frozenset[int]
    identifiers: frozenset[Identifier]

    @classmethod
    def of(cls, state: State, contact_ids: Iterable[int]) -> Self:
        contacts = frozenset(contact_ids)
        live = (state.contacts[contact_id] for contact_id in contacts if state.is_live(contact_id))
        return cls(contacts, frozenset(identifier for contact in live for identifier in state.claimed(contact)))

    def within(self, state: State, when_seen: State) -> set[int]:
        """Returns who it is in another state: its contacts, and those that stand in their place.

        These claim what it had, and were not there when it was seen.
        """
        claimants = {state.claims[identifier] for identifier in self.identifiers if identifier in state.claims}
        return {c for c in claimants if not when_seen.is_live(c)} | (self.contacts & state.contacts.keys())


class Seen(Struct, frozen=True):
    """The two customers that a decision is about."""

    here: Customer
    there: Customer


class Side(Struct):
    """One of two customers that are kept apart: its contacts, and what it had that nobody has here yet."""

    contacts: set[int]
    missing: set[Identifier]

    @classmethod
    def of(cls, customer: Customer, state: State, when_seen: State) -> Self:
        return cls(customer.within(state, when_seen), {i for i in customer.identifiers if i not in state.claims})

    def has(self, state: State, identifier: Identifier, when_said: State) -> bool:
        """Whether an identifier is this customer's, or would be."""
        home = state.home(identifier)
        if home is None:
            return identifier in self.missing and identifier in when_said.claims
        return home in bans.customers_of(state, self.contacts)


class PendingBan(Struct):
    """A ban, of which something that its two customers had is nobody's here: whoever brings it later is one of them.

    As long as somebody really had it then (``when_said``): once nobody had, a request was judged without the ban.
    """

    seq: int
    about: Seen
    sides: tuple[Side, Side]

    @classmethod
    def after(cls, verb: verbs.Verb, state: State, seq: int, about: Seen, when_seen: State) -> Self | None:
        """Returns what is left to be done of a decision that was judged again; None if that is nothing."""
        if isinstance(verb, verbs.UnbanLink) or (isinstance(verb, verbs.SplitCluster) and not verb.ban):
            return None
        here, there = (Side.of(customer, state, when_seen) for customer in (about.here, about.there))
        return cls(seq, about, (here, there)) if here.missing or there.missing else None

    def forbids(self, state: State, identifiers: Sequence[Identifier], when_said: State) -> bool:
        """Whether these are of both customers, and one of them is nobody's yet: else the bans that stand decide."""
        fresh = [identifier for identifier in identifiers if identifier not in state.claims]
        if not any(identifier in side.missing for side in self.sides for identifier in fresh):
            return False
        return all(any(side.has(state, identifier, when_said) for identifier in identifiers) for side in self.sides)

    def meet(self, state: State, contact: Contact, when_said: State) -> None:
        """A contact was made: if it is one of the two customers, it is kept apart from the other."""
        claimed = {identifier for identifier in state.claimed(contact) if identifier in when_said.claims}
        for side in self.sides:
            if not side.missing.isdisjoint(claimed):
                side.missing.difference_update(claimed)
                side.contacts.add(contact.id)
                here, there = self.sides
                bans.separate(state, here.contacts, there.contacts, self.seq)

    def is_lifted_with(self, other: Seen) -> bool:
        """Whether lifting all bans between two customers lifts this one."""
        two = (self.about.here.contacts, self.about.there.contacts)
        return any(
            not (two[0].isdisjoint(one.contacts) or two[1].isdisjoint(another.contacts))
            for one, another in ((other.here, other.there), (other.there, other.here))
        )


def is_decision(verb: verbs.Verb) -> bool:
    """Whether a verb decides about two customers."""
    match verb:
        case verbs.BanLink() | verbs.SplitCluster() | verbs.RejectWithheld():
            return True
        case verbs.UnbanLink():
            return verb.contacts is not None
        case verbs.Undo():
            return bool(verb.pairs) or verb.contacts is not None
    return False


def each(verb: verbs.Verb, state: State) -> list[tuple[verbs.Verb, Seen | None]]:
    """Returns what a verb decides, each decision by itself, and whom it is about (`seen`)."""
    if isinstance(verb, verbs.Undo) and len(verb.pairs) > 1:
        return [(one, seen(one, state)) for one in (replace(verb, pairs=(pair,)) for pair in verb.pairs)]
    return [(verb, seen(verb, state))]


def seen(verb: verbs.Verb, state: State) -> Seen | None:
    """Returns whom a decision is about, from the state before it; for an `Undo`, from the state after it.

    None where it is about a pair that is nobody's.
    """
    match verb:
        case verbs.SplitCluster():
            out = frozenset(verb.contact_ids)
            members = state.members[state.primary_of(verb.contact_ids[0])]
            return Seen(Customer.of(state, out), Customer.of(state, members - out))
        case verbs.BanLink():
            two = [verb.one, verb.other]
        case verbs.Undo() if verb.pairs:
            (pair,) = verb.pairs
            two = [state.claims[end] for end in pair if end in state.claims]
        case verbs.RejectWithheld():
            two = [state.claims[end] for end in verb.pair if end in state.claims]
        case verbs.Undo() | verbs.UnbanLink():
            two = list(verb.contacts or ())
        case _:
            two = []
    primaries = [primary for contact_id in two if (primary := bans.customer_of(state, contact_id)) is not None]
    if len(primaries) < 2:
        return None
    here, there = (Customer.of(state, state.members.get(primary, (primary,))) for primary in primaries)
    return Seen(here, there)


def judge_again(
    verb: verbs.Verb,
    state: State,
    at: datetime,
    seq: int,
    *,
    about: Seen,
    when_seen: State,
    without: Collection[int] = (),
) -> None:
    """Carries a decision out in another state than ``when_seen``, that in which it was taken.

    Whoever it keeps apart is divided where that other state has them as one. ``without``: events that do not count.
    """
    here, there = (customer.within(state, when_seen) for customer in (about.here, about.there))
    if isinstance(verb, verbs.UnbanLink):
        ones, others = bans.customers_of(state, here), bans.customers_of(state, there)
        twos = {bond(one, other) for one in ones for other in others if one != other}
        verb.lift(state, twos - _others_apart(state, about, when_seen, without), at)
        verbs.believe_what_is_together(state, at)
        return
    apart = bans.separations(state)
    _divide(verb, state, at, seq, here, there, when_seen)
    bans.carry_over(apart, state)
    if not isinstance(verb, verbs.SplitCluster):
        with suppress(IdentityError):
            verb.carry_out(state, at, seq)
    if not isinstance(verb, verbs.SplitCluster) or verb.ban:
        bans.separate(state, here, there, seq)
    verbs.believe_what_is_together(state, at)


def _others_apart(state: State, about: Seen, when_seen: State, without: Collection[int]) -> set[Bond]:
    """The customers of this state who are also some that were kept apart when others of theirs no longer were to be."""
    found = set()
    for separation in bans.separations(when_seen):
        two = {separation.here, separation.there}
        if separation.seq not in without and two != {about.here.contacts, about.there.contacts}:
            ones, others = (bans.customers_of(state, contacts) for contacts in (separation.here, separation.there))
            found |= {bond(one, other) for one in ones for other in others}
    return found


def _divide(
    verb: verbs.Verb, state: State, at: datetime, seq: int, out: set[int], rest: set[int], when_seen: State
) -> None:
    """Split every cluster that has contacts of both customers, as far as that is possible."""
    moved = verb.identifiers if isinstance(verb, verbs.SplitCluster) else ()
    for home in sorted(_homes(state, out) & _homes(state, rest)):
        members = state.members[home]
        leaving = members & out - rest
        moves = []
        for identifier in moved:
            left = state.claims.get(identifier) in leaving
            carriers = members - leaving if left else leaving
            if left == (when_seen.claims.get(identifier) in out) and any(
                identifier in state.contacts[contact_id].carried for contact_id in carriers
            ):
                moves.append(identifier)
        if not _split(state, at, seq, leaving, moves):
            _split(state, at, seq, _settled(state, members, leaving), [])


def _split(state: State, at: datetime, seq: int, contact_ids: set[int], identifiers: Sequence[Identifier]) -> bool:
    """Whether it was possible."""
    try:
        verbs.SplitCluster(tuple(sorted(contact_ids)), tuple(identifiers), ban=False).carry_out(state, at, seq)
    except IdentityError:
        return False
    return True


def _settled(state: State, members: set[int], leaving: set[int]) -> set[int]:
    """Returns who leaves where everybody goes with somebody who claims what they carry."""
    leaving, settled = set(leaving), set[int]()
    while True:
        for contact_id in sorted(members - settled):
            claimants = {state.claims.get(identifier) for identifier in state.contacts[contact_id].carried}
            sides = {claimant in leaving for claimant in claimants if claimant in members}
            if sides == {contact_id not in leaving}:
                leaving ^= {contact_id}
                settled.add(contact_id)
                break
        else:
            return leaving


def _homes(state: State, contact_ids: Iterable[int]) -> set[int]:
    return {state.primary_of(contact_id) for contact_id in contact_ids if state.is_live(contact_id)}
