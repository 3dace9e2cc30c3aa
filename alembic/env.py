"""Run the migrations: in the connection that the program hands over, or in one of our own (`alembic upgrade`)."""

from __future__ import annotations

import asyncio
from typing import Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext

from identity_graphql.settings import Settings
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Pool
from identity_graphql.storage.tables import UtcDateTime, metadata


def render(kind: str, item: object, context_: AutogenContext) -> str | Literal[False]:
    """How our own type stands in a generated migration."""
    if kind == "type" and isinstance(item, UtcDateTime):
        context_.imports.add("from identity_graphql.storage.tables import UtcDateTime")
        return "UtcDateTime()"
    return False


def run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_item=render,
        # SQLite alters a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    storage = Storage.open(Address.parse(Settings.load().database_url.get_secret_value()), Pool(size=1))
    try:
        async with storage.migrating() as connection:
            await connection.run_sync(run)
    finally:
        await storage.close()


def offline() -> None:
    """`--sql`: print the statements for a database administrator to run."""
    address = Address.parse(Settings.load().database_url.get_secret_value())
    context.configure(
        url=address.url, target_metadata=metadata, literal_binds=True, dialect_opts={"paramstyle": "named"}
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    offline()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    asyncio.run(run_alone())
