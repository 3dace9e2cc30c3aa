"""A steward's place in the queue: whoever is patient gets done, whatever traffic there is, and nothing gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.events import IdentifyEvent
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.reconcile import Request, reconcile
from identity_graphql.domain.replay import replay
from identity_graphql.errors import Conflict, Refused
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Pool
from identity_graphql.storage.log_session import LogSession, Place
from tests.support.databases import Database, Databases, check, tables_of
from tests.support.identifiers import email
from tests.support.replayed import check_judged_again, check_replay, events_of
from tests.support.stewards import Ask, Steward

SERVERS = ("postgresql", "mariadb")
"""where several write at once; SQLite has one writer"""
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = 'test' AND wait_event_type = 'Lock'",
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}
Said = tuple[str | None, str | None]


class Interrupted(Storage):
    """Something happens after a session has begun: after its locks and its reads, before anything is decided."""

    meanwhile: Callable[[], Awaitable[object]] | None = None
    sessions = 0

    @asynccontextmanager
    async def log_session(self, *asked: Any, **options: Any) -> AsyncIterator[LogSession]:
        async with super().log_session(*asked, **options) as session:
            self.sessions += 1
            if self.meanwhile is not None:
                await self.meanwhile()
            yield session

    def once(self, happens: Callable[[], Awaitable[object]]) -> None:
        """Only while the next session is open."""

        async def meanwhile() -> None:
            self.meanwhile = None
            await happens()

        self.meanwhile, self.sessions = meanwhile, 0


class Scene:
    """A steward, and a writer with connections of their own."""

    def __init__(self, database: Database, level: str = "READ COMMITTED", *, locking: bool = True) -> None:
        self.database = database
        self.storage = database.open(isolation_level=level)
        self.writer = Steward(self.storage)
        dialect = self.storage.dialect
        engines = dialect.engines(Address.parse(database.url), Pool(isolation_level=level))
        self.interrupted = Interrupted(dialect, replace(engines, many_writers=engines.many_writers and locking))
        self.steward = Steward(self.interrupted)

    async def family(self) -> None:
        """Contact 1, whom nobody was ever merged with; busy contact 2; quiet ones, 3 and 4, that were once merged
        with it."""
        await self.writer.requests(
            ("old@x.io", "111111"), ("busy@x.io", "222222"), ("quiet@x.io", "333333"), ("calm@x.io", "333333")
        )
        merged = await self.writer.merge(2, 3)
        await self.writer.undo(merged.event.seq)

    async def everything_to_do(self) -> None:
        """What there must be for every verb."""
        await self.writer.requests(("five@x.io", "555555"), ("six@x.io", "666666"), ("seven@x.io", "333333"))
        await self.writer.ban(3, 6)
        await self.writer.delete(7)

    async def seen(self, ask: Ask) -> Callable[[], Awaitable[VerbResult]]:
        """The verb after a dry run of it."""
        return partial(ask, self.steward.command(await ask(Command("ann", "why", dry_run=True))))

    async def while_writing(self, verb: Callable[[], Awaitable[VerbResult]], *said: Said) -> tuple[VerbResult, int]:
        """The verb's result, while a request of the busy cluster is always under way: these, and then others. And
        after how many of them it was done."""
        count, asked = 0, list(said)
        running: asyncio.Task[VerbResult] | None = None
        while running is None or not running.done():
            with suppress(Conflict):
                async with self.storage.attempt([1, 2]) as attempt:
                    running = running or asyncio.ensure_future(verb())
                    await self._until_it_waits(running)
                    email, phone_number = asked.pop(0) if asked else (f"busy{count}@x.io", "222222")
                    details = Normalisation().details(Given(email=email, phone_number=phone_number))
                    plan = reconcile([Request(details, "test")], await attempt.find(details.identifiers, []))
                    await attempt.apply(plan)
                    count += 1
            # SQLite's waiting processes look again after a while: there is no queue to be in.
            await asyncio.sleep(0 if self.database.name in WAITING else 0.1)
        return await running, count

    async def _until_it_waits(self, running: asyncio.Future[Any]) -> None:
        """Until somebody waits for a lock. MariaDB tells what it knew 0.1 seconds ago, unless it was not asked since;
        SQLite does not tell."""
        pause = 0.01 if self.database.name == "postgresql" else 0.12
        await asyncio.wait([running], timeout=pause)
        if self.database.name in WAITING:
            async with self.storage.reading() as connection:
                while not running.done() and not await connection.scalar(sa.text(WAITING[self.database.name])):
                    await asyncio.sleep(pause)

    async def close(self) -> None:
        await self.steward.close()
        await self.writer.close()
        await self.interrupted.close()
        await self.storage.close()
        dump = await self.database.dump()
        rows, events = check(tables_of(dump)), events_of(dump)
        check_replay(replay(events), rows)
        check_judged_again(events, replay(events))


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    scene = Scene(database)
    yield scene
    await scene.close()


@pytest.fixture(params=SERVERS)
async def server_scene(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Scene]:
    scene = Scene(await databases.get(request.param))
    yield scene
    await scene.close()


VERBS: dict[str, Callable[[Steward], Ask]] = {
    "split": lambda steward: partial(steward.steward.split_cluster, [4]),
    "undo": lambda steward: partial(steward.steward.undo, 4),
    "merge": lambda steward: partial(steward.steward.merge_clusters, 3, 5),
    "ban": lambda steward: partial(steward.steward.ban_link, 3, 5),
    "unban": lambda steward: partial(steward.steward.unban_link, 3, 6),
    "delete": lambda steward: partial(steward.steward.delete_contact, 4),
    "restore": lambda steward: partial(steward.steward.restore_contact, 7),
    "erase a cluster": lambda steward: partial(steward.steward.erase_cluster, 3),
    "erase an identifier": lambda steward: partial(steward.steward.erase_identifier, email("calm@x.io")),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_is_done_though_its_lineage_is_never_without_a_writer(scene: Scene, verb: str) -> None:
    """Who reads first and locks then has always read what is no longer so."""
    await scene.family()
    await scene.everything_to_do()
    ask = await scene.seen(VERBS[verb](scene.steward))

    result, writes = await scene.while_writing(ask)

    assert result.event.seq
    assert writes < 5, "it waited for the one that was under way when it came, and for one that was before it"


@pytest.mark.parametrize(
    ("name", "level"), [*(("postgresql", level) for level in LEVELS), ("mariadb", "REPEATABLE READ")]
)
async def test_a_place_in_the_queue_is_worth_the_same_at_every_isolation_level(
    databases: Databases, name: str, level: str
) -> None:
    scene = Scene(await databases.get(name), level)
    await scene.family()

    _, writes = await scene.while_writing(await scene.seen(VERBS["split"](scene.steward)))

    assert writes < 5
    await scene.close()


async def test_a_cluster_that_is_merged_into_an_older_one_while_the_steward_waits_is_followed(scene: Scene) -> None:
    await scene.family()

    _, writes = await scene.while_writing(
        await scene.seen(VERBS["split"](scene.steward)), ("old@x.io", "222222"), ("older@x.io", "111111")
    )

    assert writes < 5
    assert await scene.writer.cluster_of([1, 2, 3, 4]) == {1: 1, 2: 1, 3: 3, 4: 4}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_dry_run_waits_for_nobody(scene: Scene, verb: str) -> None:
    await scene.family()
    await scene.everything_to_do()

    async with scene.storage.attempt(range(1, 8)):
        result = await asyncio.wait_for(VERBS[verb](scene.steward)(Command("ann", "why", dry_run=True)), timeout=5)

    assert result.dry_run


async def test_a_dry_run_of_an_erasure_is_done_though_the_customer_gets_ever_new_emails(scene: Scene) -> None:
    await scene.family()
    scene.interrupted.meanwhile = lambda: scene.writer.identify(f"new{scene.interrupted.sessions}@x.io", "333333")

    result = await scene.steward.steward.erase_cluster(3, Command("ann", "why", dry_run=True))

    assert result.dry_run


# -- nothing is lost


async def test_who_claims_meanwhile_what_a_verb_would_claim_keeps_it(server_scene: Scene) -> None:
    """A new contact changes no cluster that was there, so no lock keeps it away: only its claim tells of it."""
    scene = server_scene
    await scene.family()
    await scene.everything_to_do()
    ask = await scene.seen(VERBS["restore"](scene.steward))
    scene.interrupted.once(lambda: scene.writer.identify("seven@x.io", "777777"))

    await ask()

    assert scene.interrupted.sessions == 2, "the first found it taken"
    (taken,) = [row for row in (await scene.database.tables())["identifier"] if row["value"] == "seven@x.io"]
    assert taken["contact_id"] == 8
    assert (await scene.writer.cluster_of([7, 8])) == {7: 3, 8: 3}


@pytest.fixture(params=SERVERS)
async def unlocked(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Scene]:
    """The steward takes no locks: what is right is decided by the compare-and-swap alone."""
    scene = Scene(await databases.get(request.param), locking=False)
    yield scene
    await scene.close()


async def test_a_cluster_that_changed_since_it_was_read_is_not_overwritten(unlocked: Scene) -> None:
    await unlocked.family()
    ask = await unlocked.seen(VERBS["split"](unlocked.steward))
    unlocked.interrupted.once(lambda: unlocked.writer.identify("new@x.io", "333333"))

    with pytest.raises(Refused, match="The cluster has changed"):
        await ask()

    assert await unlocked.writer.cluster_of([3, 4, 5]) == {3: 3, 4: 3, 5: 3}


async def test_a_cluster_that_was_only_looked_at_must_be_as_it_was(unlocked: Scene) -> None:
    await unlocked.family()
    ask = await unlocked.seen(VERBS["split"](unlocked.steward))
    unlocked.interrupted.once(lambda: unlocked.writer.identify("new@x.io", "222222"))

    result = await ask()

    assert unlocked.interrupted.sessions == 2, "the first was decided from what was no longer so"
    assert "new@x.io" in [event.email for event in result.history.events if isinstance(event, IdentifyEvent)]


async def test_what_names_a_value_after_the_log_was_searched_is_erased_with_it(scene: Scene) -> None:
    await scene.family()
    await scene.everything_to_do()
    gossip = Steward(scene.storage, reason="calm@x.io said so")
    ask = await scene.seen(VERBS["erase an identifier"](scene.steward))
    scene.interrupted.once(lambda: gossip.merge(1, 5))

    await ask()

    assert "calm@x.io" not in repr(await scene.database.dump())


# -- what an attempt leaves to the next


async def test_the_next_attempt_begins_with_the_locks_that_this_one_found_to_be_needed(server_scene: Scene) -> None:
    await server_scene.family()
    place = Place()

    with pytest.raises(Conflict):  # 2 after 3: whoever has 2 may be waiting for 3
        async with server_scene.storage.log_session([3], place=place):
            pass
    assert place.rows == {2, 3}

    async with server_scene.storage.log_session([3], place=place) as session:
        assert [event.seq for event in session.events] == [2, 3, 4, 5, 6]


async def test_what_was_erased_between_two_attempts_is_not_remembered(scene: Scene) -> None:
    await scene.family()
    place = Place()
    for _ in range(2):
        with suppress(Conflict):
            async with scene.storage.log_session([3], place=place):
                pass
    assert "calm@x.io" in repr(place.events)

    await scene.writer.erase(email("calm@x.io"))

    async with scene.storage.log_session([3], place=place) as session:
        again = session.events
    async with scene.storage.log_session([3]) as session:
        assert again == session.events
    assert "calm@x.io" not in repr(again)
