"""Requests at a fixed rate: `python -m benchmarks.traffic URL KIND CUSTOMERS LABEL CONNECTIONS RATE`.

Says when it is connected; for every line that it reads it prints the figures since the line before, as JSON, until
there are no more lines.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from functools import partial

import msgspec
import uvloop

from benchmarks.client import Connection, connect
from benchmarks.figures import figures
from benchmarks.workload import Item, requests


class Paced(Connection):
    """Asks at its times. An answer is as late as it comes after the time, even if it could not be asked for then."""

    def __init__(self, items: Iterator[Item], latencies: list[float], *, due: float, interval: float) -> None:
        super().__init__("rest", items, None, latencies)
        self.due, self.interval = due, interval

    def ask(self) -> None:
        wait = self.due - time.perf_counter()
        if wait > 0:
            self.loop.call_later(wait, self.ask)
        elif not self.done.done():
            super().ask()
            self.asked = self.due
            self.due += self.interval


async def main(address: str, kind: str, customers: str, label: str, connections: str, rate: str) -> None:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    items = requests(kind, int(customers), label)
    started, count = time.perf_counter(), int(connections)
    protocols = [
        await connect(
            address,
            partial(Paced, items, latencies, due=started + number / float(rate), interval=count / float(rate)),
        )
        for number in range(count)
    ]
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        now, errors = time.perf_counter(), sum(protocol.errors for protocol in protocols)
        print(msgspec.json.encode(figures(latencies, now - started, errors)).decode(), flush=True)
        latencies.clear()
        started = now
        for protocol in protocols:
            protocol.errors = 0
    for protocol in protocols:
        protocol.finish()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
