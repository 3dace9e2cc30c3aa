"""Requests with identifiers of any kind, over real HTTP: REST and GraphQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from identity_graphql.api import rest
from tests.support.databases import Database
from tests.support.graphql import data, refusal
from tests.support.serving import serving

KINDS = json.dumps(
    {
        "customer_id": {"limit": 1, "on_limit": "withhold"},
        "device_id": {"limit": 3},
        "loyalty_card": {"case": "fold", "pattern": "[a-z]{2}[0-9]{2}"},
        "dry_run": {},  # also the name of an argument
    }
)


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(database.url, identifier_kinds=KINDS) as client:
        yield client


@pytest.fixture
async def embedded(sqlite: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(sqlite.url, identifier_kinds=KINDS) as client:
        yield client


async def post(client: httpx2.AsyncClient, path: str = "/identify", **said: Any) -> httpx2.Response:
    return await client.post(path, json=said)


# -- REST


async def test_values_lists_and_integers_are_identifiers_and_answered_where_they_were_asked(
    client: httpx2.AsyncClient, database: Database
) -> None:
    plain = await post(client, email="a@x.io", phoneNumber="111")
    known = '{"contact":{"primaryContatctId":1,"emails":["a@x.io"],"phoneNumbers":["111"],"secondaryContactIds":[]'
    assert plain.text == known + "}}"

    given = {"customer_id": 42, "device_id": ["b", "a"], "loyalty_card": " AB12 "}
    told = await post(client, email="a@x.io", identifiers=given)
    assert told.text == (
        '{"contact":{"primaryContatctId":1,"emails":["a@x.io"],"phoneNumbers":["111"],"secondaryContactIds":[2],'
        '"identifiers":{"customer_id":["42"],"device_id":["a","b"],"loyalty_card":["ab12"]}}}'
    )
    again = known.replace('Ids":[]', 'Ids":[2]')
    assert (await post(client, email="a@x.io")).text == again + "}}", "the same without"
    assert (await post(client, email="a@x.io", identifiers=None)).text == again + "}}"
    assert (await post(client, email="a@x.io", identifiers={})).text == told.text
    for same in ({"customer_id": "42"}, {"customer_id": [42.0]}, {"device_id": ["a", "a"]}, {"loyalty_card": "aB12"}):
        assert (await post(client, identifiers=same)).text == told.text
        assert (await post(client, "/lookup", identifiers=same)).text == told.text
    await database.check()
    assert len((await database.tables())["event"]) == 2


@pytest.mark.parametrize("contract", sorted(rest.CONTRACTS))
async def test_the_other_kinds_are_the_last_key_of_every_contract(sqlite: Database, contract: str) -> None:
    async with serving(sqlite.url, identifier_kinds=KINDS, rest_contract=contract) as client:
        answer = (await post(client, identifiers={"customer_id": 42, "email": ["B@x.io", "c@x.io"]})).json()

    contact = answer.get("contact", answer)
    assert list(contact)[-1] == "identifiers"
    assert contact["identifiers"] == {"customer_id": ["42"]}
    assert contact["emails"] == ["b@x.io", "c@x.io"]


async def test_a_fact_that_is_older_becomes_the_primary(client: httpx2.AsyncClient, database: Database) -> None:
    for email in ("a@x.io", "b@x.io"):
        await post(client, email=email, identifiers={"device_id": "d"})
    late = await post(
        client, email="c@x.io", identifiers={"device_id": "d"}, source="shop", occurredAt="2020-02-03T04:05:06+01:00"
    )

    contact = late.json()["contact"]
    assert (contact["primaryContatctId"], contact["secondaryContactIds"]) == (3, [1, 2])
    assert contact["emails"] == ["c@x.io", "a@x.io", "b@x.io"]
    rows = await database.check()
    assert [row["linked_id"] for row in rows["contact"]] == [3, 3, None]
    assert rows["contact"][2]["created_at"] == datetime(2020, 2, 3, 3, 5, 6, tzinfo=UTC)
    assert rows["contact"][2]["updated_at"] == rows["event"][2]["at"], "when it was written"
    event = rows["event"][2]
    assert (event["source"], event["occurred_at"], event["version_after"]) == (
        "shop",
        rows["contact"][2]["created_at"],
        3,
    )
    history = await data(client, '{ cluster(id: "1") { history { edges { node { seq } } } } }')
    assert [edge["node"]["seq"] for edge in history["cluster"]["history"]["edges"]] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "moment", ["1000-01-01T00:00:00Z", "1582-10-10T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z"]
)
async def test_any_moment_of_the_past_can_be_given(client: httpx2.AsyncClient, database: Database, moment: str) -> None:
    response = await post(client, email="a@x.io", occurredAt=moment)

    assert response.status_code == 200, response.text
    (contact,) = (await database.check())["contact"]
    assert contact["created_at"] == datetime.fromisoformat(moment)


async def test_a_limit_that_withholds_is_told_with_the_answer(client: httpx2.AsyncClient, database: Database) -> None:
    await post(client, email="a@x.io", identifiers={"customer_id": "1"})
    await post(client, email="b@x.io", identifiers={"customer_id": "2"})
    held = await post(client, email="b@x.io", identifiers={"customer_id": "1"})

    assert held.headers["x-identity-warnings"] == "root=LINK_WITHHELD"
    assert held.json()["contact"]["emails"] == ["a@x.io"]
    over = await post(client, email="a@x.io", identifiers={"device_id": ["a", "b", "c", "d"]})
    assert over.headers["x-identity-warnings"] == "device_id=LIMIT_EXCEEDED"
    assert "x-identity-warnings" not in (await post(client, identifiers={"device_id": "a"})).headers
    (withheld,) = (await database.check())["withheld_pair"]
    assert (withheld["limit_kind"], withheld["banned"]) == ("customer_id", False)


async def test_sixteen_identifiers_are_taken_and_are_120_pairs(client: httpx2.AsyncClient, database: Database) -> None:
    emails = [f"e{n}@x.io" for n in range(15)]
    answer = await post(client, email="first@x.io", identifiers={"email": emails})

    assert answer.json()["contact"]["emails"] == ["first@x.io", *sorted(emails)]
    rows = await database.check()
    assert len(rows["pair"]) == 120
    assert len(rows["contact"]) == 1


async def test_look_up_finds_by_any_kind_and_decides_nothing(client: httpx2.AsyncClient, database: Database) -> None:
    await post(client, identifiers={"customer_id": "1", "device_id": "d"})
    await post(client, identifiers={"customer_id": "2"})
    before = await database.dump()

    assert (await post(client, "/lookup", identifiers={"device_id": ["d", "new"]})).status_code == 200
    assert (await post(client, "/lookup", identifiers={"device_id": "new"})).status_code == 404
    both = await post(client, "/lookup", identifiers={"device_id": "d", "customer_id": 2})
    assert (both.status_code, "(contacts 1, 2)" in both.text) == (400, True)
    assert await database.dump() == before


FUTURE = "2100-01-01T00:00:00Z"
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown kind": ({"identifiers": {"customer": "1"}}, ["identifiers"]),
    "a kind in other letters": ({"identifiers": {"Customer_ID": "1"}}, ["identifiers"]),
    "seventeen": ({"identifiers": {"device_id": [f"d{n}" for n in range(17)]}}, ["root"]),
    "nothing": ({"identifiers": {}}, ["root"]),
    "a list of nothing": ({"identifiers": {"device_id": []}}, ["root"]),
    "words for nothing": ({"identifiers": {"device_id": ["null", "", None]}}, ["root"]),
    "a list instead of an object": ({"identifiers": [["device_id", "1"]]}, ["identifiers"]),
    "a text instead of an object": ({"identifiers": "device_id"}, ["identifiers"]),
    "an object": ({"identifiers": {"device_id": {"a": 1}}}, ["identifiers.device_id"]),
    "a list in a list": ({"identifiers": {"device_id": [["a"]]}}, ["identifiers.device_id"]),
    "a boolean": ({"identifiers": {"device_id": True}}, ["identifiers.device_id"]),
    "a fraction": ({"identifiers": {"device_id": 1.5}}, ["identifiers.device_id"]),
    "2 to the 53": ({"identifiers": {"device_id": 2**53}}, ["identifiers.device_id"]),
    "a control character": ({"identifiers": {"device_id": "a\x07"}}, ["identifiers.device_id"]),
    "too long": ({"identifiers": {"device_id": "x" * 255}}, ["identifiers.device_id"]),
    "far too long": ({"identifiers": {"device_id": "x" * 5000}}, ["identifiers.device_id"]),
    "another pattern": ({"identifiers": {"loyalty_card": "abc"}}, ["identifiers.loyalty_card"]),
    "what stands for erased": ({"identifiers": {"device_id": "erased:1"}}, ["identifiers.device_id"]),
    "a bad email": ({"identifiers": {"email": "a"}}, ["email"]),
    "a boolean as phone number": ({"identifiers": {"phone_number": False}}, ["phoneNumber"]),
    "a kind that is called as an argument": ({"identifiers": {"dry_run": True}}, ["identifiers.dry_run"]),
    "several": (
        {"identifiers": {"device_id": True, "no": 1, "loyalty_card": "x"}, "source": 1},
        ["identifiers.device_id", "identifiers", "identifiers.loyalty_card", "source"],
    ),
    "the future": ({"email": "a@x.io", "occurredAt": FUTURE}, ["occurredAt"]),
    "no moment": ({"email": "a@x.io", "occurredAt": "yesterday"}, ["occurredAt"]),
    "no offset": ({"email": "a@x.io", "occurredAt": "2020-01-01T00:00:00"}, ["occurredAt"]),
    "a number as moment": ({"email": "a@x.io", "occurredAt": 1_600_000_000}, ["occurredAt"]),
    "a moment before all": ({"email": "a@x.io", "occurredAt": "0001-01-01T00:00:00+01:00"}, ["occurredAt"]),
    "the first moment of all": ({"email": "a@x.io", "occurredAt": "0001-01-01T00:00:00Z"}, ["occurredAt"]),
    "a long source": ({"email": "a@x.io", "source": "s" * 65}, ["source"]),
    "a number as source": ({"email": "a@x.io", "source": 5}, ["source"]),
    "an unreadable source": ({"email": "a@x.io", "source": "a\x00"}, ["source"]),
}


@pytest.mark.parametrize("path", ["/identify", "/lookup"])
async def test_bad_input_names_the_field_and_changes_nothing(
    embedded: httpx2.AsyncClient, sqlite: Database, path: str
) -> None:
    await post(embedded, email="a@x.io", identifiers={"device_id": "d"})
    before = await sqlite.dump()
    for wrong, (said, paths) in BAD.items():
        response = await post(embedded, path, **said)
        assert response.status_code == 400, (wrong, response.text)
        assert [detail["path"] for detail in response.json()["details"]] == paths, wrong
        for detail in response.json()["details"]:
            assert detail["message"].isprintable(), wrong
            assert len(detail["message"]) < 300, wrong
            assert "customerId" not in detail["message"], wrong
    assert await sqlite.dump() == before


async def test_without_kinds_of_its_own_a_server_refuses_them_by_name(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        response = await post(client, email="a@x.io", identifiers={"customer_id": 1})
        message = response.json()["details"][0]["message"]
        assert message.startswith("customer_id is no kind of identifier here; there are email, phone_number")
        assert (await post(client, identifiers={"email": "a@x.io"})).json()["contact"]["identifiers"] == {}
    assert len((await sqlite.tables())["contact"]) == 1


async def test_a_kind_that_is_no_longer_declared_is_still_answered(sqlite: Database) -> None:
    async with serving(sqlite.url, identifier_kinds=KINDS) as client:
        await post(client, email="a@x.io", identifiers={"device_id": "d"})
    async with serving(sqlite.url, identifier_kinds="{}", accept_normalisation_change=True) as client:
        answer = await post(client, email="a@x.io", identifiers={})
        assert answer.json()["contact"]["identifiers"] == {"device_id": ["d"]}
        assert (await post(client, identifiers={"device_id": "d"})).status_code == 400


# -- GraphQL

IDENTIFY = """mutation ($email: String, $identifiers: [IdentifierInput!], $source: String, $occurredAt: DateTime,
    $dryRun: Boolean! = false) {
  identify(email: $email, identifiers: $identifiers, source: $source, occurredAt: $occurredAt, dryRun: $dryRun) {
    outcome warnings { code field } cluster { primary { id } emails identifiers { kind value }
    devices: identifiers(kind: "device_id") { value } }
    contact { identifiers { kind value } claims: identifiers(kind: "customer_id") { value } } } }"""


def pairs(**values: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "value": value} for kind, value in values.items()]


async def test_graphql_identifies_by_any_kind(client: httpx2.AsyncClient, database: Database) -> None:
    said = {"identifiers": pairs(device_id="d", customer_id=42, email="A@x.io"), "source": "shop"}
    foreseen = (await data(client, IDENTIFY, **said, dryRun=True))["identify"]
    told = (await data(client, IDENTIFY, **said))["identify"]

    carried = pairs(email="a@x.io", customer_id="42", device_id="d")
    assert told["outcome"] == foreseen["outcome"] == "CREATED"
    assert told["cluster"]["identifiers"] == foreseen["cluster"]["identifiers"] == carried
    assert told["cluster"]["devices"] == [{"value": "d"}]
    assert told["contact"] == {"identifiers": carried, "claims": [{"value": "42"}]}
    again = (await data(client, IDENTIFY, **said))["identify"]
    assert (again["outcome"], again["contact"]) == ("UNCHANGED", None)
    held = (await data(client, IDENTIFY, identifiers=pairs(customer_id=43, device_id="d")))["identify"]
    assert (held["outcome"], held["warnings"]) == ("WITHHELD", [{"code": "LINK_WITHHELD", "field": None}])
    found = "query ($i: IdentifierInput) { cluster(identifier: $i) { primary { id } } }"
    for identifier, home in (*zip(carried, "111", strict=True), (pairs(customer_id=43)[0], "2")):
        assert (await data(client, found, i=identifier))["cluster"]["primary"]["id"] == home
    assert (await data(client, found, i=pairs(device_id="no")[0]))["cluster"] is None
    await database.check()


async def test_graphql_lists_the_kinds_by_priority(embedded: httpx2.AsyncClient) -> None:
    kinds = (await data(embedded, "{ identifierKinds { name limit withholds } }"))["identifierKinds"]

    assert [kind["name"] for kind in kinds] == [
        *("customer_id", "email", "phone_number", "device_id", "loyalty_card", "dry_run")
    ]
    assert kinds[0] == {"name": "customer_id", "limit": 1, "withholds": True}
    assert [kind["limit"] for kind in kinds[1:]] == [None, None, 3, None, None]


async def test_many_of_any_kind_fail_alone(client: httpx2.AsyncClient, database: Database) -> None:
    query = """mutation ($items: [IdentifyInput!]!) { identifyMany(items: $items) {
        payload { outcome cluster { primary { id } } } error { code field message } } }"""
    items = [
        {"identifiers": pairs(customer_id=1, device_id="d")},
        {"identifiers": pairs(no_kind=1)},
        {"identifiers": pairs(device_id="d", loyalty_card="ab12"), "source": "shop"},
        {"identifiers": pairs(device_id=True)},
        {"email": "a@x.io", "occurredAt": FUTURE},
        {"identifiers": pairs(loyalty_card="AB12", email="o@x.io"), "occurredAt": "2020-01-01T00:00:00Z"},
        {"identifiers": [*pairs(device_id="d")] * 17},
    ]
    many = (await data(client, query, items=items))["identifyMany"]

    outcomes = [
        item["payload"] and (item["payload"]["outcome"], item["payload"]["cluster"]["primary"]["id"]) for item in many
    ]
    assert outcomes == [("CREATED", "1"), None, ("LINKED", "1"), None, None, ("LINKED", "3"), ("UNCHANGED", "3")]
    errors = [item["error"] and (item["error"]["code"], item["error"]["field"]) for item in many]
    assert errors == [
        *(None, ("BAD_USER_INPUT", "identifiers"), None, ("BAD_USER_INPUT", "identifiers.device_id")),
        *(("BAD_USER_INPUT", "occurredAt"), None, None),
    ]
    assert many[1]["error"]["message"].startswith("no_kind is no kind")
    await database.check()


async def test_verbs_and_explain_take_any_kind(client: httpx2.AsyncClient, database: Database) -> None:
    for said in ({"device_id": "d", "customer_id": 1}, {"device_id": "e", "loyalty_card": "ab12"}):
        await post(client, identifiers=said)
    by = 'actor: "ann", reason: "because"'
    ends = 'a: {identifier: {kind: "device_id", value: "d"}}, b: {identifier: {kind: "loyalty_card", value: "AB12"}}'
    versions = "expectedVersion: 1, expectedOtherVersion: 1"
    ban = f"mutation {{ banLink({ends}, {by}, {versions}) {{ event {{ seq }} }} }}"
    assert (await data(client, ban))["banLink"]["event"]["seq"] == "3"
    held = await post(client, identifiers={"device_id": ["d", "e"]})
    assert held.headers["x-identity-warnings"] == "root=LINK_WITHHELD"
    query = """query ($from: IdentifierInput, $to: IdentifierInput) {
        explain(from: {identifier: $from}, to: {identifier: $to}) { connected words bans { event } } }"""

    async def explained(one: dict[str, Any], other: dict[str, Any]) -> Any:
        return (await data(client, query, **{"from": pairs(**one)[0], "to": pairs(**other)[0]}))["explain"]

    connected = await explained({"customer_id": 1}, {"device_id": "d"})
    assert connected["connected"]
    assert [line.partition(" on ")[0] for line in connected["words"]] == [
        "customer_id 1 and device_id d were seen together"
    ]
    apart = await explained({"customer_id": 1}, {"device_id": "e"})
    assert (apart["connected"], [ban["event"] for ban in apart["bans"]]) == (False, ["3"])

    card = 'identifier: {kind: "loyalty_card", value: "Ab12"}, expectedVersion: 2'
    erased = await data(client, f"mutation {{ eraseIdentifier({card}, {by}) {{ dryRun }} }}")
    assert erased == {"eraseIdentifier": {"dryRun": False}}
    assert (await post(client, "/lookup", identifiers={"loyalty_card": "ab12"})).status_code == 404
    assert (await post(client, "/lookup", identifiers={"device_id": "e"})).json()["contact"]["identifiers"] == {
        "device_id": ["e"]
    }
    rows = await database.check()
    assert "ab12" not in str(rows).lower()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ('{ cluster(identifier: {kind: "no", value: 1}) { size } }', "identifier.identifiers"),
        ('{ cluster(identifier: {kind: "device_id", value: ""}) { size } }', "identifier"),
        ('{ cluster(identifier: {kind: "device_id", value: true}) { size } }', "identifier.identifiers.device_id"),
        ('{ cluster(identifier: {kind: "device_id", value: 1.5}) { size } }', "identifier.identifiers.device_id"),
        ('{ cluster(id: 1, identifier: {kind: "device_id", value: 1}) { size } }', None),
        ("{ cluster { size } }", None),
        (
            'mutation { identify(identifiers: [{kind: "loyalty_card", value: "x"}]) { outcome } }',
            "identifiers.loyalty_card",
        ),
        ("mutation { identify(identifiers: []) { outcome } }", None),
        (f'mutation {{ identify(email: "a@x.io", source: "{"s" * 65}") {{ outcome }} }}', "source"),
        (f'mutation {{ identify(email: "b@x.io", occurredAt: "{FUTURE}") {{ outcome }} }}', "occurredAt"),
    ],
)
async def test_graphql_names_what_is_wrong(
    embedded: httpx2.AsyncClient, sqlite: Database, query: str, field: str | None
) -> None:
    extensions = await refusal(embedded, query)

    assert (extensions["code"], extensions["field"]) == ("BAD_USER_INPUT", field)
    assert (await sqlite.tables())["event"] == []
