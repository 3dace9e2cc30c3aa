"""The program: `serve`, `migrate`, `verify`, `schema`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from identity_graphql import __version__, server
from identity_graphql.api.graphql.schema import build_schema
from identity_graphql.app import address_of, load_settings
from identity_graphql.app import migrate as migrate_database
from identity_graphql.app import verify as verify_database
from identity_graphql.domain.verify import Difference
from identity_graphql.errors import ConfigurationError, IdentityError
from identity_graphql.observability import describe, log
from identity_graphql.settings import Settings
from identity_graphql.storage.migrations import Migrated

# "\b" keeps the lines that follow it as they are.
HELP = """Online identity reconciliation: which customer is this?

\b
identity-graphql serve            try it: http://localhost:8000, the data in ./identity.db
identity-graphql serve --help     examples, and every setting

Settings come from the environment, or else from the file .env in the working directory."""

SERVE = """Migrate the database (unless AUTO_MIGRATE=false), then serve GraphQL and REST.

\b
identity-graphql serve
identity-graphql serve --port 8001 --reload
DATABASE_URL=postgresql://user:password@db/identity HOST=0.0.0.0 identity-graphql serve --workers 4

\b
curl localhost:8000/identify -H 'Content-Type: application/json' \\
     -d '{"email": "ann@example.com", "phoneNumber": "123456"}'

SIGTERM and Ctrl-C let requests under way finish, SIGHUP replaces the workers one by one. Several servers may share
one database, except on SQLite."""

MIGRATE = """Bring the database to this program's revision.

\b
identity-graphql migrate
DATABASE_URL=postgresql://user:password@db/identity identity-graphql migrate
identity-graphql migrate --reset --yes      empty it, without a question

Safe to run beside a server, and by several at once. `serve` does it by itself, unless AUTO_MIGRATE=false: then
this is how to do it beforehand, with a DATABASE_URL whose user may create tables."""

VERIFY = """Rebuild the tables from the log alone, and compare them row by row. Changes nothing.

\b
identity-graphql verify
DATABASE_URL=postgresql://user:password@db/identity identity-graphql verify && echo as it must be

Prints every difference, one on a line; then how much there is, and a hash of the state. Two databases with the same
hash are in the same state, whatever their kind. Rows go by the numbers of contacts and events: no email or phone number
is printed. All of it is of one moment, so a server may go on working beside it.

Exits with 0 if there is no difference, 1 if there are some, 2 if it could not be found out."""

SCHEMA = """Print the GraphQL schema (SDL), for code generators and reviews. Needs no database.

\b
identity-graphql schema > schema.graphql"""


def _settings_help() -> str:
    """Every setting: name, what it does, default."""
    lines = []
    for name, field in Settings.model_fields.items():
        text = (field.description or "").replace("`", "")
        if default := written(field.get_default()):
            text += f" [default: {default}]"
        lines += [name.upper(), *textwrap.wrap(text, 76, initial_indent="  ", subsequent_indent="  ")]
    return "\b\nSettings:\n" + "\n".join(lines)


def written(value: object) -> str:
    """A setting's value as one writes it in the environment; empty for none."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback may show the values of local variables
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """An error that a person can mend is told in one sentence, without a traceback."""
    try:
        yield
    except (ConfigurationError, IdentityError) as error:
        typer.secho(f"identity-graphql: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


@app.command(help=SERVE, epilog=_settings_help())
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on, instead of HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port, instead of PORT; 0 takes a free one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Server processes, instead of WORKERS; default: the cores.")
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when the program's code changes. One worker.")
    ] = False,
) -> None:
    server.exit_when_told()
    with _explained():
        settings = load_settings(host=host, port=port, workers=workers)
        raise typer.Exit(server.serve(settings, announce=_announce, reload=reload))


@app.command(help=MIGRATE)
def migrate(
    reset: Annotated[bool, typer.Option("--reset", help="Empty the database first. Asks before it does.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    with _explained():
        settings = load_settings()
        if reset and not yes and not _confirmed(settings):
            typer.echo("Nothing was changed.", err=True)
            raise typer.Exit(1)
        migrated = asyncio.run(migrate_database(settings, reset=reset))
        typer.echo("The database is empty and up to date." if reset else _told(migrated))


@app.command(help=VERIFY)
def verify() -> None:
    with _explained():
        settings = load_settings()
        try:
            with _bar() as bar:
                report = asyncio.run(verify_database(settings, bar.tell, bar.progress))
        except (ConfigurationError, IdentityError):
            raise
        except Exception as error:  # it must not look like a difference, and its text may hold anything
            log.error("verify.failed", **describe(error))
            raise ConfigurationError("The verification failed, which says nothing about the data.") from None
    found = report.differences
    typer.echo(f"{found:,} {'difference' if found == 1 else 'differences'}" if found else "no difference")
    for name in ("events", "contacts", "clusters", "pairs"):
        typer.echo(f"{'live pairs' if name == 'pairs' else name:<12}{getattr(report, name):>14,}")
    typer.echo(f"{'seconds':<12}{report.seconds:>14.1f}")
    typer.echo(f"{'state hash':<14}{report.state_hash}")
    raise typer.Exit(1 if found else 0)


@app.command(help=SCHEMA)
def schema() -> None:
    typer.echo(build_schema().as_str())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"identity-graphql {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


class Bar:
    """How far a long work is, drawn on stderr where that is a terminal; and the lines that it prints meanwhile."""

    def __init__(self, drawn: Any) -> None:
        self._drawn = drawn

    def progress(self, done: int, total: int) -> None:
        if self._drawn is not None:
            self._drawn.length = total
            self._drawn.update(done - self._drawn.pos)

    def tell(self, difference: Difference) -> None:
        if self._drawn is not None:
            typer.echo("\r\x1b[2K", nl=False, err=True)  # the bar, which is drawn again
        typer.echo(str(difference))


@contextlib.contextmanager
def _bar() -> Iterator[Bar]:
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    with typer.progressbar(length=1, label="Verifying", file=sys.stderr) as drawn:
        yield Bar(drawn)


def _confirmed(settings: Settings) -> bool:
    """Whether somebody is there and says yes."""
    question = f"This deletes every contact and the whole log of {address_of(settings)}. Go on?"
    try:
        return typer.confirm(question)
    except typer.Abort:
        return False


def _told(migrated: Migrated) -> str:
    """What a migration has done."""
    if migrated.before is None:
        return f"The tables were made: the database is up to date, at revision {migrated.after}."
    if migrated.before != migrated.after:
        return f"The database was migrated from revision {migrated.before} to {migrated.after}."
    return f"Nothing to do: the database is up to date, at revision {migrated.after}."


def _announce(settings: Settings, port: int) -> None:
    """Tell a person where the server is."""
    local = settings.host in ("127.0.0.1", "0.0.0.0", "::", "::1", "localhost")
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    at = f"http://{'localhost' if local else name}:{port}"
    typer.echo(
        f"identity_graphql {__version__}, the data in {address_of(settings)}\n"
        f"  GraphiQL  {at}/graphql\n"
        f"  REST      POST {at}/identify\n"
        f"  Docs      {at}/docs\n"
        f"  Health    {at}/health"
    )
