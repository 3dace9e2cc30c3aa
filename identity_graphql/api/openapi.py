"""The OpenAPI document of the REST shim, made from the types that the shim answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from identity_graphql import __version__
from identity_graphql.api import rest
from identity_graphql.domain.identifiers import LONGEST_SOURCE, MOST_IDENTIFIERS
from identity_graphql.domain.warnings import WarningCode

REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"

# By hand: it is read without a type. One object without alternatives, which generators of clients stumble over, so
# that what no property can say is said in words.
IDENTIFY_REQUEST = {
    "title": "IdentifyRequest",
    "description": "What is known of one customer: an email, a phone number, identifiers of other kinds; at least one"
    f" of them must say something, and there are at most {MOST_IDENTIFIERS}. Left out, null, blank, or a word such as"
    " `null` counts as not given. Other keys are ignored.",
    "type": "object",
    "properties": {
        "email": {
            "description": "An email.",
            "type": ["string", "null"],
            "examples": ["mcfly@hillvalley.edu"],
        },
        "phoneNumber": {
            "description": "A phone number, as text or as a whole number; -1 counts as not given.",
            "type": ["string", "integer", "null"],
            "minimum": -1,
            "maximum": 2**53 - 1,
            "examples": ["123456"],
        },
        "identifiers": {
            "title": "Identifiers",
            "description": "Identifiers of any kind: `email`, `phone_number`, or one of the setting IDENTIFIER_KINDS."
            " For each kind a value or a list of values, as text or as whole numbers. If it is there, the answer has"
            " `identifiers`, too.",
            "type": ["object", "null"],
            "additionalProperties": {
                "type": ["string", "integer", "array", "null"],
                "minimum": -(2**53 - 1),
                "maximum": 2**53 - 1,
                "items": {"type": ["string", "integer", "null"], "minimum": -(2**53 - 1), "maximum": 2**53 - 1},
            },
            "examples": [{"customer_id": "42", "device_id": ["a", "b"]}],
        },
        "source": {
            "description": "Which system says so; the log keeps it.",
            "type": ["string", "null"],
            "maxLength": LONGEST_SOURCE,
            "examples": ["shop"],
        },
        "occurredAt": {
            "description": "When it was true, if that was before now; with its offset from UTC. It decides who is the"
            " oldest, and so the primary.",
            "type": ["string", "null"],
            "format": "date-time",
            "examples": ["2020-01-31T09:30:00Z"],
        },
    },
}
# What "Try it out" sends; `identify` answers any of them with 200.
EXAMPLES = {
    "both": {
        "summary": "An email and a phone number",
        "value": {"email": "mcfly@hillvalley.edu", "phoneNumber": "123456"},
    },
    "email": {"summary": "An email alone", "value": {"email": "mcfly@hillvalley.edu"}},
    "phoneNumber": {"summary": "A phone number alone", "value": {"phoneNumber": "123456"}},
    "identifiers": {
        "summary": "Two emails and a phone number, where they are from, and when that was true",
        "value": {
            "identifiers": {"email": ["mcfly@hillvalley.edu", "marty@hillvalley.edu"], "phone_number": 123456},
            "source": "shop",
            "occurredAt": "2020-01-31T09:30:00Z",
        },
    },
}


def document(contract: rest.Contract, root: str = ".") -> dict[str, Any]:
    """OpenAPI 3.1 for `POST /identify` and `/lookup` under this contract, and for the health checks.

    ``root``: where the service is, seen from the document: in its folder, right below any path of a proxy.
    """
    types = [contract.answer, contract.health, rest.Live, rest.Ready, rest.ErrorAnswer]
    _, schemas = msgspec.json.schema_components(types, ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "identity_graphql",
            "version": __version__,
            "description": "Which customer is this? Links emails, phone numbers and identifiers of other kinds "
            "to one customer and answers with everything known about them. GraphQL is at `/graphql`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": root}],
        "paths": {
            "/identify": {"post": _identify(contract)},
            "/lookup": {"post": _lookup(contract)},
            "/health": {"get": _check("health", "Is the process up? Never asks the database.", contract.health)},
            "/live": {"get": _check("live", "Is the process alive?", rest.Live)},
            "/ready": {
                "get": _check("ready", "Can it serve: is the database there, migrated, writable?", rest.Ready, 503)
            },
        },
        "components": {"schemas": {"IdentifyRequest": IDENTIFY_REQUEST, **schemas}},
    }


def _identify(contract: rest.Contract) -> dict[str, Any]:
    refused = {"400": _answer("The input cannot be accepted; nothing was changed.", rest.ErrorAnswer)}
    return {
        "operationId": "identify",
        "summary": "Link identifiers to their customer.",
        "description": "Repeating a request is safe and changes nothing.",
        **_cluster_of(contract, refused),
    }


def _lookup(contract: rest.Contract) -> dict[str, Any]:
    several = "The input cannot be accepted, or its identifiers belong to several clusters, which the message names."
    refused = {
        "400": _answer(several, rest.ErrorAnswer),
        "404": _answer("Nobody has any of the identifiers.", rest.ErrorAnswer),
    }
    return {
        "operationId": "lookup",
        "summary": "Find the customer who has these identifiers.",
        "description": "Writes nothing: what is not known stays unknown.",
        **_cluster_of(contract, refused),
    }


def _cluster_of(contract: rest.Contract, refused: Mapping[str, Any]) -> dict[str, Any]:
    """Identifiers in, their cluster out, or one of these refusals, or those that every request may meet."""
    codes = " ".join(f"`{code}`: {code.description}" for code in WarningCode)
    warnings = _header(
        "What its sender should know: `field=CODE`, separated by commas; the field `root` is the request as a whole."
        f" {codes}"
    )
    request = {"schema": {"$ref": REFERENCE.format(name="IdentifyRequest")}, "examples": EXAMPLES}
    return {
        "requestBody": {"required": True, "content": {JSON: request}},
        "responses": {
            "200": _answer(
                "The customer's whole cluster, as it is now.", contract.answer, {"X-Identity-Warnings": warnings}
            ),
            **refused,
            "408": _answer("The request took too long to come.", rest.ErrorAnswer),
            "413": _answer(f"The body is larger than {rest.LARGEST_BODY // 1024} KiB.", rest.ErrorAnswer),
            "415": _answer("The body is not JSON, or is compressed.", rest.ErrorAnswer),
            "431": _answer("The headers are too many or too large.", rest.ErrorAnswer),
            "500": _answer("A fault of the program; the log has it under the `X-Request-Id`.", rest.ErrorAnswer),
            **_busy(),
        },
    }


def _check(name: str, summary: str, answer: type, *errors: int) -> dict[str, Any]:
    responses = {"200": _answer("Yes.", answer), **(_busy() if 503 in errors else {})}
    return {"operationId": name, "summary": summary, "responses": responses}


def _busy() -> dict[str, Any]:
    description = "Busy, or the database is away; try again. Nothing is half-written."
    return {"503": _answer(description, rest.ErrorAnswer, {"Retry-After": _header("Seconds.")})}


def _answer(description: str, type_: type, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {
            "X-Request-Id": _header("The request's, or one that was made for it; the log has it."),
            **(headers or {}),
        },
        "content": {JSON: {"schema": {"$ref": REFERENCE.format(name=type_.__name__)}}},
    }


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}
