"""What the REST shim promises beside its answers."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
import uvicorn
from structlog.testing import capture_logs

from identity_graphql.app import create_app
from identity_graphql.errors import DatabaseAway
from identity_graphql.services import identify as service
from tests.support.databases import FAULT, Database, migrate
from tests.support.serving import JSON, serving, settings_for


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        (
            "bitespeed",
            '{"contact":{"primaryContatctId":1,"emails":["a@x.io"],"phoneNumbers":["111"],"secondaryContactIds":[]}}',
        ),
        (
            "corrected",
            '{"contact":{"primaryContactId":1,"emails":["a@x.io"],"phoneNumbers":["111"],"secondaryContactIds":[]}}',
        ),
        ("flat", '{"primaryContactId":1,"emails":["a@x.io"],"phoneNumbers":["111"],"secondaryContactIds":[]}'),
    ],
)
async def test_each_contract_has_its_keys_in_their_order(sqlite: Database, contract: str, expected: str) -> None:
    async with serving(sqlite.url, rest_contract=contract) as client:
        response = await client.post("/identify", json={"email": "a@x.io", "phoneNumber": 111, "name": "ignored"})

    assert response.text == expected
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("contract", ["bitespeed", "corrected", "flat"])
async def test_errors_are_the_same_under_every_contract(sqlite: Database, contract: str) -> None:
    async with serving(sqlite.url, rest_contract=contract) as client:
        response = await client.post("/identify", json={})

    assert response.text == (
        '{"error":"Validation Error","details":'
        '[{"path":"root","message":"At least one of email or phoneNumber must be provided"}]}'
    )


async def test_lists_begin_with_the_primary_and_have_no_repeats_and_no_nulls(sqlite: Database) -> None:
    async with serving(sqlite.url, rest_contract="flat") as client:
        for body in (
            {"phoneNumber": "222"},
            {"email": "a@x.io", "phoneNumber": "111"},
            {"email": "A@X.io", "phoneNumber": " 1-1-1 "},
            {"email": "b@x.io", "phoneNumber": "111"},
        ):
            await client.post("/identify", json=body)
        response = await client.post("/identify", json={"email": "b@x.io", "phoneNumber": "222"})

    assert response.text == (
        '{"primaryContactId":1,"emails":["a@x.io","b@x.io"],"phoneNumbers":["222","111"],"secondaryContactIds":[2,3]}'
    )


@pytest.mark.parametrize(
    "phone_number",
    [
        "123456",
        123456,
        123456.0,
        " 123 456 ",
        "123-456",
        "123\u2011456",
        "123456.0",
        "'123456",
        "\uff11\uff12\uff13456",
    ],
    ids=ascii,
)
async def test_a_phone_number_is_the_same_however_it_is_written(
    sqlite: Database, phone_number: str | int | float
) -> None:
    async with serving(sqlite.url, rest_contract="flat") as client:
        await client.post("/identify", json={"phoneNumber": "123456"})
        response = await client.post("/identify", json={"phoneNumber": phone_number})

    assert response.json()["phoneNumbers"] == ["123456"]
    assert response.json()["secondaryContactIds"] == []


@pytest.mark.parametrize(
    "email",
    [
        "<John@Example.com>",
        "mailto:john@example.com",
        "john@example.com.",
        "john@example.com\u3002",
        "john\uff20example.com",
    ],
    ids=ascii,
)
async def test_an_email_is_the_same_however_it_is_written(sqlite: Database, email: str) -> None:
    async with serving(sqlite.url, rest_contract="flat") as client:
        await client.post("/identify", json={"email": "john@example.com"})
        response = await client.post("/identify", json={"email": email})

    assert response.json()["emails"] == ["john@example.com"]
    assert response.json()["secondaryContactIds"] == []


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;"])
async def test_json_is_json_however_it_is_written(sqlite: Database, content_type: str) -> None:
    async with serving(sqlite.url) as client:
        response = await client.post(
            "/identify", content=b'{"email": "a@x.io"}', headers={"content-type": content_type}
        )

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "warnings"),
    [
        ({"email": "a@x.io", "phoneNumber": "null"}, "phoneNumber=IGNORED_VALUE"),
        ({"email": "a@x.io", "phoneNumber": "000"}, "phoneNumber=IGNORED_VALUE"),
        ({"email": "Undefined", "phoneNumber": "111"}, "email=IGNORED_VALUE"),
        ({"email": "a@x.io", "phoneNumber": -1}, "phoneNumber=IGNORED_VALUE"),
        ({"email": "Unknown ", "phoneNumber": "111"}, "email=IGNORED_VALUE"),
        ({"email": "a@x.io", "phoneNumber": ""}, None),
        ({"email": "a@x.io", "phoneNumber": None}, None),
        ({"email": "a@x.io"}, None),
    ],
)
async def test_ignored_values_are_named_in_a_header(sqlite: Database, body: Any, warnings: str | None) -> None:
    async with serving(sqlite.url) as client:
        response = await client.post("/identify", json=body)

    assert response.status_code == 200
    assert response.headers.get("x-identity-warnings") == warnings


@pytest.mark.parametrize("contract", ["bitespeed", "flat"])
async def test_health_never_asks_the_database(tmp_path: Path, contract: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    url = f"sqlite:///{folder}/gone.db"
    await migrate(Database("sqlite", url))
    async with serving(url, rest_contract=contract) as client:
        shutil.rmtree(folder)
        with _Statements() as sent:
            assert (await client.get("/health")).json()["status"] == ("healthy" if contract == "flat" else "ok")
            assert (await client.get("/live")).json() == {"status": "live"}

    assert sent == []


class _Statements(list[str]):
    """The statements that are sent to any database meanwhile."""

    def __enter__(self) -> _Statements:
        sa.event.listen(sa.Engine, "before_cursor_execute", self.note)
        return self

    def __exit__(self, *exc: object) -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", self.note)

    def note(self, connection: object, cursor: object, statement: str, *rest: object) -> None:
        self.append(statement)


@pytest.mark.parametrize("path", ["/health", "/live", "/ready"])
async def test_checks_answer_head_and_refuse_what_is_no_reading(sqlite: Database, path: str) -> None:
    async with serving(sqlite.url) as client:
        head = await client.head(path)
        post = await client.post(path)

    assert (head.status_code, head.content) == (200, b"")
    assert post.status_code == 405
    assert set(post.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert post.json() == {"error": "Method Not Allowed", "details": []}


async def test_ready_is_503_until_the_database_is_migrated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    async with serving(url, auto_migrate=False) as client:
        before = await client.get("/ready")
        async with serving(url) as other:
            assert (await other.get("/ready")).json() == {"status": "ready"}
        after = await client.get("/ready")

    assert before.status_code == 503
    assert before.headers["retry-after"] == "1"
    assert after.json() == {"status": "ready"}


async def test_a_server_that_is_told_to_stop_is_no_longer_ready(sqlite: Database) -> None:
    app = create_app(settings_for(sqlite.url))
    server = uvicorn.Server(uvicorn.Config(app))
    transport = httpx2.ASGITransport(app=app)
    with server.capture_signals():
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            before = await client.get("/ready")
            signal.raise_signal(signal.SIGTERM)
            after = await client.get("/ready")
        server._captured_signals.clear()  # noqa: SLF001 - else it would go on to end the tests

    assert (before.status_code, after.status_code) == (200, 503)
    assert server.should_exit


@pytest.mark.parametrize("path", ["/nothing", "/identify/1", "/graphql/x"])
async def test_another_path_is_404_in_the_same_shape(sqlite: Database, path: str) -> None:
    async with serving(sqlite.url) as client:
        response = await client.get(path)

    assert response.status_code == 404
    assert response.json() == {"error": "Not Found", "details": []}


async def test_a_body_may_begin_with_a_byte_order_mark(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        marked = await client.post("/identify", content=b'\xef\xbb\xbf{"email": "a@x.io"}', headers=JSON)

    assert marked.status_code == 200


async def preflight(client: httpx2.AsyncClient, origin: str) -> httpx2.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    return await client.options("/identify", headers=headers)


async def test_pages_of_the_named_origins_may_call(sqlite: Database) -> None:
    async with serving(sqlite.url, cors_origins="https://shop.example, https://crm.example") as client:
        asked = await preflight(client, "https://crm.example")
        called = await client.post(
            "/identify", json={"email": "a@x.io", "phoneNumber": "0"}, headers={"origin": "https://shop.example"}
        )
        stranger = await preflight(client, "https://evil.example")

    assert asked.headers["access-control-allow-origin"] == "https://crm.example"
    assert called.headers["access-control-allow-origin"] == "https://shop.example"
    assert "X-Identity-Warnings" in called.headers["access-control-expose-headers"]
    assert stranger.status_code == 400


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
@pytest.mark.parametrize("origins", ["*", "HTTPS://Shop.Example:443/"])
@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("authorization", True),
        ("x-api-key", True),
        ("content-type", True),
        ("x-request-id", True),
        ("authorization, content-type, x-api-key, x-request-id", True),
        ("idempotency-key", False),  # every request may be repeated without
        ("content-encoding", False),
    ],
)
async def test_a_page_may_send_the_headers_that_are_understood(
    sqlite: Database, path: str, origins: str, header: str, allowed: bool
) -> None:
    headers = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": header,
    }
    async with serving(sqlite.url, cors_origins=origins) as client:
        asked = await client.options(path, headers=headers)

    assert asked.status_code == (200 if allowed else 400)
    listed = {name.strip().lower() for name in asked.headers["access-control-allow-headers"].split(",")}
    assert (set(header.split(", ")) <= listed) == allowed


async def test_a_page_can_read_every_header_that_is_answered_with(sqlite: Database) -> None:
    readable = {"cache-control", "content-length", "content-type"}  # of those that a page can always read
    for_others = {"connection", "date", "server", "transfer-encoding", "vary", "access-control-allow-origin"}
    page = {"origin": "https://shop.example"}
    async with serving(sqlite.url, cors_origins="https://shop.example") as client:
        answers = [
            await client.post("/identify", json={"email": "a@x.io", "phoneNumber": "0"}, headers=page),
            await client.post("/identify", json={}, headers=page),
            await client.put("/identify", headers=page),
            await client.post("/identify", content=b"x" * 20_000, headers=JSON | page),
            await client.put("/graphql", headers=page),
            await client.post("/graphql", json={"query": "{ __typename }"}, headers=page),
            *[await client.get(path, headers=page) for path in ("/", "/ready", "/live", "/openapi.json", "/nothing")],
        ]

    for answer in answers:
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        sent = set(answer.headers) - for_others - {"access-control-expose-headers"}
        assert sent <= readable | exposed, answer.url
        assert "retry-after" in exposed, "of a 503"


async def test_pages_of_all_origins_may_call_where_that_is_set(sqlite: Database) -> None:
    async with serving(sqlite.url, cors_origins="*") as client:
        asked = await preflight(client, "https://anybody.example")
        called = await client.post("/identify", json={}, headers={"origin": "https://anybody.example"})

    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "*")
    assert (called.status_code, called.headers["access-control-allow-origin"]) == (400, "*")


async def test_without_the_setting_no_page_of_another_origin_may_call(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        asked = await preflight(client, "https://shop.example")
        called = await client.post("/identify", json={"email": "a@x.io"}, headers={"origin": "https://shop.example"})

    assert asked.status_code == 405
    assert not [name for name in (*asked.headers, *called.headers) if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("00-4bf92f-01", True), ("x" * 129, False), ("a b", False), ("ä", False)]
)
async def test_a_decent_request_id_is_kept_and_another_replaced(sqlite: Database, given: str, kept: bool) -> None:
    async with serving(sqlite.url) as client:
        response = await client.get("/health", headers=[(b"x-request-id", given.encode())])

    assert (response.headers["x-request-id"] == given) == kept
    assert response.headers["x-request-id"]


async def test_every_answer_has_a_request_id_of_its_own(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        answers = [
            await client.get("/live"),
            await client.get("/nothing"),
            await client.put("/identify"),
            await client.post("/identify", content=b"x" * 20_000, headers=JSON),
            await client.post("/graphql", content=b"{}", headers=JSON),
        ]

    assert [answer.status_code for answer in answers] == [200, 404, 405, 413, 400]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_the_event_has_the_request_id(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        await client.post("/identify", json={"email": "a@x.io"}, headers={"x-request-id": "from-the-shop"})

    (event,) = (await sqlite.tables())["event"]
    assert event["request_id"] == "from-the-shop"


async def test_a_fault_is_a_masked_500_with_the_request_id(sqlite: Database, capfd: pytest.CaptureFixture[str]) -> None:
    storage = sqlite.open()
    async with serving(sqlite.url) as client:
        async with storage.transaction() as connection:
            await connection.execute(sa.text(FAULT))
        with capture_logs() as logs:
            response = await client.post(
                "/identify",
                json={"email": "secret@x.io", "phoneNumber": "5551234"},
                headers={"x-request-id": "trace-me"},
            )
    await storage.close()

    assert response.status_code == 500
    assert response.json()["error"] == "Internal Server Error"
    assert "trace-me" in response.json()["details"][0]["message"]
    assert response.headers["x-request-id"] == "trace-me"
    assert [entry["request_id"] for entry in logs if entry["log_level"] == "error"] == ["trace-me"]
    everything = repr(logs) + "".join(capfd.readouterr()) + response.text
    assert "secret" not in everything
    assert "5551234" not in everything


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
async def test_a_fault_of_the_edge_itself_is_masked_too(
    sqlite: Database, path: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret@x.io")

    monkeypatch.setattr(service.IdentityService, "identify", broken)
    monkeypatch.setattr("identity_graphql.api.graphql.view.GraphQLEndpoint.run", broken)
    headers = {"x-request-id": "trace-me", "origin": "https://shop.example"}
    with capture_logs() as logs:
        async with serving(sqlite.url, cors_origins="https://shop.example") as client:
            response = await client.post(path, json={"email": "a@x.io"}, headers=headers)

    assert response.status_code == 500
    assert response.headers["x-request-id"] == "trace-me"
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
    assert list(response.json()) == ["error", "details"]
    assert "trace-me" in response.json()["details"][0]["message"]
    assert [entry["request_id"] for entry in logs if entry["log_level"] == "error"] == ["trace-me"]
    assert "secret" not in repr(logs) + "".join(capfd.readouterr()) + response.text


async def test_a_fault_amid_an_answer_says_nothing_of_the_request(
    sqlite: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: object, scope: object, receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        raise RuntimeError("secret@x.io")

    monkeypatch.setattr("identity_graphql.api.graphql.view.GraphQLEndpoint.__call__", broken)
    with capture_logs() as logs:
        async with serving(sqlite.url) as client:
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.post("/graphql", json={})
            assert (await client.get("/live")).status_code == 200

    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["request.failed"]
    assert "secret" not in repr(logs) + "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["/identify", "/graphql"])
async def test_a_client_that_goes_away_is_no_fault(
    sqlite: Database, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    with capture_logs() as logs:
        async with serving(sqlite.url) as client:
            _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(head.encode() + b'{"email": "secret')
            await writer.drain()
            await client.get("/live")
            writer.close()
            await writer.wait_closed()
            assert (await client.get("/live")).status_code == 200

    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    assert "".join(capfd.readouterr()) == ""


async def test_a_start_that_fails_is_told_to_the_server(tmp_path: Path) -> None:
    app = create_app(settings_for(f"sqlite:///{tmp_path}/missing/x.db"))
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with pytest.raises(DatabaseAway), capture_logs() as logs:
        await app({"type": "lifespan", "state": {}}, receive, send)

    assert sent == ["lifespan.startup.failed"]
    assert logs == []
