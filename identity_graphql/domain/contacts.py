"""Contacts, and the clusters they form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Identifier, identifiers
from identity_graphql.errors import Gone, NotFound

PROVISIONAL = 2**62
"""Ids from here on are stand-ins for contacts that the database has not numbered yet.

They are above every real id, so that a new contact is the youngest even where times tie.
"""


LARGEST_ID = 2**63 - 1
"""The largest number that a database gives out: of a contact, or of an event."""


class LinkPrecedence(StrEnum):
    """The oldest contact of a cluster is its primary, the others are secondaries."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Contact(Struct, frozen=True):
    """One stored record: what one request brought of a customer.

    ``version`` and ``changed_at`` of a primary are those of its cluster. A contact that never was a primary
    has version 0 and no ``changed_at``; a demoted one keeps what its cluster had when it was merged.
    ``others``: what it carries beside one email and one phone number, in order. ``claims_…``: the contact brought this
    identifier, nobody had it before. A deleted contact keeps its row as it was; ``undone_at``: what had made it was
    undone; ``erased_at``: its values were taken out for good.
    """

    id: int
    email: str | None
    phone_number: str | None
    linked_id: int | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    version: int = 0
    changed_at: datetime | None = None
    claims_email: bool = False
    claims_phone_number: bool = False
    others: tuple[Identifier, ...] = ()
    claims_others: tuple[Identifier, ...] = ()
    erased_at: datetime | None = None
    undone_at: datetime | None = None

    @property
    def link_precedence(self) -> LinkPrecedence:
        return LinkPrecedence.PRIMARY if self.linked_id is None else LinkPrecedence.SECONDARY

    @property
    def seniority(self) -> tuple[datetime, int]:
        """The total order that decides who is the oldest: smaller is older."""
        return self.created_at, self.id

    @property
    def may_return(self) -> bool:
        """Whether it is deleted, and can be restored."""
        return self.deleted_at is not None and self.erased_at is None and self.undone_at is None

    @property
    def carried(self) -> tuple[Identifier, ...]:
        """The identifiers that stand in its row."""
        return identifiers(self.email, self.phone_number, self.others)

    @property
    def claims(self) -> tuple[Identifier, ...]:
        """The identifiers that this contact brought."""
        return identifiers(
            self.email if self.claims_email else None,
            self.phone_number if self.claims_phone_number else None,
            self.claims_others,
        )

    def claiming(self, claims: Collection[Identifier]) -> Self:
        """The same contact where it claims those of its identifiers that are among these."""
        return replace(
            self,
            claims_email=self.email is not None and Identifier(EMAIL, self.email) in claims,
            claims_phone_number=self.phone_number is not None and Identifier(PHONE_NUMBER, self.phone_number) in claims,
            claims_others=tuple(identifier for identifier in self.others if identifier in claims),
        )

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """The same contact after the database gave out the real ids."""
        if self.id < PROVISIONAL and (self.linked_id is None or self.linked_id < PROVISIONAL):
            return self
        linked_id = None if self.linked_id is None else ids.get(self.linked_id, self.linked_id)
        return replace(self, id=ids.get(self.id, self.id), linked_id=linked_id)


class Cluster(Struct, frozen=True):
    """All live contacts of one customer, the primary first, the others by seniority.

    A value, never changed in place: what happens to a cluster makes a new one.
    """

    contacts: tuple[Contact, ...]

    @classmethod
    def of(cls, contacts: Iterable[Contact]) -> Self:
        """The cluster that these contacts form, in any order. Exactly one of them must be a primary."""
        ordered = sorted(contacts, key=lambda contact: (contact.linked_id is not None, *contact.seniority))
        return cls(tuple(ordered))

    @property
    def primary(self) -> Contact:
        return self.contacts[0]

    @property
    def secondaries(self) -> tuple[Contact, ...]:
        return self.contacts[1:]

    @property
    def secondary_contact_ids(self) -> tuple[int, ...]:
        return tuple(contact.id for contact in self.contacts[1:])

    @property
    def size(self) -> int:
        return len(self.contacts)

    @property
    def version(self) -> int:
        """Goes up by one with every event of the cluster; starts at 1."""
        return self.primary.version

    @property
    def changed_at(self) -> datetime:
        """When the last event of the cluster happened."""
        return self.primary.changed_at or self.primary.created_at

    @property
    def emails(self) -> tuple[str, ...]:
        """The emails that this cluster claims, by first sighting; the primary's comes first."""
        if self._has_others:
            return self.values(EMAIL)
        claimed = {contact.email for contact in self.contacts if contact.claims_email}
        return tuple(dict.fromkeys(c.email for c in self.contacts if c.email and c.email in claimed))

    @property
    def phone_numbers(self) -> tuple[str, ...]:
        """The phone numbers that this cluster claims, by first sighting; the primary's comes first."""
        if self._has_others:
            return self.values(PHONE_NUMBER)
        claimed = {contact.phone_number for contact in self.contacts if contact.claims_phone_number}
        return tuple(
            dict.fromkeys(c.phone_number for c in self.contacts if c.phone_number and c.phone_number in claimed)
        )

    @property
    def _has_others(self) -> bool:
        return any(contact.others for contact in self.contacts)

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """What this cluster claims, by first sighting; the primary's come first."""
        claimed = {identifier for contact in self.contacts for identifier in contact.claims}
        carried = (identifier for contact in self.contacts for identifier in contact.carried)
        return tuple(dict.fromkeys(identifier for identifier in carried if identifier in claimed))

    def has_any(self, identifiers: Collection[Identifier]) -> bool:
        """Whether it claims one of these."""
        return any(claim in identifiers for contact in self.contacts for claim in contact.claims)

    def values(self, kind: str) -> tuple[str, ...]:
        """The values of a kind that this cluster claims, by first sighting; the primary's comes first."""
        return tuple(identifier.value for identifier in self.identifiers if identifier.kind == kind)

    def observed(self, at: datetime) -> Self:
        """The cluster after one more event, its contacts as they were."""
        primary = replace(self.primary, version=self.version + 1, changed_at=at)
        return type(self)((primary, *self.contacts[1:]))

    def united(self, younger: Sequence[Cluster], contact: Contact | None, at: datetime) -> Self:
        """The cluster after younger ones were merged into it, and perhaps a new contact was linked to it.

        Their primaries are demoted, and so is its own by a contact that is older. All sides count the event, so that
        whoever has seen one of them notices.
        """
        members = self.observed(at).contacts
        if contact is not None and contact.seniority < self.primary.seniority:
            contact = replace(contact, version=self.version + 1, changed_at=at)
            members = (contact, *self.relinked(contact.id, at))
        elif contact is not None:
            contact = replace(contact, linked_id=self.primary.id)
            if not younger and contact.seniority > self.contacts[-1].seniority:
                return type(self)((*members, contact))
            members = (*members, contact)
        return self.of((*members, *(moved for cluster in younger for moved in cluster.relinked(members[0].id, at))))

    def relinked(self, primary_id: int, at: datetime) -> list[Contact]:
        """Its contacts after one more event, which linked them to another primary."""
        return [replace(contact, linked_id=primary_id, updated_at=at) for contact in self.observed(at).contacts]

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """The same cluster after the database gave out the real ids."""
        return type(self)(tuple(contact.renumbered(ids) for contact in self.contacts))


def called(contact_id: int) -> str:
    """Returns what people read of a contact: one that is yet to be made has no number to be read."""
    return f"contact {contact_id}" if contact_id < PROVISIONAL else "a new contact"


def gone(contact: Contact) -> Gone:
    """What is told of a contact that is no longer: how it went, and when."""
    assert contact.deleted_at is not None
    if contact.erased_at is not None:
        return Gone(contact.id, contact.erased_at, "erased")
    if contact.undone_at is not None:
        return Gone(contact.id, contact.undone_at, "undone")
    return Gone(contact.id, contact.deleted_at)


def no_contact(contact_id: int) -> NotFound:
    """What is told of a contact whose id was never given out."""
    return NotFound(f"There is no contact {contact_id}.")
