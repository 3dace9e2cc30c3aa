"""A load generator without wrk: `python -m benchmarks.client URL EDGE KIND CUSTOMERS LABEL CONNECTIONS SECONDS`.

Bare protocols on uvloop; what it costs beside the server is said in RESULTS.md. Prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import msgspec
import orjson
import uvloop

from benchmarks.figures import figures
from benchmarks.workload import Item, requests

QUERY = """mutation ($email: String, $phoneNumber: PhoneNumber) { identify(email: $email, phoneNumber: $phoneNumber)
{ outcome cluster { primaryContactId emails phoneNumbers secondaryContactIds } } }"""


def message(edge: str, item: Item) -> bytes:
    """The HTTP request that says this."""
    details = {"email": item[0], "phoneNumber": item[1]}
    path, body = ("/identify", details) if edge == "rest" else ("/graphql", {"query": QUERY, "variables": details})
    content = orjson.dumps(body)
    head = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([f"POST {path} HTTP/1.1", *head, "", ""]).encode() + content


class Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, and asks again, until the time is over or nothing is left to ask."""

    def __init__(
        self, edge: str, items: Iterator[Item], end: float | None, latencies: list[float], *, pause: float = 0
    ) -> None:
        self.edge, self.items, self.end, self.latencies, self.pause = edge, items, end, latencies, pause
        self.errors = 0
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.ask()

    def ask(self) -> None:
        self.received, self.wanted = b"", 0
        item = next(self.items, None)
        if item is None or (self.end is not None and time.perf_counter() >= self.end):
            self.finish()
        else:
            self.asked = time.perf_counter()
            self.transport.write(message(self.edge, item))

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.wanted:
            head, blank, _ = self.received.partition(b"\r\n\r\n")
            if not blank:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.wanted = len(head) + 4 + int(length)
        if len(self.received) < self.wanted:
            return
        self.latencies.append(time.perf_counter() - self.asked)
        if not self.received.startswith(b"HTTP/1.1 200") or b'"errors":' in self.received:
            self.errors += 1
        if self.pause:
            self.loop.call_later(self.pause, self.ask)
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():  # by the server
            self.errors += 1
            self.done.set_result(None)


async def connect(address: str, connection: Callable[[], Connection]) -> Connection:
    """Open a connection to this address, which begins to ask."""
    url = urlsplit(address)
    assert url.hostname
    assert url.port
    _, protocol = await asyncio.get_running_loop().create_connection(connection, url.hostname, url.port)
    return protocol


async def main(address: str, edge: str, kind: str, customers: str, label: str, connections: str, seconds: str) -> None:
    latencies: list[float] = []
    items = requests(kind, int(customers), label)
    started = time.perf_counter()
    protocols = [
        await connect(address, lambda: Connection(edge, items, started + float(seconds), latencies))
        for _ in range(int(connections))
    ]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    elapsed = time.perf_counter() - started
    print(msgspec.json.encode(figures(latencies, elapsed, sum(p.errors for p in protocols))).decode())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
