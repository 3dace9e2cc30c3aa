"""The log, played: events in, the tables out. The one place that says what an event means."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, IdentifyEvent
from identity_graphql.domain.identifiers import columns_of
from identity_graphql.domain.state import State, Withheld


class Gap(Exception):
    """An event that does not follow from those before it: the log is not whole."""


def replay(events: Iterable[Event], state: State | None = None) -> State:
    """Returns the state after these events, in order of ``seq``: contacts, links, identifiers, ids, times and versions.

    From nothing, or from the ``state`` that the events before them led to, which is changed in place. Nothing is
    decided again (E1). Raises Gap, with the event's number, where an event cannot follow.
    """
    state = State() if state is None else state
    for event in events:
        step(state, event)
    return state


def step(state: State, event: Event) -> None:
    """The state after one more event. Raises Gap."""
    primary = state.contacts.get(event.primary_id)
    before = primary.version if primary is not None else 0
    if before != event.version_before:
        raise Gap(
            f"event {event.seq} expects contact {event.primary_id} at version {event.version_before}; the events "
            f"before it lead to {before}"
        )
    if primary is not None and primary.changed_at is not None and primary.changed_at >= event.at:
        raise Gap(f"event {event.seq} is not later than the one before it of cluster {event.primary_id}")
    try:
        if isinstance(event, IdentifyEvent):
            _identify(state, event)
        else:
            event.changes.apply(state, event.seq)
    except KeyError as error:
        raise Gap(f"event {event.seq} is about a row that the events before it did not make ({error})") from None


def _identify(state: State, event: IdentifyEvent) -> None:
    for demotion in event.demoted:
        if state.contacts[demotion.id].version != demotion.version_before:
            raise Gap(f"event {event.seq} expects contact {demotion.id} at version {demotion.version_before}")
    learn(state, event)
    for demotion in event.demoted:
        demoted = state.contacts[demotion.id]
        state.put(replace(demoted, version=demotion.version_after, changed_at=event.at))
    state.put(replace(state.contacts[event.primary_id], version=event.version_after, changed_at=event.at))


def learn(state: State, event: IdentifyEvent) -> None:
    """What a request taught: a contact, a link, a pair. All but the versions of the clusters."""
    at, primary_id = event.at, event.primary_id
    if event.contact_id is not None:
        email, phone_number, others = columns_of(event.joined)
        contact = Contact(
            id=event.contact_id,
            email=email,
            phone_number=phone_number,
            linked_id=None if event.contact_id == primary_id else primary_id,
            created_at=event.born_at,
            updated_at=at,
            others=others,
        )
        state.put(contact)
        for identifier in contact.carried:
            state.claims.setdefault(identifier, contact.id)
    for demotion in event.demoted:
        for contact_id in list(state.members[demotion.id]):
            state.put(replace(state.contacts[contact_id], linked_id=primary_id, updated_at=at))
    for pair in event.pairs:
        state.pairs.setdefault(pair, event.seq)
        state.withheld.pop(pair, None)
    for pair, limit_kind in event.withheld:
        if pair not in state.pairs:
            state.withheld.setdefault(pair, Withheld(event.seq, limit_kind=limit_kind))
