"""The service without HTTP: `python -m benchmarks.service DATABASE_URL KIND CUSTOMERS LABEL CALLERS SECONDS`."""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
import uvloop

from benchmarks.figures import figures
from benchmarks.workload import requests
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.errors import IdentityError
from identity_graphql.services.identify import IdentityService
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address

WARM_UP = 1.0  # seconds: the first batch of each size is a new statement to prepare


async def main(url: str, kind: str, customers: str, label: str, callers: str, seconds: str) -> None:
    storage = Storage.open(Address.parse(url))
    service = IdentityService(storage, Normalisation())
    items = requests(kind, int(customers), label)
    latencies: list[float] = []
    errors = 0

    async def caller(end: float) -> None:
        nonlocal errors
        while (asked := time.perf_counter()) < end:
            email, phone_number = next(items)
            try:
                await service.identify(Given(email=email, phone_number=phone_number))
            except IdentityError:
                errors += 1
            latencies.append(time.perf_counter() - asked)

    for duration in (WARM_UP, float(seconds)):
        latencies.clear()
        started = time.perf_counter()
        await asyncio.gather(*(caller(started + duration) for _ in range(int(callers))))
        elapsed = time.perf_counter() - started
    await service.close()
    await storage.close()
    print(msgspec.json.encode(figures(latencies, elapsed, errors)).decode())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
