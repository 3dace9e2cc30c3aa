"""A steward's verbs, and what they are decided from, through HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.support.databases import Database
from tests.support.graphql import BY, ask, data, identify, refusal

DEED = """{ dryRun expectedVersion expectedOtherVersion waiting event { seq kind outcome summary actor reason }
  clusters { id size version emails phoneNumbers }
  changes {
    contacts { id before { linkedId deletedAt } after { linkedId deletedAt } }
    identifiers { kind value before after }
    pairs { identifiers { value } before after }
    links { contactId otherId added }
    bans { contactId otherId added }
  } }"""

NO_EMAIL = '{kind: "email", value: ""}'


async def do(client: httpx2.AsyncClient, verb: str, arguments: str) -> Any:
    """A dry run, and then what it said, with the version that it said."""
    preview = (await data(client, f"mutation {{ {verb}({arguments}, {BY}, dryRun: true) {DEED} }}"))[verb]
    versions = f"expectedVersion: {preview['expectedVersion']}"
    if preview["expectedOtherVersion"] is not None:
        versions += f", expectedOtherVersion: {preview['expectedOtherVersion']}"
    done = (await data(client, f"mutation {{ {verb}({arguments}, {BY}, {versions}) {DEED} }}"))[verb]
    assert preview["dryRun"]
    assert not done["dryRun"]
    told, did = _undated(preview["changes"]), _undated(done["changes"])
    if verb.startswith("erase"):
        assert {change["value"] for change in did["identifiers"]} == {None}, "it does not say once more what it erased"
        assert did["contacts"] == told["contacts"]
    else:
        assert did == told, "the dry run told exactly what would change"
    assert done["clusters"] == preview["clusters"]
    return done


def _undated(changes: dict[str, Any]) -> dict[str, Any]:
    for change in changes["contacts"]:
        for row in (change["before"], change["after"]):
            if row is not None:
                row["deletedAt"] = row["deletedAt"] is not None
    return changes


FAMILY = [("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "333"), ("a@x.io", "333"), ("d@x.io", "333")]


async def test_a_wrong_merge_is_seen_and_taken_back(client: httpx2.AsyncClient, database: Database) -> None:
    await identify(client, *FAMILY)

    found = await data(
        client,
        """{ cluster(email: "d@x.io") { id version
          history { edges { node { seq kind outcome summary email phoneNumber givenEmail undoneBy } } }
          bridges { edges { node { kind source { key } target { key } event { seq } parts partSizes } } }
          evidence { nodes { key } edges { kind source target event } } }
          explain(from: {email: "b@x.io"}, to: {contactId: "4"}) { connected words steps { event { seq } } } }""",
    )
    nodes = [edge["node"] for edge in found["cluster"]["bridges"]["edges"]]
    assert [node["partSizes"] for node in nodes] == [[2, 2], [3, 1], [3, 1]], "the most equal parts first"
    bridges = {node["event"]["seq"]: node["parts"] for node in nodes}
    assert bridges == {"2": [["1", "3", "4"], ["2"]], "4": [["1", "2"], ["3", "4"]], "5": [["1", "2", "3"], ["4"]]}
    assert [edge["node"]["outcome"] for edge in found["cluster"]["history"]["edges"]] == [
        *("CREATED", "LINKED", "CREATED", "MERGED", "LINKED")
    ]
    assert len(found["cluster"]["evidence"]["nodes"]) == 4 + 6
    assert found["explain"]["connected"]
    assert [step["event"]["seq"] for step in found["explain"]["steps"]] == ["2", "1", "4", "5", "5"]
    assert found["explain"]["words"][-1].startswith("contact 4 brought d@x.io on ")

    done = await do(client, "undo", 'event: "4"')

    assert [(c["id"], c["emails"], c["phoneNumbers"]) for c in done["clusters"]] == [
        ("1", ["a@x.io", "b@x.io"], ["111"]),
        ("3", ["c@x.io", "d@x.io"], ["333"]),
    ]
    assert done["event"] == {
        "seq": "6",
        "kind": "UNDO",
        "outcome": None,
        "summary": "ann: took event 4 back",
        "actor": "ann",
        "reason": "two people, one number",
    }
    assert done["changes"]["pairs"] == [
        {"identifiers": [{"value": "a@x.io"}, {"value": "333"}], "before": "LIVE", "after": None},
    ]
    found = await data(client, '{ cluster(id: "1") { history { edges { node { seq undoneBy } } } } }')
    undone = {edge["node"]["seq"]: edge["node"]["undoneBy"] for edge in found["cluster"]["history"]["edges"]}
    assert undone["4"] == "6"
    await database.check()


async def test_what_a_ban_keeps_apart_is_withheld_warned_of_and_can_be_let_through(
    client: httpx2.AsyncClient, database: Database
) -> None:
    await identify(client, ("a@x.io", "111"), ("b@x.io", "222"))
    await do(client, "banLink", 'a: {email: "a@x.io"}, b: {contactId: 2}')
    request = """mutation { identify(email: "a@x.io", phoneNumber: "222") {
      outcome cluster { id } contact { id } warnings { code field } } }"""

    first, again = [(await data(client, request))["identify"] for _ in range(2)]

    warned = {"cluster": {"id": "1"}, "contact": None, "warnings": [{"code": "LINK_WITHHELD", "field": None}]}
    assert first == {"outcome": "WITHHELD", **warned}
    assert again == {"outcome": "UNCHANGED", **warned}
    rest = await client.post("/identify", json={"email": "a@x.io", "phoneNumber": "222"})
    assert rest.status_code == 200
    assert rest.headers["x-identity-warnings"] == "root=LINK_WITHHELD"
    found = await data(
        client,
        """{ withheld { edges { node { identifiers { value } standing event } } }
          cluster(id: 2) { withheld { standing } bans { contactId otherId event } } }""",
    )
    waiting = {"identifiers": [{"value": "a@x.io"}, {"value": "222"}], "standing": "WITHHELD", "event": "4"}
    assert [edge["node"] for edge in found["withheld"]["edges"]] == [waiting]
    assert found["cluster"] == {
        "withheld": [{"standing": "WITHHELD"}],
        "bans": [{"contactId": "1", "otherId": "2", "event": "3"}],
    }
    merge = f"mutation {{ mergeClusters(id: 1, otherId: 2, {BY}, dryRun: true) {{ dryRun }} }}"
    assert (await refusal(client, merge))["code"] == "REFUSED"

    done = await do(client, "unbanLink", "a: {contactId: 1}, b: {contactId: 2}, rejudge: true")

    assert done["waiting"] == 1
    assert [(c["id"], c["emails"]) for c in done["clusters"]] == [("1", ["a@x.io", "b@x.io"])]
    await database.check()


async def test_clusters_are_merged_split_and_contacts_deleted_and_restored(
    client: httpx2.AsyncClient, database: Database
) -> None:
    await identify(client, ("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "222"))

    merged = await do(client, "mergeClusters", "id: 2, otherId: 1")
    assert [(c["id"], c["size"]) for c in merged["clusters"]] == [("1", 3)]
    split = await do(client, "splitCluster", 'contactIds: [2], identifiers: [{kind: "phone_number", value: "222"}]')
    assert [(c["id"], c["emails"], c["phoneNumbers"]) for c in split["clusters"]] == [
        ("1", ["a@x.io", "c@x.io"], ["111", "222"]),
        ("2", ["b@x.io"], []),
    ]
    deleted = await do(client, "deleteContact", "id: 3")
    assert [(c["id"], c["phoneNumbers"]) for c in deleted["clusters"]] == [("1", ["111"]), ("2", ["222"])]
    assert (await refusal(client, "{ cluster(id: 3) { id } }"))["how"] == "deleted"
    restored = await do(client, "restoreContact", "id: 3")
    assert next(c["emails"] for c in restored["clusters"]) == ["a@x.io", "c@x.io"]
    await database.check()


async def test_an_erased_customer_is_gone_for_good(client: httpx2.AsyncClient, database: Database) -> None:
    await identify(client, *FAMILY)
    await do(client, "eraseIdentifier", 'email: "a@x.io"')
    await do(client, "eraseCluster", "id: 3")

    found = await data(
        client,
        """{ contact(id: 3) { email erasedAt deletedAt cluster { id } history { edges { node { redacted email } } } }
          then: cluster(id: 3, asOfSeq: 5) { redacted emails size }
          before: contact(id: 1, asOfSeq: 1) { email phoneNumber redacted } }""",
    )
    assert found["contact"]["email"] is None
    assert found["contact"]["erasedAt"] == found["contact"]["deletedAt"]
    assert found["then"] == {"redacted": True, "emails": ["b@x.io"], "size": 4}
    assert found["before"] == {"email": None, "phoneNumber": "111", "redacted": True}
    assert (await refusal(client, "{ cluster(id: 4) { id } }"))["how"] == "erased"
    again = await data(client, 'mutation { identify(email: "c@x.io") { outcome contact { id } } }')
    assert again["identify"] == {"outcome": "CREATED", "contact": {"id": "5"}}
    await database.check()


async def test_what_identify_wrote_can_be_undone_at_once(client: httpx2.AsyncClient, database: Database) -> None:
    one = "mutation ($e: String, $p: PhoneNumber) { identify(email: $e, phoneNumber: $p) { outcome events { seq } } }"
    many = """mutation ($items: [IdentifyInput!]!) {
      identifyMany(items: $items) { payload { outcome events { seq } } } }"""
    items = [("a@x.io", "222"), ("b@x.io", "111"), ("b@x.io", "333"), ("a@x.io", "111"), ("c@x.io", "444")]

    told = [(await data(client, one, e=e, p=p))["identify"] for e, p in (("a@x.io", "111"), ("b@x.io", "222"))]
    batch = await data(client, many, items=[{"email": e, "phoneNumber": p} for e, p in items])
    told += [item["payload"] for item in batch["identifyMany"]]

    outcomes = [payload["outcome"] for payload in told]
    assert outcomes == ["CREATED", "CREATED", "MERGED", "OBSERVED", "LINKED", "UNCHANGED", "CREATED"]
    assert [event["seq"] for payload in told for event in payload["events"]] == ["1", "2", "3", "4", "5", "6"]
    rows = (await database.check())["event"]
    assert [(str(row["seq"]), row["outcome"]) for row in rows] == [
        (event["seq"], payload["outcome"]) for payload in told for event in payload["events"]
    ]
    undone = await do(client, "undo", f"event: {told[2]['events'][0]['seq']}")
    assert undone["event"]["summary"] == "ann: took event 3 back"


async def test_identify_can_be_tried_first(client: httpx2.AsyncClient, database: Database) -> None:
    await identify(client, ("a@x.io", "111"), ("b@x.io", "222"))
    before = await database.dump()
    query = """mutation ($e: String, $p: PhoneNumber, $dry: Boolean!) {
     identify(email: $e, phoneNumber: $p, dryRun: $dry) {
      outcome contact { id } cluster { id size emails secondaryContactIds contacts { edges { node { id linkedId } } } }
      events { seq outcome primaryContactId contactId demotedContactIds versionAfter summary } } }"""

    new = (await data(client, query, e="c@x.io", p="111", dry=True))["identify"]
    merge = (await data(client, query, e="a@x.io", p="222", dry=True))["identify"]
    nothing = (await data(client, query, e="a@x.io", p="111", dry=True))["identify"]

    assert await database.dump() == before, "nothing was written, and no id was taken"
    assert new["outcome"] == "LINKED"
    assert new["contact"] == {"id": "new"}
    assert new["cluster"]["secondaryContactIds"] == ["new"]
    assert new["events"][0] == {
        "seq": None,
        "outcome": "LINKED",
        "primaryContactId": "1",
        "contactId": "new",
        "demotedContactIds": [],
        "versionAfter": 2,
        "summary": "a new contact was linked to contact 1",
    }
    assert merge["events"][0]["demotedContactIds"] == ["2"]
    assert (nothing["outcome"], nothing["events"]) == ("UNCHANGED", [])
    assert (await data(client, query, e="a@x.io", p="222", dry=False))["identify"]["cluster"] == merge["cluster"]


@pytest.mark.parametrize(
    ("mutation", "code", "field"),
    [
        ('deleteContact(id: 1, actor: " ", reason: "r", expectedVersion: 1)', "BAD_USER_INPUT", "actor"),
        ('deleteContact(id: 1, actor: "ann", reason: "", expectedVersion: 1)', "BAD_USER_INPUT", "reason"),
        ('deleteContact(id: 1, actor: "ann\\u0000", reason: "r", expectedVersion: 1)', "BAD_USER_INPUT", "actor"),
        (f"deleteContact(id: 1, {BY})", "BAD_USER_INPUT", "expectedVersion"),
        (f"deleteContact(id: 1, {BY}, expectedVersion: 2)", "CONFLICT", None),
        (f"deleteContact(id: 99, {BY}, expectedVersion: 1)", "NOT_FOUND", None),
        (f"deleteContact(id: 99999999999999999999, {BY}, expectedVersion: 1)", "NOT_FOUND", None),
        (f'deleteContact(id: "one", {BY}, expectedVersion: 1)', "BAD_USER_INPUT", "id"),
        (f"restoreContact(id: 1, {BY}, expectedVersion: 1)", "BAD_USER_INPUT", "id"),
        (f"mergeClusters(id: 1, otherId: 1, {BY}, dryRun: true)", "BAD_USER_INPUT", None),
        (f"mergeClusters(id: 1, otherId: 2, {BY}, expectedVersion: 1)", "BAD_USER_INPUT", "expectedOtherVersion"),
        (f"splitCluster(contactIds: [], {BY}, dryRun: true)", "BAD_USER_INPUT", "contactIds"),
        (f"splitCluster(contactIds: [1], {BY}, dryRun: true)", "BAD_USER_INPUT", "contactIds"),
        (f"splitCluster(contactIds: [1, 2], {BY}, dryRun: true)", "BAD_USER_INPUT", "contactIds"),
        (
            f"splitCluster(contactIds: [1], identifiers: [{NO_EMAIL}], {BY}, dryRun: true)",
            "BAD_USER_INPUT",
            "identifiers",
        ),
        (f"undo(event: 99, {BY}, dryRun: true)", "NOT_FOUND", None),
        (f"undo(event: 99999999999999999999, {BY}, dryRun: true)", "NOT_FOUND", None),
        (f"banLink(a: {{contactId: 1}}, b: {{}}, {BY}, dryRun: true)", "BAD_USER_INPUT", "b"),
        (f'banLink(a: {{contactId: 1}}, b: {{email: "no@x.io"}}, {BY}, dryRun: true)', "BAD_USER_INPUT", "b"),
        (f"unbanLink(a: {{contactId: 1}}, b: {{contactId: 2}}, {BY}, dryRun: true)", "BAD_USER_INPUT", None),
        (f'eraseIdentifier(email: "no@x.io", {BY}, dryRun: true)', "NOT_FOUND", None),
        (f"eraseIdentifier({BY}, dryRun: true)", "BAD_USER_INPUT", None),
        (f"eraseCluster(id: 99, {BY}, dryRun: true)", "NOT_FOUND", None),
    ],
)
async def test_what_a_steward_may_not_do_is_refused_with_a_code_and_changes_nothing(
    embedded: httpx2.AsyncClient, sqlite: Database, mutation: str, code: str, field: str | None
) -> None:
    await identify(embedded, ("a@x.io", "111"), ("b@x.io", "222"))
    before = await sqlite.dump()

    extensions = await refusal(embedded, f"mutation {{ {mutation} {{ dryRun }} }}")

    assert (extensions["code"], extensions.get("field")) == (code, field)
    assert await sqlite.dump() == before


VERBS = {
    "mergeClusters": ("id: 1, otherId: 2", ["expectedVersion", "expectedOtherVersion"]),
    "splitCluster": ("contactIds: [3]", ["expectedVersion"]),
    "undo": ('event: "1"', ["expectedVersion"]),
    "banLink": ("a: {contactId: 1}, b: {contactId: 2}", ["expectedVersion", "expectedOtherVersion"]),
    "deleteContact": ("id: 1", ["expectedVersion"]),
    "eraseCluster": ("id: 1", ["expectedVersion"]),
    "eraseIdentifier": ('email: "a@x.io"', ["expectedVersion"]),
    "blockIdentifier": ('identifier: {kind: "email", value: "a@x.io"}', ["expectedVersion"]),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_without_the_versions_says_that_only_a_dry_run_needs_none(
    embedded: httpx2.AsyncClient, verb: str
) -> None:
    await identify(embedded, ("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "111"))
    arguments, needed = VERBS[verb]

    (error,) = (await ask(embedded, f"mutation {{ {verb}({arguments}, {BY}) {{ dryRun }} }}"))["errors"]

    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert [detail["path"] for detail in error["extensions"]["details"]] == needed
    assert all(f"{name} is required unless dryRun is true" in error["message"] for name in needed)
    tried = (await data(embedded, f"mutation {{ {verb}({arguments}, {BY}, dryRun: true) {DEED} }}"))[verb]
    assert all(tried[name] is not None for name in needed)


async def test_the_schema_says_of_every_verb_when_its_versions_are_required(embedded: httpx2.AsyncClient) -> None:
    query = '{ __type(name: "Mutation") { fields { name args { name description type { kind } } } } }'
    fields = (await data(embedded, query))["__type"]["fields"]
    described = {
        (field["name"], argument["name"]): (argument["description"], argument["type"]["kind"])
        for field in fields
        for argument in field["args"]
        if argument["name"].startswith("expected")
    }

    others = {"unbanLink", "acceptWithheld", "rejectWithheld", "restoreContact", "unblockIdentifier"}
    assert VERBS.keys() | others == {verb for verb, _ in described}
    for (_, argument), (description, kind) in described.items():
        assert kind == "SCALAR", "nullable: a dry run needs none"
        assert ("Required unless `dryRun` is true" if argument == "expectedVersion" else "second") in description


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ('{ cluster(id: 1, asOf: "2026-01-01T00:00:00Z", asOfSeq: 1) { id } }', "BAD_USER_INPUT"),
        ('{ cluster(id: 1, asOf: "2099-01-01T00:00:00Z") { id } }', "BAD_USER_INPUT"),
        ('{ cluster(id: 1, asOf: "2026-01-01T00:00:00") { id } }', "BAD_USER_INPUT"),
        ('{ cluster(id: 1, asOf: "yesterday") { id } }', "BAD_USER_INPUT"),
        ("{ cluster(id: 1, asOfSeq: 99) { id } }", "BAD_USER_INPUT"),
        ('{ cluster(id: 1, asOf: "0001-01-01T00:00:00+05:00") { id } }', "BAD_USER_INPUT"),
        ('{ cluster(id: 1, asOf: "9999-12-31T23:59:59-05:00") { id } }', "BAD_USER_INPUT"),
        ("{ explain(from: {}, to: {contactId: 1}) { connected } }", "BAD_USER_INPUT"),
        ('{ explain(from: {contactId: 1}, to: {email: "no@x.io"}) { connected } }', "NOT_FOUND"),
        ("{ explain(from: {contactId: 1}, to: {contactId: 99}) { connected } }", "NOT_FOUND"),
    ],
)
async def test_a_moment_or_an_end_that_cannot_be_is_refused(
    embedded: httpx2.AsyncClient, query: str, code: str
) -> None:
    await identify(embedded, ("a@x.io", "111"))

    (error,) = (await ask(embedded, query))["errors"]

    assert error["extensions"]["code"] == code


async def test_the_past_is_asked_for_with_a_moment_or_an_event(embedded: httpx2.AsyncClient) -> None:
    await identify(embedded, *FAMILY)
    first = (await data(embedded, "{ event(seq: 1) { at seq } }"))["event"]

    found = await data(
        embedded,
        """query ($at: DateTime!) {
          by_time: cluster(email: "a@x.io", asOf: $at) { size version changedAt }
          by_seq: cluster(phoneNumber: "333", asOfSeq: 3) { size history { edges { node { seq } } } }
          unborn: contact(id: 3, asOfSeq: 2) { id }
          born: contact(id: 3, asOfSeq: 3) { linkPrecedence cluster { size } linked { id } }
          clusters(first: 1, asOfSeq: 3) { edges { node { id } } pageInfo { hasNextPage } }
          nothing: event(seq: 99) { seq } }""",
        at=first["at"],
    )

    assert found == {
        "by_time": {"size": 1, "version": 1, "changedAt": first["at"]},
        "by_seq": {"size": 1, "history": {"edges": [{"node": {"seq": "3"}}]}},
        "unborn": None,
        "born": {"linkPrecedence": "PRIMARY", "cluster": {"size": 1}, "linked": None},
        "clusters": {"edges": [{"node": {"id": "1"}}], "pageInfo": {"hasNextPage": True}},
        "nothing": None,
    }
