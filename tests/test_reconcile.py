from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from identity_graphql.domain.contacts import Cluster, Contact, LinkPrecedence
from identity_graphql.domain.events import Demotion, Outcome
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.reconcile import TICK, Found, Numbers, Request, reconcile
from identity_graphql.domain.state import Pair
from tests.models.oracle import Oracle
from tests.support.identifiers import pair_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NORMALISATION = Normalisation()


def request(email: str | None = None, phone_number: str | None = None) -> Request:
    return Request(NORMALISATION.details(Given(email=email, phone_number=phone_number)), NORMALISATION.version)


def primary(id: int, email: str | None, phone_number: str | None, *, at: datetime = NOW) -> Contact:
    return Contact(id, email, phone_number, None, at, at, None, 1, at, email is not None, phone_number is not None)


def found(*clusters: Cluster, pairs: Iterable[Pair] = (), now: datetime = NOW + 60 * TICK) -> Found:
    return Found(clusters, frozenset(pairs), now)


GEORGE = Cluster((primary(1, "george@hillvalley.edu", "919191"),))
BIFF = Cluster((primary(2, "biffsucks@hillvalley.edu", "717171", at=NOW + TICK),))


def test_an_unknown_customer_becomes_a_primary_of_version_one() -> None:
    plan = reconcile([request("a@x.io", "111")], found())

    (decision,) = plan.decisions
    assert decision.outcome is Outcome.CREATED
    assert decision.contact == decision.cluster.primary
    assert decision.cluster.version == 1
    assert plan.swaps == ()
    (event,) = plan.events
    assert (event.version_before, event.version_after) == (0, 1)
    assert event.at == decision.cluster.primary.created_at == NOW + 60 * TICK


def test_a_new_email_of_a_known_phone_number_is_linked() -> None:
    plan = reconcile([request("new@x.io", "919191")], found(GEORGE))

    (decision,) = plan.decisions
    assert decision.outcome is Outcome.LINKED
    assert decision.contact is not None
    assert decision.contact.linked_id == 1
    assert decision.contact.link_precedence is LinkPrecedence.SECONDARY
    assert [claim.value for claim in decision.contact.claims] == ["new@x.io"]
    assert decision.cluster.emails == ("george@hillvalley.edu", "new@x.io")
    assert decision.cluster.phone_numbers == ("919191",)
    assert [(swap.primary_id, swap.seen, swap.version) for swap in plan.swaps] == [(1, 1, 2)]


def test_a_bridge_demotes_the_younger_primary_and_writes_no_contact() -> None:
    plan = reconcile([request("george@hillvalley.edu", "717171")], found(BIFF, GEORGE))

    (decision,) = plan.decisions
    assert decision.outcome is Outcome.MERGED
    assert decision.contact is None
    assert plan.contacts == ()
    assert [contact.id for contact in decision.demoted] == [2]
    assert decision.cluster.emails == ("george@hillvalley.edu", "biffsucks@hillvalley.edu")
    assert decision.cluster.phone_numbers == ("919191", "717171")
    assert [(swap.primary_id, swap.seen, swap.version) for swap in plan.swaps] == [(1, 1, 2), (2, 1, 2)]
    assert [(contact.id, contact.linked_id) for contact in plan.relinks] == [(2, 1)]
    assert plan.events[0].demoted == (Demotion(2, 1, 2),)


def test_a_merge_moves_the_secondaries_of_the_demoted_primary() -> None:
    secondary = Contact(3, "old@x.io", "717171", 2, NOW + 2 * TICK, NOW + 2 * TICK, claims_email=True)
    biff = Cluster((*BIFF.contacts, secondary))

    plan = reconcile([request("george@hillvalley.edu", "717171")], found(GEORGE, biff))

    at = plan.events[0].at
    assert [(contact.id, contact.linked_id, contact.updated_at) for contact in plan.relinks] == [
        (2, 1, at),
        (3, 1, at),
    ]


def test_the_oldest_primary_wins_and_ties_go_to_the_smaller_id() -> None:
    twin = Cluster((primary(7, "twin@x.io", "777"),))

    plan = reconcile([request("twin@x.io", "919191")], found(twin, GEORGE))

    assert plan.decisions[0].cluster.primary.id == 1


def test_a_pair_seen_for_the_first_time_is_observed_and_seen_again_is_nothing() -> None:
    secondary = Contact(2, "b@x.io", "919191", 1, NOW + TICK, NOW + TICK, claims_email=True)
    third = Contact(3, "b@x.io", "222", 1, NOW + 2 * TICK, NOW + 2 * TICK, claims_phone_number=True)
    cluster = Cluster((*GEORGE.contacts, secondary, third))

    plan = reconcile([request("george@hillvalley.edu", "222")] * 2, found(cluster))

    first, again = plan.decisions
    assert (first.outcome, again.outcome) == (Outcome.OBSERVED, Outcome.UNCHANGED)
    assert first.contact is None
    assert len(plan.events) == 1
    assert again.cluster == first.cluster
    assert not plan.stands(again), "it rests on what the first has yet to write"


@pytest.mark.parametrize(
    "said", [("george@hillvalley.edu", None), (None, "919191"), ("george@hillvalley.edu", "919191")]
)
def test_what_is_known_changes_nothing(said: tuple[str | None, str | None]) -> None:
    plan = reconcile([request(*said)], found(GEORGE, pairs=[pair_of("george@hillvalley.edu", "919191")]))

    assert (plan.swaps, plan.contacts, plan.relinks) == ((), (), ())
    assert plan.stands(plan.decisions[0])
    assert plan.events == ()
    assert plan.decisions[0].outcome is Outcome.UNCHANGED
    assert plan.decisions[0].cluster == GEORGE


def test_a_later_request_of_a_batch_sees_what_an_earlier_one_decided() -> None:
    batch = [
        request("a@x.io", "111"),
        request("a@x.io", "222"),
        request("b@x.io", "222"),
        request("a@x.io", "111"),
    ]

    plan = reconcile(batch, found())

    assert [d.outcome for d in plan.decisions] == ["CREATED", "LINKED", "LINKED", "UNCHANGED"]
    assert [decision.cluster.size for decision in plan.decisions] == [1, 2, 3, 3]
    assert plan.contacts[0].version == 3, "the row is inserted as it is after the batch"
    assert [event.version_after for event in plan.events] == [1, 2, 3]


def test_a_cluster_of_the_batch_can_be_merged_away_in_the_same_batch() -> None:
    plan = reconcile([request("new@x.io", "333"), request("george@hillvalley.edu", "333")], found(GEORGE))

    created, merged = plan.decisions
    assert merged.cluster.primary.id == 1
    assert created.contact is not None
    assert [(c.id, c.linked_id, c.version) for c in plan.contacts] == [(created.contact.id, 1, 2)]
    assert plan.relinks == (), "the contact is inserted as a secondary at once"


def test_time_never_runs_backwards_along_a_cluster_even_if_the_clock_does() -> None:
    slow = NOW - timedelta(hours=1)

    plan = reconcile([request("a@x.io", "919191"), request("b@x.io", "919191")], found(GEORGE, now=slow))

    assert [event.at for event in plan.events] == [NOW + TICK, NOW + 2 * TICK]


def test_new_contacts_have_distinct_times_in_the_order_of_their_requests() -> None:
    plan = reconcile([request(f"{n}@x.io") for n in range(100)], found())

    times = [contact.created_at for contact in plan.contacts]
    assert times == sorted(set(times))


values = st.sampled_from([None, *range(5)])
histories = st.lists(st.tuples(values, values).filter(lambda said: said != (None, None)), max_size=25)


@given(histories)
@settings(max_examples=300, deadline=None)
def test_any_batch_gives_the_answers_of_the_brute_force_model(
    history: Sequence[tuple[int | None, int | None]],
) -> None:
    said = [(None if e is None else f"{e}@x.io", None if p is None else f"555{p}") for e, p in history]
    oracle = Oracle()
    expected = [oracle.identify(*one) for one in said]

    plan = reconcile([request(*one) for one in said], found())

    ids = {contact.id: n for n, contact in enumerate(plan.contacts, 1)}
    decisions = plan.renumbered(Numbers(ids, range(1, len(plan.events) + 1)))
    answers = [
        {
            "primaryContactId": d.cluster.primary.id,
            "emails": list(d.cluster.emails),
            "phoneNumbers": list(d.cluster.phone_numbers),
            "secondaryContactIds": list(d.cluster.secondary_contact_ids),
            "outcome": d.outcome.value,
        }
        for d in decisions
    ]
    assert answers == expected
    assert [d.event.seq for d in decisions if d.event] == list(range(1, len(plan.events) + 1))


def test_what_a_ban_withholds_rests_on_both_clusters() -> None:
    other = Cluster((primary(7, "other@x.io", "777"),))
    known = replace(found(GEORGE, other), any_ban=True, bans=frozenset({(1, 7)}))

    plan = reconcile([request("george@hillvalley.edu", "777")], known)

    (decision,) = plan.decisions
    assert (decision.outcome, decision.withheld, decision.cluster.primary.id) == (Outcome.WITHHELD, True, 1)
    assert [(swap.primary_id, swap.version - swap.seen) for swap in plan.swaps] == [(1, 1), (7, 0)]
