"""GraphQL over HTTP: the endpoint, its limits and its refusals."""

from __future__ import annotations

from typing import Any

import orjson
from cross_web import HTTPException, StarletteRequestAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult

from identity_graphql.body import BodyTooLarge, limited
from identity_graphql.errors import Unexpected
from identity_graphql.graphql.context import Context
from identity_graphql.graphql.errors import coded
from identity_graphql.graphql.negotiation import GRAPHQL_RESPONSE, JSON, media_type_for
from identity_graphql.service import IdentityService

LARGEST_BODY = 256 * 1024

_HEADERS = {kind: {"Content-Type": f"{kind}; charset=utf-8", "Vary": "Accept"} for kind in (JSON, GRAPHQL_RESPONSE)}
# What Strawberry carries from `get_sub_response` to `create_response`: here nothing but the media type, so one will do.
_SUB_RESPONSES = {kind: Response(media_type=kind) for kind in (JSON, GRAPHQL_RESPONSE)}


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
            return _refusal(request, 405, "GraphQL is served over GET and POST.", allow="GET, POST")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and media_type != JSON:
            return _refusal(request, 415, "The body must be JSON, sent with Content-Type: application/json.")
        try:
            return await self.run(request)
        except BodyTooLarge:
            return _refusal(request, 413, f"The body may have at most {LARGEST_BODY} bytes.")
        except HTTPException as error:
            match error.__cause__:
                case InvalidOperationTypeError():  # GET must be safe
                    return _refusal(request, 405, error.reason, allow="POST")
                case CannotGetOperationTypeError():  # an error of the document, not of HTTP
                    return self.create_response(_errors(error.reason), _SUB_RESPONSES[_accepted(request) or JSON])
                case _:
                    return _refusal(request, error.status_code, error.reason)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        return Context(self._service)

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        """Raises HTTPException, before anything was run, if the client could not read the answer."""
        assert isinstance(request, Request), "no subscriptions"
        media_type = _accepted(request)
        if media_type is None and not self.should_render_graphql_ide(StarletteRequestAdapter(request)):
            raise HTTPException(406, f"The answer can be {JSON} or {GRAPHQL_RESPONSE}; Accept allows neither.")
        return _SUB_RESPONSES[media_type or JSON]

    async def render_graphql_ide(self, request: Request) -> Response:
        response = await super().render_graphql_ide(request)
        response.headers["Vary"] = "Accept"
        return response

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        """The answer to an operation, without `data` if the operation was not run."""
        # Here and in no extension: what fails in an extension is seen by none.
        if result.errors:
            result.errors = coded(result.errors)
        answer = await super().process_result(request, result)
        if result.errors and result.data is None and not any(error.path for error in result.errors):
            del answer["data"]
        return answer

    def create_response(
        self, response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse], sub_response: Response
    ) -> Response:
        assert not isinstance(response_data, list), "no batches"
        media_type = sub_response.media_type or JSON
        status = _status(response_data) if media_type == GRAPHQL_RESPONSE else 200
        return Response(self.encode_json(response_data), status, _HEADERS[media_type])

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


def _accepted(request: Request) -> str | None:
    # a list may come as several headers; without any, everything is accepted
    return media_type_for(",".join(request.headers.getlist("accept")) or "*/*")


def _status(answer: GraphQLHTTPResponse) -> int:
    """By what an answer says: an operation that was run is a success, even if every field of it failed."""
    if "data" in answer:
        return 200
    errors: Any = answer["errors"]
    return 500 if any(error["extensions"]["code"] == Unexpected.code for error in errors) else 400


def _errors(message: str) -> GraphQLHTTPResponse:
    return {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}


def _refusal(request: Request, status: int, message: str, *, allow: str | None = None) -> Response:
    headers = _HEADERS[_accepted(request) or JSON] | ({"Allow": allow} if allow else {})
    return Response(orjson.dumps(_errors(message)), status, headers)
