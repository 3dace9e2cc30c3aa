"""Deleting a contact, and bringing it back: what goes with it, who claims what then, and what holds together (Q18)."""

from __future__ import annotations

import pytest

from identity_graphql.errors import Gone
from tests.support.identifiers import email
from tests.support.stewards import Steward

A, B, C, D = (f"{name}@example.com" for name in "abcd")


async def test_a_bridging_contact_is_deleted_and_the_part_with_the_oldest_keeps_the_identity(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "111"), (B, "222"), (C, "222"))

    await steward.delete(2)

    assert await steward.clusters() == [[1], [3, 4]]
    assert await steward.identifiers() == [{A, "111"}, {B, C, "222"}], "who else carries the value claims it now"
    with pytest.raises(Gone, match="Contact 2 was deleted at"):
        await steward.service.cluster(2)


async def test_a_deleted_contact_keeps_its_row_and_its_value_is_a_new_contact_when_it_comes_again(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"))
    (before,) = await steward.service.contacts([1])
    await steward.delete(1)

    again = await steward.identify(A, "111")

    assert (again.outcome, again.cluster.primary.id) == ("CREATED", 2)
    (after,) = await steward.service.contacts([1])
    assert before is not None
    assert after is not None
    assert (after.email, after.phone_number, after.created_at) == (before.email, before.phone_number, before.created_at)


async def test_a_restored_contact_claims_again_what_nobody_has(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (B, "222"))
    before = await steward.state()
    await steward.delete(2)
    assert await steward.clusters() == [[1], [3]]

    await steward.restore(2)

    after = await steward.state()
    assert await steward.clusters() == [[1, 2, 3]]
    assert {**after, "claims": None} == {**before, "claims": None}
    assert after["claims"][email(B)] == 3, "a claim that moved meanwhile stays where it is"


async def test_a_restored_contact_whose_values_are_another_ones_by_now_joins_him(steward: Steward) -> None:
    await steward.requests((A, "111"))
    await steward.delete(1)
    await steward.requests((A, "222"))

    await steward.restore(1)

    assert await steward.clusters() == [[1, 2]], "the oldest is the primary again"
    assert await steward.identifiers() == [{A, "111", "222"}]


async def test_a_restored_contact_goes_where_no_ban_forbids_it(steward: Steward) -> None:
    """Its email is of one cluster by now, its number of another."""
    await steward.requests((A, "111"), (B, "111"), (A, "222"))
    await steward.split(3, identifiers=[email(A)])
    await steward.delete(1)

    await steward.restore(1)

    assert await steward.clusters() == [[1, 2], [3]]
    assert [(await steward.identify(A, "111")).withheld for _ in range(2)] == [True, True]
    await steward.delete(1)
    await steward.unban(1, 3)
    await steward.restore(1)
    assert await steward.clusters() == [[1, 3], [2]], "the email's comes first"


async def test_a_claim_may_pass_to_another_cluster_and_its_contact_stands_by_himself_then(
    steward: Steward,
) -> None:
    """He went with those who have his email, as long as another one had his number."""
    await steward.requests((None, "333"), (A, "333"))
    await steward.delete(2)
    await steward.requests((A, "444"))
    await steward.ban(1, 3)
    await steward.restore(2)
    assert await steward.clusters() == [[1], [2, 3]]

    await steward.delete(1)

    assert await steward.clusters() == [[2], [3]]
    assert await steward.identifiers() == [{"333"}, {A, "444"}]


async def test_a_claim_passes_to_whoever_carries_the_value_though_they_never_shared_a_cluster(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (A, "222"))
    await steward.split(2)
    await steward.delete(2)
    await steward.delete(1)
    await steward.requests((A, "333"))
    await steward.restore(2)
    assert await steward.identifiers() == [{"222"}, {A, "333"}]

    await steward.delete(3)

    assert await steward.identifiers() == [{A, "222"}]
