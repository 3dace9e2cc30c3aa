from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from math import inf
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from identity_graphql.domain.changes import THIS_EVENT, Changes
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, IdentifyEvent, Outcome, VerbEvent
from identity_graphql.domain.explain import (
    Chain,
    Edge,
    EdgeKind,
    Step,
    StepKind,
    bridges,
    chain,
    evidence,
    key,
)
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Given, Identifier, Normalisation, pairs_of
from identity_graphql.domain.reconcile import Found, Request, reconcile
from identity_graphql.domain.replay import replay
from identity_graphql.domain.sentences import step
from identity_graphql.domain.state import Node, State, bond
from identity_graphql.domain.verbs import MergeClusters, SplitCluster
from tests.support.identifiers import email, pair_of, phone_number

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
NORMALISATION = Normalisation()

Log = tuple[State, dict[int, Event]]


def event(seq: int, primary_id: int, version: int, **columns: Any) -> Event:
    """The event of this number, ``seq`` seconds after the first; ``version`` is its cluster's before."""
    nothing: dict[str, Any] = dict.fromkeys(("email", "phone_number", "contact_id"))
    common = {"outcome": Outcome.LINKED, "raw": {}, "norm": "1", "demoted": ()}
    return IdentifyEvent(
        at=NOW + timedelta(seconds=seq),
        seq=seq,
        primary_id=primary_id,
        version_before=version,
        version_after=version + 1,
        **(nothing | common | columns),
    )


def seen(*said: tuple[str | None, str | None]) -> Log:
    """What these requests lead to, one second after the other; contacts and events are numbered from 1."""
    requests = [Request(NORMALISATION.details(Given(email=e, phone_number=p)), NORMALISATION.version) for e, p in said]
    plan = reconcile(requests, Found((), frozenset(), NOW))
    ids = {contact.id: number for number, contact in enumerate(plan.contacts, 1)}
    events = [
        replace(decided.renumbered(ids), seq=seq, at=NOW + timedelta(seconds=seq))
        for seq, decided in enumerate(plan.events, 1)
    ]
    return replay(events), {event.seq: event for event in events}


def linked(log: Log, one: int, other: int, *, by_split: bool = False) -> Log:
    """The log after one more event: a steward linked two contacts."""
    state, events = log
    after = state.copy()
    here, there = after.primary_of(one), after.primary_of(other)
    after.links[bond(one, other)] = THIS_EVENT
    primary_id = here if here == there else after.join(here, there, NOW)
    seq, version = len(events) + 1, state.contacts[primary_id].version
    link = VerbEvent(
        at=NOW + timedelta(seconds=seq),
        seq=seq,
        verb=SplitCluster((one, other)) if by_split else MergeClusters(one, other),
        changes=Changes.between(state, after),
        about=(one, other),
        actor="ann",
        reason="she called",
        norm="1",
        primary_id=primary_id,
        version_before=version,
        version_after=version + 1,
    )
    return replay([link], state.copy()), {**events, link.seq: link}


def words(found: Chain) -> tuple[str, ...]:
    return tuple(map(step, found.steps))


def steps(found: Chain | None) -> list[tuple[str, str, str]]:
    assert found is not None
    return [(step.kind.value, key(step.source), key(step.target)) for step in found.steps]


def a_long_chain(length: int) -> Log:
    """A cluster in which every contact shares an identifier with the one before it, and with no other."""
    events = [
        event(n + 1, 1, n, contact_id=n + 1, email=f"{(n + 1) // 2}@x.io", phone_number=f"555{n // 2}")
        for n in range(length)
    ]
    return replay(events), {event.seq: event for event in events}


GEORGE = seen(("a@x.io", "555"), ("b@x.io", "555"), ("b@x.io", "777"))


# -- chains


def test_a_chain_names_each_pair_with_the_event_that_brought_it() -> None:
    found = chain(*GEORGE, email("a@x.io"), phone_number("777"))

    assert found is not None
    assert words(found) == (
        "a@x.io and 555 were seen together on 2026-01-31 09:30:01 UTC (event 1)",
        "555 and b@x.io were seen together on 2026-01-31 09:30:02 UTC (event 2)",
        "b@x.io and 777 were seen together on 2026-01-31 09:30:03 UTC (event 3)",
    )


def test_a_chain_from_a_contact_says_what_it_brought() -> None:
    found = chain(*GEORGE, 1, 2)

    assert found is not None
    assert words(found) == (
        "contact 1 brought 555 on 2026-01-31 09:30:01 UTC (event 1)",
        "555 and b@x.io were seen together on 2026-01-31 09:30:02 UTC (event 2)",
        "contact 2 brought b@x.io on 2026-01-31 09:30:02 UTC (event 2)",
    )


@pytest.mark.parametrize("node", [1, email("a@x.io")])
def test_nothing_stands_between_a_thing_and_itself(node: Node) -> None:
    assert chain(*GEORGE, node, node) == Chain(())


@pytest.mark.parametrize("node", [99, email("nobody@x.io"), 2])
def test_what_is_not_there_or_in_another_cluster_is_not_connected(node: Node) -> None:
    state, events = seen(("a@x.io", "555"), ("other@x.io", "888"))

    assert chain(state, events, 1, node) is None
    assert chain(state, events, node, 1) is None


def test_a_deleted_contact_is_not_connected_even_to_itself() -> None:
    state, events = seen(("a@x.io", "555"))
    state.put(replace(state.contacts[1], deleted_at=NOW))
    state.claims.clear()

    assert chain(state, events, 1, 1) is None


def test_a_stewards_link_is_told_with_who_and_why() -> None:
    log = linked(seen(("a@x.io", "555"), ("b@x.io", "777")), 1, 2)

    found = chain(*log, email("a@x.io"), 2)

    assert steps(found) == [("CONTACT", "email:a@x.io", "contact:1"), ("LINK", "contact:1", "contact:2")]
    assert found is not None
    assert words(found)[1] == "ann linked contact 1 and contact 2 on 2026-01-31 09:30:03 UTC (event 3): she called"


def test_a_link_that_a_split_left_is_not_called_a_merge() -> None:
    log = linked(seen(("a@x.io", "555"), ("b@x.io", "777")), 1, 2, by_split=True)

    found = chain(*log, 2, 1)

    assert found is not None
    assert words(found) == (
        "ann left contact 2 and contact 1 together in a split on 2026-01-31 09:30:03 UTC (event 3): she called",
    )


def test_steps_whose_events_are_not_known_are_told_without_a_date() -> None:
    state, _ = linked(seen(("a@x.io", "555"), ("b@x.io", "777")), 1, 2)

    found = chain(state, {}, email("a@x.io"), 2)

    assert found is not None
    assert words(found) == ("contact 1 brought a@x.io", "a steward linked contact 1 and contact 2")
    assert [step.event for step in found.steps] == [None, None]


def test_a_link_of_a_deleted_contact_connects_nothing() -> None:
    state, events = linked(linked(seen(("a@x.io", None), ("b@x.io", None), ("c@x.io", None)), 1, 2), 2, 3)
    state.put(replace(state.contacts[2], deleted_at=NOW))
    del state.claims[email("b@x.io")]

    assert chain(state, events, 1, 3) is None


def test_a_chain_goes_through_a_contact_only_where_its_own_pair_is_no_evidence_any_more() -> None:
    state, events = GEORGE
    assert steps(chain(state, events, email("a@x.io"), phone_number("555"))) == [
        ("PAIR", "email:a@x.io", "phone_number:555")
    ]
    state = state.copy()
    del state.pairs[pair_of("a@x.io", "555")]

    assert steps(chain(state, events, email("a@x.io"), phone_number("555"))) == [
        ("CONTACT", "email:a@x.io", "contact:1"),
        ("CONTACT", "contact:1", "phone_number:555"),
    ]


def test_the_shortest_chain_is_the_one_of_the_fewest_pieces_of_evidence() -> None:
    log = a_long_chain(9)
    assert len(steps(chain(*log, 1, 9))) == 10

    assert steps(chain(*linked(log, 1, 8), 1, 9)) == [
        ("LINK", "contact:1", "contact:8"),
        ("CONTACT", "contact:8", "email:4@x.io"),
        ("PAIR", "email:4@x.io", "phone_number:5554"),
        ("CONTACT", "phone_number:5554", "contact:9"),
    ]


def test_of_equally_good_chains_the_one_of_fewer_steps_is_told() -> None:
    log = linked(seen(("a@x.io", "555"), ("b@x.io", "555")), 1, 2)

    assert steps(chain(*log, 1, 2)) == [("LINK", "contact:1", "contact:2")]


def a_restored_contact() -> Log:
    """Contact 2 claims nothing: what it carries was brought by 1 and 3, who have a link."""
    log = linked(seen(("a@x.io", None), ("lost@x.io", "999"), (None, "777")), 1, 3)
    state = log[0]
    del state.claims[email("lost@x.io")], state.claims[phone_number("999")], state.pairs[pair_of("lost@x.io", "999")]
    state.put(replace(state.contacts[2], email="a@x.io", phone_number="777", linked_id=1))
    return log


def test_a_contact_that_claims_nothing_goes_with_the_first_that_does() -> None:
    log = a_restored_contact()

    assert steps(chain(*log, 2, 1)) == [
        ("CONTACT", "contact:2", "email:a@x.io"),
        ("CONTACT", "email:a@x.io", "contact:1"),
    ]


def test_no_chain_leads_through_a_contact_that_claims_nothing() -> None:
    assert steps(chain(*a_restored_contact(), email("a@x.io"), phone_number("777"))) == [
        ("CONTACT", "email:a@x.io", "contact:1"),
        ("LINK", "contact:1", "contact:3"),
        ("CONTACT", "contact:3", "phone_number:777"),
    ]


def test_a_contact_that_claims_nothing_is_no_way_into_another_cluster() -> None:
    state, events = seen(("a@x.io", None), ("lost@x.io", None), (None, "777"))
    del state.claims[email("lost@x.io")]
    state.put(replace(state.contacts[2], email="a@x.io", phone_number="777", linked_id=3))

    assert steps(chain(state, events, 2, 3)) == [
        ("CONTACT", "contact:2", "phone_number:777"),
        ("CONTACT", "phone_number:777", "contact:3"),
    ]
    assert chain(state, events, 2, 1) is None
    assert bridges(state, events, 3) == ()


# -- the evidence, to be drawn


def test_the_graph_of_a_cluster_has_its_contacts_its_identifiers_and_all_that_holds_them_together() -> None:
    graph = evidence(*linked(GEORGE, 1, 3), 1)

    assert [key(node) for node in graph.nodes] == [
        *("contact:1", "contact:2", "contact:3"),
        *("email:a@x.io", "phone_number:555", "email:b@x.io", "phone_number:777"),
    ]
    assert graph.edges == (
        Edge(EdgeKind.CLAIM, 1, email("a@x.io"), 1),
        Edge(EdgeKind.CLAIM, 1, phone_number("555"), 1),
        Edge(EdgeKind.CLAIM, 2, email("b@x.io"), 2),
        Edge(EdgeKind.CLAIM, 3, phone_number("777"), 3),
        Edge(EdgeKind.PAIR, email("a@x.io"), phone_number("555"), 1),
        Edge(EdgeKind.PAIR, email("b@x.io"), phone_number("555"), 2),
        Edge(EdgeKind.PAIR, email("b@x.io"), phone_number("777"), 3),
        Edge(EdgeKind.LINK, 1, 3, 4),
    )


def test_the_graph_has_nothing_of_other_clusters_and_claims_without_an_event_where_it_is_not_known() -> None:
    state, _ = seen(("other@x.io", "888"), ("a@x.io", None))

    assert evidence(state, {}, 2).edges == (Edge(EdgeKind.CLAIM, 2, email("a@x.io"), None),)


def test_there_is_no_evidence_of_a_cluster_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        evidence(*GEORGE, 2)
    with pytest.raises(KeyError):
        bridges(*GEORGE, 2)


# -- bridges


def test_each_link_of_a_chain_is_a_bridge_and_says_what_would_be_left() -> None:
    found = bridges(*GEORGE, 1)

    assert [(b.kind, b.source, b.target, b.event and b.event.seq, b.parts) for b in found] == [
        (EdgeKind.PAIR, email("b@x.io"), phone_number("555"), 2, ((1,), (2, 3))),
        (EdgeKind.PAIR, email("b@x.io"), phone_number("777"), 3, ((1, 2), (3,))),
    ]


def test_two_pieces_of_evidence_between_the_same_two_contacts_are_no_bridges() -> None:
    log = seen(("a@x.io", "555"), ("b@x.io", "777"), ("a@x.io", "777"))
    assert len(bridges(*log, 1)) == 1

    assert bridges(*seen(("a@x.io", "555"), ("b@x.io", "777"), ("a@x.io", "777"), ("b@x.io", "555")), 1) == ()
    assert bridges(*linked(log, 1, 2), 1) == ()


def test_a_contact_that_claims_nothing_hangs_on_without_evidence_that_could_be_taken_away() -> None:
    (found,) = bridges(*a_restored_contact(), 1)

    assert (found.kind, found.parts) == (EdgeKind.LINK, ((1, 2), (3,)))


# -- against models that try everything

Small = st.integers(0, 4)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Any few contacts that carry and claim something or nothing, any pairs of what is claimed, any links."""
    state = State()
    rows = draw(st.lists(st.tuples(st.none() | Small, st.none() | Small, Small), min_size=1, max_size=9))
    for contact_id, (e, p, second) in enumerate(rows, 1):
        at = NOW + timedelta(seconds=second)
        said = None if e is None else f"{e}@x.io", None if p is None else f"555{p}"
        contact = Contact(contact_id, *said, None, at, at)
        state.put(contact)
        for identifier in contact.carried:
            if identifier not in state.claims or draw(st.booleans()):
                state.claims[identifier] = contact_id
    emails, phone_numbers = (sorted(i for i in state.claims if i.kind == kind) for kind in (EMAIL, PHONE_NUMBER))
    if emails and phone_numbers:
        pairs = st.tuples(st.sampled_from(emails), st.sampled_from(phone_numbers))
        state.pairs.update({pair: seq for seq, pair in enumerate(draw(st.lists(pairs, max_size=10, unique=True)), 1)})
    ids = st.sampled_from(sorted(state.contacts))
    for one, other in draw(st.lists(st.tuples(ids, ids), max_size=4)):
        if one != other:
            state.links[bond(one, other)] = 100
    for part in state.parts(state.contacts):
        state.gather(part, NOW)
    return state


@given(states())
@settings(max_examples=300, deadline=None)
def test_a_bridge_is_what_cannot_be_taken_away_without_the_cluster_falling_into_its_parts(state: State) -> None:
    for primary_id, members in state.members.items():
        falls: dict[tuple[Node, Node], list[set[int]]] = {}
        for pair in state.pairs:
            without = state.copy()
            del without.pairs[pair]
            falls[pair] = without.parts(members)
        for link in state.links:
            without = state.copy()
            del without.links[link]
            falls[link] = without.parts(members)

        found = bridges(state, {}, primary_id)

        assert {(b.source, b.target): list(map(set, b.parts)) for b in found} == {
            two: parts for two, parts in falls.items() if len(parts) > 1
        }
        assert len(found) == len({(b.source, b.target) for b in found})


def costs(state: State) -> dict[tuple[Node, Node], float]:
    """How many pieces of evidence stand between any two nodes, by trying every node as a stop on the way."""
    nodes: list[Node] = [*state.contacts, *state.claims]
    between: dict[tuple[Node, Node], float] = {(a, b): 0 if a == b else inf for a in nodes for b in nodes}
    edges: list[tuple[Node, Node, int]] = [(identifier, claimant, 0) for identifier, claimant in state.claims.items()]
    for contact in state.contacts.values():
        carried = [identifier for identifier in contact.carried if identifier in state.claims]
        if carried and not state.claimed(contact):
            edges.append((contact.id, carried[0], 0))
    edges += [(*pair, 1) for pair in state.pairs]
    edges += [(*link, 1) for link in state.links]
    for a, b, cost in edges:
        between[a, b] = between[b, a] = min(between[a, b], cost)
    for stop in nodes:
        for a in nodes:
            for b in nodes:
                between[a, b] = min(between[a, b], between[a, stop] + between[stop, b])
    return between


def pieces(state: State, steps: Iterable[Step]) -> int:
    """What a chain costs: its links, and its pairs of what two contacts brought."""
    return sum(
        step.kind is StepKind.LINK
        or (step.kind is StepKind.PAIR and len({state.claims.get(end) for end in (step.source, step.target)}) == 2)  # type: ignore[arg-type]
        for step in steps
    )


def holds(state: State, step: Step) -> bool:
    """Whether a step is what it says."""
    match step.source, step.target:
        case Identifier() as one, Identifier() as other:
            (pair,) = pairs_of((one, other))
            return step.kind is StepKind.PAIR and pair in state.pairs
        case int() as one, int() as other:
            return step.kind is StepKind.LINK and bond(one, other) in state.links
        case (int() as contact_id, Identifier() as identifier) | (Identifier() as identifier, int() as contact_id):
            return step.kind is StepKind.CONTACT and identifier in state.contacts[contact_id].carried
    return False


@given(states())
@settings(max_examples=200, deadline=None)
def test_a_chain_is_an_unbroken_way_by_the_fewest_pieces_of_evidence(state: State) -> None:
    for (start, goal), cost in costs(state).items():
        found = chain(state, {}, start, goal)

        assert (found is None) == (cost == inf)
        if found is not None:
            assert [start, *(step.target for step in found.steps)] == [*(step.source for step in found.steps), goal]
            assert all(holds(state, step) for step in found.steps)
            assert pieces(state, found.steps) == cost


@given(states())
@settings(max_examples=100, deadline=None)
def test_the_order_in_which_rows_were_read_changes_nothing(state: State) -> None:
    twin = state.copy()
    twin.contacts = dict(reversed(state.contacts.items()))
    twin.claims = dict(reversed(state.claims.items()))
    twin.pairs = dict(reversed(state.pairs.items()))
    twin.links = dict(reversed(state.links.items()))

    for primary_id in state.members:
        graph = evidence(state, {}, primary_id)
        assert evidence(twin, {}, primary_id) == graph
        assert bridges(twin, {}, primary_id) == bridges(state, {}, primary_id)
        for goal in graph.nodes:
            assert chain(twin, {}, primary_id, goal) == chain(state, {}, primary_id, goal)


# -- size


def test_a_cluster_of_ten_thousand_contacts_is_explained_at_once() -> None:
    log = a_long_chain(10_000)
    begun = perf_counter()

    found = chain(*log, 1, 10_000)
    weak = bridges(*log, 1)

    assert perf_counter() - begun < 2, "a tenth of it is usual; what is quadratic takes minutes"
    assert found is not None
    assert len(found.steps) == 10_001
    assert len(weak) == 9_999
    assert [len(part) for part in weak[4_999].parts] == [5_000, 5_000]
