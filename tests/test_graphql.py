"""The GraphQL edge, through HTTP."""

from __future__ import annotations

import itertools

import httpx2
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.databases import FAULT, Database
from tests.support.graphql import ask, data, identify, refusal
from tests.support.serving import serving
from tests.support.statements import statements

THREE = [("a@x.io", "111"), ("b@x.io", "222"), ("c@x.io", "222")]


async def test_identify_tells_everything_about_what_it_did(embedded: httpx2.AsyncClient) -> None:
    await identify(embedded, *THREE)

    answer = await data(
        embedded,
        """mutation { identify(email: "a@x.io", phoneNumber: 222) {
             outcome
             cluster { id primaryContactId primary { id email } secondaries { id linkedId linkPrecedence } emails
                       phoneNumbers secondaryContactIds size version }
             contact { id }
             demoted { id linkPrecedence linked { id } cluster { id } }
             warnings { code field message } } }""",
    )

    assert answer["identify"] == {
        "outcome": "MERGED",
        "cluster": {
            "id": "1",
            "primaryContactId": "1",
            "primary": {"id": "1", "email": "a@x.io"},
            "secondaries": [{"id": n, "linkedId": "1", "linkPrecedence": "SECONDARY"} for n in ("2", "3")],
            "emails": ["a@x.io", "b@x.io", "c@x.io"],
            "phoneNumbers": ["111", "222"],
            "secondaryContactIds": ["2", "3"],
            "size": 3,
            "version": 2,
        },
        "contact": None,
        "demoted": [{"id": "2", "linkPrecedence": "SECONDARY", "linked": {"id": "1"}, "cluster": {"id": "1"}}],
        "warnings": [],
    }


async def test_an_ignored_value_is_a_warning(embedded: httpx2.AsyncClient) -> None:
    answer = await data(
        embedded,
        'mutation { identify(email: "a@x.io", phoneNumber: "null")'
        " { contact { phoneNumber } warnings { code field } } }",
    )

    assert answer["identify"]["contact"] == {"phoneNumber": None}
    assert answer["identify"]["warnings"] == [{"code": "IGNORED_VALUE", "field": "phoneNumber"}]


async def test_identify_many_answers_every_item_by_itself(embedded: httpx2.AsyncClient) -> None:
    answer = await data(
        embedded,
        """mutation { identifyMany(items: [
             {email: "a@x.io", phoneNumber: 1234}, {email: "@"}, {}, {phoneNumber: "1234"}]) {
             payload { outcome cluster { id } contact { id } } error { code field } } }""",
    )

    assert answer["identifyMany"] == [
        {"payload": {"outcome": "CREATED", "cluster": {"id": "1"}, "contact": {"id": "1"}}, "error": None},
        {"payload": None, "error": {"code": "BAD_USER_INPUT", "field": "email"}},
        {"payload": None, "error": {"code": "BAD_USER_INPUT", "field": None}},
        {"payload": {"outcome": "UNCHANGED", "cluster": {"id": "1"}, "contact": None}, "error": None},
    ]


@pytest.mark.parametrize("count", [0, 1001])
async def test_identify_many_takes_one_to_a_thousand_items(embedded: httpx2.AsyncClient, count: int) -> None:
    query = "mutation ($items: [IdentifyInput!]!) { identifyMany(items: $items) { error { code } } }"

    extensions = await refusal(embedded, query, items=[{"email": "a@x.io"}] * count)

    assert (extensions["code"], extensions["field"]) == ("BAD_USER_INPUT", "items")


@pytest.mark.parametrize(
    "by", ['id: "1"', 'id: "2"', "id: 3", 'email: " C@X.io"', 'phoneNumber: "2-2-2"', "phoneNumber: 111"]
)
async def test_a_cluster_is_found_by_whatever_belongs_to_it(embedded: httpx2.AsyncClient, by: str) -> None:
    await identify(embedded, *THREE, ("a@x.io", "222"))

    assert (await data(embedded, f"{{ cluster({by}) {{ id }} }}"))["cluster"] == {"id": "1"}


@pytest.mark.parametrize(
    "by", ['id: "99"', 'id: "99999999999999999999999"', 'id: "-1"', 'email: "no@x.io"', "phoneNumber: 999"]
)
async def test_what_is_unknown_is_null(embedded: httpx2.AsyncClient, by: str) -> None:
    assert (await data(embedded, f"{{ cluster({by}) {{ id }} }}"))["cluster"] is None


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("cluster { id }", None),
        ('cluster(email: "") { id }', None),
        ('cluster(email: "null") { id }', None),
        ('cluster(id: "1", email: "a@x.io") { id }', None),
        ('cluster(email: "a@x.io", phoneNumber: "111") { id }', None),
        ('cluster(email: "a@") { id }', "email"),
        ('cluster(phoneNumber: "abc") { id }', "phoneNumber"),
        ('cluster(id: "x") { id }', "id"),
        ('cluster(id: "1.5") { id }', "id"),
        ('contact(id: "") { id }', "id"),
        ("contacts(first: 0) { edges { cursor } }", "first"),
        ("clusters(first: 101) { edges { cursor } }", "first"),
        ('contacts(after: "x") { edges { cursor } }', "after"),
        ('clusters(after: "aWQ6eA==") { edges { cursor } }', "after"),
        ('cluster(id: "1") { contacts(after: "aWQ6OTk=") { edges { cursor } } }', "after"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    embedded: httpx2.AsyncClient, field: str, bad: str | None
) -> None:
    await identify(embedded, *THREE)

    extensions = await refusal(embedded, f"{{ {field} }}")

    assert extensions["code"] == "BAD_USER_INPUT"
    assert extensions["field"] == bad


async def test_a_blank_beside_a_value_counts_as_not_given(embedded: httpx2.AsyncClient) -> None:
    await identify(embedded, *THREE)

    answer = await data(embedded, '{ cluster(email: " ", phoneNumber: "111") { id } }')

    assert answer["cluster"] == {"id": "1"}


async def test_a_deleted_contact_is_shown_and_its_cluster_is_gone(database: Database) -> None:
    storage = database.open()
    async with serving(database.url) as client:
        await identify(client, ("a@x.io", "111"), ("b@x.io", "111"))
        async with storage.transaction() as connection:
            await connection.execute(sa.text("UPDATE contact SET deleted_at = created_at WHERE id = 2"))
            await connection.execute(sa.text("DELETE FROM identifier WHERE contact_id = 2"))

        shown = (await data(client, '{ contact(id: "2") { email createdAt deletedAt cluster { id } } }'))["contact"]
        gone = await refusal(client, '{ cluster(id: "2") { id } }')
        listed = await data(client, "{ contacts { edges { node { id } } } clusters { edges { node { size } } } }")
    await storage.close()

    assert (shown["email"], shown["cluster"]) == ("b@x.io", None)
    assert shown["deletedAt"] == shown["createdAt"] == gone["at"]
    assert gone["code"] == "GONE"
    assert listed["contacts"]["edges"] == [{"node": {"id": "1"}}]
    assert listed["clusters"]["edges"] == [{"node": {"size": 1}}]


@pytest.mark.parametrize("field", ["contacts", "clusters"])
async def test_a_list_is_read_page_by_page(client: httpx2.AsyncClient, field: str) -> None:
    await identify(client, *[(f"{n}@x.io", None) for n in range(45)])
    page_info = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
    query = f"""query ($after: String) {{
      {field}(first: 20, after: $after) {{ edges {{ cursor node {{ id }} }} {page_info} }} }}"""

    seen: list[str] = []
    sizes = []
    after = None
    while True:
        page = (await data(client, query, after=after))[field]
        seen += [edge["node"]["id"] for edge in page["edges"]]
        sizes.append(len(page["edges"]))
        assert page["pageInfo"]["hasPreviousPage"] == (after is not None)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert seen == [str(n) for n in range(1, 46)]
    assert sizes == [20, 20, 5]


async def test_the_contacts_of_a_cluster_are_read_page_by_page_by_seniority(embedded: httpx2.AsyncClient) -> None:
    await identify(embedded, *[("a@x.io", f"555{n}") for n in range(5)])
    query = """query ($after: String) {
      cluster(id: "1") { contacts(first: 3, after: $after) {
        edges { node { id cluster { id } linked { id } } } pageInfo { hasNextPage endCursor } } } }"""

    first = (await data(embedded, query))["cluster"]["contacts"]
    second = (await data(embedded, query, after=first["pageInfo"]["endCursor"]))["cluster"]["contacts"]

    assert [edge["node"]["id"] for edge in first["edges"] + second["edges"]] == ["1", "2", "3", "4", "5"]
    assert (first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]) == (True, False)


MEMBERS = "contacts { edges { node { id linked { id email } cluster { id emails } } } }"
DEEP = f"id size primary {{ id cluster {{ id }} }} secondaries {{ id linked {{ id }} cluster {{ id }} }} {MEMBERS}"

COUNTED = {
    "contact": ('{ contact(id: "3") { id email } }', 1),
    "contact, with its cluster and primary": (f'{{ contact(id: "3") {{ linked {{ id }} cluster {{ {DEEP} }} }} }}', 3),
    "cluster by email": (f'{{ cluster(email: "a@x.io") {{ {DEEP} }} }}', 1),
    "cluster by id": (f'{{ cluster(id: "2") {{ {DEEP} }} }}', 1),
    "contacts": ("{ contacts { edges { node { id email } } } }", 1),
    "contacts, with their clusters and primaries": (
        f"{{ contacts {{ edges {{ node {{ linked {{ id }} cluster {{ {DEEP} }} }} }} }} }}",
        3,
    ),
    "clusters": (f"{{ clusters {{ edges {{ node {{ {DEEP} }} }} }} }}", 1),
    "a repeat": (f'mutation {{ identify(email: "a@x.io") {{ cluster {{ {DEEP} }} }} }}', 1),
    "many repeats": (
        'mutation { identifyMany(items: [{email: "a@x.io"}, {email: "b@x.io"}, {phoneNumber: 222}]) {'
        f" payload {{ cluster {{ {DEEP} }} }} }} }}",
        1,
    ),
}


@pytest.mark.parametrize("case", COUNTED)
async def test_no_query_costs_more_statements_for_more_customers(client: httpx2.AsyncClient, case: str) -> None:
    query, expected = COUNTED[case]
    await identify(client, *THREE, *[(f"m{n}@x.io", f"55{n % 7:03}") for n in range(15)])
    with statements() as sent:
        await data(client, query)

    assert len(sent) == expected, "\n\n".join(sent)


@pytest.mark.parametrize("kind", ["new", "link", "merge"])
async def test_identify_many_is_one_find_and_one_apply(
    client: httpx2.AsyncClient, database: Database, kind: str
) -> None:
    await identify(client, ("a@x.io", "111"), ("b@x.io", "222"))
    items: dict[str, list[tuple[str | None, str | None]]] = {
        "new": [(f"n{n}@x.io", f"77{n:03}") for n in range(100)],
        "link": [(f"n{n}@x.io", "111") for n in range(100)],
        "merge": [("a@x.io", "222"), *[(f"n{n}@x.io", "222") for n in range(99)]],
    }

    with statements() as sent:
        await identify(client, *items[kind])

    verbs = [" ".join(statement.split()[:3]) for statement in sent]
    if database.name == "postgresql":
        assert verbs == ["WITH sought AS", "WITH swap AS"]
    else:  # MariaDB cannot return the ids of many rows, SQLite tells where they have come to
        swap, relink = ["UPDATE contact SET"] * (kind != "new"), ["UPDATE contact SET"] * (kind == "merge")
        inserts = [f"INSERT INTO {table}" for table in ("contact", "identifier", "event", "pair")]
        expected = ["WITH sought AS", *swap, *inserts[:2], *relink, *inserts[2:]]
        if kind != "new":  # it is a large cluster now
            expected += ["DELETE FROM cluster_count", "INSERT INTO cluster_count"]
        assert [verb for verb, _ in itertools.groupby(verbs) if not verb.startswith("SELECT")] == expected
    await database.check()


async def test_a_fault_is_masked_and_logged_without_personal_data(sqlite: Database) -> None:
    storage = sqlite.open()
    async with serving(sqlite.url) as client:
        async with storage.transaction() as connection:
            await connection.execute(sa.text(FAULT))
        with capture_logs() as logs:
            response = await client.post(
                "/graphql",
                json={"query": 'mutation { identify(email: "secret@x.io", phoneNumber: "5551234") { outcome } }'},
                headers={"x-request-id": "trace-me"},
            )
    await storage.close()

    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": "INTERNAL", "requestId": "trace-me"}
    assert response.headers["x-request-id"] == "trace-me"
    faults = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["request_id"] for entry in faults] == ["trace-me"]
    assert "secret" not in repr(logs)
    assert "5551234" not in repr(logs)


async def test_a_fault_before_any_resolver_is_masked_too(
    embedded: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("secret@x.io")

    monkeypatch.setattr("graphql.validate", fail)
    with capture_logs() as logs:
        (error,) = (await ask(embedded, "{ __typename }"))["errors"]

    assert error["extensions"]["code"] == "INTERNAL"
    faults = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["request_id"] for entry in faults] == [error["extensions"]["requestId"]]
    assert "secret" not in repr((error, logs))


async def test_a_mistake_of_a_client_is_not_logged(
    embedded: httpx2.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as logs:
        await ask(embedded, '{ cluster(email: "secret@") { id } }')
        await ask(embedded, '{ nothing(email: "secret@x.io") }')

    assert [entry for entry in logs if entry["log_level"] != "info"] == []
    assert "secret" not in "".join(capfd.readouterr())


async def test_several_operations_need_a_name_and_run_by_it(embedded: httpx2.AsyncClient) -> None:
    query = "query A { a: __typename } query B { b: __typename }"

    assert (await refusal(embedded, query))["code"] == "GRAPHQL_VALIDATION_FAILED"
    named = await embedded.post("/graphql", json={"query": query, "operationName": "B"})
    assert named.json() == {"data": {"b": "Query"}}


async def test_a_query_may_come_over_get(embedded: httpx2.AsyncClient) -> None:
    response = await embedded.get(
        "/graphql",
        params={"query": "query ($id: ID!) { contact(id: $id) { id } }", "variables": '{"id": "1"}'},
        headers={"accept": "application/json"},
    )

    assert response.json() == {"data": {"contact": None}}


async def test_a_browser_gets_graphiql(embedded: httpx2.AsyncClient) -> None:
    response = await embedded.get("/graphql", headers={"accept": "text/html,application/xhtml+xml"})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "graphiql" in response.text.lower()


FAN_OUT = "".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }} " for n in range(18))
TOO_MUCH = {
    "levels": "{ contact(id: 1) " + "{ cluster { primary " * 6 + "{ id }" + " } }" * 6 + " }",
    "fields": "{ " + "contact(id: 1) { " + "id " * 500 + "} }",
    "aliases": "{ contact(id: 1) { " + " ".join(f"a{n}: id" for n in range(31)) + " } }",
    "directives": "{ contact(id: 1) { " + "id @skip(if: false) " * 21 + "} }",
    "root fields": "{ " + "__typename " * 21 + "}",
    "operations": " ".join(f"query Q{n} {{ __typename }}" for n in range(11)),
    "a fan-out of fragments": f"{{ ...F0 }} {FAN_OUT} fragment F18 on Query {{ __typename }}",
    "5,000 levels": "{ a " * 5000 + "}" * 5000,
    "10,000 aliases": "{ " + " ".join(f"a{n}: __typename" for n in range(10_000)) + " }",
    "200 KB of tokens": "{ " + "a " * 100_000 + "}",
}


async def test_an_answer_of_too_many_list_items_is_refused(
    embedded: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No limit on documents knows how large a cluster is."""
    await identify(embedded, *[(f"a{n}@x.io", "111") for n in range(10)])
    query = "{ cluster(id: 1) { secondaries { cluster { emails secondaryContactIds } } } }"
    whole = await data(embedded, query)
    monkeypatch.setattr("identity_graphql.api.graphql.context.MOST_ITEMS", 10 + 9 * 20 - 1)

    assert len(whole["cluster"]["secondaries"]) == 9
    assert (await refusal(embedded, query))["code"] == "QUERY_TOO_COMPLEX"
    assert (await data(embedded, "{ cluster(id: 1) { emails } }"))["cluster"]["emails"]


async def test_a_whole_number_with_a_fraction_of_zero_is_accepted_and_kept(client: httpx2.AsyncClient) -> None:
    query = "mutation ($given: PhoneNumber) { identify(phoneNumber: $given) { outcome cluster { phoneNumbers } } }"
    await data(client, "mutation { identify(phoneNumber: 9876543210.0) { outcome } }")
    again = [await data(client, query, given=value) for value in (9876543210.0, 9876543210, "9876543210.0")]
    await data(client, 'mutation { identify(email: "a@x.io", phoneNumber: "9876543210.0") { outcome } }')
    history = "{ cluster(id: 1) { history { edges { node { phoneNumber givenPhoneNumber } } } } }"

    assert again == [{"identify": {"outcome": "UNCHANGED", "cluster": {"phoneNumbers": ["9876543210"]}}}] * 3
    events = [edge["node"] for edge in (await data(client, history))["cluster"]["history"]["edges"]]
    assert events == [
        {"phoneNumber": "9876543210", "givenPhoneNumber": "9876543210"},
        {"phoneNumber": "9876543210", "givenPhoneNumber": "9876543210.0"},
    ]


async def test_an_item_with_a_phone_number_that_is_none_fails_alone(embedded: httpx2.AsyncClient) -> None:
    query = (
        "mutation ($items: [IdentifyInput!]!) { identifyMany(items: $items) { payload { outcome } error { field } } }"
    )
    items = [{"phoneNumber": True}, {"phoneNumber": 1.5}, {"email": "z@x.io"}]

    assert await data(embedded, query, items=items) == {
        "identifyMany": [
            {"payload": None, "error": {"field": "phoneNumber"}},
            {"payload": None, "error": {"field": "phoneNumber"}},
            {"payload": {"outcome": "CREATED"}, "error": None},
        ]
    }


@pytest.mark.parametrize("case", TOO_MUCH)
async def test_a_document_that_asks_for_too_much_is_refused(embedded: httpx2.AsyncClient, case: str) -> None:
    answer = await ask(embedded, TOO_MUCH[case])

    assert not answer.get("data")
    assert "QUERY_TOO_COMPLEX" in {error["extensions"]["code"] for error in answer["errors"]}, answer


ADVISED = {
    "operations": ("the limit is 10", "a document of its own"),
    "root fields": ("the limit is 20", "in several requests"),
    "levels": ("the limit is 12", "in another request"),
    "fields": ("the limit is 500", "in several requests"),
    "aliases": ("the limit is 30", "`identifyMany`"),
    "directives": ("the limit is 20", "leave out"),
    "list items": ("the limit is 25,000", "smaller pages"),
    "200 KB of tokens": ("1,000 tokens", "as variables"),
    "5,000 levels": ("nested too deeply", "in several requests"),
    "10,000 comments": ("1,000 tokens", "as variables"),
}
MORE_THAN_ALLOWED = {
    **TOO_MUCH,
    "list items": "{ contacts(first: 100) { edges { node { cluster { secondaries { cluster {"
    " secondaries { id } } } } } } } }",
    "10,000 comments": "#\n" * 10_000 + "{ __typename }",
}


@pytest.mark.parametrize("case", ADVISED)
async def test_a_limit_is_told_and_what_to_do_instead(embedded: httpx2.AsyncClient, case: str) -> None:
    answer = await ask(embedded, MORE_THAN_ALLOWED[case])

    told = [error["message"] for error in answer["errors"] if error["extensions"]["code"] == "QUERY_TOO_COMPLEX"]
    assert any(all(part in message for part in ADVISED[case]) for message in told), answer["errors"]


async def test_200_items_fit_into_a_variable_and_what_does_not_fit_says_so(embedded: httpx2.AsyncClient) -> None:
    items = [{"email": f"a{n}@x.io", "phoneNumber": f"555{n:03}"} for n in range(200)]
    written = ", ".join(f'{{email: "{item["email"]}", phoneNumber: "{item["phoneNumber"]}"}}' for item in items)

    (error,) = (await ask(embedded, f"mutation {{ identifyMany(items: [{written}]) {{ error {{ code }} }} }}"))[
        "errors"
    ]
    assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert "give values as variables, such as the items of `identifyMany`" in error["message"]
    await identify(embedded, *[(item["email"], item["phoneNumber"]) for item in items])


async def test_the_schema_says_how_many_items_can_be_written_into_a_document(embedded: httpx2.AsyncClient) -> None:
    fields = (await data(embedded, '{ __type(name: "Mutation") { fields { name args { name description } } } }'))[
        "__type"
    ]["fields"]
    items, _ = next(field["args"] for field in fields if field["name"] == "identifyMany")
    assert "as a variable" in items["description"]
    hundred = ", ".join('{email: "a@x.io", phoneNumber: "111"}' for _ in range(100))

    answer = await data(embedded, f"mutation {{ identifyMany(items: [{hundred}]) {{ error {{ code }} }} }}")
    assert len(answer["identifyMany"]) == 100


async def test_the_document_cache_mixes_nothing_up(embedded: httpx2.AsyncClient) -> None:
    await identify(embedded, *THREE)
    query = "query A($id: ID!) { contact(id: $id) { email } } query B($id: ID!) { contact(id: $id) { phoneNumber } }"

    answers = [
        (await embedded.post("/graphql", json={"query": query, "operationName": name, "variables": {"id": id}})).json()
        for name in ("A", "B", "A")
        for id in ("1", "2")
    ]

    assert [next(iter(answer["data"]["contact"].values())) for answer in answers] == [
        *("a@x.io", "b@x.io"),
        *("111", "222"),
        *("a@x.io", "b@x.io"),
    ]


async def test_introspection_is_answered(embedded: httpx2.AsyncClient) -> None:
    from graphql import build_client_schema, get_introspection_query

    schema = build_client_schema(await data(embedded, get_introspection_query()))

    assert schema.mutation_type is not None
    assert {"identify", "identifyMany", "undo"} <= set(schema.mutation_type.fields)
