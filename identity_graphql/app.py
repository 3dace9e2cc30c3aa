"""Puts the rooms together: settings in, an ASGI application out."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from identity_graphql.api import pages, rest
from identity_graphql.api.graphql.context import Context
from identity_graphql.api.graphql.schema import build_schema
from identity_graphql.api.graphql.view import GraphQLEndpoint
from identity_graphql.domain.identifiers import Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.simulation import Outlook, Rules
from identity_graphql.errors import ConfigurationError, InvalidInput
from identity_graphql.observability import RequestId, configure, log
from identity_graphql.services import simulation as simulation_service
from identity_graphql.services import verification
from identity_graphql.services.finding import FindingService
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.services.verification import Progress, Report, Tell
from identity_graphql.settings import Settings
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address, Backend
from identity_graphql.storage.dialect import DEFAULT_WAIT, Pool
from identity_graphql.storage.migrations import Migrated
from identity_graphql.storage.start_errors import explained


def address_of(settings: Settings) -> Address:
    """Where the data is. Printed without the password."""
    return Address.parse(settings.database_url.get_secret_value())


def open_storage(settings: Settings) -> Storage:
    """The database that the settings name."""
    address = address_of(settings)
    pool = Pool(
        size=address.pool_size or settings.pool_size,
        timeout=DEFAULT_WAIT if address.pool_timeout is None else address.pool_timeout,
        isolation_level=settings.isolation_level,
        statement_timeout=settings.request_timeout,  # nobody waits any longer for what it does
    )
    return Storage.open(address, pool)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Storage]:
    """The database for a while, at start: what is wrong with it is told in one sentence."""
    storage = open_storage(settings)
    try:
        with explained(address_of(settings)):
            yield storage
    finally:
        await storage.close()


async def migrate(settings: Settings, *, reset: bool = False) -> Migrated:
    """Bring the database to this program's revision; with ``reset``, empty it first. Raises ConfigurationError."""
    async with _opened(settings) as storage:
        await storage.check_encoding()
        return await storage.migrate(reset=reset)


async def verify(settings: Settings, tell: Tell, progress: Progress | None = None) -> Report:
    """Compare the tables with the log (`verification.verify`). Raises ConfigurationError where that cannot be done."""
    await _check_database(settings)
    storage = open_storage(settings)
    _keep_what_is_loaded()
    try:
        return await verification.verify(storage, tell, progress)
    finally:
        await storage.close()


async def simulate(
    settings: Settings, blocked: Sequence[tuple[str, str]], *, examples: int, progress: Progress | None = None
) -> Outlook:
    """What the log would have come to under these settings, with these values blocked. Raises ConfigurationError."""
    normalisation = _normalisation(settings)
    try:
        found = [normalisation.identifier(kind, value) for kind, value in blocked]
    except InvalidInput as error:
        raise ConfigurationError(f"--block: {error}") from None
    if None in found:
        raise ConfigurationError("--block: one of the values counts as not given anyway.")
    await _check_database(settings)
    storage = open_storage(settings)
    _keep_what_is_loaded()
    try:
        rules = Rules(normalisation, frozenset(filter(None, found)))
        simulation = await simulation_service.simulate(storage, rules, examples=examples, progress=progress)
    finally:
        await storage.close()
    return simulation.outlook()


async def _check_database(settings: Settings) -> None:
    """Raises ConfigurationError unless the database is there, and of this program's revision."""
    address = address_of(settings)
    if address.backend is Backend.SQLITE and not os.path.exists(address.url.database or ""):  # noqa: ASYNC240
        raise ConfigurationError(f"There is no database {address}: set DATABASE_URL.")  # opening it would make one
    async with _opened(settings) as storage:
        await storage.check_revision()


async def prepare(settings: Settings) -> None:
    """See to what must be so before the first request. Raises ConfigurationError, which says what to do."""
    async with _opened(settings) as storage:
        await _prepare(settings, storage, _service(settings, storage))


async def _prepare(settings: Settings, storage: Storage, service: IdentityService) -> None:
    await storage.check_encoding()
    if not await storage.is_migrated():
        if not settings.auto_migrate:
            log.warning("database.not_migrated", hint="Run `identity-graphql migrate`; until then /ready answers 503.")
            return
        await storage.migrate()
    if not settings.accept_normalisation_change:
        await service.check_normalisation()


def _service(settings: Settings, storage: Storage) -> IdentityService:
    return IdentityService(storage, _normalisation(settings), timeout=settings.request_timeout)


def _normalisation(settings: Settings) -> Normalisation:
    return Normalisation(settings.default_region, Kinds.parse(settings.identifier_kinds))


def create_app(settings: Settings) -> Starlette:
    """The application. Opens the database when it starts, and closes it when it stops."""
    for name in address_of(settings).ignored:
        log.warning("database_url.ignored", parameter=name)
    storage = open_storage(settings)
    service = _service(settings, storage)
    steward = StewardService(storage, service.normalisation, timeout=settings.request_timeout)
    history = HistoryService(storage, timeout=settings.request_timeout)
    finding = FindingService(
        storage,
        service.normalisation.kinds,
        suspicious_size=settings.suspicious_size,
        timeout=settings.request_timeout,
    )
    contract = rest.CONTRACTS[settings.rest_contract.value]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await _prepare(settings, storage, service)
        with _told_to_stop(partial(setattr, app.state, "draining", True)):
            yield
        for room in (service, steward, history, finding, storage):
            await room.close()

    middleware = [Middleware(RequestId)]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST"],
                # Authorization and X-Api-Key mean nothing yet, but a page that sends one is not to fail for it.
                allow_headers=["Authorization", "Content-Type", "X-Api-Key", "X-Request-Id"],
                expose_headers=["Allow", "Retry-After", "X-Identity-Warnings", "X-Request-Id"],
            )
        )
    middleware.append(Middleware(rest.Faults))  # inside CORS, so that a page of another origin can read the 500 too
    graphql = GraphQLEndpoint(build_schema(), partial(Context, service, steward, history, finding))
    app = Starlette(
        routes=_with_a_slash(*rest.routes(service, contract), *pages.routes(contract), Route("/graphql", graphql)),
        middleware=middleware,
        exception_handlers=rest.EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would be made of the Host header, whoever wrote it
    app.state.draining = False
    return app


def _with_a_slash(*routes: Route) -> list[Route]:
    """These routes, each with a slash at the end of its path, too."""
    slashed = [Route(f"{route.path}/", route.endpoint, methods=route.methods) for route in routes if route.path != "/"]
    return [*routes, *slashed]


@contextmanager
def _told_to_stop(note: Callable[[], None]) -> Iterator[None]:
    """Call ``note`` as soon as the server is told to stop, however it was started: /ready then answers 503, while
    requests under way finish."""
    previous: dict[int, Any] = {}

    def told(number: int, frame: FrameType | None) -> None:
        note()
        if callable(handler := previous[number]):
            handler(number, frame)

    if threading.current_thread() is threading.main_thread():  # nobody else is told
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number, handler in previous.items():
            if callable(handler):  # else the server would not stop by it either
                signal.signal(number, told)
    try:
        yield
    finally:
        note()
        for number, handler in previous.items():
            signal.signal(number, handler)


def load_settings(**overrides: object) -> Settings:
    """The settings as they are set here, with overrides that are not None; sets up the logs by them.

    Warns of names that look misspelt. Raises ConfigurationError.
    """
    settings = Settings.load()
    settings = settings.model_copy(update={name: value for name, value in overrides.items() if value is not None})
    configure(level=settings.log_level, form=settings.log_format)
    for name, meant in Settings.misspelt().items():
        log.warning("settings.unknown", name=name, hint=f"There is no such setting; is {meant} meant?")
    return settings


def create() -> Starlette:
    """Returns the application of a process that does nothing else: settings from the environment, logs, memory.

    For `uvicorn --factory identity_graphql.app:create`.
    """
    return create_alone(load_settings())


def create_alone(settings: Settings) -> Starlette:
    """Returns the application of a process that does nothing else."""
    app = create_app(settings)
    _keep_what_is_loaded()
    return app


def _keep_what_is_loaded() -> None:
    """What is loaded by now stays. Left to itself, the collector goes through all of it again and again: it took
    two fifths of the time of a request, and pauses of 70 ms (decision 0012); of `verify`, a quarter."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
