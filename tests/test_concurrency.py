"""Races, pointed: a few requests released together on warm connections, and the whole state judged afterwards.

Two server processes share each database, or ten services in one process. A dense random load would hide these
races, because later requests repair what earlier ones broke.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import httpx2
import pytest

from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.reconcile import Request, reconcile
from identity_graphql.errors import Conflict
from identity_graphql.services.identify import IdentityService
from tests.models.oracle import random_requests
from tests.support.databases import NAMES, Database, Databases, empty
from tests.support.identifiers import pair_of
from tests.support.serving import process

PROCESSES = 2
SERVICES = 10
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
Said = tuple[str | None, str | None]
Seat = Callable[[Said], Awaitable[list[Any]]]


@dataclass
class Racers:
    """Those who race on one database, each from a seat of its own, with connections that are open already."""

    database: Database
    seats: Sequence[Seat]

    async def one_by_one(self, requests: Sequence[Said]) -> list[list[Any]]:
        return [await self.seats[0](said) for said in requests]

    async def together(self, requests: Sequence[Said]) -> list[list[Any]]:
        """All at once, spread over the seats."""
        return await asyncio.gather(*(self.seats[n % len(self.seats)](said) for n, said in enumerate(requests)))

    async def warm_up(self) -> None:
        """Open as many connections as will race, of the clients and of the pools."""
        await self.together([(f"warm{n}@x.io", None) for n in range(20)])
        await empty(self.database)


@asynccontextmanager
async def processes(database: Database, level: str) -> AsyncIterator[Racers]:
    """Two server processes, through HTTP. What reaches one of them together may share a batch there."""
    limits = httpx2.Limits(max_connections=40, max_keepalive_connections=40)
    async with AsyncExitStack() as stack:
        starting = [process(database.url, ISOLATION_LEVEL=level, WORKERS="1") for _ in range(PROCESSES)]
        addresses = await asyncio.gather(*map(stack.enter_async_context, starting))
        clients = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=address, limits=limits, timeout=30))
            for address in addresses
        ]
        yield Racers(database, [partial(identify_over_http, client) for client in clients])


async def identify_over_http(client: httpx2.AsyncClient, said: Said) -> list[Any]:
    response = await client.post("/identify", json={"email": said[0], "phoneNumber": said[1]})
    assert response.status_code == 200, response.text
    return list(response.json()["contact"].values())


@asynccontextmanager
async def services(database: Database, level: str) -> AsyncIterator[Racers]:
    """Ten services that know nothing of each other: every request is a batch of its own."""
    async with AsyncExitStack() as stack:
        racing = []
        for _ in range(SERVICES):
            storage = database.open(size=2, isolation_level=level)
            stack.push_async_callback(storage.close)
            racing.append(IdentityService(storage, Normalisation()))
            stack.push_async_callback(racing[-1].close)
        yield Racers(database, [partial(identify_directly, service) for service in racing])


async def identify_directly(service: IdentityService, said: Said) -> list[Any]:
    cluster = (await service.identify(Given(email=said[0], phone_number=said[1]))).cluster
    return [cluster.primary.id, cluster.emails, cluster.phone_numbers, cluster.secondary_contact_ids]


KINDS = [
    pytest.param((how, name, level), id=f"{how.__name__}-{name}-{level}")
    for how in (processes, services)
    for name in NAMES
    for level in (LEVELS if name == "postgresql" else LEVELS[:1])
]


@pytest.fixture(scope="module", params=KINDS)
async def running(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Racers]:
    how, name, level = request.param
    async with how(await databases.get(name), level) as racers:
        yield racers


@pytest.fixture
async def racers(running: Racers) -> Racers:
    await running.warm_up()
    return running


async def test_two_simultaneous_requests_with_one_new_email_make_one_customer(racers: Racers) -> None:
    for trial in range(30):
        email = f"new{trial}@x.io"

        await racers.together([(email, f"555{trial:03}1"), (email, f"555{trial:03}2")])

    contacts = (await racers.database.check())["contact"]
    assert len(contacts) == 60
    assert sum(contact["linked_id"] is None for contact in contacts) == 30


@pytest.mark.parametrize("count", [2, 5])
async def test_identical_simultaneous_requests_make_one_contact(racers: Racers, count: int) -> None:
    for trial in range(20):
        answers = await racers.together([(f"same{trial}@x.io", f"777{trial:03}")] * count)

        assert all(answer == answers[0] for answer in answers)

    rows = await racers.database.check()
    assert len(rows["contact"]) == len(rows["event"]) == 20


async def test_the_same_new_contact_linked_at_once_is_linked_once(racers: Racers) -> None:
    for trial in range(10):
        await racers.one_by_one([(f"first{trial}@x.io", f"888{trial:03}")])

        await racers.together([(f"second{trial}@x.io", f"888{trial:03}")] * 4)

    assert len((await racers.database.check())["contact"]) == 20


async def test_a_chain_of_twenty_clusters_bridged_at_once_becomes_one(racers: Racers) -> None:
    for trial in range(3):
        people = [(f"p{n}.{trial}@x.io", f"9{trial}{n:03}") for n in range(20)]
        await racers.one_by_one(people)
        bridges: list[Said] = [(people[n][0], people[n + 1][1]) for n in range(19)]

        await racers.together(Random(trial).sample(bridges, len(bridges)))

        rows = await racers.database.check()
        newest = rows["contact"][20 * trial :]
        assert [contact["linked_id"] for contact in newest] == [None, *[newest[0]["id"]] * 19]
    assert len(rows["contact"]) == 60


async def test_links_to_a_cluster_that_is_merged_meanwhile_follow_it(racers: Racers) -> None:
    for trial in range(10):
        a, b = f"a{trial}@x.io", f"b{trial}@x.io"
        await racers.one_by_one([(a, f"31{trial:03}"), (b, f"32{trial:03}")])

        await racers.together([(a, f"32{trial:03}"), (b, f"33{trial:03}"), (f"c{trial}@x.io", f"32{trial:03}")])

        contacts = (await racers.database.check())["contact"]
        assert sum(contact["linked_id"] is None for contact in contacts) == trial + 1


async def test_opposite_merges_at_once_do_not_block_each_other(racers: Racers) -> None:
    for trial in range(10):
        a, b = (f"a{trial}@x.io", f"41{trial:03}"), (f"b{trial}@x.io", f"42{trial:03}")
        await racers.one_by_one([a, b])

        await racers.together([(a[0], b[1]), (b[0], a[1])] * 2)

    rows = await racers.database.check()
    assert sum(contact["linked_id"] is None for contact in rows["contact"]) == 10


async def test_a_storm_of_1200_requests_leaves_a_sound_database(racers: Racers) -> None:
    storm = random_requests(12, 1200, people=100)
    remaining = iter(storm)

    async def client(number: int) -> None:
        for said in remaining:
            await racers.seats[number % len(racers.seats)](said)

    await asyncio.gather(*(client(number) for number in range(24)))

    rows = await racers.database.check()
    assert {(pair["value"], pair["other_value"]) for pair in rows["pair"]} == {
        said for said in storm if None not in said
    }


async def test_the_isolation_level_is_the_one_that_was_set(databases: Databases) -> None:
    database = await databases.get("postgresql")
    for level in LEVELS:
        storage = database.open(isolation_level=level)
        async with storage.transaction() as connection:
            assert (await connection.exec_driver_sql("SHOW transaction_isolation")).scalar() == level.lower()
        await storage.close()


async def test_a_lost_race_writes_nothing_and_is_no_error_of_the_database(databases: Databases) -> None:
    """The whole batch, though one of its clusters is as it was seen; PostgreSQL's log has no line of it."""
    database = await databases.get("postgresql")
    assert database.server is not None
    storage = database.open()
    service = IdentityService(storage, Normalisation())
    for said in (("a@x.io", "111"), ("b@x.io", "222")):
        await service.identify(Given(email=said[0], phone_number=said[1]))
    request = Request(Normalisation().details(Given(email="a@x.io", phone_number="222")), "1")
    async with storage.attempt() as attempt:
        found = await attempt.find(request.details.identifiers, [pair_of("a@x.io", "222")])
        await service.identify(Given(email="b@x.io", phone_number="333"))
        before, logged = await database.dump(), database.server.log()

        with pytest.raises(Conflict):
            await attempt.apply(reconcile([request], found))

    assert await database.dump() == before
    assert "ERROR" not in database.server.log().removeprefix(logged)
    await service.close()
    await storage.close()
