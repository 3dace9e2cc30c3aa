"""Logs as data, and the id that ties a request's lines together. No email or phone number is ever logged."""

from __future__ import annotations

import logging
import random
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

import orjson
import structlog

from identity_graphql.errors import Busy, IdentityError, Unexpected

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
log: structlog.stdlib.BoundLogger = structlog.get_logger("identity_graphql")

_facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)
"""what the log line of the request under way says beside what all of them say"""
_ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def configure(*, level: str, form: str) -> None:
    """Set up the logs of this process: one line per event on stderr, for people on a terminal, else as JSON.

    ``form`` is "console" or "json" where one of the two is wanted always.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(serializer=orjson.dumps)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if console
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
    )
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryLog) for handler in root.handlers):
        root.addHandler(LibraryLog())
    # The notes of a MySQL server on a statement. They may hold values; what is wrong comes as an error as well.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)


class LibraryLog(logging.Handler):
    """What the libraries log, among our lines and in their form: whose it is and where, and what error, but no text,
    which may hold anything."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        line = f"{record.filename}:{record.lineno}"
        log.log(record.levelno, "library", library=record.name, line=line, **(describe(error) if error else {}))


def note(error: IdentityError) -> None:
    """Say in the log line of the request under way that it was refused, if that was not its sender's fault, and why."""
    facts = _facts.get()
    if facts is not None and isinstance(error, Busy | Unexpected):
        facts["error"] = error.code
        if isinstance(error, Busy):
            facts["cause"] = error.cause


def describe(error: BaseException) -> dict[str, Any]:
    """What may be logged of an unexpected error: types, the driver's code, where. Never its text, which a
    driver fills with the values of the row."""
    origin = getattr(error, "orig", None) or error
    code = getattr(origin, "sqlstate", None) or getattr(origin, "sqlite_errorname", None)
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return {
        "error": type(error).__qualname__,
        "origin": type(origin).__qualname__,
        "code": code or (origin.args[0] if origin.args and isinstance(origin.args[0], int) else None),
        "where": [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames],
    }


def new_request_id() -> str:
    """An id for a request that came without one."""
    return f"{random.getrandbits(128):032x}"


class RequestId:
    """Gives every HTTP request an id (the caller's `X-Request-Id` if it is a decent one), answers with it, and
    logs one line per request: method, path, status, milliseconds. Never the query string: it may hold a query
    with an email in it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.log = log.bind()  # once: `log` itself is bound anew at every use

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        identity = given.decode() if _ACCEPTABLE_ID.fullmatch(given) else new_request_id()
        facts: dict[str, Any] = {}
        token, token_of_facts = request_id.set(identity), _facts.set(facts)
        status, started = 0, time.perf_counter()

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self.log.info(
                "http.request",
                method=scope["method"],
                # Of a route, or not at all: what somebody asks for may be anything, an email too.
                path=scope["path"] if "endpoint" in scope else "(other)",
                status=status,
                ms=round((time.perf_counter() - started) * 1000, 1),
                request_id=identity,
                **facts,
            )
            request_id.reset(token)
            _facts.reset(token_of_facts)
