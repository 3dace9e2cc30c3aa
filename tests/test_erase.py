"""Erasure: what was erased is nowhere in the database any more, in no form; everything else still holds (E4, Q19)."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from identity_graphql import observability
from identity_graphql.domain.changes import Changes, ContactChange, WithheldRow
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.erasure import ERASED, names, replaced, rewritten
from identity_graphql.domain.events import VerbEvent
from identity_graphql.domain.identifiers import BUILT_IN, Given, Identifier
from identity_graphql.domain.replay import replay
from identity_graphql.domain.verbs import Erase, SplitCluster, Undo, Verb
from identity_graphql.errors import Gone, InvalidInput, NotFound
from identity_graphql.storage import Storage
from tests.support.databases import TABLES, Database, Databases
from tests.support.identifiers import email, phone_number
from tests.support.replayed import events_of
from tests.support.stewards import Steward, working

EMAIL, TYPED_EMAIL = "foo@bar.com", "  Foo@Bar.COM "
NUMBER, TYPED_NUMBER = "+4930901820", "+49 (30) 90-18-20"
FORMS = (EMAIL, "Foo@Bar.COM", "foo@bar", NUMBER, NUMBER.strip("+"), TYPED_NUMBER, "90-18-20", "30 90 18 20")
"""of both values: how they were typed, and how stewards wrote them"""
OTHER, OTHER_NUMBER = "barfoo@bar.community", "149309018201"
"""of another customer, and they contain the erased ones"""


@pytest.fixture
async def steward(database: Database) -> AsyncIterator[Steward]:
    words = {"actor": f"session of {TYPED_EMAIL.strip()}", "reason": f"{EMAIL} called from 0049 30 90 18 20; why?"}
    async with working(database, **words) as steward:
        yield steward


async def history(steward: Steward) -> None:
    """A customer whose values were merged, split, banned, withheld, undone, deleted, restored, and typed by hand."""
    await steward.requests((TYPED_EMAIL, TYPED_NUMBER), ("second@x.io", TYPED_NUMBER), (TYPED_EMAIL, "222222"))
    await steward.requests((OTHER, OTHER_NUMBER), (TYPED_EMAIL, OTHER_NUMBER))
    await steward.undo(5, then_ban=True)
    await steward.requests((TYPED_EMAIL, OTHER_NUMBER), (OTHER, TYPED_NUMBER))
    await steward.split(3, identifiers=[email(EMAIL)])
    await steward.delete(1)
    await steward.restore(1)
    undo = await steward.undo(1)
    await steward.undo(undo.event.seq)
    await steward.unban(1, 4)


async def test_an_erased_value_is_nowhere_in_the_database(steward: Steward, database: Database, tmp_path: Path) -> None:
    await history(steward)
    assert EMAIL in await everything(database, tmp_path), "the search finds what there is"
    before = await database.tables()

    await steward.erase(email(EMAIL))
    steward.actor, steward.reason = "session", f"{TYPED_NUMBER}; why?"  # who writes it down again has it again
    await steward.erase(phone_number(NUMBER))

    left = await everything(database, tmp_path)
    # Nor as a part of another value: but for the other customer's, who has his.
    assert OTHER in left
    assert OTHER_NUMBER in left
    rest = left.replace(OTHER, "").replace(OTHER_NUMBER, "")
    assert [form for form in FORMS if form.lower() in rest] == []
    after = await database.tables()
    assert [row["id"] for row in after["contact"]] == [row["id"] for row in before["contact"]], "ids are for ever"
    assert [event["seq"] for event in after["event"]][: len(before["event"])] == [e["seq"] for e in before["event"]]
    assert "; why?" in after["event"][-1]["reason"]


async def test_the_id_of_a_request_goes_with_what_it_said(steward: Steward, database: Database) -> None:
    """A caller may have made it of anything, of the customer's email too."""
    for said, number in ((EMAIL, "111111"), (OTHER, "222222")):
        token = observability.request_id.set(f"order-of-{said}")
        await steward.identify(said, number)
        observability.request_id.reset(token)

    await steward.erase(email(EMAIL))

    kept = [event["request_id"] for event in (await database.tables())["event"]]
    assert kept == [None, f"order-of-{OTHER}", None]


async def test_a_number_in_a_reason_is_found_whatever_its_dashes_are(storage: Storage, database: Database) -> None:
    steward = Steward(storage, reason="+49 (30) 90\u201118\u221220 is shared")
    await steward.requests((EMAIL, TYPED_NUMBER), (OTHER, TYPED_NUMBER))
    await steward.split(2)

    await steward.erase(phone_number(NUMBER))

    reasons = [event["reason"] for event in (await database.tables())["event"] if event["kind"] == "split_cluster"]
    assert reasons == ["erased is shared"]
    await steward.close()


async def test_an_erased_customer_is_nowhere_in_the_database(
    steward: Steward, database: Database, tmp_path: Path
) -> None:
    await steward.requests((TYPED_EMAIL, TYPED_NUMBER), (EMAIL, "222222"), (OTHER, OTHER_NUMBER), ("c@x.io", "222222"))
    await steward.ban(1, 3)
    await steward.requests((TYPED_EMAIL, OTHER_NUMBER))

    result = await steward.erase_cluster(2)

    left = await everything(database, tmp_path)
    rest = left.replace(OTHER, "").replace(OTHER_NUMBER, "")
    assert [form for form in (*FORMS, "222222", "c@x.io") if form.lower() in rest] == []
    assert await steward.clusters() == [[3]]
    for erased in (1, 2, 4):
        with pytest.raises(Gone, match=f"Contact {erased} was erased at") as gone:
            await steward.service.cluster(erased)
        assert gone.value.at == result.event.at


async def test_what_was_deleted_of_a_customer_is_erased_with_him(
    steward: Steward, database: Database, tmp_path: Path
) -> None:
    await steward.requests(
        ("first@x.io", "111111"), (EMAIL, "111111"), ("third@x.io", "111111"), ("other@x.io", "999999")
    )
    await steward.delete(2)
    await steward.delete(1)
    await steward.delete(4)

    await steward.erase_cluster(3)

    found = await everything(database, tmp_path)
    assert not any(value in found for value in (EMAIL, "first@x.io", "third@x.io", "111111"))
    assert "other@x.io" in found, "another customer's"


async def test_who_comes_again_after_an_erasure_is_a_new_customer_with_a_new_id(steward: Steward) -> None:
    await steward.requests((EMAIL, NUMBER))
    await steward.erase_cluster(1)

    again = await steward.identify(TYPED_EMAIL, TYPED_NUMBER)

    assert (again.outcome, again.cluster.primary.id) == ("CREATED", 2)
    assert again.cluster.emails == (EMAIL,)
    with pytest.raises(Gone, match="erased"):
        await steward.service.cluster(1)


async def test_what_an_erasure_took_apart_is_two_customers(steward: Steward) -> None:
    await steward.requests((EMAIL, "111111"), (EMAIL, "222222"))

    await steward.erase(email(EMAIL))

    assert await steward.clusters() == [[1], [2]]
    assert await steward.identifiers() == [{"111111"}, {"222222"}]


async def test_the_past_has_tokens_in_the_place_of_what_was_erased(steward: Steward, database: Database) -> None:
    await steward.requests((EMAIL, "111111"), ("second@x.io", "111111"), (EMAIL, "222222"))
    await steward.erase(email(EMAIL))

    past = replay(events_of(await database.dump(steward.storage))[:3])

    (cluster,) = past.clusters()
    token, second = cluster.emails
    assert second == "second@x.io"
    assert token.startswith("erased:")
    assert {contact.email for contact in cluster.contacts} == {token, second}, "the same wherever it stood"
    assert cluster.phone_numbers == ("111111", "222222")


async def test_two_erasures_have_different_tokens_for_the_same_value(steward: Steward, database: Database) -> None:
    for n in range(2):
        await steward.requests((EMAIL, f"11111{n}"))
        await steward.erase(email(EMAIL))

    asked = [row["email"] for row in (await database.tables())["event"] if row["kind"] == "identify"]
    assert len(set(asked)) == 2, "random, never a hash"


async def test_a_value_that_only_the_log_knows_can_be_erased(
    steward: Steward, database: Database, tmp_path: Path
) -> None:
    """A ban on the pair kept it back, and was lifted: nobody has it, and nothing waits."""
    await steward.requests((OTHER, NUMBER))
    await steward.undo(1, then_ban=True)
    await steward.requests((OTHER, NUMBER))
    await steward.unban(email(OTHER), phone_number(NUMBER))

    await steward.erase(phone_number(NUMBER))

    assert NUMBER not in await everything(database, tmp_path)
    with pytest.raises(NotFound, match="Nobody has this identifier"):
        await steward.erase(phone_number(NUMBER))


async def test_an_event_of_a_pair_that_was_erased_is_undone_but_not_banned(steward: Steward) -> None:
    await steward.requests((EMAIL, "111111"), (EMAIL, "222222"))
    await steward.erase(email(EMAIL))

    with pytest.raises(InvalidInput, match="was erased"):
        await steward.undo(2, then_ban=True)

    await steward.undo(2)
    assert await steward.clusters() == [[1]]


async def test_an_erased_contact_claims_nothing_though_the_split_that_took_its_email_is_undone(
    steward: Steward,
) -> None:
    await steward.requests((EMAIL, "111111"), (EMAIL, "222222"))
    split = await steward.split(2, identifiers=[email(EMAIL)])
    await steward.erase_cluster(1)

    await steward.undo(split.event.seq)

    assert await steward.clusters() == [[2]]
    assert await steward.identifiers() == [{EMAIL, "222222"}]


# -- identifiers of any kind, in the events of stewards


AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def customer_id(value: str) -> Identifier:
    return Identifier("customer_id", value)


def device_id(value: str) -> Identifier:
    return Identifier("device_id", value)


def event_with(verb: Verb, changes: Changes, *, actor: str = "ann", reason: str = "why") -> VerbEvent:
    return VerbEvent(AT, verb, changes, (1,), actor, reason, "3", 1, 1, 2, request_id="r-1")


def with_reason(reason: str) -> VerbEvent:
    return event_with(SplitCluster((2,)), Changes(), reason=reason)


def test_a_value_is_erased_of_its_kind_and_of_no_other() -> None:
    one, other, number = customer_id("424242"), device_id("424242"), phone_number("424242")
    contact = Contact(7, None, "424242", None, AT, AT)
    event = event_with(
        SplitCluster((2,), (one, other, number)),
        Changes(
            created=(contact,),
            contacts=(ContactChange(3, phone_number="424242"),),
            claims=((one, 7), (other, 7), (number, None)),
            pairs=(((one, number), 3),),
            withheld=(WithheldRow((one, other), 4, True),),
            parked=((7, (other, number), 5),),
        ),
    )
    token = customer_id("erased:1")

    erased = rewritten(event, {one: token.value})

    assert isinstance(erased, VerbEvent)
    assert erased.verb == SplitCluster((2,), (token, other, number))
    assert erased.changes == Changes(
        created=(contact,),
        contacts=(ContactChange(3, phone_number="424242"),),
        claims=((token, 7), (other, 7), (number, None)),
        pairs=(((token, number), 3),),
        withheld=(WithheldRow((token, other), 4, True),),
        parked=((7, (other, number), 5),),
    )
    assert erased.request_id is None

    erased = rewritten(event, {number: "erased:2"})

    assert isinstance(erased, VerbEvent)
    assert erased.changes.created[0].phone_number == "erased:2"
    assert erased.changes.contacts[0].phone_number == "erased:2"
    assert [identifier for identifier, _ in erased.changes.claims] == [one, other, phone_number("erased:2")]


@pytest.mark.parametrize("word", ["email", "phone_number", "customer_id", "device_id", "split_cluster", "verb"])
def test_a_value_that_is_a_word_of_the_log_is_erased_without_harm(word: str) -> None:
    erased, kept = customer_id(word), device_id(word)
    event = event_with(Undo(3, pairs=((erased, kept),)), Changes(pairs=(((erased, kept), 2),), claims=((kept, 1),)))

    result = rewritten(event, {erased: "erased:1"})

    token = customer_id("erased:1")
    assert isinstance(result, VerbEvent)
    assert result.verb == Undo(3, pairs=((token, kept),))
    assert result.changes == Changes(pairs=(((token, kept), 2),), claims=((kept, 1),))
    assert names(event, [erased])
    assert not names(result, [erased])


def test_an_event_names_an_identifier_only_by_its_kind() -> None:
    created = Changes(created=(Contact(7, "a@x.io", "424242", None, AT, AT),))
    event = event_with(Undo(3), created)

    assert names(event, [phone_number("424242")])
    assert names(event, [customer_id("none"), email("a@x.io")])
    assert not names(event, [customer_id("424242"), email("424242"), phone_number("a@x.io"), customer_id("email")])
    assert not names(event_with(Erase((customer_id("erased:1"),)), Changes()), [device_id("erased:1")])


def test_what_an_event_does_not_name_leaves_it_as_it_is() -> None:
    event = event_with(SplitCluster((2,), (device_id("424242"),)), Changes(claims=((phone_number("424242"), 1),)))

    assert rewritten(event, {customer_id("424242"): "erased:1", email("email"): "erased:2"}) == event


@pytest.mark.parametrize(
    ("reason", "after"),
    [
        ("AB-123 is shared", "erased is shared"),
        ("of ab-123, why?", "of erased, why?"),
        ("customer ab-123\u2019s and (Ab-123).", "customer erased\u2019s and (erased)."),
        ("xab-123", "xab-123"),
        ("ab-1234", "ab-1234"),
        ("ab 123", "ab 123"),
    ],
)
def test_a_value_of_another_kind_is_found_in_a_reason_as_it_is_in_any_case(reason: str, after: str) -> None:
    event = with_reason(reason)

    assert rewritten(event, {customer_id("Ab-123"): "erased:1"}).reason == after  # type: ignore[union-attr]
    assert names(event, [customer_id("Ab-123")]) is (reason != after)


@pytest.mark.parametrize("value", ["a.b+c", "(x|y)", "12345", "x@y.z"])
def test_a_value_of_another_kind_is_no_pattern_no_number_and_no_email(value: str) -> None:
    event = with_reason(f"it is {value}; not axb+c, xxxxx, 1 2 3 4 5 or q{value}q")

    erased = rewritten(event, {device_id(value): "erased:1"})

    assert isinstance(erased, VerbEvent)
    assert erased.reason == f"it is erased; not axb+c, xxxxx, 1 2 3 4 5 or q{value}q"


def test_a_short_value_of_another_kind_is_not_looked_for_in_texts() -> None:
    event = event_with(SplitCluster((2,)), Changes(), actor="a1b2", reason="1 of 4: a1b2, a1b2c")

    short = [customer_id("1"), device_id("a1b2")]
    assert not names(event, short)
    assert rewritten(event, dict.fromkeys(short, "erased:1")) == event
    assert names(event, [device_id("a1b2c")]), "five characters are enough"
    assert names(with_reason("42 called"), [phone_number("42")]), "phone numbers and emails always are"


VALUES = st.sampled_from(["42", "a@x.io", *BUILT_IN, "customer_id", "device_id", "erased", "2026-01-02T03:04:05Z"])
IDENTIFIERS = st.builds(Identifier, st.sampled_from([*BUILT_IN, "customer_id", "device_id"]), VALUES)
PAIRS = st.tuples(IDENTIFIERS, IDENTIFIERS).map(lambda ends: tuple(sorted(ends)))
IDS = st.integers(1, 9)
NUMBERS = st.none() | IDS
TIMES = st.datetimes(timezones=st.just(UTC))
CONTACTS = st.builds(
    Contact, IDS, st.none() | VALUES, st.none() | VALUES, NUMBERS, TIMES, TIMES, deleted_at=st.none() | TIMES
)
COLUMN = st.just(UNSET) | st.none() | VALUES
CHANGES = st.builds(
    Changes,
    created=st.lists(CONTACTS, max_size=3).map(tuple),
    contacts=st.lists(st.builds(ContactChange, IDS, COLUMN, COLUMN), max_size=3).map(tuple),
    claims=st.lists(st.tuples(IDENTIFIERS, NUMBERS), max_size=3).map(tuple),
    pairs=st.lists(st.tuples(PAIRS, NUMBERS), max_size=3).map(tuple),
    withheld=st.lists(st.builds(WithheldRow, PAIRS, NUMBERS, st.booleans()), max_size=3).map(tuple),
    links=st.lists(st.tuples(IDS, IDS, NUMBERS), max_size=3).map(tuple),
    bans=st.lists(st.tuples(IDS, IDS, NUMBERS), max_size=3).map(tuple),
    parked=st.lists(st.tuples(IDS, PAIRS, NUMBERS), max_size=3).map(tuple),
)


@given(CHANGES, st.sets(IDENTIFIERS, max_size=8))
def test_changes_have_tokens_for_just_what_is_erased_and_come_back(changes: Changes, erased: set[Identifier]) -> None:
    tokens = {identifier: ERASED + secrets.token_hex(8) for identifier in erased}

    there = replaced(changes, tokens)

    expected = [Identifier(i.kind, tokens.get(i, i.value)) for i in identifiers_in(changes)]
    assert sorted(identifiers_in(there)) == sorted(expected), "of one kind, a token may be the other end of its pair"
    assert replaced(there, {Identifier(i.kind, token): i.value for i, token in tokens.items()}) == changes
    event = event_with(Undo(1), changes)
    assert names(event, erased) is not erased.isdisjoint(identifiers_in(changes))
    assert not names(event_with(Undo(1), there), erased)


def identifiers_in(changes: Changes) -> Iterator[Identifier]:
    for address, number in (
        *((contact.email, contact.phone_number) for contact in changes.created),
        *((change.email, change.phone_number) for change in changes.contacts),
    ):
        for kind, value in zip(BUILT_IN, (address, number), strict=True):
            if isinstance(value, str):
                yield Identifier(kind, value)
    for identifier, _ in changes.claims:
        yield identifier
    for pair in (
        *(p for p, _ in changes.pairs),
        *(row.pair for row in changes.withheld),
        *(p for _, p, _ in changes.parked),
    ):
        yield from pair


# -- SQLite's files


async def test_nothing_of_five_hundred_erased_among_three_thousand_is_in_the_file(databases: Databases) -> None:
    """Pages were split and joined meanwhile, and copies of rows may stay where they once were."""
    database = await databases.get("sqlite")
    storage = database.open()
    steward = Steward(storage)
    for start in range(0, 3000, 1000):
        numbers = range(start, start + 1000)
        await steward.service.identify_many([Given(f"gone{n * 7919 % 3000}@x.io", f"77{n % 900:06}") for n in numbers])

    for n in range(0, 60):
        await steward.erase_cluster((await steward.identify(None, f"77{n * 15:06}")).cluster.primary.id)

    rows = await database.check()
    known = {row["email"] for row in rows["contact"]}
    erased = [address for n in range(3000) if (address := f"gone{n}@x.io") not in known]
    left = raw(database)
    await steward.close()
    await storage.close()
    assert len(erased) > 150
    assert [address for address in erased if address.encode() in left] == []


async def test_while_somebody_reads_the_steward_is_warned_what_is_left_behind(sqlite: Database) -> None:
    storage = sqlite.open()
    steward = Steward(storage)
    await steward.requests((EMAIL, NUMBER))
    reader = sqlite3.connect(sqlite.url.removeprefix("sqlite:///"), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM contact").fetchall()

    observability.configure(level="INFO", form="json")
    with structlog.testing.capture_logs() as logs:
        await steward.erase(email(EMAIL))
    observability.configure(level="ERROR", form="json")

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("steward", "info"),
        ("erasure.left_behind", "warning"),
    ]
    assert EMAIL.encode() in raw(sqlite)
    reader.execute("COMMIT")
    reader.close()
    await steward.erase(phone_number(NUMBER))
    assert EMAIL.encode() not in raw(sqlite), "the next erasure takes it along"
    await steward.close()
    await storage.close()


# -- looking for it


async def everything(database: Database, folder: Path) -> str:
    """All that the database holds, as text in small letters: every column of every row, and every raw byte or dump."""
    found = []
    storage = database.open(size=1)
    async with storage.reading() as connection:
        for table in TABLES:
            columns = [sa.cast(column, sa.Text if database.name != "mariadb" else sa.CHAR) for column in table.columns]
            found += [repr(tuple(row)) for row in await connection.execute(sa.select(*columns))]
    await storage.close()
    if database.name == "sqlite":
        found.append(raw(database).decode("latin-1"))
    else:
        found.append(await asyncio.to_thread(dumped, database))
    return "\n".join(found).lower()


def raw(database: Database) -> bytes:
    """The file, and those beside it."""
    path = Path(database.url.removeprefix("sqlite:///"))
    return b"".join(part.read_bytes() for part in path.parent.glob(f"{path.name}*"))


def dumped(database: Database) -> str:
    """As the database's own tool dumps it; nothing where there is no such tool, or too old a one."""
    url = sa.make_url(database.url)
    commands: dict[str, list[Any]] = {
        "postgresql": ["pg_dump", "--inserts", f"--dbname={database.url}"],
        "mariadb": ["mariadb-dump", "-h", url.host, "-P", str(url.port), "-u", url.username, url.database],
    }
    command = commands[database.name]
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
