"""The lists in which clusters are found that somebody should look at, and how much there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from identity_graphql.domain.identifiers import Given
from identity_graphql.domain.kinds import Kinds
from tests.support.databases import Database
from tests.support.graphql import data, refusal
from tests.support.serving import serving
from tests.support.stewards import Steward, working

LIMITED = '{"customer_id": {"limit": 1}, "device_id": {"limit": 3}, "email": {"limit": 10}}'
PHONES = {name: f"555{number:04}" for number, name in enumerate("abcde")}


@pytest.fixture
async def steward(database: Database) -> AsyncIterator[Steward]:
    async with working(database, kinds=Kinds.parse(LIMITED)) as steward:
        yield steward


@pytest.fixture
async def limited(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(database.url, IDENTIFIER_KINDS=LIMITED, SUSPICIOUS_SIZE="11") as client:
        yield client


async def grow(steward: Steward, name: str, size: int) -> None:
    """A customer of so many contacts, which share a phone number."""
    await steward.service.identify_many([Given(f"{name}{n}@x.io", PHONES[name]) for n in range(size)])


PAGE = "pageInfo { hasNextPage endCursor } edges"
BY_SIZE = f"""query ($after: String, $min: Int) {{
  clusters(first: 2, after: $after, orderBy: SIZE_DESC, minSize: $min) {{ {PAGE} {{ node {{ id size }} }} }} }}"""
BY_TIME = f"""query ($after: String) {{
  clusters(first: 2, after: $after, orderBy: CHANGED_AT_DESC) {{ {PAGE} {{ node {{ id changedAt }} }} }} }}"""
SUSPICIOUS = f"""query ($after: String) {{
  suspiciousClusters(first: 2, after: $after) {{ {PAGE} {{ node {{ cluster {{ id }} kind count limit }} }} }} }}"""


async def listed(client: httpx2.AsyncClient, query: str, **variables: object) -> list[Any]:
    """All nodes of a list, two at a time."""
    found: list[Any] = []
    after = None
    while True:
        (page,) = (await data(client, query, after=after, **variables)).values()
        found += [edge["node"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def sizes(client: httpx2.AsyncClient, least: int | None = None) -> list[tuple[str, int]]:
    return [(node["id"], node["size"]) for node in await listed(client, BY_SIZE, min=least)]


async def test_the_largest_clusters_come_first_and_small_ones_not_at_all(
    limited: httpx2.AsyncClient, steward: Steward
) -> None:
    for name, size in (("a", 10), ("b", 14), ("c", 9), ("d", 10), ("e", 12)):
        await grow(steward, name, size)

    assert await sizes(limited) == [("11", 14), ("44", 12), ("34", 10), ("1", 10)]
    assert await sizes(limited, 12) == [("11", 14), ("44", 12)]
    assert (await refusal(limited, BY_SIZE, min=9))["field"] == "minSize"
    assert (await refusal(limited, BY_TIME.replace("orderBy", "minSize: 19, orderBy")))["field"] == "minSize"


async def test_counts_follow_merges_splits_deletions_and_undos(limited: httpx2.AsyncClient, steward: Steward) -> None:
    await grow(steward, "a", 6)
    await grow(steward, "b", 7)
    merged = await steward.merge(1, 7)
    assert await sizes(limited) == [("1", 13)]
    await steward.split(7, 8)
    assert await sizes(limited) == [("1", 11)]
    await steward.delete(2)
    await steward.delete(3)
    assert await sizes(limited) == []
    await steward.restore(2)
    assert await sizes(limited) == [("1", 10)]
    await steward.undo(merged.event.seq)
    assert await sizes(limited) == []


async def test_clusters_are_listed_by_their_last_change(limited: httpx2.AsyncClient, steward: Steward) -> None:
    for name in "abcde":
        await grow(steward, name, 2)
    await grow(steward, "b", 3)
    await steward.split(6)
    await steward.merge(7, 9)

    found = await listed(limited, BY_TIME)

    assert found[0]["id"] == "7", "two were merged into it, last of all"
    assert [node["id"] for node in found[1:]] == ["5", "6", "3", "1"], "the split changed both sides"
    assert [node["changedAt"] for node in found] == sorted((node["changedAt"] for node in found), reverse=True)
    clusters = await steward.clusters()
    assert sorted(node["id"] for node in found) == sorted(str(cluster[0]) for cluster in clusters)


async def test_who_has_too_much_of_something_is_suspicious_for_each_of_it(
    limited: httpx2.AsyncClient, steward: Steward
) -> None:
    await grow(steward, "a", 12)
    await steward.service.identify_many(
        [Given("c@x.io", None, [("customer_id", n), ("device_id", n)]) for n in range(3)]
        + [Given("d@x.io", None, [("device_id", f"d{n}")]) for n in range(5)]
    )

    found = await listed(limited, SUSPICIOUS)

    assert [(node["cluster"]["id"], node["kind"], node["count"], node["limit"]) for node in found] == [
        ("1", None, 12, 11),
        ("13", "customer_id", 3, 1),
        ("1", "email", 12, 10),
        ("16", "device_id", 5, 3),
    ]


async def test_statistics_count_what_there_is(limited: httpx2.AsyncClient, steward: Steward) -> None:
    await grow(steward, "a", 6)
    await grow(steward, "b", 2)
    await grow(steward, "c", 1)
    await steward.service.identify(Given(None, None, [("customer_id", "d")]))
    query = "{ statistics { contacts clusters identifiers { kind count } sizes { size count } newestEvent { seq } } }"

    found = (await data(limited, query))["statistics"]

    assert found == {
        "contacts": 10,
        "clusters": 4,
        "identifiers": [
            {"kind": "customer_id", "count": 1},
            {"kind": "email", "count": 9},
            {"kind": "phone_number", "count": 3},
        ],
        "sizes": [{"size": 1, "count": 2}, {"size": 2, "count": 1}, {"size": 6, "count": 1}],
        "newestEvent": {"seq": "10"},
    }


async def test_an_empty_database_has_nothing_to_be_found(limited: httpx2.AsyncClient) -> None:
    assert await sizes(limited) == await listed(limited, BY_TIME) == await listed(limited, SUSPICIOUS) == []
    statistics = "{ statistics { contacts clusters sizes { size } newestEvent { seq } } }"
    assert (await data(limited, statistics))["statistics"] == {
        "contacts": 0,
        "clusters": 0,
        "sizes": [],
        "newestEvent": None,
    }
