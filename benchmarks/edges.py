"""What GraphQL costs beyond the service, and what it costs to refuse an attack."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Awaitable, Callable
from statistics import median

import anyio
import httpx2

from benchmarks.client import QUERY
from benchmarks.databases import Databases
from benchmarks.report import Progress, Table
from benchmarks.speed import Options
from benchmarks.workload import email, phone
from identity_graphql.api.graphql.context import Context
from identity_graphql.api.graphql.operations import Operations
from identity_graphql.api.graphql.schema import build_schema
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.kinds import NO_KINDS_DECLARED
from identity_graphql.services.finding import FindingService
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from tests.support.serving import process

CALLERS = 64
SECONDS = 2.0
ROUNDS = 5
TIMES = 9

ATTACKS = {
    "fragments that spread each other twice, 2^18 fields": "query { ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(18))
    + " fragment F18 on Query { __typename }",
    "5,000 levels": "query " + "{ a " * 5_000 + "}" * 5_000,
    "10,000 aliases": "query {" + " ".join(f"a{n}: __typename" for n in range(10_000)) + "}",
    "200 KB of tokens": "query {" + " a" * 100_000 + "}",
}


async def edges(databases: Databases, options: Options, progress: Progress) -> Table:
    """Processor time per call of the service and of the schema over it, one process; the refusals through HTTP."""
    rows = []
    with progress.task("Edges", ROUNDS + len(ATTACKS)) as advance:
        async with databases.known("postgresql", options.customers) as url:
            storage = Storage.open(Address.parse(url))
            service, operations = IdentityService(storage, Normalisation()), Operations(build_schema())
            steward, archive = StewardService(storage, Normalisation()), HistoryService(storage)
            finding = FindingService(storage, NO_KINDS_DECLARED, suspicious_size=50)

            async def direct(j: int) -> None:
                await service.identify(Given(email=email(j), phone_number=phone(j)))

            async def through(j: int) -> None:
                variables = {"email": email(j), "phoneNumber": phone(j)}
                result = await operations.run(
                    operations.find(QUERY, None), variables, Context(service, steward, archive, finding)
                )
                assert not result.errors

            gc.collect()
            gc.freeze()  # as a server does
            taken = []
            for _ in range(ROUNDS):
                taken.append([await _cost(call, options.customers) for call in (direct, through)])
                advance(1)
            gc.unfreeze()
            await service.close()
            await storage.close()
            alone, both = (median(costs) for costs in zip(*taken, strict=True))
            added = median(both - alone for alone, both in taken)
            rows.append(["a repeat, the service alone: processor time", f"{alone:.0f} µs"])
            rows.append(["a repeat, GraphQL over it: processor time", f"{both:.0f} µs"])
            rows.append(["added by GraphQL, median of the differences", f"{added:.0f} µs"])
            async with process(url) as address, httpx2.AsyncClient(base_url=address, timeout=60) as client:
                for name, query in ATTACKS.items():
                    rows.append([f"refusal of {name}", f"{await _refusal(client, query):.1f} ms"])
                    advance(1)
    return Table(
        "Edges",
        ["", "median"],
        rows,
        [
            f"{CALLERS} callers, {ROUNDS} alternating rounds of {SECONDS:.0f} s, warm caches; refusals through HTTP, "
            f"{TIMES} of each, one at a time."
        ],
    )


async def _cost(call: Callable[[int], Awaitable[None]], customers: int) -> float:
    """Microseconds of this process's processor time per call, under load."""
    end, count = time.perf_counter() + SECONDS, 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call(random.randrange(customers))
            count += 1

    before = time.process_time()
    async with anyio.create_task_group() as callers:
        for _ in range(CALLERS):
            callers.start_soon(caller)
    return (time.process_time() - before) / count * 1e6


async def _refusal(client: httpx2.AsyncClient, query: str) -> float:
    """Milliseconds until the refusal of this query is there."""
    body = json.dumps({"query": query})
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        response = await client.post("/graphql", content=body, headers={"content-type": "application/json"})
        taken.append((time.perf_counter() - started) * 1000)
        assert "errors" in response.json()
        assert "data" not in response.json() or response.json()["data"] is None
    return median(taken)
