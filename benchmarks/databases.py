"""The databases that are measured: durable servers, and fresh copies of what they know, one per measurement."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from benchmarks import limit, workload
from benchmarks.report import Progress
from identity_graphql.domain.identifiers import Normalisation
from identity_graphql.services.identify import IdentityService
from tests.support.databases import Database, migrate
from tests.support.servers import Server, mariadb, postgresql

STARTERS = {"postgresql": postgresql, "mariadb": mariadb}


class Databases:
    """What is known is loaded once; a measurement gets a copy of its own, so that none sees what another wrote."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self._progress = progress
        self._servers: dict[str, Server] = {}
        self._templates: dict[tuple[str, int], Database] = {}
        self._numbers = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def server(self, name: str) -> Server:
        if name not in self._servers:
            self._servers[name] = self._stack.enter_context(STARTERS[name](durable=True))
        return self._servers[name]

    @asynccontextmanager
    async def limit(self, customers: int) -> AsyncIterator[str]:
        """The name of a PostgreSQL database with the limit's function, which knows these customers."""
        server, name = self.server("postgresql"), f"limit{next(self._numbers)}"
        server.query(f"CREATE DATABASE {name}")
        await limit.preload(server, name, customers)
        server.query("CHECKPOINT")
        yield name
        server.query(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def known(self, name: str, customers: int) -> AsyncIterator[str]:
        """The URL of a database of this kind that knows these customers and nothing else."""
        if name == "mariadb":  # it copies no database
            yield (await self._loaded(name, customers)).url
            return
        key = (name, customers)
        if key not in self._templates:
            self._templates[key] = await self._loaded(name, customers)
        template = self._templates[key]
        copy = self._new(name)
        if template.server is None:
            shutil.copy(_file(template), _file(copy))
            yield copy.url
            _file(copy).unlink()
        else:
            target, source = (database.url.rpartition("/")[2] for database in (copy, template))
            template.server.query(f"CREATE DATABASE {target} TEMPLATE {source}")
            template.server.query("CHECKPOINT")
            yield copy.url
            template.server.query(f"DROP DATABASE {target} WITH (FORCE)")

    def _new(self, name: str) -> Database:
        database = f"bench{next(self._numbers)}"
        if name == "sqlite":
            return Database(name, f"sqlite:///{self.folder / database}.db")
        server = self.server(name)
        return Database(name, server.url(database), server)

    async def _loaded(self, name: str, customers: int) -> Database:
        database = self._new(name)
        if database.server is not None:
            database.server.query(f"CREATE DATABASE {database.url.rpartition('/')[2]}")
        await migrate(database)
        storage = database.open()
        service = IdentityService(storage, Normalisation())
        with self._progress.task(f"{name}: {customers:,} customers", customers + -(-customers // 3)) as advance:
            await workload.preload(service, customers, advance)
        if name == "postgresql":  # what the server does by itself after a while
            async with storage.transaction() as connection:
                await connection.execute(sa.text("ANALYZE"))
        await service.close()
        await storage.close()
        return database


def _file(database: Database) -> Path:
    return Path(database.url.removeprefix("sqlite:///"))
