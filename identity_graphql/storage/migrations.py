"""Bring a database to this program's revision, under a lock; tell which revision it has."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.errors import ConfigurationError
from identity_graphql.storage.tables import metadata

ANOTHER_PLACE = (
    "Use another database or, on PostgreSQL, a schema of its own, with ?schema=identity at the end of DATABASE_URL."
)


class Migrated(Struct, frozen=True):
    """The revisions of a database before and after its migration; None: it had no tables of this program."""

    before: str | None
    after: str


def configuration() -> Config:
    """Alembic's settings: the scripts inside the installed package, or the folder `alembic/` of a checkout."""
    packaged = Path(str(files("identity_graphql"))) / "migrations"
    scripts = packaged if packaged.is_dir() else packaged.parent.parent / "alembic"
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config


def upgrade(connection: sa.Connection, *, reset: bool = False) -> Migrated:
    """Apply what is missing; with ``reset``, drop everything first. A newer program's database stays as it is.

    Raises ConfigurationError where tables of the same names are there that no migration of this program has made.
    """
    config = configuration()
    config.attributes["connection"] = connection
    found = _revision(connection)
    if found is not None and found not in _known():
        if reset:
            raise ConfigurationError(
                f"A newer version of this program made this database (its revision is {found}); reset it with that one."
            )
        return Migrated(found, found)
    if found is None:
        _refuse_foreign_tables(connection)
    if reset:
        config.attributes["reset"] = True  # nothing is to be kept, so nothing is refused
        command.downgrade(config, "base")
    command.upgrade(config, "head")
    return Migrated(found, head())


def _refuse_foreign_tables(connection: sa.Connection) -> None:
    # Before the first of ours is made: MySQL would keep it.
    inspector = sa.inspect(connection)
    if taken := sorted(name for name in metadata.tables if inspector.has_table(name)):
        raise ConfigurationError(
            f"The database has tables already that are not this program's, or that a migration which was broken off "
            f"left behind: {', '.join(taken)}. {ANOTHER_PLACE} If they are of no use any more, drop them."
        )


@cache
def head() -> str:
    """This program's revision."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None, "there is a first migration"
    return revision


async def revision(connection: AsyncConnection) -> str | None:
    """The database's revision; None if it was never migrated. Raises ConfigurationError if it is another program's."""
    return await connection.run_sync(_revision)


def is_older(found: str | None) -> bool:
    """Whether a database with this revision lacks something. An unknown revision is a newer program's."""
    if found is None:
        return True
    return found in _known() and found != head()


def check(found: str | None) -> None:
    """Raises ConfigurationError unless this is this program's revision."""
    if is_older(found):
        state = "was never migrated" if found is None else f"is of an older program (its revision is {found})"
        raise ConfigurationError(f"The database {state}: run `identity-graphql migrate` first.")
    if found != head():
        raise ConfigurationError(
            f"A newer version of this program made this database (its revision is {found}): use it."
        )


def _revision(connection: sa.Connection) -> str | None:
    """The revision, unless another program that uses Alembic made it: ours are numbers of four digits."""
    found = MigrationContext.configure(connection).get_current_heads()
    if not found:
        return None
    if len(found) > 1 or not re.fullmatch("[0-9]{4}", str(found[0])):
        raise ConfigurationError(
            f"The table alembic_version in this database is another program's (its revision is "
            f"{', '.join(map(str, found))}). {ANOTHER_PLACE}"
        )
    return found[0]


@cache
def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}
