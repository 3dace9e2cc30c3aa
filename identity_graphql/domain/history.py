"""What happened to a cluster or a contact, from the log of its lineage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.contacts import Contact, called
from identity_graphql.domain.events import Event, EventKind, Outcome
from identity_graphql.domain.replay import step
from identity_graphql.domain.state import State, ends


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


class Histories(Struct, frozen=True):
    """What happened to whom, each in order."""

    clusters: Mapping[int, Sequence[Event]]
    """by the primary that they have in the end: the events of every cluster that one of its contacts was in at the
    time, and so of those that were merged into it, too"""
    contacts: Mapping[int, Sequence[Event]]
    """what made a contact, moved it, took it out or brought it back, and the verbs that named it"""
    kept_from: Mapping[int, int]
    """by the events that withheld a link: the cluster on the other side of the ban, by its primary then"""


def histories(events: Sequence[Event], end: State) -> Histories:
    """Who of the state that these events led to was concerned by which of them. One walk for all."""
    finally_ = {contact_id: primary_id for primary_id, members in end.members.items() for contact_id in members}
    clusters: defaultdict[int, list[Event]] = defaultdict(list)
    contacts: defaultdict[int, list[Event]] = defaultdict(list)
    kept_from: dict[int, int] = {}
    state = State()
    heirs: dict[int, set[int]] = {}  # of every cluster on the way: the primaries that its contacts have in the end
    for event in events:
        about = named(event)
        before = {state.primary_of(contact_id) for contact_id in about if state.is_live(contact_id)}
        concerned = {heir for home in before for heir in heirs[home]}
        if event.kind is EventKind.IDENTIFY:
            moved = [contact_id for d in event.demoted for contact_id in state.members[d.id]]
            step(state, event)
            moved += [event.contact_id] if event.contact_id is not None else []
            joined = heirs.setdefault(event.primary_id, set())
            joined.update(heir for d in event.demoted for heir in heirs.pop(d.id))
            joined.update(finally_[contact_id] for contact_id in moved[-1:] if contact_id in finally_)
            if event.outcome is Outcome.WITHHELD and event.pair is not None:
                there = state.home(ends(event.pair)[1])
                if there is not None and there != event.primary_id:
                    kept_from[event.seq] = there
                    concerned |= heirs[there]
        else:
            standing = {contact_id: _standing(state.contacts.get(contact_id)) for contact_id in about}
            step(state, event)
            asked = frozenset((event.detail or {}).get("about", ()))
            moved = [i for i in about if i in asked or _standing(state.contacts.get(i)) != standing[i]]
            after = {state.primary_of(contact_id) for contact_id in about if state.is_live(contact_id)}
            for home in before | after:
                heirs[home] = {finally_[i] for i in state.members.get(home, ()) if i in finally_}
            concerned |= {heir for home in after for heir in heirs[home]}
        concerned |= heirs.get(event.primary_id, set())
        for heir in concerned:
            clusters[heir].append(event)
        for contact_id in moved:
            contacts[contact_id].append(event)
    return Histories(clusters, contacts, kept_from)


def departed(events: Sequence[Event], contact_ids: Collection[int]) -> set[int]:
    """The contacts that are no longer, and that went from the side of these, or of others who did."""
    state = State()
    left: dict[int, set[int]] = {}
    for event in events:
        about = named(event) if event.kind is not EventKind.IDENTIFY else frozenset()
        before = {i: state.members[state.primary_of(i)] - {i} for i in about if state.is_live(i)}
        step(state, event)
        left.update((i, mates) for i, mates in before.items() if not state.is_live(i))
    gone = {i for i in left if not state.is_live(i)}
    mine, found = set(contact_ids), set[int]()
    while fresh := {i for i in gone - found if not left[i].isdisjoint(mine)}:
        found |= fresh
        mine |= fresh
    return found


def words(event: Event, kept_from: int | None = None) -> str:
    """What an event did, for people. Without values: they stand beside it.

    ``kept_from``: of a withheld request, the cluster on the other side of the ban (`Histories.kept_from`).
    """
    if event.kind is not EventKind.IDENTIFY:
        return f"{event.actor}: {_ASKED[event.kind](event)}"
    home = called(event.primary_id)
    new = called(event.contact_id or 0)
    if event.outcome is Outcome.CREATED:
        return f"a new customer, {new}"
    if event.outcome is Outcome.LINKED:
        return f"{new} was linked to {home}"
    if event.outcome is Outcome.MERGED:
        younger = ", ".join(str(demotion.id) for demotion in event.demoted)
        return f"the cluster of contact {younger} was merged into that of {home}"
    if event.outcome is Outcome.WITHHELD:
        there = "" if kept_from is None else f" to that of {called(kept_from)}"
        return f"a link of the cluster of {home}{there} was withheld: a ban forbids it"
    return f"an email and a phone number of the cluster of {home} were seen together for the first time"


def _standing(contact: Contact | None) -> tuple[Any, ...] | None:
    if contact is None:
        return None
    ends = contact.deleted_at, contact.erased_at, contact.undone_at
    return contact.linked_id, contact.email, contact.phone_number, *ends


def _merged(event: Event) -> str:
    asked = _asked(event)
    return f"contacts {asked['one']} and {asked['other']} are one customer"


def _split(event: Event) -> str:
    return f"took {_contacts(_asked(event)['contact_ids'])} out of a cluster"


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
    values = "an identifier" if len(asked["identifiers"]) == 1 else f"{len(asked['identifiers'])} identifiers"
    return f"erased {values}" + (f" and {_contacts(asked['contact_ids'])}" if asked["contact_ids"] else "")


def _contacts(contact_ids: Sequence[int]) -> str:
    return f"contact{'s' if len(contact_ids) > 1 else ''} {', '.join(map(str, contact_ids))}"


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
