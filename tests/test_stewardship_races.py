"""Stewards at work while requests come in: no cluster is left in between, and of two stewards one wins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from time import monotonic

import pytest

from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.replay import replay
from identity_graphql.errors import Busy, IdentityError, InvalidInput, NotFound, Refused
from identity_graphql.services.stewardship import StewardService
from tests.support.databases import Database, check, tables_of
from tests.support.identifiers import email, phone_number
from tests.support.replayed import check_judged_again, check_replay, events_of
from tests.support.stewards import Steward

CLIENTS = 16
STEWARDS = 3
SECONDS = 3.0


@pytest.fixture
async def stewards(database: Database) -> AsyncIterator[list[Steward]]:
    """Each with connections of his own, as in another process."""
    storages = [database.open(size=8) for _ in range(2)]
    stewards = [Steward(storage) for storage in storages]
    yield stewards
    for steward, storage in zip(stewards, storages, strict=True):
        await steward.close()
        await storage.close()
    dump = await database.dump()
    rows, events = check(tables_of(dump)), events_of(dump)
    state = replay(events)
    check_replay(state, rows)
    check_judged_again(events, state)


async def test_requests_and_stewards_at_once_leave_a_sound_database(
    stewards: list[Steward], database: Database
) -> None:
    """Four busy neighbourhoods of 5 emails and 5 numbers each, which now and then bridge, and every verb there is."""
    until = monotonic() + SECONDS
    happened: Counter[str] = Counter()

    async def client(number: int) -> None:
        random = Random(number)
        while monotonic() < until:
            here, there = random.randrange(4), random.randrange(4)
            there = there if random.random() < 0.05 else here
            email = f"p{here}{random.randrange(5)}@x.io" if random.random() < 0.9 else None
            phone_number = f"5550{there}{random.randrange(5)}" if random.random() < 0.9 or not email else None
            try:
                decision = await stewards[number % 2].identify(email, phone_number)
                happened[decision.outcome] += 1
            except InvalidInput:  # all that it brings is blocked
                happened["INVALID"] += 1
            except Busy:  # on a slow disk, SQLite's only writer may keep the others waiting
                happened["BUSY"] += 1
            await asyncio.sleep(random.random() / 20)

    async def steward(number: int) -> None:
        random = Random(-number)
        steward = stewards[number % 2]
        while monotonic() < until:
            for _ in range(5):
                try:
                    verb = await random_verb(steward, random)
                    result = await verb()
                except IdentityError as error:
                    happened[error.code] += 1
                    if not isinstance(error, Refused):
                        break
                else:
                    happened[result.event.kind] += 1
                    break
            await asyncio.sleep(0.01)

    await asyncio.gather(*map(client, range(CLIENTS)), *map(steward, range(STEWARDS)))

    assert happened["INTERNAL"] == 0
    assert sum(happened[kind] for kind in ("undo", "split_cluster", "delete_contact", "erase")) > 1, happened
    assert sum(happened[outcome] for outcome in ("CREATED", "LINKED", "MERGED", "OBSERVED")) > 20, happened


async def random_verb(steward: Steward, random: Random) -> Callable[[], Awaitable[VerbResult]]:
    contacts: list[Contact] = await steward.service.page_of_contacts(after=0, limit=100)
    if len(contacts) < 2:
        return lambda: steward.merge(1, 2)
    one, other = random.sample(contacts, 2)
    family = [contact.id for contact in contacts if (contact.linked_id or contact.id) == (one.linked_id or one.id)]
    verbs: list[Callable[[], Awaitable[VerbResult]]] = [
        lambda: steward.merge(one.id, other.id),
        lambda: steward.split(*family[: len(family) // 2 or 1]),
        lambda: steward.split(one.id, ban=False),
        lambda: steward.ban(one.id, other.id),
        lambda: steward.unban(one.id, other.id, rejudge=True),
        lambda: steward.delete(one.id),
        lambda: steward.restore(random.randrange(1, one.id + 1)),
        lambda: steward.undo(random.randrange(1, 40), then_ban=random.random() < 0.3),
        lambda: steward.undo(random.randrange(1, 200)),
        lambda: steward.erase(random.choice([email("p11@x.io"), phone_number("555022")])),
        lambda: steward.erase_cluster(one.id),
        lambda: steward.block(phone_number(f"5550{random.randrange(4)}1"), retract=random.random() < 0.5),
        lambda: steward.unblock(phone_number(f"5550{random.randrange(4)}1")),
    ]
    return random.choice(verbs)


VERBS: dict[str, Callable[[StewardService, Command], Awaitable[VerbResult]]] = {
    "merge": lambda steward, order: steward.merge_clusters(1, 4, order),
    "split": lambda steward, order: steward.split_cluster([2], order),
    "undo": lambda steward, order: steward.undo(2, order),
    "ban": lambda steward, order: steward.ban_link(1, 4, order),
    "unban": lambda steward, order: steward.unban_link(3, 4, order),
    "delete": lambda steward, order: steward.delete_contact(2, order),
    "restore": lambda steward, order: steward.restore_contact(5, order),
    "erase a cluster": lambda steward, order: steward.erase_cluster(2, order),
    "erase an identifier": lambda steward, order: steward.erase_identifier(email("b@x.io"), order),
    "block": lambda steward, order: steward.block_identifier(phone_number("111"), order, retract=True),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_of_two_stewards_with_the_same_order_one_wins(stewards: list[Steward], verb: str) -> None:
    first, second = stewards
    await first.requests(("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "333"), ("d@x.io", "444"), ("e@x.io", "555"))
    await first.ban(3, 4)
    await first.delete(5)
    ask = VERBS[verb]
    order = first.command(await ask(first.steward, Command("first", "why", dry_run=True)))
    await ask(second.steward, Command("second", "why", dry_run=True))

    results = await asyncio.gather(ask(first.steward, order), ask(second.steward, order), return_exceptions=True)

    won = [result for result in results if isinstance(result, VerbResult)]
    lost = [result for result in results if not isinstance(result, VerbResult)]
    assert len(won) == 1, results
    # Who is late for an identifier that is erased by then finds that nobody has it.
    assert isinstance(lost[0], (Refused, NotFound) if verb == "erase an identifier" else Refused), lost
    again = await asyncio.gather(ask(second.steward, order), return_exceptions=True)
    assert isinstance(again[0], (Refused, NotFound) if verb == "erase an identifier" else Refused), again
    assert not isinstance(again[0], Busy)
