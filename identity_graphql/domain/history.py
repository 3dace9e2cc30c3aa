"""What happened to a cluster or a contact, from the log of its family."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.contacts import PROVISIONAL, Contact
from identity_graphql.domain.events import Event, EventKind, Outcome
from identity_graphql.domain.replay import step
from identity_graphql.domain.state import State


class Moment(Struct, frozen=True):
    """A time in the past: after everything that happened until ``at``, or after the event ``seq``."""

    at: datetime | None = None
    seq: int | None = None

    def of(self, events: Iterable[Event]) -> list[Event]:
        """Those of these events that had happened by then."""
        if self.seq is not None:
            return [event for event in events if event.seq <= self.seq]
        return [event for event in events if self.at is None or event.at <= self.at]


def named(event: Event) -> frozenset[int]:
    """Every contact that an event names: the one it made, the clusters it touched, what a verb changed."""
    contacts = {event.primary_id, *(demotion.id for demotion in event.demoted)}
    if event.contact_id is not None:
        contacts.add(event.contact_id)
    if event.kind is not EventKind.IDENTIFY and event.detail is not None:
        contacts |= Changes.read(event.detail["changes"]).contact_ids
        contacts.update(event.detail.get("about", ()))
    return frozenset(contacts)


def of_cluster(events: Sequence[Event], contact_ids: Collection[int]) -> list[Event]:
    """The events of every cluster that one of these contacts was in then; so of those merged into theirs, too."""
    mine = frozenset(contact_ids)
    state, found = State(), []
    for event in events:
        contacts = named(event)
        concerned = _concerned(state, contacts, mine)
        step(state, event)
        if concerned or _concerned(state, contacts, mine):
            found.append(event)
    return found


def of_contact(events: Sequence[Event], contact_id: int) -> list[Event]:
    """The events that made a contact, moved it, took it out or brought it back; and the verbs that named it."""
    state, found = State(), []
    for event in events:
        before = _standing(state.contacts.get(contact_id))
        step(state, event)
        asked = event.kind is not EventKind.IDENTIFY and contact_id in (event.detail or {}).get("about", ())
        if asked or _standing(state.contacts.get(contact_id)) != before:
            found.append(event)
    return found


def words(event: Event) -> str:
    """What an event did, for people. Without values: they stand beside it."""
    if event.kind is not EventKind.IDENTIFY:
        return f"{event.actor}: {_ASKED[event.kind](event)}"
    home = _contact(event.primary_id)
    new = _contact(event.contact_id or 0)
    if event.outcome is Outcome.CREATED:
        return f"a new customer, {new}"
    if event.outcome is Outcome.LINKED:
        return f"{new} was linked to {home}"
    if event.outcome is Outcome.MERGED:
        younger = ", ".join(str(demotion.id) for demotion in event.demoted)
        return f"the cluster of contact {younger} was merged into that of {home}"
    if event.outcome is Outcome.WITHHELD:
        return f"a link to {home} was withheld: a ban forbids it"
    return f"an email and a phone number of the cluster of {home} were seen together for the first time"


def _contact(contact_id: int) -> str:
    return f"contact {contact_id}" if contact_id < PROVISIONAL else "a new contact"


def _concerned(state: State, contacts: Iterable[int], mine: frozenset[int]) -> bool:
    primaries = {state.primary_of(contact_id) for contact_id in contacts if state.is_live(contact_id)}
    return any(not mine.isdisjoint(state.members[primary_id]) for primary_id in primaries)


def _standing(contact: Contact | None) -> tuple[Any, ...] | None:
    if contact is None:
        return None
    ends = contact.deleted_at, contact.erased_at, contact.undone_at
    return contact.linked_id, contact.email, contact.phone_number, *ends


def _merged(event: Event) -> str:
    asked = _asked(event)
    return f"contacts {asked['one']} and {asked['other']} are one customer"


def _split(event: Event) -> str:
    taken = ", ".join(map(str, _asked(event)["contact_ids"]))
    return f"took contacts {taken} out of their cluster"


def _banned(event: Event) -> str:
    asked = _asked(event)
    return f"never link contacts {asked['one']} and {asked['other']}"


def _unbanned(event: Event) -> str:
    contacts = _asked(event)["contacts"]
    return (
        f"lifted the ban between contacts {contacts[0]} and {contacts[1]}" if contacts else "lifted the ban on a pair"
    )


def _erased(event: Event) -> str:
    asked = _asked(event)
    contacts = ", ".join(map(str, asked["contact_ids"]))
    values = "an identifier" if len(asked["identifiers"]) == 1 else f"{len(asked['identifiers'])} identifiers"
    return f"erased {values}" + (f" and contacts {contacts}" if contacts else "")


def _asked(event: Event) -> Mapping[str, Any]:
    asked: Mapping[str, Any] = (event.detail or {})["asked"]
    return asked


_ASKED = {
    EventKind.MERGE_CLUSTERS: _merged,
    EventKind.SPLIT_CLUSTER: _split,
    EventKind.BAN_LINK: _banned,
    EventKind.UNBAN_LINK: _unbanned,
    EventKind.UNDO: lambda event: f"took event {_asked(event)['event']} back",
    EventKind.DELETE_CONTACT: lambda event: f"deleted contact {_asked(event)['contact_id']}",
    EventKind.RESTORE_CONTACT: lambda event: f"restored contact {_asked(event)['contact_id']}",
    EventKind.ERASE: _erased,
}
