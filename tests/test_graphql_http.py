"""GraphQL over HTTP: media types, status codes, and what an answer that failed looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.databases import Database
from tests.support.serving import serving

JSON = "application/json"
RESPONSE = "application/graphql-response+json"


@pytest.fixture
async def client(sqlite: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(sqlite.url) as client:
        del client.headers["accept"]
        yield client


def assert_typed(response: httpx2.Response, media_type: str) -> None:
    assert response.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("Application/JSON ; charset=utf-8", JSON),
        ("application/json, text/plain, */*", JSON),
        ("application/json;q=0.9, text/html;q=1", JSON),
        ("application/json, application/graphql-response+json", JSON),
        ("application/graphql-response+json;q=0, */*", JSON),
        ("application/graphql-response+json;q=much, application/json;q=0.1", JSON),
        ("application/graphql-response+json", RESPONSE),
        ("application/graphql-response+json; charset=utf-8, application/json; charset=utf-8", RESPONSE),
        ("application/graphql-response+json, application/json;q=0.9", RESPONSE),
        ("application/json;q=0.5, application/graphql-response+json;q=0.7", RESPONSE),
        ("application/json;q=0.5,application/graphql-response+json ; charset=utf-8 ; q=0.7", RESPONSE),
        ("application/json;q=0, */*;q=0.1", RESPONSE),
        ("*/*, application/graphql-response+json", RESPONSE),
        ("text/html, " * 50 + "application/graphql-response+json", RESPONSE),
    ],
)
async def test_an_answer_has_the_media_type_that_is_liked_best(
    client: httpx2.AsyncClient, accept: str | None, media_type: str
) -> None:
    headers = {} if accept is None else {"accept": accept}
    response = await client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)

    assert (response.status_code, response.json()) == (200, {"data": {"__typename": "Query"}})
    assert_typed(response, media_type)


async def test_several_headers_are_one_list(client: httpx2.AsyncClient) -> None:
    headers = [("accept", "application/json;q=0.5"), ("accept", RESPONSE)]
    response = await client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)

    assert_typed(response, RESPONSE)


@pytest.mark.parametrize("accept", ["text/html", "application/xml, text/*", "*/*;q=0", "application/json;q=0", "json"])
async def test_where_no_answer_is_acceptable_nothing_is_run(client: httpx2.AsyncClient, accept: str) -> None:
    mutation = 'mutation { identify(email: "a@x.io") { outcome } }'
    response = await client.post("/graphql", json={"query": mutation}, headers={"accept": accept})
    found = await client.post("/graphql", json={"query": '{ cluster(email: "a@x.io") { id } }'})

    assert response.status_code == 406
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert_typed(response, JSON)
    assert found.json() == {"data": {"cluster": None}}


FAILING = {
    "a document that cannot be parsed": ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
    "a field that there is not": ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
    "a document that asks for too much": ({"query": "{ " + "__typename " * 21 + "}"}, "QUERY_TOO_COMPLEX"),
    "a variable of a wrong type": (
        {"query": "query ($id: ID!) { contact(id: $id) { id } }", "variables": {"id": None}},
        "BAD_USER_INPUT",
    ),
    "two operations and no name": (
        {"query": "query A { __typename } query B { __typename }"},
        "GRAPHQL_VALIDATION_FAILED",
    ),
    "a name that no operation has": ({"query": "query A { __typename }", "operationName": "B"}, "BAD_REQUEST"),
    "no operation": ({"query": "fragment F on Query { __typename }"}, "BAD_REQUEST"),
}


@pytest.mark.parametrize(("accept", "status"), [(JSON, 200), (RESPONSE, 400)])
@pytest.mark.parametrize("case", FAILING)
async def test_an_operation_that_was_not_run_has_no_data(
    client: httpx2.AsyncClient, case: str, accept: str, status: int
) -> None:
    body, code = FAILING[case]
    response = await client.post("/graphql", json=body, headers={"accept": accept})

    assert (response.status_code, list(response.json())) == (status, ["errors"])
    assert response.json()["errors"][0]["extensions"]["code"] == code
    assert_typed(response, accept)


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
@pytest.mark.parametrize(
    ("query", "data"),
    [
        ('{ a: __typename cluster(email: "@") { id } }', {"a": "Query", "cluster": None}),
        ('mutation { identify(email: "@") { outcome } }', None),  # whose field cannot be null
    ],
)
async def test_an_operation_that_was_run_is_200_even_if_it_failed(
    client: httpx2.AsyncClient, query: str, data: object, accept: str
) -> None:
    response = await client.post("/graphql", json={"query": query}, headers={"accept": accept})

    assert (response.status_code, response.json()["data"]) == (200, data)
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert_typed(response, accept)


@pytest.mark.parametrize(("accept", "status"), [(JSON, 200), (RESPONSE, 500)])
async def test_a_fault_of_the_program_is_no_bad_request(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, accept: str, status: int
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("secret@x.io")

    monkeypatch.setattr("graphql.validate", fail)
    response = await client.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": accept})

    assert (response.status_code, list(response.json())) == (status, ["errors"])
    assert response.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert "secret" not in response.text


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
@pytest.mark.parametrize(
    ("method", "content_type", "body", "status"),
    [
        ("POST", JSON, b"{", 400),
        ("POST", JSON, b"[]", 400),
        ("POST", JSON, b'{"query": 5}', 400),
        ("PUT", JSON, b"{}", 405),
        ("POST", JSON, b" " * 300_000, 413),
        ("POST", "text/plain", b'{"query": "{ __typename }"}', 415),
    ],
)
async def test_a_refusal_has_the_media_type_that_is_asked_for(
    client: httpx2.AsyncClient, method: str, content_type: str, body: bytes, status: int, accept: str
) -> None:
    headers = {"content-type": content_type, "accept": accept}
    response = await client.request(method, "/graphql", content=body, headers=headers)

    assert (response.status_code, list(response.json())) == (status, ["errors"])
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert_typed(response, accept)


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_mutation_over_get_is_405_and_not_run(client: httpx2.AsyncClient, method: str, accept: str) -> None:
    mutation = 'mutation { identify(email: "a@x.io") { outcome } }'
    response = await client.request(method, "/graphql", params={"query": mutation}, headers={"accept": accept})
    found = await client.get("/graphql", params={"query": '{ cluster(email: "a@x.io") { id } }'})

    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    if method == "GET":
        assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert_typed(response, accept)
    assert found.json() == {"data": {"cluster": None}}


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"])
async def test_a_browser_gets_a_page_or_an_answer(client: httpx2.AsyncClient, accept: str) -> None:
    page = await client.get("/graphql", headers={"accept": accept})
    answer = await client.get("/graphql", params={"query": "{ __typename }"}, headers={"accept": accept})

    assert (page.status_code, page.headers["vary"]) == (200, "Accept")
    assert page.headers["content-type"].startswith("text/html")
    assert answer.status_code == (200 if "*/*" in accept else 406)
    assert_typed(answer, JSON)
