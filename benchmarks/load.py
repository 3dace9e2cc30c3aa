"""Load through HTTP: wrk where it is installed, else a client of our own."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import msgspec

from benchmarks.figures import Figures

HERE = Path(__file__).parent
NAMES = {"rest": "REST", "graphql": "GraphQL"}
EDGES = tuple(NAMES)


def generator() -> str:
    """Which one drives the load."""
    return "wrk" if shutil.which("wrk") else "benchmarks/client.py"


async def measure(
    address: str, edge: str, kind: str, customers: int, label: str, connections: int, seconds: float
) -> Figures:
    """Closed loops: so many connections, each asks again as soon as it is answered."""
    if shutil.which("wrk"):
        arguments = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "15s"]
        command = ["wrk", *arguments, "-s", str(HERE / "load.lua"), address, "--", edge, kind, str(customers), label]
    else:
        command = [sys.executable, "-m", "benchmarks.client", address, edge, kind, str(customers), label]
        command += [str(connections), str(seconds)]
    return await run(*command)


async def service(url: str, kind: str, customers: int, label: str, callers: int, seconds: float) -> Figures:
    """The same without HTTP, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.service", url, kind, str(customers), label]
    return await run(*command, str(callers), str(seconds))


async def run(*command: str) -> Figures:
    """The figures that a program prints in its last line."""
    program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=HERE.parent)
    output = (await program.communicate())[0].decode().splitlines()
    if program.returncode:
        raise RuntimeError(f"{command[0]} failed")
    return msgspec.json.decode(output[-1], type=Figures)
