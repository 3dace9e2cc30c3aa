"""Which contacts and events belong together, found in one pass over the log, in a few bytes for each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from identity_graphql.domain.state import Pair


class Components:
    """Contacts that were ever in one cluster, or of which an event spoke together; with the events about them.

    Also those whose requests named one withheld pair: it may have been kept back in one component, and believed in
    another. Otherwise, what happens in one component changes nothing in the others.

    ``contact_ids``: of the table, ascending. Then every event is told, in the order of the log.
    """

    def __init__(self, contact_ids: array[int]) -> None:
        self._ids = contact_ids
        self._others: dict[int, int] = {}  # contacts that the log names and the table lacks -> their places
        self._parents = array("i", range(len(contact_ids)))
        self._seqs = array("q")
        self._nexts = array("i")  # of each event, a contact's place at first; then the next event of its component
        self._heads = array("i")  # of each component, at the place of its root: its first event
        self._kept_back: dict[Pair, int] = {}

    def add(self, seq: int, contact_ids: Iterable[int]) -> int:
        """One more event, and the contacts that it names, of which there is one at least; one of their places."""
        places = map(self._place, contact_ids)
        root = self._root(next(places))
        for place in places:
            root = self._join(root, place)
        self._seqs.append(seq)
        self._nexts.append(root)
        return root

    def keeps_back(self, place: int, pair: Pair) -> None:
        """The event that was added at this place spoke of a withheld pair."""
        self._join(self._kept_back.setdefault(pair, place), place)

    def speaks(self, place: int, pair: Pair) -> None:
        """The event that was added at this place spoke of a pair, perhaps one that was withheld before."""
        if pair in self._kept_back:
            self._join(self._kept_back[pair], place)

    def gather(self) -> None:
        """After the last event: put the events of each component in a row."""
        nexts, heads = self._nexts, array("i", [-1]) * len(self._parents)
        for number in range(len(nexts) - 1, -1, -1):
            root = self._root(nexts[number])
            nexts[number] = heads[root]
            heads[root] = number
        self._heads = heads

    def __iter__(self) -> Iterator[list[int]]:
        """The events of each component, in the order of the log; the components by their first contacts."""
        for head in self._heads:
            if head >= 0:
                seqs = []
                while head >= 0:
                    seqs.append(self._seqs[head])
                    head = self._nexts[head]
                yield seqs

    def unlogged(self) -> Iterator[int]:
        """Yields the contacts of the table that no event names."""
        for place, contact_id in enumerate(self._ids):
            if self._heads[self._root(place)] < 0:
                yield contact_id

    def knows(self, contact_id: int) -> bool:
        """Returns whether the table has this contact, or an event names it."""
        return self._known(contact_id) is not None

    def _place(self, contact_id: int) -> int:
        place = self._known(contact_id)
        if place is None:
            self._others[contact_id] = place = len(self._parents)
            self._parents.append(place)
        return place

    def _known(self, contact_id: int) -> int | None:
        ids = self._ids
        place = contact_id - 1  # so it is where no id was ever left out
        if not (0 <= place < len(ids) and ids[place] == contact_id):
            place = bisect_left(ids, contact_id)
            if place == len(ids) or ids[place] != contact_id:
                return self._others.get(contact_id)
        return place

    def _root(self, place: int) -> int:
        parents = self._parents
        while (parent := parents[place]) != place:
            parents[place] = place = parents[parent]
        return place

    def _join(self, one: int, other: int) -> int:
        one, other = self._root(one), self._root(other)
        if one > other:
            one, other = other, one
        self._parents[other] = one
        return one
