"""What was, and why: history, explanations and earlier states, through the service, on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from identity_graphql.domain.contacts import Cluster
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.events import VerbEvent
from identity_graphql.domain.history import Moment
from identity_graphql.domain.identifiers import EMAIL, Given, Identifier, Normalisation
from identity_graphql.domain.sentences import explanation, summary
from identity_graphql.errors import Gone, InvalidInput, NotFound
from identity_graphql.services.history import HistoryService
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.storage import Storage
from tests.models.oracle import random_requests
from tests.support.databases import Database

A, B = Identifier(EMAIL, "a@x.io"), Identifier(EMAIL, "b@x.io")


@pytest.fixture
async def past(storage: Storage) -> HistoryService:
    return HistoryService(storage)


@pytest.fixture
async def steward(storage: Storage) -> StewardService:
    return StewardService(storage, Normalisation())


async def identify(service: IdentityService, *said: tuple[str | None, str | None]) -> None:
    for email, phone_number in said:
        await service.identify(Given(email=email, phone_number=phone_number))


def order(version: int | None = None, other: int | None = None, *, dry_run: bool = False) -> Command:
    return Command("ann", "seen twice", version, other, dry_run)


async def split(steward: StewardService, *contact_ids: int) -> VerbResult:
    preview = await steward.split_cluster(contact_ids, order(dry_run=True))
    return await steward.split_cluster(contact_ids, order(preview.expected_version))


def answer(cluster: Cluster) -> dict[str, Any]:
    """All that can be asked of a cluster."""
    return {
        "emails": cluster.emails,
        "phone_numbers": cluster.phone_numbers,
        "version": cluster.version,
        "changed_at": cluster.changed_at,
        "contacts": [
            (c.id, c.email, c.phone_number, c.linked_id, c.created_at, c.updated_at) for c in cluster.contacts
        ],
    }


# --- history ---


async def test_the_history_of_a_cluster_has_that_of_the_clusters_merged_into_it(
    service: IdentityService, past: HistoryService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "222"), ("a@x.io", "222"))

    history = await past.of_contacts([3])
    events = history.histories.clusters[1]

    assert [summary(event) for event in events] == [
        "a new customer, contact 1",
        "a new customer, contact 2",
        "contact 3 was linked to contact 2",
        "the cluster of contact 2 was merged into that of contact 1",
    ]
    assert [event.version_after for event in events] == [1, 1, 2, 2]


async def test_after_a_split_each_side_keeps_what_happened_while_they_were_one(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "111"))
    await split(steward, 3)
    await identify(service, ("d@x.io", "111"), ("c@x.io", "333"))

    here = (await past.of_contacts([1])).histories.clusters[1]
    there = (await past.of_contacts([3])).histories.clusters[3]

    assert [event.seq for event in here] == [1, 2, 3, 4, 5]
    assert [event.seq for event in there] == [3, 4, 6], "from when it came"
    split_event = here[3]
    assert isinstance(split_event, VerbEvent)
    assert (split_event.actor, split_event.reason, summary(split_event)) == (
        "ann",
        "seen twice",
        "ann: took contact 3 out of a cluster",
    )


async def test_the_history_of_a_contact_is_how_it_came_moved_and_went(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(
        service, ("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "111"), ("a@x.io", "222"), ("e@x.io", "222")
    )
    await steward.delete_contact(2, order(4))

    history = (await past.of_contacts([2])).histories.contacts[2]

    assert [(event.seq, event.kind.value) for event in history] == [
        (2, "identify"),
        (4, "identify"),
        (6, "delete_contact"),
    ]


# --- earlier states ---


async def test_every_earlier_moment_is_answered_as_it_was_then(
    service: IdentityService, past: HistoryService, steward: StewardService, database: Database
) -> None:
    recorded: list[tuple[int, datetime, int, dict[str, Any]]] = []
    said = list(random_requests(4, 60, people=6))
    for number, (email, phone_number) in enumerate(said):
        cluster = (await service.identify(Given(email=email, phone_number=phone_number))).cluster
        if number % 20 == 19 and cluster.size > 1:
            cluster = (await split(steward, cluster.secondary_contact_ids[-1])).clusters[0]
        newest = (await database.tables())["event"][-1]
        recorded.append((newest["seq"], newest["at"], cluster.primary.id, answer(cluster)))

    for seq, at, contact_id, expected in recorded:
        for moment in (Moment(seq=seq), Moment(at=at)):
            history, home = await past.of(contact_id, moment)
            assert home is not None
            assert answer(history.cluster(home)) == expected
            assert not any(map(history.is_redacted, history.state.contacts))


async def test_an_identifier_is_found_with_whoever_had_it_then(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "222"))
    await steward.delete_contact(1, order(1))
    await identify(service, ("a@x.io", "333"))

    now = await service.cluster(Identifier(EMAIL, "a@x.io"))
    _, then = await past.of(A, Moment(seq=2))
    _, between = await past.of(A, Moment(seq=3))

    assert now is not None
    assert (now.primary.id, then, between) == (3, 1, None)


async def test_a_contact_is_not_there_before_it_came_and_gone_after_it_went(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "111"))
    await steward.delete_contact(2, order(2))

    assert (await past.of(2, Moment(seq=1)))[1] is None
    history, home = await past.of(2, Moment(seq=2))
    assert home == 1
    assert history.cluster(home).size == 2
    with pytest.raises(Gone, match="Contact 2 was deleted at"):
        await past.of(2, Moment(seq=3))


async def test_what_was_erased_is_absent_from_earlier_answers_which_say_so(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "111"))
    await steward.erase_identifier(A, order(2))

    history, home = await past.of(1, Moment(seq=2))

    assert home == 1
    cluster = history.cluster(home)
    assert (cluster.emails, cluster.phone_numbers) == (("b@x.io",), ("111",))
    assert [contact.email for contact in cluster.contacts] == [None, "b@x.io"]
    assert [history.is_redacted(contact.id) for contact in cluster.contacts] == [True, False]


async def test_a_page_of_clusters_is_as_it_was(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(
        service, ("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "333"), ("a@x.io", "222"), ("d@x.io", "444")
    )

    async def ids(seq: int, after: int = 0, limit: int = 10) -> list[int]:
        page = await past.page_of_clusters(after=after, limit=limit, moment=Moment(seq=seq), charge=read.append)
        return [home for _, home in page]

    read: list[int] = []

    assert await ids(3) == [1, 2, 3]
    assert await ids(4) == [1, 3]
    assert await ids(5, after=1, limit=1) == [3]
    assert await ids(0) == []


async def test_a_moment_that_has_not_come_is_refused(service: IdentityService, past: HistoryService) -> None:
    await identify(service, ("a@x.io", "111"))

    with pytest.raises(InvalidInput, match="future"):
        await past.of(1, Moment(at=datetime.now(UTC) + timedelta(hours=1)))
    for seq in (2, -1, 2**63):
        with pytest.raises(InvalidInput, match="as_of_seq"):
            await past.of(1, Moment(seq=seq))


# --- why ---


async def test_two_identifiers_are_explained_by_the_shortest_chain(
    service: IdentityService, past: HistoryService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "222"), ("a@x.io", "222"), ("c@x.io", "222"))

    explained = await past.explain(A, B)

    chain = explained.chain
    assert chain is not None
    assert [(step.event and step.event.seq, step.kind) for step in chain.steps] == [(3, "PAIR"), (2, "PAIR")]
    assert explanation(explained)[0].startswith("a@x.io and 222 were seen together on ")


async def test_two_customers_are_not_connected_and_strangers_are_refused(
    service: IdentityService, past: HistoryService, steward: StewardService
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "222"), (None, "333"))
    await steward.delete_contact(3, order(1))

    assert (await past.explain(A, B)).chain is None
    with pytest.raises(NotFound, match="given as to"):
        await past.explain(A, Identifier(EMAIL, "nobody@x.io"))
    with pytest.raises(NotFound):
        await past.explain(99, A)
    with pytest.raises(Gone):
        await past.explain(3, A)


async def test_reading_the_past_writes_nothing(
    service: IdentityService, past: HistoryService, database: Database
) -> None:
    await identify(service, ("a@x.io", "111"), ("b@x.io", "111"))
    before = await database.dump()

    await past.of(1, Moment(seq=1))
    await past.explain(1, 2)
    await past.page_of_clusters(after=0, limit=5, moment=Moment(seq=2), charge=lambda events: None)

    assert await database.dump() == before
