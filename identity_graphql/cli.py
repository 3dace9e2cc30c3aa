"""The program: `serve`, `migrate`, `verify`, `simulate`, `schema`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer
from pydantic import SecretStr

from identity_graphql import __version__, server
from identity_graphql.api.graphql.schema import build_schema
from identity_graphql.app import address_of, load_settings
from identity_graphql.app import migrate as migrate_database
from identity_graphql.app import simulate as simulate_rules
from identity_graphql.app import verify as verify_database
from identity_graphql.domain.simulation import Outlook
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

SIMULATE = """Try other rules on what the log has: who would be joined, and who would fall apart? Changes nothing.

\b
identity-graphql simulate --default-region IN
identity-graphql simulate --identifier-kinds '{"customer_id": {"limit": 1, "on_limit": "withhold"}}'
identity-graphql simulate --block phone_number:9999999999 --block email:info@shop.example
identity-graphql simulate --default-region '' --json --examples 1000 > outlook.json

Reads again what every request of the log gave, as it was typed, under the settings in force but for what an option
changes, and judges it again in the same order. Compares that with what the same requests came to under the rules of
their time. What stewards did is left out of both. A customer is named by the id of its oldest contact: no email or
phone number is printed. All is of one moment, so a server may go on working beside it.

The log has what taught something. Requests that taught nothing when they came, or were refused, cannot be read again.

Exits with 0 when it is done, whatever it found, and with 2 if it could not be done."""

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


@contextlib.contextmanager
def _failing_as(command: str, sentence: str) -> Iterator[None]:
    """A fault of the program is told in this sentence: it must not look like a result, and its text may hold
    anything."""
    try:
        yield
    except (ConfigurationError, IdentityError):
        raise
    except Exception as error:
        log.error(f"{command}.failed", **describe(error))
        raise ConfigurationError(sentence) from None


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
        with _failing_as("verify", "The verification failed, which says nothing about the data."), _bar() as bar:
            report = asyncio.run(verify_database(settings, bar.tell, bar.progress))
    found = report.differences
    typer.echo(f"{found:,} {'difference' if found == 1 else 'differences'}" if found else "no difference")
    for name in ("events", "contacts", "clusters", "pairs"):
        typer.echo(f"{'live pairs' if name == 'pairs' else name:<12}{getattr(report, name):>14,}")
    typer.echo(f"{'seconds':<12}{report.seconds:>14.1f}")
    typer.echo(f"{'state hash':<14}{report.state_hash}")
    raise typer.Exit(1 if found else 0)


@app.command(help=SIMULATE)
def simulate(
    default_region: Annotated[
        str | None, typer.Option(help="Instead of DEFAULT_REGION; '' for numbers as they are given.")
    ] = None,
    identifier_kinds: Annotated[str | None, typer.Option(help="Instead of IDENTIFIER_KINDS: all of it.")] = None,
    block: Annotated[
        list[str] | None, typer.Option(metavar="KIND:VALUE", help="A value that would count as not given. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    examples: Annotated[int, typer.Option(min=0, max=100_000, help="How many of each kind to tell.")] = 10,
) -> None:
    with _explained():
        settings = load_settings(default_region=default_region, identifier_kinds=identifier_kinds)
        if not settings.default_region:
            settings = settings.model_copy(update={"default_region": None})
        blocked = [_kind_and_value(text) for text in block or ()]
        with _failing_as("simulate", "The simulation failed; nothing was changed."), _bar("Simulating") as bar:
            found = asyncio.run(simulate_rules(settings, blocked, examples=examples, progress=bar.progress))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        for line in _lines(found):
            typer.echo(line)


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
def _bar(label: str = "Verifying") -> Iterator[Bar]:
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    with typer.progressbar(length=1, label=label, file=sys.stderr) as drawn:
        yield Bar(drawn)


def _kind_and_value(text: str) -> tuple[str, str]:
    """What an option --block names."""
    kind, colon, value = text.partition(":")
    if not colon:
        raise ConfigurationError("--block must be a kind and a value, such as phone_number:9999999999.")
    return kind, value


def _lines(found: Outlook) -> Iterator[str]:
    """What a simulation found, for people."""
    yield f"{'':<32}{'now':>12}{'then':>12}"
    for name, both in {
        "customers": (found.now.customers, found.then.customers),
        "contacts": (found.now.contacts, found.then.contacts),
        "contacts of the largest": (max(found.now.largest, default=0), max(found.then.largest, default=0)),
        "requests withheld by a limit": (found.now.withheld, found.then.withheld),
        "requests that exceeded a limit": (found.now.over_limit, found.then.over_limit),
    }.items():
        yield f"{name:<32}{both[0]:>12,}{both[1]:>12,}"
    for name, count in {
        "customers joined with others": found.joined,
        "customers fallen apart": found.fallen_apart,
        "requests refused": found.refused,
        "requests with an ignored value": found.ignored,
        "requests with a blocked value": found.blocked,
        "requests in all": found.requests,
        "stewards' verbs, left out": found.verbs,
    }.items():
        yield f"{name:<44}{count:>12,}"
    examples = [
        *map(str, found.joined_examples),
        *map(str, found.fallen_apart_examples),
        *map(str, found.refused_examples),
        *(f"event {seq} would be withheld by a limit" for seq in found.withheld_examples),
        *(f"event {seq} would raise a count above its limit" for seq in found.over_limit_examples),
    ]
    yield from examples
    if found.is_the_same:
        yield "nobody would be another customer"


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
