"""What is told of bans, and of what they keep back, through HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.support.databases import Database
from tests.support.graphql import BY, data, refusal
from tests.support.identifiers import email, phone_number
from tests.support.statements import statements
from tests.support.stewards import Steward, working

A, B, C, D = (f"{name}@x.io" for name in "abcd")
ANN = {"actor": "ann", "reason": "two people, one number"}


@pytest.fixture
async def steward(database: Database) -> AsyncIterator[Steward]:
    async with working(database, **ANN) as steward:
        yield steward


@pytest.fixture
async def local(sqlite: Database) -> AsyncIterator[Steward]:
    async with working(sqlite, **ANN) as steward:
        yield steward


def nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge["node"] for edge in connection["edges"]]


BAN = "contactId otherId event actor reason decision { seq kind summary }"


async def test_a_ban_says_who_decided_it_why_and_in_which_event(client: httpx2.AsyncClient, steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    await steward.split(2)

    found = await data(
        client,
        f"""{{ bans {{ edges {{ node {{ {BAN} }} }} }} cluster(id: 2) {{ bans {{ {BAN} }} }}
          then: cluster(id: 1, asOfSeq: 4) {{ bans {{ {BAN} }} }}
          explain(from: {{contactId: 2}}, to: {{contactId: 3}}) {{ bans {{ {BAN} }} words }} }}""",
    )

    said = {"actor": "ann", "reason": "two people, one number"}
    ban = {
        "event": "4",
        **said,
        "decision": {"seq": "4", "kind": "BAN_LINK", "summary": "ann: never link contacts 1 and 3"},
    }
    split = {
        "event": "5",
        **said,
        "decision": {"seq": "5", "kind": "SPLIT_CLUSTER", "summary": "ann: took contact 2 out of a cluster"},
    }
    first, kept = {"contactId": "1", "otherId": "3", **ban}, {"contactId": "2", "otherId": "3", **ban}
    assert nodes(found["bans"]) == [first, kept, {"contactId": "1", "otherId": "2", **split}]
    assert found["cluster"]["bans"] == [{"contactId": "1", "otherId": "2", **split}, kept]
    assert found["then"]["bans"] == [first]
    assert found["explain"] == {
        "bans": [kept],
        "words": ["contacts 2 and 3 are banned from each other (event 4)"],
    }


async def test_however_many_bans_and_withheld_pairs_there_are_takes_the_same_statements(
    embedded: httpx2.AsyncClient, local: Steward
) -> None:
    query = f"""{{ bans(first: 50) {{ edges {{ node {{ {BAN} }} }} }}
      withheld(first: 50) {{ edges {{ node {{ withheldBy holders {{ id }} }} }} }} }}"""
    sent = []
    for round_ in range(2):
        for number in range(1 + 4 * round_):
            one, other = f"a{round_}{number}@x.io", f"b{round_}{number}@x.io"
            await local.requests((one, f"5550{round_}{number}"), (other, f"5551{round_}{number}"))
            await local.ban(email(one), email(other))
            await local.requests((one, f"5551{round_}{number}"))
        with statements() as these:
            found = await data(embedded, query)
        sent.append(len(these))
        assert {node["withheldBy"] for node in nodes(found["withheld"])} == {"BAN"}
        assert {node["actor"] for node in nodes(found["bans"])} == {"ann"}

    assert len(nodes(found["bans"])) == 6
    assert sent[0] == sent[1]


async def test_the_bans_of_one_decision_are_paged_one_by_one(client: httpx2.AsyncClient, steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"), (D, "333"))
    await steward.ban(1, 3)
    await steward.split(2, ban=False)
    await steward.split(4, ban=False)

    found, after = [], "null"
    for _ in range(4):
        page = (
            await data(
                client,
                f"""{{ bans(first: 1, after: {after}) {{ edges {{ node {{ contactId otherId event }} }}
                  pageInfo {{ endCursor hasNextPage }} }} }}""",
            )
        )["bans"]
        found += [(node["contactId"], node["otherId"], node["event"]) for node in nodes(page)]
        after = f'"{page["pageInfo"]["endCursor"]}"'

    assert not page["pageInfo"]["hasNextPage"]
    assert found == [("1", "3", "5"), ("1", "4", "5"), ("2", "3", "5"), ("2", "4", "5")]
    contacts = (await data(client, "{ contacts(first: 1) { pageInfo { endCursor } } }"))["contacts"]
    of_another_list = f'{{ bans(after: "{contacts["pageInfo"]["endCursor"]}") {{ edges {{ cursor }} }} }}'
    assert (await refusal(client, of_another_list))["code"] == "BAD_USER_INPUT"


async def test_the_difference_shows_each_ban_that_comes_is_kept_or_goes_and_who_decided_it(
    client: httpx2.AsyncClient, steward: Steward
) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    split = f"splitCluster(contactIds: [2], {BY}, dryRun: true)"
    bans = "{ changes { bans { contactId otherId added event } } }"

    tried = (await data(client, f"mutation {{ it: {split} {bans} }}"))["it"]["changes"]["bans"]
    await steward.split(2)
    undone = f"mutation {{ it: undo(event: 4, {BY}, dryRun: true) {bans} }}"

    assert tried == [
        {"contactId": "1", "otherId": "2", "added": True, "event": None},
        {"contactId": "2", "otherId": "3", "added": True, "event": "4"},
    ]
    assert (await data(client, undone))["it"]["changes"]["bans"] == [
        {"contactId": "1", "otherId": "3", "added": False, "event": "4"},
        {"contactId": "2", "otherId": "3", "added": False, "event": "4"},
    ]


async def test_a_withheld_pair_says_what_withholds_it_now(client: httpx2.AsyncClient, steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"))
    await steward.ban(1, 2)
    await steward.requests((A, "222"))
    asked = """{ withheld { edges { node { standing withheldBy } } } cluster(id: 2) { withheld { standing withheldBy } }
      explain(from: {contactId: 1}, to: {contactId: 2}) { words waiting } }"""

    banned = await data(client, asked)
    await steward.unban(1, 2)
    lifted = await data(client, asked)
    then = await data(client, "{ cluster(id: 1, asOfSeq: 4) { withheld { withheldBy } } }")

    by_ban, by_nothing = ({"standing": "WITHHELD", "withheldBy": by} for by in ("BAN", "NOTHING"))
    assert nodes(banned["withheld"]) == banned["cluster"]["withheld"] == [by_ban]
    assert banned["explain"] == {
        "words": [
            "contacts 1 and 2 are banned from each other (event 3)",
            "a pair of theirs waits behind a ban (event 4)",
        ],
        "waiting": 1,
    }
    assert nodes(lifted["withheld"]) == lifted["cluster"]["withheld"] == [by_nothing]
    assert lifted["explain"] == {
        "words": ["a pair of theirs waits for a decision: nothing withholds it any more (event 4)"],
        "waiting": 1,
    }
    assert then["cluster"]["withheld"] == [{"withheldBy": "BAN"}]


async def test_of_a_withheld_pair_whose_identifier_is_nobodys_now_nothing_withholds_it(
    embedded: httpx2.AsyncClient, local: Steward
) -> None:
    await local.requests((A, "111"), (B, "222"))
    await local.ban(1, 2)
    await local.requests((A, "222"))
    await local.delete(2)

    found = await data(
        embedded, "{ withheld { edges { node { withheldBy } } } cluster(id: 1) { withheld { withheldBy } } }"
    )

    assert nodes(found["withheld"]) == found["cluster"]["withheld"] == [{"withheldBy": "NOTHING"}]


async def test_a_request_that_was_withheld_is_in_the_history_of_both_and_names_both(
    client: httpx2.AsyncClient, steward: Steward
) -> None:
    await steward.requests((A, "111"), (B, "222"))
    await steward.ban(1, 2)
    request = 'identify(email: "a@x.io", phoneNumber: "222", dryRun: %s) { events { summary } }'

    tried = (await data(client, f"mutation {{ {request % 'true'} }}"))["identify"]
    done = (await data(client, f"mutation {{ {request % 'false'} }}"))["identify"]
    history = "history { edges { node { seq outcome summary } } }"
    found = await data(
        client,
        f"{{ one: cluster(id: 1) {{ {history} }} other: cluster(id: 2) {{ {history} }} event(seq: 4) {{ summary }} }}",
    )

    summary = "a link of the cluster of contact 1 to that of contact 2 was withheld: a ban forbids it"
    assert tried["events"] == done["events"] == [{"summary": summary}]
    assert found["event"]["summary"] == summary
    for side in ("one", "other"):
        assert nodes(found[side]["history"])[-1] == {"seq": "4", "outcome": "WITHHELD", "summary": summary}, side


async def test_a_request_withheld_by_a_ban_on_the_pair_itself_is_in_the_history_of_both(
    client: httpx2.AsyncClient, steward: Steward
) -> None:
    """Nothing but the pair joins the two: no steward ever named a contact of both."""
    await steward.requests((A, "111"))
    await steward.undo(1, then_ban=True)
    await steward.requests((B, "111"), (A, "111"))
    history = "history { edges { node { seq summary } } } withheld { standing withheldBy }"

    found = await data(client, f"{{ one: cluster(id: 2) {{ {history} }} other: cluster(id: 3) {{ {history} }} }}")

    summary = "a link of the cluster of contact 3 to that of contact 2 was withheld: a ban forbids it"
    for side in ("one", "other"):
        assert nodes(found[side]["history"])[-1] == {"seq": "4", "summary": summary}, side
        assert found[side]["withheld"] == [{"standing": "BANNED", "withheldBy": "BAN"}], side


async def test_a_request_with_a_number_that_nobody_has_is_withheld_from_one_cluster_alone(
    embedded: httpx2.AsyncClient, local: Steward
) -> None:
    await local.requests((A, "111"))
    await local.undo(1, then_ban=True)
    await local.requests((A, "111"))

    found = await data(embedded, "{ event(seq: 3) { outcome summary } }")

    assert found["event"] == {
        "outcome": "WITHHELD",
        "summary": "a link of the cluster of contact 2 was withheld: a ban forbids it",
    }


async def test_other_evidence_and_a_stale_version_answer_with_two_codes(
    embedded: httpx2.AsyncClient, local: Steward
) -> None:
    await local.requests((A, "111"), (B, "222"), (A, "222"), (B, "111"))
    undo = f"undo(event: 3, {BY}, thenBan: true, expectedVersion: %d) {{ dryRun }}"

    codes = [(await refusal(embedded, f"mutation {{ {undo % version} }}"))["code"] for version in (2, 3)]

    assert codes == ["CONFLICT", "REFUSED"]


@pytest.mark.parametrize(
    "verb",
    [
        "mergeClusters(id: 1, otherId: 2",
        "banLink(a: {contactId: 1}, b: {contactId: 3}",
        "restoreContact(id: 4",
    ],
)
async def test_what_a_ban_or_evidence_forbids_is_never_called_a_stale_version(
    embedded: httpx2.AsyncClient, local: Steward, verb: str
) -> None:
    await local.requests((A, "111"), (B, "222"), (C, "111"), (D, "444"))
    await local.ban(1, 2)
    await local.ban(4, 1)
    await local.delete(4)
    await local.requests((D, "111"), (D, "444"), (None, "444"))

    assert (await refusal(embedded, f"mutation {{ {verb}, {BY}, dryRun: true) {{ dryRun }} }}"))["code"] == "REFUSED"


async def test_all_that_separates_two_is_lifted_at_once(client: httpx2.AsyncClient, steward: Steward) -> None:
    await steward.requests((A, "111"))
    await steward.undo(1, then_ban=True)
    await steward.requests((A, "222"), (B, "111"))
    await steward.ban(email(A), phone_number("111"))
    lift = f"""mutation {{ unbanLink(a: {{email: "{A}"}}, b: {{phoneNumber: "111"}}, {BY}, dryRun: true) {{
      changes {{ bans {{ contactId otherId added event }} pairs {{ before after withheldBy }} }} }} }}"""

    found = (await data(client, lift))["unbanLink"]["changes"]

    assert found == {
        "bans": [{"contactId": "2", "otherId": "3", "added": False, "event": "5"}],
        "pairs": [{"before": "BANNED", "after": None, "withheldBy": None}],
    }
