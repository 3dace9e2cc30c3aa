"""Run the migrations: in the connection that the program hands over, or in one of our own (`alembic upgrade`)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from identity_graphql.errors import ConfigurationError
from identity_graphql.settings import Settings
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Pool
from identity_graphql.storage.start_errors import explained
from identity_graphql.storage.tables import UtcDateTime, metadata


def render(kind: str, item: object, autogenerate: AutogenContext) -> str | Literal[False]:
    """How our own type stands in a generated migration."""
    if kind == "type" and isinstance(item, UtcDateTime):
        autogenerate.imports.add("from identity_graphql.storage.tables import UtcDateTime")
        return "UtcDateTime()"
    return False


def number(
    _: MigrationContext, revision: str | Iterable[str | None] | Iterable[str], scripts: list[MigrationScript]
) -> None:
    """Revisions are counted: 0001, 0002."""
    head = context.script.get_current_head()
    for script in scripts:
        if head is None or re.fullmatch(r"\d{4}", head):
            script.rev_id = f"{int(head or 0) + 1:04}"


def run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_item=render,
        process_revision_directives=number,
        # SQLite alters a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        refuse_in_time(connection)
        context.run_migrations()


def refuse_in_time(connection: sa.Connection) -> None:
    """Before the first step down, ask all revisions on the way whether they may be left: MySQL takes no step back."""
    current = context.get_context().get_current_revision()
    if current is None or context.config.attributes.get("reset"):
        return
    try:
        on_the_way = list(context.script.iterate_revisions(current, context.get_revision_argument()))
    except (KeyError, RevisionError):  # it goes nowhere, or up
        return
    for script in on_the_way:
        if refuse := getattr(script.module, "refuse_to_forget", None):
            refuse(connection)


async def run_alone(address: Address) -> None:
    storage = Storage.open(address, Pool(size=1))
    try:
        with explained(address):
            async with storage.migrating() as connection:
                await connection.run_sync(run)
    finally:
        await storage.close()


def run_offline(address: Address) -> None:
    """`--sql`: print the statements for a database administrator to run."""
    context.configure(
        url=address.url, target_metadata=metadata, literal_binds=True, dialect_opts={"paramstyle": "named"}
    )
    with context.begin_transaction():
        if address.schema is not None:
            context.execute(sa.schema.CreateSchema(address.schema, if_not_exists=True))
            quoted = address.schema.replace('"', '""')
            context.execute(f'SET search_path TO "{quoted}"')
        context.run_migrations()


def run_command() -> None:
    address = Address.parse(Settings.load().database_url.get_secret_value())
    if context.is_offline_mode():
        run_offline(address)
    else:
        asyncio.run(run_alone(address))


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    try:
        run_command()
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
