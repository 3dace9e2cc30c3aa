"""GraphQL over HTTP: the endpoint, its limits and its refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from graphql import GraphQLError
from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.http.ides import get_graphql_ide_html

from identity_graphql.api.body import (
    BodyTooLarge,
    NotJSON,
    UnsupportedBody,
    json_value,
    require_plain_json,
    whole_body,
)
from identity_graphql.api.graphql.context import Context
from identity_graphql.api.graphql.errors import coded
from identity_graphql.api.graphql.negotiation import GRAPHQL_RESPONSE, JSON, media_type_for
from identity_graphql.api.graphql.operations import NotRun, Operations
from identity_graphql.errors import InvalidInput, Unexpected

LARGEST_BODY = 256 * 1024
READING = ("GET", "HEAD")  # HEAD is GET without the answer's body

_TYPES = {kind: (b"content-type", f"{kind}; charset=utf-8".encode()) for kind in (JSON, GRAPHQL_RESPONSE)}
_VARY = (b"vary", b"Accept")

Answer = dict[str, Any]


class Refused(Exception):
    """HTTP's own refusal: nothing was run. ``headers`` say what would do."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, *, code: str = "BAD_REQUEST"
    ) -> None:
        self.status, self.message, self.headers, self.code = status, message, headers or {}, code


class Parameters(Struct, frozen=True):
    """What a request asks for."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


class GraphQLEndpoint:
    """`/graphql`: operations as JSON over POST, queries over GET, GraphiQL for a browser."""

    def __init__(self, schema: Schema, context: Callable[[], Context]) -> None:
        self._operations = Operations(schema)
        self._context = context
        self._page = get_graphql_ide_html(graphql_ide="graphiql")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await WebSocket(scope, receive, send).close()  # no subscriptions
            return
        # a list may come as several headers; without any, everything is accepted
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        kind, status, headers = media_type_for(accept or "*/*"), 200, []
        try:
            if _asks_for_the_page(scope, accept):
                await HTMLResponse(self._page, headers={"Vary": "Accept"})(scope, receive, send)
                return
            answer = await self.run(scope, receive, acceptable=kind is not None)
            if kind == GRAPHQL_RESPONSE:
                status = _status(answer)
        except Refused as refusal:
            answer, status = _refusal(refusal), refusal.status
            headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        body = orjson.dumps(answer)
        headers += [_TYPES[kind or JSON], _VARY, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})

    async def run(self, scope: Scope, receive: Receive, *, acceptable: bool) -> Answer:
        """The answer to what a request asks for, without `data` if that was not run. Raises Refused."""
        asked = await _parameters(scope, receive, acceptable=acceptable)
        try:
            operation = self._operations.find(asked.query, asked.operation_name)
            if scope["method"] in READING and not operation.only_reads:
                raise Refused(405, "Mutations are sent by POST: GET changes nothing.", {"Allow": "POST"})
            result = await self._operations.run(operation, asked.variables, self._context())
        except NotRun as refused:
            return {"errors": [error.formatted for error in coded(refused.errors)]}
        except Refused:
            raise
        except Exception as error:
            return {"errors": [error.formatted for error in coded([GraphQLError("", original_error=error)])]}
        if not result.errors:
            return {"data": result.data}
        errors = [error.formatted for error in coded(result.errors)]
        if result.data is None and not any("path" in error for error in errors):
            return {"errors": errors}
        return {"data": result.data, "errors": errors}


def _asks_for_the_page(scope: Scope, accept: str) -> bool:
    """A browser, or anybody who takes anything, without a query."""
    if scope["method"] not in READING or not ("text/html" in accept or "*/*" in accept):
        return False
    return "query" not in QueryParams(scope["query_string"])


async def _parameters(scope: Scope, receive: Receive, *, acceptable: bool) -> Parameters:
    method = scope["method"]
    if method != "POST" and method not in READING:
        raise Refused(405, "GraphQL is served over GET and POST.", {"Allow": "GET, HEAD, POST"})
    if method == "POST":
        try:
            require_plain_json(scope)
        except UnsupportedBody as error:
            raise Refused(415, str(error), error.headers) from None
    if not acceptable:
        raise Refused(406, f"The answer can be {JSON} or {GRAPHQL_RESPONSE}; Accept allows neither.")
    try:
        given = await _posted(scope, receive) if method == "POST" else _linked(scope)
    except BodyTooLarge:
        message = f"The body may have at most {LARGEST_BODY:,} bytes: send what is more in several requests."
        raise Refused(413, message) from None
    except NotJSON as error:
        code = InvalidInput.code if error.too_large else "BAD_REQUEST"
        raise Refused(400, f"{error}.", code=code) from None
    if not isinstance(given, dict):
        raise Refused(400, "The body must be a JSON object.")
    query, variables, name, extensions = map(given.get, ("query", "variables", "operationName", "extensions"))
    if not isinstance(query, str) or not query:
        raise Refused(400, "A query is needed: a GraphQL document, as a string.")
    if variables is not None and not isinstance(variables, dict):
        raise Refused(400, "variables must be an object.")
    if name is not None and not isinstance(name, str):
        raise Refused(400, "operationName must be a string.")
    if extensions is not None and not isinstance(extensions, dict):
        raise Refused(400, "extensions must be an object.")
    return Parameters(query, variables, name or None)


async def _posted(scope: Scope, receive: Receive) -> object:
    return json_value(await whole_body(scope, receive, limit=LARGEST_BODY))


def _linked(scope: Scope) -> object:
    """What stands in the query string, where the two objects are JSON."""
    given: dict[str, Any] = dict(QueryParams(scope["query_string"]))
    return given | {name: json_value(given[name]) for name in ("variables", "extensions") if given.get(name)}


def _status(answer: Answer) -> int:
    """By what an answer says: an operation that was run is a success, even if every field of it failed."""
    if "data" in answer:
        return 200
    return 500 if any(error["extensions"]["code"] == Unexpected.code for error in answer["errors"]) else 400


def _refusal(refused: Refused) -> Answer:
    return {"errors": [{"message": refused.message, "extensions": {"code": refused.code}}]}
