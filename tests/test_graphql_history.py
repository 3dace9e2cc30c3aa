"""Everything that can be asked of a cluster, two levels deep: now, as it was, and as it would be."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from graphql import GraphQLObjectType, build_schema

from tests.support.databases import Database
from tests.support.graphql import BY, CONTACT, EVENT, NODE, data, identify
from tests.support.serving import ROOT

FAMILY = [("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "333"), ("a@x.io", "333"), ("d@x.io", "333")]
ALL = f"""{{
  id primaryContactId size version changedAt redacted emails phoneNumbers secondaryContactIds
  identifiers {{ kind value }}
  primary {{ {CONTACT} identifiers {{ kind value }} linked {{ id }}
    cluster {{ id size redacted bridges(first: 7) {{ edges {{ node {{ partSizes }} }} }} }} }}
  secondaries {{ {CONTACT} }}
  contacts(first: 7) {{ edges {{ node {{ {CONTACT} linked {{ {CONTACT} }} cluster {{ id redacted emails }}
    history(first: 7) {{ edges {{ node {{ seq kind undoneBy }} }} }} }} }} }}
  history(first: 7) {{ edges {{ node {{ {EVENT} identifiers {{ kind value }} source occurredAt exceeded }} }} }}
  evidence {{ nodes {NODE} edges {{ kind source target event }} }}
  bridges(first: 7) {{ edges {{ node {{ kind source {NODE} target {NODE} event {{ {EVENT} }} partSizes parts }} }} }}
  withheld {{ identifiers {{ kind value }} standing reason limitKind withheldBy at event
    holders {{ id size redacted }} }}
  bans {{ contactId otherId event actor reason decision {{ {EVENT} }} }} }}"""


def test_it_is_everything_that_can_be_asked() -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    asked = set(re.findall(r"\w+", ALL))
    for name in ("Cluster", "Contact", "Event", "Bridge", "WithheldPair", "Ban", "Evidence"):
        kind = schema.type_map[name]
        assert isinstance(kind, GraphQLObjectType)
        assert set(kind.fields) <= asked, name


async def newest(database: Database) -> int:
    seq: int = (await database.tables())["event"][-1]["seq"]
    return seq


def undated(answer: Any) -> Any:
    """Without what differs between trying and doing: times, the numbers of new things, and of the request."""
    text = re.sub(r'"\d{4}-\d\d-\d\dT[^"]*"', '"then"', json.dumps(answer))
    text = re.sub(r'"requestId": "[^"]*"', '"requestId": null', text)
    return json.loads(text)


async def test_the_past_up_to_now_is_the_present(client: httpx2.AsyncClient, database: Database) -> None:
    await identify(client, *FAMILY)
    await data(client, f"mutation {{ splitCluster(contactIds: [4], {BY}, expectedVersion: 4) {{ dryRun }} }}")
    await identify(client, ("d@x.io", "333"), ("e@x.io", "111"))

    for contact_id in (1, 4):
        now = await data(client, f"{{ cluster(id: {contact_id}) {ALL} }}")
        then = await data(client, f"{{ cluster(id: {contact_id}, asOfSeq: {await newest(database)}) {ALL} }}")

        assert then == now
        assert now["cluster"]["bans"]
        assert now["cluster"]["withheld"]


async def test_what_was_stays_as_it_was_whatever_comes_later(client: httpx2.AsyncClient, database: Database) -> None:
    await identify(client, *FAMILY)
    seq = await newest(database)
    recorded = await data(client, f"{{ cluster(id: 1) {ALL} }}")

    for verb in ('undo(event: "4"', "deleteContact(id: 2", "mergeClusters(id: 1, otherId: 3"):
        preview = f"mutation {{ it: {verb}, {BY}, dryRun: true) {{ expectedVersion expectedOtherVersion }} }}"
        versions = (await data(client, preview))["it"]
        given = f"expectedVersion: {versions['expectedVersion']}"
        if versions["expectedOtherVersion"]:
            given += f", expectedOtherVersion: {versions['expectedOtherVersion']}"
        await data(client, f"mutation {{ {verb}, {BY}, {given}) {{ dryRun }} }}")

        assert await data(client, f"{{ cluster(id: 4, asOfSeq: {seq}) {ALL} }}") == recorded


async def test_what_was_erased_is_nowhere_in_the_past_which_says_so(
    client: httpx2.AsyncClient, database: Database
) -> None:
    await identify(client, *FAMILY)
    seq = await newest(database)
    erased = f'eraseIdentifier(email: "a@x.io", {BY}'
    version = (await data(client, f"mutation {{ it: {erased}, dryRun: true) {{ expectedVersion }} }}"))["it"]
    await data(client, f"mutation {{ {erased}, expectedVersion: {version['expectedVersion']}) {{ dryRun }} }}")

    then = (await data(client, f"{{ cluster(id: 4, asOfSeq: {seq}) {ALL} }}"))["cluster"]

    text = json.dumps(then)
    assert "a@x.io" not in text
    assert not re.search(r'"(?!key|source|target)\w+": "erased:', text), "tokens only in the keys of the graph"
    assert then["redacted"]
    assert {edge["node"]["redacted"] for edge in then["contacts"]["edges"]} == {True, False}
    assert all(edge["node"]["cluster"]["redacted"] for edge in then["contacts"]["edges"])
    assert [edge["node"]["seq"] for edge in then["history"]["edges"]] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "verb",
    ['undo(event: "4"', "splitCluster(contactIds: [2, 3]", "deleteContact(id: 1", 'eraseIdentifier(phoneNumber: "111"'],
)
async def test_a_dry_run_of_a_verb_answers_what_the_verb_answers(embedded: httpx2.AsyncClient, verb: str) -> None:
    await identify(embedded, *FAMILY)
    rest = f"expectedVersion changes {{ contacts {{ id after {{ cluster {{ id size }} }} }} }} clusters {ALL}"
    tried = (await data(embedded, f"mutation {{ it: {verb}, {BY}, dryRun: true) {{ {rest} }} }}"))["it"]

    done = await data(
        embedded, f"mutation {{ it: {verb}, {BY}, expectedVersion: {tried['expectedVersion']}) {{ {rest} }} }}"
    )

    if verb.startswith("erase"):  # its dry run still has the values
        assert [c["id"] for c in tried["clusters"]] == [c["id"] for c in done["it"]["clusters"]]
        return
    for cluster in tried["clusters"]:  # the verb's own event, without its number
        unnumbered = [e["node"] for e in cluster["history"]["edges"] if e["node"]["seq"] is None]
        assert [event["actor"] for event in unnumbered] == ["ann"]
    assert renumbered(undated(tried)) == renumbered(undated(done["it"]))


def renumbered(answer: Any) -> Any:
    """What the newest event is called, before it has a number and after."""
    return json.loads(re.sub(r'"(seq|event|undoneBy)": ("6"|"0"|null)', r'"\1": "6"', json.dumps(answer)))


@pytest.mark.parametrize("said", [("b@x.io", "333"), ("e@x.io", "111"), ("e@x.io", "999"), ("x@x.io", "222")])
async def test_a_request_that_is_tried_answers_what_it_would_answer(
    embedded: httpx2.AsyncClient, said: tuple[str, str]
) -> None:
    await identify(embedded, *FAMILY[:3], ("x@x.io", "444"), ("y@x.io", "222"))
    query = f"""mutation ($e: String, $p: PhoneNumber, $dry: Boolean!) {{
      identify(email: $e, phoneNumber: $p, dryRun: $dry) {{ outcome cluster {ALL} demoted {{ id }} }} }}"""

    tried = (await data(embedded, query, e=said[0], p=said[1], dry=True))["identify"]
    done = (await data(embedded, query, e=said[0], p=said[1], dry=False))["identify"]

    text = json.dumps(renumbered(undated(tried))).replace('"new"', '"6"').replace('contact:new"', 'contact:6"')
    text = text.replace("a new contact", "contact 6").replace("customer, contact 6", "customer, contact 6")
    assert json.loads(text) == renumbered(undated(done))
