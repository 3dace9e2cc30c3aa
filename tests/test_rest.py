"""What the REST shim promises beside its answers."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa
import uvicorn
from structlog.testing import capture_logs

from identity_graphql import service
from identity_graphql.app import create_app
from identity_graphql.cli import DrainingServer
from tests.databases import Database
from tests.serving import serving, settings_for


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


async def test_ignored_values_are_named_in_a_header(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        one = await client.post("/identify", json={"email": "a@x.io", "phoneNumber": "null"})
        none = await client.post("/identify", json={"email": "a@x.io"})

    assert one.headers["x-identity-warnings"] == "phoneNumber=IGNORED_VALUE"
    assert "x-identity-warnings" not in none.headers


async def test_health_never_asks_the_database(tmp_path: Path, sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        with capture_statements() as sent:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/live")).json() == {"status": "live"}

    assert sent == []


def capture_statements() -> _Statements:
    return _Statements()


class _Statements(list[str]):
    def __enter__(self) -> _Statements:
        sa.event.listen(sa.Engine, "before_cursor_execute", self.note)
        return self

    def __exit__(self, *exc: object) -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", self.note)

    def note(self, connection: object, cursor: object, statement: str, *rest: object) -> None:
        self.append(statement)


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
    server = DrainingServer(uvicorn.Config(app))
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        before = await client.get("/ready")
        server.handle_exit(signal.SIGTERM, None)
        after = await client.get("/ready")

    assert (before.status_code, after.status_code) == (200, 503)


@pytest.mark.parametrize("path", ["/nothing", "/identify/1", "/graphql/x"])
async def test_another_path_is_404_in_the_same_shape(sqlite: Database, path: str) -> None:
    async with serving(sqlite.url) as client:
        response = await client.get(path)

    assert response.status_code == 404
    assert response.json() == {"error": "Not Found", "details": []}


async def test_the_root_leads_to_everything(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        page = await client.get("/", headers={"accept": "text/html"})
        listing = (await client.get("/")).json()
        for path in [name for name in listing if name.startswith("/")]:
            assert f'href="{path}"' in page.text
            accept = {"accept": "text/html"}
            assert (await client.get(path, headers=accept)).status_code == 200, path

    assert page.headers["content-type"].startswith("text/html")
    assert listing["identify"] == "POST /identify"


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


async def test_without_the_setting_no_page_of_another_origin_may_call(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        response = await client.post("/identify", json={"email": "a@x.io"}, headers={"origin": "https://shop.example"})

    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("00-4bf92f-01", True), ("x" * 129, False), ("a b", False), ("ä", False)]
)
async def test_a_decent_request_id_is_kept_and_another_replaced(sqlite: Database, given: str, kept: bool) -> None:
    async with serving(sqlite.url) as client:
        response = await client.get("/health", headers=[(b"x-request-id", given.encode())])

    assert (response.headers["x-request-id"] == given) == kept
    assert response.headers["x-request-id"]


async def test_the_event_has_the_request_id(sqlite: Database) -> None:
    async with serving(sqlite.url) as client:
        await client.post("/identify", json={"email": "a@x.io"}, headers={"x-request-id": "from-the-shop"})

    (event,) = (await sqlite.tables())["event"]
    assert event["request_id"] == "from-the-shop"


async def test_a_fault_is_a_masked_500_with_the_request_id(sqlite: Database, capfd: pytest.CaptureFixture[str]) -> None:
    storage = sqlite.open()
    async with serving(sqlite.url) as client:
        async with storage.transaction() as connection:
            await connection.execute(sa.text("ALTER TABLE pair RENAME TO gone"))
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


async def test_a_fault_of_the_edge_itself_is_masked_too(
    sqlite: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret@x.io")

    monkeypatch.setattr(service.IdentityService, "identify", broken)
    with capture_logs() as logs:
        async with serving(sqlite.url) as client:
            response = await client.post("/identify", json={"email": "a@x.io"}, headers={"x-request-id": "trace-me"})

    assert response.status_code == 500
    assert response.headers["x-request-id"] == "trace-me"
    assert "trace-me" in response.json()["details"][0]["message"]
    assert [entry["request_id"] for entry in logs if entry["log_level"] == "error"] == ["trace-me"]
    assert "secret" not in repr(logs) + "".join(capfd.readouterr()) + response.text
