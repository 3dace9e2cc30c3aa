"""HTTP/1.1 with bounds on what one client may take, and for how long.

uvicorn waits for the rest of a request without end, and keeps in memory what has come of it. Here every connection
has a deadline for what it waits for, and one timer for all of them ends those that are late.

    state     waits for                            at most                then
    IDLE      a request                            KEEP_ALIVE_TIMEOUT     closed
    HEAD      the rest of a request's head         HEADER_TIMEOUT         408, closed
    BODY      the rest of its body                 BODY_TIMEOUT           408, closed
    SERVICE   the answer of the service            what the service sets
    CLOSING   the client to take the last answer   LINGER, BODY_TIMEOUT   reset

Answers of this module are those of REST (`rest.error_response`), whatever was asked for.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from identity_graphql.api import rest
from identity_graphql.app import address_of
from identity_graphql.observability import log, new_request_id
from identity_graphql.server.open_files import connections_that_fit
from identity_graphql.settings import Settings

MAX_PIPELINED = 256
"""Requests of one connection that wait for their turn at most. It is closed behind them: the client sends the others
again (RFC 9112, 9.3.2)."""
LINGER = 1.0
"""Seconds that a client that was refused may go on sending, so that it comes to read why."""
SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a request that has begun to come gets for the rest of it when the server stops."""
MAX_REFUSED = 32
"""Connections beyond the limit that are answered with 503; those beyond them are reset."""
LOG_INTERVAL = 60.0
"""Seconds between two lines in the log that say that the limit is reached."""

NEVER = math.inf


class Phase(Enum):
    """What a connection waits for: the table above."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    SERVICE = "an answer of the service"
    CLOSING = "the client to take the last answer"


IDLE, HEAD, BODY, SERVICE, CLOSING = Phase  # names of the module are found faster, a dozen times per request


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a client may take, and for how many seconds."""

    connections: int
    header_bytes: int
    headers: int
    header_timeout: float
    body_timeout: float
    keep_alive_timeout: float


class Refusal(Exception):
    """A request that is not accepted, and the end of its connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connections:
    """The connections of one server process: makes the protocol of each, and ends those that are late."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        shortest = min(bounds.header_timeout, bounds.body_timeout, bounds.keep_alive_timeout, SHUTDOWN_TIMEOUT)
        self._interval = max(0.02, shortest / 4)
        self._sweeping = False
        self.admitted = 0
        self._refused = 0
        self._next_line = 0.0

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> BoundedProtocol:
        return BoundedProtocol(self, config, server_state, app_state, _loop)

    def admit(self, connection: BoundedProtocol) -> bool:
        """Look after a new connection from now on. Returns whether it is to be served, and counts it then."""
        if not self._sweeping:
            self._sweeping = True
            self._sweep(connection.loop, connection.server_state)
        if self.admitted < self.bounds.connections:
            self.admitted += 1
            return True
        self._refused += 1
        if (now := connection.loop.time()) >= self._next_line:
            log.warning("http.max_connections", connections=self.bounds.connections, refused=self._refused)
            self._refused, self._next_line = 0, now + LOG_INTERVAL
        return False

    def _sweep(self, loop: asyncio.AbstractEventLoop, state: ServerState) -> None:
        if not state.connections:
            self._sweeping = False
            return
        loop.call_later(self._interval, self._sweep, loop, state)
        now = loop.time()
        for connection in cast("list[BoundedProtocol]", list(state.connections)):
            if connection.deadline <= now or connection.write_deadline <= now:
                connection.expire(now)


class BoundedProtocol(HttpToolsProtocol):
    """One connection: uvicorn's protocol on httptools, with a deadline for whatever it waits for."""

    def __init__(
        self,
        others: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._others = others
        self._bounds = others.bounds
        self.phase = IDLE
        self.deadline = NEVER
        self.write_deadline = NEVER
        self._chunk = 0  # the size of what came last
        self._pending = 0  # bytes that came, in chunks of their own, of what is not whole yet: a head, a trailer
        self._over_limit = False  # whether there were too many connections when this one came
        self._discarding = False  # whether what still comes is not read any more
        self._stopping = False
        self._served: RequestResponseCycle | None = None  # which is being answered, of several requests
        self._declined_upgrade: bytes | None = (
            None  # the head of a request that offers another protocol, without the offer
        )

    # What happens to the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._over_limit = not self._others.admit(self)
        self._wait_for(IDLE, LINGER if self._over_limit else self._bounds.keep_alive_timeout)
        if len(self.connections) > self._bounds.connections + MAX_REFUSED:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._served is not None:  # uvicorn tells only the last one that came
            self._served.disconnected = True
        if not self._over_limit:
            self._others.admitted -= 1

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._chunk = len(data)
        self._pending += self._chunk
        try:
            self._feed(data)
            if self._pending > self._bounds.header_bytes:
                raise self._too_large()
            if self.deadline == NEVER and self.phase is not SERVICE:  # something has begun, but did not end
                self._restart()
        except Refusal as refusal:
            self.refuse(refusal)
        except httptools.HttpParserError as error:
            cause = error.__context__  # of what a callback below raised
            self.refuse(cause if isinstance(cause, Refusal) else Refusal(400, "This is not a valid HTTP request."))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._declined_upgrade is not None:
                head, self._declined_upgrade = self._declined_upgrade, None
                self._feed(head)
                self._feed(data[upgrade.args[0] :])

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has sent all that it will, but may still read: what it asked for is answered."""
        if self.phase in (HEAD, BODY):
            self.refuse(Refusal(400, "The request ends before it is whole."))
        elif self.phase is SERVICE:
            self._finish()
        return self.phase is SERVICE

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_deadline = self.loop.time() + self._bounds.body_timeout

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_deadline = NEVER

    def shutdown(self) -> None:
        """The server stops: whole requests are answered, those that have begun to come get a moment for the rest."""
        self._stopping = True
        if self.phase in (HEAD, BODY):
            self.deadline = min(self.deadline, self.loop.time() + SHUTDOWN_TIMEOUT)
            if self.cycle is not None:
                self.cycle.keep_alive = False
        elif self.phase is not CLOSING:
            super().shutdown()
            if self.transport.is_closing():
                self._wait_for(CLOSING, self._bounds.body_timeout)

    def expire(self, now: float) -> None:
        """The deadline is over."""
        if self.phase is CLOSING or self.write_deadline <= now:
            self.transport.abort()
        elif self.phase is IDLE:
            self.transport.close()
            self._wait_for(CLOSING, LINGER)
        elif self.pipeline or self.flow.read_paused or (self.phase is HEAD and self._is_answering()):
            self._restart()  # the request is not read, or behind others: it is not the client that keeps us waiting
        elif self._stopping:
            self.refuse(Refusal(503, "The server is shutting down."))
        else:
            part = "headers" if self.phase is HEAD else "body"
            self.refuse(Refusal(408, f"The {part} took more than {self._timeout():g} seconds to arrive."))

    # What the parser finds

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refusal(503, "Too many requests at once.")  # not said, as those before it go on
        super().on_message_begin()
        self._pending = 0
        self.phase, self.deadline = HEAD, NEVER

    def on_headers_complete(self) -> None:
        bounds = self._bounds
        if self._over_limit:
            raise Refusal(503, "Too many connections; try again.")
        if len(self.headers) > bounds.headers:
            raise Refusal(431, f"A request may have at most {bounds.headers} headers.")
        # Of a head that came in one piece, which is no larger than the limit itself, nothing need be counted.
        if (self._pending or self._chunk > bounds.header_bytes) and self._head_size() > bounds.header_bytes:
            raise self._too_large()
        if self.parser.should_upgrade() and (method := self.parser.get_method()) != b"CONNECT":
            # Declined, as a server may (RFC 9110, 7.8). But the parser takes the body for the other protocol already.
            fields = (b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
            version = self.parser.get_http_version().encode()
            self._declined_upgrade = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(fields))
            return
        earlier = self.cycle
        super().on_headers_complete()
        if len(self.pipeline) == 1:
            self._served = earlier
        if self._stopping:
            self.cycle.keep_alive = False
        self._pending = 0
        self.phase, self.deadline = BODY, NEVER

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._pending = 0

    def on_message_complete(self) -> None:
        if self._declined_upgrade is not None:
            return
        super().on_message_complete()
        self._pending = 0
        if self.cycle.response_complete:  # it was refused before all of it had come
            self._wait_for(IDLE, self._bounds.keep_alive_timeout)
        else:
            self.phase, self.deadline = SERVICE, NEVER

    def on_response_complete(self) -> None:
        """As uvicorn's, but for its timer per request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._wait_for(CLOSING, self._bounds.body_timeout)
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._served, app = self.pipeline.pop()
            self._start_asgi_task(self._served, app)
        elif self.phase is SERVICE:
            self.phase = IDLE
        if self.phase is not SERVICE:
            self._restart()  # also of a request that has begun to come, and was not read meanwhile

    # The end of a connection

    def refuse(self, refusal: Refusal) -> None:
        """Take no more of what the client sends. Answer with an error, unless earlier requests wait for theirs."""
        if self.phase is not BODY and self._is_answering():
            self._finish()
        elif self.pipeline:
            self.transport.abort()
        else:
            if self.phase is not BODY or not self.cycle.response_started:
                self._answer(refusal)
            if self.phase is BODY:  # tell the application, which waits for the rest
                self.cycle.disconnected = True
                self.cycle.waiting_for_100_continue = False
                self.cycle.message_event.set()
            # Not closed at once: the client would lose the answer if it were still sending.
            self._discarding = True
            self.flow.resume_reading()
            self.transport.write_eof()
            self._wait_for(CLOSING, LINGER)

    def _answer(self, refusal: Refusal) -> None:
        identity = new_request_id()
        if not self._over_limit:  # of those there is one line for many
            log.info("http.refused", status=refusal.status, reason=str(refusal), request_id=identity)
        headers = {"connection": "close", "x-request-id": identity}
        response = rest.error_response(refusal.status, str(refusal), headers=headers)
        fields = [*self.server_state.default_headers, *response.raw_headers]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[refusal.status] + head + b"\r\n" + bytes(response.body))

    def _finish(self) -> None:
        """Answer what was asked for, and close then."""
        self.cycle.keep_alive = False
        self._discarding = True
        self.flow.resume_reading()
        self.phase, self.deadline = SERVICE, NEVER

    # Its state

    def _wait_for(self, phase: Phase, seconds: float) -> None:
        self.phase = phase
        self.deadline = self.loop.time() + seconds

    def _restart(self) -> None:
        self._wait_for(self.phase, self._timeout())

    def _timeout(self) -> float:
        if self.phase is IDLE:
            return self._bounds.keep_alive_timeout
        return self._bounds.header_timeout if self.phase is HEAD else self._bounds.body_timeout

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _too_large(self) -> Refusal:
        return Refusal(431, f"The request line and headers may have at most {self._bounds.header_bytes} bytes.")


def http_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """Returns what uvicorn's ``http`` takes: bounded by these settings, and by the files that this process may open."""
    pool = address_of(settings).pool_size or settings.pool_size
    bounds = Bounds(
        connections=connections_that_fit(settings.max_connections, spare=2 * MAX_REFUSED, database_connections=pool),
        header_bytes=settings.max_header_bytes,
        headers=settings.max_headers,
        header_timeout=settings.header_timeout,
        body_timeout=settings.body_timeout,
        keep_alive_timeout=settings.keep_alive_timeout,
    )
    return cast("type[asyncio.Protocol]", Connections(bounds))  # it is only called
