"""Behind PgBouncer, where the next transaction may run on another connection to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import sqlalchemy as sa

from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.verification import verify
from identity_graphql.storage import Storage
from identity_graphql.storage.postgresql import PLANNING
from tests.support import servers
from tests.support.databases import Database, Databases
from tests.support.stewards import Steward

CALLERS = 16
SETTINGS = (*PLANNING, "statement_timeout", "lock_timeout", "search_path")


@pytest.fixture(scope="module")
def port(databases: Databases) -> Iterator[int]:
    try:
        with servers.pgbouncer(databases.server("postgresql")) as port:
            yield port
    except servers.Unavailable as reason:
        servers.skip_or_fail("pgbouncer", reason)


@pytest.fixture
async def pooled(databases: Databases, port: int) -> Database:
    """An empty database through the pooler."""
    direct = await databases.get("postgresql")
    assert direct.server is not None
    url = direct.url.replace(f":{direct.server.port}/", f":{port}/")
    return Database("postgresql", f"{url}?pgbouncer=true&schema=public", direct.server)


@pytest.fixture
async def storage(pooled: Database) -> AsyncIterator[Storage]:
    storage = pooled.open()
    yield storage
    await storage.close()


async def settings_of(storage: Storage) -> list[list[str]]:
    """The settings where it reads, where it writes, and where it reads what was there at one moment."""
    asked = sa.select(*(sa.func.current_setting(name) for name in SETTINGS))
    found = []
    for opened in (storage.reading, storage.transaction, storage.snapshot):
        async with opened() as connection:
            found.append(list((await connection.execute(asked)).one()))
    return found


async def test_every_transaction_begins_with_the_settings_that_a_connection_has_elsewhere(
    storage: Storage, pooled: Database, databases: Databases
) -> None:
    assert pooled.server is not None
    direct = Database("postgresql", pooled.server.url("test", schema="public")).open()

    behind, before = await settings_of(storage), await settings_of(direct)
    await direct.close()

    assert behind == before
    assert behind[0][: len(PLANNING)] == list(PLANNING.values())


async def test_no_setting_is_left_to_others_on_the_same_connections(storage: Storage, port: int) -> None:
    await settings_of(storage)
    others = Database("postgresql", f"postgresql://postgres@127.0.0.1:{port}/test?pgbouncer=true").open(size=4)

    async def asked() -> str:
        async with others.reading() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            value: str = await driver.fetchval("SHOW enable_seqscan")  # outside of any transaction of ours
            return value

    assert set(await asyncio.gather(*(asked() for _ in range(4)))) == {"on"}
    await others.close()


async def test_many_callers_at_once_are_answered(storage: Storage, pooled: Database) -> None:
    service, other = IdentityService(storage, Normalisation()), pooled.open()
    second = IdentityService(other, Normalisation())

    for attempt in range(10):
        requests = [
            one.identify(Given(email=f"e{attempt}.{caller % 4}@x.io", phone_number=f"10000{caller % 8}"))
            for caller in range(CALLERS)
            for one in (service, second)
        ]
        await asyncio.gather(*requests)

    for one in (service, second):
        await one.close()
    await other.close()
    assert len((await pooled.check())["event"]) > 10


async def test_stewards_and_verify_work(storage: Storage) -> None:
    steward = Steward(storage)
    await steward.requests(("a@x.io", "100001"), ("b@x.io", "100001"), ("c@x.io", "100002"))
    await steward.split(2)
    await steward.undo(3)

    report = await verify(storage, lambda difference: None)
    await steward.close()

    assert (report.events, report.differences) == (5, 0)
