"""The OpenAPI document of the REST shim, made from the types that the shim answers with."""

from __future__ import annotations

from typing import Any

import msgspec

from identity_graphql import __version__
from identity_graphql.api import rest

REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"


def document(contract: rest.Contract) -> dict[str, Any]:
    """OpenAPI 3.1 for `POST /identify` under this contract, and for the health checks."""
    types = [rest.IdentifyRequest, contract.answer, contract.health, rest.Live, rest.Ready, rest.ErrorAnswer]
    _, schemas = msgspec.json.schema_components(types, ref_template=REFERENCE)
    # What no type can say: one of the two must be there, and say something.
    schemas[rest.IdentifyRequest.__name__]["anyOf"] = [
        {"required": [name], "properties": {name: {"not": {"enum": [None, ""]}}}} for name in ("email", "phoneNumber")
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "identity_graphql",
            "version": __version__,
            "description": "Which customer is this? Links emails and phone numbers to one customer and answers "
            "with everything known about them. GraphQL is at `/graphql`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            "/identify": {"post": _identify(contract)},
            "/health": {"get": _check("health", "Is the process up? Never asks the database.", contract.health)},
            "/live": {"get": _check("live", "Is the process alive?", rest.Live)},
            "/ready": {
                "get": _check("ready", "Can it serve: is the database there, migrated, writable?", rest.Ready, 503)
            },
        },
        "components": {"schemas": schemas},
    }


def _identify(contract: rest.Contract) -> dict[str, Any]:
    answered = _answer("The customer's whole cluster, as it is now.", contract.answer)
    answered["headers"] = {
        "X-Identity-Warnings": {
            "description": "Values that were given but count as absent, such as `phoneNumber=IGNORED_VALUE`.",
            "schema": {"type": "string"},
        }
    }
    return {
        "operationId": "identify",
        "summary": "Link an email, a phone number, or both to their customer.",
        "description": "Repeating a request is safe and changes nothing.",
        "requestBody": {"required": True, "content": {JSON: {"schema": _reference(rest.IdentifyRequest)}}},
        "responses": {
            "200": answered,
            "400": _answer("The input cannot be accepted; nothing was changed.", rest.ErrorAnswer),
            "413": _answer("The body is larger than 16 KiB.", rest.ErrorAnswer),
            "415": _answer("The body is not JSON.", rest.ErrorAnswer),
            "500": _answer("A fault of the program; the log has it under the `X-Request-Id`.", rest.ErrorAnswer),
            **_busy(),
        },
    }


def _check(name: str, summary: str, answer: type, *errors: int) -> dict[str, Any]:
    responses = {"200": _answer("Yes.", answer), **(_busy() if 503 in errors else {})}
    return {"operationId": name, "summary": summary, "responses": responses}


def _busy() -> dict[str, Any]:
    answer = _answer("Busy, or the database is away; try again. Nothing is half-written.", rest.ErrorAnswer)
    answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    return {"503": answer}


def _answer(description: str, type_: type) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": _reference(type_)}}}


def _reference(type_: type) -> dict[str, str]:
    return {"$ref": REFERENCE.format(name=type_.__name__)}
