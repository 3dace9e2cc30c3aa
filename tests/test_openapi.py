"""The OpenAPI document is valid, says what is really answered, and makes clients that work."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from identity_graphql.api import openapi, rest
from identity_graphql.domain.warnings import WarningCode
from tests import client as generated
from tests.support.databases import Database
from tests.support.graphql import data
from tests.support.serving import serving

CONTRACTS = sorted(rest.CONTRACTS)
KINDS = '{"customer_id": {"limit": 1, "on_limit": "withhold"}, "device_id": {"limit": 1}}'


def described_in(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every response of the document, with its path and its status."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                yield path, status, response


def check(document: dict[str, Any], path: str, response: httpx2.Response) -> None:
    """Assert that the document describes this response."""
    described = document["paths"][path][response.request.method.lower()]["responses"][str(response.status_code)]
    assert {name.lower() for name in described["headers"]} <= {*response.headers, "x-identity-warnings"}
    assert {name for name in response.headers if name.startswith("x-") or name == "retry-after"} <= {
        name.lower() for name in described["headers"]
    }
    schema = {**described["content"]["application/json"]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(response.json())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_document_is_valid_openapi(contract: str) -> None:
    OpenAPIV31SpecValidator(openapi.document(rest.CONTRACTS[contract])).validate()


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_every_answer_is_as_it_is_described(sqlite: Database, contract: str) -> None:
    async with serving(sqlite.url, rest_contract=contract) as client:
        document = (await client.get("/openapi.json")).json()
        for body in ({"email": "a@x.io", "phoneNumber": 111}, {"email": "b@x.io", "phoneNumber": "111"}, {}):
            check(document, "/identify", await client.post("/identify", json=body))
        check(document, "/identify", await client.post("/identify", json={"email": "x" * 20_000}))
        check(document, "/identify", await client.post("/identify", content="hello"))
        warned = await client.post("/identify", json={"email": "a@x.io", "phoneNumber": "null"})
        assert "x-identity-warnings" in warned.headers
        check(document, "/identify", warned)
        asked: list[tuple[dict[str, Any], int]] = [
            ({"phoneNumber": 111}, 200),
            ({"email": "c@x.io", "phoneNumber": 111}, 200),
            ({"email": "c@x.io"}, 404),
            ({}, 400),
            ({"email": "x" * 20_000}, 413),
        ]
        for body, status in asked:
            looked_up = await client.post("/lookup", json=body)
            assert looked_up.status_code == status
            check(document, "/lookup", looked_up)
        check(document, "/lookup", await client.post("/lookup", content="hello"))
        several = {
            "identifiers": {"email": ["a@x.io", "d@x.io"]},
            "source": "shop",
            "occurredAt": "2020-01-31T09:30:00Z",
        }
        check(document, "/identify", await client.post("/identify", json=several))
        check(document, "/identify", await client.post("/identify", json={"identifiers": {"unheard_of": "1"}}))
        for path in ("/health", "/live", "/ready"):
            check(document, path, await client.get(path))


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_answers_with_other_kinds_are_as_they_are_described(sqlite: Database, contract: str) -> None:
    said: list[dict[str, Any]] = [
        {"email": "a@x.io", "identifiers": {"customer_id": 42, "device_id": ["b", "a"]}},
        {"email": "a@x.io", "identifiers": {"customer_id": 43}},
        {"email": "a@x.io", "identifiers": {}},
    ]
    async with serving(sqlite.url, rest_contract=contract, identifier_kinds=KINDS) as client:
        document = (await client.get("/openapi.json")).json()
        answers = [await client.post("/identify", json=body) for body in said]
        looked_up = await client.post("/lookup", json={"identifiers": {"device_id": "b"}})

    for answer in answers:
        assert answer.status_code == 200
        check(document, "/identify", answer)
    check(document, "/lookup", looked_up)
    contacts = [answer.json() if contract == "flat" else answer.json()["contact"] for answer in (*answers, looked_up)]
    first = {"customer_id": ["42"], "device_id": ["a", "b"]}
    assert [contact["identifiers"] for contact in contacts] == [first, {"customer_id": ["43"]}, first, first]
    assert [list(contact)[-1] for contact in contacts] == ["identifiers"] * 4
    warned = [answer.headers.get("x-identity-warnings") for answer in answers]
    assert warned == ["device_id=LIMIT_EXCEEDED", "root=LINK_WITHHELD", None]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"email": "a@x.io"}, 200),
        ({"email": "a@x.io", "identifiers": {}}, 200),
        ({"email": "a@x.io", "identifiers": None, "source": None, "occurredAt": None}, 200),
        ({"identifiers": {"customer_id": "42"}}, 200),
        ({"identifiers": {"customer_id": 42, "device_id": ["a", 2, None]}, "source": "shop"}, 200),
        ({"identifiers": {"device_id": -(2**53 - 1)}}, 200),
        ({"email": "a@x.io", "occurredAt": "2020-01-31T09:30:00+01:00"}, 200),
        ({"identifiers": [1]}, 400),
        ({"identifiers": {"customer_id": True}}, 400),
        ({"identifiers": {"customer_id": {"a": "b"}}}, 400),
        ({"identifiers": {"customer_id": [["a"]]}}, 400),
        ({"identifiers": {"customer_id": [1.5]}}, 400),
        ({"identifiers": {"customer_id": 2**53}}, 400),
        ({"email": "a@x.io", "source": "s" * 65}, 400),
        ({"email": "a@x.io", "source": 5}, 400),
        ({"email": "a@x.io", "occurredAt": 5}, 400),
        ({"phoneNumber": "123"}, 200),
        ({"phoneNumber": 123}, 200),
        ({"email": "a@x.io", "phoneNumber": None}, 200),
        ({"email": "a@x.io", "unknown": [1]}, 200),
        ({"email": 5}, 400),
        ({"phoneNumber": True}, 400),
        ({"phoneNumber": 1.5}, 400),
        ({"email": "a@x.io", "phoneNumber": -1}, 200),
        ({"phoneNumber": -2}, 400),
        ({"phoneNumber": 2**53}, 400),
    ],
)
async def test_the_request_schema_agrees_with_what_is_accepted(
    sqlite: Database, body: dict[str, Any], status: int
) -> None:
    async with serving(sqlite.url, identifier_kinds=KINDS) as client:
        document = (await client.get("/openapi.json")).json()
        response = await client.post("/identify", json=body)

    schema = {"$ref": "#/components/schemas/IdentifyRequest", "components": document["components"]}
    assert response.status_code == status
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == (status == 200)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": None, "phoneNumber": None},
        {"email": "", "phoneNumber": " "},
        {"identifiers": {}, "source": "shop"},
        {"identifiers": {"email": [], "phone_number": [None, ""]}},
    ],
)
async def test_that_an_identifier_is_needed_is_said_in_words(sqlite: Database, body: dict[str, Any]) -> None:
    """As a schema, it is what generators of clients stumble over."""
    async with serving(sqlite.url) as client:
        request = (await client.get("/openapi.json")).json()["components"]["schemas"]["IdentifyRequest"]
        response = await client.post("/identify", json=body)

    assert (response.status_code, response.json()["details"][0]["path"]) == (400, "root")
    assert "at least one of them must say something" in request["description"]
    assert not {"anyOf", "oneOf", "allOf", "required"} & request.keys()
    assert all("null" in schema["type"] and schema["examples"] for schema in request["properties"].values())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_response_has_a_schema_and_nothing_is_null_by_default(contract: str) -> None:
    document = openapi.document(rest.CONTRACTS[contract])

    for path, status, response in described_in(document):
        (name,) = response["content"]["application/json"]["schema"].values()
        assert name.rpartition("/")[2] in document["components"]["schemas"], (path, status)
    assert '"default"' not in json.dumps(document), "it is what a page fills in"


@pytest.mark.parametrize("example", openapi.EXAMPLES)
async def test_what_a_page_sends_when_it_is_tried_out_is_answered(sqlite: Database, example: str) -> None:
    async with serving(sqlite.url) as client:
        document = (await client.get("/openapi.json")).json()
        body = document["paths"]["/identify"]["post"]["requestBody"]["content"]["application/json"]
        value = body["examples"][example]["value"]
        response = await client.post("/identify", json=value)

    assert None not in value.values()
    assert response.status_code == 200
    assert not response.headers.get("x-identity-warnings")
    schema = {**body["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


async def test_both_edges_document_every_code_of_a_warning(sqlite: Database) -> None:
    query = '{ __type(name: "WarningCode") { enumValues { name description } } }'
    async with serving(sqlite.url) as client:
        document = (await client.get("/openapi.json")).json()
        (values,) = (await data(client, query))["__type"].values()

    described = {code.value: code.description for code in WarningCode}
    assert {value["name"]: value["description"] for value in values} == described
    for path in ("/identify", "/lookup"):
        header = document["paths"][path]["post"]["responses"]["200"]["headers"]["X-Identity-Warnings"]
        for code, description in described.items():
            assert f"`{code}`: {description}" in header["description"]


@pytest.fixture(scope="module")
def generator() -> None:
    """Skips where it cannot be installed, or fails where REQUIRE_CLIENT=1 says that it must be."""
    try:
        generated.install()
    except generated.Unavailable as reason:
        if os.environ.get("REQUIRE_CLIENT") == "1":
            pytest.fail(f"REQUIRE_CLIENT=1, but: {reason}")
        pytest.skip(str(reason))


@pytest.fixture
async def contacts(sqlite: Database, contract: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(sqlite.url, rest_contract=contract) as client:
        yield client


@pytest.mark.usefixtures("generator")
@pytest.mark.parametrize("contract", CONTRACTS)
async def test_a_generated_client_calls_the_service(
    contacts: httpx2.AsyncClient, contract: str, tmp_path: Path
) -> None:
    requests: list[dict[str, Any]] = [
        {"email": "mcfly@hillvalley.edu", "phone_number": 123456},
        {"email": "lorraine@hillvalley.edu", "phone_number": "123456"},
        {"phone_number": "123456"},
        {"email": "lorraine@hillvalley.edu", "phone_number": None},
        {"email": "lorraine@hillvalley.edu", "phone_number": "000"},
        {"lookup": True, "email": "mcfly@hillvalley.edu", "phone_number": "null"},
        {},
        {"lookup": True, "email": "doc@hillvalley.edu"},
        {
            "identifiers": {"email": ["lorraine@hillvalley.edu", "mcfly@hillvalley.edu"], "phone_number": 123456},
            "source": "shop",
            "occurred_at": "2020-01-31T09:30:00+00:00",
        },
    ]
    document = (await contacts.get("/openapi.json")).json()
    await asyncio.to_thread(generated.generate, document, tmp_path)
    *answers, checks = await asyncio.to_thread(generated.call, tmp_path, str(contacts.base_url), *requests)

    answer = rest.CONTRACTS[contract].answer.__name__
    assert [(status, kind) for status, kind, *_ in answers] == (
        [(200, answer)] * 6 + [(400, "ErrorAnswer"), (404, "ErrorAnswer"), (200, answer)]
    )
    with_kinds = answers.pop()
    plain = (await contacts.post("/identify", json={"phoneNumber": "123456"})).json()
    assert "lorraine@hillvalley.edu" in json.dumps(plain)
    contact = (plain if contract == "flat" else plain["contact"]) | {"identifiers": {}}
    assert with_kinds == [200, answer, contact if contract == "flat" else {"contact": contact}, None]
    assert [parsed for _, _, parsed, _ in answers[1:6]] == [plain] * 5
    assert [warning for *_, warning in answers] == [None] * 4 + ["phoneNumber=IGNORED_VALUE"] * 2 + [None] * 2
    assert answers[6][2]["details"][0]["path"] == "root"
    assert checks == ["healthy" if contract == "flat" else "ok", "live", "ready"]
