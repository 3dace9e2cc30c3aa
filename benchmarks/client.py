"""A load generator without wrk: `python -m benchmarks.client URL EDGE KIND CUSTOMERS LABEL CONNECTIONS SECONDS`.

Bare protocols on uvloop; what it costs beside the server is said in RESULTS.md. Prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
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
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


class Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, and asks again, until the time is over."""

    def __init__(self, edge: str, items: Iterator[Item], end: float, latencies: list[float]) -> None:
        self.edge, self.items, self.end, self.latencies = edge, items, end, latencies
        self.errors = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.received, self.wanted = b"", 0
        self.asked = time.perf_counter()
        self.transport.write(message(self.edge, next(self.items)))

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
        now = time.perf_counter()
        self.latencies.append(now - self.asked)
        if not self.received.startswith(b"HTTP/1.1 200") or b'"errors":' in self.received:
            self.errors += 1
        if now < self.end:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if time.perf_counter() < self.end:
            self.errors += 1
        if not self.done.done():
            self.done.set_result(None)


async def main(address: str, edge: str, kind: str, customers: str, label: str, connections: str, seconds: str) -> None:
    url, latencies = urlsplit(address), list[float]()
    items = requests(kind, int(customers), label)
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    protocols = []
    for _ in range(int(connections)):
        _, protocol = await loop.create_connection(
            lambda: Connection(edge, items, started + float(seconds), latencies), url.hostname, url.port
        )
        protocols.append(protocol)
    await asyncio.gather(*(protocol.done for protocol in protocols))
    elapsed = time.perf_counter() - started
    print(msgspec.json.encode(figures(latencies, elapsed, sum(p.errors for p in protocols))).decode())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
