"""GraphQL over HTTP: the endpoint, its limits and its refusals."""

from __future__ import annotations

from typing import Any

import orjson
from cross_web import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse
from strawberry.types import ExecutionResult

from identity_graphql.body import BodyTooLarge, limited
from identity_graphql.graphql.context import Context
from identity_graphql.graphql.errors import coded
from identity_graphql.service import IdentityService

LARGEST_BODY = 256 * 1024


class GraphQLEndpoint(GraphQL[Context, None]):
    """`/graphql`: operations as JSON over POST, queries over GET, GraphiQL for a browser."""

    def __init__(self, schema: Schema, service: IdentityService) -> None:
        super().__init__(schema, graphql_ide="graphiql", subscription_protocols=())
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await WebSocket(scope, receive, send).close()  # no subscriptions
            return
        request = Request(scope, limited(scope, receive, limit=LARGEST_BODY))
        await (await self._respond(request))(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method not in ("GET", "POST"):
            return _refusal(405, "GraphQL is served over GET and POST.", headers={"Allow": "GET, POST"})
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and media_type != "application/json":
            return _refusal(415, "The body must be JSON, sent with Content-Type: application/json.")
        try:
            return await self.run(request)
        except BodyTooLarge:
            return _refusal(413, f"The body may have at most {LARGEST_BODY} bytes.")
        except HTTPException as error:
            return _refusal(error.status_code, error.reason)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        return Context(self._service)

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        # Here and in no extension: what fails in an extension is seen by none.
        if result.errors:
            result.errors = coded(result.errors)
        return await super().process_result(request, result)

    def parse_json(self, data: str | bytes) -> Any:
        value = super().parse_json(data)
        if not isinstance(value, dict):
            raise HTTPException(400, "The body must be a JSON object.")
        if not isinstance(value.get("operationName"), str | None):
            raise HTTPException(400, "operationName must be a string.")
        return value

    def decode_json(self, data: str | bytes) -> object:
        return orjson.loads(data)  # unlike the standard library it refuses lone surrogates

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data)


def _refusal(status: int, message: str, *, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps({"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]})
    return Response(body, status, headers, media_type="application/json")
