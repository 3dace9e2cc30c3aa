"""Blocking while requests come in: whatever is written after the block was decided with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from identity_graphql.domain.decide import Command
from identity_graphql.domain.events import IdentifyEvent
from identity_graphql.domain.identifiers import Given, Identifier
from identity_graphql.domain.reconcile import Plan, Request, reconcile
from identity_graphql.domain.replay import replay
from identity_graphql.errors import Conflict, InvalidInput, Outdated
from identity_graphql.storage.attempt import Attempt
from tests.support.databases import Database, check, tables_of
from tests.support.identifiers import phone_number
from tests.support.replayed import check_judged_again, check_replay, events_of
from tests.support.stewards import Steward

A, B, C = (f"{name}@x.io" for name in "abc")
P = phone_number("111")
ROUNDS = 6
CLIENTS = 8


@pytest.fixture
async def two(database: Database) -> AsyncIterator[list[Steward]]:
    """Two with connections of their own, as in two processes. Afterwards all must hold."""
    storages = [database.open(size=8) for _ in range(2)]
    stewards = [Steward(storage, timeout=30) for storage in storages]
    yield stewards
    for steward, storage in zip(stewards, storages, strict=True):
        await steward.close()
        await storage.close()
    dump = await database.dump()
    rows, events = check(tables_of(dump)), events_of(dump)
    state = replay(events)
    check_replay(state, rows)
    check_judged_again(events, state)


async def planned(attempt: Attempt, steward: Steward, given: Given) -> Plan:
    """What a request would change, decided now."""
    rules = steward.service.normalisation
    details = rules.details(given)
    found = await attempt.find(details.identifiers, details.pairs)
    return reconcile([Request(details, rules.version)], found)


@pytest.mark.parametrize("given", [Given(email=B, phone_number="111"), Given(phone_number="111")])
async def test_a_request_that_was_decided_before_the_block_is_not_written_after_it(
    two: list[Steward], given: Given
) -> None:
    """Nobody had the value: the request is the first to bring it."""
    one, other = two
    async with one.storage.attempt() as attempt:
        plan = await planned(attempt, one, given)
        await other.block(P)

        with pytest.raises(Conflict):
            await attempt.apply(plan)


async def test_neither_is_one_that_goes_by_what_somebody_has(two: list[Steward]) -> None:
    one, other = two
    await one.requests((A, "111"))
    async with one.storage.attempt() as attempt:
        plan = await planned(attempt, one, Given(email=B, phone_number="111"))
        await other.block(P)

        with pytest.raises(Conflict):
            await attempt.apply(plan)


async def test_nor_is_one_that_merges_by_what_is_taken_from_whoever_has_it(two: list[Steward]) -> None:
    one, other = two
    await one.requests((A, "111"), (B, "222"))
    async with one.storage.attempt() as attempt:
        plan = await planned(attempt, one, Given(email=B, phone_number="111"))
        await other.block(P, retract=True)

        with pytest.raises(Conflict):
            await attempt.apply(plan)


async def test_nor_is_one_that_goes_by_what_is_blocked_again_when_its_release_is_taken_back(two: list[Steward]) -> None:
    """Somebody else has it by then: it is that cluster's version which tells."""
    one, other = two
    await one.requests((A, "111"), (B, "111"))
    await one.block(P)
    unblock = await one.unblock(P)
    await one.split(2, identifiers=[P])
    async with one.storage.attempt() as attempt:
        plan = await planned(attempt, one, Given(email=C, phone_number="111"))
        await other.undo(unblock.event.seq)

        with pytest.raises(Conflict):
            await attempt.apply(plan)


async def test_of_two_stewards_who_block_or_free_what_nobody_has_one_wins(two: list[Steward]) -> None:
    for ask in ("block_identifier", "unblock_identifier", "block_identifier"):
        command = Command("ann", "why", 0)
        results = await asyncio.gather(
            *(getattr(steward.steward, ask)(P, command) for steward in two * 2), return_exceptions=True
        )

        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert all(isinstance(r, InvalidInput) for r in results if isinstance(r, BaseException)), results


async def test_of_two_stewards_who_take_the_same_block_back_one_wins(two: list[Steward]) -> None:
    block = await two[0].block(P)
    command = Command("ann", "why", 0)

    results = await asyncio.gather(
        *(steward.steward.undo(block.event.seq, command) for steward in two * 2), return_exceptions=True
    )

    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(r, InvalidInput) for r in results if isinstance(r, BaseException)), results


@pytest.mark.parametrize("retract", [False, True])
async def test_what_is_logged_after_a_block_was_decided_with_it(two: list[Steward], retract: bool) -> None:
    """Of a new value each round, and of one that some have."""
    blocks: dict[Identifier, int] = {}

    async def client(number: int, value: str) -> None:
        for turn in range(4):
            email = f"p{value}{number if turn % 2 else 0}{turn}@x.io"
            decision = await two[number % 2].identify(email, value)
            assert decision.cluster.emails
            await asyncio.sleep(0.001 * (number % 3))

    async def block(value: str, turn: int) -> None:
        await asyncio.sleep(0.003 * turn)
        identifier = phone_number(value)
        while True:
            try:
                result = await two[1].block(identifier, retract=retract)
            except Outdated:
                continue
            blocks[identifier] = result.event.seq
            return

    for turn in range(ROUNDS):
        value = f"5550{turn}"
        await asyncio.gather(block(value, turn), *(client(number, value) for number in range(CLIENTS)))

    async with two[0].storage.log_session(range(1, 1000), by_value=True) as session:
        requests = [event for event in session.events if isinstance(event, IdentifyEvent)]
    for identifier, seq in blocks.items():
        late = [event.seq for event in requests if event.seq > seq and identifier in event.identifiers]
        assert late == []
        with pytest.raises(InvalidInput):
            await two[0].identify(None, identifier.value)
