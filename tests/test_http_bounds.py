"""What a client may take, and for how long: real connections, byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from identity_graphql.domain.identifiers import Given
from identity_graphql.observability import configure
from identity_graphql.server.http_protocol import MAX_PIPELINED, MAX_REFUSED
from identity_graphql.services.identify import IdentityService
from tests.support.databases import Database
from tests.support.program import SERVE
from tests.support.program import served as started
from tests.support.serving import serving

BODY = b'{"email": "a@x.io"}'
HEAD = b"POST /identify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """Its status and its one message, in the shape of all errors."""
        content = json.loads(self.body)
        assert list(content) == ["error", "details"]
        [detail] = content["details"]
        assert detail["path"] == "root"
        return self.status, detail["message"]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the program


class Client:
    """One connection, on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes, pause: float = 0.0) -> None:
        """Send these one after the other, as far as the server takes them."""
        try:
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass  # what it answered can still be read

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-1])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Whether the server closes the connection without another word."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


class Server:
    """A server in this process, and connections to it."""

    def __init__(self, http: httpx2.AsyncClient, stack: AsyncExitStack) -> None:
        self.http, self._stack = http, stack

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection(self.http.base_url.host, self.http.base_url.port)
        self._stack.callback(writer.close)
        return Client(reader, writer)


@asynccontextmanager
async def bounded(database: Database, **settings: Any) -> AsyncIterator[Server]:
    async with serving(database.url, **settings) as http, AsyncExitStack() as stack:
        yield Server(http, stack)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged meanwhile."""
    configure(level="INFO", form="json")
    with capture_logs() as entries:
        yield entries
    configure(level="ERROR", form="json")


# --- how long it may take ---


async def test_a_head_that_does_not_come_to_an_end_is_408(sqlite: Database) -> None:
    async with bounded(sqlite, header_timeout=0.3) as server:
        client = await server.connect()
        sending = asyncio.create_task(client.send(*(bytes([byte]) for byte in LIVE[:10]), pause=0.05))
        started = time.monotonic()
        answer = await client.answer()

        assert time.monotonic() - started < 1
        assert answer.error == (408, "The headers took more than 0.3 seconds to arrive.")
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"]
        assert await client.is_closed()
        await sending


@pytest.mark.parametrize("path", [b"/identify", b"/graphql", b"/live"])
@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_to_an_end_is_408(
    sqlite: Database, logs: list[Any], path: bytes, framing: bytes
) -> None:
    """However often a byte of it comes."""
    method = b"GET" if path == b"/live" else b"POST"
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n" % (method, path, framing)
    byte = b" " if b"Length" in framing else b"1\r\n \r\n"
    async with bounded(sqlite, body_timeout=0.3) as server:
        client = await server.connect()
        sending = asyncio.create_task(client.send(head, *[byte] * 9, pause=0.05))
        if path == b"/live":  # which is answered before its body has come
            assert (await client.answer()).status == 200
        else:
            answer = await client.answer()
            assert answer.error == (408, "The body took more than 0.3 seconds to arrive.")
        assert await client.is_closed()
        await sending
    assert {entry["log_level"] for entry in logs} == {"info"}


async def test_a_slow_request_within_the_bounds_is_answered(sqlite: Database) -> None:
    async with bounded(sqlite, header_timeout=2, body_timeout=2) as server:
        client = await server.connect()
        for _ in range(2):  # its connection is as good as before
            await client.send(*(WHOLE[start : start + 8] for start in range(0, len(WHOLE), 8)), pause=0.01)
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n", LIVE, LIVE + b"\r\n"])
async def test_a_connection_without_a_request_is_closed_after_a_while(sqlite: Database, sent: bytes) -> None:
    async with bounded(sqlite, keep_alive_timeout=0.3) as server:
        client = await server.connect()
        started = time.monotonic()
        await client.send(sent)
        if sent.startswith(b"GET"):
            assert (await client.answer()).status == 200
        assert await client.is_closed()
        assert 0.2 < time.monotonic() - started < 1


async def test_an_answer_that_is_not_taken_does_not_keep_the_connection(sqlite: Database) -> None:
    """Of a client that asks and never reads."""
    async with bounded(sqlite, body_timeout=0.3, keep_alive_timeout=0.3) as server:
        with closing(socket.socket()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (server.http.base_url.host, server.http.base_url.port))

            async def ask_without_end() -> None:
                while True:
                    await loop.sock_sendall(client, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
                    await asyncio.sleep(0.001)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(ask_without_end(), 10)


# --- how much it may be ---


@pytest.mark.parametrize("pieces", [1, 3, 40])
@pytest.mark.parametrize(
    ("excess", "message"),
    [
        (b"".join(b"A%d: b\r\n" % n for n in range(21)), "A request may have at most 20 headers."),
        (b"A: " + b"b" * 5000 + b"\r\n", "The request line and headers may have at most 4096 bytes."),
        (b"A" * 5000 + b": b\r\n", "The request line and headers may have at most 4096 bytes."),
    ],
    ids=["many", "a long value", "a long name"],
)
async def test_too_many_or_too_large_headers_are_431(
    sqlite: Database, excess: bytes, message: str, pieces: int
) -> None:
    request = LIVE[:-2] + excess + b"\r\n"
    size = -(-len(request) // pieces)
    async with bounded(sqlite, max_headers=20, max_header_bytes=4096) as server:
        client = await server.connect()
        await client.send(*(request[start : start + size] for start in range(0, len(request), size)), pause=0.001)
        answer = await client.answer()

        assert answer.error == (431, message)
        assert json.loads(answer.body)["error"] == "Request Header Fields Too Large"
        assert await client.is_closed()


async def test_a_long_target_counts_as_a_header(sqlite: Database) -> None:
    async with bounded(sqlite, max_header_bytes=4096) as server:
        fits = await server.http.get("/live", params={"x": "y" * 3000})
        long = await server.http.get("/live", params={"x": "y" * 4096})

    assert (fits.status_code, long.status_code) == (200, 431)


@pytest.mark.parametrize("pieces", [1, 7])
async def test_headers_up_to_the_bound_are_accepted(sqlite: Database, pieces: int) -> None:
    request = LIVE[:-2] + b"".join(b"A%02d: %s\r\n" % (n, b"b" * 190) for n in range(19)) + b"\r\n"
    size = -(-len(request) // pieces)
    assert 3700 < len(request) < 4096
    async with bounded(sqlite, max_headers=20, max_header_bytes=4096) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(*(request[start : start + size] for start in range(0, len(request), size)), pause=0.001)
            assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /live HTTP/1.1\r\nA: " + b"b" * 65536,
        b"GET /" + b"x" * 65536,
        b"\r\n" * 32768,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: " + b"b" * 65536,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;extension=" + b"b" * 65536,
    ],
    ids=["a header", "a target", "empty lines", "a trailer", "an extension of a chunk"],
)
async def test_what_has_no_end_is_431_wherever_it_stands(sqlite: Database, endless: bytes) -> None:
    async with bounded(sqlite) as server:
        client = await server.connect()
        more = b"\r\n" * 32768 if endless.startswith(b"\r\n") else b"b" * 65536
        sending = asyncio.create_task(client.send(endless, *[more] * 100))
        assert (await client.answer()).status == 431
        assert await client.is_closed()
        await sending


async def test_a_body_larger_than_the_bound_of_headers_is_read(sqlite: Database) -> None:
    async with bounded(sqlite, max_header_bytes=1024) as server:
        padded = {"query": "{ __typename }" + " " * 200_000}
        assert (await server.http.post("/graphql", json=padded)).json() == {"data": {"__typename": "Query"}}


async def test_what_is_no_http_is_400_in_the_same_shape(sqlite: Database, logs: list[Any]) -> None:
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(b"\x16\x03\x01 secret@x.io\r\n\r\n")
        answer = await client.answer()
        assert await client.is_closed()

    assert answer.error == (400, "This is not a valid HTTP request.")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("http.refused", "info")]
    assert "secret" not in repr(logs)


async def test_a_body_that_is_no_http_is_400_and_no_fault(
    sqlite: Database, logs: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for expecting in (b"", b"Expect: 100-continue\r\n"):
        async with bounded(sqlite) as server:
            client = await server.connect()
            await client.send(HEAD + expecting + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n")
            assert (await client.answer()).error == (400, "This is not a valid HTTP request.")
            assert await client.is_closed()

    assert {entry["log_level"] for entry in logs} == {"info"}
    assert capfd.readouterr().err == ""


# --- what is right stays right ---


@pytest.fixture
async def slow(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """A service that answers `identify` only when this event is set."""
    may_answer, identify = asyncio.Event(), IdentityService.identify

    async def when_it_may(service: IdentityService, given: Given) -> Any:
        await may_answer.wait()
        return await identify(service, given)

    monkeypatch.setattr(IdentityService, "identify", when_it_may)
    yield may_answer
    may_answer.set()


async def test_a_client_that_sends_no_more_gets_its_answers(sqlite: Database, slow: asyncio.Event) -> None:
    """`shutdown(SHUT_WR)`, as `nc -N` does it, while the answer is still being made."""
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(WHOLE + WHOLE + LIVE)
        client.writer.write_eof()
        await server.http.get("/live")
        slow.set()
        answers = [await client.answer() for _ in range(3)]

        assert [answer.status for answer in answers] == [200] * 3
        assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
        assert await client.is_closed()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("requests", [1, 3])
async def test_a_client_that_goes_away_while_it_is_answered_is_no_fault(
    sqlite: Database,
    slow: asyncio.Event,
    logs: list[Any],
    capfd: pytest.CaptureFixture[str],
    reset: bool,
    requests: int,
) -> None:
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(WHOLE * requests)
        await server.http.get("/live")
        if reset:
            connection = client.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await server.http.get("/live")
        slow.set()
        assert (await server.http.get("/live")).status_code == 200

    assert [entry for entry in logs if entry["log_level"] != "info"] == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cut", [10, len(HEAD), len(WHOLE) - 1])
async def test_a_request_that_ends_before_it_is_whole_is_400(sqlite: Database, cut: int) -> None:
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(WHOLE[:cut])
        client.writer.write_eof()

        assert (await client.answer()).error == (400, "The request ends before it is whole.")
        assert await client.is_closed()


@pytest.mark.parametrize("pieces", [1, 100])
async def test_pipelined_requests_are_answered_in_their_order(sqlite: Database, pieces: int) -> None:
    requests = b"".join([WHOLE, LIVE, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"] * 20)
    size = -(-len(requests) // pieces)
    async with bounded(sqlite, header_timeout=1, body_timeout=1) as server:
        client = await server.connect()
        await client.send(*(requests[start : start + size] for start in range(0, len(requests), size)))
        answers = [await client.answer() for _ in range(60)]

        assert [answer.status for answer in answers] == [200, 200, 404] * 20
        assert "connection" not in answers[-1].headers


async def test_a_request_that_waits_for_its_turn_is_not_late(sqlite: Database, slow: asyncio.Event) -> None:
    """It is the server that does not read the rest of it."""
    async with bounded(sqlite, header_timeout=0.2, body_timeout=0.2) as server:
        clients = [await server.connect() for _ in range(3)]
        for client, second in zip(clients, (WHOLE[:-5], WHOLE[:20], WHOLE + WHOLE[:-5]), strict=True):
            await client.send(WHOLE + second)
        await asyncio.sleep(0.6)
        slow.set()
        for client, waiting in zip(clients, (1, 1, 2), strict=True):
            for _ in range(waiting):
                assert (await client.answer()).status == 200
        await clients[0].send(WHOLE[-5:])
        await clients[1].send(WHOLE[20:])
        await clients[2].send(WHOLE[-5:])
        for client in clients:
            assert (await client.answer()).status == 200


async def test_requests_beyond_what_waits_on_one_connection_are_left_to_be_sent_again(sqlite: Database) -> None:
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(LIVE * 10_000)
        answers = [await client.answer() for _ in range(MAX_PIPELINED + 1)]

        assert {answer.status for answer in answers} == {200}
        assert [answer.headers.get("connection") for answer in answers[-2:]] == [None, "close"]
        assert await client.is_closed()


async def test_the_rest_of_a_body_is_asked_for_and_a_refused_one_is_not(sqlite: Database) -> None:
    expecting = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(BODY)
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(expecting + b"\r\n")
        assert (await client.answer()).status == 100
        await client.send(BODY)
        assert (await client.answer()).status == 200
        await client.send(expecting + b"Content-Encoding: gzip\r\n\r\n")
        assert (await client.answer()).status == 415


async def test_a_body_in_chunks_with_trailers_is_read(sqlite: Database) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\nDigest: none\r\n\r\n"
    async with bounded(sqlite) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunks[:50], chunks[50:], pause=0.01)
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
async def test_a_body_that_is_refused_before_it_has_come_may_still_come(sqlite: Database, path: str) -> None:
    """So that a client that first sends and then reads gets the answer; its connection is as good as before."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n"
    async with bounded(sqlite) as server:
        client = await server.connect()
        await client.send(head.encode(), *[b" " * 100_000] * 10)
        assert (await client.answer()).status == 415
        await client.send(LIVE)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    ],
    ids=["h2c", "websocket"],
)
@pytest.mark.parametrize("pieces", [1, 2, 100])
async def test_another_protocol_is_declined_and_the_request_is_answered_in_this_one(
    sqlite: Database, logs: list[Any], offer: bytes, pieces: int
) -> None:
    """Java's client offers HTTP/2 with every first request."""
    request = WHOLE.replace(b"Host: x\r\n", b"Host: x\r\n" + offer)
    assert request != WHOLE
    size = -(-len(request) // pieces)
    async with bounded(sqlite) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(*(request[start : start + size] for start in range(0, len(request), size)))
            answer = await client.answer()
            assert (answer.status, json.loads(answer.body)["contact"]["emails"]) == (200, ["a@x.io"])
        await client.send(LIVE)
        assert (await client.answer()).status == 200

    assert {entry["log_level"] for entry in logs} == {"info"}


# --- how many they may be ---


async def test_connections_beyond_the_limit_are_told_so_and_the_log_says_it_once(
    sqlite: Database, logs: list[Any]
) -> None:
    async with bounded(sqlite, max_connections=3) as server:
        served = [await server.connect() for _ in range(3)]
        for client in served:
            await client.send(LIVE)
            assert (await client.answer()).status == 200
        for _ in range(5):
            client = await server.connect()
            await client.send(WHOLE)
            answer = await client.answer()
            assert answer.error == (503, "Too many connections; try again.")
            assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
            assert await client.is_closed()
            client.writer.close()
        for client in served:
            await client.send(LIVE)
            assert (await client.answer()).status == 200
        served[0].writer.close()
        while (again := await server.connect()) and not await _is_served(again):
            again.writer.close()

    told = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["connections"]) for entry in told] == [("http.max_connections", 3)]


async def _is_served(client: Client) -> bool:
    await client.send(LIVE)
    return (await client.answer()).status == 200


async def test_a_flood_of_connections_is_cut_off_and_those_that_are_served_stay(sqlite: Database) -> None:
    async with bounded(sqlite, max_connections=3) as server:
        client = await server.connect()
        flood = [await server.connect() for _ in range(200)]
        assert (await _is_served(client)) is True
        closed = [one for one in flood if one.reader.at_eof() or one.reader.exception()]
        assert len(closed) >= 200 - 2 - MAX_REFUSED


# --- as a process ---


@dataclass(frozen=True)
class Program:
    """`serve`, somewhere on this machine."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(self, request: bytes = LIVE) -> int:
        """The status of the answer on a new connection."""
        with self.connect() as client:
            client.sendall(request)
            return int(client.recv(65536).split()[1])

    def events(self, name: str) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [entry for entry in entries if entry["event"] == name]

    def resident(self) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20


@contextmanager
def served(folder: Path, *, files: tuple[int, int] | None = None, **settings: str) -> Iterator[Program]:
    limit = [] if files is None else ["prlimit", "--nofile={}:{}".format(*files)]
    database = f"sqlite:///{folder}/identity.db"
    with started(folder, command=[*limit, *SERVE], DATABASE_URL=database, LOG_FORMAT="json", **settings) as (
        process,
        lines,
    ):
        port = int(lines[-1].split(":")[-1].split("/")[0])
        yield Program(process, port, folder / "log")


def test_half_a_request_does_not_keep_a_server_that_is_told_to_stop(tmp_path: Path) -> None:
    with served(tmp_path) as program:
        assert program.ask() == 200
        idle, head, body, prompt = clients = [program.connect() for _ in range(4)]
        head.sendall(WHOLE[:20])
        body.sendall(WHOLE[:-5])
        prompt.sendall(WHOLE[:-5])
        time.sleep(0.3)
        program.process.terminate()
        time.sleep(0.3)
        prompt.sendall(WHOLE[-5:])
        stopped = time.monotonic()

        assert program.process.wait(timeout=10) == 0
        assert time.monotonic() - stopped < 5
        assert idle.recv(100) == b""
        answers = [client.recv(65536) for client in (head, body, prompt)]
        assert [int(answer.split()[1]) for answer in answers] == [503, 503, 200]
        assert b"The server is shutting down." in answers[0]
        for client in clients:
            client.close()


def test_however_much_is_sent_on_a_connection_the_process_does_not_grow(tmp_path: Path) -> None:
    head = b"GET /live HTTP/1.1\r\nHost: x\r\nA: b"
    endless = {"short headers": b"\r\nA: b", "long headers": b"\r\nA: " + b"b" * 1000, "one header": b"b" * 1000}
    with served(tmp_path, LOG_LEVEL="WARNING") as program:
        assert program.ask() == 200
        for what, begin, part in (*((name, head, part) for name, part in endless.items()), ("requests", b"", LIVE)):
            block = part * (2**20 // len(part))
            before = program.resident()
            for _ in range(4):
                with program.connect() as client, suppress(ConnectionError):
                    client.sendall(begin)
                    for _ in range(50):
                        client.sendall(block)
            assert program.resident() < before + 20, what
        assert program.ask() == 200


def test_open_files_do_not_run_out(tmp_path: Path) -> None:
    """Where the system allows fewer than the limit of connections takes, the limit is lower, and the log says so."""
    with served(tmp_path, files=(256, 256), HEADER_TIMEOUT="2") as program:
        [told] = program.events("server.few_open_files")
        assert (told["open_files"], told["max_connections"]) == (256, 10_000)
        assert 0 < told["connections"] < 200
        clients = [program.connect() for _ in range(400)]
        time.sleep(0.5)
        assert len(list(Path(f"/proc/{program.process.pid}/fd").iterdir())) < 256
        [reached] = program.events("http.max_connections")
        assert reached["connections"] == told["connections"]
        for client in clients:
            client.close()
        time.sleep(0.5)
        assert program.ask() == 200


def test_the_limit_of_open_files_is_raised_as_far_as_connections_take(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with served(tmp_path, files=(128, hard), MAX_CONNECTIONS="300") as program:
        soft = re.search(r"Max open files +(\d+)", Path(f"/proc/{program.process.pid}/limits").read_text())
        assert soft
        assert 300 < int(soft[1]) < 600
        assert program.events("server.few_open_files") == []
