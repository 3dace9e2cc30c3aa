"""An independent brute-force model of `identify`: rows and evidence in lists, everything found by searching.

It knows no primaries, no versions and no links: a cluster is what can be reached over the evidence, computed
anew for every request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

Node = tuple[str, str]


@dataclass
class Oracle:
    rows: list[tuple[int, str | None, str | None]] = field(default_factory=list)  # in the order of their birth
    edges: defaultdict[Node, set[Node]] = field(default_factory=lambda: defaultdict(set))

    def identify(self, email: str | None, phone_number: str | None) -> dict[str, Any]:
        """The answer under the contract `flat`, and the outcome."""
        said = (("email", email), ("phone", phone_number))
        nodes: list[Node] = [(kind, value) for kind, value in said if value is not None]
        nodes_known = [node in self.edges for node in nodes]
        before = [frozenset(self.reach(node)) for node, known in zip(nodes, nodes_known, strict=True) if known]
        paired = len(nodes) == 2 and nodes[1] in self.edges.get(nodes[0], ())
        for node in nodes:
            self.edges[node].update(nodes)
        if not all(nodes_known):
            self.rows.append((len(self.rows) + 1, email, phone_number))
            outcome = "LINKED" if before else "CREATED"
        elif len(set(before)) == 2:
            outcome = "MERGED"
        else:
            outcome = "UNCHANGED" if paired or len(nodes) == 1 else "OBSERVED"
        return {**self.answer(nodes[0]), "outcome": outcome}

    def answer(self, node: Node) -> dict[str, Any]:
        reached = self.reach(node)
        rows = [row for row in self.rows if ("email", row[1]) in reached or ("phone", row[2]) in reached]
        return {
            "primaryContactId": rows[0][0],
            "emails": unique(row[1] for row in rows),
            "phoneNumbers": unique(row[2] for row in rows),
            "secondaryContactIds": [row[0] for row in rows[1:]],
        }

    def reach(self, start: Node) -> set[Node]:
        return reached_from(start, self.edges)


def reached_from(start: Node, edges: Mapping[Node, set[Node]]) -> set[Node]:
    reached, frontier = {start}, [start]
    while frontier:
        for neighbour in edges[frontier.pop()] - reached:
            reached.add(neighbour)
            frontier.append(neighbour)
    return reached


def unique(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))


def random_requests(seed: int, count: int, *, people: int) -> Sequence[tuple[str | None, str | None]]:
    """Requests of so many people with a few emails and phone numbers each, who sometimes share one."""
    random = Random(seed)
    requests: list[tuple[str | None, str | None]] = []
    for _ in range(count):
        person, other = random.randrange(people), random.randrange(people)
        email: str | None = f"p{person}.{random.randrange(6)}@example.com"
        phone_number: str | None = f"+1555{person:04}{random.randrange(6)}"
        shape = random.random()
        if shape < 0.15:
            phone_number = None
        elif shape < 0.30:
            email = None
        elif shape < 0.33:
            phone_number = f"+1555{other:04}{random.randrange(6)}"
        requests.append((email, phone_number))
    return requests


@dataclass
class Row:
    """One contact: ``born`` is its age, as something that compares; the smaller, the older."""

    id: int
    born: tuple[Any, ...]
    carried: list[Node]


@dataclass
class SetOracle:
    """The same for requests that are sets of identifiers of any kind, with limits and without bans.

    ``kinds``: by priority. ``limits``: how many values of a kind a customer may have, and whether what would exceed
    that is kept back. A customer is what can be reached over the evidence; what is waiting is no evidence.
    """

    kinds: Sequence[str]
    limits: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    edges: defaultdict[Node, set[Node]] = field(default_factory=lambda: defaultdict(set))
    waiting: dict[frozenset[Node], str] = field(default_factory=dict)  # pair -> the kind whose limit is why
    told: int = 0

    def identify(self, said: Sequence[Node], occurred_at: Any = None) -> dict[str, Any]:
        """The answer, its outcome, what is kept back and why, and which limits were exceeded."""
        self.told += 1
        nodes = [node for kind in self.kinds for node in in_columns(list(dict.fromkeys(said))) if node[0] == kind]
        before = self.customers()
        joined, kept = self.joining(nodes, before)
        homes = [customer for customer in before if not customer.isdisjoint(joined)]
        fresh = [node for node in joined if not any(node in home for home in homes)]
        pairs = {frozenset((a, b)) for a in joined for b in joined if a != b and b not in self.edges[a]}
        waits = {
            frozenset((a, b)): why
            for b, why in kept.items()
            for a in joined
            if frozenset((a, b)) not in self.waiting and a not in self.edges[b]
        }
        exceeded = self.exceeded(joined, before)
        for node in joined:
            self.edges[node].update(joined)
        for pair in pairs:
            self.waiting.pop(pair, None)
        self.waiting.update(waits)
        if fresh:
            born = (0, occurred_at) if occurred_at is not None else (1, self.told)
            self.rows.append(Row(len(self.rows) + 1, born, joined))
        if kept:
            outcome = "WITHHELD" if fresh or pairs or waits or len(homes) > 1 else "UNCHANGED"
        elif not homes:
            outcome = "CREATED"
        elif len(homes) > 1:
            outcome = "MERGED"
        else:
            outcome = "LINKED" if fresh else "OBSERVED" if pairs else "UNCHANGED"
        return {**self.answer(joined[0]), "outcome": outcome, "kept": kept, "exceeded": exceeded}

    def joining(self, nodes: Sequence[Node], before: Sequence[set[Node]]) -> tuple[list[Node], dict[Node, str]]:
        """In order of priority: what joins, and what is kept back, each with the kind whose limit is why."""
        joined: list[Node] = []
        kept: dict[Node, str] = {}
        for node in nodes:
            why = self.forbidding([*joined, node], before) if joined else None
            if why is None:
                joined.append(node)
            else:
                kept[node] = why
        return joined, kept

    def forbidding(self, nodes: Sequence[Node], before: Sequence[set[Node]]) -> str | None:
        """The first kind of which these would have too many values together, if that is forbidden."""
        for kind in self.kinds:
            limit, withholds = self.limits.get(kind, (0, False))
            if withholds and self.rises_above(kind, limit, nodes, before):
                return kind
        return None

    def exceeded(self, nodes: Sequence[Node], before: Sequence[set[Node]]) -> list[str]:
        limited = [(kind, self.limits[kind][0]) for kind in self.kinds if kind in self.limits]
        return [kind for kind, limit in limited if self.rises_above(kind, limit, nodes, before)]

    @staticmethod
    def rises_above(kind: str, limit: int, nodes: Iterable[Node], before: Sequence[set[Node]]) -> bool:
        """Whether these together have more values of a kind than the limit, and than each of their customers had."""
        homes = [customer for customer in before if not customer.isdisjoint(nodes)]
        together = set(nodes).union(*homes)
        count = sum(node[0] == kind for node in together)
        return count > limit and all(count > sum(node[0] == kind for node in home) for home in homes)

    def customers(self) -> list[set[Node]]:
        """What belongs together, each once."""
        found: list[set[Node]] = []
        for node in list(self.edges):
            if self.edges[node] and not any(node in customer for customer in found):
                found.append(self.reach(node))
        return found

    def answer(self, node: Node) -> dict[str, Any]:
        reached = self.reach(node)
        rows = sorted((row for row in self.rows if reached.issuperset(row.carried)), key=lambda row: (row.born, row.id))
        seen = [node for row in rows for node in in_columns(row.carried)]
        return {
            "primaryContactId": rows[0].id,
            "secondaryContactIds": [row.id for row in rows[1:]],
            "identifiers": {kind: unique(value for of, value in seen if of == kind) for kind in self.kinds},
        }

    def reach(self, start: Node) -> set[Node]:
        return reached_from(start, self.edges)


def in_columns(carried: Sequence[Node]) -> list[Node]:
    """The first email, the first phone number, and the rest in order."""
    firsts = [next((node for node in carried if node[0] == kind), None) for kind in ("email", "phone_number")]
    return [*(node for node in firsts if node), *sorted(node for node in carried if node not in firsts)]


def random_sets(seed: int, count: int, *, people: int, most: int = 6) -> Sequence[list[Node]]:
    """Requests of so many people, who have a customer id, two emails, two phone numbers and a few devices, and
    sometimes share one of these."""
    random = Random(seed)
    requests: list[list[Node]] = []
    for _ in range(count):
        person = random.randrange(people)
        said: list[Node] = []
        for _ in range(random.randint(1, most)):
            owner = random.randrange(people) if random.random() < 0.02 else person
            kind = random.choice(["customer_id", "email", "email", "phone_number", "device_id", "device_id"])
            said.append((kind, VALUES[kind].format(owner=owner, which=random.randrange(3))))
        requests.append(said)
    return requests


VALUES = {
    "customer_id": "C-{owner}",
    "email": "p{owner}.{which}@example.com",
    "phone_number": "+1555{owner:04}{which}",
    "device_id": "d{owner}/{which}",
}
