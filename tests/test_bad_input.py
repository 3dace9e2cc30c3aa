"""Bad input: a clear refusal, never a 5xx, and nothing written."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.databases import Database, Databases
from tests.support.serving import JSON, serving

TEN_MEGABYTES = 10_000_000

# what is wrong -> the request, and the paths of the complaints
VALUES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ["root"]),
    "unknown keys only": ({"mail": "a@x.io", "phone": "123456"}, ["root"]),
    "nulls": ({"email": None, "phoneNumber": None}, ["root"]),
    "empty texts": ({"email": "", "phoneNumber": ""}, ["root"]),
    "blanks": ({"email": " \t\u200b", "phoneNumber": "\u00a0\n"}, ["root"]),
    "null-words": ({"email": "null", "phoneNumber": "N/A"}, ["root"]),
    "zeros only": ({"phoneNumber": "000"}, ["root"]),
    "the number zero": ({"phoneNumber": 0}, ["root"]),
    "an array": ({"email": ["a@x.io"]}, ["email"]),
    "an empty array": ({"email": []}, ["email"]),
    "an array of numbers": ({"phoneNumber": [123]}, ["phoneNumber"]),
    "an object": ({"phoneNumber": {"value": "123"}}, ["phoneNumber"]),
    "an object as email": ({"email": {}}, ["email"]),
    "a boolean as email": ({"email": True}, ["email"]),
    "a boolean as phone number": ({"phoneNumber": False}, ["phoneNumber"]),
    "a number as email": ({"email": 5}, ["email"]),
    "a fraction": ({"phoneNumber": 123.5}, ["phoneNumber"]),
    "a whole float below zero": ({"phoneNumber": -123.0}, ["phoneNumber"]),
    "a float of 2 to the 53": ({"phoneNumber": 2.0**53}, ["phoneNumber"]),
    "a number with an exponent as text": ({"phoneNumber": "9.19E+11"}, ["phoneNumber"]),
    "a negative number": ({"phoneNumber": -123}, ["phoneNumber"]),
    "2 to the 53": ({"phoneNumber": 2**53}, ["phoneNumber"]),
    "2 to the 63": ({"phoneNumber": 2**63}, ["phoneNumber"]),
    "2 to the 64": ({"phoneNumber": 2**64}, ["phoneNumber"]),
    "a NUL in an email": ({"email": "a\x00@x.io"}, ["email"]),
    "a NUL in a phone number": ({"phoneNumber": "123\x00"}, ["phoneNumber"]),
    "a control character in an email": ({"email": "a\x07@x.io"}, ["email"]),
    "a control character in a phone number": ({"phoneNumber": "123\x1b456"}, ["phoneNumber"]),
    "300 characters": ({"email": "a" * 295 + "@x.io"}, ["email"]),
    "10,000 characters": ({"email": "a" * 9_995 + "@x.io"}, ["email"]),
    "two at signs": ({"email": "a@b@x.io"}, ["email"]),
    "no at sign": ({"email": "a.x.io"}, ["email"]),
    "nothing before the at sign": ({"email": "@x.io"}, ["email"]),
    "nothing behind the at sign": ({"email": "a@"}, ["email"]),
    "a blank inside": ({"email": "a b@x.io"}, ["email"]),
    "a bad international domain": ({"email": "a@-ü-.example"}, ["email"]),
    "letters in a phone number": ({"phoneNumber": "555-CALL"}, ["phoneNumber"]),
    "two digits": ({"phoneNumber": "12"}, ["phoneNumber"]),
    "16 digits": ({"phoneNumber": "1" * 16}, ["phoneNumber"]),
    "16 digits as a number": ({"phoneNumber": 10**15}, ["phoneNumber"]),
    "two numbers in one field": ({"phoneNumber": "9876543210 / 9876543211"}, ["phoneNumber"]),
    "two short numbers in one field": ({"phoneNumber": "555-0100 / 555-0101"}, ["phoneNumber"]),
    "a comma behind an email": ({"email": "john@example.com,"}, ["email"]),
    "a semicolon behind an email": ({"email": "john@example.com;"}, ["email"]),
    "a name beside an email": ({"email": "John<john@example.com>"}, ["email"]),
    "an empty label": ({"email": "john@example..com"}, ["email"]),
    "an empty label of an international domain": ({"email": "john@b\u00fccher..com"}, ["email"]),
    "a hyphen at the end of a label": ({"email": "john@example-.com"}, ["email"]),
    "a plus in the middle": ({"phoneNumber": "1+23456"}, ["phoneNumber"]),
    "a good email beside a bad phone number": ({"email": "a@x.io", "phoneNumber": "abc"}, ["phoneNumber"]),
    "a bad email beside a known phone number": ({"email": "a", "phoneNumber": "919191"}, ["email"]),
    "two bad fields": ({"phoneNumber": True, "email": 5}, ["email", "phoneNumber"]),
}

# bodies that cannot be written as a Python value
BODIES: dict[str, bytes] = {
    "broken JSON": b'{"email": "a@x.io"',
    "more than one JSON value": b'{"email": "a@x.io"}{"email": "b@x.io"}',
    "an empty body": b"",
    "a JSON string": b'"a@x.io"',
    "a JSON number": b"5",
    "a JSON null": b"null",
    "a JSON true": b"true",
    "a JSON array": b'[{"email": "a@x.io"}]',
    "a lone surrogate": b'{"email": "\\ud800@x.io"}',
    "a lone surrogate in a phone number": b'{"phoneNumber": "123\\udfff"}',
    "a lone surrogate in bytes": b'{"email": "\xed\xa0\x80@x.io"}',
    "bytes that are not UTF-8": b'{"email": "\xff@x.io"}',
    "a raw NUL": b'{"email": "a\x00@x.io"}',
    "NaN": b'{"phoneNumber": NaN}',
    "an infinite number": b'{"phoneNumber": 1e400}',
    "a number of 5,000 digits": b'{"phoneNumber": ' + b"9" * 5000 + b"}",
    "nesting": b"[" * 16_000,
    "nesting inside": b'{"email": ' + b"[" * 8_000 + b"]" * 8_000 + b"}",
    "nesting that is let through": b'{"email": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a key without a value": b'{"email"}',
}

TOO_LARGE = ("an infinite number", "a number of 5,000 digits")  # valid JSON, but no value of anything

MUTATION = (
    "mutation ($email: String, $phoneNumber: PhoneNumber)"
    " { identify(email: $email, phoneNumber: $phoneNumber) { outcome } }"
)
MANY = "mutation ($items: [IdentifyInput!]!) { identifyMany(items: $items) { payload { outcome } error { code } } }"
REFUSALS = {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED", "QUERY_TOO_COMPLEX"}


@pytest.fixture(scope="module")
async def served(databases: Databases) -> AsyncIterator[tuple[Database, httpx2.AsyncClient]]:
    """One server for all: it must survive every one of them."""
    database = await databases.get("sqlite")
    async with serving(database.url) as client:
        for said in ({"email": "george@hillvalley.edu", "phoneNumber": "919191"}, {"email": "known@x.io"}):
            assert (await client.post("/identify", json=said)).status_code == 200
        yield database, client


@pytest.fixture
async def client(served: tuple[Database, httpx2.AsyncClient]) -> AsyncIterator[httpx2.AsyncClient]:
    """The server; whatever a test sends, every row must be the same afterwards, and the server well."""
    database, client = served
    before = await database.dump()
    yield client
    assert (await client.get("/ready")).status_code == 200
    assert await database.dump() == before


BOTH_OF_REST = pytest.mark.parametrize("path", ["/identify", "/lookup"])


def assert_refused(response: httpx2.Response, status: int, *paths: str) -> None:
    """The one shape that all errors of REST have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error", "details"]
    assert all(list(detail) == ["path", "message"] and detail["message"] for detail in body["details"])
    assert not paths or [detail["path"] for detail in body["details"]] == list(paths)


def assert_refused_by_graphql(response: httpx2.Response, *statuses: int, codes: set[str] = REFUSALS) -> None:
    """Errors with a code, and no data of the operation."""
    assert response.status_code in statuses, response.text
    answer = response.json()
    assert not any((answer.get("data") or {}).values())
    assert {error["extensions"]["code"] for error in answer["errors"]} <= codes


@BOTH_OF_REST
@pytest.mark.parametrize("case", VALUES)
async def test_rest_answers_400_and_says_which_field_is_wrong(client: httpx2.AsyncClient, path: str, case: str) -> None:
    values, paths = VALUES[case]
    response = await client.post(path, content=json.dumps(values), headers=JSON)

    assert_refused(response, 400, *paths)
    assert response.json()["error"] == "Validation Error"


@BOTH_OF_REST
@pytest.mark.parametrize("case", BODIES)
async def test_rest_answers_400_to_a_body_that_is_no_request(client: httpx2.AsyncClient, path: str, case: str) -> None:
    response = await client.post(path, content=BODIES[case], headers=JSON)

    assert_refused(response, 400)
    assert response.json()["error"] == "Validation Error"


@pytest.mark.parametrize("case", VALUES)
async def test_graphql_answers_with_a_code(client: httpx2.AsyncClient, case: str) -> None:
    values, paths = VALUES[case]
    body = json.dumps({"query": MUTATION, "variables": values})
    response = await client.post("/graphql", content=body, headers=JSON)

    assert_refused_by_graphql(response, 200)
    fields = {error["extensions"].get("field") for error in response.json()["errors"]}
    assert fields <= {None, *paths} - {"root"}


@pytest.mark.parametrize("case", VALUES)
async def test_graphql_answers_with_a_code_for_an_item(client: httpx2.AsyncClient, case: str) -> None:
    body = json.dumps({"query": MANY, "variables": {"items": [VALUES[case][0]]}})
    response = await client.post("/graphql", content=body, headers=JSON)

    assert response.status_code == 200
    answer = response.json()
    if "errors" in answer:  # a type is wrong: the whole request is
        assert_refused_by_graphql(response, 200)
    else:
        assert answer["data"]["identifyMany"] == [{"payload": None, "error": {"code": "BAD_USER_INPUT"}}]


@pytest.mark.parametrize("case", BODIES)
async def test_graphql_refuses_a_body_that_is_no_request(client: httpx2.AsyncClient, case: str) -> None:
    bare = await client.post("/graphql", content=BODIES[case], headers=JSON)
    variables = b'{"query": "' + MUTATION.encode() + b'", "variables": ' + BODIES[case] + b"}"
    inside = await client.post("/graphql", content=variables, headers=JSON)

    assert_refused_by_graphql(bare, 400, codes={"BAD_USER_INPUT" if case in TOO_LARGE else "BAD_REQUEST"})
    if case == "a JSON null":  # variables may be null
        assert_refused_by_graphql(inside, 200)
    else:
        assert_refused_by_graphql(inside, 200, 400, codes={*REFUSALS, "BAD_REQUEST"})


@pytest.mark.parametrize("case", ["[" * 100_000, '{"query": ' * 20_000])
async def test_graphql_refuses_nesting_without_end(client: httpx2.AsyncClient, case: str) -> None:
    response = await client.post("/graphql", content=case, headers=JSON)

    assert_refused_by_graphql(response, 400, codes={"BAD_REQUEST"})


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "email: null",
        'email: "", phoneNumber: null',
        'email: "a@b@x.io"',
        f'email: "{"a" * 295}@x.io"',
        'email: "a@x.io", email: "b@x.io"',
        'mail: "a@x.io"',
        "email: 5",
        "email: true",
        'email: ["a@x.io", "b@x.io"]',
        "email: $email",
        "phoneNumber: true",
        "phoneNumber: 1.5",
        "phoneNumber: 1e400",
        "phoneNumber: -123.0",
        "phoneNumber: 9007199254740992.0",
        "phoneNumber: NaN",
        "phoneNumber: -5",
        "phoneNumber: [1]",
        "phoneNumber: {a: 1}",
        "phoneNumber: RED",
        f"phoneNumber: {'[' * 100}{']' * 100}",
        f"phoneNumber: {'[' * 400}{']' * 400}",
        "phoneNumber: 9223372036854775808",
        f"phoneNumber: {'9' * 5000}",
        'email: "a\\u0000@x.io"',
        'email: "a\\u0007@x.io"',
        'email: "\\ud800@x.io"',
        'email: "a\x00@x.io"',
        'phoneNumber: "12 letters"',
    ],
    ids=lambda arguments: f"{arguments[:30]} of {len(arguments)}",
)
async def test_graphql_answers_with_a_code_to_literals(client: httpx2.AsyncClient, arguments: str) -> None:
    operation = f"mutation {{ identify({arguments}) {{ outcome }} }}".replace("()", "")
    response = await client.post("/graphql", json={"query": operation})

    assert_refused_by_graphql(response, 200)


# numbers that no argument takes, as literals and as JSON
NUMBERS = {
    "200,000 digits": "9" * 200_000,
    "200,000 digits below zero": "-" + "9" * 200_000,
    "5,000 digits": "9" * 5_000,
    "a fraction of 5,000 digits": f"0.{'9' * 5_000}",
    "an exponent of 5,000 digits": f"1e{'9' * 5_000}",
    "an infinite number": "1e400",
    "an infinite number below zero": "-1e400",
}
BY = 'actor: "ann", reason: "a test"'
PLACES = {
    "Int": "{ contacts(first: NUMBER) { edges { cursor } } }",
    "ID": "{ contact(id: NUMBER) { id } }",
    "DateTime": '{ cluster(id: "1", asOf: NUMBER) { id } }',
    "String": "{ cluster(email: NUMBER) { id } }",
    "PhoneNumber": "{ cluster(phoneNumber: NUMBER) { id } }",
    "Boolean": "{ contacts @skip(if: NUMBER) { edges { cursor } } }",
    "Int of a verb": f"mutation {{ deleteContact(id: 1, {BY}, expectedVersion: NUMBER) {{ dryRun }} }}",
    "ID of a verb": f"mutation {{ undo(event: NUMBER, {BY}, dryRun: true) {{ dryRun }} }}",
    "ID in a list": f"mutation {{ splitCluster(contactIds: [1, NUMBER], {BY}, dryRun: true) {{ dryRun }} }}",
    "ID in an object": "{ explain(from: {contactId: NUMBER}, to: {contactId: 1}) { connected } }",
    "a default": "query ($first: Int = NUMBER) { contacts(first: $first) { edges { cursor } } }",
}


def assert_refused_in_short(response: httpx2.Response, *codes: str) -> None:
    """Refused with one of these codes, without saying again what was sent."""
    assert {error["extensions"]["code"] for error in response.json()["errors"]} <= {*codes}, response.text[:1000]
    assert len(response.content) < 2_000


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_literal_that_no_argument_takes_is_bad_input(
    client: httpx2.AsyncClient, place: str, number: str
) -> None:
    response = await client.post("/graphql", json={"query": PLACES[place].replace("NUMBER", NUMBERS[number])})

    assert response.status_code == 200
    assert_refused_in_short(response, "BAD_USER_INPUT")


@pytest.mark.parametrize("number", [number for number in NUMBERS if "fraction" not in number])  # JSON reads it as 1.0
@pytest.mark.parametrize("type_", ["Int", "ID", "DateTime", "String", "PhoneNumber", "Boolean"])
async def test_a_variable_that_no_argument_takes_is_bad_input(
    client: httpx2.AsyncClient, type_: str, number: str
) -> None:
    query = f"query ($number: {type_}!) {PLACES[type_].replace('NUMBER', '$number')}"
    variables = f'{{"number": {NUMBERS[number]}}}'
    body = f'{{"query": {json.dumps(query)}, "variables": {variables}}}'
    posted = await client.post("/graphql", content=body, headers=JSON)

    assert_refused_in_short(posted, "BAD_USER_INPUT")
    if len(variables) < 10_000:  # a line that is longer is no server's to read
        linked = await client.get("/graphql", params={"query": query, "variables": variables})
        assert_refused_in_short(linked, "BAD_USER_INPUT")


async def test_rest_says_that_a_number_is_too_large(client: httpx2.AsyncClient) -> None:
    response = await client.post("/identify", content=BODIES["a number of 5,000 digits"], headers=JSON)

    assert_refused(response, 400, "root")
    assert response.json()["details"][0]["message"] == "A number in the JSON is too large"


LONG = "a" * 100_000
LONG_DOCUMENTS = {
    "a field": f"{{ {LONG} }}",
    "an argument": f"{{ contacts({LONG}: 1) {{ edges {{ cursor }} }} }}",
    "an argument twice": f"{{ contacts({LONG}: 1, {LONG}: 1) {{ edges {{ cursor }} }} }}",
    "an alias": f'{{ {LONG}: contact(id: "x") {{ id }} }}',
    "an alias in a list": f"{{ contacts {{ edges {{ node {{ {LONG}: id }} }} }} }}",
    "a type": f"query ($a: {LONG}) {{ __typename }}",
    "a variable": f"{{ contacts(first: ${LONG}) {{ edges {{ cursor }} }} }}",
    "an unused variable": f"query (${LONG}: Int) {{ __typename }}",
    "an operation": f"query {LONG} {{ __typename }} query {LONG} {{ __typename }}",
    "a fragment": f"{{ ...{LONG} }}",
    "a type condition": f"{{ ... on {LONG} {{ id }} }}",
    "a directive": f"{{ __typename @{LONG} }}",
    "an enum": f"{{ contacts(first: {LONG}) {{ edges {{ cursor }} }} }}",
    "a string": f'{{ contacts(first: "{LONG}") {{ edges {{ cursor }} }} }}',
    "a block string": f'{{ contacts(first: """{LONG}""") {{ edges {{ cursor }} }} }}',
    "a string as an id": f'{{ contact(id: "{LONG}") {{ id }} }}',
    "digits as an id": f'mutation {{ deleteContact(id: "{"9" * 100_000}", {BY}, dryRun: true) {{ dryRun }} }}',
    "a cursor": f'{{ contacts(after: "{LONG}") {{ edges {{ cursor }} }} }}',
    "an actor": f'mutation {{ deleteContact(id: 1, actor: "{LONG}", reason: "x", dryRun: true) {{ dryRun }} }}',
    "a field of an input": f"{{ explain(from: {{{LONG}: 1}}, to: {{contactId: 1}}) {{ connected }} }}",
    "an object": f'{{ explain(from: {{contactId: {{a: "{LONG}"}}}}, to: {{contactId: 1}}) {{ connected }} }}',
    "a list": f'{{ explain(from: ["{LONG}"], to: {{contactId: 1}}) {{ connected }} }}',
    "a name behind the end": f"{{ __typename }} {LONG}",
    "a number behind the end": f"{{ __typename }} {'9' * 100_000}",
    "a string behind the end": f'{{ __typename }} {{ "{LONG}" }}',
}


@pytest.mark.parametrize("case", LONG_DOCUMENTS)
async def test_no_error_repeats_what_is_long_in_a_document(client: httpx2.AsyncClient, case: str) -> None:
    response = await client.post("/graphql", json={"query": LONG_DOCUMENTS[case]})

    assert_refused_in_short(response, "BAD_USER_INPUT", "QUERY_TOO_COMPLEX", "GRAPHQL_PARSE_FAILED")


@pytest.mark.parametrize(
    "value",
    [
        LONG,
        "9" * 100_000,
        [LONG],
        {LONG: 1},
        {LONG: LONG},
        {f"{LONG[:20_000]}{n}": 1 for n in range(4)},
        {"email": [LONG]},
    ],
    ids=["text", "digits", "list", "key", "key and text", "keys", "inside"],
)
@pytest.mark.parametrize("type_", ["Int", "ID", "DateTime", "Boolean", "PhoneNumber", "SubjectInput"])
async def test_no_error_repeats_what_is_long_in_a_variable(
    client: httpx2.AsyncClient, type_: str, value: object
) -> None:
    use = PLACES.get(type_, "{ explain(from: NUMBER, to: {contactId: 1}) { connected } }").replace("NUMBER", "$value")
    response = await client.post(
        "/graphql", json={"query": f"query ($value: {type_}!) {use}", "variables": {"value": value}}
    )

    assert_refused_in_short(response, "BAD_USER_INPUT")


async def test_a_wrong_value_has_one_code_written_or_as_a_variable(client: httpx2.AsyncClient) -> None:
    written = await client.post("/graphql", json={"query": "{ contacts(first: true) { edges { cursor } } }"})
    query = "query ($first: Int!) { contacts(first: $first) { edges { cursor } } }"
    variable = await client.post("/graphql", json={"query": query, "variables": {"first": True}})

    for response in (written, variable):
        assert [error["extensions"]["code"] for error in response.json()["errors"]] == ["BAD_USER_INPUT"]


IDENTIFY = 'mutation { identify(email: "a@x.io") { outcome } }'


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": None},
        {"query": 5},
        {"query": [IDENTIFY]},
        {"query": ""},
        {"query": IDENTIFY, "variables": "x"},
        {"query": IDENTIFY, "variables": [1]},
        {"query": IDENTIFY, "variables": 5},
        {"query": IDENTIFY, "operationName": 5},
        {"query": IDENTIFY, "operationName": ["identify"]},
        {"query": IDENTIFY, "extensions": 5},
        [],
        [{"query": IDENTIFY}],
        "query",
        5,
    ],
    ids=str,
)
async def test_graphql_answers_400_to_what_is_no_graphql_request(client: httpx2.AsyncClient, body: object) -> None:
    response = await client.post("/graphql", json=body)

    assert_refused_by_graphql(response, 400, codes={"BAD_REQUEST"})


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("identify", "GRAPHQL_PARSE_FAILED"),
        ("fragment F on Query { __typename }", "BAD_REQUEST"),
        ("subscription { x }", "GRAPHQL_VALIDATION_FAILED"),
        ("mutation { forget }", "GRAPHQL_VALIDATION_FAILED"),
        (f"mutation A {IDENTIFY[8:]} mutation B {IDENTIFY[8:]}", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_graphql_refuses_documents_that_cannot_be_run(client: httpx2.AsyncClient, query: str, code: str) -> None:
    response = await client.post("/graphql", json={"query": query})

    assert response.status_code in (200, 400)
    assert not response.json().get("data")
    assert response.json()["errors"][0]["extensions"]["code"] == code


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": IDENTIFY},
        {"query": f"query A {{ __typename }} mutation B {IDENTIFY[8:]}", "operationName": "B"},
        {"query": "{ __typename }", "variables": "{"},
        {"query": "{ __typename }", "variables": "5"},
        {"query": "{ __typename }", "variables": "[1]"},
        {"query": "{ __typename }", "extensions": "{"},
        {"query": "{ __typename }", "operationName": "Missing"},
        {"query": "{"},
        {"query": ""},
        {"operationName": "x"},
        {},
    ],
    ids=str,
)
async def test_graphql_over_get_refuses_what_is_no_query(
    client: httpx2.AsyncClient, parameters: dict[str, str]
) -> None:
    response = await client.get("/graphql", params=parameters, headers={"accept": "application/json"})

    assert_refused_by_graphql(response, 200, 400, 405, codes={"GRAPHQL_PARSE_FAILED", "BAD_REQUEST"})


def assert_too_large(path: str, status: int, body: bytes) -> None:
    answer = json.loads(body)
    assert status == 413
    if path != "/graphql":
        assert list(answer) == ["error", "details"]
        assert answer["error"] == "Content Too Large"
    else:
        assert answer["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


LIMITS = {"/identify": 16 * 1024, "/lookup": 16 * 1024, "/graphql": 256 * 1024}
BOTH_EDGES = pytest.mark.parametrize("path", LIMITS)


@BOTH_EDGES
async def test_one_byte_too_many_is_413(client: httpx2.AsyncClient, path: str) -> None:
    fits = await client.post(path, content=b" " * LIMITS[path], headers=JSON)
    exceeds = await client.post(path, content=b" " * (LIMITS[path] + 1), headers=JSON)

    assert fits.status_code == 400
    assert_too_large(path, exceeds.status_code, exceeds.content)


@BOTH_EDGES
async def test_ten_megabytes_are_413(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.post(path, content=b" " * TEN_MEGABYTES, headers=JSON)

    assert_too_large(path, response.status_code, response.content)


@BOTH_EDGES
async def test_ten_megabytes_in_pieces_without_a_length_are_413(client: httpx2.AsyncClient, path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * (TEN_MEGABYTES // 100)

    response = await client.post(path, content=pieces(), headers=JSON)

    assert response.request.headers["transfer-encoding"] == "chunked"
    assert_too_large(path, response.status_code, response.content)


async def answered(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the whole body of one answer."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    (length,) = [line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length:")]
    return int(head.split()[1]), await asyncio.wait_for(reader.readexactly(int(length)), 10)


@BOTH_EDGES
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("stubborn", [False, True], ids=["reads while it sends", "reads when it has sent"])
async def test_the_413_reaches_a_client_that_is_still_sending(
    client: httpx2.AsyncClient, path: str, chunked: bool, stubborn: bool
) -> None:
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {TEN_MEGABYTES}"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    size = TEN_MEGABYTES // 20
    pieces = [b"%x\r\n%b\r\n" % (size, b" " * size) if chunked else b" " * size] * 20
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        writer.write(head.encode())
        if chunked:  # else the length alone is enough to refuse it
            writer.write(pieces.pop())
        if not stubborn:
            answer = await answered(reader)
        for piece in pieces:  # it sends on, unimpressed, and is not cut off
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), 10)
        if chunked:
            writer.write(b"0\r\n\r\n")
        if stubborn:
            answer = await answered(reader)
        writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        following = await answered(reader)
    finally:
        writer.close()
        await writer.wait_closed()

    assert_too_large(path, *answer)
    assert following == (200, b'{"status":"live"}')


@BOTH_EDGES
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_shows_the_413(client: httpx2.AsyncClient, path: str) -> None:
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "20", "-w", "%{stderr}%{http_code}", "-H", "Content-Type: application/json"),
        *("--data-binary", "@-", str(client.base_url.join(path))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, status = await curl.communicate(b" " * TEN_MEGABYTES)

    assert_too_large(path, int(status), body)
    assert curl.returncode == 0


@BOTH_EDGES
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; charset=utf-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "json",
        "",
        None,
    ],
)
async def test_another_content_type_or_none_is_415(
    client: httpx2.AsyncClient, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.post(path, content=b'{"email": "a@x.io"}', headers=headers)

    if path != "/graphql":
        assert_refused(response, 415)
        assert response.json()["error"] == "Unsupported Media Type"
    else:
        assert_refused_by_graphql(response, 415, codes={"BAD_REQUEST"})


@BOTH_OF_REST
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"])
async def test_another_method_is_405_with_allow(client: httpx2.AsyncClient, path: str, method: str) -> None:
    response = await client.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert_refused(response, 405)
        assert response.json()["error"] == "Method Not Allowed"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_of_graphql_is_405_with_allow(client: httpx2.AsyncClient, method: str) -> None:
    response = await client.request(method, "/graphql", content=json.dumps({"query": IDENTIFY}), headers=JSON)

    assert response.headers["allow"] == "GET, HEAD, POST"
    assert_refused_by_graphql(response, 405, codes={"BAD_REQUEST"})


text = st.text(st.characters(), max_size=40) | st.text("0123456789+-(). x;ext=", max_size=20) | st.emails()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from(["a@x.io", "+1555", "null"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
async def writable(sqlite: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(sqlite.url) as client:
        yield client
    await sqlite.check()


@given(email=anything, phone_number=anything)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_sent_is_answered_below_500(
    writable: httpx2.AsyncClient, email: object, phone_number: object
) -> None:
    values = {"email": email, "phoneNumber": phone_number}

    looked_up = await writable.post("/lookup", content=json.dumps(values), headers=JSON)
    rest = await writable.post("/identify", content=json.dumps(values), headers=JSON)
    again = await writable.post("/lookup", content=json.dumps(values), headers=JSON)
    asked = json.dumps({"query": MUTATION, "variables": values})
    graphql = await writable.post("/graphql", content=asked, headers=JSON)

    assert rest.status_code in (200, 400)
    assert graphql.status_code in (200, 400)
    refused = graphql.json().get("errors", [])
    assert {error["extensions"]["code"] for error in refused} <= {*REFUSALS, "BAD_REQUEST"}
    assert (rest.status_code == 200) == (not refused)
    assert looked_up.status_code in ((200, 400, 404) if rest.status_code == 200 else (400,))
    assert (again.status_code, again.content) == (rest.status_code, rest.content)
