from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import cache

import httpx2
import pytest

from identity_graphql import observability
from identity_graphql.api.graphql.schema import build_schema
from identity_graphql.domain.identifiers import Normalisation
from identity_graphql.services.identify import IdentityService
from identity_graphql.settings import Settings
from identity_graphql.storage import Storage
from identity_graphql.storage import sqlite as sqlite_dialect
from tests.support.databases import NAMES, Database, Databases, opened
from tests.support.serving import serving
from tests.support.stewards import Steward, working

# The tests say what they need; what is set around them does not matter.
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)

observability.configure(level="ERROR", form="json")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with pytest.MonkeyPatch.context() as patch:
        # As on the servers: no test is about an outage of the machine, and to be safe from one takes 5 ms a commit.
        pragmas = ["synchronous=OFF" if p.startswith("synchronous=") else p for p in sqlite_dialect.PRAGMAS]
        patch.setattr(sqlite_dialect, "PRAGMAS", pragmas)
        patch.setattr("identity_graphql.app.build_schema", cache(build_schema))  # one for all servers
        yield from opened(tmp_path_factory.mktemp("databases"))


@pytest.fixture(params=NAMES)
async def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    """Each of the three databases, empty."""
    name: str = request.param
    return await databases.get(name)


@pytest.fixture(params=NAMES)
def unmigrated(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    """A database of each kind, for one test alone, that nobody has migrated."""
    with databases.another(request.param) as database:
        yield database


@pytest.fixture
def postgresql(databases: Databases) -> Iterator[Database]:
    """A database on PostgreSQL, for one test alone, that nobody has migrated."""
    with databases.another("postgresql") as database:
        yield database


@pytest.fixture
async def sqlite(databases: Databases) -> Database:
    """The embedded database, empty: for what does not depend on the database."""
    return await databases.get("sqlite")


@pytest.fixture
async def storage(database: Database) -> AsyncIterator[Storage]:
    storage = database.open()
    yield storage
    await storage.close()


@pytest.fixture
async def service(storage: Storage) -> AsyncIterator[IdentityService]:
    service = IdentityService(storage, Normalisation())
    yield service
    await service.close()


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller of a server on each of the three databases."""
    async with serving(database.url) as client:
        yield client


@pytest.fixture
async def embedded(sqlite: Database) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller of a server on the embedded database: for what does not depend on the database."""
    async with serving(sqlite.url) as client:
        yield client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    root, key = str(folder / "root.pem"), str(folder / "key.pem")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate")
    make = f"req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {key} -out {root}"
    subprocess.run([openssl, *make.split()], check=True, capture_output=True)
    return {"root": root, "key": key}


@pytest.fixture
async def steward(sqlite: Database) -> AsyncIterator[Steward]:
    """On the embedded database. Afterwards all must hold, and the log judged again must give the present."""
    async with working(sqlite) as steward:
        yield steward
