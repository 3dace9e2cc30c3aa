"""Operations sent to a server over HTTP, and what they answer."""

from __future__ import annotations

from typing import Any

import httpx2

Answer = dict[str, Any]

BY = 'actor: "ann", reason: "two people, one number"'

# All that can be asked of each, but what leads to others.
CONTACT = "id email phoneNumber linkedId linkPrecedence createdAt updatedAt deletedAt undoneAt erasedAt redacted"
EVENT = """seq at kind outcome summary email phoneNumber givenEmail givenPhoneNumber redacted contactId
  primaryContactId demotedContactIds versionBefore versionAfter actor reason requestId undoneBy"""
NODE = "{ key contactId kind value }"


async def ask(client: httpx2.AsyncClient, query: str, **variables: object) -> Answer:
    """The whole answer: data and errors."""
    response = await client.post("/graphql", json={"query": query, "variables": variables})
    assert response.status_code == 200, response.text
    answer: Answer = response.json()
    return answer


async def data(client: httpx2.AsyncClient, query: str, **variables: object) -> Any:
    answer = await ask(client, query, **variables)
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


async def refusal(client: httpx2.AsyncClient, query: str, **variables: object) -> dict[str, Any]:
    """The extensions of the one error."""
    (error,) = (await ask(client, query, **variables))["errors"]
    extensions: dict[str, Any] = error["extensions"]
    return extensions


async def identify(client: httpx2.AsyncClient, *customers: tuple[str | None, str | None]) -> None:
    items = [{"email": email, "phoneNumber": phone_number} for email, phone_number in customers]
    query = "mutation ($items: [IdentifyInput!]!) { identifyMany(items: $items) { error { message } } }"
    assert {item["error"] for item in (await data(client, query, items=items))["identifyMany"]} == {None}
