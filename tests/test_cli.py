"""The program as people start it: a process of its own, judged by what it prints and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa
from alembic import command
from typer.testing import CliRunner

from identity_graphql import __version__, cli
from identity_graphql.app import prepare
from identity_graphql.domain.identifiers import Given, Normalisation
from identity_graphql.errors import ConfigurationError
from identity_graphql.services.identify import IdentityService
from identity_graphql.settings import Settings
from identity_graphql.storage import migrations
from identity_graphql.storage.migrations import head
from tests.support.databases import Database, Databases
from tests.support.program import address, environment, identify, refused, run, served
from tests.support.serving import ROOT, settings_for

# --- the words ---


def test_every_word_has_a_help_that_shows_examples() -> None:
    for words in ([], ["serve"], ["migrate"], ["verify"], ["simulate"], ["schema"]):
        result = CliRunner().invoke(cli.app, [*words, "--help"])
        assert result.exit_code == 0
        assert " ".join(["identity-graphql", *words]) in result.stdout.partition("\n")[2], words


def test_the_help_of_serve_explains_every_setting() -> None:
    text = CliRunner().invoke(cli.app, ["serve", "--help"]).stdout
    for name, field in Settings.model_fields.items():
        assert re.search(rf"^ +{name.upper()}$", text, re.MULTILINE), name
        assert field.description, name


def test_without_a_word_it_shows_its_help() -> None:
    result = CliRunner().invoke(cli.app, [])
    assert "serve" in result.output
    assert "migrate" in result.output
    assert "schema" in result.output


def test_schema_prints_what_schema_graphql_holds() -> None:
    assert CliRunner().invoke(cli.app, ["schema"]).stdout == (ROOT / "schema.graphql").read_text()


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).stdout == f"identity-graphql {__version__}\n"


def test_the_module_is_the_program_by_the_same_name(tmp_path: Path) -> None:
    module = subprocess.run(
        [sys.executable, "-m", "identity_graphql", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert module.stdout == run(tmp_path, "--help").stdout


def test_env_example_explains_every_setting_and_its_default() -> None:
    listed = dict(re.findall(r"^# ?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert listed == {name.upper(): cli.written(field.get_default()) for name, field in Settings.model_fields.items()}


# --- serve ---


def test_serve_needs_no_settings_and_says_where_everything_is(tmp_path: Path) -> None:
    with served(tmp_path) as (_, lines):
        at = address(lines)
        assert [line.split()[0] for line in lines[1:]] == ["GraphiQL", "REST", "Docs", "Health"]
        assert identify(at, email="ann@example.com").json()["contact"]["primaryContatctId"] == 1
        for line in (lines[1], *lines[3:]):
            page = httpx2.get(line.split()[-1], headers={"accept": "text/html"}, timeout=20)
            assert page.status_code == 200, line
        assert (tmp_path / "identity.db").exists()


def test_sigterm_lets_a_request_under_way_finish_and_then_ends_serve_with_success(tmp_path: Path) -> None:
    """A writer holds the database while a request is under way and the server is told to stop."""
    with served(tmp_path) as (program, lines), ThreadPoolExecutor(1) as thread:
        at = address(lines)
        identify(at, email="ann@example.com")
        with closing(sqlite3.connect(tmp_path / "identity.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = thread.submit(identify, at, email="bob@example.com")
            time.sleep(0.5)
            program.terminate()
            time.sleep(0.5)
            assert not answer.done()
            other.execute("ROLLBACK")
        assert answer.result().status_code == 200
        assert program.wait(timeout=5) == 0


def test_workers_share_the_port_and_the_database(tmp_path: Path, postgresql: Database) -> None:
    """Each has its own socket, one that dies is replaced, and all of them end when the server is told to."""
    with served(tmp_path, "--workers", "2", DATABASE_URL=postgresql.url) as (program, lines):
        at = address(lines)
        first = children(program)
        assert len(first) == 2
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda n: identify(at, email=f"a{n}@x.io", phoneNumber="111"), range(48)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["contact"]["primaryContatctId"] for answer in answers} == {1}

        os.kill(first[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(set(children(program)) - {first[0]}) < 2:
            assert time.monotonic() < deadline, "the worker was not replaced"
            time.sleep(0.1)
        assert identify(at, email="a0@x.io").status_code == 200

        program.terminate()
        assert program.wait(timeout=20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in first)


def test_workers_end_with_the_process_that_started_them_even_if_it_is_killed(
    tmp_path: Path, postgresql: Database
) -> None:
    """Else they would go on serving, and nobody would replace one that dies, or stop them."""
    with served(tmp_path, "--workers", "2", DATABASE_URL=postgresql.url, LOG_FORMAT="json") as (program, lines):
        at, workers = address(lines), children(program)
        assert len(workers) == 2
        assert identify(at, email="ann@example.com").status_code == 200
        program.kill()
        for _ in until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), within=5):
            time.sleep(0.1)
        with pytest.raises(httpx2.ConnectError):
            identify(at, email="ann@example.com")
    told = [line for line in (tmp_path / "log").read_text().splitlines() if "server.parent_gone" in line]
    assert len(told) == 2


def children(program: subprocess.Popen[str]) -> list[int]:
    """The workers of a server."""
    found = subprocess.run(["pgrep", "-P", str(program.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_a_port_that_is_taken_is_told_whatever_the_workers(tmp_path: Path, postgresql: Database) -> None:
    settings = {"DATABASE_URL": postgresql.url}
    with served(tmp_path, "--workers", "2", **settings) as (_, lines):
        port = address(lines).rpartition(":")[2]
        refused = run(tmp_path, "serve", "--port", port, "--workers", "2", **settings)

    assert refused.returncode == 2
    assert f"port {port}" in refused.stderr


def test_sqlite_is_served_by_one_worker_and_says_why(tmp_path: Path) -> None:
    refused = run(tmp_path, "serve", "--port", "0", "--workers", "2")

    assert refused.returncode == 2
    assert "SQLite is one file for one process" in refused.stderr
    assert "DATABASE_URL=postgresql://" in refused.stderr


def test_ctrl_c_ends_serve_without_a_traceback(tmp_path: Path) -> None:
    with served(tmp_path) as (program, lines):
        httpx2.get(f"{address(lines)}/ready", timeout=20)
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=5) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_every_line_of_the_log_is_json_where_that_is_set(tmp_path: Path) -> None:
    with served(tmp_path, LOG_FORMAT="json") as (program, lines):
        httpx2.get(f"{address(lines)}/ready", timeout=20)
        httpx2.get(f"{address(lines)}/lorraine@hillvalley.edu", timeout=20)
        program.terminate()
        program.wait(timeout=5)
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"server", "http.request"} <= {entry["event"] for entry in entries}
    # What somebody asks for may be anything, so only our own paths are told.
    assert [entry["path"] for entry in entries if entry["event"] == "http.request"] == ["/ready", "(other)"]


def test_reload_serves_changed_code_on_the_same_port(tmp_path: Path) -> None:
    for name in ("identity_graphql", "alembic"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with served(tmp_path, "--reload", PYTHONPATH=str(tmp_path)) as (program, lines):
        at = address(lines)
        assert httpx2.get(f"{at}/health", timeout=20).json()["status"] == "ok"
        code = tmp_path / "identity_graphql/api/rest.py"
        code.write_text(code.read_text().replace('Health("ok"', 'Health("mended"').replace('["ok"]', '["mended"]'))
        for _ in until(lambda: _status(at) == "mended", within=20):
            time.sleep(0.1)
        program.terminate()
        assert program.wait(timeout=10) == 0


def _status(at: str) -> str | None:
    with suppress(httpx2.TransportError):
        status: str = httpx2.get(f"{at}/health", timeout=20).json()["status"]
        return status
    return None


def until(condition: Callable[[], bool], *, within: float) -> Iterator[None]:
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        yield


def test_without_auto_migrate_it_serves_says_so_and_is_not_ready_until_migrated(tmp_path: Path) -> None:
    with served(tmp_path, AUTO_MIGRATE="false") as (_, lines):
        at = address(lines)
        assert httpx2.get(f"{at}/live", timeout=20).status_code == 200
        assert httpx2.get(f"{at}/ready", timeout=20).status_code == 503
        assert "Run `identity-graphql migrate`" in (tmp_path / "log").read_text()
        assert run(tmp_path, "migrate").returncode == 0
        assert httpx2.get(f"{at}/ready", timeout=20).status_code == 200


# --- what cannot work ---


def test_bad_settings_of_the_environment_and_of_the_env_file_are_named_without_their_values(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NODE_ENV=production\nLOG_LEVEL=loud\nPORT=8001\n")
    said = refused(run(tmp_path, "serve", PORT="https", POOL_SIZE="0"))
    assert [line.split(":")[0].strip() for line in said.splitlines()[1:]] == ["PORT", "POOL_SIZE", "LOG_LEVEL"]
    assert "https" not in said
    assert "loud" not in said


def test_a_database_url_that_is_empty_is_no_sqlite_file(tmp_path: Path) -> None:
    said = refused(run(tmp_path, "serve", DATABASE_URL=""))
    assert said.splitlines()[1].startswith("  DATABASE_URL: is empty: a secret that is missing?")
    (tmp_path / ".env").write_text("DATABASE_URL=\n")
    assert "DATABASE_URL: is empty" in refused(run(tmp_path, "migrate"))
    assert list(tmp_path.iterdir()) == [tmp_path / ".env"]
    assert run(tmp_path, "migrate", DATABASE_URL="sqlite:///./mine.db").returncode == 0, "the environment goes before"


def test_origins_that_match_nothing_end_serve_and_say_what_is_right(tmp_path: Path) -> None:
    said = refused(run(tmp_path, "serve", CORS_ORIGINS="https://shop.example,https://crm.example/login"))
    assert said.splitlines()[1].startswith("  CORS_ORIGINS: origin 2 goes on behind the host: an origin is a scheme")
    assert "crm" not in said


def test_a_name_that_looks_misspelt_is_warned_of_once_whatever_the_workers(
    tmp_path: Path, postgresql: Database
) -> None:
    (tmp_path / ".env").write_text("DATABSE_URL=postgresql://ann:hush@db/x\nNODE_ENV=production\n")
    with served(tmp_path, "--workers", "2", LOG_FORMAT="json", DATABASE_URL=postgresql.url, LOGLEVEL="DEBUG") as (
        _,
        lines,
    ):
        assert httpx2.get(f"{address(lines)}/live", timeout=20).status_code == 200
        log = (tmp_path / "log").read_text()

    entries = [json.loads(line) for line in log.splitlines()]
    assert [(entry["name"], entry["hint"]) for entry in entries if entry["event"] == "settings.unknown"] == [
        ("DATABSE_URL", "There is no such setting; is DATABASE_URL meant?"),
        ("LOGLEVEL", "There is no such setting; is LOG_LEVEL meant?"),
    ]
    assert "hush" not in log


def test_a_name_that_looks_misspelt_is_warned_of_under_another_server_too(tmp_path: Path) -> None:
    """As `uvicorn --factory identity_graphql.app:create` starts it."""
    (tmp_path / ".env").write_text("DATABSE_URL=postgresql://db/x\n")
    program = [sys.executable, "-c", "from identity_graphql.app import create; create()"]
    done = subprocess.run(
        program, cwd=tmp_path, env=environment(LOG_FORMAT="json"), capture_output=True, text=True, check=True
    )

    (entry,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (entry["event"], entry["name"]) == ("settings.unknown", "DATABSE_URL")


def test_a_database_that_cannot_be_used_ends_serve_before_anything_is_announced(tmp_path: Path) -> None:
    said = refused(run(tmp_path, "serve", "--port", "0", DATABASE_URL="postgresql://ann:hush@127.0.0.1:1/x"))
    assert said.startswith("The database postgresql+asyncpg://ann:***@127.0.0.1:1/x cannot be used: Connection refused")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mongodb://ann:hush@127.0.0.1/x", "scheme"),
        ("postgresql://ann:hush@127.0.0.1:1/x", "Connection refused"),
        ("postgresql://ann:hush@no-such-host.invalid/x", "host is not known"),
        ("mysql://ann:hush@127.0.0.1:1/x", "Is it running"),
        ("sqlite:////no/such/folder/x.db", "folder"),
    ],
    ids=["scheme", "refused", "unknown host", "mysql", "sqlite"],
)
async def test_a_database_that_cannot_be_used_is_told_in_a_line_without_the_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as told:
        await prepare(settings_for(url))
    assert "hush" not in str(told.value)
    assert "\n" not in str(told.value)
    # aiosqlite ends its thread with a call into the loop, which would be closed by then.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 1)


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
async def test_a_database_server_that_refuses_is_quoted(name: str, databases: Databases) -> None:
    url = databases.server(name).url("no_such_database")
    with pytest.raises(ConfigurationError, match=r"(?i)(does not exist|unknown database).*create it") as told:
        await prepare(settings_for(url))
    assert "no_such_database" in str(told.value)


async def test_a_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "letters.txt"
    file.write_text("Dear Ann,\n" * 1000)
    with pytest.raises(ConfigurationError, match="not a database"):
        await prepare(settings_for(f"sqlite:///{file}"))
    assert file.read_text() == "Dear Ann,\n" * 1000


def test_a_port_that_is_taken_is_told_before_the_database_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(run(tmp_path, "serve", PORT=str(taken.getsockname()[1])))
    assert "choose another port with --port or PORT" in said
    assert not (tmp_path / "identity.db").exists()


async def test_another_normalisation_than_the_newest_events_is_refused_until_accepted(
    sqlite: Database, tmp_path: Path
) -> None:
    await stored(sqlite)
    with pytest.raises(ConfigurationError, match="ACCEPT_NORMALISATION_CHANGE=true"):
        await prepare(settings_for(sqlite.url, default_region="IN"))
    await prepare(settings_for(sqlite.url, default_region="IN", accept_normalisation_change=True))


async def stored(database: Database) -> None:
    """One contact in it."""
    storage = database.open()
    await IdentityService(storage, Normalisation()).identify(Given(email="ann@example.com", phone_number="123456"))
    await storage.close()


# --- migrate ---


def test_migrate_prepares_the_database_and_says_what_it_did(tmp_path: Path) -> None:
    result = run(tmp_path, "migrate")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"The tables were made: the database is up to date, at revision {head()}.\n"
    assert (tmp_path / "identity.db").exists()

    result = run(tmp_path, "migrate")
    assert result.stdout == f"Nothing to do: the database is up to date, at revision {head()}.\n"


async def test_migrate_says_from_where_it_migrated(sqlite: Database, tmp_path: Path) -> None:
    storage = sqlite.open()
    async with storage.migrating() as connection:
        await connection.run_sync(go_to, "0001")
    await storage.close()

    result = run(tmp_path, "migrate", DATABASE_URL=sqlite.url)

    assert result.stdout == f"The database was migrated from revision 0001 to {head()}.\n"


def go_to(connection: sa.Connection, revision: str) -> None:
    configuration = migrations.configuration()
    configuration.attributes["connection"] = connection
    command.downgrade(configuration, revision)


async def test_migrate_says_nothing_beside_it_on_a_server_that_has_notes_on_every_statement(
    databases: Databases, tmp_path: Path
) -> None:
    with databases.another("mariadb") as database:
        result = run(tmp_path, "migrate", DATABASE_URL=database.url, LOG_FORMAT="json", LOG_LEVEL="DEBUG")

    assert (result.returncode, result.stderr) == (0, "")


def test_what_a_library_logs_is_a_line_in_our_form_and_without_its_text(tmp_path: Path) -> None:
    program = """
import logging
from identity_graphql.observability import configure
configure(level="INFO", form="json")
try:
    raise ValueError("secret@x.io")
except ValueError:
    logging.getLogger("somebody").exception("secret@x.io")
logging.getLogger("asyncmy").warning("secret@x.io")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stderr

    (line,) = map(json.loads, said.splitlines())
    assert (line["event"], line["library"], line["level"], line["error"]) == (
        "library",
        "somebody",
        "error",
        "ValueError",
    )
    assert "secret" not in said


async def test_reset_asks_and_does_nothing_without_a_yes(sqlite: Database, tmp_path: Path) -> None:
    await stored(sqlite)
    for answer in ("n\n", ""):
        result = run(tmp_path, "migrate", "--reset", answer=answer, DATABASE_URL=sqlite.url)
        assert result.returncode == 1
        assert sqlite.url.rpartition("/")[2] in result.stdout
        assert result.stderr.strip() == "Nothing was changed."
    assert len((await sqlite.tables())["contact"]) == 1

    assert run(tmp_path, "migrate", "--reset", answer="y\n", DATABASE_URL=sqlite.url).returncode == 0
    assert (await sqlite.tables())["contact"] == []


def test_reset_with_yes_does_not_ask(tmp_path: Path) -> None:
    result = run(tmp_path, "migrate", "--reset", "--yes")
    assert (result.returncode, result.stdout) == (0, "The database is empty and up to date.\n")
