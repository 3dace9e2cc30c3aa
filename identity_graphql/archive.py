"""What was, and why: the log of a cluster, its evidence, and every earlier state."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from identity_graphql.domain import explain, history, undo
from identity_graphql.domain.contacts import Cluster, Contact, gone
from identity_graphql.domain.erasure import without_tokens
from identity_graphql.domain.events import Event, EventKind
from identity_graphql.domain.history import Moment
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.replay import replay
from identity_graphql.domain.state import Pair, State, Withheld, ends
from identity_graphql.errors import Busy, InvalidInput, NotFound, Problem
from identity_graphql.storage import Storage

LARGEST_SEQ = 2**63 - 1
CHUNK = 500
"""Contacts that are looked at together where a page of an earlier time is put together."""


class Seen(Struct, frozen=True):
    """A cluster as it was, without what was erased since; ``redacted`` says whether something was."""

    cluster: Cluster
    redacted: bool


class Book(Struct, frozen=True, dict=True):
    """The log of whole families up to a moment, and the state that it led to."""

    events: Sequence[Event]
    state: State

    @cached_property
    def by_seq(self) -> Mapping[int, Event]:
        return {event.seq: event for event in self.events}

    @cached_property
    def undone_by(self) -> Mapping[int, int]:
        """The events that do not count any more, and the undos that took them back."""
        gone = undo.undone(self.events)
        undos = [event for event in self.events if event.kind is EventKind.UNDO and event.seq not in gone]
        return {(event.detail or {})["asked"]["event"]: event.seq for event in undos}

    def cluster_of(self, contact_id: int) -> Seen | None:
        """The cluster of a contact; None if it was not there yet. Raises Gone."""
        contact = self.state.contacts.get(contact_id)
        if contact is None:
            return None
        if contact.deleted_at is not None:
            raise gone(contact)
        return self.seen(self.state.primary_of(contact_id))

    def home(self, contact_id: int) -> int:
        """The primary of a contact: perhaps another one than a moment ago. Raises Gone."""
        contact = self.state.contacts[contact_id]
        if contact.deleted_at is not None:
            raise gone(contact)
        return self.state.primary_of(contact_id)

    def seen(self, primary_id: int) -> Seen:
        """The cluster of a primary."""
        cluster = self.state.cluster(primary_id)
        contacts = [without_tokens(contact) for contact in cluster.contacts]
        return Seen(Cluster(tuple(contact for contact, _ in contacts)), any(redacted for _, redacted in contacts))

    def contact(self, contact_id: int) -> tuple[Contact, bool] | None:
        """A contact, and whether something of it was erased since; None if it was not there yet."""
        contact = self.state.contacts.get(contact_id)
        return None if contact is None else without_tokens(contact)

    def history_of_cluster(self, primary_id: int) -> list[Event]:
        return history.of_cluster(self.events, self.state.members[primary_id])

    def history_of_contact(self, contact_id: int) -> list[Event]:
        return history.of_contact(self.events, contact_id)

    def withheld(self, primary_id: int) -> list[tuple[Pair, Withheld]]:
        """The pairs that bans keep back from this cluster, in the order in which they came."""
        found = [
            (pair, withheld)
            for pair, withheld in self.state.withheld.items()
            if primary_id in {self.state.home(end) for end in ends(pair)}
        ]
        return sorted(found, key=lambda one: (one[1].seq, one[0]))

    def bans(self, primary_id: int) -> list[tuple[int, int, int]]:
        """The bans of this cluster's contacts: contact, the other contact, event."""
        members = self.state.members[primary_id]
        return sorted((seq, *bond) for bond, seq in self.state.bans.items() if not members.isdisjoint(bond))


class Archive:
    """Reads the log. Writes nothing, and takes no lock that others would wait for."""

    def __init__(self, storage: Storage, *, timeout: float = 10.0) -> None:
        self._storage = storage
        self._timeout = timeout

    async def book(self, contact_ids: Collection[int], moment: Moment | None = None) -> Book:
        """The log of the families of these contacts, as far as it had come at a moment.

        Raises InvalidInput for a moment that has not come yet.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if moment is not None and moment.seq is not None:
                    await self._settled(moment.seq)
                async with self._storage.desk(contact_ids) as desk:
                    if moment is not None and moment.at is not None and moment.at > desk.now:
                        raise InvalidInput(Problem("asOf", "asOf must not be in the future."))
                    events = desk.events if moment is None else moment.of(desk.events)
        except TimeoutError:
            raise Busy from None
        return Book(events, replay(events))

    async def books(self, contact_ids: Sequence[int]) -> list[Book]:
        """The one book of all these contacts, once for each: for a loader."""
        return [await self.book(contact_ids)] * len(contact_ids)

    async def cluster(self, subject: int | Identifier, moment: Moment) -> tuple[Book, Seen | None]:
        """The cluster that had a contact or an identifier at a moment; None if nobody had. Raises Gone."""
        if isinstance(subject, int):
            book = await self.book([subject], moment)
            return book, book.cluster_of(subject)
        book = await self.book(await self._storage.claimants([subject]), moment)
        home = book.state.home(subject)
        return book, None if home is None else book.seen(home)

    async def event(self, seq: int) -> tuple[Event, Mapping[int, int]] | None:
        """An event, and the undos of its family: the event that was taken back -> the undo."""
        found = await self._storage.event(seq) if 0 < seq <= LARGEST_SEQ else None
        return None if found is None else (found, (await self.book([found.primary_id])).undone_by)

    async def page_of_withheld(self, *, after: int, limit: int) -> list[tuple[Pair, Withheld]]:
        """The pairs that bans keep back, by the events that did it, from the first above ``after``."""
        return await self._storage.page_of_withheld(after=after, limit=limit)

    async def page_of_clusters(self, *, after: int, limit: int, moment: Moment) -> list[tuple[Book, Seen]]:
        """The clusters of a moment by primary id, from the first id above ``after``."""
        found: list[tuple[Book, Seen]] = []
        while len(found) < limit:
            ids = await self._storage.contact_ids(after=after, limit=CHUNK)
            if not ids:
                break
            book = await self.book(ids, moment)
            found += [(book, book.seen(contact_id)) for contact_id in ids if contact_id in book.state.members]
            after = ids[-1]
        return found[:limit]

    async def explain(self, start: int | Identifier, goal: int | Identifier) -> tuple[Book, explain.Chain | None]:
        """The shortest chain of evidence between two contacts or identifiers, and the book that it is from.

        None: they are two customers. Raises NotFound and Gone for contacts, InvalidInput for an identifier that nobody
        has.
        """
        ids = {node for node in (start, goal) if isinstance(node, int)}
        ids.update(await self._storage.claimants([node for node in (start, goal) if isinstance(node, Identifier)]))
        book = await self.book(ids)
        for name, node in (("from", start), ("to", goal)):
            if isinstance(node, Identifier):
                if node not in book.state.claims:
                    raise InvalidInput(Problem(name, f"Nobody has the identifier given as {name}."))
            elif node not in book.state.contacts:
                raise NotFound(node)
            elif not book.state.is_live(node):
                raise gone(book.state.contacts[node])
        return book, explain.chain(book.state, book.by_seq, start, goal)

    async def _settled(self, seq: int) -> None:
        """Wait until no event up to this number can still be committed (E2). Raises InvalidInput if there is none."""
        if not 0 <= seq <= LARGEST_SEQ or not await self._storage.settled(seq):
            raise InvalidInput(Problem("asOfSeq", "asOfSeq must be the number of an event that has happened."))
