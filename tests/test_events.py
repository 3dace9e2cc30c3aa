"""The list of the log: what was done, by whom, and when."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from identity_graphql.domain.contacts import LARGEST_ID
from identity_graphql.domain.events import EventFilter, EventKind
from identity_graphql.domain.history import SLACK
from identity_graphql.domain.identifiers import Given
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.storage import Storage
from identity_graphql.storage.tables import event
from tests.support.databases import Database
from tests.support.graphql import EVENT, ask, data, refusal
from tests.support.identifiers import email, phone_number
from tests.support.statements import statements
from tests.support.stewards import Steward

PAGE = """query ($first: Int! = 100, $after: String, $kinds: [EventKind!], $actor: String,
  $since: DateTime, $until: DateTime) {
  events(first: $first, after: $after, kinds: $kinds, actor: $actor, since: $since, until: $until) {
    edges { node { FIELDS } } pageInfo { hasNextPage endCursor } } }"""
TICK = timedelta(microseconds=1)


async def seqs(client: httpx2.AsyncClient, **wanted: object) -> list[int]:
    """The numbers of the wanted events, all pages together."""
    found: list[int] = []
    page: dict[str, Any] = {"endCursor": None, "hasNextPage": True}
    while page["hasNextPage"]:
        query = PAGE.replace("FIELDS", "seq")
        answer = (await data(client, query, **{"after": page["endCursor"], **wanted}))["events"]
        found += [int(edge["node"]["seq"]) for edge in answer["edges"]]
        page = answer["pageInfo"]
    return found


@pytest.fixture
async def ann(storage: Storage) -> AsyncIterator[Steward]:
    """A steward whose log has requests of every outcome, and most of what she and Bob can do."""
    ann = Steward(storage, actor="ann", reason="two people, one number")
    bob = Steward(storage, actor="bob")
    await ann.requests(("a@x.io", "111"), ("b@x.io", "222"), ("a@x.io", "222"), ("b@x.io", "111"), ("c@x.io", "222"))
    await ann.undo(3)
    await ann.undo(6)  # the undo
    await bob.undo(3)
    await bob.requests(("e@x.io", "555"), ("f@x.io", "666"))
    await bob.ban(email("e@x.io"), email("f@x.io"))
    await bob.requests(("e@x.io", "666"))  # withheld
    await ann.split(3)
    await ann.merge(1, 4)
    await ann.undo(14)
    await bob.delete(4)
    await bob.restore(4)
    await ann.erase(phone_number("222"))
    await ann.requests(("g@x.io", None), ("g@x.io", "777"))
    yield ann
    await ann.close()
    await bob.close()


async def test_every_event_is_what_it_is_by_itself(client: httpx2.AsyncClient, ann: Steward) -> None:
    listed = (await data(client, PAGE.replace("FIELDS", EVENT)))["events"]["edges"]

    alone = [
        (await data(client, f"query ($seq: ID!) {{ event(seq: $seq) {{ {EVENT} }} }}", seq=edge["node"]["seq"]))[
            "event"
        ]
        for edge in listed
    ]
    assert [edge["node"] for edge in listed] == alone
    assert {node["kind"] for node in alone} >= {"IDENTIFY", "UNDO", "SPLIT_CLUSTER", "ERASE"}
    assert {node["seq"]: node["undoneBy"] for node in alone if node["undoneBy"]} == {"3": "8", "6": "7", "14": "15"}
    assert {"WITHHELD", "MERGED", "OBSERVED", "LINKED", "CREATED", None} == {node["outcome"] for node in alone}
    (withheld,) = [node for node in alone if node["outcome"] == "WITHHELD"]
    assert "to that of contact 5" in withheld["summary"]
    assert any(node["redacted"] for node in alone)


async def test_an_event_must_meet_every_condition(client: httpx2.AsyncClient, database: Database, ann: Steward) -> None:
    log = (await database.tables())["event"]
    kinds: list[list[str] | None] = [None, ["IDENTIFY"], ["UNDO"], ["IDENTIFY", "ERASE", "UNDO"], ["UNBAN_LINK"]]
    moments = [None, log[0]["at"], log[7]["at"], log[-1]["at"] + TICK]

    for kind, actor, since, until in itertools.product(kinds, (None, "ann", "bob"), moments, moments):
        if since and until and since > until:
            continue
        expected = [
            row["seq"]
            for row in log
            if (kind is None or row["kind"].upper() in kind)
            and actor in (None, row["actor"])
            and (since is None or row["at"] >= since)
            and (until is None or row["at"] < until)
        ]
        given = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        assert await seqs(client, kinds=kind, actor=actor, **given) == expected, (kind, actor, since, until)


async def test_a_moment_is_exact_to_the_microsecond(
    client: httpx2.AsyncClient, database: Database, ann: Steward
) -> None:
    log = {row["seq"]: row["at"] for row in (await database.tables())["event"]}
    for seq in (1, 9, max(log)):
        at = log[seq]

        async def found(since: datetime, until: datetime) -> list[int]:
            return await seqs(client, since=since.isoformat(), until=until.isoformat())

        assert await found(at, at + TICK) == [s for s in log if log[s] == at]
        assert await found(at, at) == []
        assert seq not in await found(at - timedelta(days=1), at)
        assert seq not in await found(at + TICK, at + timedelta(days=1))
    assert await found(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == [*log]


async def test_times_need_not_be_in_the_order_of_the_numbers(storage: Storage, database: Database) -> None:
    rolled, begin = random.Random(7), datetime(2026, 1, 1, tzinfo=UTC)
    times = [begin + number * timedelta(minutes=10) + rolled.random() * SLACK for number in range(200)]
    log = {5 + 3 * number: at for number, at in enumerate(times)}  # and the numbers have gaps
    await write(storage, log)
    history = HistoryService(storage)

    for _ in range(60):
        since, until = sorted(rolled.choice(times) + rolled.choice((-TICK, TICK, 0 * TICK)) for _ in range(2))
        after, limit = rolled.choice((0, 100, 299)), rolled.choice((3, 300))
        found = await history.page_of_events(EventFilter(since=since, until=until), after=after, limit=limit)
        expected = [seq for seq, at in log.items() if since <= at < until and seq > after]
        assert [logged.event.seq for logged in found] == expected[:limit]


async def write(storage: Storage, log: dict[int, datetime]) -> None:
    """Requests of other customers each, with these numbers and times."""
    common = {"kind": "identify", "outcome": "CREATED", "raw": {}, "norm": "2", "demoted": []}
    async with storage.transaction() as connection:
        await connection.execute(
            event.insert(),
            [
                {**common, "seq": seq, "at": at, "email": f"{seq}@x.io", "contact_id": seq, "primary_id": seq}
                | {"version_before": 0, "version_after": 1}
                for seq, at in log.items()
            ],
        )


async def test_nothing_is_missed_or_seen_twice_while_others_write(
    client: httpx2.AsyncClient, database: Database, service: IdentityService
) -> None:
    async def customer(name: int) -> None:
        for number in range(12):
            await service.identify(Given(email=f"{name}.{number}@x.io", phone_number=f"555{name:02}"))

    other = database.open()  # another process: its batches and ours overlap
    beside = IdentityService(other, service.normalisation)
    writing = asyncio.gather(*(customer(name) for name in range(8)), *(theirs(beside, name) for name in range(8)))
    seen: list[str] = []
    after, done = None, False
    while not done:
        done = writing.done()
        answer = (await data(client, PAGE.replace("FIELDS", "seq"), first=5, after=after))["events"]
        seen += [edge["node"]["seq"] for edge in answer["edges"]]
        after = answer["pageInfo"]["endCursor"] or after
        done = done and not answer["pageInfo"]["hasNextPage"]
    await writing
    await beside.close()
    await other.close()

    assert seen == [str(row["seq"]) for row in (await database.tables())["event"]]
    assert len(seen) == 8 * 12 * 2


async def theirs(service: IdentityService, name: int) -> None:
    for number in range(12):
        await service.identify(Given(email=f"their.{name}.{number}@x.io", phone_number=f"777{name:02}"))


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)  # SQLite has one writer at a time
async def test_an_event_that_is_not_committed_yet_is_waited_for(
    storage: Storage, database: Database, service: IdentityService
) -> None:
    history, nothing = HistoryService(storage), EventFilter()
    other = database.open()
    async with other.transaction() as connection:
        columns = {"kind": "identify", "outcome": "CREATED", "raw": {}, "norm": "2", "demoted": [], "contact_id": 99}
        versions = {"primary_id": 99, "version_before": 0, "version_after": 1}
        await connection.execute(event.insert(), {**columns, **versions, "at": datetime.now(UTC), "email": "z@x.io"})
        await service.identify(Given(email="a@x.io", phone_number=None))
        page = asyncio.ensure_future(history.page_of_events(nothing, after=0, limit=9))
        await asyncio.sleep(0.2)
        assert not page.done()
    await other.close()

    assert [logged.event.seq for logged in await page] == [1, 2]


async def test_an_actor_is_found_exactly_as_logged(
    client: httpx2.AsyncClient, database: Database, storage: Storage
) -> None:
    names = ["ann", "Ann", "ánn", "ann x", "😀", "a" * 254]
    for number, name in enumerate(names):
        steward = Steward(storage, actor=name)
        await steward.requests((f"{number}@x.io", None), (None, f"555{number}"))
        await steward.merge(2 * number + 1, 2 * number + 2)
        await steward.close()

    for number, name in enumerate(names):
        assert await seqs(client, actor=name) == [3 * number + 3]
    for nobody in ("ANN", "ann ", "an", "%", "nobody", "a" * 253):
        assert await seqs(client, actor=nobody) == []
    assert await seqs(client, actor="ann", kinds=["IDENTIFY"]) == []


async def test_an_actor_who_was_erased_is_not_found_by_what_was_erased(
    client: httpx2.AsyncClient, database: Database, storage: Storage
) -> None:
    steward = Steward(storage, actor="ann@x.io", reason="as ann@x.io asked")
    await steward.requests(("ann@x.io", "111"), ("b@x.io", "222"))
    await steward.merge(1, 2)
    assert await seqs(client, actor="ann@x.io") == [3]
    steward.actor = "bob"
    await steward.erase(email("ann@x.io"))
    await steward.close()

    assert await seqs(client, actor="ann@x.io") == []
    (edge,) = (await data(client, PAGE.replace("FIELDS", EVENT), actor="erased"))["events"]["edges"]
    assert (edge["node"]["seq"], edge["node"]["reason"]) == ("3", "as erased asked")
    everything = await ask(client, PAGE.replace("FIELDS", EVENT))
    assert "ann@x.io" not in str(everything)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"actor": "a" * 255}, "actor"),
        ({"actor": ""}, "actor"),
        ({"actor": "a\x00b"}, "actor"),
        ({"kinds": []}, "kinds"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "since"),
        ({"first": 0}, "first"),
        ({"first": 101}, "first"),
        ({"after": "bm8="}, "after"),
        ({"kinds": ["LOOKED"]}, None),
        ({"since": "2026-01-02T00:00:00"}, None),
        ({"until": "yesterday"}, None),
    ],
)
async def test_what_cannot_be_is_refused(embedded: httpx2.AsyncClient, wanted: Any, field: str | None) -> None:
    refused = await refusal(embedded, PAGE.replace("FIELDS", "seq"), **wanted)

    assert refused["code"] == "BAD_USER_INPUT"
    assert field is None or refused["field"] == field


async def test_moments_in_the_wrong_order_are_refused_in_clear_words(embedded: httpx2.AsyncClient) -> None:
    wrong = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    (error,) = (await ask(embedded, PAGE.replace("FIELDS", "seq"), **wrong))["errors"]

    assert error["message"] == "since must not be later than until."


async def test_a_large_page_takes_no_more_statements_than_a_small_one(storage: Storage, ann: Steward) -> None:
    await ann.requests(*((f"{number}@y.io", None) for number in range(100)))
    for number in range(30):
        await ann.undo(21 + number)
    history = HistoryService(storage)

    async def sent(wanted: EventFilter, limit: int) -> int:
        with statements() as found:
            await history.page_of_events(wanted, after=0, limit=limit)
        return len(found)

    assert await sent(EventFilter(), 101) <= 30, "most of them for the one lineage in which something was withheld"
    for wanted in (EventFilter(actor="ann"), EventFilter(kinds=frozenset({EventKind.UNDO}))):
        assert await sent(wanted, 101) <= await sent(wanted, 2) + 2, "once more for undos of undos"
    during = EventFilter(since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2100, 1, 1, tzinfo=UTC))
    assert await sent(during, 101) <= 30 + 2 * 8, "the log is halved until one of 150 is left"


async def test_halving_a_log_of_any_length_ends(storage: Storage) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    await write(storage, {1: begin, LARGEST_ID - 1: begin + timedelta(days=9)})
    history = HistoryService(storage)

    with statements() as sent:
        found = await history.page_of_events(EventFilter(since=begin + timedelta(days=5)), after=0, limit=9)

    assert [logged.event.seq for logged in found] == [LARGEST_ID - 1]
    assert len(sent) < 64 + 10
