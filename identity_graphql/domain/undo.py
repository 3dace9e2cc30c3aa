"""Take one event back: the state as if it had never come, later events kept and judged again (Q21)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from identity_graphql.domain import rejudging, verbs
from identity_graphql.domain.contacts import PROVISIONAL, Contact
from identity_graphql.domain.events import Demotion, Event, IdentifyEvent, Outcome, VerbEvent
from identity_graphql.domain.identifiers import Identifier, columns_of, pairs_of
from identity_graphql.domain.joining import joining, pairs_with, withheld_pairs
from identity_graphql.domain.kinds import NO_KINDS_DECLARED, Kinds
from identity_graphql.domain.reconcile import outcome_of
from identity_graphql.domain.rejudging import PendingBan
from identity_graphql.domain.replay import learn, step
from identity_graphql.domain.state import State
from identity_graphql.errors import IdentityError

CreatedFor = Mapping[int, int]
"""Contacts that an undo made: the event that came to need one -> the contact."""
RuleSets = Mapping[str, Kinds]
"""The kinds and limits under which events were decided, by `norm`. Where nothing was declared, it is not there."""
NO_RULES: RuleSets = {}


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


def counterfactual(
    events: Sequence[Event], without: frozenset[int], known: CreatedFor, rules: RuleSets = NO_RULES
) -> tuple[State, dict[int, int]]:
    """The state that these events, in order, lead to without some of them: every one is judged again.

    Requests are judged by the rules of their own time, which ``rules`` has by the names that events have for them.

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
            kinds = rules.get(event.norm, NO_KINDS_DECLARED)
            _identify_again(state, event, known, made, pending, seen, kinds)
        else:
            for verb, about in rejudging.each(event.verb, seen):
                if isinstance(verb, verbs.AcceptWithheld):
                    _accept_again(verb, state, event, known, made)
                    continue
                if about is None:
                    with suppress(IdentityError):  # it would have been refused
                        verbs.carry_out(verb, state, event.at, event.seq)
                    continue
                rejudging.judge_again(verb, state, event.at, event.seq, about=about, when_seen=seen, without=without)
                if isinstance(verb, verbs.UnbanLink):
                    pending = [ban for ban in pending if not ban.is_lifted_with(about)]
                elif left := PendingBan.after(verb, state, event.seq, about, seen):
                    pending.append(left)
        if not saw_what_it_left and (event.seq <= last or pending):
            step(seen, event)
    return state, made


def _accept_again(
    verb: verbs.AcceptWithheld, state: State, event: Event, known: CreatedFor, made: dict[int, int]
) -> None:
    """Perhaps with a contact that was not needed then."""
    contact_id = verb.contact_id or known.get(event.seq)
    fresh = PROVISIONAL + len(made) + 1
    with suppress(IdentityError):  # it would have been refused
        verbs.carry_out(replace(verb, contact_id=contact_id or fresh), state, event.at, event.seq)
    if contact_id is None and fresh in state.contacts:
        made[event.seq] = fresh


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
        others=wanted.others,
        deleted_at=wanted.deleted_at,
        erased_at=wanted.erased_at,
        undone_at=None,
        linked_id=wanted.linked_id if wanted.deleted_at is None else contact.linked_id,
    )
    same = (after.linked_id, after.deleted_at) == (contact.linked_id, contact.deleted_at)
    return after if same else replace(after, updated_at=at)


class _Known:
    """What would have been known at the moment of a request."""

    def __init__(self, state: State, pending: Sequence[PendingBan], when_said: State) -> None:
        self.state = state
        self.pending = pending
        self.when_said = when_said

    def home(self, identifier: Identifier) -> int | None:
        return self.state.home(identifier)

    def forbids(self, joined: Sequence[Identifier], homes: Collection[int], identifier: Identifier) -> bool:
        state = self.state
        withheld = (state.withheld.get(pair) for pair in pairs_with(identifier, joined))
        if any(one is not None and one.banned for one in withheld):
            return True
        home = state.home(identifier)
        if home is not None and any(state.banned(home, other) is not None for other in homes if other != home):
            return True
        return any(ban.forbids(state, (*joined, identifier), self.when_said) for ban in self.pending)

    def count(self, home: int, kind: str) -> int:
        members = (self.state.contacts[contact_id] for contact_id in self.state.members[home])
        return sum(identifier.kind == kind for contact in members for identifier in self.state.claimed(contact))


def _identify_again(
    state: State,
    event: IdentifyEvent,
    known: CreatedFor,
    made: dict[int, int],
    pending: Sequence[PendingBan],
    when_said: State,
    kinds: Kinds,
) -> None:
    if not state.blocked.keys().isdisjoint(event.identifiers):
        email, phone_number, others = columns_of([i for i in event.identifiers if i not in state.blocked])
        event = replace(event, email=email, phone_number=phone_number, others=others)
        if not event.identifiers:
            return
    joined = joining(kinds.ordered(event.identifiers), _Known(state, pending, when_said), kinds)
    told = any(pair not in state.pairs for pair in pairs_of(joined.joined))
    across = [pair for pair, _ in withheld_pairs(joined.joined, joined.kept_back)]
    withheld = any(pair not in state.withheld and pair not in state.pairs for pair in across)
    fresh = any(identifier not in state.claims for identifier in joined.joined)
    outcome = outcome_of(joined, fresh=fresh, told=told, withheld=withheld)
    if outcome is Outcome.UNCHANGED:
        return
    contact_id = None
    if fresh:
        contact_id = event.contact_id or known.get(event.seq)
        if contact_id is None:
            contact_id = made[event.seq] = PROVISIONAL + len(made) + 1
    primary_id = state.oldest(joined.homes) if joined.homes else contact_id
    assert primary_id is not None, "a request without a cluster makes a contact"
    if contact_id is not None and joined.homes and (event.born_at, contact_id) < state.contacts[primary_id].seniority:
        primary_id = contact_id
    demoted = tuple(Demotion(home, 0, 0) for home in joined.homes if home != primary_id)
    again = replace(
        event,
        outcome=outcome,
        contact_id=contact_id,
        primary_id=primary_id,
        demoted=demoted,
        kept_back=joined.kept_back,
        exceeded=joined.exceeded,
    )
    learn(state, again)
    if contact_id is not None:
        for ban in pending:
            ban.meet(state, state.contacts[contact_id], when_said)
