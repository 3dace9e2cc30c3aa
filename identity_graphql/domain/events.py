"""The log: one event for every request that taught something, and one for every verb of a steward.

Contacts, identifiers and pairs follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.identifiers import Identifier, identifiers, pairs_of
from identity_graphql.domain.joining import KeptBack, withheld_pairs
from identity_graphql.domain.state import Pair
from identity_graphql.domain.verbs import Verb

PROVISIONAL_SEQ = 2**61
"""Numbers from here on are stand-ins for events that a dry run would write. They are above every real one."""


class EventKind(StrEnum):
    """Which verb was accepted: a request's, or one of a steward's (by the names of `verbs`)."""

    IDENTIFY = "identify"
    MERGE_CLUSTERS = "merge_clusters"
    SPLIT_CLUSTER = "split_cluster"
    UNDO = "undo"
    BAN_LINK = "ban_link"
    UNBAN_LINK = "unban_link"
    ACCEPT_WITHHELD = "accept_withheld"
    REJECT_WITHHELD = "reject_withheld"
    DELETE_CONTACT = "delete_contact"
    RESTORE_CONTACT = "restore_contact"
    ERASE = "erase"
    BLOCK_IDENTIFIER = "block_identifier"
    UNBLOCK_IDENTIFIER = "unblock_identifier"


class Outcome(StrEnum):
    """What a request came to."""

    CREATED = "CREATED"
    """nothing was known: a new cluster"""
    LINKED = "LINKED"
    """a secondary was added to a cluster"""
    MERGED = "MERGED"
    """two clusters or more were joined"""
    OBSERVED = "OBSERVED"
    """two known identifiers of one cluster were seen together for the first time"""
    UNCHANGED = "UNCHANGED"
    """nothing new; nothing was written"""
    WITHHELD = "WITHHELD"
    """a ban or a limit forbids to link all of it"""


class Demotion(Struct, frozen=True):
    """A primary that became a secondary, with the versions of its cluster before and after."""

    id: int
    version_before: int
    version_after: int


class IdentifyEvent(Struct, frozen=True):
    """What one request said, and what it came to.

    ``raw`` has the request's values as they came, ``norm`` the normalisation that read them. ``contact_id`` is the
    contact it created, ``primary_id`` the cluster it ended in, ``version_…`` that cluster's. ``kept_back`` did not join
    the others, and ``kept_from`` are the clusters that have it, by their primaries then. ``source`` said so, and it was
    true at ``occurred_at``. ``seq`` is the event's number in the log, 0 or provisional before it is written. With its
    predecessors, an event is all that is needed to rebuild the tables (E1).
    """

    at: datetime
    outcome: Outcome
    email: str | None
    phone_number: str | None
    raw: Mapping[str, str | int]
    norm: str
    contact_id: int | None
    primary_id: int
    demoted: tuple[Demotion, ...]
    version_before: int
    version_after: int
    request_id: str | None = None
    seq: int = 0
    others: tuple[Identifier, ...] = ()
    kept_back: tuple[KeptBack, ...] = ()
    kept_from: tuple[int, ...] = ()
    exceeded: tuple[str, ...] = ()
    source: str | None = None
    occurred_at: datetime | None = None

    @property
    def kind(self) -> EventKind:
        return EventKind.IDENTIFY

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """The identifiers of the request: the email, the phone number, the others."""
        return identifiers(self.email, self.phone_number, self.others)

    @property
    def joined(self) -> tuple[Identifier, ...]:
        """Those of them that came together, in the same order."""
        if not self.kept_back:
            return self.identifiers
        kept_back = {one.identifier for one in self.kept_back}
        return tuple(identifier for identifier in self.identifiers if identifier not in kept_back)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The evidence it brings: every two identifiers that came together."""
        return pairs_of(self.joined)

    @property
    def withheld(self) -> tuple[tuple[Pair, str | None], ...]:
        """The pairs of an identifier that joined with one that was kept back, each with the kind whose limit did so."""
        return withheld_pairs(self.joined, self.kept_back) if self.kept_back else ()

    @property
    def born_at(self) -> datetime:
        """When the contact that it made was true first."""
        return self.at if self.occurred_at is None else min(self.occurred_at, self.at)

    @property
    def contact_ids(self) -> frozenset[int]:
        """Every contact that it names: the one it made, the primaries of the clusters it touched, or was kept from."""
        contacts = {self.primary_id, *self.kept_from, *(demotion.id for demotion in self.demoted)}
        if self.contact_id is not None:
            contacts.add(self.contact_id)
        return frozenset(contacts)

    def renumbered(self, ids: Mapping[int, int], seq: int = 0) -> Self:
        """Returns the same event after the database gave out the real ids, and perhaps its own number."""
        return replace(
            self,
            contact_id=self.contact_id and ids.get(self.contact_id, self.contact_id),
            primary_id=ids.get(self.primary_id, self.primary_id),
            demoted=self.demoted and tuple(replace(d, id=ids.get(d.id, d.id)) for d in self.demoted),
            kept_from=self.kept_from and tuple(ids.get(contact_id, contact_id) for contact_id in self.kept_from),
            seq=seq,
        )


class VerbEvent(Struct, frozen=True):
    """What a steward did: the verb as it was asked, and every row that it changed.

    ``about`` are the contacts that the verb named; ``created_for`` the contacts that an undo made, by the events that
    came to need one. ``primary_id`` is the cluster that the verb named first, ``version_…`` that cluster's; where it
    named an identifier that nobody has, it is a number below 0 that stands for nobody, at version 0.
    """

    at: datetime
    verb: Verb
    changes: Changes
    about: tuple[int, ...]
    actor: str
    reason: str
    norm: str
    primary_id: int
    version_before: int
    version_after: int
    request_id: str | None = None
    created_for: Mapping[int, int] = {}
    seq: int = 0

    @property
    def kind(self) -> EventKind:
        return EventKind(self.verb.name)

    @property
    def contact_ids(self) -> frozenset[int]:
        """Every contact that it names: those that the verb was about, and those of which something changed."""
        return self.changes.contact_ids | {self.primary_id, *self.about}

    def renumbered(self, ids: Mapping[int, int], seq: int = 0) -> Self:
        """Returns the same event after the database gave out the real ids, and perhaps its own number."""
        if not ids:
            return replace(self, seq=seq)
        return replace(
            self,
            verb=self.verb.renumbered(ids),
            changes=self.changes.renumbered(ids),
            created_for={event: ids.get(contact_id, contact_id) for event, contact_id in self.created_for.items()},
            primary_id=ids.get(self.primary_id, self.primary_id),
            seq=seq,
        )


Event = IdentifyEvent | VerbEvent


class EventFilter(Struct, frozen=True):
    """Which events are wanted: those that meet every condition which is given.

    ``actor`` is the steward as he is logged, ``since`` the first moment, ``until`` the first that is too late.
    """

    kinds: frozenset[EventKind] | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
