"""Servers of the program for the tests: in this process, or as processes of their own. Always real HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from pydantic import SecretStr

from identity_graphql.app import create_app
from identity_graphql.server.http_protocol import http_protocol
from identity_graphql.settings import Settings

ROOT = Path(__file__).parent.parent.parent
JSON = {"content-type": "application/json"}


def settings_for(url: str, **settings: Any) -> Settings:
    """Settings that depend on nothing around the tests."""
    return Settings(_env_file=None, database_url=SecretStr(url), **settings)


@asynccontextmanager
async def serving(url: str, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A server in this process on a free port, and a client of it."""
    chosen = settings_for(url, **settings)
    config = uvicorn.Config(
        create_app(chosen),
        port=0,
        http=http_protocol(chosen),
        access_log=False,
        log_level="error",
        lifespan="on",
    )
    # Its steps by hand: `serve` looks every 0.1 seconds whether it should end, and then waits 0.1 seconds more.
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    assert server.started, "the server did not start"
    await server.on_tick(0)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, verify=False) as client:
            yield client
    finally:
        for listener in server.servers:
            listener.close()
        state = server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        while state.connections or state.tasks:
            await asyncio.sleep(0.001)
        await server.lifespan.shutdown()


@asynccontextmanager
async def process(url: str, **environment: str) -> AsyncIterator[str]:
    """`serve` as a process of its own on a free port; its address."""
    clean = {name: value for name, value in os.environ.items() if name.upper().lower() not in Settings.model_fields}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "identity_graphql", "serve", "--port", "0"),
        cwd=ROOT,
        env={**clean, "LOG_LEVEL": "WARNING", "DATABASE_URL": url, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        address = ""
        async with asyncio.timeout(60):
            while not address:
                line = (await program.stdout.readline()).decode()
                assert line, "the server did not start"
                if "Health" in line:
                    address = line.split()[-1].removesuffix("/health")
            async with httpx2.AsyncClient(base_url=address) as client:
                while not await _answers(client):
                    await asyncio.sleep(0.02)
        yield address
    finally:
        if program.returncode is None:
            program.terminate()
        await program.wait()
        program._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - else it warns that it is open


async def _answers(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/live")).status_code == 200
    except httpx2.TransportError:
        return False
