"""Requests that are sets of identifiers of any kind, held against independent models; on every database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain, islice, pairwise
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.identifiers import Given, Identifier, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.reconcile import TICK, Decision, Found, Numbers, Request, reconcile
from identity_graphql.domain.replay import replay
from identity_graphql.domain.state import Pair
from identity_graphql.errors import IdentityError
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.verification import verify
from identity_graphql.storage import tables
from tests.models.oracle import Node, SetOracle, random_sets
from tests.support.databases import Database, check, tables_of
from tests.support.examples import examples
from tests.support.identifiers import email
from tests.support.replayed import check_judged_again, check_replay, events_of
from tests.support.stewards import Steward, working

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FREE = '{"customer_id": {}, "device_id": {}}'
LIMITED = json.dumps(
    {
        "customer_id": {"limit": 1, "on_limit": "withhold"},
        "device_id": {"limit": 4, "on_limit": "withhold"},
        "email": {"limit": 3},
        "phone_number": {"limit": 2},
    }
)
ORACLES = {
    FREE: lambda: SetOracle(["email", "phone_number", "customer_id", "device_id"]),
    LIMITED: lambda: SetOracle(
        ["customer_id", "email", "phone_number", "device_id"],
        {"customer_id": (1, True), "device_id": (4, True), "email": (3, False), "phone_number": (2, False)},
    ),
}
RULES = {declared: Normalisation(kinds=Kinds.parse(declared)) for declared in ORACLES}
Asked = tuple[Sequence[Node], datetime | None]


def given_of(said: Sequence[Node], occurred_at: datetime | None = None) -> Given:
    return Given(identifiers=said, occurred_at=occurred_at)


def decided(result: Decision | IdentityError) -> Decision:
    assert isinstance(result, Decision), result
    return result


def answer(decision: Decision) -> dict[str, Any]:
    cluster = decision.cluster
    kinds = [kind.name for kind in RULES_OF[decision.request.norm].kinds.kinds]
    return {
        "primaryContactId": cluster.primary.id,
        "secondaryContactIds": list(cluster.secondary_contact_ids),
        "identifiers": {kind: list(cluster.values(kind)) for kind in kinds},
        "outcome": decision.outcome.value,
        "kept": {(kept.identifier.kind, kept.identifier.value): kept.limit_kind for kept in decision.kept_back},
        "exceeded": list(decision.exceeded),
    }


RULES_OF = {rules.version: rules for rules in RULES.values()}


# -- on the databases


def asked_at_random(seed: int, count: int, *, people: int, late: float) -> list[Asked]:
    """Sets, some of which were true long ago."""
    random = Random(seed)
    return [
        (said, NOW - timedelta(days=random.randrange(400, 900)) if random.random() < late else None)
        for said in random_sets(seed, count, people=people)
    ]


@pytest.mark.deep
@pytest.mark.parametrize("declared", ORACLES, ids=["free", "limited"])
async def test_random_sets_equal_the_brute_force_model(database: Database, declared: str) -> None:
    storage, oracle = database.open(), ORACLES[declared]()
    service = IdentityService(storage, RULES[declared])
    count = examples(300, 2000)
    asked = asked_at_random(2026, count, people=count // 12, late=0.3)

    random, remaining = Random(declared), iter(asked)
    while batch := list(islice(remaining, random.choice([1, 1, 2, 9]))):
        expected = [oracle.identify(*one) for one in batch]
        decisions = await service.identify_many([given_of(*one) for one in batch])
        assert [answer(decided(decision)) for decision in decisions] == expected, f"request {oracle.told}"

    outcomes = {event["outcome"] for event in (await database.tables())["event"]}
    assert outcomes == {"CREATED", "LINKED", "MERGED", "OBSERVED"} | ({"WITHHELD"} if declared == LIMITED else set())
    await service.close()
    dump = await database.dump(storage)
    await storage.close()
    rows, events = check(tables_of(dump)), events_of(dump)
    check_replay(replay(events), rows)
    check_judged_again(events, replay(events), {rules.version: rules.kinds for rules in RULES.values()})
    assert len(rows["contact"]) == len(oracle.rows)


async def test_who_is_kept_from_a_cluster_of_the_same_batch_is_named_by_its_number(database: Database) -> None:
    storage = database.open()
    service = IdentityService(storage, RULES[LIMITED])
    one, two, bridge = ("customer_id", "1"), ("customer_id", "2"), ("email", "b@x.io")
    await service.identify_many([given_of([one]), given_of([two, bridge]), given_of([one, bridge])])

    dump = await database.dump(storage)
    *_, withheld = check(tables_of(dump))["event"]
    assert withheld["outcome"] == "WITHHELD"
    assert withheld["detail"] == {"kept_back": [[["email", "b@x.io"], "customer_id"]], "kept_from": [2]}
    assert [(row["contact_id"], row["seq"]) for row in tables_of(dump)["event_contact"]] == [(2, 3)]
    check_replay(replay(events_of(dump)), tables_of(dump))
    await service.close()
    await storage.close()


# -- the decision alone


class Rows:
    """What a database would have: found as one finds, and changed as a plan says."""

    def __init__(self, rules: Normalisation) -> None:
        self.rules = rules
        self.contacts: dict[int, Contact] = {}
        self.pairs: dict[Pair, int] = {}
        self.withheld: dict[Pair, tuple[int, str | None]] = {}
        self.events = 0
        self.told = 0

    def clusters(self) -> list[Cluster]:
        primaries = [contact.id for contact in self.contacts.values() if contact.linked_id is None]
        return [Cluster.of(c for c in self.contacts.values() if (c.linked_id or c.id) == p) for p in primaries]

    def identify(self, asked: Sequence[Asked]) -> list[Decision]:
        """One batch. Time goes on by a tick for each request, however they are split."""
        requests = [Request(self.rules.details(given_of(*one)), self.rules.version) for one in asked]
        wanted = {identifier for request in requests for identifier in request.details.identifiers}
        pairs = {pair for request in requests for pair in request.details.pairs}
        found = Found(
            tuple(
                cluster
                for cluster in self.clusters()
                if any(claim in wanted for contact in cluster.contacts for claim in contact.claims)
            ),
            frozenset(pairs & self.pairs.keys()),
            NOW + self.told * TICK,
            dict.fromkeys(pairs & self.withheld.keys(), False),
        )
        self.told += len(asked)
        plan = reconcile(requests, found, self.rules.kinds)
        ids = {contact.id: len(self.contacts) + n for n, contact in enumerate(plan.contacts, 1)}
        seqs = [self.events + n for n, _ in enumerate(plan.events, 1)]
        self.events += len(seqs)
        for swap in plan.swaps:
            contact = self.contacts[swap.primary_id]
            assert contact.version == swap.seen
            self.contacts[contact.id] = replace(contact, version=swap.version, changed_at=swap.changed_at)
        for moved in plan.relinks:
            linked_id = ids.get(moved.linked_id or 0, moved.linked_id)
            contact = replace(self.contacts[moved.id], linked_id=linked_id, updated_at=moved.updated_at)
            self.contacts[moved.id] = contact
        for new in plan.contacts:
            self.contacts[ids[new.id]] = new.renumbered(ids)
        for pair, place in plan.new_pairs:
            assert pair not in self.pairs
            self.pairs[pair] = seqs[place]
        for pair in plan.believed:
            del self.withheld[pair]
        for pair, place, limit_kind in plan.new_withheld:
            assert pair not in self.withheld
            self.withheld[pair] = seqs[place], limit_kind
        return list(plan.renumbered(Numbers(ids, seqs)))


PEOPLE = 4
nodes = st.one_of(
    st.tuples(st.just("customer_id"), st.sampled_from("ABC")),
    st.tuples(st.just("email"), st.sampled_from([f"{n}@x.io" for n in range(5)])),
    st.tuples(st.just("phone_number"), st.sampled_from([f"555{n}" for n in range(4)])),
    st.tuples(st.just("device_id"), st.sampled_from([f"d{n}" for n in range(6)])),
)
sets = st.lists(nodes, min_size=1, max_size=6)
moments = st.one_of(st.none(), st.none(), st.integers(0, 5).map(lambda n: NOW - timedelta(days=n + 1)))
histories = st.lists(st.tuples(sets, moments), min_size=1, max_size=14)
declarations = st.sampled_from(list(ORACLES))
deeply = settings(max_examples=examples(100, 1000), deadline=None)


@pytest.mark.deep
@given(declarations, histories, st.lists(st.integers(1, 5), min_size=14, max_size=14))
@deeply
def test_however_they_are_split_the_answers_and_the_rows_are_those_of_the_brute_force_model(
    declared: str, history: list[Asked], sizes: list[int]
) -> None:
    oracle = ORACLES[declared]()
    expected = [oracle.identify(*one) for one in history]
    ends = [0, *accumulate(sizes)]
    split = [history[start:end] for start, end in pairwise(ends) if history[start:end]]
    seen = []
    for batches in ([history], split, [[one] for one in history]):
        rows = Rows(RULES[declared])
        decisions = list(chain.from_iterable(rows.identify(batch) for batch in batches))
        assert [answer(decision) for decision in decisions] == expected
        seen.append((rows.contacts, rows.pairs, rows.withheld, [decision.event for decision in decisions]))

    assert seen[0] == seen[1] == seen[2]
    pairs, withheld = seen[0][1:3]
    assert {frozenset((one.kind, one.value) for one in pair) for pair in pairs} == {
        frozenset((a, b)) for a, others in oracle.edges.items() for b in others if a != b
    }
    waiting = {frozenset((one.kind, one.value) for one in pair): why for pair, (_, why) in withheld.items()}
    assert waiting == oracle.waiting


@pytest.mark.deep
@given(declarations, histories)
@deeply
def test_what_is_told_twice_is_learned_once(declared: str, history: list[Asked]) -> None:
    rows = Rows(RULES[declared])
    for one in history:
        (first,) = rows.identify([one])
        before = (dict(rows.contacts), dict(rows.pairs), dict(rows.withheld), rows.events)
        again = rows.identify([one, one])

        assert {decision.outcome for decision in again} == {"UNCHANGED"}
        assert {decision.kept_back for decision in again} == {first.kept_back}
        assert [decision.cluster for decision in again] == [first.cluster] * 2
        assert (rows.contacts, rows.pairs, rows.withheld, rows.events) == before


@pytest.mark.deep
@given(histories, st.randoms(use_true_random=False))
@deeply
def test_without_limits_it_does_not_matter_who_comes_first(history: list[Asked], random: Any) -> None:
    shuffled = random.sample(history, len(history))
    partitions = []
    for order in (history, shuffled):
        rows = Rows(RULES[FREE])
        rows.identify(order)
        partitions.append({frozenset(cluster.identifiers) for cluster in rows.clusters()})

    assert partitions[0] == partitions[1]


@pytest.mark.deep
@given(histories)
@deeply
def test_no_customer_has_more_values_than_a_limit_that_withholds(history: list[Asked]) -> None:
    """Unless one request alone has brought none, and no limit was set later."""
    rows = Rows(RULES[LIMITED])
    rows.identify(history)

    for cluster in rows.clusters():
        assert len(cluster.values("customer_id")) <= 1
        assert len(cluster.values("device_id")) <= 4


# -- what stewards do with them


LIMITS = Kinds.parse(
    '{"customer_id": {"limit": 1, "on_limit": "withhold"}, "email": {"limit": 2, "on_limit": "withhold"}}'
)


async def test_one_of_two_emails_that_were_told_together_can_be_erased(database: Database) -> None:
    """The token stands elsewhere in the order of a pair than the value did."""
    async with working(database, kinds=LIMITS) as steward:
        await steward.say(email("ada@x.io"), email("dee@x.io"), Identifier("customer_id", "1"))
        for value in ("ada@x.io", "dee@x.io"):
            await steward.erase(email(value))
            assert value not in str(await database.tables())
        assert await steward.identifiers() == [{"1"}]


async def test_what_a_limit_kept_back_can_be_erased(database: Database) -> None:
    async with working(database, kinds=LIMITS) as steward:
        await steward.say(*map(email, ("a@x.io", "c@x.io", "d@x.io")), Identifier("customer_id", "zoe"))
        assert len((await database.tables())["withheld_pair"]) == 3
        await steward.erase(email("c@x.io"))
        await steward.erase(email("d@x.io"))
        rows = await database.tables()
        assert rows["withheld_pair"] == []
        assert not [value for value in ("c@x.io", "d@x.io") if value in str(rows)]


async def test_a_ban_is_the_reason_also_where_a_limit_would_be(database: Database) -> None:
    async with working(database, kinds=LIMITS) as steward:
        one, two = Identifier("customer_id", "1"), Identifier("customer_id", "2")
        await steward.say(one, email("a@x.io"))
        await steward.say(two, email("b@x.io"))
        limited = await steward.say(one, email("b@x.io"))
        await steward.ban(1, 2)
        banned = await steward.say(two, email("a@x.io"))

        assert [kept.limit_kind for kept in (*limited.kept_back, *banned.kept_back)] == ["customer_id", None]


async def test_undo_judges_identifiers_of_one_kind_in_the_order_in_which_they_were_judged(database: Database) -> None:
    async with working(database, kinds=LIMITS) as steward:
        await steward.say(*(Identifier("customer_id", value) for value in ("2", "1")), email("a@x.io"))
        bridge = await steward.say(email("a@x.io"), Identifier("phone_number", "555123"))
        assert bridge.event is not None
        await steward.undo(bridge.event.seq)

        assert await steward.identifiers() == [{"1", "a@x.io"}], "by value, whatever was given first"


async def test_verify_tells_of_each_damage_to_what_other_kinds_need(database: Database) -> None:
    """Each as what it is, and in one line."""
    storage = database.open()
    steward = Steward(storage, kinds=LIMITS)
    one, two = Identifier("customer_id", "1"), Identifier("customer_id", "2")
    await steward.say(one, email("a@x.io"), email("z@x.io"), occurred_at=NOW - timedelta(days=900))
    await steward.say(two, email("b@x.io"))
    await steward.say(one, email("b@x.io"))
    contact, event, mark, withheld = (
        tables.metadata.tables[name] for name in ("contact", "event", "event_contact", "withheld_pair")
    )
    damages: list[tuple[sa.Executable, str]] = [
        (contact.update().where(contact.c.id == 1).values(others=[["customer_id", "1"]]), "contact 1: its others"),
        (contact.update().where(contact.c.id == 2).values(others=None), "contact 2: its others"),
        (withheld.update().values(limit_kind=None), "withheld pair of event 3: is withheld by "),
        (withheld.update().values(limit_kind="email"), "withheld pair of event 3: is withheld by "),
        (mark.delete(), "mark of event 3 on contact 2: is missing"),
        (mark.insert().values(contact_id=1, seq=1), "mark of event 1 on contact 1: is not in the log"),
        (event.update().where(event.c.seq == 1).values(occurred_at=NOW), "contact 1: its created_at"),
    ]
    for damage, told in damages:
        async with storage.transaction() as connection:
            await connection.execute(damage)
        found: list[Any] = []
        await verify(storage, found.append)
        lines = [str(difference) for difference in found]
        assert len(lines) == 1, lines
        assert told in lines[0]
        async with storage.transaction() as connection:  # as it was
            for number, others in ((1, [["customer_id", "1"], ["email", "z@x.io"]]), (2, [["customer_id", "2"]])):
                await connection.execute(contact.update().where(contact.c.id == number).values(others=others))
            await connection.execute(withheld.update().values(limit_kind="customer_id"))
            await connection.execute(mark.delete())
            await connection.execute(mark.insert().values(contact_id=2, seq=3))
    await steward.close()
    await storage.close()
