"""The application of a worker of `serve`, which has told already what there is to say of the settings."""

from __future__ import annotations

from starlette.applications import Starlette

from identity_graphql.app import create_alone
from identity_graphql.observability import configure
from identity_graphql.server.parent_watch import stop_with_parent
from identity_graphql.settings import Settings


def create() -> Starlette:
    """Returns the application. Stops the process when the one that started it is gone."""
    settings = Settings.load()
    configure(level=settings.log_level, form=settings.log_format)
    stop_with_parent()
    return create_alone(settings)
