"""Whom bans keep apart, whatever becomes of the contacts that carry them (`docs/decisions/0018-bans.md`).

A ban is a row between two contacts, and separates the customers that they are of. A deleted contact that can be
restored counts as a customer by itself: its bans wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

from identity_graphql.domain.state import Bond, Pair, State, bond


class Separation(Struct, frozen=True):
    """Two customers, each by its contacts, that are kept apart; ``seq`` is the event that decided so."""

    seq: int
    here: frozenset[int]
    there: frozenset[int]


def separations(state: State) -> list[Separation]:
    """Returns who is kept apart from whom, once for every two customers, the oldest decision first."""
    contacts: dict[int, frozenset[int]] = {}
    found: dict[Bond, Separation] = {}
    for seq, two in sorted((state.bans[ban], two) for ban, two in _separated(state).items()):
        for customer in two:
            if customer not in contacts:
                contacts[customer] = frozenset(state.members.get(customer, (customer,)))
        found.setdefault(two, Separation(seq, contacts[two[0]], contacts[two[1]]))
    return list(found.values())


def carry_over(before: Iterable[Separation], state: State) -> None:
    """Keeps apart in this state whoever was kept apart before.

    Where a customer was divided, each part gets the ban: its oldest contact does, unless the part has one already. A
    contact that was deleted keeps its ban for the day it is restored; one that is gone for good has none any more.
    """
    standing = _separated(state)
    for ban in [ban for ban in state.bans if ban not in standing]:
        del state.bans[ban]
    separated = set(standing.values())
    customers: dict[frozenset[int], set[int]] = {}
    for separation in before:
        for contacts in (separation.here, separation.there):
            if contacts not in customers:
                customers[contacts] = customers_of(state, contacts)
        _ban(state, customers[separation.here], customers[separation.there], separation.seq, separated)


def separate(state: State, here: Iterable[int], there: Iterable[int], seq: int) -> None:
    """Bans all customers that these contacts are of from all that those are of, where no ban separates them yet."""
    _ban(state, customers_of(state, here), customers_of(state, there), seq, set(_separated(state).values()))


def lift(state: State, twos: Collection[Bond]) -> bool:
    """Takes away all that keeps any two of these customers apart, the bans on pairs between them too.

    Returns whether there was anything.
    """
    lifted = [ban for ban, two in _separated(state).items() if two in twos]
    for ban in lifted:
        del state.bans[ban]
    pairs = [pair for pair in _kept_back(state, twos) if state.withheld[pair].banned]
    for pair in pairs:
        del state.withheld[pair]
    return bool(lifted or pairs)


def waiting(state: State, twos: Collection[Bond]) -> list[Pair]:
    """Returns the pairs between any two of these customers that wait, in the order in which they came."""
    pairs = [pair for pair in _kept_back(state, twos) if not state.withheld[pair].banned]
    return sorted(pairs, key=lambda pair: (state.withheld[pair].seq, pair))


def withholds(state: State, pair: Pair) -> bool:
    """Whether a ban keeps this withheld pair back now. Where none does, it waits for somebody to decide."""
    if state.withheld[pair].banned:
        return True
    here, there = (state.home(end) for end in pair)
    return here is not None and there is not None and here != there and state.banned(here, there) is not None


def customer_of(state: State, contact_id: int) -> int | None:
    """Returns the primary of a contact, or itself if it is deleted; None where it cannot be restored."""
    contact = state.contacts.get(contact_id)
    if contact is None:
        return None
    if contact.deleted_at is not None:
        return contact_id if contact.may_return else None
    return contact.linked_id or contact_id


def between(state: State, contact_ids: Bond) -> set[Bond]:
    """Returns the two customers that these contacts are of; nothing if they are one, or one cannot be restored."""
    one, other = (customer_of(state, contact_id) for contact_id in contact_ids)
    return set() if one is None or other is None or one == other else {bond(one, other)}


def customers_of(state: State, contact_ids: Iterable[int]) -> set[int]:
    """Returns the customers that these contacts are of."""
    return {customer for contact_id in contact_ids if (customer := customer_of(state, contact_id)) is not None}


def _separated(state: State) -> dict[Bond, Bond]:
    """The two customers that each ban separates; without the bans of contacts that are gone for good."""
    found = {}
    for ban in state.bans:
        one, other = (customer_of(state, contact_id) for contact_id in ban)
        if one is not None and other is not None:
            found[ban] = bond(one, other)
    return found


def _ban(state: State, here: Iterable[int], there: Iterable[int], seq: int, separated: set[Bond]) -> None:
    for one in sorted(here):
        for other in sorted(there):
            if one != other and (two := bond(one, other)) not in separated:
                state.bans[two] = seq  # the primary of a live customer is its oldest contact
                separated.add(two)


def _kept_back(state: State, twos: Collection[Bond]) -> list[Pair]:
    """The withheld pairs between any two of these customers."""
    found = []
    for pair in state.withheld:
        one, other = (state.home(end) for end in pair)
        if one is not None and other is not None and bond(one, other) in twos:
            found.append(pair)
    return found
