"""A trial: whether the database does all that a request asks of it, without anything left of it."""

from __future__ import annotations

import secrets

from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Details, Identifier
from identity_graphql.domain.reconcile import Request, reconcile
from identity_graphql.storage.attempt import Attempt
from identity_graphql.storage.dialect import Dialect


async def try_to_write(dialect: Dialect, connection: AsyncConnection) -> None:
    """Writes a customer whom nobody can be, as `identify` would, and takes it back; in a transaction that is committed.

    Only that tells that a disk has room again, or that a permission is back: each table says so for itself. A commit,
    as SQLite asks for room only then, for all that was touched, taken back or not. PostgreSQL and MySQL do not take
    back the id and the event number that were drawn.
    """
    # As long as any, so that there is room for others as well; no email is without an @.
    nobody = Identifier(EMAIL, secrets.token_hex(127)), Identifier(PHONE_NUMBER, secrets.token_hex(32))
    details = Details(nobody, raw={})
    async with connection.begin_nested() as savepoint:
        attempt = Attempt.on(dialect, connection)
        found = await attempt.find(details.identifiers, details.pairs)
        await attempt.apply(reconcile([Request(details, norm="")], found))
        await savepoint.rollback()
