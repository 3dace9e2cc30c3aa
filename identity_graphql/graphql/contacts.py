"""Contacts and clusters: twins of the domain's, joined by `from_domain`."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry
from strawberry import ID, UNSET

from identity_graphql.archive import Book
from identity_graphql.domain import contacts as domain
from identity_graphql.domain import explain
from identity_graphql.graphql.connections import (
    DEFAULT_PAGE,
    After,
    Connection,
    First,
    not_of_this_list,
    page_size,
    position_of,
)
from identity_graphql.graphql.context import Info
from identity_graphql.graphql.history import Ban, Bridge, Event, Evidence, WithheldPair, page_of
from identity_graphql.graphql.scalars import given, id_of, number_of


@strawberry.enum(description="The place of a contact in its cluster.")
class LinkPrecedence(Enum):
    PRIMARY = strawberry.enum_value("PRIMARY", description="The oldest contact of the cluster.")
    SECONDARY = strawberry.enum_value("SECONDARY", description="Any other; linked to the primary.")


@strawberry.type(description="One stored record: an email, a phone number, or both.")
class Contact:
    home: strawberry.Private[domain.Cluster | None]
    id: ID = strawberry.field(description="Never changes, and is never given out again.")
    email: str | None = strawberry.field(description="As it is compared: trimmed, in lower case.")
    phone_number: str | None = strawberry.field(description="As it is compared: digits, perhaps with a + in front.")
    linked_id: ID | None = strawberry.field(description="A secondary's primary; null for a primary.")
    link_precedence: LinkPrecedence = strawberry.field(description="Whether it is its cluster's primary.")
    created_at: datetime = strawberry.field(description="Decides who is the oldest; ties go to the smaller id.")
    updated_at: datetime = strawberry.field(description="Changes only when this record's own link or deletion changes.")
    deleted_at: datetime | None = strawberry.field(description="Null for a live contact.")
    undone_at: datetime | None = strawberry.field(description="When what had made it was undone; else null.")
    erased_at: datetime | None = strawberry.field(description="When its values were erased; else null.")
    redacted: bool = strawberry.field(description="Whether values that it had at this time were erased since.")

    @classmethod
    def from_domain(
        cls, contact: domain.Contact, home: domain.Cluster | None = None, *, redacted: bool = False
    ) -> Contact:
        """With ``home``, the cluster it was read with, its links cost no further look-up."""
        return cls(
            home=home,
            id=id_of(contact.id),
            email=contact.email,
            phone_number=contact.phone_number,
            linked_id=None if contact.linked_id is None else id_of(contact.linked_id),
            link_precedence=LinkPrecedence[contact.link_precedence.name],
            created_at=contact.created_at,
            updated_at=contact.updated_at,
            deleted_at=contact.deleted_at,
            undone_at=contact.undone_at,
            erased_at=contact.erased_at,
            redacted=redacted,
        )

    @strawberry.field(description="The primary that a secondary is linked to; null for a primary.")
    async def linked(self, info: Info) -> Contact | None:
        if self.linked_id is None:
            return None
        if self.home is not None:
            return Contact.from_domain(self.home.primary, self.home)
        found = await info.context.contacts.load(int(self.linked_id))
        return Contact.from_domain(found) if found else None

    @strawberry.field(description="The customer it belongs to; null for a deleted contact.")
    async def cluster(self, info: Info) -> Cluster | None:
        if self.deleted_at is not None:
            return None
        found = self.home or await info.context.clusters.load(int(self.id))
        return Cluster.from_domain(found) if found else None

    @strawberry.field(description="What happened to it: how it came, moved, went and came back.")
    async def history(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Event]:
        contact_id = number_of(self.id)
        book = await info.context.books.load(contact_id)
        found = book.history_of_contact(contact_id)
        return page_of(found, book.undone_by, first=first, after=given(after))


@strawberry.type(
    description="All live contacts of one customer. Lists begin with the primary's values, then go by seniority."
)
class Cluster:
    entity: strawberry.Private[domain.Cluster]
    past: strawberry.Private[Book | None]
    id: ID = strawberry.field(description="The primary's id.")
    primary_contact_id: ID = strawberry.field(description="The primary's id, by the name that REST has for it.")
    size: int = strawberry.field(description="How many contacts it has.")
    version: int = strawberry.field(description="Goes up by one with every event of this cluster; starts at 1.")
    changed_at: datetime = strawberry.field(description="When its last event happened.")
    redacted: bool = strawberry.field(description="Whether values that it had at this time were erased since.")

    @classmethod
    def from_domain(cls, cluster: domain.Cluster, past: Book | None = None, *, redacted: bool = False) -> Cluster:
        """``past``: the log as far as it had come when the cluster was like this, if that is not now."""
        primary_id = id_of(cluster.primary.id)
        return cls(
            entity=cluster,
            past=past,
            redacted=redacted,
            id=primary_id,
            primary_contact_id=primary_id,
            size=cluster.size,
            version=cluster.version,
            changed_at=cluster.changed_at,
        )

    @strawberry.field(description="Its oldest contact.")
    def primary(self) -> Contact:
        return Contact.from_domain(self.entity.primary, self.entity)

    @strawberry.field(description="All its other contacts, by seniority. `contacts` gives them page by page.")
    def secondaries(self, info: Info) -> list[Contact]:
        info.context.charge(self.size)
        return [Contact.from_domain(contact, self.entity) for contact in self.entity.secondaries]

    @strawberry.field(description="Its emails, without repeats; the primary's comes first.")
    def emails(self, info: Info) -> list[str]:
        info.context.charge(self.size)
        return list(self.entity.emails)

    @strawberry.field(description="Its phone numbers, without repeats; the primary's comes first.")
    def phone_numbers(self, info: Info) -> list[str]:
        info.context.charge(self.size)
        return list(self.entity.phone_numbers)

    @strawberry.field(description="The ids of its secondaries, by seniority.")
    def secondary_contact_ids(self, info: Info) -> list[ID]:
        info.context.charge(self.size)
        return [id_of(number) for number in self.entity.secondary_contact_ids]

    @strawberry.field(description="Its contacts, the primary first, then by seniority.")
    def contacts(self, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Contact]:
        size, cursor = page_size(first), given(after)
        last, start = position_of(cursor), 0
        members = self.entity.contacts
        if cursor is not None:
            start = next((n for n, member in enumerate(members, 1) if member.id == last), 0)
            if start == 0:
                raise not_of_this_list()
        page = members[start : start + size + 1]
        nodes = [Contact.from_domain(contact, self.entity) for contact in page]
        return Connection.of(nodes, [contact.id for contact in page], first=size, after=cursor)

    @strawberry.field(description="What happened to it, in order; that of the clusters which were merged into it, too.")
    async def history(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Event]:
        book = await self._book(info)
        found = book.history_of_cluster(book.home(self.entity.primary.id))
        return page_of(found, book.undone_by, first=first, after=given(after))

    @strawberry.field(description="What holds it together, as a graph to be drawn.")
    async def evidence(self, info: Info) -> Evidence:
        book = await self._book(info)
        info.context.charge(6 * self.size)
        return Evidence.from_domain(explain.evidence(book.state, book.by_seq, book.home(self.entity.primary.id)))

    @strawberry.field(
        description="The single pieces of evidence without which it would fall apart, and the parts that would result."
    )
    async def bridges(self, info: Info) -> list[Bridge]:
        book = await self._book(info)
        found = explain.bridges(book.state, book.by_seq, book.home(self.entity.primary.id))
        info.context.charge(len(found) * self.size)
        return [Bridge.from_domain(bridge) for bridge in found]

    @strawberry.field(description="The pairs that bans keep back from it.")
    async def withheld(self, info: Info) -> list[WithheldPair]:
        book = await self._book(info)
        return [WithheldPair.from_domain(*one) for one in book.withheld(book.home(self.entity.primary.id))]

    @strawberry.field(description="The contacts of others that its contacts are banned from.")
    async def bans(self, info: Info) -> list[Ban]:
        book = await self._book(info)
        return [
            Ban(contact_id=id_of(contact_id), other_id=id_of(other_id), event=ID(str(seq)))
            for seq, contact_id, other_id in book.bans(book.home(self.entity.primary.id))
        ]

    async def _book(self, info: Info) -> Book:
        """The log that led to it."""
        return self.past or await info.context.books.load(self.entity.primary.id)
