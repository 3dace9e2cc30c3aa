"""What it costs to look back, and what a steward's verbs cost, by the length of a chain of evidence."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from typing import Any

import httpx2

from benchmarks.databases import Databases
from benchmarks.report import Progress, Table
from benchmarks.speed import Options
from identity_graphql.domain.decide import Command
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.services.identify import LARGEST_BATCH, IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from tests.support.serving import process

CHAINS = (100, 1_000, 10_000)
TIMES = 9
QUERIES = {
    "explain": "query ($a: String, $z: String) { explain(from: {email: $a}, to: {email: $z}) { connected words } }",
    "history": "query ($a: String) { cluster(email: $a) { history(first: 100) { edges { node { seq summary } } } } }",
    "asOf": "query ($a: String, $at: DateTime) { cluster(email: $a, asOf: $at) { size emails phoneNumbers } }",
    "asOfSeq": "query ($a: String, $seq: ID) { cluster(email: $a, asOfSeq: $seq) { size emails phoneNumbers } }",
    "evidence": "query ($a: String) { cluster(email: $a) { evidence { edges { source target } } } }",
}
MADE = "query ($id: ID!) { contact(id: $id) { history { edges { node { seq at } } } } }"
ORDER = Command("ann", "measured", dry_run=True)


async def past(databases: Databases, options: Options, progress: Progress) -> Table:
    """Each query through HTTP, one at a time; each verb through the service, a dry run: all but its writing."""
    rows = []
    async with databases.known("postgresql", 1_000) as url:
        storage = Storage.open(Address.parse(url))
        service, steward = (
            IdentityService(storage, Normalisation()),
            StewardService(storage, Normalisation(), timeout=60),
        )
        async with process(url) as address, httpx2.AsyncClient(base_url=address, timeout=60) as client:
            with progress.task("The past", len(CHAINS)) as advance:
                for length in CHAINS:
                    taken = await _measured(client, steward, service, length)
                    rows.append([f"{length:,}", *(f"{milliseconds:.0f}" for milliseconds in taken)])
                    advance(1)
        await service.close()
        await storage.close()
    return Table(
        "The past",
        ["contacts in the chain", *(f"{name} ms" for name in (*QUERIES, "split", "undo", "delete"))],
        rows,
        [
            f"Queries through HTTP, verbs (dry runs) without it; one at a time, medians of {TIMES}. The chain is",
            "explained from one end to the other; the verbs are about its middle.",
        ],
    )


async def _measured(
    client: httpx2.AsyncClient, steward: StewardService, service: IdentityService, length: int
) -> list[float]:
    """Milliseconds of every query and verb on a chain of this length."""
    contacts = await _grow(service, length)
    middle = contacts[length // 2]
    (made,) = (await _ask(client, MADE, {"id": middle}))["contact"]["history"]["edges"]
    ends = {"a": _email(length, 0), "z": _email(length, (length - 1) // 2)}
    given = {**ends, "at": made["node"]["at"], "seq": made["node"]["seq"]}
    queries = [partial(_ask, client, query, given) for query in QUERIES.values()]
    verbs = [
        partial(steward.split_cluster, [middle], ORDER),
        partial(steward.undo, int(made["node"]["seq"]), ORDER),
        partial(steward.delete_contact, middle, ORDER),
    ]
    return [await _taken(call) for call in (*queries, *verbs)]


async def _grow(service: IdentityService, length: int) -> list[int]:
    """A chain: every contact shares its email with the one before it or its number with the one after; their ids."""
    items = [Given(_email(length, (n + 1) // 2), f"+1777{length:06}{n // 2:06}") for n in range(length)]
    ids = []
    for start in range(0, length, LARGEST_BATCH):
        for result in await service.identify_many(items[start : start + LARGEST_BATCH]):
            assert not isinstance(result, Exception)
            assert result.contact is not None
            ids.append(result.contact.id)
    return ids


def _email(length: int, number: int) -> str:
    return f"chain{length}.{number}@x.io"


async def _ask(client: httpx2.AsyncClient, query: str, variables: dict[str, Any]) -> Any:
    answer = (await client.post("/graphql", json={"query": query, "variables": variables})).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def _taken(call: Callable[[], Awaitable[Any]]) -> float:
    """The median of the milliseconds that a call takes."""
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - started) * 1000)
    return median(taken)
