"""A request body with a limit; both edges read theirs through it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class BodyTooLarge(Exception):
    """The body is, or says it is, larger than the limit."""


class NotJSON(Exception):
    """A text that cannot be read as JSON; ``too_large``: only because a number in it is beyond all that is read."""

    def __init__(self, *, too_large: bool) -> None:
        self.too_large = too_large
        super().__init__("A number in the JSON is too large" if too_large else "This is not valid JSON")


def limited(scope: MutableMapping[str, Any], receive: Receive, *, limit: int) -> Receive:
    """``receive`` that raises BodyTooLarge as soon as more than ``limit`` bytes are announced or have come.

    What the client still sends after the answer is thrown away by the server, so that the answer reaches it.
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    seen = int(announced) if announced.isdigit() and int(announced) > limit else 0

    async def receive_within_limit() -> Message:
        nonlocal seen
        if seen > limit:
            raise BodyTooLarge
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise BodyTooLarge
        return message

    return receive_within_limit


async def whole_body(scope: MutableMapping[str, Any], receive: Receive, *, limit: int) -> bytes:
    """The body. Raises BodyTooLarge, and ClientDisconnect if the client went away before its end."""
    receive = limited(scope, receive, limit=limit)
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def json_value(text: bytes | str) -> object:
    """What a JSON text says. Raises NotJSON, for lone surrogates as well."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotJSON(too_large="infinity" in error.msg) from None


def media_type(scope: MutableMapping[str, Any]) -> bytes:
    """What the body says it is: `application/json`, without parameters; empty if it says nothing."""
    said: bytes = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return said.partition(b";")[0].strip().lower()
