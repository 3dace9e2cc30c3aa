"""What can be done, in the words of the field. Both edges call this, and nothing below knows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from msgspec.structs import replace

from identity_graphql.domain.contacts import LARGEST_ID, Cluster, Contact, gone
from identity_graphql.domain.events import PROVISIONAL_SEQ, Outcome
from identity_graphql.domain.identifiers import Given, Identifier, Normalisation
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.reconcile import Decision, Numbers, Plan, Request, counting, reconcile
from identity_graphql.domain.state import Node, Pair
from identity_graphql.errors import (
    Busy,
    ConfigurationError,
    IdentityError,
    InvalidInput,
    NotFound,
    Problem,
    Unexpected,
)
from identity_graphql.observability import describe, log, request_id
from identity_graphql.services.group_commit import GroupCommit, QueueFull
from identity_graphql.services.retry import CONFLICT_DEADLINE, Deadline
from identity_graphql.storage import Storage
from identity_graphql.storage.attempt import Attempt

T = TypeVar("T")
Result = Decision | IdentityError

LARGEST_BATCH = 1000
LARGEST_GROUP = 128
"""Requests of several callers that share a transaction at most."""
MOST_WAITING = 5_000
"""Requests that may wait for a batch; beyond it they are refused at once: Busy."""
MOST_FAILURES = 3
"""Requests of a failed batch that are tried by themselves, if none of them goes through."""
CLOCK_SKEW = timedelta(minutes=5)
"""By how much a sender's clock may be ahead: what was true a little later than now is true now."""
EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
"""The first moment that every database can keep: what is before it stands for none, in PostgreSQL's driver too."""
LONGEST_CHECK = 2.0
"""Seconds within which the database has to answer to be ready."""


class IdentityService:
    """Answers which customer a request is from, and learns from it.

    Every call is answered within ``timeout`` seconds, or raises Busy.
    """

    def __init__(self, storage: Storage, normalisation: Normalisation, *, timeout: float = 10.0) -> None:
        self._storage = storage
        self.normalisation = normalisation
        self._timeout = timeout
        self._deadline = Deadline(timeout, storage.outage)
        self._rule_set_is_kept = not normalisation.kinds.version
        self._batches = GroupCommit[Request, Result](
            self._run_batch, largest_batch=LARGEST_GROUP, most_waiting=MOST_WAITING, longest_wait=timeout / 2
        )

    async def close(self) -> None:
        """Finish what is in flight. The storage may be closed afterwards."""
        await self._batches.drain()
        await self._deadline.close()

    async def identify(self, given: Given) -> Decision:
        """Link the identifiers of one customer to their cluster; the cluster as it is then.

        Raises InvalidInput (nothing changed), Busy (nothing half-written; repeating it is safe).
        """
        (result,) = await self._results_of([self._request(given)])
        if isinstance(result, IdentityError):
            raise result
        return result

    async def preview(self, given: Given) -> Decision:
        """What `identify` would decide now. Writes nothing; what it would create has provisional numbers."""
        (result,) = await self._previews_of([self._request(given)])
        if isinstance(result, IdentityError):
            raise result
        return result

    async def look_up(self, given: Given) -> Decision:
        """Returns what `identify` answers to those of whom it learns nothing: `UNCHANGED`. Writes nothing.

        An identifier that nobody has does not matter beside one that somebody has. Raises NotFound where nobody has
        any, InvalidInput also where they are of several clusters, and Busy.
        """
        request = self._request(given)
        found = await self._deadline.retrying(lambda: self._storage.find(request.details.identifiers))
        counted = counting(request, found)
        if counted is None:
            raise self.normalisation.none_given
        clusters = found.clusters
        if counted is not request:
            clusters = tuple(cluster for cluster in clusters if cluster.has_any(counted.details.identifiers))
        if not clusters:
            raise NotFound("Nobody has any of these identifiers.")
        if len(clusters) > 1:
            primaries = ", ".join(map(str, sorted(cluster.primary.id for cluster in clusters)))
            message = f"The identifiers belong to several clusters (contacts {primaries}); look them up one at a time"
            raise InvalidInput(Problem("root", message))
        return Decision(counted, Outcome.UNCHANGED, clusters[0])

    async def identify_many(self, items: Sequence[Given], *, dry_run: bool = False) -> list[Decision | IdentityError]:
        """`identify` for each of these, in order, in one batch. An item that fails does so alone.

        With ``dry_run``, `preview`: each sees what those before it would have done.
        """
        if not 1 <= len(items) <= LARGEST_BATCH:
            raise InvalidInput(
                Problem("items", f"items must be 1 to {LARGEST_BATCH:,}; send what is more in several requests.")
            )
        results: dict[int, Decision | IdentityError] = {}
        requests: dict[int, Request] = {}
        for position, given in enumerate(items):
            try:
                requests[position] = self._request(given)
            except InvalidInput as error:
                results[position] = error
        if requests:
            decide = self._previews_of if dry_run else self._results_of
            results.update(zip(requests, await decide(list(requests.values())), strict=True))
        return [results[position] for position in range(len(items))]

    async def cluster(self, subject: Node) -> Cluster | None:
        """The cluster of a contact or an identifier; None if nobody has it. Writes nothing.

        Raises Gone for a contact that was deleted.
        """
        if isinstance(subject, int):
            return await self._cluster_of(subject)
        found = await self._deadline.retrying(lambda: self._storage.find([subject]))
        return found.clusters[0] if found.clusters else None

    async def contacts(self, ids: Sequence[int]) -> list[Contact | None]:
        """These contacts, deleted ones too; None for an id that was never given out."""
        possible = {i for i in ids if 0 < i <= LARGEST_ID}
        found = await self._deadline.retrying(lambda: self._storage.contacts(possible))
        return [found.get(i) for i in ids]

    async def clusters_of(self, contact_ids: Sequence[int]) -> list[Cluster | None]:
        """The present clusters of these contacts; None for deleted and unknown ones."""
        possible = {i for i in contact_ids if 0 < i <= LARGEST_ID}
        found = await self._deadline.retrying(lambda: self._storage.clusters_of(possible))
        return [found.get(i) for i in contact_ids]

    async def holders(self, identifiers: Sequence[Identifier]) -> list[Cluster | None]:
        """The clusters that have these identifiers; None for those that nobody has."""
        found = await self._deadline.retrying(lambda: self._storage.find(set(identifiers)))
        homes = {
            claim: cluster for cluster in found.clusters for contact in cluster.contacts for claim in contact.claims
        }
        return [homes.get(identifier) for identifier in identifiers]

    async def page_of_contacts(self, *, after: int, limit: int) -> list[Contact]:
        """Live contacts by id, from the first id above ``after``."""
        return await self._deadline.retrying(lambda: self._storage.page_of_contacts(after=after, limit=limit))

    async def page_of_clusters(self, *, after: int, limit: int) -> list[Cluster]:
        """Clusters by primary id, from the first id above ``after``."""
        return await self._deadline.retrying(lambda: self._storage.page_of_clusters(after=after, limit=limit))

    async def check_ready(self) -> None:
        """Raises Busy, whatever it is, unless the database can be read and written to and has this program's revision
        or a newer one."""
        try:
            await self._deadline.retrying(self._storage.check_ready, at_most=min(LONGEST_CHECK, self._timeout))
        except Busy:
            raise
        except Exception as error:
            log.error("ready.failed", request_id=request_id.get(), **describe(error))
            raise Busy("a fault of the program") from None

    async def check_normalisation(self) -> None:
        """Refuse to go on where the log was written under other rules: two rules make doubles silently."""
        newest, ours = await self._storage.newest_norm(), self.normalisation.version
        if newest is not None and newest != ours and await self._is_read_otherwise(newest):
            raise ConfigurationError(
                f"The newest event in this database was written under normalisation {newest}, this program is set to "
                f"{ours}. {self.normalisation.changes_since(newest)} A customer who is stored under another reading of "
                f"the same text is not found by it, and would silently be stored twice. If the change is meant, set "
                f"ACCEPT_NORMALISATION_CHANGE=true: what is stored stays as it is."
            )

    async def _is_read_otherwise(self, norm: str) -> bool:
        """Whether values of the log could read differently now. Other limits and other kinds do not matter."""
        rules, _, kinds = norm.partition(".")
        if rules != self.normalisation.version.partition(".")[0]:
            return True
        document = (await self._storage.rule_sets()).get(norm) if kinds else None
        return document is not None and bool(Kinds.parse(document).read_otherwise(self.normalisation.kinds))

    async def _keep_rule_set(self) -> None:
        """Keep the kinds under which requests are decided, before the first of them is written."""
        await self._storage.keep_rule_set(self.normalisation.version, self.normalisation.kinds.document)
        self._rule_set_is_kept = True

    def _request(self, given: Given) -> Request:
        details = self.normalisation.details(given)
        if details.occurred_at is not None and details.occurred_at > datetime.now(UTC) + CLOCK_SKEW:
            raise InvalidInput(Problem("occurredAt", "occurredAt must not be in the future"))
        if details.occurred_at is not None and details.occurred_at < EARLIEST:
            raise InvalidInput(Problem("occurredAt", f"occurredAt must be in the year {EARLIEST.year} or later"))
        return Request(details, self.normalisation.version, request_id.get())

    async def _cluster_of(self, contact_id: int) -> Cluster | None:
        (cluster,) = await self.clusters_of([contact_id])
        if cluster is None:
            (contact,) = await self.contacts([contact_id])
            if contact is not None and contact.deleted_at is not None:
                raise gone(contact)
        return cluster

    async def _previews_of(self, requests: Sequence[Request]) -> Sequence[Result]:
        """What these requests would come to now, in order; what would be written has provisional numbers."""

        async def decide() -> Sequence[Result]:
            async with self._storage.attempt() as attempt:
                plan, counted = await _planned(attempt, requests, self.normalisation.kinds)
            numbers = Numbers({}, range(PROVISIONAL_SEQ, PROVISIONAL_SEQ + len(plan.events)))
            decisions = iter(plan.renumbered(numbers))
            return [next(decisions) if counts else self.normalisation.none_given for counts in counted]

        return await self._deadline.retrying(decide)

    async def _results_of(self, requests: Sequence[Request]) -> Sequence[Result]:
        """What these requests came to, in the batch that they join; Busy for those that are not settled in time."""
        try:
            futures = self._batches.join(requests)
        except QueueFull:
            raise Busy("too many requests are waiting") from None
        timer = asyncio.get_running_loop().call_later(self._timeout, self._give_up, futures, time.monotonic())
        try:
            return [await future for future in futures]
        finally:
            timer.cancel()

    def _give_up(self, futures: Sequence[asyncio.Future[Result]], since: float) -> None:
        waiting = [future for future in futures if not future.done()]
        if waiting:
            late = self._deadline.late(since, self._timeout)
            for future in waiting:
                future.set_result(late)

    async def _run_batch(self, batch: Sequence[Request], futures: Sequence[asyncio.Future[Result]]) -> None:
        """Settle a batch; if the database refuses it, each of its requests alone, so that only the poisoned fails."""
        waiting = dict(zip(futures, batch, strict=True))
        error: IdentityError
        try:
            await self._decide(waiting)
        except IdentityError as expected:
            error = expected
        except Exception as unexpected:
            log.error("batch.failed", size=len(waiting), request_id=batch[0].request_id, **describe(unexpected))
            if len(batch) > 1:
                await self._one_by_one(waiting)
            error = Unexpected(batch[0].request_id)
        for future in list(waiting):
            _answer(waiting, future, error)

    async def _one_by_one(self, waiting: dict[asyncio.Future[Result], Request]) -> None:
        """Each by itself, so that only the poisoned ones fail. Given up where the first few all fail: then it is
        not they that are poisoned. Takes out of ``waiting`` whom it tried."""
        tried: list[asyncio.Future[Result]] = []
        for future, request in list(waiting.items()):
            if not future.done():
                await self._run_batch([request], [future])
            del waiting[future]
            tried.append(future)
            if len(tried) == MOST_FAILURES and all(map(_failed, tried)):
                return

    async def _decide(self, waiting: dict[asyncio.Future[Result], Request]) -> None:
        """Find, decide, apply; and again, in the queue, as long as other writers are faster.

        Takes out of ``waiting`` whom it answers.
        """
        queue: Sequence[int] = ()

        async def settle() -> None:
            nonlocal queue
            async with self._storage.attempt(queue) as attempt:
                plan, counted = await _planned(attempt, list(waiting.values()), self.normalisation.kinds)
                asked = []
                for future, counts in zip(list(waiting), counted, strict=True):
                    if counts:
                        asked.append(future)
                    else:
                        _answer(waiting, future, self.normalisation.none_given)
                for future, decision in zip(asked, plan.decisions, strict=True):
                    if plan.stands(decision):  # a repeat need not wait for those who write
                        _answer(waiting, future, decision)
                if not plan.events:
                    return
                queue = [swap.primary_id for swap in plan.swaps]
                if not self._rule_set_is_kept:
                    return  # to keep it takes a connection of its own, and this attempt may hold the last
                numbers = await attempt.apply(plan)
            for future, decision in zip(asked, plan.renumbered(numbers), strict=True):
                _answer(waiting, future, decision)

        since = time.monotonic()
        try:
            async with asyncio.timeout(CONFLICT_DEADLINE):
                await self._deadline.attempted(settle)
                if waiting and not self._rule_set_is_kept:
                    await self._deadline.attempted(self._keep_rule_set)
                    await self._deadline.attempted(settle)
        except TimeoutError:
            raise self._deadline.late(since, CONFLICT_DEADLINE) from None


async def _planned(attempt: Attempt, requests: Sequence[Request], kinds: Kinds) -> tuple[Plan, Sequence[bool]]:
    """What a batch changes, decided from what is known now; and of each request, whether anything of it counts."""
    found = await attempt.find(*_sought(requests))
    counted = [counting(request, found) for request in requests]
    batch = [request for request in counted if request is not None]
    plan = reconcile(batch, found, kinds)
    if found.any_ban and plan.merges and (bans := await attempt.bans([primary_id for primary_id, _ in plan.seen])):
        plan = reconcile(batch, replace(found, bans=bans), kinds)
    return plan, [request is not None for request in counted]


def _failed(future: asyncio.Future[Result]) -> bool:
    return not future.cancelled() and isinstance(future.result(), Unexpected)


def _sought(requests: Iterable[Request]) -> tuple[set[Identifier], set[Pair]]:
    """The identifiers and the pairs that these requests bring."""
    details = [request.details for request in requests]
    return {i for d in details for i in d.identifiers}, {pair for d in details for pair in d.pairs}


def _answer(waiting: dict[asyncio.Future[Result], Request], future: asyncio.Future[Result], result: Result) -> None:
    """Answer once; whoever has stopped waiting gets nothing."""
    if waiting.pop(future, None) is not None and not future.done():
        future.set_result(result)
