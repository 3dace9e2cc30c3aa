"""`simulate` predicts what the log would have come to under other rules, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import random
import shutil
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from identity_graphql.domain.identifiers import Details, Given, Identifier, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.reconcile import Found, Plan, Request, reconcile
from identity_graphql.domain.simulation import NOBODY, LoggedRequest, Outlook, Rules, Simulation, World
from identity_graphql.errors import IdentityError, InvalidInput
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.simulation import simulate
from tests.support.databases import Database, Databases, Tables, migrate
from tests.support.examples import examples
from tests.support.identifiers import email, phone_number
from tests.support.program import PROGRAM, environment, refused, run
from tests.support.stewards import Steward

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1000)

Customers = dict[frozenset[Identifier], frozenset[Identifier]]
"""Who is one customer, by identifiers: those of each, and of them those that its primary brought."""


def rules(kinds: str = "", region: str | None = None, blocked: Collection[Identifier] = ()) -> Rules:
    return Rules(Normalisation(region, Kinds.parse(kinds)), frozenset(blocked))


# -- the program's own decision, as the model


def read(given: Given, under: Rules) -> Details | None:
    """What a request says under some rules; None if it is refused."""
    try:
        details = under.normalisation.details(given)
    except InvalidInput:
        return None
    left = tuple(identifier for identifier in details.identifiers if identifier not in under.blocked)
    return replace(details, identifiers=left) if left else None


def decided(requests: Iterable[Details], under: Rules) -> Plan:
    """What these requests come to, one after the other."""
    batch = [Request(details, under.normalisation.version) for details in requests]
    return reconcile(batch, Found((), frozenset(), NOW), under.normalisation.kinds)


def logged(plan: Plan) -> list[LoggedRequest]:
    """The log that a plan writes, contacts and events numbered from 1 on."""
    ids = {contact.id: number for number, contact in enumerate(plan.contacts, 1)}
    return [
        LoggedRequest(
            seq,
            ids[event.primary_id if event.contact_id is None else event.contact_id],
            event.born_at,
            event.identifiers,
            event.raw,
            event.kept_back,
            event.exceeded,
        )
        for seq, event in enumerate(plan.events, 1)
    ]


def simulated(log: Iterable[LoggedRequest], under: Rules) -> Simulation:
    simulation = Simulation(under, examples=1000)
    for request in log:
        simulation.add(request)
    return simulation


def customers_of_plan(plan: Plan) -> Customers:
    contacts = {contact.id: contact for contact in plan.contacts}
    found: dict[int, set[Identifier]] = defaultdict(set)
    for contact in plan.contacts:
        found[contact.linked_id or contact.id].update(contact.claims)
    return {frozenset(all_of_it): frozenset(contacts[root].claims) for root, all_of_it in found.items()}


def customers_of(world: World, identifiers: Iterable[Identifier]) -> Customers:
    claims: dict[int, set[Identifier]] = defaultdict(set)
    for identifier in identifiers:
        if (contact := world.claimant(identifier)) != NOBODY:
            claims[contact].add(identifier)
    assert len(claims) == world.contacts
    clusters: dict[int, list[int]] = defaultdict(list)
    for contact in claims:
        clusters[world.root(contact)].append(contact)
    assert len(clusters) == world.clusters
    assert all(world.size(root) == len(contacts) for root, contacts in clusters.items())
    return {
        frozenset().union(*(claims[contact] for contact in contacts)): frozenset(
            claims[min(contacts, key=lambda contact: (world.born[contact], contact))]
        )
        for contacts in clusters.values()
    }


# -- random requests

EMAILS = ["a@x.io", " A@X.io", "b@x.io", "<b@x.io>", "c@x.io", "null"]
PHONE_NUMBERS = ["9876543210", "+91 98765 43210", "098765-43210", "9876543211", "+919876543211", "555 0100"]
KINDS = [
    '{"c": {}, "d": {}}',
    '{"c": {"limit": 1, "on_limit": "withhold"}, "d": {}}',
    '{"c": {"limit": 1}, "d": {"limit": 2, "on_limit": "withhold", "priority": 1}}',
    '{"c": {"limit": 2, "on_limit": "withhold"}, "d": {"case": "fold"}, "email": {"limit": 1, "on_limit": "withhold"}}',
    '{"c": {"pattern": "[0-9]"}, "phone_number": {"limit": 2}, "d": {"limit": 1, "on_limit": "withhold"}}',
    '{"c": {}}',
]
others = st.lists(
    st.one_of(
        st.tuples(st.just("c"), st.sampled_from([1, 2, 3, "x"])),
        st.tuples(st.just("d"), st.sampled_from(["p", "P", "q"])),
        st.tuples(st.just("email"), st.sampled_from(EMAILS)),
    ),
    max_size=3,
)
givens = st.builds(
    Given,
    st.none() | st.sampled_from(EMAILS),
    st.none() | st.sampled_from(PHONE_NUMBERS),
    others,
    st.none(),
    st.none() | st.builds(lambda days: LONG_AGO + timedelta(days=days), st.integers(0, 9)),
)
any_rules = st.builds(
    rules,
    st.sampled_from(KINDS),
    st.sampled_from([None, "IN", "DE"]),
    st.sets(st.sampled_from([email("a@x.io"), phone_number("9876543210"), Identifier("c", "1")]), max_size=2),
)


@pytest.mark.deep
@settings(max_examples=examples(150, 3_000), deadline=None)
@given(st.lists(givens, max_size=14), any_rules, any_rules)
def test_what_the_log_has_comes_to_what_the_same_requests_come_to_under_the_other_rules(
    said: list[Given], before: Rules, after: Rules
) -> None:
    was = decided(filter(None, (read(one, before) for one in said)), before)
    log = logged(was)
    again = [read(as_typed(request, event.occurred_at), after) for request, event in zip(log, was.events, strict=True)]
    would_be = decided(filter(None, again), after)

    simulation = simulated(log, after)

    everything = {i for details in again if details for i in details.identifiers} | {
        i for request in log for i in request.identifiers
    }
    assert customers_of(simulation.now, everything) == customers_of_plan(was)
    assert customers_of(simulation.then, everything) == customers_of_plan(would_be)
    outlook = simulation.outlook()
    assert (outlook.requests, outlook.refused) == (len(log), again.count(None))
    assert outlook.then.withheld == sum(bool(decision.kept_back) for decision in would_be.decisions)
    assert outlook.then.over_limit == sum(bool(decision.exceeded) for decision in would_be.decisions)
    assert outlook.now.withheld == sum(bool(event.kept_back) for event in was.events)
    check_outlook(outlook, log, again, after)


def as_typed(request: LoggedRequest, occurred_at: datetime | None) -> Given:
    raw = request.raw
    return Given(raw.get("email"), raw.get("phoneNumber"), raw.get("identifiers", ()), None, occurred_at)


def check_outlook(
    outlook: Outlook, log: Sequence[LoggedRequest], again: Sequence[Details | None], after: Rules
) -> None:
    """The counts and the examples follow from who is whom before and after, found in the simplest way."""
    here, there = simulated(log, after).now, decided(filter(None, again), after)
    homes = {i: whole for whole in customers_of_plan(there) for i in whole}
    made: dict[int, LoggedRequest] = {}
    places: dict[int, tuple[int, frozenset[Identifier] | None]] = {}
    for request, details in zip(log, again, strict=True):
        kept_back = {kept.identifier for kept in request.kept_back}
        came_together = [i for i in request.identifiers if i not in kept_back]
        contact = next((i for i in came_together if here.claimant(i) == len(made)), None)
        if contact is not None:
            made[request.contact_id] = request
            places[request.contact_id] = (
                here.root(here.claimant(contact)),
                homes[details.identifiers[0]] if details else None,
            )
    parts: dict[int, set[frozenset[Identifier]]] = defaultdict(set)
    unions: dict[frozenset[Identifier], set[int]] = defaultdict(set)
    for now, then in places.values():
        if then is not None:
            parts[now].add(then)
            unions[then].add(now)
    assert outlook.fallen_apart == sum(len(several) > 1 for several in parts.values())
    assert outlook.joined == len({now for several in unions.values() if len(several) > 1 for now in several})
    assert len(outlook.joined_examples) == sum(len(several) > 1 for several in unions.values())
    assert len(outlook.fallen_apart_examples) == outlook.fallen_apart

    primaries: dict[int, int] = {}
    for contact_id, _ in sorted(made.items(), key=lambda item: (item[1].born_at, item[0])):
        primaries.setdefault(places[contact_id][0], contact_id)
    for joined in outlook.joined_examples:
        one, other = joined.contacts[:2]
        assert places[one][0] != places[other][0]
        assert places[one][1] == places[other][1]
        assert joined.customers == tuple(primaries[places[contact_id][0]] for contact_id in joined.contacts)
        assert joined.count == len(joined.customers)
        assert joined.event == first_together(again, made[one], made[other], log, after)
    for apart in outlook.fallen_apart_examples:
        one, other = apart.apart[:2]
        assert places[one][0] == places[other][0]
        assert len({places[contact_id][1] for contact_id in apart.apart}) == apart.count == len(apart.parts)
        assert primaries[places[one][0]] == apart.customer
        assert apart.contacts >= sum(apart.parts)


def first_together(
    again: Sequence[Details | None],
    one: LoggedRequest,
    other: LoggedRequest,
    log: Sequence[LoggedRequest],
    under: Rules,
) -> int:
    """The event after which two contacts are one customer."""
    details = {request.seq: said for request, said in zip(log, again, strict=True)}
    first, second = details[one.seq], details[other.seq]
    assert first is not None
    assert second is not None
    for number in range(1, len(log) + 1):
        whole = customers_of_plan(decided(filter(None, again[:number]), under))
        if any({first.identifiers[0], second.identifiers[0]} <= identifiers for identifiers in whole):
            return max(log[number - 1].seq, one.seq, other.seq)
    raise AssertionError("they never are")


@pytest.mark.deep
@settings(max_examples=examples(100, 2_000), deadline=None)
@given(st.lists(givens, max_size=14), any_rules)
def test_under_the_rules_that_it_was_written_under_the_log_comes_to_the_same(said: list[Given], under: Rules) -> None:
    under = replace(under, blocked=frozenset())
    log = logged(decided(filter(None, (read(one, under) for one in said)), under))

    outlook = simulated(log, under).outlook()

    assert outlook.is_the_same
    assert outlook.now == outlook.then
    assert (outlook.joined, outlook.fallen_apart, outlook.refused) == (0, 0, 0)


# -- real databases

BEFORE = rules('{"customer_id": {}}')
CHANGES = {
    "another region": rules('{"customer_id": {}}', "IN"),
    "a limit": rules('{"customer_id": {"limit": 1, "on_limit": "withhold"}}'),
    "a blocked value": rules('{"customer_id": {}}', blocked=[phone_number("555000")]),
}


def random_givens(seed: int) -> list[Given]:
    """Requests of a few people, who sometimes share something, and write their numbers in several ways."""
    chance = random.Random(seed)
    found = []
    for _ in range(40):
        person = chance.randrange(10)
        other = person if chance.random() < 0.85 else chance.randrange(10)
        number = chance.choice(["98765432{:02}", "+91 98765 432{:02}", "098765-432{:02}"]).format(person)
        said = [
            ("email", f"p{person}.{chance.randrange(2)}@x.io"),
            ("phone_number", "555 000" if chance.random() < 0.2 else number),
            ("customer_id", other),
            ("email", f"p{other}.{chance.randrange(2)}@x.io"),
        ]
        long_ago = LONG_AGO + timedelta(days=chance.randrange(50)) if chance.random() < 0.2 else None
        found.append(Given(None, None, chance.sample(said, chance.choice([1, 2, 2, 2, 3, 4])), None, long_ago))
    return found


async def fill(database: Database, requests: Sequence[Given], under: Rules) -> Tables:
    storage = database.open()
    service = IdentityService(storage, under.normalisation)
    for start in range(0, len(requests), 20):
        results = await service.identify_many(requests[start : start + 20])
        assert not [result for result in results if isinstance(result, IdentityError)]
    await service.close()
    await storage.close()
    return await database.tables()


def without(requests: Iterable[Given], blocked: Collection[Identifier]) -> list[Given]:
    """The requests without the values that are blocked, those that have nothing else left out."""
    plain = Normalisation(None, BEFORE.normalisation.kinds)
    left = []
    for request in requests:
        said = [one for one in request.identifiers if plain.identifier(*one) not in blocked]
        if said:
            left.append(replace(request, identifiers=said))
    return left


def customers_in(tables: Tables) -> Customers:
    contacts = {row["id"]: row["linked_id"] or row["id"] for row in tables["contact"]}
    found: dict[int, set[Identifier]] = defaultdict(set)
    brought: dict[int, set[Identifier]] = defaultdict(set)
    for row in tables["identifier"]:
        identifier = Identifier(row["kind"], row["value"])
        brought[row["contact_id"]].add(identifier)
        found[contacts[row["contact_id"]]].add(identifier)
    return {frozenset(whole): frozenset(brought[root]) for root, whole in found.items()}


async def predicted(database: Database, under: Rules) -> Simulation:
    storage = database.open()
    simulation = await simulate(storage, under, examples=3)
    await storage.close()
    return simulation


@pytest.mark.deep
async def test_the_prediction_is_what_a_database_that_was_filled_under_the_rules_holds(
    database: Database, databases: Databases
) -> None:
    seen: dict[str, int] = defaultdict(int)
    for seed in range(examples(7, 67)):
        requests = random_givens(seed)
        database = await databases.get(database.name)
        tables = await fill(database, requests, BEFORE)
        simulations = {name: await predicted(database, after) for name, after in CHANGES.items()}
        same = (await predicted(database, BEFORE)).outlook()
        assert same.is_the_same
        assert same.now.customers == len(customers_in(tables))
        assert await database.tables() == tables, "nothing was written"
        for name, after in CHANGES.items():
            database = await databases.get(database.name)
            expected = customers_in(await fill(database, without(requests, after.blocked), after))

            then = simulations[name].then
            assert customers_of(then, {i for whole in expected for i in whole}) == expected, (name, seed)
            assert simulations[name].now.clusters == len(customers_in(tables))
            seen[name] += expected.keys() != customers_in(tables).keys()
    assert all(seen[name] > examples(7, 67) / 2 for name in CHANGES), "the rules matter"


async def test_what_stewards_did_is_left_out_and_counted(steward: Steward) -> None:
    await steward.requests(("a@x.io", "111"), ("b@x.io", "222"), ("a@x.io", "333"))
    await steward.merge(1, 2)
    await steward.split(3)
    await steward.requests(("a@x.io", "333"))  # withheld by the ban

    simulation = await simulate(steward.storage, rules(), examples=9)

    outlook = simulation.outlook()
    assert (outlook.requests, outlook.verbs) == (4, 2)
    assert (outlook.now.customers, outlook.now.contacts, outlook.now.withheld) == (2, 3, 0)
    assert outlook.is_the_same


async def test_what_was_erased_is_read_as_the_token_that_stands_for_it(steward: Steward) -> None:
    """Its values were known together, and are told apart still; what else was typed is read again."""
    await steward.requests(("a@x.io", "9876543210"), ("a@x.io", "9876543211"), ("b@x.io", "+919876543210"))
    await steward.do(lambda command: steward.steward.erase_identifier(email("a@x.io"), command))

    before = (await simulate(steward.storage, rules(), examples=9)).outlook()
    after = (await simulate(steward.storage, rules(region="IN"), examples=9)).outlook()

    assert (before.now.customers, before.then.customers, before.refused) == (2, 2, 0)
    assert after.then.customers == 1
    (joined,) = after.joined_examples
    assert (joined.customers, joined.contacts, joined.event) == ((1, 3), (1, 3), 3)


def test_what_is_known_only_as_it_was_read_counts_beside_what_says_nothing() -> None:
    log = [
        LoggedRequest(1, 1, NOW, (phone_number("erased:ab"),), {"email": "null"}),
        LoggedRequest(2, 2, NOW, (email("a@x.io"), phone_number("111")), {}),
        LoggedRequest(3, 2, NOW, (email("a@x.io"), phone_number("erased:ab")), {"email": "A@x.io"}),
    ]

    outlook = simulated(log, rules()).outlook()

    assert outlook.refused == 0
    assert outlook.then.customers == outlook.now.customers == 1


def test_a_request_of_which_only_blocked_values_are_left_is_refused() -> None:
    log = [LoggedRequest(1, 1, NOW, (email("a@x.io"),), {"email": "a@x.io"})]

    outlook = simulated(log, rules(blocked=[email("a@x.io")])).outlook()

    assert (outlook.blocked, outlook.refused, outlook.then.customers) == (1, 1, 0)
    assert [str(one) for one in outlook.refused_examples] == [
        "event 1 would be refused: All of its values would be blocked"
    ]
    assert not outlook.is_the_same


def test_only_as_many_examples_are_kept_as_are_wanted_and_only_some_contacts_of_each() -> None:
    log = [
        LoggedRequest(n, n, NOW + timedelta(seconds=n), (email(f"{n}@x.io"), phone_number(f"{n}")), {})
        for n in range(101, 151)
    ]
    shared = [
        LoggedRequest(200 + n, n, NOW, (email(f"{n}@x.io"), phone_number("555")), {"email": f"{n}@x.io"})
        for n in range(101, 151)
    ]
    simulation = Simulation(rules(blocked=[phone_number("555")]), examples=1)
    for request in (*log, *shared):
        simulation.add(request)

    (apart,) = simulation.outlook().fallen_apart_examples

    assert (apart.customer, apart.contacts, apart.count) == (101, 51, 50)
    assert len(apart.parts) == len(apart.apart) == 10
    assert str(apart).startswith("customer 101 (51 contacts) would be 50 (")


# -- the program


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    database = Database("sqlite", f"sqlite:///{tmp_path_factory.mktemp('simulated')}/identity.db")
    requests = [
        Given("ann@x.io", "9876543210"),
        Given("ann@y.io", "+91 98765 43210"),
        Given("ann@x.io", "555000"),
        Given("bob@x.io", "555000"),
    ]

    async def filled() -> None:
        await migrate(database)
        await fill(database, requests, rules())

    asyncio.run(filled())
    return database.url


def told(tmp_path: Path, url: str, *arguments: str) -> dict[str, Any]:
    done = run(tmp_path, "simulate", "--json", *arguments, DATABASE_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    assert msgspec.convert(document, Outlook) is not None
    return document


def test_the_program_tells_that_nothing_would_change(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "simulate", DATABASE_URL=url)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("nobody would be another customer\n")
    assert "would be one" not in done.stdout


def test_the_program_tells_who_would_be_joined(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "simulate", "--default-region", "IN", DATABASE_URL=url)

    assert done.returncode == 0
    assert "customers 1 and 2 would be one: event 2 brings contacts 1 and 2 together" in done.stdout.splitlines()
    assert not [text for text in ("@", "98765", "555000") if text in done.stdout]
    document = told(tmp_path, url, "--default-region", "IN")
    assert (document["joined"], document["fallenApart"]) == (2, 0)
    assert (document["now"]["customers"], document["then"]["customers"]) == (2, 1)
    assert document["joinedExamples"] == [{"customers": [1, 2], "count": 2, "contacts": [1, 2], "event": 2}]


def test_the_program_tells_who_would_fall_apart(tmp_path: Path, url: str) -> None:
    document = told(tmp_path, url, "--block", "phone_number:555 000")

    assert (document["joined"], document["fallenApart"], document["blocked"]) == (0, 1, 2)
    assert document["fallenApartExamples"] == [
        {"customer": 1, "contacts": 3, "count": 2, "parts": [2, 1], "apart": [1, 4], "event": 4}
    ]
    assert told(tmp_path, url, "--block", "phone_number:555000", "--examples", "0")["fallenApartExamples"] == []


def test_the_program_takes_other_kinds_and_their_limits(tmp_path: Path, url: str) -> None:
    document = told(
        tmp_path, url, "--identifier-kinds", '{"email": {"limit": 1, "on_limit": "withhold"}, "phone_number": {}}'
    )

    assert (document["fallenApart"], document["then"]["withheld"], document["withheldExamples"]) == (1, 1, [4])


def test_an_empty_region_is_none(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "simulate", "--default-region", "", DATABASE_URL=url, DEFAULT_REGION="IN")

    assert done.stdout.endswith("nobody would be another customer\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--default-region", "XX"], "XX"),
        (["--identifier-kinds", "{"], "IDENTIFIER_KINDS"),
        (["--block", "phone_number"], "a kind and a value"),
        (["--block", "card:1"], "card is no kind"),
        (["--block", "email:null"], "counts as not given anyway"),
        (["--block", "email:x"], "exactly one @"),
    ],
)
def test_what_cannot_be_simulated_is_told_in_a_sentence(
    tmp_path: Path, url: str, arguments: list[str], says: str
) -> None:
    assert says in refused(run(tmp_path, "simulate", *arguments, DATABASE_URL=url))


def test_where_there_is_no_database_the_program_says_so_and_makes_none(tmp_path: Path) -> None:
    assert "no database" in refused(run(tmp_path, "simulate"))
    assert list(tmp_path.iterdir()) == []


def test_an_event_that_cannot_be_read_is_named(tmp_path: Path, url: str) -> None:
    shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "identity.db")
    with closing(sqlite3.connect(tmp_path / "identity.db")) as connection, connection:
        connection.execute("UPDATE event SET raw = '[]' WHERE seq = 2")

    assert refused(run(tmp_path, "simulate")).startswith("Event 2 cannot be read")


def test_a_bar_is_drawn_on_a_terminal(tmp_path: Path, url: str) -> None:
    terminal, side = pty.openpty()
    done = subprocess.run(
        [PROGRAM, "simulate"], cwd=tmp_path, env=environment(DATABASE_URL=url), stdout=subprocess.PIPE, stderr=side
    )
    os.close(side)
    drawn = os.read(terminal, 10_000).decode()
    os.close(terminal)

    assert done.returncode == 0
    assert "Simulating" in drawn
    assert "100%" in drawn
    assert b"Simulating" not in done.stdout
