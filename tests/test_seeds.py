"""Every example of the five documents that this service replaces, through HTTP, with their exact JSON."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import httpx2
import pytest

from tests.support.databases import Database
from tests.support.serving import JSON, serving

Body = dict[str, Any]
LORRAINE: Body = {"email": "lorraine@hillvalley.edu", "phoneNumber": "123456"}
MCFLY: Body = {"email": "mcfly@hillvalley.edu", "phoneNumber": "123456"}
BOTH = {
    "contact": {
        "primaryContatctId": 1,
        "emails": ["lorraine@hillvalley.edu", "mcfly@hillvalley.edu"],
        "phoneNumbers": ["123456"],
        "secondaryContactIds": [2],
    }
}


async def identify(client: httpx2.AsyncClient, body: Body) -> Any:
    """The answer to the body as the documents' curl commands write it, after a look at its bytes: they are compact."""
    response = await client.post("/identify", content=json.dumps(body), headers=JSON)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert response.text == json.dumps(answer, separators=(",", ":"))
    return answer


def same(answer: Any, document: Any) -> bool:
    """Equal, the order of the keys included."""
    return json.dumps(answer) == json.dumps(document)


async def test_seed_000_the_answer_of_the_api_reference(database: Database) -> None:
    async with serving(database.url) as client:
        await identify(client, LORRAINE)

        assert same(await identify(client, MCFLY), BOTH)


async def test_seed_000_the_validation_error(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        response = await client.post("/identify", json={})

    assert response.status_code == 400
    document = {
        "error": "Validation Error",
        "details": [{"path": "root", "message": "At least one of email or phoneNumber must be provided"}],
    }
    assert same(response.json(), document)


async def test_seed_000_health(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        answer = (await client.get("/health")).json()

    assert list(answer) == ["status", "timestamp"]
    assert answer["status"] == "ok"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer["timestamp"])
    assert datetime.fromisoformat(answer["timestamp"]).year >= 2026


async def test_seed_000_a_number_as_phone_number(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        as_text = await identify(client, {"phoneNumber": "123456"})
        as_number = await identify(client, {"phoneNumber": 123456})

    assert as_text["contact"]["phoneNumbers"] == ["123456"]
    assert as_number == as_text


async def test_seed_001_example_1_a_new_customer(database: Database) -> None:
    async with serving(database.url) as client:
        answer = await identify(client, LORRAINE)

    document = {
        "contact": {
            "primaryContatctId": 1,
            "emails": ["lorraine@hillvalley.edu"],
            "phoneNumbers": ["123456"],
            "secondaryContactIds": [],
        }
    }
    assert same(answer, document)


async def test_seed_001_example_2_a_returning_customer_with_a_new_email(database: Database) -> None:
    async with serving(database.url) as client:
        await identify(client, LORRAINE)

        assert same(await identify(client, MCFLY), BOTH)


async def test_seed_001_example_3_merging_separate_primary_contacts(database: Database) -> None:
    async with serving(database.url) as client:
        await identify(client, {"email": "george@hillvalley.edu", "phoneNumber": "919191"})
        await identify(client, {"email": "biffsucks@hillvalley.edu", "phoneNumber": "717171"})

        answer = await identify(client, {"email": "george@hillvalley.edu", "phoneNumber": "717171"})

    document = {
        "contact": {
            "primaryContatctId": 1,
            "emails": ["george@hillvalley.edu", "biffsucks@hillvalley.edu"],
            "phoneNumbers": ["919191", "717171"],
            "secondaryContactIds": [2],
        }
    }
    assert same(answer, document)


async def test_seed_001_the_response_format(database: Database) -> None:
    """Four contacts with two emails and two phone numbers: four customers of one identifier each, then merged."""
    async with serving(database.url) as client:
        await identify(client, {"email": "primary@example.com"})
        await identify(client, {"phoneNumber": "1111111111"})
        await identify(client, {"email": "secondary@example.com"})
        await identify(client, {"phoneNumber": "2222222222"})
        await identify(client, {"email": "primary@example.com", "phoneNumber": "1111111111"})
        await identify(client, {"email": "secondary@example.com", "phoneNumber": "1111111111"})
        answer = await identify(client, {"email": "primary@example.com", "phoneNumber": "2222222222"})

    document = {
        "contact": {
            "primaryContatctId": 1,
            "emails": ["primary@example.com", "secondary@example.com"],
            "phoneNumbers": ["1111111111", "2222222222"],
            "secondaryContactIds": [2, 3, 4],
        }
    }
    assert same(answer, document)


async def test_seed_001_testing_the_api(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        created = await identify(client, {"email": "test@example.com", "phoneNumber": "9999999999"})
        linked = await identify(client, {"email": "test2@example.com", "phoneNumber": "9999999999"})

    assert created["contact"]["secondaryContactIds"] == []
    assert linked["contact"] == {
        "primaryContatctId": 1,
        "emails": ["test@example.com", "test2@example.com"],
        "phoneNumbers": ["9999999999"],
        "secondaryContactIds": [2],
    }


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"email": null, "phoneNumber": null}'])
async def test_seed_001_error_handling(sqlite: Database, body: bytes) -> None:
    async with serving(sqlite.url) as client:
        response = await client.post("/identify", content=body, headers=JSON)

    assert response.status_code == 400


async def test_seed_001_the_request_body_has_two_optional_fields(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        both = await identify(client, {"email": "customer@example.com", "phoneNumber": "1234567890"})

        assert await identify(client, {"email": "customer@example.com"}) == both
        assert await identify(client, {"phoneNumber": "1234567890"}) == both


async def test_seed_002_the_request(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="corrected") as client:
        answer = await identify(client, {"email": "user@example.com", "phoneNumber": "1234567890"})
        neither = await client.post("/identify", json={})

    document = {
        "contact": {
            "primaryContactId": 1,
            "emails": ["user@example.com"],
            "phoneNumbers": ["1234567890"],
            "secondaryContactIds": [],
        }
    }
    assert same(answer, document)
    assert neither.status_code == 400


async def test_seed_002_health(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="corrected") as client:
        assert (await client.get("/health")).status_code == 200


async def test_seed_002_the_response(database: Database) -> None:
    async with serving(database.url, rest_contract="corrected") as client:
        await identify(client, {"email": "primary@example.com", "phoneNumber": "1234567890"})
        await identify(client, {"email": "secondary@example.com", "phoneNumber": "1234567890"})

        answer = await identify(client, {"email": "primary@example.com", "phoneNumber": "0987654321"})

    document = {
        "contact": {
            "primaryContactId": 1,
            "emails": ["primary@example.com", "secondary@example.com"],
            "phoneNumbers": ["1234567890", "0987654321"],
            "secondaryContactIds": [2, 3],
        }
    }
    assert same(answer, document)


async def test_seed_002_quick_testing_with_curl(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="corrected") as client:
        first = await identify(client, LORRAINE)
        second = await identify(client, MCFLY)
        by_email = await identify(client, {"email": "lorraine@hillvalley.edu"})

    assert first["contact"]["secondaryContactIds"] == []
    assert second["contact"]["secondaryContactIds"] == [2]
    assert by_email == second


async def test_seed_002_the_four_cases(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="corrected") as client:
        new = await identify(client, {"email": "a@example.com", "phoneNumber": "111"})
        exact = await identify(client, {"email": "a@example.com", "phoneNumber": "111"})
        partial = await identify(client, {"email": "b@example.com", "phoneNumber": "111"})
        await identify(client, {"email": "c@example.com", "phoneNumber": "333"})
        await identify(client, {"email": "d@example.com", "phoneNumber": "333"})
        conflict = await identify(client, {"email": "c@example.com", "phoneNumber": "111"})

    assert exact == new
    assert partial["contact"]["secondaryContactIds"] == [2]
    assert conflict["contact"]["primaryContactId"] == 1
    assert conflict["contact"]["secondaryContactIds"] == [2, 3, 4]


FOO: Body = {"email": "foo@bar.com"}
FOO_PHONE: Body = {"email": "foo@bar.com", "phoneNumber": "+919999999999"}


async def test_seed_003_examples_1_to_3(database: Database) -> None:
    async with serving(database.url, rest_contract="flat") as client:
        first = await identify(client, FOO)
        second = await identify(client, FOO_PHONE)
        third = await identify(client, {"email": "newemail@example.com", "phoneNumber": "+919999999999"})

    assert same(
        first,
        {"primaryContactId": 1, "emails": ["foo@bar.com"], "phoneNumbers": [], "secondaryContactIds": []},
    )
    assert same(
        second,
        {
            "primaryContactId": 1,
            "emails": ["foo@bar.com"],
            "phoneNumbers": ["+919999999999"],
            "secondaryContactIds": [2],
        },
    )
    assert same(
        third,
        {
            "primaryContactId": 1,
            "emails": ["foo@bar.com", "newemail@example.com"],
            "phoneNumbers": ["+919999999999"],
            "secondaryContactIds": [2, 3],
        },
    )


async def test_seed_003_the_first_sample_answer_follows_rule_3_instead(sqlite: Database) -> None:
    """The document's first sample has primary 3 with the older contacts 1 and 2 as its secondaries. That contradicts
    its own rule 3, by which the oldest contact is the primary, and its examples, which keep to that rule. So do we:
    the same request brings the two contacts before it together under the older one.
    """
    async with serving(sqlite.url, rest_contract="flat") as client:
        await identify(client, FOO)
        await identify(client, {"phoneNumber": "+919999999999"})
        answer = await identify(client, FOO_PHONE)

    assert same(
        answer,
        {
            "primaryContactId": 1,
            "emails": ["foo@bar.com"],
            "phoneNumbers": ["+919999999999"],
            "secondaryContactIds": [2],
        },
    )


async def test_seed_003_health(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="flat") as client:
        assert (await client.get("/health")).text == '{"status":"healthy"}'


async def test_seed_003_what_its_test_script_shows(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="flat") as client:
        await identify(client, {"email": "one@example.com"})
        await identify(client, {"phoneNumber": "222"})
        linked = await identify(client, {"email": "one@example.com", "phoneNumber": "222"})
        more_emails = await identify(client, {"email": "two@example.com", "phoneNumber": "222"})
        more_phones = await identify(client, {"email": "two@example.com", "phoneNumber": "333"})
        another = await identify(client, {"email": "other@example.com", "phoneNumber": "999"})
        invalid = await client.post("/identify", json={})

    assert linked["secondaryContactIds"] == [2]
    assert more_emails["emails"] == ["one@example.com", "two@example.com"]
    assert more_phones["phoneNumbers"] == ["222", "333"]
    assert another["primaryContactId"] == 5
    assert invalid.status_code == 400


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_seed_003_has_interactive_documentation(sqlite: Database, path: str) -> None:
    async with serving(sqlite.url, rest_contract="flat") as client:
        response = await client.get(path)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


async def test_seed_004_cases_1_and_2(database: Database) -> None:
    async with serving(database.url, rest_contract="corrected") as client:
        first = await identify(client, {"email": "foo@example.com", "phoneNumber": "1234567890"})
        second = await identify(client, {"email": "foo@example.com", "phoneNumber": "9999999999"})

    assert same(
        first,
        {
            "contact": {
                "primaryContactId": 1,
                "emails": ["foo@example.com"],
                "phoneNumbers": ["1234567890"],
                "secondaryContactIds": [],
            }
        },
    )
    assert same(
        second,
        {
            "contact": {
                "primaryContactId": 1,
                "emails": ["foo@example.com"],
                "phoneNumbers": ["1234567890", "9999999999"],
                "secondaryContactIds": [2],
            }
        },
    )


async def test_seed_004_the_rules_of_the_request(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="corrected") as client:
        first = await identify(client, {"email": "foo@example.com", "phoneNumber": "1234567890"})
        both_match = await identify(client, {"email": "foo@example.com", "phoneNumber": "1234567890"})
        neither = await client.post("/identify", json={})

    assert both_match == first
    assert neither.status_code == 400
