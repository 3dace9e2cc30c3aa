"""The review queue: what limits and bans keep back, and what a steward decides about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from identity_graphql.domain.events import Outcome
from identity_graphql.domain.identifiers import Given, Identifier, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.state import WithheldFilter
from identity_graphql.errors import ConfigurationError, InvalidInput, Refused
from identity_graphql.services.identify import IdentityService
from tests.support.databases import Database
from tests.support.graphql import BY, data, refusal
from tests.support.identifiers import email, phone_number
from tests.support.serving import serving
from tests.support.stewards import Steward, working

LIMITED = '{"customer_id": {"limit": 1, "on_limit": "withhold"}, "device_id": {"limit": 2}}'
A, B, C = (email(f"{name}@x.io") for name in "abc")
N, M = phone_number("111"), phone_number("222")


def customer(value: str) -> Identifier:
    return Identifier("customer_id", value)


def device(value: str) -> Identifier:
    return Identifier("device_id", value)


@pytest.fixture
async def steward(database: Database) -> AsyncIterator[Steward]:
    async with working(database, kinds=Kinds.parse(LIMITED)) as steward:
        yield steward


@pytest.fixture
async def limited(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(database.url, IDENTIFIER_KINDS=LIMITED) as client:
        yield client


async def two_customers(steward: Steward) -> None:
    """Two, with a customer id each, and a request that brings the email of the one with the number of the other."""
    await steward.say(A, customer("1"))
    await steward.say(N, customer("2"))
    said = await steward.say(A, N)
    assert said.outcome is Outcome.WITHHELD


async def waiting(steward: Steward, wanted: WithheldFilter = WithheldFilter()) -> list[tuple[Any, ...]]:  # noqa: B008
    found = await steward.storage.page_of_withheld(wanted, after=(0, 0), limit=100)
    assert await steward.storage.count_withheld(wanted, limit=100) == len(found)
    return [(*(identifier.value for identifier in pair), withheld.limit_kind) for pair, withheld in found]


async def test_what_a_limit_withholds_waits_and_is_linked_when_it_is_accepted(steward: Steward) -> None:
    await two_customers(steward)
    assert await waiting(steward) == [("a@x.io", "111", "customer_id")]

    result = await steward.accept(N, A)

    assert await steward.identifiers() == [{"a@x.io", "1", "111", "2"}]
    assert [cluster.size for cluster in result.clusters] == [2]
    assert await waiting(steward) == []
    assert (await steward.say(A, N)).outcome is Outcome.UNCHANGED


async def test_an_accepted_pair_can_be_taken_back_and_comes_back(steward: Steward) -> None:
    await two_customers(steward)
    before = await steward.state()
    accepted = await steward.accept(A, N)

    undone = await steward.undo(accepted.event.seq)

    assert await steward.state() == before
    await steward.undo(undone.event.seq)
    assert await steward.identifiers() == [{"a@x.io", "1", "111", "2"}]


async def test_a_cluster_over_its_limit_by_a_stewards_word_still_grows(steward: Steward) -> None:
    await two_customers(steward)
    await steward.accept(A, N)

    assert (await steward.say(A, B)).outcome is Outcome.LINKED
    assert (await steward.say(A, customer("3"))).outcome is Outcome.WITHHELD


async def test_a_value_that_waits_and_is_nobodys_comes_to_the_customer_when_it_is_accepted(steward: Steward) -> None:
    assert (await steward.say(A, customer("1"), customer("2"))).outcome is Outcome.WITHHELD
    assert await steward.identifiers() == [{"a@x.io", "1"}]

    before = await steward.state()
    result = await steward.accept(A, customer("2"))

    assert await steward.identifiers() == [{"a@x.io", "1", "2"}]
    (made,) = result.changes.created
    assert (made.email, made.others) == ("a@x.io", (customer("2"),))
    undone = await steward.undo(result.event.seq)
    state = await steward.state()
    assert (state["claims"], state["withheld"]) == (before["claims"], before["withheld"])
    await steward.undo(undone.event.seq)
    assert await steward.identifiers() == [{"a@x.io", "1", "2"}]


async def test_what_is_rejected_leaves_the_queue_and_bans_the_two_customers(steward: Steward) -> None:
    await two_customers(steward)
    await steward.say(A, M)
    await steward.say(M, N)
    assert len(await waiting(steward)) == 2

    await steward.reject(A, N)

    assert await waiting(steward) == []
    assert (await steward.say(A, N)).outcome is Outcome.UNCHANGED
    with pytest.raises(Refused):
        await steward.merge(1, 2)
    assert (await steward.say(B, A, N)).outcome is Outcome.WITHHELD


async def test_a_rejection_can_be_taken_back(steward: Steward) -> None:
    await two_customers(steward)
    before = await steward.state()
    rejected = await steward.reject(A, N)

    await steward.undo(rejected.event.seq)

    assert await steward.state() == before


async def test_a_rejection_outlasts_the_undo_of_what_made_the_customers(steward: Steward) -> None:
    await two_customers(steward)
    await steward.say(A, B)
    await steward.reject(A, N)

    await steward.undo(1)

    assert (await steward.say(A, N)).withheld


async def test_what_a_ban_withholds_is_accepted_by_lifting_it_for_the_two(steward: Steward) -> None:
    await steward.say(A, B)
    await steward.say(N, M)
    await steward.ban(A, N)
    await steward.say(A, N)
    await steward.say(B, M)
    assert len(await waiting(steward, WithheldFilter(by_limit=False))) == 2

    await steward.accept(A, N)

    assert await waiting(steward) == []
    assert await steward.identifiers() == [{"a@x.io", "b@x.io", "111", "222"}]


async def test_what_does_not_wait_can_be_neither_accepted_nor_rejected(steward: Steward) -> None:
    await two_customers(steward)
    for verb in (steward.accept, steward.reject):
        with pytest.raises(InvalidInput):
            await verb(A, M)
    await steward.reject(A, N)
    with pytest.raises(InvalidInput):
        await steward.reject(A, N)
    await steward.accept(A, N)
    assert await steward.identifiers() == [{"a@x.io", "1", "111", "2"}], "a rejection is no last word"


async def test_lifting_a_ban_links_nothing_that_a_limit_withholds(steward: Steward) -> None:
    await two_customers(steward)
    await steward.ban(A, N)

    await steward.unban(A, N, rejudge=True)

    assert await waiting(steward) == [("a@x.io", "111", "customer_id")]
    assert await steward.identifiers() == [{"a@x.io", "1"}, {"111", "2"}]


async def test_what_is_blocked_cannot_be_accepted(steward: Steward) -> None:
    await two_customers(steward)
    await steward.block(N)
    with pytest.raises(InvalidInput):
        await steward.accept(A, N)
    await steward.unblock(N)
    await steward.accept(A, N)
    assert await steward.identifiers() == [{"a@x.io", "1", "111", "2"}]


async def test_undo_judges_by_the_rules_of_the_requests_own_time(database: Database) -> None:
    async with working(database, kinds=Kinds.parse(LIMITED)) as strict:
        await strict.say(A, customer("1"))
        await strict.say(A, customer("2"))
        loose = Steward(strict.storage, kinds=Kinds.parse('{"customer_id": {}, "device_id": {}}'))
        await loose.say(A, B)
        before = await loose.state()
        undone = await loose.undo(3)

        assert (await loose.state())["withheld"] == before["withheld"], "the limit of then still withholds"
        await loose.undo(undone.event.seq)
        assert await loose.state() == before
        await loose.close()


async def test_limits_may_change_between_starts_but_not_how_values_are_read(database: Database) -> None:
    async with working(database, kinds=Kinds.parse(LIMITED)) as steward:
        await steward.say(A, customer("1"))
        for document in ("{}", '{"customer_id": {}, "card": {"case": "fold"}}', '{"customer_id": {"limit": 9}}'):
            service = IdentityService(steward.storage, Normalisation(kinds=Kinds.parse(document)))
            await service.check_normalisation()
        for options in ('{"case": "fold"}', '{"pattern": "[0-9]+"}'):
            kinds = Kinds.parse(f'{{"customer_id": {options}}}')
            with pytest.raises(ConfigurationError):
                await IdentityService(steward.storage, Normalisation(kinds=kinds)).check_normalisation()
        with pytest.raises(ConfigurationError):
            await IdentityService(steward.storage, Normalisation("DE", Kinds.parse(LIMITED))).check_normalisation()


async def test_an_alarm_links_and_says_so_once(steward: Steward) -> None:
    await steward.say(A, device("1"), device("2"))
    said = await steward.say(A, device("3"))

    assert said.outcome is Outcome.LINKED
    assert [(warning.code, warning.field) for warning in said.warnings] == [("LIMIT_EXCEEDED", "device_id")]
    assert said.event is not None
    assert said.event.exceeded == ("device_id",)
    assert (await steward.say(A, device("3"))).warnings == ()


QUEUE = """query ($first: Int, $after: String, $reason: WithheldReason, $limitKind: String) {
  withheldCount(reason: $reason, limitKind: $limitKind)
  withheld(first: $first, after: $after, reason: $reason, limitKind: $limitKind) {
    pageInfo { endCursor hasNextPage }
    edges { node { identifiers { kind value } reason limitKind withheldBy standing event at holders { id } } } } }"""
IDENTIFY = "mutation ($said: [IdentifyInput!]!) { identifyMany(items: $said) { error { message } } }"


async def test_the_queue_is_read_page_by_page_and_decided_on(limited: httpx2.AsyncClient) -> None:
    devices = [{"kind": "device_id", "value": n} for n in range(5)]
    said: list[dict[str, Any]] = [
        {"email": "a@x.io", "identifiers": [{"kind": "customer_id", "value": 1}]},
        {"phoneNumber": "111", "identifiers": [{"kind": "customer_id", "value": 2}]},
        {"email": "a@x.io", "phoneNumber": "111", "identifiers": devices},
        {"email": "b@x.io", "identifiers": [{"kind": "customer_id", "value": 3}]},
        {"email": "b@x.io", "phoneNumber": "111"},
    ]
    await data(limited, IDENTIFY, said=said)

    whole = await data(limited, QUEUE, first=100)
    found: list[Any] = []
    after = None
    while True:
        page = (await data(limited, QUEUE, first=2, after=after))["withheld"]
        found += page["edges"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert found == whole["withheld"]["edges"]
    assert whole["withheldCount"] == len(found) == 7
    nodes = [edge["node"] for edge in found]
    assert {(node["reason"], node["limitKind"], node["withheldBy"]) for node in nodes} == {
        ("LIMIT", "customer_id", "LIMIT")
    }
    assert all(node["at"] for node in nodes)
    assert (await data(limited, QUEUE, reason="BAN"))["withheldCount"] == 0
    assert (await data(limited, QUEUE, limitKind="customer_id"))["withheldCount"] == 7
    assert (await refusal(limited, QUEUE, reason="BAN", limitKind="customer_id"))["field"] == "limitKind"

    pair = 'identifiers: [{kind: "email", value: "b@x.io"}, {kind: "phone_number", value: "111"}]'
    asked = f"mutation {{ rejectWithheld({pair}, {BY}, dryRun: true) {{ expectedVersion expectedOtherVersion }} }}"
    seen = (await data(limited, asked))["rejectWithheld"]
    done = await data(
        limited,
        f"""mutation {{ rejectWithheld({pair}, {BY}, expectedVersion: {seen["expectedVersion"]},
          expectedOtherVersion: {seen["expectedOtherVersion"]}) {{
            event {{ kind summary }} changes {{ bans {{ added }} }} }} }}""",
    )
    assert done["rejectWithheld"] == {
        "event": {"kind": "REJECT_WITHHELD", "summary": "ann: rejected a pair that was withheld"},
        "changes": {"bans": [{"added": True}]},
    }
    assert (await data(limited, QUEUE))["withheldCount"] == 6


async def test_no_cluster_ever_has_two_customer_ids_unless_a_steward_says_so(database: Database) -> None:
    async with working(database, kinds=Kinds.parse(LIMITED)) as steward:
        said = [
            Given(f"e{n * 7 % 5}@x.io", f"1{n * 3 % 7:02}", [("customer_id", n % 3)] if n % 2 else ())
            for n in range(60)
        ]
        await steward.service.identify_many(said)
        for cluster in await steward.service.page_of_clusters(after=0, limit=100):
            assert len(cluster.values("customer_id")) <= 1
