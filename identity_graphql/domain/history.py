"""What happened to a cluster or a contact, from the log of its lineage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Self

from msgspec import Struct

from identity_graphql.domain import bans, undo
from identity_graphql.domain.contacts import Cluster, Contact, gone
from identity_graphql.domain.erasure import without_tokens
from identity_graphql.domain.events import Event, IdentifyEvent, VerbEvent
from identity_graphql.domain.replay import replay, step
from identity_graphql.domain.state import Ban, Node, Pair, State, Withheld, divided

SLACK = timedelta(hours=1)
"""How much later than an event one with a smaller number may have happened, at the very most."""


class Moment(Struct, frozen=True):
    """A time in the past: after everything that happened until ``at``, or after the event ``seq``."""

    at: datetime | None = None
    seq: int | None = None

    def of(self, events: Iterable[Event]) -> list[Event]:
        """Those of these events that had happened by then."""
        if self.seq is not None:
            return [event for event in events if event.seq <= self.seq]
        return [event for event in events if self.at is None or event.at <= self.at]


class ClusterHistory(Struct, frozen=True, dict=True):
    """The log of whole lineages up to a moment, and the state that it led to."""

    events: Sequence[Event]
    state: State

    @classmethod
    def of(cls, events: Sequence[Event]) -> Self:
        """Returns the history of these events, which must be of whole lineages, in order."""
        return cls(events, replay(events))

    def then(self, events: Sequence[Event]) -> ClusterHistory:
        """Returns the history as it would be after these events. Raises Gap where they cannot follow."""
        return ClusterHistory([*self.events, *events], replay(events, self.state.copy()))

    @cached_property
    def by_seq(self) -> Mapping[int, Event]:
        """The events by their numbers."""
        return {event.seq: event for event in self.events}

    @cached_property
    def undone_by(self) -> Mapping[int, int]:
        """The events that do not count any more, and the undos that took them back."""
        return undo.undone_by(self.events)

    @cached_property
    def histories(self) -> Histories:
        """What happened to whom."""
        return histories(self.events, self.state)

    @cached_property
    def _parts(self) -> Mapping[int, State]:
        return divided(self.state)

    def part(self, primary_id: int) -> State:
        """Returns the rows of one cluster alone, and what is withheld from it or banned."""
        return self._parts[primary_id]

    def home(self, node: Node) -> int | None:
        """Returns the primary of the cluster that has an identifier or a live contact; None if there is none."""
        return self.state.home(node)

    def primary_of(self, contact_id: int) -> int | None:
        """Returns the primary of a contact; None if it was not there yet. Raises Gone."""
        contact = self.state.contacts.get(contact_id)
        if contact is not None and contact.deleted_at is not None:
            raise gone(contact)
        return self.home(contact_id)

    def cluster(self, primary_id: int) -> Cluster:
        """Returns the cluster of a primary, without what was erased since."""
        contacts = self.state.cluster(primary_id).contacts
        return Cluster(tuple(without_tokens(contact)[0] for contact in contacts))

    def contact(self, contact_id: int) -> Contact | None:
        """Returns a contact, without what was erased since; None if it was not there yet."""
        contact = self.state.contacts.get(contact_id)
        return None if contact is None else without_tokens(contact)[0]

    def is_redacted(self, contact_id: int) -> bool:
        """Returns whether something that a contact had at the time was erased since."""
        return without_tokens(self.state.contacts[contact_id])[1]

    def withheld(self, primary_id: int) -> list[tuple[Pair, Withheld]]:
        """Returns the pairs that are kept back from a cluster, in the order in which they came."""
        return sorted(self.part(primary_id).withheld.items(), key=lambda one: (one[1].seq, one[0]))

    def withholds(self, pair: Pair) -> bool:
        """Returns whether a ban keeps a withheld pair back; if none does, it waits for a decision."""
        return bans.withholds(self.state, pair)

    def bans(self, primary_id: int) -> list[Ban]:
        """Returns the bans of a cluster's contacts."""
        return [(*bound, seq) for bound, seq in sorted(self.part(primary_id).bans.items())]


class Histories(Struct, frozen=True):
    """What happened to whom, each in order."""

    clusters: Mapping[int, Sequence[Event]]
    """by the primary that they have in the end: the events of every cluster that one of its contacts was in at the
    time, and so of those that were merged into it, too"""
    contacts: Mapping[int, Sequence[Event]]
    """what made a contact, moved it, took it out or brought it back, and the verbs that named it"""


def histories(events: Sequence[Event], end: State) -> Histories:
    """Who of the state that these events led to was concerned by which of them. One walk for all."""
    finally_ = {contact_id: primary_id for primary_id, members in end.members.items() for contact_id in members}
    clusters: defaultdict[int, list[Event]] = defaultdict(list)
    contacts: defaultdict[int, list[Event]] = defaultdict(list)
    state = State()
    heirs: dict[int, set[int]] = {}  # of every cluster on the way: the primaries that its contacts have in the end
    for event in events:
        about = event.contact_ids
        before = {state.primary_of(contact_id) for contact_id in about if state.is_live(contact_id)}
        concerned = {heir for home in before for heir in heirs[home]}
        if isinstance(event, IdentifyEvent):
            moved = [contact_id for d in event.demoted for contact_id in state.members[d.id]]
            step(state, event)
            moved += [event.contact_id] if event.contact_id is not None else []
            joined = heirs.setdefault(event.primary_id, set())
            joined.update(heir for d in event.demoted for heir in heirs.pop(d.id))
            joined.update(finally_[contact_id] for contact_id in moved[-1:] if contact_id in finally_)
            for kept in event.kept_back:  # the log of other times does not name the clusters
                there = state.home(kept.identifier)
                concerned |= set() if there is None else heirs[there]
        else:
            standing = {contact_id: _standing(state.contacts.get(contact_id)) for contact_id in about}
            step(state, event)
            moved = [i for i in about if i in event.about or _standing(state.contacts.get(i)) != standing[i]]
            after = {state.primary_of(contact_id) for contact_id in about if state.is_live(contact_id)}
            for home in before | after:
                heirs[home] = {finally_[i] for i in state.members.get(home, ()) if i in finally_}
            concerned |= {heir for home in after for heir in heirs[home]}
        concerned |= heirs.get(event.primary_id, set())
        for heir in concerned:
            clusters[heir].append(event)
        for contact_id in moved:
            contacts[contact_id].append(event)
    return Histories(clusters, contacts)


def departed(events: Sequence[Event], contact_ids: Collection[int]) -> set[int]:
    """The contacts that are no longer, and that went from the side of these, or of others who did."""
    state = State()
    left: dict[int, set[int]] = {}
    for event in events:
        about = event.contact_ids if isinstance(event, VerbEvent) else frozenset()
        before = {i: state.members[state.primary_of(i)] - {i} for i in about if state.is_live(i)}
        step(state, event)
        left.update((i, mates) for i, mates in before.items() if not state.is_live(i))
    gone = {i for i in left if not state.is_live(i)}
    mine, found = set(contact_ids), set[int]()
    while fresh := {i for i in gone - found if not left[i].isdisjoint(mine)}:
        found |= fresh
        mine |= fresh
    return found


def _standing(contact: Contact | None) -> tuple[Any, ...] | None:
    if contact is None:
        return None
    ends = contact.deleted_at, contact.erased_at, contact.undone_at
    return contact.linked_id, contact.carried, *ends
