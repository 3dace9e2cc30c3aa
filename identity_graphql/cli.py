"""The program: `serve`, `migrate`, `schema`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Annotated

import typer
import uvicorn

from identity_graphql import __version__
from identity_graphql.app import create_app, migrate as migrate_database
from identity_graphql.errors import ConfigurationError, IdentityError
from identity_graphql.graphql.schema import build_schema
from identity_graphql.observability import configure
from identity_graphql.settings import Settings

app = typer.Typer(
    help="Online identity reconciliation: which customer is this?\n\n"
    "Settings come from the environment or from .env; the README lists them. "
    "Without any, the data is in ./identity.db and the server on http://localhost:8000.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback may show the values of local variables
    rich_markup_mode=None,
)

GRACE = 25
"""Seconds that requests under way get to finish when the server is told to stop."""


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """An error that a person can mend is told in one sentence, without a traceback."""
    try:
        yield
    except (ConfigurationError, IdentityError) as error:
        typer.secho(f"identity-graphql: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


def _settings(**overrides: object) -> Settings:
    settings = Settings.load()
    settings = settings.model_copy(
        update={name: value for name, value in overrides.items() if value is not None}
    )
    configure(level=settings.log_level, form=settings.log_format)
    return settings


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on [default: HOST, or 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The port; 0 takes a free one [default: PORT, or 8000]")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start again when the code changes.")] = False,
) -> None:
    """Migrate the database (unless AUTO_MIGRATE=false) and serve GraphQL and REST."""
    with _explained():
        settings = _settings(host=host, port=port)
        config = uvicorn.Config(
            "identity_graphql.app:create" if reload else create_app(settings),
            factory=reload,
            host=settings.host,
            port=settings.port,
            reload=reload,
            http="httptools",
            access_log=False,  # it would log query strings; the program logs its own line
            log_level=settings.log_level.lower(),
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE,
        )
        with _listening(settings) as listener:
            _announce(settings, listener)
            if reload:
                from uvicorn.supervisors import ChangeReload  # noqa: PLC0415 - only for development

                ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()
                return
            server = uvicorn.Server(config)
            server.run(sockets=[listener])
        if not server.started:
            raise typer.Exit(3)


@app.command()
def migrate(
    reset: Annotated[
        bool, typer.Option("--reset", help="Empty the database first. Asks before it does.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Bring the database to this program's revision. Safe to run beside a server, and by several at once."""
    with _explained():
        settings = _settings()
        if reset and not yes:
            typer.confirm("This deletes every contact and the whole log of this database. Go on?", abort=True)
        asyncio.run(migrate_database(settings, reset=reset))
        typer.echo("The database is empty and up to date." if reset else "The database is up to date.")


@app.command()
def schema() -> None:
    """Print the GraphQL schema: what `schema.graphql` holds."""
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


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, opened before anything is announced, so that what is announced is true."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {settings.host}, port {settings.port}: {error.strerror}. "
                "Another program may have it; choose one with --port or PORT."
            ) from None
        listener.set_inheritable(True)
        yield listener


def _announce(settings: Settings, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    local = settings.host in ("127.0.0.1", "0.0.0.0", "::", "::1", "localhost")
    at = f"http://{'localhost' if local else settings.host}:{port}"
    typer.echo(
        f"identity_graphql {__version__}\n"
        f"  GraphiQL  {at}/graphql\n"
        f"  REST      POST {at}/identify\n"
        f"  Docs      {at}/docs\n"
        f"  Health    {at}/health"
    )
