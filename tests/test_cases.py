"""One table of cases, through REST and through GraphQL: the same requests, the same customers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.models.oracle import Oracle, random_requests
from tests.support.databases import Database
from tests.support.serving import serving

Said = tuple[str | None, str | int | None]
Answer = tuple[int, list[str], list[str], list[int]]

IDENTIFY = """
mutation ($email: String, $phoneNumber: PhoneNumber) {
  identify(email: $email, phoneNumber: $phoneNumber) {
    outcome
    cluster { primaryContactId emails phoneNumbers secondaryContactIds }
    warnings { code field }
  }
}
"""


@dataclass
class Answered:
    customer: Answer
    ignored: list[str]
    outcome: str | None = None  # REST does not tell


async def through_rest(client: httpx2.AsyncClient, said: Said) -> Answered:
    response = await client.post("/identify", json={"email": said[0], "phoneNumber": said[1]})
    assert response.status_code == 200, response.text
    warnings = response.headers.get("x-identity-warnings", "").split(", ")
    primary, emails, phone_numbers, secondaries = response.json()["contact"].values()
    return Answered((primary, emails, phone_numbers, secondaries), [w.partition("=")[0] for w in warnings if w])


async def through_graphql(client: httpx2.AsyncClient, said: Said) -> Answered:
    variables = {"email": said[0], "phoneNumber": said[1]}
    response = await client.post("/graphql", json={"query": IDENTIFY, "variables": variables})
    body = response.json()
    assert "errors" not in body, body
    payload = body["data"]["identify"]
    cluster: dict[str, Any] = payload["cluster"]
    customer = (
        int(cluster["primaryContactId"]),
        cluster["emails"],
        cluster["phoneNumbers"],
        [int(number) for number in cluster["secondaryContactIds"]],
    )
    return Answered(customer, [warning["field"] for warning in payload["warnings"]], payload["outcome"])


EDGES: dict[str, Callable[[httpx2.AsyncClient, Said], Awaitable[Answered]]] = {
    "rest": through_rest,
    "graphql": through_graphql,
}

A, B, C = "a@x.io", "b@x.io", "c@x.io"

# what came before; the last request; its outcome, answer and ignored fields
CASES: dict[str, tuple[list[Said], Said, str, Answer, list[str]]] = {
    "a new customer": ([], (A, "111"), "CREATED", (1, [A], ["111"], []), []),
    "an email only": ([], (A, None), "CREATED", (1, [A], [], []), []),
    "a phone number only": ([], (None, "111"), "CREATED", (1, [], ["111"], []), []),
    "a number as phone number": ([], (None, 111), "CREATED", (1, [], ["111"], []), []),
    "another customer": ([(A, "111")], (B, "222"), "CREATED", (2, [B], ["222"], []), []),
    "a new email": ([(A, "111")], (B, "111"), "LINKED", (1, [A, B], ["111"], [2]), []),
    "a new phone number": ([(A, "111")], (A, "222"), "LINKED", (1, [A], ["111", "222"], [2]), []),
    "a phone number for an email-only customer": ([(A, None)], (A, "111"), "LINKED", (1, [A], ["111"], [2]), []),
    "an email for a phone-only customer": ([(None, "111")], (A, "111"), "LINKED", (1, [A], ["111"], [2]), []),
    "a repeat": ([(A, "111")], (A, "111"), "UNCHANGED", (1, [A], ["111"], []), []),
    "a known email alone": ([(A, "111")], (A, None), "UNCHANGED", (1, [A], ["111"], []), []),
    "a known phone number alone": ([(A, "111")], (None, "111"), "UNCHANGED", (1, [A], ["111"], []), []),
    "a secondary's email alone": ([(A, "111"), (B, "111")], (B, None), "UNCHANGED", (1, [A, B], ["111"], [2]), []),
    "another case of an email": ([(A, "111")], (" A@X.IO ", "111"), "UNCHANGED", (1, [A], ["111"], []), []),
    "another form of a phone number": ([(A, "+1555")], (A, "00 1-(5)5.5"), "UNCHANGED", (1, [A], ["+1555"], []), []),
    "a pair not seen before": (
        [(A, "111"), (B, "111"), (A, "222")],
        (B, "222"),
        "OBSERVED",
        (1, [A, B], ["111", "222"], [2, 3]),
        [],
    ),
    "that pair again": (
        [(A, "111"), (B, "111"), (A, "222"), (B, "222")],
        (B, "222"),
        "UNCHANGED",
        (1, [A, B], ["111", "222"], [2, 3]),
        [],
    ),
    "a bridge of two customers": (
        [(A, "111"), (B, "222")],
        (A, "222"),
        "MERGED",
        (1, [A, B], ["111", "222"], [2]),
        [],
    ),
    "a bridge named from the younger side": (
        [(A, "111"), (B, "222")],
        (B, "111"),
        "MERGED",
        (1, [A, B], ["111", "222"], [2]),
        [],
    ),
    "a bridge whose younger side has secondaries": (
        [(A, "111"), (B, "222"), (C, "222")],
        (A, "222"),
        "MERGED",
        (1, [A, B, C], ["111", "222"], [2, 3]),
        [],
    ),
    "a second bridge": (
        [(A, "111"), (B, "222"), (C, "333"), (A, "222")],
        (C, "222"),
        "MERGED",
        (1, [A, B, C], ["111", "222", "333"], [2, 3]),
        [],
    ),
    "a secondary of a merged customer": (
        [(A, "111"), (B, "222"), (A, "222")],
        (C, "222"),
        "LINKED",
        (1, [A, B, C], ["111", "222"], [2, 3]),
        [],
    ),
    "a null-word": ([(A, "111")], ("null", "111"), "UNCHANGED", (1, [A], ["111"], []), ["email"]),
    "zeros only": ([(A, "111")], (A, "000"), "UNCHANGED", (1, [A], ["111"], []), ["phoneNumber"]),
    "a blank": ([(A, "111")], (A, " "), "UNCHANGED", (1, [A], ["111"], []), []),
    "an international domain": (
        [],
        ("a@bücher.example", None),
        "CREATED",
        (1, ["a@xn--bcher-kva.example"], [], []),
        [],
    ),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("case", CASES)
async def test_both_edges_give_the_same_answers(sqlite: Database, edge: str, case: str) -> None:
    before, said, outcome, customer, ignored = CASES[case]
    identify = EDGES[edge]
    async with serving(sqlite.url) as client:
        for earlier in before:
            await identify(client, earlier)

        answered = await identify(client, said)

    assert answered.customer == customer
    assert answered.ignored == ignored
    assert answered.outcome in (None, outcome)
    await sqlite.check()


@pytest.mark.parametrize("edge", EDGES)
async def test_three_hundred_random_requests_through_http_equal_the_brute_force_model(
    database: Database, edge: str
) -> None:
    oracle = Oracle()
    async with serving(database.url) as client:
        for number, said in enumerate(random_requests(300, 300, people=30)):
            expected = oracle.identify(*said)
            answered = await EDGES[edge](client, said)
            outcome = expected.pop("outcome")
            assert answered.customer == tuple(expected.values()), f"request {number}"
            assert answered.outcome in (None, outcome)
    await database.check()
