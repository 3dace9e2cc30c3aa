"""Splitting a cluster: who goes where, with which identifiers, and what keeps the two sides apart (Q17)."""

from __future__ import annotations

import pytest

from identity_graphql.errors import InvalidInput
from tests.support.identifiers import email, pair_of
from tests.support.stewards import Steward

A, B, C, D = (f"{name}@example.com" for name in "abcd")


async def test_a_request_across_a_split_is_withheld_until_the_ban_is_lifted_and_it_is_judged_again(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (A, "222"))
    await steward.split(2)
    assert await steward.identifiers() == [{A, "111"}, {"222"}]

    withheld = [(await steward.identify(A, "222")).outcome for _ in range(2)]
    lifted = await steward.unban(1, 2)
    kept = await steward.clusters()

    assert withheld == ["WITHHELD", "UNCHANGED"]
    assert lifted.waiting == (pair_of(A, "222"),)
    assert kept == [[1], [2]], "nothing is judged again unasked"
    await steward.ban(1, 2)
    await steward.unban(1, 2, rejudge=True)
    assert await steward.clusters() == [[1, 2]]


async def test_a_split_without_a_ban_lets_the_next_request_link_again(steward: Steward) -> None:
    await steward.requests((A, "111"), (A, "222"))
    await steward.split(2, ban=False)

    assert (await steward.identify(A, "222")).outcome == "MERGED"


async def test_a_split_moves_the_identifiers_that_it_names(steward: Steward) -> None:
    await steward.requests((A, "111"), (A, "222"))

    await steward.split(2, identifiers=[email(A)])

    assert await steward.identifiers() == [{"111"}, {A, "222"}]


async def test_a_side_that_evidence_does_not_connect_is_held_together_by_the_decision(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "111"))

    await steward.split(2, 3)

    assert await steward.clusters() == [[1], [2, 3]]


async def test_a_split_of_all_of_none_or_of_two_clusters_is_refused(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))

    for ids in ([], [1, 2], [2, 3], [3]):
        with pytest.raises(InvalidInput, match="contact_ids"):
            await steward.split(*ids)
