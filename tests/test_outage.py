"""The database goes away while the service runs, and comes back."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from identity_graphql.errors import DatabaseAway, DatabaseRefuses, DatabaseUnwritable
from identity_graphql.storage.outage import Outage
from tests.support.databases import Database, Databases
from tests.support.logs import Entries, logged, outages, refusals
from tests.support.serving import serving

SERVERS = ("postgresql", "mariadb")
IDENTIFY = {"query": "mutation($email: String) { identify(email: $email) { outcome } }"}


@pytest.fixture(params=SERVERS)
async def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    return await databases.get(request.param)


async def identify(client: httpx2.AsyncClient, email: str) -> httpx2.Response:
    return await client.post("/identify", json={"email": email})


async def recovered(client: httpx2.AsyncClient, email: str) -> httpx2.Response:
    """The first answer that is not a refusal; at most 15 seconds of them."""
    async with asyncio.timeout(15):
        while (response := await identify(client, email)).status_code == 503:
            await asyncio.sleep(0.05)
    return response


async def assert_refused(client: httpx2.AsyncClient, *, within: float) -> None:
    started = time.perf_counter()
    response = await identify(client, "during@x.io")
    assert time.perf_counter() - started < within
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"] == "Service Unavailable"

    looked_up = await client.post("/lookup", json={"email": "during@x.io"})
    assert (looked_up.status_code, looked_up.headers["retry-after"]) == (503, "1")
    graphql = (await client.post("/graphql", json={**IDENTIFY, "variables": {"email": "during@x.io"}})).json()
    assert [error["extensions"]["code"] for error in graphql["errors"]] == ["BUSY"]
    ready = await client.get("/ready")
    assert ready.status_code == 503
    assert (await client.get("/health")).status_code == 200


async def test_a_stopped_database_is_503_until_it_is_back(database: Database) -> None:
    assert database.server is not None
    with logged() as entries:
        async with serving(database.url, request_timeout=3) as client:
            assert (await identify(client, "before@x.io")).status_code == 200

            database.server.stop()
            try:
                await assert_refused(client, within=3.5)
                await assert_refused(client, within=3.5)
            finally:
                database.server.start()

            assert (await recovered(client, "before@x.io")).json()["contact"]["primaryContatctId"] == 1
            assert (await client.get("/ready")).status_code == 200
    rows = await database.check()
    assert [contact["email"] for contact in rows["contact"]] == ["before@x.io"]

    began, over = outages(entries)
    assert began == ("away", {"postgresql": "ECONNREFUSED", "mariadb": "2003 cannot connect"}[database.name])
    assert over == ("back",)
    assert [path for path, _ in refusals(entries)][:8] == ["/identify", "/lookup", "/graphql", "/ready"] * 2
    assert refusals(entries)[0][1] == began[1]


async def test_a_restart_between_two_requests_is_not_noticed(database: Database) -> None:
    assert database.server is not None
    with logged() as entries:
        async with serving(database.url) as client:
            await identify(client, "before@x.io")
            database.server.stop()
            database.server.start()

            assert (await identify(client, "after@x.io")).status_code == 200

    assert outages(entries) == [], "who was served has met no outage"


async def test_a_hung_database_is_503_within_the_request_timeout(database: Database) -> None:
    assert database.server is not None
    with logged() as entries:
        async with serving(database.url, request_timeout=1.5) as client:
            assert (await identify(client, "before@x.io")).status_code == 200

            database.server.freeze()
            try:
                await assert_refused(client, within=2)
            finally:
                database.server.thaw()

            assert (await recovered(client, "after@x.io")).status_code == 200
    await database.check()

    assert outages(entries) == [("silent", "no result within 1.5 s"), ("back",)]
    assert refusals(entries)[0] == ("/identify", "no result within 1.5 s")


READS_AND_VERBS = {
    "history": "{ cluster(id: 1) { history { edges { node { seq } } } } }",
    "asOf": '{ cluster(id: 1, asOf: "2026-01-01T00:00:00Z") { id } }',
    "asOfSeq": "{ cluster(id: 1, asOfSeq: 1) { id } }",
    "explain": "{ explain(from: {contactId: 1}, to: {contactId: 1}) { connected } }",
    "withheld": "{ withheld { edges { node { event } } } }",
    "a verb": 'mutation { deleteContact(id: 1, actor: "ann", reason: "r", expectedVersion: 1) { dryRun } }',
    "a dry run": 'mutation { identify(email: "before@x.io", dryRun: true) { outcome } }',
    "a dry run of many": 'mutation { identifyMany(items: [{email: "a@x.io"}], dryRun: true) { error { code } } }',
}


async def test_a_hung_database_is_busy_for_stewards_too(database: Database) -> None:
    assert database.server is not None
    async with serving(database.url, request_timeout=0.4) as client:
        assert (await identify(client, "before@x.io")).status_code == 200

        database.server.freeze()
        try:
            for name, query in READS_AND_VERBS.items():
                started = time.perf_counter()
                answer = (await client.post("/graphql", json={"query": query})).json()
                assert time.perf_counter() - started < 1.2, name
                assert [error["extensions"]["code"] for error in answer["errors"]] == ["BUSY"], name
        finally:
            database.server.thaw()

        assert (await recovered(client, "after@x.io")).status_code == 200
    rows = await database.check()
    assert {row["kind"] for row in rows["event"]} == {"identify"}


async def test_an_outage_in_the_middle_of_traffic_loses_nothing_that_was_acknowledged(database: Database) -> None:
    assert database.server is not None
    acknowledged: list[str] = []
    statuses: set[int] = set()
    over = asyncio.Event()

    async with serving(database.url, request_timeout=3) as client:

        async def customer(number: int) -> None:
            turn = 0
            while not over.is_set():
                email = f"c{number}.{turn}@x.io"
                response = await client.post("/identify", json={"email": email, "phoneNumber": f"55{number:04}"})
                statuses.add(response.status_code)
                if response.status_code == 200:
                    acknowledged.append(email)
                    turn += 1

        customers = [asyncio.create_task(customer(number)) for number in range(12)]
        await asyncio.sleep(0.3)
        database.server.stop()
        await asyncio.sleep(0.3)
        database.server.start()
        count = len(acknowledged)
        async with asyncio.timeout(15):
            while len(acknowledged) < count + 50:
                await asyncio.sleep(0.02)
        over.set()
        await asyncio.gather(*customers)

    rows = await database.check()
    assert statuses == {200, 503}
    assert {contact["email"] for contact in rows["contact"]} >= set(acknowledged)


async def test_a_locked_sqlite_file_is_503_until_it_is_free(sqlite: Database) -> None:
    path = Path(sqlite.url.removeprefix("sqlite:///"))
    async with serving(sqlite.url, request_timeout=1.5) as client:
        assert (await identify(client, "before@x.io")).status_code == 200

        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            response = await identify(client, "during@x.io")
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            other.execute("ROLLBACK")
        other.close()

        assert (await recovered(client, "after@x.io")).status_code == 200
    await sqlite.check()


# --- what is told of it ---


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Told:
    """An outage, the clock that it goes by, and what it has told."""

    def __init__(self, entries: Entries) -> None:
        self.clock = Clock()
        self.outage = Outage(self.clock)
        self.entries = entries

    def __call__(self) -> list[tuple[str, ...]]:
        """What was told since it was asked last."""
        told = outages(self.entries)
        self.entries.clear()
        return told


@pytest.fixture
def told() -> Iterator[Told]:
    with logged() as entries:
        yield Told(entries)


def test_what_works_is_not_told(told: Told) -> None:
    for wrote in (False, True):
        told.outage.answered(wrote=wrote)

    assert told() == []


def test_an_outage_is_told_once_however_many_meet_it_and_its_end_once(told: Told) -> None:
    for _ in range(3):
        told.outage.failed(DatabaseAway("57P01 admin shutdown"))
        told.outage.failed(DatabaseAway("ECONNREFUSED"))
    assert told() == [("away", "57P01 admin shutdown")]

    told.clock.now += 2.5
    told.outage.answered()
    assert [entry["seconds"] for entry in told.entries] == [2.5]
    assert told() == [("back",)]
    told.outage.answered()
    assert told() == []


def test_a_second_outage_is_told_again(told: Told) -> None:
    for _ in range(2):
        told.outage.failed(DatabaseAway("ECONNREFUSED"))
        told.outage.answered()

    assert told() == [("away", "ECONNREFUSED"), ("back",)] * 2


@pytest.mark.parametrize("error", [DatabaseUnwritable("53100 disk full"), DatabaseRefuses("58030 I/O error")])
def test_that_it_can_be_read_does_not_end_what_forbids_to_write(told: Told, error: DatabaseUnwritable) -> None:
    for _ in range(3):
        told.outage.failed(error)
        told.outage.answered()
        assert told.outage.until_written
    assert told() == [(error.state, error.cause)]

    told.outage.answered(wrote=True)
    assert told() == [("back",)]
    assert not told.outage.until_written


def test_what_is_another_trouble_is_told_beside_the_first(told: Told) -> None:
    for _ in range(2):
        told.outage.failed(DatabaseAway("ECONNREFUSED"))
        told.outage.failed(DatabaseRefuses("28P01 invalid password"))
    assert told() == [("away", "ECONNREFUSED"), ("refuses", "28P01 invalid password")]

    told.outage.answered()
    assert told() == []
    told.outage.answered(wrote=True)
    assert told() == [("back",)]


def test_a_database_that_answers_nobody_is_told_and_one_that_answers_others_is_not(told: Told) -> None:
    began = told.clock()
    told.clock.now += 1
    told.outage.answered()
    told.outage.waited(began, "no result within 10 s")
    assert told() == []

    told.clock.now += 1
    for _ in range(2):
        told.outage.waited(began + 1.5, "no result within 10 s")
    assert told() == [("silent", "no result within 10 s")]
    told.outage.answered()
    assert told() == [("back",)]
