"""An independent model of bans: which contacts are kept apart by which decisions, evolving by what happens.

It knows no rows of bans, and nothing of what the log says was changed: only what was asked, and which contacts were
one customer before and after. An undo judges everything again, and the model does not: there it holds what is found
against what stewards saw when they decided, and takes it over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Two = frozenset[int]
Customers = Mapping[int, frozenset[int]]
"""Of every live contact, those of its customer; of one that was deleted and can be restored, itself alone."""


@dataclass(frozen=True)
class Decision:
    """Who was to be kept apart, or no longer, any two of the contacts that the steward saw."""

    seq: int
    lifts: bool
    twos: frozenset[Two]


@dataclass
class Separations:
    apart: dict[Two, set[int]] = field(default_factory=lambda: defaultdict(set))  # -> the decisions
    decisions: dict[int, Decision] = field(default_factory=dict)

    def happened(
        self,
        event: Mapping[str, Any],
        before: Customers,
        after: Customers,
        counted: set[int],
        found: set[Two],
        owners: Mapping[tuple[str, str], int],
    ) -> None:
        """One more event. ``counted``: the events that are not undone; ``found``: who is kept apart after it;
        ``owners``: who claims what, after it."""
        asked = (event["detail"] or {}).get("asked", {})
        verb, seq = asked.get("verb"), event["seq"]
        if verb == "undo":
            self._check_undo(before, after, counted, found)
            self.apart = defaultdict(set, {two: {-seq} for two in found})
            two = asked["contacts"]
            twos = [[owners.get((kind, value)) for kind, value in pair] for pair in asked["pairs"]] or [two]
            for two in twos:
                if two and None not in two:
                    self._decide(seq, *(after.get(contact_id or 0, frozenset()) for contact_id in two))
        elif verb == "ban_link":
            self._decide(seq, before[asked["one"]], before[asked["other"]])
        elif verb == "unban_link" and asked["contacts"]:
            self._decide(seq, *(before[contact_id] for contact_id in asked["contacts"]), lifts=True)
        elif verb == "split_cluster" and asked["ban"]:
            out = frozenset(asked["contact_ids"])
            self._decide(seq, out, before[min(out)] - out)
        self._spread(after)

    def twos(self) -> set[Two]:
        """Any two contacts that are kept apart."""
        return {two for two, decisions in self.apart.items() if decisions}

    def _decide(self, seq: int, here: Iterable[int], there: Iterable[int], *, lifts: bool = False) -> None:
        there = list(there)
        twos = frozenset(frozenset((one, other)) for one in here for other in there)
        self.decisions[seq] = Decision(seq, lifts, twos)
        for two in twos:
            if lifts:
                self.apart.pop(two, None)
            else:
                self.apart[two].add(seq)

    def _spread(self, customers: Customers) -> None:
        """Who became one customer with somebody is apart from whom that one is. Who is gone for good, from nobody."""
        known: dict[Two, set[int]] = defaultdict(set)
        for two, decisions in self.apart.items():
            if two <= customers.keys():
                one, other = two
                assert customers[one] != customers[other], f"contacts {sorted(two)} were kept apart by {decisions}"
                for a in customers[one]:
                    for b in customers[other]:
                        known[frozenset((a, b))] |= decisions
        self.apart = known

    def _check_undo(self, before: Customers, after: Customers, counted: set[int], found: set[Two]) -> None:
        """Whoever a steward decided about and who was kept apart, is."""
        there = before.keys() & after.keys()
        for two in self.twos():
            if not two <= there:
                continue
            decisions = [decision for decision in self.decisions.values() if two in decision.twos]
            in_force = [decision for decision in decisions if decision.seq in counted]
            if in_force and not in_force[-1].lifts:
                assert two in found, f"contacts {sorted(two)} are kept apart by event {in_force[-1].seq}"
