"""One attempt at a batch of requests: find what is known, and apply what was decided from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.reconcile import Found, Numbers, Plan
from identity_graphql.domain.state import Bond, Pair
from identity_graphql.errors import Conflict
from identity_graphql.storage import statements
from identity_graphql.storage.dialect import Dialect

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


class Attempt:
    """`find`, and `apply` what was decided from it.

    An optimistic one reads on one connection, without a transaction, and writes in a transaction of its own if there
    is something to write. One that has queued (``locked``: the primaries whose rows it holds) does all of it in the
    transaction that holds the locks.
    """

    def __init__(
        self, dialect: Dialect, *, reading: Connect, writing: Connect, locked: Collection[int] | None = None
    ) -> None:
        self._dialect = dialect
        self._reading = reading
        self._writing = writing
        self._locked = locked
        self.wrote = False

    @classmethod
    def on(cls, dialect: Dialect, connection: AsyncConnection, locked: Collection[int] | None = None) -> Self:
        """Returns an attempt that reads and writes on this connection."""
        return cls(
            dialect,
            reading=lambda: nullcontext(connection),
            writing=lambda: nullcontext(connection),
            locked=locked,
        )

    async def find(self, identifiers: Collection[Identifier], pairs: Collection[Pair]) -> Found:
        """Returns every cluster that has one of the identifiers, those of the pairs that were seen, and the time."""
        async with self._reading() as connection:
            return await find(connection, identifiers, pairs)

    async def bans(self, primary_ids: Collection[int]) -> frozenset[Bond]:
        """Returns the contacts of these clusters that are banned from each other.

        Not part of `find`, as it matters only where clusters are to be joined. Looked up later than that, it is still
        right: whoever bans, or lifts a ban, changes the versions of both clusters.
        """
        async with self._reading() as connection:
            rows = await connection.execute(statements.BANS, {"primary_ids": statements.padded(sorted(primary_ids), 0)})
            return frozenset((row[0], row[1]) for row in rows)

    async def apply(self, plan: Plan) -> Numbers:
        """Writes a plan. Returns the ids of its new contacts and the numbers of its events.

        Raises Conflict, with nothing written, if anything it was decided from is no longer so.
        """
        if self._locked is not None and not {swap.primary_id for swap in plan.swaps}.issubset(self._locked):
            raise Conflict("a primary that this attempt did not queue for")
        async with self._writing() as connection:
            numbers = await self._dialect.write(connection, plan)
        self.wrote = True
        return numbers


async def find(connection: AsyncConnection, identifiers: Collection[Identifier], pairs: Collection[Pair]) -> Found:
    """Returns what is known of these identifiers and pairs."""
    sought = statements.sought(identifiers, pairs)
    if statements.are_plain(identifiers, pairs):
        found = statements.found_from_rows(await connection.execute(statements.FIND, sought))
        if not any(contact.others for cluster in found.clusters for contact in cluster.contacts):
            return found
    kinds = sum(name.startswith("kind") for name in sought)
    return statements.found_from_rows(await connection.execute(statements.find_all(kinds), sought))
