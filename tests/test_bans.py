"""Bans: whom a steward saw apart stays apart, whatever becomes of the contacts, until it is lifted or undone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from identity_graphql.domain.bans import carry_over, customer_of, separations
from identity_graphql.domain.changes import WithheldRow
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.state import State, WithheldFilter, bond
from identity_graphql.errors import InvalidInput, Outdated, Refused
from tests.support.identifiers import email, pair_of, phone_number
from tests.support.stewards import Steward

A, B, C, D, E = (f"{name}@example.com" for name in "abcde")

Bans = dict[tuple[int, int], int]


async def bans(steward: Steward) -> Bans:
    """Every ban, and the event that decided so."""
    found = await steward.storage.page_of_bans(after=(0, 0, 0), limit=100)
    return {(one, other): seq for one, other, seq in found}


def changed(result: VerbResult) -> dict[tuple[int, int], int | None]:
    """The bans in the difference: None for those that went, 0 for what the verb itself decided."""
    return {(one, other): seq for one, other, seq in result.changes.bans}


async def withheld(steward: Steward, *said: tuple[str | None, str | None]) -> list[bool]:
    return [(await steward.identify(*one)).withheld for one in said]


# -- by itself, without a database

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
CONTACTS = range(1, 8)
drawn = st.lists(st.integers(0, 3), min_size=len(CONTACTS), max_size=len(CONTACTS))


def clustered(clusters: Sequence[int], gone: Sequence[str] = ()) -> State:
    """Contacts, each in the cluster of its number; some are deleted, or erased as well."""
    state = State()
    for contact_id in CONTACTS:
        state.put(Contact(contact_id, f"{contact_id}@example.com", None, None, NOW, NOW))
    for number in set(clusters):
        state.gather([c for c, n in zip(CONTACTS, clusters, strict=True) if n == number], NOW)
    for contact_id, how in zip(CONTACTS, gone, strict=False):
        if how != "live":
            erased_at = NOW if how == "erased" else None
            state.put(replace(state.contacts[contact_id], deleted_at=NOW, erased_at=erased_at))
    for members in list(state.members.values()):
        state.gather(members, NOW)
    return state


def apart(state: State) -> set[frozenset[int]]:
    """Any two contacts between whose customers there is a ban."""
    customers = [(customer_of(state, a), customer_of(state, b)) for a, b in state.bans]
    there = {contact_id: customer_of(state, contact_id) for contact_id in CONTACTS}
    return {
        frozenset((a, b)) for a in there for b in there if there[a] and there[b] and (there[a], there[b]) in customers
    }


@given(
    drawn, drawn, st.lists(st.sampled_from(("live", "live", "deleted", "erased")), min_size=7, max_size=7), st.data()
)
@settings(max_examples=300, deadline=None)
def test_however_customers_are_divided_and_whoever_goes_those_who_were_apart_are_and_nobody_else(
    clusters: list[int], parts: list[int], gone: list[str], data: st.DataObject
) -> None:
    before = clustered(clusters)
    ids = st.sampled_from(CONTACTS)
    for seq, (a, b) in enumerate(data.draw(st.lists(st.tuples(ids, ids), max_size=4)), 1):
        if before.primary_of(a) != before.primary_of(b):
            before.bans.setdefault(bond(a, b), seq)
    after = clustered([4 * cluster + part for cluster, part in zip(clusters, parts, strict=True)], gone)
    after.bans = dict(before.bans)

    carry_over(separations(before), after)

    left = {contact_id for contact_id, how in zip(CONTACTS, gone, strict=True) if how != "erased"}
    assert apart(after) == {two for two in apart(before) if two <= left}
    assert all(left.issuperset(ban) for ban in after.bans), "of whom is gone for good nothing is left"
    again = dict(after.bans)
    carry_over(separations(after), after)
    assert after.bans == again


# -- a cluster is divided


async def test_whoever_was_banned_from_a_cluster_is_banned_from_each_part_of_it(steward: Steward) -> None:
    """The fault that was found in use: contacts 3 and 4 went back to contact 1 without a word."""
    await steward.requests(*((f"f{n}@x.example", "85000") for n in range(4)))
    first = await steward.split(2, 3, 4)
    assert await withheld(steward, ("f2@x.example", "85000")) == [True]

    second = await steward.split(2)

    assert changed(first) == {(1, 2): 0}
    assert changed(second) == {(1, 3): first.event.seq, (2, 3): 0}, "the difference shows the ban that the part keeps"
    assert await withheld(steward, ("f2@x.example", "85000"), ("f3@x.example", "85000")) == [True, True]
    assert await steward.clusters() == [[1], [2], [3, 4]]


async def test_a_part_keeps_the_ban_though_the_split_bans_nobody(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)

    await steward.split(2, ban=False)

    assert await bans(steward) == {(1, 3): 4, (2, 3): 4}
    assert await withheld(steward, (B, "333")) == [True]


async def test_both_customers_may_be_divided_and_every_part_of_the_one_is_banned_from_every_part_of_the_other(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"), (D, "333"))
    await steward.ban(1, 3)

    await steward.split(2, ban=False)
    await steward.split(4, ban=False)

    assert await bans(steward) == dict.fromkeys([(1, 3), (2, 3), (1, 4), (2, 4)], 5)


async def test_the_part_that_has_a_ban_of_its_own_gets_no_second_one(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    second = await steward.ban(2, 3)

    result = await steward.split(2, ban=False)

    assert changed(result) == {}
    assert await bans(steward) == {(1, 3): 4, (2, 3): second.event.seq}


async def test_bans_of_clusters_that_were_merged_are_left_as_they_are(steward: Steward) -> None:
    await steward.requests((A, None), (B, None), (C, None))
    await steward.ban(1, 2)
    await steward.ban(1, 3)

    assert changed(await steward.merge(2, 3)) == {}
    assert await bans(steward) == {(1, 2): 4, (1, 3): 5}
    assert changed(await steward.split(3, ban=False)) == {}


# -- a contact goes, and comes back


async def test_the_ban_of_a_deleted_contact_passes_to_the_oldest_that_is_left(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "111"), (D, "444"))
    await steward.ban(1, 4)

    result = await steward.delete(1)

    assert await steward.clusters() == [[2, 3], [4]]
    assert changed(result) == {(2, 4): 5}
    assert await withheld(steward, (C, "444")) == [True]


async def test_every_part_of_what_a_deletion_divides_keeps_the_ban_and_so_does_the_deleted_contact(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "111"), (B, "222"), (C, "222"), (D, "444"))
    await steward.ban(1, 5)

    result = await steward.delete(2)

    assert await steward.clusters() == [[1], [3, 4], [5]]
    assert changed(result) == {(2, 5): 6, (3, 5): 6}
    assert await withheld(steward, (B, "444"), (C, "444")) == [True, True]


async def test_a_restored_contact_is_banned_from_whom_it_was_banned_though_it_comes_back_alone(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    await steward.delete(2)
    await steward.delete(1)

    await steward.restore(2)

    assert await steward.clusters() == [[2], [3]]
    assert await withheld(steward, (B, "333")) == [True]


async def test_where_all_of_a_customer_was_deleted_the_ban_waits_until_one_is_restored(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (B, "333"))
    await steward.ban(1, 2)
    await steward.delete(1)
    assert await bans(steward) == {(1, 2): 4}
    await steward.split(3, ban=False)

    await steward.restore(1)

    assert await bans(steward) == {(1, 2): 4, (1, 3): 4}, "whoever was divided meanwhile has it on both sides"
    assert await withheld(steward, (A, "222"), (A, "333")) == [True, True]


async def test_the_ban_of_an_erased_contact_passes_to_who_is_left_and_goes_with_the_last(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)

    first = await steward.erase(email(A))
    assert changed(first) == {}, "contact 1 still has its number"
    second = await steward.erase(phone_number("111"))
    assert changed(second) == {(1, 3): None, (2, 3): 4}
    last = await steward.erase_cluster(2)

    assert changed(last) == {(2, 3): None}
    assert await bans(steward) == {}


async def test_where_all_of_a_customer_was_erased_nothing_is_left_of_its_bans(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    await steward.delete(2)

    result = await steward.erase_cluster(1)

    assert changed(result) == {(1, 3): None, (2, 3): None}, "what was deleted of it before is erased with it"


# -- something is taken back


async def test_whom_a_steward_saw_as_one_stays_banned_when_the_merge_is_taken_back(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (C, "333"))
    merge = await steward.merge(1, 2)
    ban = await steward.ban(1, 3)

    result = await steward.undo(merge.event.seq)

    assert changed(result) == {(2, 3): ban.event.seq}
    assert await withheld(steward, (A, "333"), (B, "333")) == [True, True]


async def test_who_was_merged_after_the_ban_was_never_meant_and_is_free_when_the_merge_is_taken_back(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "222"), (C, "333"))
    await steward.ban(1, 3)
    merge = await steward.merge(1, 2)
    assert await withheld(steward, (B, "333")) == [True]

    result = await steward.undo(merge.event.seq)

    assert changed(result) == {}
    assert await steward.clusters() == [[1], [2, 3]], "the request of theirs is judged again, as if it had been free"


async def test_a_request_taken_back_leaves_the_ban_with_all_who_were_seen(steward: Steward) -> None:
    await steward.requests((A, "111"), (A, "222"), (B, "222"), (C, "333"))
    await steward.ban(1, 4)

    result = await steward.undo(2)

    assert await steward.clusters() == [[1], [3], [4]]
    assert changed(result) == {(3, 4): 5}


async def test_who_stands_in_the_place_of_those_who_were_banned_is_banned(steward: Steward) -> None:
    """Contacts 1 and 2 are gone with their requests; the one that had joined them is the first now, and a contact."""
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (C, "333"))
    await steward.ban(1, 3)
    await steward.undo(1)

    result = await steward.undo(2)

    assert await steward.clusters() == [[3], [4]]
    assert changed(result) == {(2, 3): None, (3, 4): 5}
    assert await withheld(steward, (A, "333")) == [True]


async def test_a_contact_that_was_never_deleted_has_the_bans_of_the_one_that_came_in_its_place(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (C, "333"))
    delete = await steward.delete(1)
    await steward.requests((A, "111"))
    await steward.ban(3, 2)

    result = await steward.undo(delete.event.seq)

    assert await steward.clusters() == [[1], [2]]
    assert changed(result) == {(1, 2): 5, (2, 3): None}


async def test_who_was_another_customer_then_has_no_ban_though_it_has_the_identifier_now(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.split(2, ban=False)
    await steward.ban(1, 3)

    result = await steward.undo(1)

    assert await steward.identifiers() == [{B, "111"}, {C, "333"}]
    assert changed(result) == {(1, 3): None}
    assert await withheld(steward, (B, "333")) == [False]


async def test_a_split_taken_back_takes_its_ban_and_what_the_parts_kept_of_it(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "111"))
    first = await steward.split(2, 3)
    second = await steward.split(3)
    assert await bans(steward) == {(1, 2): 4, (1, 3): 4, (2, 3): 5}

    result = await steward.undo(first.event.seq)

    assert await steward.clusters() == [[1, 2], [3]]
    assert changed(result) == {(1, 2): None, (1, 3): second.event.seq, (2, 3): None}
    await steward.undo(second.event.seq)
    assert await steward.clusters() == [[1, 2, 3]]
    assert await bans(steward) == {}


async def test_a_ban_taken_back_goes_from_every_part(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    ban = await steward.ban(1, 3)
    await steward.split(2, ban=False)
    await steward.delete(2)

    result = await steward.undo(ban.event.seq)

    assert changed(result) == {(1, 3): None, (2, 3): None}
    back = await steward.undo(result.event.seq)
    assert changed(back) == {(1, 3): 4, (2, 3): 4}, "and an undo of the undo brings all of it back"


async def test_a_later_ban_outlasts_the_undo_of_what_had_made_two_customers(steward: Steward) -> None:
    await steward.requests((A, "111"), (A, "222"))
    split = await steward.split(2, ban=False)
    await steward.ban(1, 2)

    await steward.undo(split.event.seq)

    assert await steward.clusters() == [[1], [2]]
    assert await withheld(steward, (A, "222")) == [True]


async def test_a_split_stands_though_a_request_that_made_one_of_its_contacts_is_taken_back(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "111"))
    await steward.split(2, 3)

    await steward.undo(3)

    assert await steward.clusters() == [[1], [2]]
    assert await withheld(steward, (B, "111")) == [True]


async def test_a_split_stands_with_what_it_moved_though_its_contact_is_another_one_now(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "111"))
    await steward.split(2, 3, identifiers=[phone_number("111")])

    await steward.undo(3)

    assert await steward.clusters() == [[1], [2]]
    assert await steward.identifiers() == [{A}, {B, "111"}]


async def test_what_was_to_be_banned_and_is_gone_for_good_cannot_be(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"))
    merge = await steward.merge(1, 2)
    await steward.undo(2)

    with pytest.raises(InvalidInput, match="gone for good"):
        await steward.undo(merge.event.seq, then_ban=True)


# -- lifting


async def test_a_ban_is_lifted_between_two_customers_whichever_of_their_contacts_are_named(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"), (D, "333"))
    await steward.ban(1, 3)

    result = await steward.unban(2, 4)

    assert changed(result) == {(1, 3): None}
    assert await withheld(steward, (A, "333")) == [False]
    assert await steward.clusters() == [[1, 2, 3, 4]]


async def test_all_bans_between_two_customers_are_lifted_whatever_decided_so_and_none_of_others(
    steward: Steward,
) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"), (D, "333"))
    await steward.ban(1, 3)
    await steward.ban(2, 4)
    await steward.split(2, ban=False)
    assert await bans(steward) == {(1, 3): 5, (2, 4): 6}

    result = await steward.unban(1, 4)

    assert changed(result) == {(1, 3): None}
    assert await withheld(steward, (B, "333"), (A, "333")) == [True, False]
    assert await steward.clusters() == [[1, 3, 4], [2]]


async def test_a_ban_on_the_pair_itself_is_lifted_with_those_between_its_customers(steward: Steward) -> None:
    await steward.requests((A, "111"))
    await steward.undo(1, then_ban=True)
    await steward.requests((A, "222"), (B, "111"))
    await steward.ban(email(A), phone_number("111"))

    result = await steward.unban(email(A), phone_number("111"))

    assert changed(result) == {(2, 3): None}
    assert result.changes.withheld == (WithheldRow(pair_of(A, "111"), None, False),)
    assert await withheld(steward, (A, "111")) == [False]


async def test_the_ban_of_a_deleted_contact_is_lifted_by_its_name_alone(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    await steward.delete(2)

    assert changed(await steward.unban(1, 3)) == {(1, 3): None}
    assert await bans(steward) == {(2, 3): 4}
    assert changed(await steward.unban(2, 3)) == {(2, 3): None}
    with pytest.raises(InvalidInput, match="There is no ban between"):
        await steward.unban(2, 3)


async def test_whom_a_steward_let_together_stays_so_when_what_had_divided_them_is_taken_back(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"), (B, "444"))
    await steward.ban(1, 3)
    await steward.unban(2, 3)

    await steward.undo(2)

    assert await steward.clusters() == [[1], [3], [4]]
    assert await bans(steward) == {}


async def test_who_was_not_let_together_stays_apart_though_it_is_one_customer_with_who_was(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"), (C, "333"))
    await steward.ban(1, 3)
    split = await steward.split(2, ban=False)
    await steward.unban(1, 3)

    await steward.undo(split.event.seq)

    assert await steward.clusters() == [[1, 2], [3]]
    assert await withheld(steward, (A, "333")) == [True]


# -- what is said of it


async def test_another_version_and_other_evidence_have_codes_of_their_own(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (B, "111"))

    with pytest.raises(Outdated) as outdated:
        await steward.steward.undo(3, Command("ann", "why", 99), then_ban=True)
    with pytest.raises(Refused, match="other evidence") as refused:
        await steward.undo(3, then_ban=True)

    assert (outdated.value.code, refused.value.code) == ("CONFLICT", "REFUSED")


async def test_a_contact_that_is_yet_to_be_made_has_no_number_that_people_could_read(steward: Steward) -> None:
    """Without its request contact 2 is gone; the two that bridged it are the first to bring its values then."""
    await steward.requests((A, "111"), (B, "222"), (A, "222"), (B, "111"))

    with pytest.raises(Refused, match="other evidence") as refused:
        await steward.undo(2, then_ban=True)

    assert refused.value.message.startswith("By other evidence, two new contacts would")


async def test_a_new_identifier_goes_with_the_known_one_whatever_is_banned(steward: Steward) -> None:
    await steward.requests((A, "111"), (A, "222"))
    await steward.split(2)

    decision = await steward.identify(B, "222")

    assert (decision.outcome, decision.withheld) == ("LINKED", False)
    assert await steward.clusters() == [[1], [2, 3]]


async def test_a_ban_follows_its_contacts_through_merges_and_splits(steward: Steward) -> None:
    await steward.requests((A, None), (B, None), (C, None))
    await steward.ban(1, 2)
    await steward.merge(2, 3)

    with pytest.raises(Refused, match="Contacts 1 and 2 are banned from each other"):
        await steward.merge(1, 3)

    await steward.split(3, ban=False)
    with pytest.raises(Refused, match="Contacts 1 and 3 are banned from each other"):
        await steward.merge(1, 3)
    await steward.merge(3, 2)
    assert await steward.clusters() == [[1], [2, 3]]


# -- who comes in the place of somebody who was undone


async def test_who_brings_later_what_an_undone_customer_had_is_kept_apart_as_that_was(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"))
    await steward.ban(1, 2)
    await steward.requests((A, "333"), (A, "222"))

    result = await steward.undo(1)

    assert await steward.identifiers() == [{B, "222"}, {A, "333"}]
    assert changed(result) == {(1, 2): None, (2, 3): 3}
    assert await withheld(steward, (A, "222"), (B, "333")) == [True, True]


async def test_who_was_split_off_is_kept_apart_by_what_comes_later_of_it(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "111"))
    await steward.split(2)
    await steward.requests((B, "333"), (B, "111"))

    await steward.undo(2)

    assert await bans(steward) == {(1, 3): 3}
    assert await steward.identifiers() == [{A, "111"}, {B, "333"}]


@pytest.mark.parametrize("said", [(A, "222"), (B, "111")])
async def test_who_comes_with_what_the_other_has_is_not_linked_to_it(steward: Steward, said: tuple[str, str]) -> None:
    """The request is the first to bring what was undone, and brings it together with the other customer's."""
    await steward.requests((A, "111"), (B, "222"))
    await steward.ban(1, 2)
    assert await withheld(steward, said) == [True]

    await steward.undo(1)

    assert {B, "222"} in await steward.identifiers()
    assert [A in known or "111" in known for known in await steward.identifiers()].count(True) == (said[0] == A)


async def test_of_a_customer_who_is_undone_in_part_each_one_who_comes_back_is_kept_apart(steward: Steward) -> None:
    await steward.requests((A, "111"), (C, "111"), (B, "222"))
    await steward.ban(1, 3)
    await steward.requests((A, "333"))
    await steward.undo(1)
    assert await bans(steward) == {(2, 3): 4, (3, 4): 4}

    await steward.undo(2)

    assert await bans(steward) == {(3, 4): 4}
    assert await withheld(steward, (A, "222")) == [True]


async def test_a_ban_that_was_lifted_does_not_come_back_with_who_comes_later(steward: Steward) -> None:
    await steward.requests((A, "111"), (B, "222"))
    await steward.ban(1, 2)
    await steward.unban(1, 2)
    await steward.requests((A, "333"))

    await steward.undo(1)

    assert await bans(steward) == {}
    assert await withheld(steward, (A, "222")) == [False]


async def test_who_was_deleted_and_comes_back_is_as_free_as_before(steward: Steward) -> None:
    """The ban is the deleted contact's: what comes later is judged again as it was."""
    await steward.requests((A, "111"), (B, "222"), (D, "444"))
    await steward.ban(1, 2)
    await steward.delete(1)
    await steward.requests((A, "333"), (A, "222"))
    before = await steward.clusters()

    await steward.undo(3)

    assert [[1], *await steward.clusters()] == [[1], *(cluster for cluster in before if cluster != [3])]
    assert await bans(steward) == {(1, 2): 4}


async def test_what_is_withheld_within_one_customer_is_evidence(steward: Steward) -> None:
    """Nothing withholds it any more, and nothing waits for a decision."""
    await steward.requests((A, "111"), (B, "111"))
    await steward.split(2)
    assert await withheld(steward, (B, "111")) == [True]

    result = await steward.delete(1)

    assert [row.pair for row in result.changes.withheld] == [pair_of(B, "111")]
    assert await steward.storage.page_of_withheld(WithheldFilter(), after=(0, 0), limit=9) == []
    assert await steward.identifiers() == [{B, "111"}]
    await steward.restore(1)


async def test_a_ban_on_a_pair_whose_customers_came_later_is_lifted_with_theirs(steward: Steward) -> None:
    await steward.requests((A, "111"))
    await steward.undo(1, then_ban=True)
    await steward.requests((None, "111"), (A, None))
    await steward.ban(2, 3)

    await steward.unban(2, 3)

    assert (await steward.state())["withheld"] == {}
    await steward.identify(A, "111")
    assert await steward.identifiers() == [{A, "111"}]
