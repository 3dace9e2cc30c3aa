"""An independent brute-force model of `identify`: rows and evidence in lists, everything found by searching.

It knows no primaries, no versions and no links: a cluster is what can be reached over the evidence, computed
anew for every request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
        reached, frontier = {start}, [start]
        while frontier:
            for neighbour in self.edges[frontier.pop()] - reached:
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
