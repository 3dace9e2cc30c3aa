"""Blocked identifiers: what a steward blocks says nothing about who somebody is, and what it joined comes apart."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import sqlalchemy as sa

from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.identifiers import Given, Identifier
from identity_graphql.domain.state import WithheldFilter
from identity_graphql.domain.warnings import WarningCode
from identity_graphql.errors import InvalidInput, NotFound, Outdated
from identity_graphql.services.verification import verify
from tests.support.databases import Database
from tests.support.graphql import BY, data
from tests.support.identifiers import email, pair_of, phone_number
from tests.support.stewards import Steward, working

A, B, C, D = (f"{name}@x.io" for name in "abcd")
P, Q = phone_number("111"), phone_number("222")


@pytest.fixture
async def everywhere(database: Database) -> AsyncIterator[Steward]:
    """A steward on each database. Afterwards all must hold, and the log judged again must give the present."""
    async with working(database) as steward:
        yield steward


def parts(result: VerbResult) -> list[list[int]]:
    return [[contact.id for contact in cluster.contacts] for cluster in result.clusters]


async def blocked(steward: Steward) -> list[tuple[Identifier, int]]:
    return await steward.storage.page_of_blocked(after=0, limit=100)


# -- what requests come to


async def test_what_is_blocked_counts_as_not_given_and_is_warned_of(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.block(P)

    decision = await everywhere.identify(B, "111")

    assert decision.cluster.emails == (B,)
    assert decision.cluster.phone_numbers == ()
    (warning,) = decision.warnings
    assert (warning.code, warning.field) == (WarningCode.BLOCKED_VALUE, "phoneNumber")
    assert "111" not in warning.message
    assert decision.event is not None
    assert (decision.event.email, decision.event.phone_number) == (B, None)
    assert decision.event.raw == {"email": B}
    assert await everywhere.clusters() == [[1], [2]]


async def test_alone_it_is_the_error_of_a_request_that_says_nothing(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.block(P)
    given = Given(phone_number="111")

    for ask in (everywhere.service.identify, everywhere.service.preview, everywhere.service.look_up):
        with pytest.raises(InvalidInput, match="At least one of email or phoneNumber"):
            await ask(given)


async def test_in_a_batch_it_fails_alone(everywhere: Steward) -> None:
    await everywhere.block(P)
    items = [Given(email=A), Given(phone_number="111"), Given(email=A, phone_number="222")]

    for dry_run in (True, False):
        first, second, third = await everywhere.service.identify_many(items, dry_run=dry_run)

        assert isinstance(second, InvalidInput)
        assert not isinstance(first, Exception)
        assert not isinstance(third, Exception)
        assert third.cluster.phone_numbers == ("222",)


async def test_a_look_up_goes_by_the_rest(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "222"))
    await everywhere.block(P)

    decision = await everywhere.service.look_up(Given(email=B, phone_number="111"))

    assert decision.cluster.emails == (B,)
    assert [warning.code for warning in decision.warnings] == [WarningCode.BLOCKED_VALUE]
    with pytest.raises(NotFound):
        await everywhere.service.look_up(Given(email=C, phone_number="111"))


async def test_what_nobody_ever_had_can_be_blocked_in_advance_and_freed_and_taken_back(everywhere: Steward) -> None:
    block = await everywhere.block(P)
    assert block.expected_version == 0
    assert await blocked(everywhere) == [(P, 1)]
    assert (await everywhere.identify(A, "111")).cluster.phone_numbers == ()

    unblock = await everywhere.unblock(P)
    assert await blocked(everywhere) == []
    assert (await everywhere.identify(A, "111")).cluster.phone_numbers == ("111",)

    await everywhere.undo(unblock.event.seq)
    assert await blocked(everywhere) == [(P, 1)]
    assert await everywhere.identifiers() == [{A}]
    await everywhere.undo(block.event.seq)
    assert await blocked(everywhere) == []


async def test_who_has_it_keeps_it_as_evidence_and_answers_it(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "111"))

    result = await everywhere.block(P)

    assert not result.changes.pairs
    assert not result.changes.claims
    assert parts(result) == [[1, 2]]
    assert await everywhere.identifiers() == [{A, B, "111"}]
    found = await everywhere.service.cluster(P)
    assert found is not None
    assert found.primary.id == 1


async def test_blocked_twice_and_unblocked_twice_is_refused(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.block(P)
    with pytest.raises(InvalidInput, match="blocked already"):
        await everywhere.block(P)
    await everywhere.block(P, retract=True)
    with pytest.raises(InvalidInput, match="blocked already"):
        await everywhere.block(P, retract=True)
    await everywhere.unblock(P)
    with pytest.raises(InvalidInput, match="not blocked"):
        await everywhere.unblock(P)


async def test_another_version_of_who_has_it_is_told(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "111"))

    with pytest.raises(Outdated):
        await everywhere.steward.block_identifier(P, Command("ann", "why", 1))
    with pytest.raises(InvalidInput, match="expected_version"):
        await everywhere.steward.block_identifier(P, Command("ann", "why"))


# -- retracted


async def test_what_it_alone_held_together_falls_apart_and_comes_back_exactly(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "111"), (C, "111"), (B, "222"), (C, "222"))
    before = await everywhere.state()

    result = await everywhere.block(P, retract=True)

    assert parts(result) == [[1], [2, 3, 4]]
    assert [pair for pair, _ in result.changes.pairs] == [pair_of(one, "111") for one in (A, B, C)]
    assert await everywhere.identifiers() == [{A}, {B, C, "222"}]

    await everywhere.undo(result.event.seq)

    assert await everywhere.state() == before
    assert (await everywhere.identify(D, "111")).cluster.primary.id == 1


async def test_who_has_nothing_else_stays_a_customer_by_itself(everywhere: Steward) -> None:
    await everywhere.requests((None, "111"), (A, "111"), (B, "111"))

    result = await everywhere.block(P, retract=True)

    assert parts(result) == [[1], [2], [3]]
    assert await everywhere.identifiers() == [set(), {A}, {B}]
    (contact,) = await everywhere.service.contacts([1])
    assert contact is not None
    assert contact.phone_number == "111"
    await everywhere.undo(result.event.seq)
    assert await everywhere.clusters() == [[1, 2, 3]]


async def test_who_only_brought_it_goes_with_those_who_have_the_rest(everywhere: Steward) -> None:
    await everywhere.requests((A, "222"), (A, "111"))

    result = await everywhere.block(P, retract=True)

    assert parts(result) == [[1, 2]]
    assert await everywhere.identifiers() == [{A, "222"}]


async def test_after_it_counts_again_it_is_nobodys_until_it_comes(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "111"))
    await everywhere.block(P, retract=True)
    unblock = await everywhere.unblock(P)
    assert await everywhere.service.cluster(P) is None

    await everywhere.requests((C, "111"), (B, "111"))

    assert await everywhere.identifiers() == [{A}, {B, C, "111"}]
    await everywhere.undo(unblock.event.seq)
    assert await everywhere.identifiers() == [{A}, {B}, {C}]


async def test_bans_are_carried_over_to_every_part(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "111"), (C, "333"))
    await everywhere.ban(1, 3)

    result = await everywhere.block(P, retract=True)

    assert [(one, other) for one, other, _ in result.changes.bans] == [(2, 3)]


async def test_a_stewards_link_outlasts_it(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "222"))
    await everywhere.merge(1, 2)

    await everywhere.block(P, retract=True)
    await everywhere.block(Q, retract=True)

    assert await everywhere.clusters() == [[1, 2]]


async def test_what_waits_behind_a_ban_is_no_evidence_when_the_ban_is_lifted(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "222"))
    await everywhere.ban(1, 2)
    await everywhere.requests((B, "111"))
    await everywhere.block(P)

    await everywhere.unban(1, 2, rejudge=True)

    assert await everywhere.clusters() == [[1], [2]]


# -- with other verbs


async def test_a_deleted_contact_comes_back_without_it(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (None, "333"))
    for contact_id in (1, 2):
        await everywhere.delete(contact_id)
    await everywhere.block(P)
    await everywhere.block(phone_number("333"))

    for contact_id in (1, 2):
        await everywhere.restore(contact_id)

    assert await everywhere.identifiers() == [{A}, set()]


async def test_who_has_nothing_left_can_be_merged_split_deleted_and_restored(everywhere: Steward) -> None:
    await everywhere.requests((None, "111"), (A, None))
    await everywhere.block(P, retract=True)

    await everywhere.merge(1, 2)
    await everywhere.split(1, ban=False)
    assert await everywhere.clusters() == [[1], [2]]
    await everywhere.delete(1)
    await everywhere.restore(1)
    assert await everywhere.clusters() == [[1], [2]]


async def test_of_what_is_erased_no_block_stays(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.block(P, retract=True)
    await everywhere.block(email("nobody@x.io"))

    for identifier in (P, email("nobody@x.io")):
        await everywhere.erase(identifier)

    assert await blocked(everywhere) == []
    async with everywhere.storage.table_scan() as scan:
        assert [row async for row in scan.stray_blocked()] == []
    assert (await everywhere.identify("nobody@x.io", "111")).cluster.phone_numbers == ("111",)


async def test_requests_are_judged_again_without_what_was_blocked_then(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.block(P)
    unblock = await everywhere.unblock(P)
    await everywhere.requests((B, "111"), (None, "111"))
    assert await everywhere.clusters() == [[1, 2]]

    result = await everywhere.undo(unblock.event.seq)

    assert await everywhere.clusters() == [[1], [2]]
    assert await everywhere.identifiers() == [{A, "111"}, {B}]
    await everywhere.undo(result.event.seq)
    assert await everywhere.clusters() == [[1, 2]]


async def test_what_was_retracted_is_no_evidence_when_who_brought_it_is_restored(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.delete(1)
    await everywhere.block(P, retract=True)
    await everywhere.unblock(P)
    await everywhere.requests((B, "111"))

    await everywhere.restore(1)

    assert await everywhere.clusters() == [[1], [2]]
    assert await everywhere.identifiers() == [{A}, {B, "111"}]


async def test_what_waits_with_it_waits_no_more_when_it_is_retracted(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"), (B, "222"))
    await everywhere.ban(1, 2)
    await everywhere.requests((B, "111"))
    assert len(await everywhere.storage.page_of_withheld(WithheldFilter(), after=(0, 0), limit=9)) == 1

    await everywhere.block(P, retract=True)

    assert await everywhere.storage.page_of_withheld(WithheldFilter(), after=(0, 0), limit=9) == []


async def test_an_erasure_leaves_who_has_nothing_but_what_is_blocked(everywhere: Steward) -> None:
    await everywhere.requests((None, "111"), (A, "222"), (A, "333"))
    await everywhere.block(P, retract=True)
    await everywhere.merge(1, 2)

    await everywhere.erase(Q)

    assert await everywhere.clusters() == [[1, 2, 3]]


async def test_what_was_let_go_by_an_undo_is_blocked_again_by_the_undo_of_that(everywhere: Steward) -> None:
    await everywhere.block(P)
    unblock = await everywhere.unblock(P)
    again = await everywhere.undo(unblock.event.seq)
    free = await everywhere.undo(again.event.seq)
    await everywhere.requests((A, "111"))

    await everywhere.undo(free.event.seq)

    assert await blocked(everywhere) == [(P, 1)]
    assert await everywhere.identifiers() == [{A}]


# -- through HTTP


SHOWN = "expectedVersion clusters { id } changes { blocked { identifier { kind value } before blocked } }"
BLOCK = 'identifier: {kind: "phone_number", value: "111"}'


async def test_a_steward_blocks_a_value_and_sees_who_blocked_what(client: httpx2.AsyncClient) -> None:
    told = await data(client, 'mutation { identify(email: "a@x.io", phoneNumber: "111") { outcome } }')
    assert told["identify"]["outcome"] == "CREATED"
    foreseen = await data(client, f"mutation {{ blockIdentifier({BLOCK}, {BY}, dryRun: true) {{ {SHOWN} }} }}")
    assert foreseen["blockIdentifier"] == {
        "expectedVersion": 1,
        "clusters": [{"id": "1"}],
        "changes": {
            "blocked": [{"identifier": {"kind": "phone_number", "value": "111"}, "before": None, "blocked": True}]
        },
    }

    await data(client, f"mutation {{ blockIdentifier({BLOCK}, {BY}, expectedVersion: 1) {{ dryRun }} }}")

    listed = "{ blockedIdentifiers { edges { node { identifier { value } event { seq kind summary } } } } }"
    (edge,) = (await data(client, listed))["blockedIdentifiers"]["edges"]
    assert edge["node"]["identifier"]["value"] == "111"
    assert (edge["node"]["event"]["seq"], edge["node"]["event"]["kind"]) == ("2", "BLOCK_IDENTIFIER")
    assert edge["node"]["event"]["summary"].endswith(": blocked a phone number")
    told = await data(
        client, 'mutation { identify(email: "b@x.io", phoneNumber: "111") { outcome warnings { code field message } } }'
    )
    assert told["identify"]["outcome"] == "CREATED"
    assert told["identify"]["warnings"] == [
        {
            "code": "BLOCKED_VALUE",
            "field": "phoneNumber",
            "message": "phoneNumber has a value that is blocked; it counts as not given",
        }
    ]
    response = await client.post("/identify", json={"email": "b@x.io", "phoneNumber": "111"})
    assert (response.status_code, response.headers["x-identity-warnings"]) == (200, "phoneNumber=BLOCKED_VALUE")
    for path in ("/identify", "/lookup"):
        response = await client.post(path, json={"phoneNumber": "111"})
        assert response.status_code == 400
        assert "At least one of" in response.text


async def test_what_is_blocked_in_advance_is_of_no_cluster(client: httpx2.AsyncClient) -> None:
    asked = f"{BLOCK}, {BY}, expectedVersion: 0"
    shown = "event { seq primaryContactId versionAfter } clusters { id }"
    done = await data(client, f"mutation {{ blockIdentifier({asked}) {{ {shown} }} }}")
    assert done["blockIdentifier"] == {
        "event": {"seq": "1", "primaryContactId": None, "versionAfter": 0},
        "clusters": [],
    }

    done = await data(
        client, f"mutation {{ unblockIdentifier({asked}) {{ {shown} changes {{ blocked {{ before }} }} }} }}"
    )

    assert done["unblockIdentifier"]["changes"]["blocked"] == [{"before": "1"}]
    found = await data(client, "{ event(seq: 2) { summary } events { edges { node { seq } } } }")
    assert found["event"]["summary"].endswith(": let a phone number count again")
    assert [edge["node"]["seq"] for edge in found["events"]["edges"]] == ["1", "2"]


# -- verify


async def test_verify_tells_of_blocks_that_are_not_as_the_log_has_them(everywhere: Steward) -> None:
    await everywhere.requests((A, "111"))
    await everywhere.block(P)
    await everywhere.block(Q)
    found: list[str] = []

    async def told(statement: str) -> list[str]:
        found.clear()
        async with everywhere.storage.transaction() as connection:
            await connection.execute(sa.text(statement))
        await verify(everywhere.storage, lambda difference: found.append(str(difference)))
        return sorted(found)

    assert await told("UPDATE identifier SET blocked = NULL WHERE value = '111'") == [
        "block of event 2 on a phone number: is missing from the table"
    ]
    assert await told("UPDATE identifier SET blocked = 3 WHERE value = '111'") == [
        "block of event 2 on a phone number: is missing from the table",
        "block of event 3 on a phone number: is not in the log",
    ]
    assert await told("UPDATE identifier SET blocked = 2 WHERE value = '111'") == []
    assert await told("DELETE FROM identifier WHERE value = '222'") == [
        "block of event 3 on a phone number: is missing from the table"
    ]
    await told("INSERT INTO identifier (kind, value, contact_id, blocked) VALUES ('phone_number', '222', 0, 3)")
    assert await told("INSERT INTO identifier (kind, value, contact_id) VALUES ('email', 'z@x.io', 0)") != []
    assert await told("DELETE FROM identifier WHERE value = 'z@x.io'") == []


# -- the shared number


async def test_whom_one_number_joined_are_shown_apart_first_and_together_again_exactly(everywhere: Steward) -> None:
    customers = 300
    items = [Given(email=f"p{n}@x.io", phone_number="111") for n in range(customers)]
    await everywhere.service.identify_many(items)
    before = await everywhere.state()
    assert len(await everywhere.clusters()) == 1

    foreseen = await everywhere.steward.block_identifier(P, Command("ann", "why", dry_run=True), retract=True)
    assert [len(cluster.contacts) for cluster in foreseen.clusters] == [1] * customers
    result = await everywhere.steward.block_identifier(P, everywhere.command(foreseen), retract=True)
    assert result.clusters == tuple(await everywhere.service.page_of_clusters(after=0, limit=customers + 1))

    await everywhere.undo(result.event.seq)

    assert await everywhere.state() == before


async def test_what_was_typed_of_a_blocked_value_is_not_kept(everywhere: Steward) -> None:
    await everywhere.block(P)
    said = await everywhere.identify(A, "111")

    assert said.event is not None
    assert said.event.raw == {"email": A}
