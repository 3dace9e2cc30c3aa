"""Bad input: a clear refusal, never a 5xx, and nothing written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.databases import Database
from tests.serving import JSON, serving

TEN_MEGABYTES = 10_000_000

# what is wrong -> the two values
VALUES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nulls": {"email": None, "phoneNumber": None},
    "empty texts": {"email": "", "phoneNumber": ""},
    "blanks": {"email": " \t\u200b", "phoneNumber": "\u00a0\n"},
    "null-words": {"email": "null", "phoneNumber": "N/A"},
    "zeros only": {"phoneNumber": "000"},
    "an array": {"email": ["a@x.io"]},
    "an array of numbers": {"phoneNumber": [123]},
    "an object": {"phoneNumber": {"value": "123"}},
    "a boolean as email": {"email": True},
    "a boolean as phone number": {"phoneNumber": False},
    "a number as email": {"email": 5},
    "a fraction": {"phoneNumber": 123.5},
    "a whole float": {"phoneNumber": 123.0},
    "a negative number": {"phoneNumber": -123},
    "2 to the 53": {"phoneNumber": 2**53},
    "2 to the 63": {"phoneNumber": 2**63},
    "2 to the 64": {"phoneNumber": 2**64},
    "a NUL in an email": {"email": "a\x00@x.io"},
    "a NUL in a phone number": {"phoneNumber": "123\x00"},
    "a control character": {"email": "a\x07@x.io"},
    "300 characters": {"email": "a" * 295 + "@x.io"},
    "two at signs": {"email": "a@b@x.io"},
    "no at sign": {"email": "a.x.io"},
    "nothing before the at sign": {"email": "@x.io"},
    "nothing behind the at sign": {"email": "a@"},
    "a blank inside": {"email": "a b@x.io"},
    "a bad international domain": {"email": "a@-ü-.example"},
    "letters in a phone number": {"phoneNumber": "555-CALL"},
    "two digits": {"phoneNumber": "12"},
    "33 digits": {"phoneNumber": "1" * 33},
    "a plus in the middle": {"phoneNumber": "1+23456"},
    "a good email beside a bad phone number": {"email": "a@x.io", "phoneNumber": "abc"},
}

# bodies that cannot be written as a Python value
BODIES: dict[str, bytes] = {
    "broken JSON": b'{"email": "a@x.io"',
    "an empty body": b"",
    "a JSON string": b'"a@x.io"',
    "a JSON number": b"5",
    "a JSON null": b"null",
    "a JSON true": b"true",
    "a JSON array": b'[{"email": "a@x.io"}]',
    "a lone surrogate": b'{"email": "\\ud800@x.io"}',
    "a lone surrogate in a phone number": b'{"phoneNumber": "123\\udfff"}',
    "bytes that are not UTF-8": b'{"email": "\xff@x.io"}',
    "NaN": b'{"phoneNumber": NaN}',
    "an infinite number": b'{"phoneNumber": 1e400}',
    "a number of 5,000 digits": b'{"phoneNumber": ' + b"9" * 5000 + b"}",
    "nesting": b"[" * 10_000,
    "a key without a value": b'{"email"}',
}

MUTATION = (
    "mutation ($email: String, $phoneNumber: PhoneNumber)"
    " { identify(email: $email, phoneNumber: $phoneNumber) { outcome } }"
)
REFUSALS = {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED"}


@asynccontextmanager
async def unchanged(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    """A server whose database must be the same afterwards as before."""
    before = await database.dump()
    async with serving(database.url) as client:
        yield client
        assert (await client.post("/identify", json={"email": "still@alive.io"})).status_code == 200
        await client.get("/ready")
    after = await database.dump()
    assert [row for row in after["contact"] if row[1] != "still@alive.io"] == before["contact"]
    assert len(after["event"]) == len(before["event"]) + 1


def assert_refused(response: httpx2.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error", "details"]
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("case", VALUES)
async def test_rest_answers_400(sqlite: Database, case: str) -> None:
    async with unchanged(sqlite) as client:
        response = await client.post("/identify", content=json.dumps(VALUES[case]), headers=JSON)

    assert_refused(response, 400)
    assert response.json()["error"] == "Validation Error"
    paths = {detail["path"] for detail in response.json()["details"]}
    assert paths <= ({"root"} if case in ("nothing", "nulls", "empty texts", "blanks") else {"root", *VALUES[case]})


async def test_two_bad_fields_are_two_details(sqlite: Database) -> None:
    async with unchanged(sqlite) as client:
        response = await client.post("/identify", json={"email": 5, "phoneNumber": True})

    assert [detail["path"] for detail in response.json()["details"]] == ["email", "phoneNumber"]


@pytest.mark.parametrize("case", BODIES)
async def test_rest_answers_400_to_a_body_that_is_no_request(sqlite: Database, case: str) -> None:
    async with unchanged(sqlite) as client:
        response = await client.post("/identify", content=BODIES[case], headers=JSON)

    assert_refused(response, 400)


@pytest.mark.parametrize("case", VALUES)
async def test_graphql_answers_with_a_code(sqlite: Database, case: str) -> None:
    body = json.dumps({"query": MUTATION, "variables": VALUES[case]})
    async with unchanged(sqlite) as client:
        response = await client.post("/graphql", content=body, headers=JSON)

    assert response.status_code in (200, 400)
    answer = response.json()
    assert not (answer.get("data") or {}).get("identify")
    assert {error["extensions"]["code"] for error in answer["errors"]} <= REFUSALS


@pytest.mark.parametrize("case", BODIES)
async def test_graphql_answers_4xx_to_a_body_that_is_no_request(sqlite: Database, case: str) -> None:
    async with unchanged(sqlite) as client:
        bare = await client.post("/graphql", content=BODIES[case], headers=JSON)
        variables = b'{"query": "' + MUTATION.encode() + b'", "variables": ' + BODIES[case] + b"}"
        inside = await client.post("/graphql", content=variables, headers=JSON)

    assert bare.status_code in (200, 400)
    assert bare.json()["errors"]
    assert inside.status_code in (200, 400)
    assert inside.json()["errors"]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "email: null",
        'email: "", phoneNumber: null',
        'email: "a@b@x.io"',
        "email: 5",
        'email: ["a@x.io", "b@x.io"]',
        "phoneNumber: true",
        "phoneNumber: 1.5",
        "phoneNumber: -5",
        "phoneNumber: [1]",
        "phoneNumber: {a: 1}",
        "phoneNumber: RED",
        "phoneNumber: 9223372036854775808",
        f"phoneNumber: {'9' * 5000}",
        'email: "a\\u0000@x.io"',
        'email: "\\ud800@x.io"',
        'phoneNumber: "12 letters"',
    ],
)
async def test_graphql_answers_with_a_code_to_literals(sqlite: Database, arguments: str) -> None:
    operation = f"mutation {{ identify({arguments}) {{ outcome }} }}".replace("()", "")
    async with unchanged(sqlite) as client:
        response = await client.post("/graphql", json={"query": operation})

    assert response.status_code in (200, 400)
    assert {error["extensions"]["code"] for error in response.json()["errors"]} <= REFUSALS


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": None},
        {"query": 5},
        {"query": ["{__typename}"]},
        {"query": "{ __typename }", "variables": "x"},
        {"query": "{ __typename }", "variables": [1]},
        {"query": "{ __typename }", "operationName": 5},
        {"query": "{ __typename }", "operationName": "Missing"},
        {"query": "{ __typename }", "extensions": 5},
        {"query": "query A { __typename } query B { __typename }"},
        {
            "query": 'mutation A { identify(email: "a@x.io") { outcome } }'
            ' mutation B { identify(email: "a@x.io") { outcome } }'
        },
        {"query": ""},
        {"query": "{"},
        {"query": "subscription { x }"},
        [],
        [{"query": "{ __typename }"}],
    ],
)
async def test_graphql_refuses_requests_that_are_none(sqlite: Database, body: object) -> None:
    async with unchanged(sqlite) as client:
        response = await client.post("/graphql", json=body)

    assert response.status_code in (200, 400), response.text
    assert response.json()["errors"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": 'mutation { identify(email: "a@x.io") { outcome } }'},
        {"query": "{ __typename }", "variables": "{"},
        {"query": "{ __typename }", "variables": "5"},
        {"query": "{"},
        {"operationName": "x"},
    ],
)
async def test_graphql_over_get_refuses_what_is_no_query(sqlite: Database, parameters: dict[str, str]) -> None:
    async with unchanged(sqlite) as client:
        response = await client.get("/graphql", params=parameters, headers={"accept": "application/json"})

    assert response.status_code < 500
    assert response.status_code >= 400 or response.json()["errors"]


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
async def test_ten_megabytes_are_413(sqlite: Database, path: str) -> None:
    async with unchanged(sqlite) as client:
        announced = await client.post(path, content=b" " * TEN_MEGABYTES, headers=JSON)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * (TEN_MEGABYTES // 100)

        chunked = await client.post(path, content=pieces(), headers=JSON)

    for response in (announced, chunked):
        assert response.status_code == 413
    if path == "/identify":
        assert_refused(announced, 413)
        assert announced.json()["error"] == "Content Too Large"


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
async def test_the_413_reaches_a_client_that_is_still_sending(sqlite: Database, path: str) -> None:
    async with unchanged(sqlite) as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = [
            f"POST {path} HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            f"Content-Length: {TEN_MEGABYTES}",
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + b" " * 100_000)
        await writer.drain()
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
        for _ in range(99):  # it sends on, unimpressed, and is not cut off
            writer.write(b" " * 100_000)
            await asyncio.wait_for(writer.drain(), 10)
        writer.close()
        await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json", None],
)
async def test_another_content_type_or_none_is_415(sqlite: Database, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with unchanged(sqlite) as client:
        response = await client.post(path, content=b'{"email": "a@x.io"}', headers=headers)

    assert response.status_code == 415


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;"])
async def test_json_is_json_however_it_is_written(sqlite: Database, content_type: str) -> None:
    async with serving(sqlite.url) as client:
        response = await client.post(
            "/identify", content=b'{"email": "a@x.io"}', headers={"content-type": content_type}
        )

    assert response.status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def test_another_method_is_405_with_allow(sqlite: Database, method: str) -> None:
    async with unchanged(sqlite) as client:
        response = await client.request(method, "/identify")

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    if method != "HEAD":
        assert_refused(response, 405)


async def test_another_method_of_graphql_is_405_with_allow(sqlite: Database) -> None:
    async with unchanged(sqlite) as client:
        response = await client.put("/graphql", json={})

    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["a@x.io", "+1555"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
async def client(sqlite: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(sqlite.url) as client:
        yield client


@given(email=anything, phone_number=anything)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
async def test_whatever_is_sent_is_answered_below_500(
    client: httpx2.AsyncClient, email: object, phone_number: object
) -> None:
    values = {"email": email, "phoneNumber": phone_number}

    rest = await client.post("/identify", content=json.dumps(values), headers=JSON)
    graphql = await client.post("/graphql", content=json.dumps({"query": MUTATION, "variables": values}), headers=JSON)

    assert rest.status_code in (200, 400)
    assert graphql.status_code in (200, 400)
    assert "INTERNAL" not in graphql.text
