"""The OpenAPI document is valid, and says what is really answered."""

from __future__ import annotations

from typing import Any

import httpx2
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from identity_graphql.api import openapi, rest
from tests.support.databases import Database
from tests.support.serving import serving

CONTRACTS = sorted(rest.CONTRACTS)


def check(document: dict[str, Any], path: str, response: httpx2.Response) -> None:
    """Assert that the document describes this response."""
    described = document["paths"][path][response.request.method.lower()]["responses"][str(response.status_code)]
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
        for path in ("/health", "/live", "/ready"):
            check(document, path, await client.get(path))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"email": "a@x.io"}, 200),
        ({"phoneNumber": "123"}, 200),
        ({"phoneNumber": 123}, 200),
        ({"email": "a@x.io", "phoneNumber": None}, 200),
        ({"email": "a@x.io", "unknown": [1]}, 200),
        ({}, 400),
        ({"email": None, "phoneNumber": None}, 400),
        ({"email": ""}, 400),
        ({"email": 5}, 400),
        ({"phoneNumber": True}, 400),
        ({"phoneNumber": 1.5}, 400),
        ({"phoneNumber": -1}, 400),
        ({"phoneNumber": 2**53}, 400),
    ],
)
async def test_the_request_schema_agrees_with_what_is_accepted(
    sqlite: Database, body: dict[str, Any], status: int
) -> None:
    async with serving(sqlite.url) as client:
        document = (await client.get("/openapi.json")).json()
        response = await client.post("/identify", json=body)

    schema = {"$ref": "#/components/schemas/IdentifyRequest", "components": document["components"]}
    assert response.status_code == status
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == (status == 200)
