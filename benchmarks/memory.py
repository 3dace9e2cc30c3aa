"""Memory of the server's processes, at rest and under load."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx2

from benchmarks import load
from benchmarks.databases import Databases
from benchmarks.report import Progress, Table
from benchmarks.speed import Options, labels
from tests.support.serving import process

CONNECTIONS = 64
LARGE = 10_000


async def memory(databases: Databases, options: Options, progress: Progress) -> Table:
    """Resident memory of one worker: started, after each load, and after answers of 10,000 contacts."""
    label, rows = labels(), list[list[str]]()
    with progress.task("Memory", 5) as advance:

        def note(when: str) -> None:
            now, peak = _resident(worker)
            rows.append([when, f"{now:.0f}", f"{peak:.0f}"])
            advance(1)

        async with databases.known("postgresql", options.customers) as url, process(url, WORKERS="1") as address:
            worker = _listener(address)
            note("started")
            for edge in load.EDGES:
                for kind in ("mix",):
                    await load.measure(
                        address, edge, kind, options.customers, next(label), CONNECTIONS, options.seconds
                    )
                    note(f"{options.seconds} s of the mix, {load.NAMES[edge]}, {CONNECTIONS} connections")
            async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
                for start in range(0, LARGE, 100):
                    await asyncio.gather(
                        *(
                            client.post("/identify", json={"email": f"large{n}@x.io", "phoneNumber": "+19990000"})
                            for n in range(start, start + 100)
                        )
                    )
                note(f"a cluster of {LARGE:,} grown one request at a time")
                await asyncio.gather(
                    *(client.post("/identify", json={"email": f"large{n}@x.io"}) for n in range(CONNECTIONS))
                )
                note(f"{CONNECTIONS} answers of {LARGE:,} contacts at once")
    return Table(
        "Memory",
        ["one worker", "resident MiB", "peak MiB"],
        rows,
        ["In one process, one after the other: memory that was taken is kept."],
    )


def _listener(address: str) -> int:
    """The process that listens at this address on this machine."""
    port = int(address.rpartition(":")[2])
    listening = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    )
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(descriptor.readlink()) == f"socket:[{listening}]":
                return int(descriptor.parts[2])
        except OSError:
            continue
    raise RuntimeError(f"nobody listens at {address}")


def _resident(pid: int) -> tuple[float, float]:
    """Resident memory now and at most, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak
