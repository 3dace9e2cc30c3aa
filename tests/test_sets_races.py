"""Races about limits: clusters with customer ids of their own are bridged from all sides, and never become one."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import httpx2
import pytest

from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.replay import replay
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.verification import verify
from tests.support.databases import Database, check, tables_of
from tests.support.examples import examples
from tests.support.replayed import check_replay, events_of
from tests.support.serving import process

KINDS = json.dumps({"customer_id": {"limit": 1, "on_limit": "withhold"}, "device_id": {}})
CLIENTS = 16
PROCESSES = 2
Said = dict[str, Any]


@asynccontextmanager
async def servers(database: Database) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Two server processes on one database, and a client of each."""
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with AsyncExitStack() as stack:
        starting = [process(database.url, IDENTIFIER_KINDS=KINDS, WORKERS="1") for _ in range(PROCESSES)]
        addresses = await asyncio.gather(*map(stack.enter_async_context, starting))
        yield [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=address, limits=limits, timeout=60))
            for address in addresses
        ]


async def released_together(clients: Sequence[httpx2.AsyncClient], requests: Sequence[Said]) -> list[httpx2.Response]:
    """Sixteen at a time, spread over the servers."""
    remaining, answers = iter(enumerate(requests)), list[httpx2.Response]()

    async def client() -> None:
        for number, said in remaining:
            response = await clients[number % len(clients)].post("/identify", json=said)
            assert response.status_code == 200, response.text
            answers.append(response)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers


async def sound(database: Database, requests: Sequence[Said]) -> None:
    """No customer has two customer ids; nothing that was told is lost; log, tables and replay are the same."""
    storage = database.open()
    differences: list[Any] = []
    await verify(storage, differences.append)
    dump = await database.dump(storage)
    await storage.close()
    assert differences == []
    rows = check(tables_of(dump))
    check_replay(replay(events_of(dump)), rows)
    homes = {row["id"]: row["linked_id"] or row["id"] for row in rows["contact"]}
    owned = [homes[row["contact_id"]] for row in rows["identifier"] if row["kind"] == "customer_id"]
    assert set(Counter(owned).values()) <= {1}, "never two customer ids in one cluster"
    known = {
        frozenset(((row["kind"], row["value"]), (row["other_kind"], row["other_value"])))
        for table in ("pair", "withheld_pair")
        for row in rows[table]
    }
    for said in requests:
        first, *others = said_by(said)
        for other in others:
            both = frozenset((first, other))
            assert both in known, f"{sorted(both)} is evidence or waits"


def said_by(said: Said) -> list[tuple[str, str]]:
    """What a request brings, the identifier of the highest priority first."""
    more = [(kind, value) for kind, value in said.get("identifiers", {}).items()]
    email = [("email", said["email"])] if "email" in said else []
    return sorted([*more, *email], key=lambda one: ["customer_id", "email", "device_id"].index(one[0]))


@pytest.mark.deep
async def test_clusters_with_customer_ids_of_their_own_are_never_bridged(database: Database) -> None:
    random = Random(16)
    told: list[Said] = []
    async with servers(database) as clients:
        for trial in range(examples(4, 20)):
            people, emails = range(6), [f"shared{trial}.{n}@x.io" for n in range(8)]
            devices = [f"d{trial}.{n}" for n in range(6)]
            requests: list[Said] = [
                {"email": random.choice(emails), "identifiers": {"customer_id": f"{trial}.{random.choice(people)}"}}
                for _ in range(30)
            ]
            requests += [
                {"email": random.choice(emails), "identifiers": {"device_id": random.choice(devices)}}
                for _ in range(30)
            ]
            random.shuffle(requests)
            await released_together(clients, requests)
            told += requests
    await sound(database, told)


async def test_two_customers_who_meet_at_a_new_email_at_once_do_not_share_it(database: Database) -> None:
    told: list[Said] = []
    async with servers(database) as clients:
        for trial in range(15):
            requests: list[Said] = [
                {"email": f"new{trial}@x.io", "identifiers": {"customer_id": f"{trial}.{n % 4}"}} for n in range(8)
            ]
            await released_together(clients, requests)
            told += requests
    await sound(database, told)


async def test_what_is_kept_back_at_both_ends_at_once_is_kept_back_once(database: Database) -> None:
    """Each of two requests keeps back what the other begins with: the same pair waits, whoever is first."""
    kinds = Kinds.parse('{"email": {"limit": 1, "on_limit": "withhold"}}')
    storages = [database.open() for _ in range(4)]
    services = [IdentityService(storage, Normalisation(kinds=kinds)) for storage in storages]
    for trial in range(20):
        known, new = f"known{trial}@x.io", f"new{trial}@x.io"
        await services[0].identify(Given(email=known))
        await asyncio.gather(
            *(
                service.identify(Given(identifiers=[("email", email) for email in emails]))
                for service, emails in zip(services, [(known, new), (new, known)] * 2, strict=True)
            )
        )
    for service, storage in zip(services, storages, strict=True):
        await service.close()
        await storage.close()
    rows = await database.check()
    assert len(rows["withheld_pair"]) == 20
    assert len(rows["contact"]) <= 40
