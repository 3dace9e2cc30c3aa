"""What was, and why: the log of a cluster, its evidence, and every earlier state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TypeVar

from msgspec import Struct

from identity_graphql.domain import explain, history, undo
from identity_graphql.domain.contacts import Cluster, Contact, gone
from identity_graphql.domain.erasure import without_tokens
from identity_graphql.domain.events import Event, EventKind
from identity_graphql.domain.explain import Bridge, Chain, Graph, Node
from identity_graphql.domain.history import Moment
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.replay import replay
from identity_graphql.domain.state import Pair, State, Withheld, divided, ends
from identity_graphql.errors import InvalidInput, NotFound, Problem
from identity_graphql.services.retry import Deadline
from identity_graphql.storage import Storage

T = TypeVar("T")

LARGEST_SEQ = 2**63 - 1
READERS = 2
"""Reads of the log at once: the other connections are for those who ask about the present."""
SMALL = 1_000
"""Events that are folded at once; more of them in a thread, so that requests are answered meanwhile."""
LARGEST_CHUNK = 2_000
"""Contacts that are looked at together where a page of an earlier time is put together."""
SLACK = timedelta(hours=1)
"""How much later than an event one with a smaller number may have happened, at the very most."""


class ClusterHistory(Struct, frozen=True, dict=True):
    """The log of whole lineages up to a moment, and the state that it led to."""

    events: Sequence[Event]
    state: State

    @cached_property
    def by_seq(self) -> Mapping[int, Event]:
        return {event.seq: event for event in self.events}

    @cached_property
    def undone_by(self) -> Mapping[int, int]:
        """The events that do not count any more, and the undos that took them back."""
        taken_back = undo.undone(self.events)
        undos = [event for event in self.events if event.kind is EventKind.UNDO and event.seq not in taken_back]
        return {(event.detail or {})["asked"]["event"]: event.seq for event in undos}

    @cached_property
    def histories(self) -> history.Histories:
        """What happened to whom."""
        return history.histories(self.events, self.state)

    @cached_property
    def _parts(self) -> Mapping[int, State]:
        return divided(self.state)

    def part(self, primary_id: int) -> State:
        """The rows of one cluster alone, and what is withheld from it or banned."""
        return self._parts[primary_id]

    def home(self, contact_id: int) -> int | None:
        """The primary of a contact; None if it was not there yet. Raises Gone."""
        contact = self.state.contacts.get(contact_id)
        if contact is not None and contact.deleted_at is not None:
            raise gone(contact)
        return None if contact is None else self.state.primary_of(contact_id)

    def cluster(self, primary_id: int) -> Cluster:
        """The cluster of a primary, without what was erased since."""
        contacts = self.state.cluster(primary_id).contacts
        return Cluster(tuple(without_tokens(contact)[0] for contact in contacts))

    def is_redacted(self, contact_id: int) -> bool:
        """Whether something that a contact had at the time was erased since."""
        return without_tokens(self.state.contacts[contact_id])[1]

    def contact(self, contact_id: int) -> Contact | None:
        """A contact, without what was erased since; None if it was not there yet."""
        contact = self.state.contacts.get(contact_id)
        return None if contact is None else without_tokens(contact)[0]

    def evidence(self, primary_id: int) -> Graph:
        """What holds a cluster together."""
        return explain.evidence(self.part(primary_id), self.by_seq, primary_id)

    def bridges(self, primary_id: int) -> list[Bridge]:
        """The single pieces of evidence of a cluster; first those without which it falls into the most equal parts."""
        found = explain.bridges(self.part(primary_id), self.by_seq, primary_id)
        size = len(self.state.members[primary_id])
        return sorted(found, key=lambda bridge: abs(size - 2 * (bridge.end - bridge.first)))

    def chain(self, start: Node, goal: Node) -> Chain | None:
        """The shortest chain of evidence between two; None if they are two customers."""
        home = self._home_of(start)
        return None if home is None else explain.chain(self.part(home), self.by_seq, start, goal)

    def withheld(self, primary_id: int) -> list[tuple[Pair, Withheld]]:
        """The pairs that bans keep back from a cluster, in the order in which they came."""
        return sorted(self.part(primary_id).withheld.items(), key=lambda one: (one[1].seq, one[0]))

    def bans(self, primary_id: int) -> list[tuple[int, int, int]]:
        """The bans of a cluster's contacts: contact, the other contact, event."""
        return [(*bound, seq) for bound, seq in sorted(self.part(primary_id).bans.items())]

    def between(self, start: Node, goal: Node) -> Between:
        """What keeps two customers apart."""
        homes = {self._home_of(start), self._home_of(goal)}
        bans = [ban for home in homes if home for ban in self.bans(home)]
        withheld = [one for home in homes if home for one in self.withheld(home)]
        taken_back = [event for event in self.events if event.seq in self.undone_by and event.pair is not None]
        return Between(
            bans=tuple(sorted({b for b in bans if {self._home_of(b[0]), self._home_of(b[1])} == homes})),
            withheld=tuple(sorted({p: w for p, w in withheld if self._homes(p) == homes}.items())),
            undone=tuple(event for event in taken_back if event.pair and self._homes(event.pair) == homes),
        )

    def _homes(self, pair: Pair) -> set[int | None]:
        return {self.state.home(end) for end in ends(pair)}

    def _home_of(self, node: Node) -> int | None:
        if isinstance(node, Identifier):
            return self.state.home(node)
        return self.state.primary_of(node) if self.state.is_live(node) else None


class Between(Struct, frozen=True):
    """What keeps two customers apart: bans, pairs that wait behind them, and evidence that was taken back."""

    bans: tuple[tuple[int, int, int], ...]
    withheld: tuple[tuple[Pair, Withheld], ...]
    undone: tuple[Event, ...]


class HistoryService:
    """Reads the log. Writes nothing, and takes no lock.

    Everything is answered in time, or raises Busy. A moment that has not come yet raises InvalidInput.
    """

    def __init__(self, storage: Storage, *, timeout: float = 10.0) -> None:
        self._storage = storage
        self._deadline = Deadline(timeout, storage.outage)
        self._readers = asyncio.Semaphore(READERS)

    async def close(self) -> None:
        """Finish what is in flight. The storage may be closed afterwards."""
        await self._deadline.close()

    async def book(self, contact_ids: Collection[int], moment: Moment | None = None) -> ClusterHistory:
        """The log of the lineages of these contacts, as far as it had come at a moment."""
        return await self._read(lambda: self._book(contact_ids, moment))

    async def book_with(self, contact_ids: Collection[int], event: Event) -> ClusterHistory:
        """The log of these contacts as it would be after one more event."""

        async def read() -> ClusterHistory:
            book = await self._book(contact_ids, None)
            return ClusterHistory([*book.events, event], replay([event], book.state.copy()))

        return await self._read(read)

    async def book_of(self, subject: Node, moment: Moment | None = None) -> tuple[ClusterHistory, int | None]:
        """The log of all who have an identifier or ever had, or of a contact; and the primary of who had it then.

        None: nobody had. Raises Gone for a contact.
        """

        async def read() -> ClusterHistory:
            return await self._book(await self._contacts_of([subject]), moment)

        book = await self._read(read)
        return book, book.state.home(subject) if isinstance(subject, Identifier) else book.home(subject)

    async def explain(
        self, start: Node, goal: Node, moment: Moment | None = None
    ) -> tuple[ClusterHistory, Chain | None]:
        """The shortest chain of evidence between two contacts or identifiers, and the book that it is from.

        None: they are two customers. Raises NotFound for what nobody has, and Gone for a contact.
        """

        async def read() -> ClusterHistory:
            return await self._book(await self._contacts_of([start, goal]), moment)

        book = await self._read(read)
        for name, node in (("from", start), ("to", goal)):
            if isinstance(node, Identifier):
                if node not in book.state.claims:
                    raise NotFound(f"Nobody has the identifier given as {name}.")
            elif book.home(node) is None:
                raise NotFound(f"There is no contact {node}.")
        return book, await apart(lambda: book.chain(start, goal), book)

    async def event(self, seq: int) -> tuple[Event, Mapping[int, int]] | None:
        """An event, and the undos of its lineage: the event that was taken back -> the undo."""

        async def read() -> tuple[Event, Mapping[int, int]] | None:
            found = await self._storage.event(seq)
            return None if found is None else (found, (await self._book([found.primary_id], None)).undone_by)

        return await self._read(read) if 0 < seq <= LARGEST_SEQ else None

    async def page_of_withheld(self, *, after: int, limit: int) -> list[tuple[Pair, Withheld]]:
        """The pairs that bans keep back, by the events that did it, from the first above ``after``."""
        return await self._read(lambda: self._storage.page_of_withheld(after=after, limit=limit))

    async def page_of_bans(self, *, after: int, limit: int) -> list[tuple[int, int, int]]:
        """The bans (contact, the other contact, event), by event, from the first above ``after``."""
        return await self._read(lambda: self._storage.page_of_bans(after=after, limit=limit))

    async def page_of_clusters(
        self, *, after: int, limit: int, moment: Moment, charge: Callable[[int], None]
    ) -> list[tuple[ClusterHistory, int]]:
        """The clusters of a moment by primary id, from the first id above ``after``, each in its book.

        ``charge`` is told of every event that is read, and may raise.
        """

        async def read() -> list[tuple[ClusterHistory, int]]:
            found: list[tuple[ClusterHistory, int]] = []
            books: dict[int, ClusterHistory] = {}
            last, chunk, born = after, 2 * limit, await self._born(moment)
            while len(found) < limit:
                ids = await self._storage.contact_ids(after=last, limit=chunk, born=born)
                if not ids:
                    break
                # Every lineage once, however many of its contacts come along, and whether they were there then.
                if fresh := [contact_id for contact_id in ids if contact_id not in books]:
                    events = await self._events(fresh)
                    charge(len(events))
                    book = await _folded(moment.of(events))
                    books |= dict.fromkeys([*fresh, *(i for event in events for i in history.named(event))], book)
                found += [(books[i], i) for i in ids if i in books[i].state.members]
                last, chunk = ids[-1], min(2 * chunk, LARGEST_CHUNK)
            return found[:limit]

        return await self._read(read)

    async def _book(self, contact_ids: Collection[int], moment: Moment | None) -> ClusterHistory:
        if moment is not None and moment.seq is not None:
            await self._wait_for_event(moment.seq)
        events = await self._events(contact_ids, None if moment is None else moment.at)
        return await _folded(events if moment is None else moment.of(events))

    async def _events(self, contact_ids: Collection[int], at: datetime | None = None) -> list[Event]:
        """The log of these lineages; InvalidInput if the time has not come yet."""
        async with self._storage.log_session(contact_ids) as session:
            if at is not None and at > session.now:
                raise InvalidInput(Problem("asOf", "asOf must not be in the future."))
            return session.events

    async def _contacts_of(self, subjects: Sequence[Node]) -> set[int]:
        """These contacts, and all who claim one of these identifiers, or ever did."""
        identifiers = [subject for subject in subjects if isinstance(subject, Identifier)]
        claimants = await self._storage.claimants(identifiers) if identifiers else []
        return {*claimants, *(subject for subject in subjects if isinstance(subject, int))}

    async def _born(self, moment: Moment) -> datetime | None:
        """A time by which every contact of a moment was born. Raises InvalidInput if it has not come yet."""
        if moment.seq is None:
            await self._events((), moment.at)
            return moment.at
        await self._wait_for_event(moment.seq)
        newest = await self._storage.newest_event(moment.seq)
        return None if newest is None else newest + SLACK

    async def _wait_for_event(self, seq: int) -> None:
        """Wait until no event up to this number can still be committed (E2)."""
        if not 0 <= seq <= LARGEST_SEQ or not await self._storage.wait_for_event(seq):
            raise InvalidInput(Problem("asOfSeq", "asOfSeq must be the number of an event that has happened."))

    async def _read(self, attempt: Callable[[], Awaitable[T]]) -> T:
        async def alone() -> T:
            async with self._readers:
                return await attempt()

        return await self._deadline.retrying(alone)


async def _folded(events: list[Event]) -> ClusterHistory:
    state = await asyncio.to_thread(replay, events) if len(events) > SMALL else replay(events)
    return ClusterHistory(events, state)


async def apart(work: Callable[[], T], book: ClusterHistory) -> T:
    """The result of what goes through a book; through a large one in a thread."""
    return await asyncio.to_thread(work) if len(book.events) > SMALL else work()
