"""Bring a database to this program's revision, under a lock; tell which revision it has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.errors import ConfigurationError, Conflict, DatabaseAway
from identity_graphql.storage.address import Address, Backend


def configuration() -> Config:
    """Alembic's settings: the scripts inside the installed package, or the folder `alembic/` of a checkout."""
    packaged = Path(str(files("identity_graphql"))) / "migrations"
    scripts = packaged if packaged.is_dir() else packaged.parent.parent / "alembic"
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config


def upgrade(connection: sa.Connection, *, reset: bool = False) -> None:
    """Apply what is missing; with ``reset``, drop everything first. A newer program's database stays as it is."""
    config = configuration()
    config.attributes["connection"] = connection
    found = _ours(MigrationContext.configure(connection).get_current_revision())
    if found is not None and found not in _known():
        if reset:
            raise ConfigurationError(
                f"A newer version of this program made this database (its revision is {found}); reset it with that one."
            )
        return
    if reset:
        config.attributes["reset"] = True  # nothing is to be kept, so nothing is refused
        command.downgrade(config, "base")
    command.upgrade(config, "head")


@cache
def head() -> str:
    """This program's revision."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None, "there is a first migration"
    return revision


async def revision(connection: AsyncConnection) -> str | None:
    """The database's revision; None if it was never migrated. Raises ConfigurationError if it is another program's."""
    return _ours(await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision()))


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


def _ours(found: str | None) -> str | None:
    """The revision, unless another program that uses Alembic made it: ours are numbers of four digits."""
    if found is not None and not re.fullmatch("[0-9]{4}", found):
        raise ConfigurationError(
            f"The table alembic_version in this database is another program's (its revision is {found}): use another "
            "database or, on PostgreSQL, a schema of its own, with ?schema=identity at the end of DATABASE_URL."
        )
    return found


@cache
def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """At start, where a person waits: what is wrong with the database, in one sentence with the database's own words.

    Only there: no customer's data is involved yet, so that none can be in those words.
    """
    try:
        yield
    except Conflict:
        raise ConfigurationError(f"The database {address} is in use by something that locks it; try again.") from None
    except (DatabaseAway, sa.exc.DBAPIError) as error:
        cause = error.__cause__ or error
        origin = getattr(cause, "orig", None) or cause
        told = _words_of(origin) or "it does not answer"
        if address.backend is Backend.SQLITE:
            advice = "The file must be a database, in a folder that exists and that this user may write to."
        elif isinstance(error, DatabaseAway):
            advice = "Is it running, and is DATABASE_URL right?"
        else:
            advice = "Check DATABASE_URL, what its user may do, and that nobody else's tables are there."
    else:
        return
    # Outside of the handler: what was caught may hold more than is to be shown.
    raise ConfigurationError(f"The database {address} cannot be used: {told}. {advice}")


def _words_of(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)  # its own text is asyncio's: "Connect call failed"
    coded = len(error.args) == 2 and isinstance(error.args[0], int)
    return str(error.args[1] if coded else error).strip().partition("\n")[0].rstrip(".")
