"""The service, on every database."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Given, Identifier, Normalisation
from identity_graphql.domain.reconcile import Decision, Request, reconcile
from identity_graphql.errors import ConfigurationError, Gone, IdentityError, InvalidInput, Unexpected
from identity_graphql.services.identify import MOST_FAILURES, IdentityService
from identity_graphql.storage import Storage
from identity_graphql.storage import plan_writes as writes
from tests.models.oracle import Oracle, random_requests
from tests.support.databases import FAULT, Database, empty


def answer(decision: Decision) -> dict[str, Any]:
    cluster = decision.cluster
    return {
        "primaryContactId": cluster.primary.id,
        "emails": list(cluster.emails),
        "phoneNumbers": list(cluster.phone_numbers),
        "secondaryContactIds": list(cluster.secondary_contact_ids),
        "outcome": decision.outcome.value,
    }


def decided(result: Decision | IdentityError) -> Decision:
    assert isinstance(result, Decision), result
    return result


async def test_the_first_ids_are_one_two_three(service: IdentityService) -> None:
    contacts = [(await service.identify(Given(email=f"{n}@x.io"))).contact for n in range(3)]

    assert [contact and contact.id for contact in contacts] == [1, 2, 3]


async def test_what_was_written_is_answered_with_its_number_in_the_log(
    service: IdentityService, database: Database
) -> None:
    await service.identify(Given(email="a@x.io", phone_number="111"))
    decisions = [
        await service.identify(Given(email="b@x.io", phone_number="222")),
        await service.identify(Given(email="a@x.io", phone_number="222")),
        *map(
            decided,
            await service.identify_many(
                [
                    Given(*said)
                    for said in [
                        ("a@x.io", "222"),
                        ("b@x.io", "111"),
                        ("c@x.io", "333"),
                        ("c@x.io", "444"),
                        ("a@x.io", "333"),
                        ("b@x.io", "333"),
                        (None, "444"),
                    ]
                ]
            ),
        ),
        *map(decided, await service.identify_many([Given(*said) for said in [("c@x.io", "111"), ("c@x.io", "222")]])),
    ]

    assert " ".join(decision.outcome for decision in decisions) == (
        "CREATED MERGED UNCHANGED OBSERVED CREATED LINKED MERGED OBSERVED UNCHANGED OBSERVED OBSERVED"
    )
    log = {row["seq"]: row for row in (await database.check())["event"]}
    events = [decision.event for decision in decisions if decision.event]
    assert [event.seq for event in events] == sorted(log)[1:], "each its own, in the order of the requests"
    for event in events:
        row = log[event.seq]
        told = (event.email, event.phone_number, event.outcome, event.primary_id, event.contact_id)
        assert told == tuple(row[name] for name in ("email", "phone_number", "outcome", "primary_id", "contact_id"))


async def test_two_thousand_random_requests_equal_the_brute_force_model(
    service: IdentityService, database: Database
) -> None:
    oracle = Oracle()

    for number, said in enumerate(random_requests(2026, 2000, people=150)):
        expected = oracle.identify(*said)
        decision = await service.identify(Given(email=said[0], phone_number=said[1]))
        assert answer(decision) == expected, f"request {number}"

    rows = await database.check()
    assert len(rows["contact"]) == len(oracle.rows)


async def test_a_repeat_writes_nothing_at_all(service: IdentityService, database: Database) -> None:
    said: list[tuple[str | None, str | None]] = [
        ("a@x.io", "111"),
        ("b@x.io", "111"),
        ("c@x.io", "333"),
        ("a@x.io", "333"),
        ("b@x.io", "333"),
    ]
    for email, phone_number in said:
        await service.identify(Given(email=email, phone_number=phone_number))
    before = await database.dump()

    for email, phone_number in [*said, ("A@X.io", " 1-1-1 "), ("a@x.io", None), (None, "333")]:
        decision = await service.identify(Given(email=email, phone_number=phone_number))
        assert decision.outcome == "UNCHANGED"
        assert (decision.contact, decision.demoted) == (None, ())

    assert await database.dump() == before


async def test_a_merge_without_a_contact_is_in_the_log(service: IdentityService, database: Database) -> None:
    await service.identify(Given(email="george@hillvalley.edu", phone_number="919191"))
    await service.identify(Given(email="biffsucks@hillvalley.edu", phone_number="717171"))

    decision = await service.identify(Given(email="george@hillvalley.edu", phone_number="717171"))

    assert decision.outcome == "MERGED"
    rows = await database.check()
    event = rows["event"][-1]
    assert event["outcome"] == "MERGED"
    assert (event["contact_id"], event["primary_id"]) == (None, 1)
    assert event["demoted"] == [{"id": 2, "version_before": 1, "version_after": 2}]
    assert event["raw"] == {"email": "george@hillvalley.edu", "phoneNumber": "717171"}
    assert event["norm"] == "3"
    assert [contact["version"] for contact in rows["contact"]] == [2, 2]


async def test_the_event_keeps_what_was_typed(service: IdentityService, database: Database) -> None:
    await service.identify(Given(email="  Foo@Bar.COM ", phone_number=12345))

    (event,) = (await database.tables())["event"]
    assert event["raw"] == {"email": "  Foo@Bar.COM ", "phoneNumber": 12345}
    assert (event["email"], event["phone_number"]) == ("foo@bar.com", "12345")


async def test_updated_at_changes_only_with_the_own_link(service: IdentityService, database: Database) -> None:
    for email, phone_number in [("a@x.io", "111"), ("b@x.io", "222"), ("b2@x.io", "222"), ("a2@x.io", "111")]:
        await service.identify(Given(email=email, phone_number=phone_number))
    before = {row["id"]: row for row in (await database.tables())["contact"]}

    await service.identify(Given(email="a@x.io", phone_number="222"))

    after = {row["id"]: row for row in (await database.tables())["contact"]}
    changed = [i for i in after if after[i]["updated_at"] != before[i]["updated_at"]]
    assert changed == [2, 3]
    assert after[1]["changed_at"] > before[1]["changed_at"]


async def test_identify_many_answers_each_item_alone(service: IdentityService, database: Database) -> None:
    results = await service.identify_many(
        [Given(*said) for said in [("a@x.io", "111"), ("broken", None), ("a@x.io", "222"), (None, "222")]]
    )

    assert isinstance(results[1], InvalidInput)
    good = [decided(result) for result in results if result is not results[1]]
    assert [decision.outcome for decision in good] == ["CREATED", "LINKED", "UNCHANGED"]
    assert [decision.cluster.primary.id for decision in good] == [1, 1, 1]
    assert [decision.cluster.secondary_contact_ids for decision in good] == [(), (2,), (2,)]
    await database.check()


async def test_a_thousand_items_are_one_batch(service: IdentityService, database: Database) -> None:
    requests = random_requests(7, 1000, people=120)
    oracle = Oracle()
    expected = [oracle.identify(*request) for request in requests]

    results = await service.identify_many([Given(*said) for said in requests])

    assert [answer(decided(result)) for result in results] == expected
    await database.check()


@pytest.mark.parametrize("count", [0, 1001])
async def test_identify_many_takes_one_to_a_thousand_items(sqlite: Database, count: int) -> None:
    storage = sqlite.open()

    with pytest.raises(InvalidInput):
        await IdentityService(storage, Normalisation()).identify_many(
            [Given(*said) for said in [("a@x.io", None)] * count]
        )

    await storage.close()


POISON = {
    "postgresql": (
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.email = 'poison@x.io' THEN RAISE EXCEPTION 'poisoned %', NEW.email; END IF;"
        " RETURN NEW; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON contact FOR EACH ROW EXECUTE FUNCTION poison()",
    ),
    "mariadb": (
        "CREATE TRIGGER poison BEFORE INSERT ON contact FOR EACH ROW IF NEW.email = 'poison@x.io'"
        " THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'poisoned'; END IF",
    ),
    "sqlite": (
        "CREATE TRIGGER poison BEFORE INSERT ON contact WHEN NEW.email = 'poison@x.io'"
        " BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
    ),
}
ANTIDOTE = {
    "postgresql": ("DROP TRIGGER poison ON contact", "DROP FUNCTION poison"),
    "mariadb": ("DROP TRIGGER poison",),
    "sqlite": ("DROP TRIGGER poison",),
}


async def test_a_request_that_the_database_refuses_fails_alone(
    service: IdentityService, storage: Storage, database: Database
) -> None:
    async def run(statements: tuple[str, ...]) -> None:
        async with storage.transaction() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))

    await run(POISON[database.name])
    try:
        with structlog.testing.capture_logs() as logs:
            results = await service.identify_many(
                [Given(*said) for said in [("a@x.io", "111"), ("poison@x.io", "222"), ("b@x.io", "111")]]
            )
    finally:
        await run(ANTIDOTE[database.name])

    assert isinstance(results[1], Unexpected)
    assert [decided(results[n]).outcome for n in (0, 2)] == ["CREATED", "LINKED"]
    assert [entry["event"] for entry in logs] == ["batch.failed", "batch.failed"]
    assert "poison@x.io" not in repr(logs)
    rows = await database.check()
    assert [contact["email"] for contact in rows["contact"]] == ["a@x.io", "b@x.io"]


async def test_a_fault_that_hits_everybody_is_not_tried_on_everybody(sqlite: Database) -> None:
    storage = sqlite.open()
    service = IdentityService(storage, Normalisation())
    async with storage.transaction() as connection:
        await connection.execute(sa.text(FAULT))
    with structlog.testing.capture_logs() as logs:
        results = await service.identify_many([Given(*said) for said in [(f"a{n}@x.io", "111") for n in range(50)]])
    await service.close()
    await storage.close()

    assert all(isinstance(result, Unexpected) for result in results)
    assert len(logs) == 1 + MOST_FAILURES


async def test_a_clock_that_was_set_back_makes_no_wrong_link(storage: Storage, database: Database) -> None:
    """A new contact may then be older than the cluster that it is linked to; the older one wins."""

    def request(email: str, phone_number: str) -> Request:
        return Request(Normalisation().details(Given(email=email, phone_number=phone_number)), "1")

    async def decide(*requests: Request, back: timedelta = timedelta(0)) -> None:
        details = [request.details for request in requests]
        async with storage.attempt() as turn:
            identifiers = {identifier for d in details for identifier in d.identifiers}
            found = await turn.find(identifiers, {pair for d in details for pair in d.pairs})
            await turn.apply(reconcile(requests, msgspec.structs.replace(found, now=found.now - back)))

    await decide(request("a@x.io", "111"), request("b@x.io", "111"))
    await decide(request("c@x.io", "222"), request("a@x.io", "222"), back=timedelta(seconds=5))

    contacts = (await database.check())["contact"]
    assert [(row["id"], row["linked_id"]) for row in contacts] == [(1, 3), (2, 3), (3, None)]


async def test_a_merge_may_take_more_contacts_than_a_statement_takes_parameters(
    service: IdentityService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "MOST_PARAMETERS", 2)
    await service.identify(Given(email="a@x.io", phone_number="111"))
    await service.identify_many([Given(*said) for said in [(f"b{n}@x.io", "222") for n in range(7)]])

    merged = await service.identify(Given(email="a@x.io", phone_number="222"))

    assert merged.cluster.size == 8
    assert {row["linked_id"] for row in (await database.check())["contact"]} == {None, 1}


values = st.sampled_from([None, *range(4)])
histories = st.lists(st.tuples(values, values).filter(lambda said: said != (None, None)), min_size=1, max_size=14)
cuts = st.lists(st.integers(1, 5), min_size=14, max_size=14)


@given(history=histories, sizes=cuts)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_one_batch_many_batches_and_one_by_one_give_the_same(
    database: Database, storage: Storage, history: list[tuple[int | None, int | None]], sizes: list[int]
) -> None:
    service = IdentityService(storage, Normalisation())
    said: list[tuple[object, object]] = [
        (None if e is None else f"{e}@x.io", None if p is None else f"555{p}") for e, p in history
    ]
    remaining = iter(said)
    batches = [batch for size in sizes if (batch := list(itertools.islice(remaining, size)))]
    seen = []
    for way in ([said], batches, [[one] for one in said]):
        await empty(database)
        answers = [
            answer(decided(result))
            for batch in way
            for result in await service.identify_many([Given(*said) for said in batch])
        ]
        rows = await database.check()
        contacts = [(row["email"], row["phone_number"], row["linked_id"]) for row in rows["contact"]]
        seen.append((answers, contacts))

    assert seen[0] == seen[1] == seen[2]


async def test_a_cluster_is_found_by_any_id_email_or_phone_number(service: IdentityService) -> None:
    await service.identify(Given(email="a@x.io", phone_number="111"))
    await service.identify(Given(email="b@x.io", phone_number="222"))
    expected = (await service.identify(Given(email="a@x.io", phone_number="222"))).cluster

    assert await service.cluster(1) == expected
    assert await service.cluster(2) == expected
    assert await service.cluster(Identifier(EMAIL, "b@x.io")) == expected
    assert await service.cluster(Identifier(PHONE_NUMBER, "222")) == expected
    assert await service.cluster(Identifier(EMAIL, "nobody@x.io")) is None
    assert await service.cluster(99) is None
    assert await service.cluster(2**70) is None


async def test_a_look_up_writes_nothing(service: IdentityService, database: Database) -> None:
    before = await database.dump()

    await service.cluster(Identifier(EMAIL, "nobody@x.io"))

    assert await database.dump() == before


async def test_a_deleted_contact_is_gone_and_its_cluster_no_longer_has_it(
    service: IdentityService, storage: Storage
) -> None:
    await service.identify(Given(email="a@x.io", phone_number="111"))
    await service.identify(Given(email="b@x.io", phone_number="111"))
    async with storage.transaction() as connection:
        await connection.execute(sa.text("UPDATE contact SET deleted_at = updated_at WHERE id = 2"))
        await connection.execute(sa.text("DELETE FROM identifier WHERE contact_id = 2"))

    with pytest.raises(Gone):
        await service.cluster(2)
    cluster = await service.cluster(1)
    assert cluster is not None
    assert cluster.emails == ("a@x.io",)
    (contact,) = await service.contacts([2])
    assert contact is not None
    assert contact.deleted_at == contact.updated_at


async def test_another_normalisation_than_the_log_has_is_refused_with_advice(storage: Storage) -> None:
    indian = IdentityService(storage, Normalisation("IN"))
    await indian.check_normalisation()
    await indian.identify(Given(phone_number="+919999999999"))

    await indian.check_normalisation()
    with pytest.raises(ConfigurationError, match=r"3:IN.*DEFAULT_REGION.*ACCEPT_NORMALISATION_CHANGE=true"):
        await IdentityService(storage, Normalisation()).check_normalisation()
