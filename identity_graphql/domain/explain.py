"""Why contacts are one customer: the evidence of a cluster, the way from one end of it to another, its weak points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from heapq import heappop, heappush

from msgspec import Struct

from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, IdentifyEvent
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.state import Ban, Node, Pair, State, Withheld


def key(node: Node) -> str:
    """Returns a node as a text that stays the same: "contact:5", "email:a@x.io", "phone_number:555"."""
    return f"contact:{node}" if isinstance(node, int) else f"{node.kind}:{node.value}"


class EdgeKind(StrEnum):
    """What holds two nodes together."""

    PAIR = "PAIR"
    """live evidence: two identifiers that were seen together"""
    LINK = "LINK"
    """a steward's decision about two contacts"""
    CLAIM = "CLAIM"
    """a contact and an identifier that it claims; of one that claims nothing, the identifier that it hangs on"""


class Edge(Struct, frozen=True):
    """Two nodes and what holds them together. A pair's ``source`` is the first identifier, a claim's the contact.

    ``seq`` is the event that said so: of a claim, the one that created the contact, None if that is not known.
    """

    kind: EdgeKind
    source: Node
    target: Node
    seq: int | None


class Graph(Struct, frozen=True):
    """All evidence of a cluster, to be drawn. Equal clusters give equal graphs, contacts come before identifiers."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


class StepKind(StrEnum):
    """What a step of a chain goes by."""

    PAIR = "PAIR"
    """two identifiers that were seen together"""
    LINK = "LINK"
    """a steward's decision about two contacts"""
    CONTACT = "CONTACT"
    """from a contact to an identifier that it brought, or back"""


class Step(Struct, frozen=True):
    """One step of a chain. ``event`` is the one that said so, None if it is not known; a CONTACT's, what created it."""

    kind: StepKind
    source: Node
    target: Node
    event: Event | None


class Chain(Struct, frozen=True):
    """The way from one node to another; no steps from a node to itself."""

    steps: tuple[Step, ...]


class Bridge(Struct, frozen=True):
    """A single piece of evidence, a PAIR or a LINK, without which its cluster falls apart."""

    kind: EdgeKind
    source: Node
    target: Node
    event: Event | None
    walk: tuple[int, ...]
    """The contacts of the cluster, shared by all its bridges: those beyond this one stand next to each other."""
    first: int
    end: int

    @property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The contacts of the two parts that would be left, by id; the part with the primary, the oldest, first.

        Made when it is asked for: together, the bridges of a long chain have as many ids as its length squared.
        """
        beyond, rest = self.walk[self.first : self.end], self.walk[: self.first] + self.walk[self.end :]
        return tuple(sorted(rest)), tuple(sorted(beyond))


_PIECE = 2**32
"""The weight of a piece of evidence, where a step within a contact has 1: more than all such steps together."""


class Between(Struct, frozen=True):
    """What keeps two customers apart: bans, pairs that wait behind them, and evidence that was taken back."""

    bans: tuple[Ban, ...]
    withheld: tuple[tuple[Pair, Withheld], ...]
    undone: tuple[IdentifyEvent, ...]


class Explanation(Struct, frozen=True):
    """Why two contacts or identifiers are one customer, or (without a chain) what keeps them apart."""

    history: ClusterHistory
    chain: Chain | None
    between: Between


NOTHING_BETWEEN = Between((), (), ())


def explanation(history: ClusterHistory, start: Node, goal: Node) -> Explanation:
    """Returns why two nodes of a history are one customer, or what keeps them apart."""
    home = history.home(start)
    found = None if home is None else chain(history.part(home), history.by_seq, start, goal)
    return Explanation(history, found, NOTHING_BETWEEN if found is not None else _between(history, start, goal))


def _between(history: ClusterHistory, start: Node, goal: Node) -> Between:
    homes = {history.home(start), history.home(goal)}
    known = [home for home in homes if home is not None]
    bans = [ban for home in known for ban in history.bans(home)]
    withheld = [one for home in known for one in history.withheld(home)]
    undone = [history.by_seq[seq] for seq in history.undone_by if seq in history.by_seq]
    return Between(
        bans=tuple(sorted({b for b in bans if {history.home(b[0]), history.home(b[1])} == homes})),
        withheld=tuple(sorted({pair: one for pair, one in withheld if _homes(history, pair) == homes}.items())),
        undone=tuple(
            event
            for event in sorted(undone, key=lambda event: event.seq)
            if isinstance(event, IdentifyEvent) and any(_homes(history, pair) == homes for pair in event.pairs)
        ),
    )


def _homes(history: ClusterHistory, pair: Pair) -> set[int | None]:
    return {history.home(end) for end in pair}


def chain(state: State, events: Mapping[int, Event], start: Node, goal: Node) -> Chain | None:
    """Returns how two nodes of a cluster hang together: by the fewest pieces of evidence, and then in the fewest steps.

    A pair or a link is one piece; what one contact brought is together anyway. Of equally short chains it is always
    the same one. None if nothing connects the two, or if one of them is unknown, deleted, or nobody's.

    The algorithm is Dijkstra's ("A note on two problems in connexion with graphs", 1959).
    """
    home = state.home(start)
    if home is None or home != state.home(goal):
        return None
    graph = evidence(state, events, home)
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    ways: list[list[tuple[int, int, int]]] = [[] for _ in graph.nodes]
    for by, edge in enumerate(graph.edges):
        a, b = numbers[edge.source], numbers[edge.target]
        within = edge.kind is EdgeKind.CLAIM or _claimant(state, edge.source) == _claimant(state, edge.target)
        weight = 1 if within else _PIECE
        ways[a].append((b, weight, by))
        ways[b].append((a, weight, by))

    distances = {numbers[start]: 0}
    arrivals: dict[int, tuple[int, int]] = {}  # for each node the one it was reached from, and by which edge
    ahead = [(0, numbers[start])]
    while ahead:
        distance, here = heappop(ahead)
        if here == numbers[goal]:
            return _chain(graph, events, arrivals, here)
        if distance > distances[here]:
            continue  # a shorter way was found after this one
        for there, weight, by in ways[here]:
            if there not in distances or distance + weight < distances[there]:
                distances[there] = distance + weight
                arrivals[there] = here, by
                heappush(ahead, (distance + weight, there))
    return None


def evidence(state: State, events: Mapping[int, Event], primary_id: int) -> Graph:
    """Returns the contacts and identifiers of a cluster, and what holds them together.

    Raises KeyError where there is no cluster with this primary.
    """
    members = state.members[primary_id]
    created = {event.contact_id: seq for seq, event in events.items() if isinstance(event, IdentifyEvent)}
    edges = [
        Edge(EdgeKind.CLAIM, contact_id, identifier, created.get(contact_id))
        for contact_id in sorted(members)
        for identifier in _brought(state, state.contacts[contact_id], members)
    ]
    pairs = [item for item in state.pairs.items() if all(state.claims.get(end) in members for end in item[0])]
    edges += [Edge(EdgeKind.PAIR, *pair, seq) for pair, seq in sorted(pairs)]
    links = [item for item in state.links.items() if members.issuperset(item[0])]
    edges += [Edge(EdgeKind.LINK, *link, seq) for link, seq in sorted(links)]
    identifiers = dict.fromkeys(edge.target for edge in edges if edge.kind is EdgeKind.CLAIM)
    return Graph((*sorted(members), *identifiers), tuple(edges))


def bridges(state: State, events: Mapping[int, Event], primary_id: int) -> tuple[Bridge, ...]:
    """The single pieces of evidence without which this cluster would be two `State.parts`, from the primary outwards.

    Raises KeyError where there is no cluster with this primary.

    After R. E. Tarjan, "A note on finding the bridges of a graph", 1974: number the contacts in preorder, so that what
    is beyond an edge of the spanning tree is one run of numbers. It is a bridge if no other edge leaves that run.
    """
    edges = evidence(state, events, primary_id).edges
    ways: dict[int, list[tuple[int, int]]] = {contact_id: [] for contact_id in state.members[primary_id]}
    for by, edge in enumerate(edges):
        a, b = _claimant(state, edge.source), _claimant(state, edge.target)
        if a != b:
            ways[a].append((b, by))
            ways[b].append((a, by))

    places, arrivals = _depth_first(ways, primary_id)
    walk = tuple(places)
    ends_at = [place + 1 for place in range(len(walk))]  # the run of numbers beyond it, itself the first
    lowest = list(range(len(walk)))  # where edges from this run lead to; never past its end, for it is depth-first
    found: list[Bridge] = []
    for place in range(len(walk) - 1, 0, -1):
        origin, arrival = arrivals[place]
        leads_to = (places[there] for there, by in ways[walk[place]] if by != arrival)
        lowest[place] = min((lowest[place], *leads_to))
        edge = edges[arrival]
        if lowest[place] == place and edge.kind is not EdgeKind.CLAIM:
            event = _event(events, edge)
            found.append(Bridge(edge.kind, edge.source, edge.target, event, walk, place, ends_at[place]))
        lowest[origin] = min(lowest[origin], lowest[place])
        ends_at[origin] = max(ends_at[origin], ends_at[place])
    return tuple(reversed(found))


def _depth_first(
    ways: Mapping[int, Sequence[tuple[int, int]]], start: int
) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """The place of each contact in the walk from this one; for each place the one before it, and the edge between."""
    places: dict[int, int] = {}
    arrivals: list[tuple[int, int]] = []
    ahead = [(start, -1, -1)]
    while ahead:
        contact_id, origin, arrival = ahead.pop()
        if contact_id not in places:
            places[contact_id] = place = len(places)
            arrivals.append((origin, arrival))
            ahead.extend((there, place, by) for there, by in reversed(ways[contact_id]))
    return places, arrivals


def _event(events: Mapping[int, Event], edge: Edge) -> Event | None:
    return None if edge.seq is None else events.get(edge.seq)


def _claimant(state: State, node: Node) -> int:
    """The contact that a node is or is claimed by."""
    return node if isinstance(node, int) else state.claims[node]


def _brought(state: State, contact: Contact, members: set[int]) -> tuple[Identifier, ...]:
    """What a contact claims; if that is nothing, the one identifier by which it goes with another, as in `State.parts`.

    Only one, so that no chain leads through it from one identifier to another: others vouch for these.
    """
    carried = (identifier for identifier in contact.carried if state.claims.get(identifier) in members)
    return state.claimed(contact) or tuple(carried)[:1]


def _chain(graph: Graph, events: Mapping[int, Event], arrivals: Mapping[int, tuple[int, int]], number: int) -> Chain:
    steps: list[Step] = []
    while number in arrivals:
        before, by = arrivals[number]
        edge = graph.edges[by]
        steps.append(Step(_STEPS[edge.kind], graph.nodes[before], graph.nodes[number], _event(events, edge)))
        number = before
    return Chain(tuple(reversed(steps)))


_STEPS = {EdgeKind.PAIR: StepKind.PAIR, EdgeKind.LINK: StepKind.LINK, EdgeKind.CLAIM: StepKind.CONTACT}
