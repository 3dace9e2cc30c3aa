"""Undo: the state is what all events but the undone one come to (Q21), and what that means case by case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from identity_graphql.domain.decide import VerbResult
from identity_graphql.domain.identifiers import EMAIL, Given, Identifier
from identity_graphql.errors import Gone, IdentityError, InvalidInput, NotFound, Refused
from identity_graphql.storage import Storage, tables
from tests.models.memory import Memory
from tests.support.databases import Databases
from tests.support.examples import examples
from tests.support.identifiers import email, phone_number
from tests.support.stewards import Steward

A, B, C, D = (f"{name}@example.com" for name in "abcd")
CASES = {"sqlite": examples(80, 500), "postgresql": examples(20, 100), "mariadb": examples(20, 100)}


# -- against the model


async def events_since(storage: Storage, seq: int) -> list[dict[str, Any]]:
    statement = sa.select(tables.event).where(tables.event.c.seq > seq).order_by(tables.event.c.seq)
    async with storage.reading() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def random_history(steward: Steward, random: Random, case: int) -> None:
    """A few requests that collide, and now and then a verb. No other case has one of its identifiers."""
    emails = [f"{name}.{case}@example.com" for name in "abc"]
    phone_numbers = [f"{1000 + case}55{n}" for n in range(3)]
    ids: list[int] = []
    for _ in range(random.randint(1, 3)):
        batch = []
        for _ in range(random.randint(2, 5)):
            both = (random.choice(emails), random.choice(phone_numbers))
            batch.append(random.choice([both, both, both, (both[0], None), (None, both[1])]))
        for decision in await steward.service.identify_many([Given(*said) for said in batch]):
            assert not isinstance(decision, IdentityError)
            ids += [decision.contact.id] if decision.contact else []
        if random.random() < 0.5:
            await random_verb(steward, random, ids)


async def random_verb(steward: Steward, random: Random, ids: list[int]) -> None:
    one, other = random.choice(ids), random.choice(ids)
    homes = await steward.cluster_of(ids)
    mates = [i for i in ids if homes[i] is not None and homes[i] == homes[one]]
    out = random.sample(mates, random.randint(1, max(1, len(mates) - 1))) if mates else [one]
    verbs: list[Callable[[], Awaitable[VerbResult]]] = [
        lambda: steward.merge(one, other),
        lambda: steward.split(*out),
        lambda: steward.split(*out, ban=False),
        lambda: steward.ban(one, other),
        lambda: steward.unban(one, other, rejudge=random.random() < 0.5),
        lambda: steward.delete(one),
    ]
    with suppress(IdentityError):
        await random.choice(verbs)()


@pytest.mark.deep
@pytest.mark.parametrize("name", CASES)
async def test_the_state_after_an_undo_is_what_the_other_events_come_to(name: str, databases: Databases) -> None:
    database = await databases.get(name)
    storage = database.open()
    steward = Steward(storage)
    random = Random(21)
    last = 0

    for case in range(CASES[name]):
        await random_history(steward, random, case)
        for _ in range(random.choice([1, 1, 1, 2])):
            events = await events_since(storage, last)
            try:
                await steward.undo(random.choice(events)["seq"], then_ban=random.random() < 0.2)
            except (InvalidInput, Refused):
                continue  # undone already, nothing to ban, or one cluster by other evidence
            events = await events_since(storage, last)
            memory = Memory.of(events)
            known = {i for event in events if event["kind"] == "identify" for i in (event["contact_id"],) if i}
            found = await storage.clusters_of(known)
            values = {email(e["email"]) for e in events if e["email"]}
            values |= {phone_number(e["phone_number"]) for e in events if e["phone_number"]}
            clusters = (await storage.find(values)).clusters
            names = {contact.id: frozenset((*c.emails, *c.phone_numbers)) for c in clusters for contact in c.contacts}
            assert set(names.values()) == memory.values(), f"case {case}"
            async with storage.attempt() as attempt:
                bans = await attempt.bans([cluster.primary.id for cluster in clusters])
            assert {frozenset((names[a], names[b])) for a, b in bans} == memory.separated(), f"case {case}"
            live = {frozenset(c.id for c in cluster.contacts if c.id in known) for cluster in found.values()}
            assert live == memory.contacts(), f"case {case}"
        last = events[-1]["seq"]

    await steward.close()
    await storage.close()
    await database.check()


# -- case by case


async def test_a_bridging_request_is_undone_and_the_clusters_fall_apart_with_their_old_ids(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "222"))
    await steward.requests((A, "222"))
    assert await steward.clusters() == [[1, 2]]

    result = await steward.undo(3)

    assert await steward.clusters() == [[1], [2]]
    assert await steward.identifiers() == [{A, "111"}, {B, "222"}]
    assert [cluster.version for cluster in result.clusters] == [3, 3], "versions never go back, nor begin again"


async def test_an_undone_pair_was_never_seen_and_the_next_such_request_is_new_evidence(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (A, "222"))
    await steward.undo(3)

    again = await steward.identify(A, "222")

    assert again.outcome == "MERGED"
    assert await steward.clusters() == [[1, 2]]


async def test_undo_and_ban_withholds_the_pair_when_it_comes_again(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (A, "222"))
    await steward.undo(3, then_ban=True)

    again = [await steward.identify(A, "222") for _ in range(2)]

    assert [(decision.outcome, decision.withheld) for decision in again] == [("WITHHELD", True), ("UNCHANGED", True)]
    assert [decision.cluster.primary.id for decision in again] == [1, 1], "the email's cluster is answered"
    assert await steward.clusters() == [[1], [2]]


async def test_undo_and_ban_of_what_made_a_customer_bans_the_pair_itself(steward: Steward) -> None:
    await steward.requests((A, "111"))
    await steward.undo(1, then_ban=True)

    again = [await steward.identify(A, "111") for _ in range(2)]

    assert [decision.outcome for decision in again] == ["WITHHELD", "UNCHANGED"]
    assert await steward.identifiers() == [{A}], "the number waits"
    await steward.unban(email(A), phone_number("111"))
    assert (await steward.identify(A, "111")).outcome == "LINKED"


async def test_the_later_request_that_is_then_the_first_to_carry_an_identifier_gets_a_contact(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "222"))
    bridge = await steward.identify(A, "222")

    await steward.undo(2)

    assert await steward.clusters() == [[1, 3]]
    (born,) = await steward.service.contacts([3])
    assert born is not None
    assert bridge.event is not None
    assert (born.email, born.phone_number, born.created_at) == (A, "222", bridge.event.at)
    assert born.updated_at > born.created_at, "it was written later"
    assert await steward.service.cluster(Identifier(EMAIL, B)) is None


async def test_what_stays_keeps_its_id_and_the_oldest_that_stays_is_the_primary(steward: Steward) -> None:
    await steward.requests((A, "111"), (A, "222"), (B, "222"))

    await steward.undo(1)

    assert await steward.clusters() == [[2, 3]]
    assert await steward.identifiers() == [{A, B, "222"}]


async def test_an_undone_id_resolves_as_undone_with_the_time(steward: Steward) -> None:
    await steward.requests((A, "111"))

    result = await steward.undo(1)

    with pytest.raises(Gone, match="Contact 1 was undone at") as gone:
        await steward.service.cluster(1)
    assert gone.value.at == result.event.at
    assert (await steward.identify(A, "111")).cluster.primary.id == 2, "and its values are a new customer's"


async def test_an_undo_can_be_undone_and_everything_is_as_before(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (C, "222"))
    before = await steward.state()
    undo = await steward.undo(2)
    assert await steward.clusters() == [[1, 4, 3]], "seniority, not the command of numbers"

    await steward.undo(undo.event.seq)

    assert await steward.state() == before
    assert await steward.clusters() == [[1, 2, 3]]
    with pytest.raises(Gone, match="undone"):
        await steward.service.cluster(4)


async def test_a_contact_that_an_undo_made_gets_its_id_again_when_it_is_needed_again(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (A, "222"))
    first = await steward.undo(2)
    second = await steward.undo(first.event.seq)

    await steward.undo(second.event.seq)

    assert await steward.clusters() == [[1, 3]]


@pytest.mark.parametrize("verb", ["merge", "split", "ban", "unban", "delete", "restore"])
async def test_every_verb_of_a_stewards_can_be_undone(steward: Steward, verb: str) -> None:
    await steward.requests((A, "111"), (B, "111"), (B, "222"), (C, "333"), (D, "444"))
    await steward.delete(5)
    await steward.ban(3, 4)
    verbs = {
        "merge": lambda: steward.merge(1, 4),
        "split": lambda: steward.split(2, 3),
        "ban": lambda: steward.ban(1, 4),
        "unban": lambda: steward.unban(3, 4),
        "delete": lambda: steward.delete(2),
        "restore": lambda: steward.restore(5),
    }
    if verb == "merge":
        await steward.unban(3, 4)
    before = await steward.state()
    result = await verbs[verb]()
    assert await steward.state() != before

    await steward.undo(result.event.seq)

    assert await steward.state() == before


async def test_an_erasure_cannot_be_undone(steward: Steward) -> None:
    await steward.requests((A, "111"))
    erasure = await steward.erase(email(A))

    with pytest.raises(InvalidInput, match="An erasure cannot be undone"):
        await steward.undo(erasure.event.seq)


async def test_an_event_is_undone_once_and_only_if_there_is_one(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"))
    await steward.undo(2)

    with pytest.raises(InvalidInput, match="undone already"):
        await steward.undo(2)
    for nothing in (99, 0, -1, 2**63, 2**70):
        with pytest.raises(NotFound, match=f"no event {nothing}"):
            await steward.undo(nothing)
        with pytest.raises(NotFound, match=f"no contact {nothing}"):
            await steward.merge(1, nothing)


async def test_undo_and_ban_is_refused_where_other_evidence_says_the_same(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (B, "111"))

    with pytest.raises(Refused, match="other evidence"):
        await steward.undo(3, then_ban=True)

    await steward.undo(3)
    assert await steward.clusters() == [[1, 2]], "the later observation bridges them now"
    await steward.undo(4, then_ban=True)
    assert await steward.clusters() == [[1], [2]]


async def test_what_was_deleted_and_is_then_undone_cannot_be_restored(steward: Steward) -> None:
    await steward.requests((A, "111"))
    await steward.delete(1)
    undo = await steward.undo(1)

    with pytest.raises(InvalidInput, match="was undone"):
        await steward.restore(1)

    await steward.undo(undo.event.seq)
    await steward.restore(1)
    assert await steward.clusters() == [[1]]


async def test_a_verb_comes_through_where_a_contact_of_an_earlier_verb_was_merged_away_since(
    steward: Steward,
) -> None:
    """The event of that merge is of the other cluster alone."""
    await steward.requests((A, "111"), (B, "222"), (B, "333"))
    await steward.split(2)

    await steward.requests((A, "333"))
    await steward.undo(4)

    assert await steward.clusters() == [[1, 2, 3]]


async def test_a_verb_about_a_deleted_contact_comes_through_where_its_cluster_was_merged_since(
    steward: Steward,
) -> None:
    """Its row still names the primary that it had, which has one of its own by now."""
    await steward.requests((None, "111"), (B, None), (B, "222"))
    await steward.delete(3)
    await steward.requests((B, "111"))

    await steward.restore(3)

    assert await steward.clusters() == [[1, 2, 3]]


async def test_links_of_a_contact_that_an_undo_makes_name_its_real_id(steward: Steward) -> None:
    """A side that a split left unconnected is held together by a link to its oldest contact, and that is the one."""
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (C, "222"), (D, "111"))
    await steward.split(1)
    assert (await steward.state())["links"] == {(2, 4): 6}

    await steward.undo(2)

    assert await steward.clusters() == [[1], [5, 3, 4]]
    assert (await steward.state())["links"] == {(4, 5): 6}
    assert (await steward.state())["bans"] == {(1, 5): 6}
