"""What it costs as it grows: by contacts in the database, and by contacts in one cluster."""

from __future__ import annotations

import gc
import time
from contextlib import AsyncExitStack
from statistics import median

from benchmarks import load
from benchmarks.databases import Databases
from benchmarks.figures import Figures, medians
from benchmarks.report import Progress, Table
from benchmarks.speed import Options, labels
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.services.identify import LARGEST_BATCH, IdentityService
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from tests.support.serving import process

CONTACTS = (10_000, 100_000, 1_000_000)
CLUSTERS = (10, 100, 1_000, 10_000)
CONNECTIONS = 64
TIMES = 15


async def sizes(databases: Databases, options: Options, progress: Progress) -> Table:
    """The mix against ever more contacts, in alternating rounds through REST."""
    label = labels()
    taken: dict[int, list[Figures]] = {contacts: [] for contacts in CONTACTS}
    async with AsyncExitStack() as stack:
        addresses = {}
        for contacts in CONTACTS:
            url = await stack.enter_async_context(databases.known("postgresql", contacts * 3 // 4))
            addresses[contacts] = await stack.enter_async_context(process(url))
        with progress.task("Sizes", len(CONTACTS) * (options.rounds + 1)) as advance:
            for number in range(options.rounds + 1):
                for contacts, address in addresses.items():
                    customers = contacts * 3 // 4
                    seconds = options.seconds if number else 2  # the first is to warm up
                    figures = await load.measure(address, "rest", "mix", customers, next(label), CONNECTIONS, seconds)
                    if number:
                        taken[contacts].append(figures)
                    advance(1)
    middle = {contacts: medians(rounds) for contacts, rounds in taken.items()}
    first = middle[CONTACTS[0]].rate
    return Table(
        "Sizes",
        ["contacts", "mix, requests/s", "of the smallest", "p50 ms", "p99 ms", "errors"],
        [
            [f"{n:,}", f"{f.rate:,.0f}", f"{f.rate / first:.2f}", f"{f.p50:.1f}", f"{f.p99:.1f}", str(f.errors)]
            for n, f in middle.items()
        ],
        [f"REST, {CONNECTIONS} connections, medians of {options.rounds} alternating rounds of {options.seconds} s."],
    )


async def clusters(databases: Databases, options: Options, progress: Progress) -> Table:
    """One request at a time to ever larger clusters, without HTTP."""
    rows = []
    async with databases.known("postgresql", 1_000) as url:
        storage = Storage.open(Address.parse(url))
        service = IdentityService(storage, Normalisation())
        gc.collect()
        gc.freeze()  # as a server does
        with progress.task("Clusters", len(CLUSTERS)) as advance:
            for size in CLUSTERS:
                for side in ("a", "b", "c"):
                    await _grow(service, f"{side}{size}", size)
                known, number = f"a{size}.0@x.io", _phone(f"a{size}")
                repeat = [await _taken(service, known) for _ in range(TIMES)]
                link = [await _taken(service, f"new{size}.{n}@x.io", number) for n in range(TIMES)]
                merge = [await _taken(service, f"b{size}.0@x.io", _phone(f"c{size}"))]
                rows.append([f"{size:,}", *(f"{median(taken):.1f}" for taken in (repeat, link, merge))])
                advance(1)
        gc.unfreeze()
        await service.close()
        await storage.close()
    return Table(
        "Clusters",
        ["contacts in the cluster", "repeat ms", "link ms", "merge of two such ms"],
        rows,
        [f"The service without HTTP, one request at a time, whole answers; medians of {TIMES}, of the merge one."],
    )


def _phone(name: str) -> str:
    return "+1999" + "".join(f"{ord(char):03}" for char in name)


async def _grow(service: IdentityService, name: str, size: int) -> None:
    items = [Given(f"{name}.{number}@x.io", _phone(name)) for number in range(size)]
    for start in range(0, size, LARGEST_BATCH):
        await service.identify_many(items[start : start + LARGEST_BATCH])


async def _taken(service: IdentityService, email: str, phone_number: str | None = None) -> float:
    """Milliseconds that this request takes."""
    started = time.perf_counter()
    await service.identify(Given(email=email, phone_number=phone_number))
    return (time.perf_counter() - started) * 1000
