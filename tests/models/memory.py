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
class Side:
    """A customer as a steward saw it: rows by their ids, and what they owned."""

    ids: set[int]
    values: set[str]

    def within(self, memory: Memory, seen: Memory) -> set[int]:
        """Who of another memory it is: its rows, and who owns what it owned and was not there then."""
        heirs = {memory.owners[value] for value in self.values if value in memory.owners}
        return {heir for heir in heirs if not seen.is_live(heir)} | (self.ids & {row.id for row in memory.rows})


@dataclass
class Absent:
    """A decision about two customers who had values that nobody owns here. Whoever brings one of these later, while
    somebody really owned it, is in their place."""

    seq: int
    sides: tuple[Side, Side]
    ids: tuple[set[int], set[int]]
    values: tuple[set[str], set[str]]


@dataclass
class Memory:
    rows: list[Row] = field(default_factory=list)  # in the order of their birth
    owners: dict[str, int] = field(default_factory=dict)  # value -> the row that brought it
    pairs: list[Pair] = field(default_factory=list)
    waiting: list[Pair] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)
    apart: dict[frozenset[int], set[int]] = field(default_factory=dict)  # any two rows -> who decided so
    banned_pairs: list[Pair] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Mapping[str, Any]], gone: set[int] | None = None) -> Memory:
        memory = cls()
        gone = undone(events) if gone is None else gone
        for number, event in enumerate(events):
            if event["seq"] in gone:
                continue
            memory.spread()
            if event["kind"] == "identify":
                owned = set(cls.of(events[:number]).owners) if memory.absent else set()
                memory.request(event["email"], event["phone_number"], event["contact_id"] or -event["seq"], owned)
                continue
            asked = event["detail"]["asked"]
            match asked["verb"]:
                case "merge_clusters" | "delete_contact" as verb:
                    getattr(memory, verb)(asked)
                case "undo":  # what it left is what the steward saw
                    memory.undo(asked, cls.of(events[:number], undone(events[: number + 1])), event["seq"])
                case "unban_link":
                    memory.unban_link(asked, cls.of(events[:number]), gone)
                case verb:
                    getattr(memory, verb)(asked, cls.of(events[:number]), event["seq"])
            memory.believe_what_is_together()
        return memory

    # -- what can be told

    def request(self, email: str | None, phone_number: str | None, new: int, owned: set[str]) -> None:
        values = [value for value in (email, phone_number) if value]
        homes = [self.reach(self.owners[value]) for value in values if value in self.owners]
        pair = (email, phone_number) if email and phone_number else None
        in_place = any(all(self.stands_for(values, absent, n, owned) for n in (0, 1)) for absent in self.absent)
        if pair in self.banned_pairs or (len(homes) == 2 and self.banned(*homes)) or in_place:
            assert pair
            if email not in self.owners:
                self.bear(Row(new, (email, None)))
                self.put_in_place(new, owned)
            if pair not in self.waiting and pair not in self.banned_pairs:
                self.waiting.append(pair)
            return
        if len(homes) < len(values):
            self.bear(Row(new, (email, phone_number)))
        if pair:
            self.believe(pair)
        if len(homes) < len(values):
            self.put_in_place(new, owned)

    def stands_for(self, values: Iterable[str], absent: Absent, n: int, owned: set[str]) -> bool:
        """Whether one of these values is of one of the two customers of a decision."""
        known = [self.reach(self.owners[value]) for value in values if value in self.owners]
        fresh = {value for value in values if value not in self.owners and value in owned}
        return any(absent.ids[n] & reached for reached in known) or not fresh.isdisjoint(absent.values[n])

    def put_in_place(self, new: int, owned: set[str]) -> None:
        brought = {value for value, owner in self.owners.items() if owner == new and value in owned}
        for absent in self.absent:
            for ids, values in zip(absent.ids, absent.values, strict=True):
                if values & brought:
                    values -= brought
                    ids.add(new)
                    self.separate(*absent.ids, {absent.seq})

    def merge_clusters(self, asked: Mapping[str, Any]) -> None:
        one, other = asked["one"], asked["other"]
        if not self.is_live(one, other) or one in self.reach(other):
            return
        if not self.banned(self.reach(one), self.reach(other)):
            self.links.append((one, other))

    def ban_link(self, asked: Mapping[str, Any], seen: Memory, seq: int) -> None:
        self.part(seen.side(asked["one"]), seen.side(asked["other"]), seen, seq)

    def unban_link(self, asked: Mapping[str, Any], seen: Memory, gone: set[int]) -> None:
        if asked["pair"]:
            self.banned_pairs = [pair for pair in self.banned_pairs if pair != _values(asked["pair"])]
            return
        sides = [seen.side(end) for end in asked["contacts"]]
        for a, b in (sides, sides[::-1]):
            self.absent = [one for one in self.absent if not (one.sides[0].ids & a.ids and one.sides[1].ids & b.ids)]
        meant = {frozenset((a, b)) for a in sides[0].ids for b in sides[1].ids}
        # Who is one customer with them here and was none then, and was kept apart then, is still.
        others = {two for two, decisions in seen.apart.items() if decisions - gone and two not in meant}
        here, there = (self.customers(side.within(self, seen)) for side in sides)
        twos = [(h, t) for h in here for t in there if h != t]
        twos = [(h, t) for h, t in twos if not any(frozenset((a, b)) in others for a in h for b in t)]

        def between(pair: Pair) -> bool:
            one, other = (self.reach(self.owners[v]) if v in self.owners else set() for v in pair)
            return (one, other) in twos or (other, one) in twos

        between_them = {frozenset((a, b)) for h, t in twos for a in h for b in t}
        lifted = self.apart.keys() & between_them or any(map(between, self.banned_pairs))
        freed = list(filter(between, self.waiting))
        self.apart = {two: decisions for two, decisions in self.apart.items() if two not in between_them}
        self.banned_pairs = [pair for pair in self.banned_pairs if not between(pair)]
        for pair in freed if asked["rejudge"] and lifted else ():
            if not self.banned(*(self.reach(self.owners[value]) for value in pair)):
                self.believe(pair)

    def split_cluster(self, asked: Mapping[str, Any], seen: Memory, seq: int) -> None:
        leaving = set(asked["contact_ids"])
        cluster = seen.reach(min(leaving))
        one, other = seen.side_of(leaving), seen.side_of(cluster - leaving)
        if asked["ban"]:
            self.part(one, other, seen, seq)
        else:
            self.divide(one.within(self, seen), other.within(self, seen))

    def part(self, one: Side, other: Side, seen: Memory, seq: int) -> None:
        """Two customers for good, also whom of them brings later what nobody owns here."""
        out, rest = one.within(self, seen), other.within(self, seen)
        self.divide(out, rest)
        self.separate(out, rest, {seq})
        missing = [{value for value in side.values if value not in self.owners} for side in (one, other)]
        self.absent.append(Absent(seq, (one, other), (out, rest), (missing[0], missing[1])))

    def divide(self, here: set[int], there: set[int]) -> None:
        """Two customers of each that has some of these and some of those; who is of both stays."""
        for cluster in self.customers(here):
            if cluster & there and cluster & here - there:
                self.cut(cluster & here - there, (cluster - here) | (cluster & there))

    def cut(self, out: set[int], rest: set[int]) -> None:
        """Two customers of one. Each is held together, if by nothing else, by this."""
        self.pairs = [pair for pair in self.pairs if not crosses(out, rest, *(self.owners[value] for value in pair))]
        self.links = [link for link in self.links if not crosses(out, rest, *link)]
        for side in (out, rest):
            first = self.oldest(side)
            apart = side - self.reach(first)
            while apart:
                part = self.oldest(apart)
                apart -= self.reach(part)
                self.links.append((first, part))

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

    def undo(self, asked: Mapping[str, Any], seen: Memory, seq: int) -> None:
        """What was undone is not here at all: only the ban that came with it."""
        contacts, pair = asked["contacts"], asked["pairs"][0] if asked["pairs"] else None
        if pair:
            pair = _values(pair)
            contacts = [seen.owners.get(value) for value in pair]
            if not all(value in self.owners for value in pair):
                self.waiting = [other for other in self.waiting if other != pair]
                self.banned_pairs.append(pair)
        if contacts and None not in contacts:
            self.part(seen.side(contacts[0]), seen.side(contacts[1]), seen, seq)
        if pair and all(value in self.owners for value in pair):
            self.separate({self.owners[pair[0]]}, {self.owners[pair[1]]}, {seq})

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

    def believe_what_is_together(self) -> None:
        for pair in list(self.waiting):
            if all(value in self.owners for value in pair) and self.owners[pair[1]] in self.reach(self.owners[pair[0]]):
                self.believe(pair)

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

    def side(self, contact_id: int) -> Side:
        """The customer of a contact."""
        return self.side_of(self.reach(contact_id) if self.is_live(contact_id) else {contact_id})

    def side_of(self, ids: set[int]) -> Side:
        return Side(ids, {value for value, owner in self.owners.items() if owner in ids})

    def customers(self, ids: Iterable[int]) -> list[set[int]]:
        """Those that these rows are of; a deleted one is one by itself."""
        found = [self.reach(id) if self.is_live(id) else {id} for id in ids]
        return [customer for number, customer in enumerate(found) if customer not in found[:number]]

    def separate(self, here: Iterable[int], there: Iterable[int], decisions: set[int]) -> None:
        for one in self.customers(here):
            for other in self.customers(there):
                for two in {frozenset((a, b)) for a in one for b in other} if one != other else ():
                    self.apart.setdefault(two, set()).update(decisions)

    def spread(self) -> None:
        """Whoever is of one customer is apart from whom anybody of it is apart from."""
        customers = self.customers(row.id for row in self.rows)
        for one in customers:
            for other in customers:
                if one != other and (decisions := self.decisions(one, other)):
                    self.separate(one, other, decisions)

    def decisions(self, here: Iterable[int], there: Iterable[int]) -> set[int]:
        found = (self.apart.get(frozenset((one, other)), set()) for one in here for other in there)
        return set().union(*found)

    def banned(self, here: Iterable[int], there: Iterable[int]) -> bool:
        return bool(self.decisions(here, there))

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

    def separated(self) -> set[frozenset[frozenset[str]]]:
        """Which two customers of `values` a ban separates."""
        customers = self.customers(row.id for row in self.rows if row.live)
        known = {frozenset(c): frozenset(v for v, owner in self.owners.items() if owner in c) for c in customers}
        return {
            frozenset((known[frozenset(one)], known[frozenset(other)]))
            for one in customers
            for other in customers
            if self.banned(one, other)
        }


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


def _values(pair: Sequence[tuple[str, str]]) -> Pair:
    """A pair as the log has it: kind and value of both."""
    (_, email), (_, phone_number) = pair
    return email, phone_number
