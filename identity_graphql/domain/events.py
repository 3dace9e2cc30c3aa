"""The log: one event for every request that taught something. Contacts, identifiers and pairs follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.identifiers import Identifier, identifiers


class EventKind(StrEnum):
    """Which verb was accepted: a request's, or one of a steward's."""

    IDENTIFY = "identify"
    MERGE_CLUSTERS = "merge_clusters"
    SPLIT_CLUSTER = "split_cluster"
    UNDO = "undo"
    BAN_LINK = "ban_link"
    UNBAN_LINK = "unban_link"
    DELETE_CONTACT = "delete_contact"
    RESTORE_CONTACT = "restore_contact"
    ERASE = "erase"


class Outcome(StrEnum):
    """What a request came to."""

    CREATED = "CREATED"
    """nothing was known: a new cluster"""
    LINKED = "LINKED"
    """a secondary was added to a cluster"""
    MERGED = "MERGED"
    """two clusters were joined"""
    OBSERVED = "OBSERVED"
    """two known identifiers of one cluster were seen together for the first time"""
    UNCHANGED = "UNCHANGED"
    """nothing new; nothing was written"""
    WITHHELD = "WITHHELD"
    """a ban forbids the link"""
    DONE = "DONE"
    """not a request: a steward's verb was carried out"""


class Demotion(Struct, frozen=True):
    """A primary that became a secondary, with the versions of its cluster before and after."""

    id: int
    version_before: int
    version_after: int


class Event(Struct, frozen=True):
    """One accepted fact. With its predecessors it is all that is needed to rebuild the tables.

    ``contact_id`` is the contact it created, ``primary_id`` the cluster it ended in, ``version_…`` that
    cluster's; ``raw`` the request's text as it came, ``norm`` the normalisation that read it. A steward's verb has an
    ``actor``, a ``reason``, and in ``detail`` what was asked and every row that it changed. ``seq`` is the event's
    number in the log, 0 before it is written.
    """

    at: datetime
    kind: EventKind
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
    actor: str | None = None
    reason: str | None = None
    detail: Mapping[str, Any] | None = None
    seq: int = 0

    @property
    def pair(self) -> tuple[str, str] | None:
        """The evidence it brings: its email and phone number were seen together. None if it has only one."""
        return (self.email, self.phone_number) if self.email and self.phone_number else None

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """Those of its request; none for a steward's verb."""
        return identifiers(self.email, self.phone_number)

    def renumbered(self, ids: Mapping[int, int], seq: int = 0) -> Self:
        """The same event after the database gave out the real ids, and perhaps its own number."""
        return replace(
            self,
            contact_id=self.contact_id and ids.get(self.contact_id, self.contact_id),
            primary_id=ids.get(self.primary_id, self.primary_id),
            demoted=tuple(replace(d, id=ids.get(d.id, d.id)) for d in self.demoted),
            seq=seq,
        )
