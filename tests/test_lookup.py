"""`POST /lookup`: the answers of `POST /identify`, and nothing is written."""

from __future__ import annotations

from random import Random
from typing import Any

import httpx2
import pytest

from identity_graphql.api import rest
from tests.models.oracle import Oracle, random_requests
from tests.support.databases import Database
from tests.support.serving import serving
from tests.support.statements import statements
from tests.support.stewards import Steward

NOBODY = '{"error":"Not Found","details":[{"path":"root","message":"Nobody has any of these identifiers."}]}'


async def look_up(client: httpx2.AsyncClient, email: object = None, phone_number: object = None) -> httpx2.Response:
    return await client.post("/lookup", json={"email": email, "phoneNumber": phone_number})


async def identify(client: httpx2.AsyncClient, email: object = None, phone_number: object = None) -> httpx2.Response:
    response = await client.post("/identify", json={"email": email, "phoneNumber": phone_number})
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("contract", sorted(rest.CONTRACTS))
async def test_a_look_up_answers_what_a_repeat_of_identify_answers(database: Database, contract: str) -> None:
    async with serving(database.url, rest_contract=contract) as client:
        for said in (("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "333"), ("b@x.io", 333)):
            told = await identify(client, *said)
            found = await look_up(client, *said)

            assert (found.status_code, found.content) == (200, told.content)
            assert found.headers["content-type"] == told.headers["content-type"]
        for email, phone_number in (("A@X.io ", None), (None, "3-3-3"), ("c@x.io", "1 1 1")):
            assert (await look_up(client, email, phone_number)).content == told.content


async def test_a_look_up_writes_nothing(client: httpx2.AsyncClient, database: Database) -> None:
    await identify(client, "a@x.io", "111")
    await identify(client, "b@x.io", "222")
    before = await database.dump()

    statuses = [
        (await look_up(client, *said)).status_code
        for said in (("a@x.io", "111"), ("a@x.io", "999"), ("n@x.io", "999"), ("a@x.io", "222"), ("@", None))
    ]

    assert statuses == [200, 200, 404, 400, 400]
    assert await database.dump() == before


async def test_a_look_up_is_one_statement(client: httpx2.AsyncClient) -> None:
    await identify(client, "a@x.io", "111")
    with statements() as sent:
        await look_up(client, "a@x.io", "111")
        await look_up(client, "n@x.io", "999")

    assert [statement.split()[0] for statement in sent] == ["WITH", "WITH"]


async def test_of_a_known_and_an_unknown_identifier_the_known_ones_cluster_is_answered(
    client: httpx2.AsyncClient,
) -> None:
    known = (await identify(client, "a@x.io", "111")).content

    for said in (("a@x.io", "999"), ("n@x.io", "111"), ("n@x.io", 111)):
        assert (await look_up(client, *said)).content == known
    assert (await look_up(client, None, "999")).status_code == 404, "it stays unknown"


@pytest.mark.parametrize("said", [("n@x.io", None), (None, "999"), ("n@x.io", "999")])
async def test_whom_nobody_knows_is_404_in_the_shape_of_all_errors(
    client: httpx2.AsyncClient, said: tuple[str | None, str | None]
) -> None:
    await identify(client, "a@x.io", "111")
    response = await look_up(client, *said)

    assert (response.status_code, response.text) == (404, NOBODY)
    assert response.headers["x-request-id"]


async def test_identifiers_of_several_clusters_are_400_and_name_their_primaries_alone(
    client: httpx2.AsyncClient,
) -> None:
    for said in (("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "222")):
        await identify(client, *said)
    response = await look_up(client, "c@x.io", "111")

    assert (response.status_code, response.json()["error"]) == (400, "Validation Error")
    (problem,) = response.json()["details"]
    assert problem["path"] == "root"
    assert "(contacts 1, 2)" in problem["message"]
    assert not any(value in response.text for value in ("x.io", "111", "222"))


async def test_ignored_values_are_named_as_identify_names_them(embedded: httpx2.AsyncClient) -> None:
    await identify(embedded, "a@x.io", "111")
    for said in (("a@x.io", "null"), ("Unknown", "111"), ("a@x.io", -1), ("a@x.io", 0), ("a@x.io", ""), ("a@x.io",)):
        told, found = await identify(embedded, *said), await look_up(embedded, *said)

        assert found.content == told.content
        assert found.headers.get("x-identity-warnings") == told.headers.get("x-identity-warnings")
    alone = await look_up(embedded, "unknown", -1)
    assert (alone.status_code, alone.json()["details"][0]["path"]) == (400, "root")


async def test_what_a_steward_took_out_is_not_found(client: httpx2.AsyncClient, database: Database) -> None:
    storage = database.open()
    steward = Steward(storage)
    await steward.requests(("a@x.io", "111"), ("b@x.io", "111"), ("c@x.io", "333"))
    await steward.delete(2)
    await steward.erase_cluster(3)
    await steward.ban(1, (await steward.identify("d@x.io", "444")).cluster.primary.id)
    await steward.close()
    await storage.close()

    assert (await look_up(client, "b@x.io")).status_code == 404
    assert (await look_up(client, "c@x.io", "333")).status_code == 404
    assert (await look_up(client, "b@x.io", "111")).json()["contact"]["emails"] == ["a@x.io"]
    banned = await look_up(client, "a@x.io", "444")
    assert banned.status_code == 400, "a look-up decides nothing between two customers"


async def test_two_hundred_random_look_ups_equal_the_brute_force_model(client: httpx2.AsyncClient) -> None:
    oracle, random, said = Oracle(), Random(25), random_requests(25, 300, people=40)
    for one in said[:100]:
        oracle.identify(*one)
        await identify(client, *one)

    statuses = set()
    for email, phone_number in random.sample(said, 200):
        asked = [("email", email), ("phone", phone_number)]
        known = [node for node in asked if node in oracle.edges]
        expected: list[dict[str, Any]] = []
        for node in known:
            if (answer := oracle.answer((node[0], str(node[1])))) not in expected:
                expected.append(answer)
        response = await look_up(client, email, phone_number)
        statuses.add(response.status_code)

        assert response.status_code == {0: 404, 1: 200, 2: 400}[len(expected)]
        if response.status_code == 200:
            contact = response.json()["contact"]
            contact["primaryContactId"] = contact.pop("primaryContatctId")
            assert contact == expected[0]
        elif response.status_code == 400:
            one, other = sorted(answer["primaryContactId"] for answer in expected)
            assert f"(contacts {one}, {other})" in response.text
    assert statuses == {200, 400, 404}
