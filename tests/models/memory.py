"""An independent brute-force model of what the accepted events of a log come to, without those that were undone.

Facts in lists, in the order in which they were told; a customer is whatever can be reached over them, searched for
anew every time. It knows no primaries, no links, no versions, and nothing of what the log says was changed: only what
was asked. Not of restored contacts, of moved identifiers, and of erasure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]


@dataclass
class Row:
    """One contact: ``id`` is that of the database, or the number of the event that comes to need one (negative)."""

    id: int
    values: tuple[str | None, str | None]
    live: bool = True

    def carries(self, value: str) -> bool:
        return self.live and value in self.values


@dataclass
class Memory:
    rows: list[Row] = field(default_factory=list)  # in the order of their birth
    owners: dict[str, int] = field(default_factory=dict)  # value -> the row that brought it
    pairs: list[Pair] = field(default_factory=list)
    waiting: list[Pair] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)
    bans: list[tuple[int, int]] = field(default_factory=list)
    banned_pairs: list[Pair] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Mapping[str, Any]]) -> Memory:
        memory = cls()
        gone = undone(events)
        for event in events:
            if event["seq"] in gone:
                continue
            if event["kind"] == "identify":
                memory.request(event["email"], event["phone_number"], event["contact_id"] or -event["seq"])
            else:
                asked = event["detail"]["asked"]
                getattr(memory, asked["verb"])(asked)
        return memory

    # -- what can be told

    def request(self, email: str | None, phone_number: str | None, new: int) -> None:
        values = [value for value in (email, phone_number) if value]
        homes = [self.reach(self.owners[value]) for value in values if value in self.owners]
        pair = (email, phone_number) if email and phone_number else None
        if pair in self.banned_pairs or (len(homes) == 2 and self.banned(*homes)):
            assert pair
            if email not in self.owners:
                self.bear(Row(new, (email, None)))
            if pair not in self.waiting and pair not in self.banned_pairs:
                self.waiting.append(pair)
            return
        if len(homes) < len(values):
            self.bear(Row(new, (email, phone_number)))
        if pair:
            self.believe(pair)

    def merge_clusters(self, asked: Mapping[str, Any]) -> None:
        one, other = asked["one"], asked["other"]
        if not self.is_live(one, other) or one in self.reach(other):
            return
        if not self.banned(self.reach(one), self.reach(other)):
            self.links.append((one, other))

    def ban_link(self, asked: Mapping[str, Any]) -> None:
        one, other = sorted((asked["one"], asked["other"]))
        if self.is_live(one, other) and one not in self.reach(other) and (one, other) not in self.bans:
            self.bans.append((one, other))

    def unban_link(self, asked: Mapping[str, Any]) -> None:
        if asked["pair"]:
            self.banned_pairs = [pair for pair in self.banned_pairs if pair != tuple(asked["pair"])]
            return
        one, other = sorted(asked["contacts"])
        if (one, other) not in self.bans:
            return
        sides = [self.reach(one), self.reach(other)] if self.is_live(one, other) else []
        freed = [
            pair
            for pair in self.waiting
            if all(value in self.owners for value in pair)
            and any(self.owners[pair[0]] in side for side in sides)
            and any(self.owners[pair[1]] in side for side in sides)
            and self.owners[pair[0]] not in self.reach(self.owners[pair[1]])
        ]
        self.bans.remove((one, other))
        for pair in freed if asked["rejudge"] else ():
            here, there = (self.reach(self.owners[value]) for value in pair)
            if not self.banned(here, there):
                self.believe(pair)

    def split_cluster(self, asked: Mapping[str, Any]) -> None:
        out = set(asked["contact_ids"])
        if not self.is_live(*out):
            return
        cluster = self.reach(min(out))
        rest = cluster - out
        if not out < cluster:
            return
        self.pairs = [pair for pair in self.pairs if not crosses(out, rest, *(self.owners[value] for value in pair))]
        self.links = [link for link in self.links if not crosses(out, rest, *link)]
        for side in (out, rest):
            first = self.oldest(side)
            apart = side - self.reach(first)
            while apart:
                part = self.oldest(apart)
                apart -= self.reach(part)
                self.links.append((first, part))
        if asked["ban"]:
            one, other = sorted((self.oldest(out), self.oldest(rest)))
            if (one, other) not in self.bans:
                self.bans.append((one, other))

    def delete_contact(self, asked: Mapping[str, Any]) -> None:
        contact_id = asked["contact_id"]
        if not self.is_live(contact_id):
            return
        rest = self.reach(contact_id) - {contact_id}
        row = self.row(contact_id)
        row.live = False
        self.pairs = [pair for pair in self.pairs if pair != row.values]
        for value in [value for value, owner in self.owners.items() if owner == contact_id]:
            carriers = [other.id for other in self.rows if other.carries(value)]
            heirs = [carrier for carrier in carriers if carrier in rest]
            if not heirs:
                self.pairs = [pair for pair in self.pairs if value not in pair]
            del self.owners[value]
            if carriers:
                self.owners[value] = self.oldest(heirs or carriers)

    def undo(self, asked: Mapping[str, Any]) -> None:
        """What was undone is not here at all: only the ban that came with it."""
        contacts, pair = asked["contacts"], asked["pair"]
        if pair:
            pair = tuple(pair)
            contacts = [self.owners.get(value) for value in pair]
            if None in contacts:
                self.waiting = [other for other in self.waiting if other != pair]
                self.banned_pairs.append(pair)
        if not contacts or None in contacts:
            return
        one, other = sorted(contacts)
        together = self.is_live(one, other) and one in self.reach(other)
        if not together and (one, other) not in self.bans:
            self.bans.append((one, other))

    # -- what follows

    def bear(self, row: Row) -> None:
        self.rows.append(row)
        for value in row.values:
            if value:
                self.owners.setdefault(value, row.id)

    def believe(self, pair: Pair) -> None:
        if pair not in self.pairs:
            self.pairs.append(pair)
        self.waiting = [other for other in self.waiting if other != pair]

    def reach(self, start: int) -> set[int]:
        """The contacts that are the same customer as this one."""
        reached, frontier = {start}, [start]
        while frontier:
            here = frontier.pop()
            for one, other in [*((self.owners[e], self.owners[p]) for e, p in self.pairs), *self.links]:
                for near, far in ((one, other), (other, one)):
                    if near == here and far not in reached and self.is_live(far):
                        reached.add(far)
                        frontier.append(far)
        return reached

    def banned(self, here: Iterable[int], there: Iterable[int]) -> bool:
        return any(crosses(set(here), set(there), *ban) for ban in self.bans)

    def row(self, contact_id: int) -> Row:
        return next(row for row in self.rows if row.id == contact_id)

    def is_live(self, *contact_ids: int) -> bool:
        return set(contact_ids) <= {row.id for row in self.rows if row.live}

    def oldest(self, contact_ids: Iterable[int]) -> int:
        there = set(contact_ids)
        return next(row.id for row in self.rows if row.id in there)

    # -- what can be seen of it

    def values(self) -> set[frozenset[str]]:
        """The partition of all that is known."""
        found: dict[int, set[str]] = {}
        for value, owner in self.owners.items():
            found.setdefault(self.oldest(self.reach(owner)), set()).add(value)
        return {frozenset(values) for values in found.values()}

    def contacts(self) -> set[frozenset[int]]:
        """The partition of the contacts that the database numbered when their events came."""
        clusters = {frozenset(id for id in self.reach(row.id) if id > 0) for row in self.rows if row.live}
        return clusters - {frozenset()}


def undone(events: Sequence[Mapping[str, Any]]) -> set[int]:
    """The events that do not count: an undo takes one back, unless it was itself taken back."""
    undos = {event["seq"]: event["detail"]["asked"]["event"] for event in events if event["kind"] == "undo"}
    gone: set[int] = set()
    for seq in sorted(undos, reverse=True):
        if seq not in gone:
            gone.add(undos[seq])
    return gone


def crosses(here: set[int], there: set[int], one: int, other: int) -> bool:
    return (one in here and other in there) or (one in there and other in here)
