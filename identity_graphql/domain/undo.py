"""Take one event back: the state as if it had never come, later events kept and judged again (Q21)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from identity_graphql.domain import rejudging, verbs
from identity_graphql.domain.contacts import PROVISIONAL, Contact
from identity_graphql.domain.events import Demotion, Event, IdentifyEvent, Outcome, VerbEvent
from identity_graphql.domain.identifiers import identifiers
from identity_graphql.domain.reconcile import outcome_of
from identity_graphql.domain.rejudging import PendingBan
from identity_graphql.domain.replay import learn, step
from identity_graphql.domain.state import State
from identity_graphql.errors import IdentityError

CreatedFor = Mapping[int, int]
"""Contacts that an undo made: the event that came to need one -> the contact."""


def undone(events: Sequence[Event], last: int | None = None) -> frozenset[int]:
    """The events that do not count: taken back by an undo that does, or by one that is yet to come (``last``)."""
    taken_back = set() if last is None else {last}
    for event in reversed(events):
        if isinstance(event, VerbEvent) and isinstance(event.verb, verbs.Undo) and event.seq not in taken_back:
            taken_back.add(event.verb.event)
    return frozenset(taken_back)


def undone_by(events: Sequence[Event]) -> dict[int, int]:
    """Returns the events that do not count any more, and the undos that took them back."""
    taken_back = undone(events)
    return {
        event.verb.event: event.seq
        for event in events
        if isinstance(event, VerbEvent) and isinstance(event.verb, verbs.Undo) and event.seq not in taken_back
    }


def created_for(events: Sequence[Event]) -> dict[int, int]:
    """The contacts that the undos among these events made."""
    made: dict[int, int] = {}
    for event in events:
        if isinstance(event, VerbEvent):
            made.update(event.created_for)
    return made


def counterfactual(events: Sequence[Event], without: frozenset[int], known: CreatedFor) -> tuple[State, dict[int, int]]:
    """The state that these events, in order, lead to without some of them: every one is judged again.

    What would not have been accepted falls; a request that would have been the first to carry an identifier gets a
    contact (with an id from ``known``, or a provisional one). Returns the contacts that were made in this way too.
    Versions and ``updated_at`` mean nothing in it: they are not a matter of what would have been, but of when it
    is written.
    """
    state, seen = State(), State()  # as it comes to be, and as it really was when stewards decided
    made: dict[int, int] = {}
    pending: list[PendingBan] = []
    asked = {event.seq: event.verb for event in events if isinstance(event, VerbEvent)}
    last = max((seq for seq, verb in asked.items() if seq not in without and rejudging.is_decision(verb)), default=0)
    for event in events:
        saw_what_it_left = isinstance(event, VerbEvent) and isinstance(event.verb, verbs.Undo)
        if saw_what_it_left and (event.seq <= last or pending):
            step(seen, event)
        if event.seq in without:
            pass
        elif isinstance(event, IdentifyEvent):
            _identify_again(state, event, known, made, pending, seen)
        elif (about := rejudging.seen(event.verb, seen)) is not None:
            rejudging.judge_again(event.verb, state, event.at, event.seq, about=about, when_seen=seen, without=without)
            if isinstance(event.verb, verbs.UnbanLink):
                pending = [ban for ban in pending if not ban.is_lifted_with(about)]
            elif left := PendingBan.after(event.verb, state, event.seq, about, seen):
                pending.append(left)
        else:
            with suppress(IdentityError):  # it would have been refused
                verbs.carry_out(event.verb, state, event.at, event.seq)
        if not saw_what_it_left and (event.seq <= last or pending):
            step(seen, event)
    return state, made


def adopt(present: State, target: State, at: datetime) -> State:
    """The present with everything as the counterfactual has it, and every row that changes marked with the time."""
    after = target.copy()
    after.contacts, after.members = {}, {}
    for contact in present.contacts.values():
        after.put(_adopted(contact, target.contacts.get(contact.id), at))
    for contact in target.contacts.values():
        if contact.id not in present.contacts:
            after.put(replace(contact, updated_at=at, version=0, changed_at=None))
    return after


def _adopted(contact: Contact, wanted: Contact | None, at: datetime) -> Contact:
    if wanted is None:  # no event needs it any more; and if it was deleted before, nobody can restore it now
        if contact.deleted_at:
            return contact if contact.undone_at else replace(contact, undone_at=at)
        return replace(contact, deleted_at=at, undone_at=at, updated_at=at)
    after = replace(
        contact,
        email=wanted.email,
        phone_number=wanted.phone_number,
        deleted_at=wanted.deleted_at,
        erased_at=wanted.erased_at,
        undone_at=None,
        linked_id=wanted.linked_id if wanted.deleted_at is None else contact.linked_id,
    )
    same = (after.linked_id, after.deleted_at) == (contact.linked_id, contact.deleted_at)
    return after if same else replace(after, updated_at=at)


def _identify_again(
    state: State,
    event: IdentifyEvent,
    known: CreatedFor,
    made: dict[int, int],
    pending: Sequence[PendingBan],
    when_said: State,
) -> None:
    pair = event.pair
    homes = [state.home(identifier) for identifier in identifiers(event.email, event.phone_number)]
    withheld = state.withheld.get(pair) if pair else None
    touched = {home for home in homes if home is not None}
    barred = (withheld is not None and withheld.banned) or (len(touched) > 1 and state.banned(*touched) is not None)
    barred = barred or any(ban.forbids(state, event.identifiers, when_said) for ban in pending)
    outcome = outcome_of(homes, seen=pair is None or pair in state.pairs, withheld=withheld is not None, barred=barred)
    if outcome is Outcome.UNCHANGED:
        return
    if barred:
        touched = {homes[0]} if homes[0] is not None else set()
    contact_id = None
    if outcome in (Outcome.CREATED, Outcome.LINKED) or not touched:
        contact_id = event.contact_id or known.get(event.seq)
        if contact_id is None:
            contact_id = made[event.seq] = PROVISIONAL + len(made) + 1
    primary_id = state.oldest(touched) if touched else contact_id
    assert primary_id is not None, "a request without a cluster makes a contact"
    demoted = tuple(Demotion(home, 0, 0) for home in touched if home != primary_id)
    learn(state, replace(event, outcome=outcome, contact_id=contact_id, primary_id=primary_id, demoted=demoted))
    if contact_id is not None:
        for ban in pending:
            ban.meet(state, state.contacts[contact_id], when_said)
