"""Bring a database to this program's revision, under a lock; tell which revision it has."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection


def configuration() -> Config:
    """Alembic's settings: the scripts inside the installed package, or the folder `alembic/` of a checkout."""
    packaged = Path(str(files("identity_graphql"))) / "migrations"
    scripts = packaged if packaged.is_dir() else packaged.parent.parent / "alembic"
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config


def upgrade(connection: sa.Connection, *, reset: bool = False) -> None:
    """Apply what is missing; with ``reset``, drop everything first."""
    config = configuration()
    config.attributes["connection"] = connection
    if reset:
        command.downgrade(config, "base")
    command.upgrade(config, "head")


def head() -> str:
    """This program's revision."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None, "there is a first migration"
    return revision


async def revision(connection: AsyncConnection) -> str | None:
    """The database's revision; None if it was never migrated."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def is_older(found: str | None) -> bool:
    """Whether a database with this revision lacks something. An unknown revision is a newer program's."""
    if found is None:
        return True
    known = {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}
    return found in known and found != head()
