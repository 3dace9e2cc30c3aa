"""A dry run of `identifyMany`: the answers that it would have, and nothing is written."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from identity_graphql.domain.contacts import PROVISIONAL
from identity_graphql.domain.events import PROVISIONAL_SEQ
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.domain.reconcile import Decision
from identity_graphql.errors import Busy
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.storage import Storage
from tests.support.databases import Database, empty
from tests.support.graphql import BY, CONTACT, EVENT, NODE, data, identify
from tests.support.statements import statements

Item = tuple[str | None, str | None]

# What an item comes to, and what is read from the log as it would be after all of them.
TOLD = f"""outcome demoted {{ {CONTACT} }} warnings {{ code field message }} events {{ {EVENT} }}
  contact {{ {CONTACT} history(first: 9) {{ edges {{ node {{ {EVENT} }} }} }} }}
  cluster {{ id primaryContactId size version changedAt redacted emails phoneNumbers secondaryContactIds
    contacts(first: 30) {{ edges {{ node {{ {CONTACT} linked {{ id }} cluster {{ id size }} }} }} }} }}"""
READ = (
    f"cluster {{ history(first: 20) {{ edges {{ node {{ {EVENT} }} }} }} }}",
    f"cluster {{ evidence {{ nodes {NODE} edges {{ kind source target event }} }} }}",
    f"""cluster {{ bridges(first: 9) {{ edges {{ node {{
      kind source {NODE} target {NODE} event {{ {EVENT} }} partSizes parts }} }} }} }}""",
    """cluster { bans { contactId otherId event actor } withheld { identifiers { kind value } standing withheldBy event
      holders { id size emails } } }""",
)


async def many(client: httpx2.AsyncClient, items: list[Item], *, dry: bool, asked: str = TOLD) -> list[Any]:
    query = f"""mutation ($items: [IdentifyInput!]!, $dry: Boolean!) {{
      identifyMany(items: $items, dryRun: $dry) {{ payload {{ {asked} }} error {{ code field message }} }} }}"""
    given = [{"email": email, "phoneNumber": phone_number} for email, phone_number in items]
    answers: list[Any] = (await data(client, query, items=given, dry=dry))["identifyMany"]
    return answers


def tried(answers: object, known: int) -> Any:
    """The answer to a dry run with the ids that its new contacts would get behind so many known ones."""
    text = json.dumps(answers)
    assert str(PROVISIONAL)[:9] not in text, "a provisional id"
    assert str(PROVISIONAL_SEQ)[:9] not in text, "a provisional number"
    text = re.sub(r'"(contact:)?new(?:-(\d+))?"', lambda m: f'"{m[1] or ""}{known + int(m[2] or 1)}"', text)
    return json.loads(_undated(text))


def done(answers: object, known: int, newest: int) -> Any:
    """The same answer of doing it, without the numbers of the events that came."""

    def numbered(match: re.Match[str]) -> str:
        return match[0] if int(match[2]) <= newest else f'"{match[1]}": null'

    def named(match: re.Match[str]) -> str:
        return match[0] if int(match[1]) <= known else "a new contact"

    text = re.sub(r'"(seq|event)": "(\d+)"', numbered, json.dumps(answers))
    text = re.sub(r'"summary": "[^"]*"', lambda summary: re.sub(r"contact (\d+)", named, summary[0]), text)
    return json.loads(_undated(text))


def _undated(text: str) -> str:
    text = re.sub(r'"\d{4}-\d\d-\d\dT[^"]*"', '"then"', text)
    return re.sub(r'"event": "0"', '"event": null', re.sub(r'"requestId": "[^"]*"', '"requestId": null', text))


async def assert_foreseen(client: httpx2.AsyncClient, database: Database, items: list[Item]) -> None:
    """Try it, see that nothing was written, do it, and compare."""
    before = await database.dump()
    foreseen = await many(client, items, dry=True)
    read = [await many(client, items, dry=True, asked=asked) for asked in READ]
    assert await database.dump() == before, "a dry run writes nothing"

    known = max((row[0] for row in before["contact"]), default=0)
    newest = max((row[0] for row in before["event"]), default=0)
    answers = await many(client, items, dry=False)
    assert tried(foreseen, known) == done(answers, known, newest)
    again = [await many(client, items, dry=False, asked=asked) for asked in READ]
    assert tried(read, known) == done(again, known, newest)
    await database.check()


HISTORY: list[Item] = [("a@x.io", "111"), ("b@x.io", "222"), ("b2@x.io", "222"), ("c@x.io", "333"), (None, "444")]
ITEMS: dict[str, list[Item]] = {
    "new ones that meet": [
        ("n@x.io", "777"),
        ("m@x.io", "888"),
        ("n@x.io", "888"),
        ("m@x.io", "777"),
        ("n@x.io", None),
    ],
    "an old one after new ones": [("n@x.io", "777"), ("n@x.io", "111"), ("m@x.io", "777")],
    "several old ones": [("a@x.io", "222"), ("c@x.io", "222"), ("b2@x.io", "333"), ("a@x.io", "444")],
    "nothing new": [("a@x.io", "111"), ("b@x.io", None), (None, "444")],
    "some that fail": [("a@x.io", "444"), ("@", None), (None, None), ("n@x.io", "null"), ("n@x.io", "444")],
    "a ban in the way": [("a@x.io", "333"), ("c@x.io", "111"), ("n@x.io", "111"), ("n@x.io", "333"), ("a@x.io", "333")],
    "a ban in the way of a merger": [
        ("b@x.io", "111"),
        ("b2@x.io", "333"),
        ("n@x.io", "222"),
        ("c@x.io", "222"),
    ],
}


async def prepare(client: httpx2.AsyncClient, *, ban: bool) -> None:
    await identify(client, *HISTORY)
    if ban:
        arguments = f"a: {{contactId: 1}}, b: {{contactId: 4}}, {BY}, expectedVersion: 1, expectedOtherVersion: 1"
        await data(client, f"mutation {{ banLink({arguments}) {{ dryRun }} }}")


@pytest.mark.parametrize("case", ITEMS)
async def test_many_that_are_tried_answer_what_they_answer_when_they_are_done(
    client: httpx2.AsyncClient, database: Database, case: str
) -> None:
    await prepare(client, ban="ban" in case)

    await assert_foreseen(client, database, ITEMS[case])


names = st.sampled_from([None, "@", *[f"{name}@x.io" for name in ("a", "b", "b2", "c", "n", "m", "o")]])
numbers = st.sampled_from([None, "null", "111", "222", "333", "444", "777", "888"])


@given(items=st.lists(st.tuples(names, numbers), min_size=1, max_size=12), ban=st.booleans())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@example(items=[("n@x.io", "222"), ("m@x.io", "333"), ("m@x.io", "222"), ("n@x.io", "111")], ban=True)
async def test_whatever_is_tried_comes_to_what_it_comes_to_when_it_is_done(
    client: httpx2.AsyncClient, database: Database, items: list[Item], ban: bool
) -> None:
    await empty(database)
    await prepare(client, ban=ban)

    await assert_foreseen(client, database, items)


async def test_new_contacts_of_a_dry_run_are_numbered_in_their_order(embedded: httpx2.AsyncClient) -> None:
    asked = "outcome cluster { id emails secondaryContactIds } contact { id } demoted { id } events { seq summary }"
    answers = await many(
        embedded, [("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "222"), ("c@x.io", "111")], dry=True, asked=asked
    )

    assert [item["payload"]["contact"] for item in answers] == [{"id": "new"}, {"id": "new-2"}, {"id": "new-3"}, None]
    merged = answers[3]["payload"]
    assert merged["cluster"] == {
        "id": "new",
        "emails": ["a@x.io", "b@x.io", "c@x.io"],
        "secondaryContactIds": ["new-2", "new-3"],
    }
    assert merged["demoted"] == [{"id": "new-2"}]
    assert merged["events"] == [
        {"seq": None, "summary": "the cluster of a new contact was merged into that of a new contact"}
    ]


async def test_a_dry_run_of_a_thousand_items_is_one_statement(service: IdentityService, database: Database) -> None:
    items = [Given(f"{n % 300}@x.io", f"5{n % 170:03}") for n in range(1000)]
    before = await database.dump()

    with statements() as sent:
        foreseen = await service.identify_many(items, dry_run=True)
    assert len(sent) == 1
    assert await database.dump() == before
    answers = await service.identify_many(items)

    def told(results: list[Any]) -> list[Any]:
        assert all(isinstance(result, Decision) for result in results)
        return [(d.outcome, d.cluster.emails, d.cluster.phone_numbers, d.cluster.version) for d in results]

    assert told(foreseen) == told(answers)


async def test_the_history_of_a_dry_run_comes_page_by_page(embedded: httpx2.AsyncClient) -> None:
    items: list[Item] = [(f"{n}@x.io", "111") for n in range(5)]
    await identify(embedded, *items[:2])
    after, found = "", list[str]()
    for _ in range(3):
        page = f"history(first: 2{after}) {{ edges {{ node {{ email }} }} pageInfo {{ endCursor hasNextPage }} }}"
        answers = await many(embedded, items, dry=True, asked=f"cluster {{ {page} }}")
        history = answers[-1]["payload"]["cluster"]["history"]
        found += [edge["node"]["email"] for edge in history["edges"]]
        after = f', after: "{history["pageInfo"]["endCursor"]}"'

    assert found == [email for email, _ in items]
    assert not history["pageInfo"]["hasNextPage"]


async def test_what_was_tried_on_a_state_that_is_no_more_is_busy(storage: Storage) -> None:
    service, history = IdentityService(storage, Normalisation()), HistoryService(storage)
    await service.identify(Given(email="a@x.io", phone_number="111"))
    decision = await service.preview(Given(email="b@x.io", phone_number="111"))
    assert decision.event is not None
    assert len((await history.of_contacts_after([1], [decision.event])).events) == 2
    await service.identify(Given(email="c@x.io", phone_number="111"))

    with pytest.raises(Busy):
        await history.of_contacts_after([1], [decision.event])
    await service.close()
    await history.close()
