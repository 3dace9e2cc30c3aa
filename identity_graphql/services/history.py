"""What was, and why: the log of a cluster, its evidence, and every earlier state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from identity_graphql.domain import explain, undo
from identity_graphql.domain.contacts import LARGEST_ID, no_contact
from identity_graphql.domain.events import Event, EventFilter
from identity_graphql.domain.explain import Bridge, Explanation, Graph
from identity_graphql.domain.history import SLACK, ClusterHistory, Histories, Moment
from identity_graphql.domain.identifiers import Identifier, is_readable
from identity_graphql.domain.replay import Gap
from identity_graphql.domain.state import Ban, Bond, Node, Pair, Withheld, WithheldFilter
from identity_graphql.errors import Busy, InvalidInput, NotFound, Problem
from identity_graphql.services.retry import Deadline
from identity_graphql.services.stewardship import LONGEST_ACTOR
from identity_graphql.storage import Storage

T = TypeVar("T")

READERS = 2
"""Reads of the log at once: the other connections are for those who ask about the present."""
SMALL = 1_000
"""Events that are folded at once; more of them in a thread, so that requests are answered meanwhile."""
MOST_COUNTED = 10_000
"""Pairs in the queue; how many there are beyond that costs more than it tells."""
LARGEST_CHUNK = 2_000
"""Contacts that are looked at together where a page of an earlier time is put together."""


class LoggedEvent(NamedTuple):
    """An event, and what became of it."""

    event: Event
    undone_by: int | None
    """the undo that took it back; None: it counts"""


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

    async def of_contacts(self, contact_ids: Collection[int], moment: Moment | None = None) -> ClusterHistory:
        """Returns the log of the lineages of these contacts, as far as it had come at a moment."""
        return await self._read(lambda: self._history(contact_ids, moment))

    async def of_contacts_after(self, contact_ids: Collection[int], events: Sequence[Event]) -> ClusterHistory:
        """Returns the log of these contacts as it would be after these events, which are of no others.

        Raises Busy where it went on since they were decided: they cannot follow it any more.
        """
        history = await self.of_contacts(contact_ids)
        try:
            return await _computed(lambda: history.then(events), history)
        except Gap:
            raise Busy("the log went on after what was tried") from None

    async def of(self, subject: Node, moment: Moment | None = None) -> tuple[ClusterHistory, int | None]:
        """Returns the log of all who have an identifier or ever had, or of a contact; and the primary of who had it.

        None: nobody had it at the moment. Raises Gone for a contact.
        """

        async def read() -> ClusterHistory:
            return await self._history(await self._contacts_of([subject]), moment)

        history = await self._read(read)
        return history, history.home(subject) if isinstance(subject, Identifier) else history.primary_of(subject)

    async def explain(self, start: Node, goal: Node, moment: Moment | None = None) -> Explanation:
        """Returns why two contacts or identifiers are one customer, or what keeps them apart.

        Raises NotFound for what nobody has, and Gone for a contact.
        """

        async def read() -> ClusterHistory:
            return await self._history(await self._contacts_of([start, goal]), moment)

        history = await self._read(read)
        for name, node in (("from", start), ("to", goal)):
            if isinstance(node, Identifier):
                if history.home(node) is None:
                    raise NotFound(f"Nobody has the identifier given as {name}.")
            elif history.primary_of(node) is None:
                raise no_contact(node)
        return await _computed(lambda: explain.explanation(history, start, goal), history)

    async def histories(self, history: ClusterHistory) -> Histories:
        """Returns what happened to whom."""
        return await _computed(lambda: history.histories, history)

    async def evidence(self, history: ClusterHistory, primary_id: int) -> Graph:
        """Returns what holds a cluster together."""
        return await _computed(lambda: explain.evidence(history.part(primary_id), history.by_seq, primary_id), history)

    async def bridges(self, history: ClusterHistory, primary_id: int) -> list[Bridge]:
        """Returns the single pieces of evidence of a cluster; first those that would leave the most equal parts."""

        def found() -> list[Bridge]:
            bridges = explain.bridges(history.part(primary_id), history.by_seq, primary_id)
            size = len(history.state.members[primary_id])
            return sorted(bridges, key=lambda bridge: abs(size - 2 * (bridge.end - bridge.first)))

        return await _computed(found, history)

    async def event(self, seq: int) -> tuple[Event, ClusterHistory] | None:
        """Returns an event, and the history of its lineage; None if there is none of this number."""

        async def read() -> tuple[Event, ClusterHistory] | None:
            found = await self._storage.event(seq)
            return None if found is None else (found, await self._history([found.primary_id], None))

        return await self._read(read) if 0 < seq <= LARGEST_ID else None

    async def page_of_events(self, wanted: EventFilter, *, after: int, limit: int) -> list[LoggedEvent]:
        """The wanted events of the log by their numbers, from the first above ``after``.

        Raises InvalidInput for conditions that nothing can meet.
        """
        _check(wanted)

        async def read() -> list[LoggedEvent]:
            events = await self._storage.page_of_events(wanted, after=after, limit=limit)
            undone_by = undo.undone_by(await self._storage.undos_of(events))
            return [LoggedEvent(event, undone_by.get(event.seq)) for event in events]

        return await self._read(read)

    async def count_withheld(self, wanted: WithheldFilter) -> int:
        """How many wanted pairs wait; at most `MOST_COUNTED` are counted."""
        return await self._read(lambda: self._storage.count_withheld(wanted, limit=MOST_COUNTED))

    async def page_of_withheld(
        self, wanted: WithheldFilter, *, after: tuple[int, int], limit: int
    ) -> list[tuple[Pair, Withheld]]:
        """The wanted pairs that wait, by the events that kept them back; ``after``: an event, and how many of its."""
        return await self._read(lambda: self._storage.page_of_withheld(wanted, after=after, limit=limit))

    async def page_of_blocked(self, *, after: int, limit: int) -> list[tuple[Identifier, int]]:
        """The identifiers that are blocked, by the events that decided so, from the first above ``after``."""
        return await self._read(lambda: self._storage.page_of_blocked(after=after, limit=limit))

    async def page_of_bans(self, *, after: Ban, limit: int) -> list[Ban]:
        """The bans by event, then by contacts, from the first behind ``after``."""
        return await self._read(lambda: self._storage.page_of_bans(after=after, limit=limit))

    async def events(self, seqs: Sequence[int]) -> list[Event | None]:
        """These events; None for a number that there is not."""
        found = await self._read(lambda: self._storage.events(set(seqs)))
        return [found.get(seq) for seq in seqs]

    async def kept_apart(self, twos: Sequence[Bond]) -> list[bool]:
        """Whether bans stand between the clusters of these primaries, two by two."""
        primaries = {primary_id for two in twos for primary_id in two}
        found = await self._read(lambda: self._storage.kept_apart(primaries))
        return [two in found for two in twos]

    async def page_of_clusters(
        self, *, after: int, limit: int, moment: Moment, charge: Callable[[int], None]
    ) -> list[tuple[ClusterHistory, int]]:
        """The clusters of a moment by primary id, from the first id above ``after``, each in its history.

        ``charge`` is told of every event that is read, and may raise.
        """

        async def read() -> list[tuple[ClusterHistory, int]]:
            found: list[tuple[ClusterHistory, int]] = []
            histories: dict[int, ClusterHistory] = {}
            last, chunk, born = after, 2 * limit, await self._born(moment)
            while len(found) < limit:
                ids = await self._storage.contact_ids(after=last, limit=chunk, born=born)
                if not ids:
                    break
                # Every lineage once, however many of its contacts come along, and whether they were there then.
                if fresh := [contact_id for contact_id in ids if contact_id not in histories]:
                    events = await self._events(fresh)
                    charge(len(events))
                    history = await _folded(moment.of(events))
                    histories |= dict.fromkeys([*fresh, *(i for event in events for i in event.contact_ids)], history)
                found += [(histories[i], i) for i in ids if i in histories[i].state.members]
                last, chunk = ids[-1], min(2 * chunk, LARGEST_CHUNK)
            return found[:limit]

        return await self._read(read)

    async def _history(self, contact_ids: Collection[int], moment: Moment | None) -> ClusterHistory:
        if moment is not None and moment.seq is not None:
            await self._wait_for_event(moment.seq)
        events = await self._events(contact_ids, None if moment is None else moment.at)
        return await _folded(events if moment is None else moment.of(events))

    async def _events(self, contact_ids: Collection[int], at: datetime | None = None) -> list[Event]:
        """The log of these lineages; InvalidInput if the time has not come yet."""
        async with self._storage.log_session(contact_ids, by_banned_pair=True) as session:
            if at is not None and at > session.now:
                raise InvalidInput(Problem("as_of", "as_of must not be in the future."))
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
        if not 0 <= seq <= LARGEST_ID or not await self._storage.wait_for_event(seq):
            raise InvalidInput(Problem("as_of_seq", "as_of_seq must be the number of an event that has happened."))

    async def _read(self, attempt: Callable[[], Awaitable[T]]) -> T:
        async def alone() -> T:
            async with self._readers:
                return await attempt()

        return await self._deadline.retrying(alone)


def _check(wanted: EventFilter) -> None:
    problems = []
    if wanted.kinds is not None and not wanted.kinds:
        problems.append(Problem("kinds", "kinds must name at least one kind; left out, it is all of them."))
    if wanted.actor is not None and not is_readable(wanted.actor):
        problems.append(Problem("actor", "actor must be readable text, as in the log."))
    elif wanted.actor is not None and len(wanted.actor) > LONGEST_ACTOR:
        problems.append(Problem("actor", f"actor must have at most {LONGEST_ACTOR} characters."))
    if wanted.since is not None and wanted.until is not None and wanted.since > wanted.until:
        problems.append(Problem("since", "since must not be later than until."))
    if problems:
        raise InvalidInput(*problems)


async def _folded(events: list[Event]) -> ClusterHistory:
    return await asyncio.to_thread(ClusterHistory.of, events) if len(events) > SMALL else ClusterHistory.of(events)


async def _computed(work: Callable[[], T], history: ClusterHistory) -> T:
    """The result of what goes through a history; through a large one in a thread."""
    return await asyncio.to_thread(work) if len(history.events) > SMALL else work()
