"""Puts the rooms together: settings in, an ASGI application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from identity_graphql import pages, rest
from identity_graphql.domain.identifiers import Normalisation
from identity_graphql.graphql.schema import build_schema
from identity_graphql.graphql.view import GraphQLEndpoint
from identity_graphql.observability import RequestId, configure, log
from identity_graphql.service import IdentityService
from identity_graphql.settings import Settings
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import DEFAULT_WAIT, Pool


def open_storage(settings: Settings) -> Storage:
    """The database that the settings name."""
    address = Address.parse(settings.database_url.get_secret_value())
    for name in address.ignored:
        log.warning("database_url.ignored", parameter=name)
    pool = Pool(
        size=address.pool_size or settings.pool_size,
        timeout=DEFAULT_WAIT if address.pool_timeout is None else address.pool_timeout,
        isolation_level=settings.isolation_level,
    )
    return Storage.open(address, pool)


async def migrate(settings: Settings, *, reset: bool = False) -> None:
    """Bring the database to this program's revision; with ``reset``, empty it first."""
    storage = open_storage(settings)
    try:
        await storage.migrate(reset=reset)
    finally:
        await storage.close()


def create_app(settings: Settings) -> Starlette:
    """The application. Opens the database when it starts, and closes it when it stops."""
    storage = open_storage(settings)
    service = IdentityService(
        storage, Normalisation(settings.default_region), timeout=settings.request_timeout
    )
    contract = rest.CONTRACTS[settings.rest_contract.value]
    draining = False

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        nonlocal draining
        if settings.auto_migrate:
            await storage.migrate()
        if not settings.accept_normalisation_change:
            await service.check_normalisation()
        yield
        draining = True
        await storage.close()

    middleware = [Middleware(RequestId)]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Content-Type", "X-Request-Id"],
                expose_headers=["X-Request-Id", "X-Identity-Warnings", "Retry-After"],
            )
        )
    return Starlette(
        routes=[
            *rest.routes(service, contract, lambda: draining),
            *pages.routes(contract),
            Route("/graphql", GraphQLEndpoint(build_schema(), service)),
        ],
        middleware=middleware,
        exception_handlers={**rest.EXCEPTION_HANDLERS, Exception: rest.on_unexpected},
        lifespan=lifespan,
    )


def create() -> Starlette:
    """For `uvicorn --factory identity_graphql.app:create`: settings from the environment."""
    settings = Settings.load()
    configure(level=settings.log_level, form=settings.log_format)
    return create_app(settings)
