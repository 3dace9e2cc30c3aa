"""What holds for every path of the service: methods, slashes, request bodies, and where its links lead."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin

import httpx2
import pytest
from starlette.routing import Route

from identity_graphql.app import create_app
from tests.support.databases import Database
from tests.support.serving import serving, settings_for

JSON = "application/json"
READ = {"/", "/docs", "/health", "/live", "/openapi.json", "/ready", "/redoc"}
METHODS = {
    **{path: {"GET", "HEAD"} for path in sorted(READ)},
    "/identify": {"POST"},
    "/lookup": {"POST"},
    "/graphql": {"GET", "HEAD", "POST"},
}
"""Every path, and the methods that it has."""
QUESTIONS = {
    "/identify": {"email": "a@x.io"},
    "/lookup": {"email": "a@x.io"},
    "/graphql": {"query": "{ __typename }"},
}
VOLATILE = {"date", "x-request-id"}

every_path = pytest.mark.parametrize("path", METHODS)


@pytest.fixture
async def client(sqlite: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(sqlite.url) as client:
        await client.post("/identify", json=QUESTIONS["/lookup"])
        yield client


def slashed(path: str) -> Iterator[str]:
    yield path
    if path != "/":
        yield f"{path}/"


def lasting(response: httpx2.Response) -> dict[str, str]:
    """The headers that are the same at every time."""
    return {name: value for name, value in response.headers.items() if name not in VOLATILE}


def body_of(response: httpx2.Response) -> str:
    return re.sub(r'"timestamp":"[^"]*"', "", response.text)


def test_these_are_all_paths() -> None:
    routes = [route for route in create_app(settings_for("sqlite:///none.db")).routes if isinstance(route, Route)]

    assert {route.path for route in routes} == {each for path in METHODS for each in slashed(path)}


@every_path
@pytest.mark.parametrize("accept", [JSON, "text/html,*/*;q=0.8"])
async def test_head_answers_as_get_without_a_body(client: httpx2.AsyncClient, path: str, accept: str) -> None:
    params = QUESTIONS["/graphql"] if path == "/graphql" else None
    for question in (None, params):
        for each in slashed(path):
            get = await client.get(each, params=question, headers={"accept": accept})
            head = await client.head(each, params=question, headers={"accept": accept})

            assert (head.status_code, head.content) == (get.status_code, b"")
            assert get.content
            assert lasting(head).keys() == lasting(get).keys()
            if head.status_code != 405:
                assert lasting(head) == lasting(get)


@every_path
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_a_method_that_a_path_does_not_have_is_405_and_names_those_it_has(
    client: httpx2.AsyncClient, path: str, method: str
) -> None:
    for each in slashed(path):
        response = await client.request(method, each)

        assert (response.status_code == 405) == (method not in METHODS[path])
        if response.status_code == 405:
            assert set(response.headers["allow"].split(", ")) == METHODS[path]


@every_path
async def test_a_slash_at_the_end_is_as_good(client: httpx2.AsyncClient, path: str) -> None:
    """And nothing is redirected: that would be to the Host header, whoever wrote it."""
    for method in sorted(METHODS[path]):
        question = QUESTIONS.get(path) if method == "POST" else None
        headers = {"host": "evil.example", "accept": "text/html,*/*;q=0.8"}
        answers = [await client.request(method, each, json=question, headers=headers) for each in slashed(path)]

        assert {answer.status_code for answer in answers} == {200}
        assert "evil.example" not in repr([answer.headers for answer in answers]) + answers[0].text
        if path not in ("/docs", "/redoc", "/openapi.json"):  # whose links are others
            assert len({body_of(answer) for answer in answers}) == 1


@pytest.mark.parametrize("path", ["/nothing", "/identify/1", "/identify//", "//", "/graphql/x", "/health/x/"])
async def test_any_other_path_is_404(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(f"{client.base_url}{path}")

    assert (response.status_code, response.json()) == (404, {"error": "Not Found", "details": []})


# --- bodies ---


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize("coding", ["", "identity", "Identity", "identity, identity", ","])
async def test_a_body_that_is_not_compressed_may_say_so(client: httpx2.AsyncClient, path: str, coding: str) -> None:
    response = await client.post(path, json=QUESTIONS[path], headers={"content-encoding": coding})

    assert response.status_code == 200


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "br", "zstd", "deflate", "aws-chunked", "identity, gzip"])
async def test_a_body_in_any_coding_is_415_and_is_told_which_would_do(
    client: httpx2.AsyncClient, path: str, coding: str
) -> None:
    response = await client.post(path, json=QUESTIONS[path], headers={"content-encoding": coding})

    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    assert _message(response) == "The body must not be compressed: send it without Content-Encoding."


@pytest.mark.parametrize("path", QUESTIONS)
async def test_codings_may_come_in_several_headers(client: httpx2.AsyncClient, path: str) -> None:
    headers = [("content-encoding", "identity"), ("content-encoding", "gzip")]

    assert (await client.post(path, json=QUESTIONS[path], headers=headers)).status_code == 415
    assert (await client.post(path, json=QUESTIONS[path], headers=headers[:1] * 2)).status_code == 200


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_is_no_json_is_415_and_is_told_what_would_do(
    client: httpx2.AsyncClient, path: str, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    response = await client.post(path, content=b"{}", headers=headers)

    assert response.status_code == 415
    assert response.headers["accept"] == JSON
    assert _message(response) == "The body must be JSON, sent with Content-Type: application/json."


def _message(response: httpx2.Response) -> str:
    content = response.json()
    message: str = (content["errors"] if "errors" in content else content["details"])[0]["message"]
    return message


# --- links ---


@asynccontextmanager
async def behind(prefix: str, client: httpx2.AsyncClient) -> AsyncIterator[httpx2.AsyncClient]:
    """The service as it is seen through a proxy that serves it below a path, which it takes away."""

    class Proxy(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            assert request.url.path.startswith(prefix), "a link leads out of the service"
            path = "/" + request.url.path.removeprefix(prefix)
            response = await client.request(request.method, path, content=request.content, headers=request.headers)
            return httpx2.Response(response.status_code, headers=response.headers, content=response.content)

    async with httpx2.AsyncClient(transport=Proxy(), base_url=f"https://shop.example{prefix}") as proxied:
        yield proxied


@pytest.mark.parametrize("prefix", ["/", "/identity/", "/a/b/"])
async def test_every_link_leads_somewhere_behind_any_path_of_a_proxy(client: httpx2.AsyncClient, prefix: str) -> None:
    page = {"accept": "text/html"}
    async with behind(prefix, client) as proxied:
        home = await proxied.get("", headers=page)
        links = re.findall(r'href="([^"]+)"', home.text)
        assert sorted(f"/{link}" for link in links) == sorted((READ | {"/graphql"}) - {"/"})
        for link in links:
            assert (await proxied.get(urljoin(str(home.url), link), headers=page)).status_code == 200

        for path in ("docs", "docs/", "redoc", "redoc/"):
            documentation = await proxied.get(path)
            [link] = re.findall(r'(?:url: |spec-url=)"([^"]+)"', documentation.text)
            assert urljoin(str(documentation.url), link) == urljoin(str(home.url), "openapi.json")

        for path in ("openapi.json", "openapi.json/"):
            described = await proxied.get(path)
            [server] = described.json()["servers"]
            for name, operations in described.json()["paths"].items():
                place = urljoin(str(described.url), server["url"]).rstrip("/") + name
                for method in operations:
                    answer = await proxied.request(method, place, json=QUESTIONS.get(name))
                    assert answer.status_code == 200, place


async def test_graphiql_asks_where_it_was_opened(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/graphql", headers={"accept": "text/html"})).text

    assert "url: fetchURL" in page
    assert "fetchURL = window.location.href" in page


async def test_the_root_lists_everything_for_programs_too(client: httpx2.AsyncClient) -> None:
    listing = (await client.get("/", headers={"accept": JSON})).json()

    assert {name for name in listing if name.startswith("/")} == (READ | {"/graphql"}) - {"/"}
    assert (listing["identify"], listing["lookup"]) == ("POST /identify", "POST /lookup")
