"""Runs in the environment of the generated client, with that on its path: reads requests, prints what came back."""

import json
import sys
from datetime import datetime
from typing import Any

from client import Client  # type: ignore[import-not-found]
from client.api.default import health, identify, live, lookup, ready  # type: ignore[import-not-found]
from client.models import IdentifyRequest, IdentifyRequestIdentifiers  # type: ignore[import-not-found]


def main(address: str, requests: list[dict[str, Any]]) -> list[Any]:
    with Client(base_url=address, raise_on_unexpected_status=True) as client:
        answers: list[Any] = []
        for request in requests:
            ask = lookup if request.pop("lookup", False) else identify
            answer = ask.sync_detailed(client=client, body=body_of(request))
            kind, parsed = type(answer.parsed).__name__, answer.parsed.to_dict()
            answers.append([answer.status_code, kind, parsed, answer.headers.get("x-identity-warnings")])
        return [*answers, [check.sync(client=client).to_dict()["status"] for check in (health, live, ready)]]


def body_of(request: dict[str, Any]) -> IdentifyRequest:
    """The request in the client's own types."""
    body = IdentifyRequest(**request)
    if "identifiers" in request:
        body.identifiers = IdentifyRequestIdentifiers()
        body.identifiers.additional_properties.update(request["identifiers"])
    if "occurred_at" in request:
        body.occurred_at = datetime.fromisoformat(request["occurred_at"])
    return body


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.load(sys.stdin))))
