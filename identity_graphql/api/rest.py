"""The REST shim: the JSON contracts of the five systems that this service replaces, quirks included."""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from identity_graphql.api.body import (
    BodyTooLarge,
    NotJSON,
    UnsupportedBody,
    json_value,
    require_plain_json,
    whole_body,
)
from identity_graphql.api.moments import moment
from identity_graphql.api.names import wire_names
from identity_graphql.domain.contacts import Cluster
from identity_graphql.domain.identifiers import BUILT_IN, Given
from identity_graphql.domain.reconcile import Decision
from identity_graphql.errors import Busy, IdentityError, InvalidInput, NotFound, Problem, Unexpected
from identity_graphql.observability import describe, log, note, request_id
from identity_graphql.services.identify import IdentityService

LARGEST_BODY = 16 * 1024
RETRY_AFTER = "1"  # seconds

# The phrases of RFC 9110, which `http` has only since Python 3.13
PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}

Ids = list[int]
Others = Annotated[
    dict[str, list[str]],
    Meta(
        description="Only where the request had `identifiers`: the customer's values of every kind but email and phone"
        " number.",
        examples=[{"customer_id": ["42"]}],
    ),
]


class BitespeedContact(Struct):
    """The whole cluster, under the task's spelling. The primary's values come first."""

    primaryContatctId: int
    emails: list[str]
    phoneNumbers: list[str]
    secondaryContactIds: Ids
    identifiers: Others | UnsetType = UNSET


class CorrectedContact(Struct):
    """The whole cluster. The primary's values come first."""

    primaryContactId: int
    emails: list[str]
    phoneNumbers: list[str]
    secondaryContactIds: Ids
    identifiers: Others | UnsetType = UNSET


class BitespeedAnswer(Struct):
    contact: BitespeedContact


class CorrectedAnswer(Struct):
    contact: CorrectedContact


class ErrorDetail(Struct):
    path: Annotated[str, Meta(examples=["root", "email", "phoneNumber", "identifiers.customer_id"])]
    message: str


class ErrorAnswer(Struct):
    """Every error, whatever its status."""

    error: Annotated[str, Meta(examples=["Validation Error"])]
    details: list[ErrorDetail]


class Health(Struct):
    status: Literal["ok"]
    timestamp: Annotated[str, Meta(examples=["2026-02-27T00:00:00.000Z"])]


class FlatHealth(Struct):
    status: Literal["healthy"]


class Live(Struct):
    status: Literal["live"]


class Ready(Struct):
    status: Literal["ready"]


def _bitespeed(cluster: Cluster, others: Others | UnsetType = UNSET) -> BitespeedAnswer:
    return BitespeedAnswer(BitespeedContact(*_columns(cluster), others))


def _corrected(cluster: Cluster, others: Others | UnsetType = UNSET) -> CorrectedAnswer:
    return CorrectedAnswer(CorrectedContact(*_columns(cluster), others))


def _flat(cluster: Cluster, others: Others | UnsetType = UNSET) -> CorrectedContact:
    return CorrectedContact(*_columns(cluster), others)


def _columns(cluster: Cluster) -> tuple[int, list[str], list[str], Ids]:
    return (
        cluster.primary.id,
        list(cluster.emails),
        list(cluster.phone_numbers),
        list(cluster.secondary_contact_ids),
    )


def _others(cluster: Cluster) -> dict[str, list[str]]:
    """The values of every kind but the two that have lists of their own."""
    found: dict[str, list[str]] = {}
    for identifier in cluster.identifiers:
        if identifier.kind not in BUILT_IN:
            found.setdefault(identifier.kind, []).append(identifier.value)
    return found


class Contract(Struct, frozen=True):
    """How one of the replaced systems answers."""

    answer: type[Struct]
    shape: Callable[..., Struct]
    health: type[Struct]


CONTRACTS: Mapping[str, Contract] = {
    "bitespeed": Contract(BitespeedAnswer, _bitespeed, Health),
    "corrected": Contract(CorrectedAnswer, _corrected, Health),
    "flat": Contract(CorrectedContact, _flat, FlatHealth),
}


def routes(service: IdentityService, contract: Contract) -> list[Route]:
    """`POST /identify` and `/lookup`, `/health`, `/live` and `/ready`."""

    async def health(request: Request) -> Response:
        if contract.health is FlatHealth:
            return json_response(FlatHealth("healthy"))
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json_response(Health("ok", now))

    async def live(request: Request) -> Response:
        return json_response(Live("live"))

    async def ready(request: Request) -> Response:
        if request.app.state.draining:
            note(Busy("shutting down"))
            return error_response(503, "The server is shutting down.")
        await service.check_ready()
        return json_response(Ready("ready"))

    return [
        Route("/identify", ClusterEndpoint(service.identify, contract), methods=["POST"]),
        Route("/lookup", ClusterEndpoint(service.look_up, contract), methods=["POST"]),
        Route("/health", health),
        Route("/live", live),
        Route("/ready", ready),
    ]


class ClusterEndpoint:
    """Identifiers in, their cluster out, without the framework's request and response: they would cost more than the
    answer."""

    def __init__(self, decide: Callable[..., Awaitable[Decision]], contract: Contract) -> None:
        self._decide = decide
        self._shape = contract.shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_plain_json(scope)
        said = _json_object(await whole_body(scope, receive, limit=LARGEST_BODY))
        if said.keys().isdisjoint(_MORE):
            decision = await self._decide(Given(said.get("email"), said.get("phoneNumber")))
        else:
            decision = await self._decide(_given(said))
        cluster = decision.cluster
        body = _encode(
            self._shape(cluster, _others(cluster)) if said.get("identifiers") is not None else self._shape(cluster)
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if warnings := decision.warnings:
            told = ", ".join(f"{warning.field or 'root'}={warning.code}" for warning in warnings)
            headers.append((b"x-identity-warnings", told.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_MORE = ("identifiers", "source", "occurredAt")


def _given(said: Mapping[str, object]) -> Given:
    """What a request with more than an email and a phone number brings."""
    identifiers = said.get("identifiers")
    problems: list[Problem] = []
    if not isinstance(identifiers, dict | None):
        message = 'identifiers must be an object of kinds and values, such as {"customer_id": "42"}'
        problems.append(Problem("identifiers", message))
        identifiers = None
    pairs = [
        (kind, value)
        for kind, values in (identifiers or {}).items()
        for value in (values if isinstance(values, list) else [values])
    ]
    occurred_at = None
    if said.get("occurredAt") is not None:
        try:
            occurred_at = moment(said["occurredAt"])
        except ValueError as error:
            problems.append(Problem("occurredAt", f"occurredAt: {error}"))
    if problems:
        raise InvalidInput(*problems)
    return Given(said.get("email"), said.get("phoneNumber"), pairs, said.get("source"), occurred_at)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        value = json_value(body.removeprefix(codecs.BOM_UTF8))
    except NotJSON as error:
        raise InvalidInput(Problem("root", str(error))) from None
    if not isinstance(value, dict):
        raise InvalidInput(Problem("root", "The body must be a JSON object"))
    return value


_encode = msgspec.json.Encoder().encode


def json_response(content: Struct, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Compact JSON, the keys in the order of the type."""
    return Response(_encode(content), status, headers, media_type="application/json")


def phrase(status: int) -> str:
    """The name of an HTTP status, such as "Not Found"."""
    return PHRASES.get(status) or HTTPStatus(status).phrase


def error_response(status: int, *messages: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the one shape that all of them have."""
    details = [ErrorDetail("root", message) for message in messages]
    answer = ErrorAnswer(phrase(status), details)
    retry = {"Retry-After": RETRY_AFTER} if status == 503 else {}
    return json_response(answer, status=status, headers={**retry, **(headers or {})})


async def on_http_error(request: Request, error: Exception) -> Response:
    """404, 405 with Allow, 415 and whatever else the framework refuses."""
    assert isinstance(error, HTTPException)
    messages = () if error.detail in (HTTPStatus(error.status_code).phrase, "") else (error.detail,)
    return error_response(error.status_code, *messages, headers=error.headers)


async def on_too_large(request: Request, error: Exception) -> Response:
    message = f"The body may have at most {LARGEST_BODY:,} bytes: send what is known of one customer, and nothing else."
    return error_response(413, message)


async def on_unsupported(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnsupportedBody)
    return error_response(415, str(error), headers=error.headers)


async def on_identity_error(request: Request, error: Exception) -> Response:
    """What the service refuses: 400 for input, 404 where nobody is known, 503 when it is busy."""
    if isinstance(error, InvalidInput):
        details = [ErrorDetail(wire_names(p.path), wire_names(p.message)) for p in error.problems]
        return json_response(ErrorAnswer("Validation Error", details), status=400)
    assert isinstance(error, IdentityError)
    note(error)
    status = 503 if isinstance(error, Busy) else 404 if isinstance(error, NotFound) else 500
    return error_response(status, error.message)


EXCEPTION_HANDLERS = {
    HTTPException: on_http_error,
    BodyTooLarge: on_too_large,
    UnsupportedBody: on_unsupported,
    IdentityError: on_identity_error,
}


class Faults:
    """Answers whatever the program did not expect with a masked 500; the log has it under the request id.

    Nothing is raised further: the server would print the error's text, which may hold what the request said.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, note_start)
        except ClientDisconnect:
            return  # nobody is there any more to be answered, and nothing is wrong with the program
        except Exception as error:
            identity = request_id.get()
            log.error("request.failed", request_id=identity, **describe(error))
            masked = Unexpected(identity)
            note(masked)
            if not started:
                await error_response(500, masked.message)(scope, receive, send)
