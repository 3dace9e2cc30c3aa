"""The server: worker processes, the port they share, signals, and uvicorn's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess

from identity_graphql.app import address_of, prepare
from identity_graphql.errors import ConfigurationError
from identity_graphql.observability import describe, log
from identity_graphql.server.http_protocol import http_protocol
from identity_graphql.settings import Settings
from identity_graphql.storage.address import Backend

START_WITHIN = 60
"""Seconds that the workers get to start before they are looked after one by one."""
GRACE = 25
"""Seconds that requests under way get to finish when the server is told to stop."""

Announce = Callable[[Settings, int], None]


def serve(settings: Settings, *, announce: Announce, reload: bool = False) -> int:
    """Prepares the database, then serves until it is told to stop. Returns the exit code.

    ``announce`` is called with the settings and the port when the server answers. Raises ConfigurationError, which
    says what to do, where it cannot start.
    """
    count = 1 if reload else worker_count(settings)
    with _bound(settings, shared=count > 1) as listener:
        asyncio.run(prepare(settings))
        config = _config(settings, reload=reload, workers=count)
        started = partial(announce, settings, listener.getsockname()[1])
        if count > 1:
            supervisor = Supervisor(config, listener, started)
            supervisor.run()
            return supervisor.exit_code
        _listen(listener, config, settings)
        started()
        if reload:
            ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])
    return 0


def exit_when_told() -> None:
    """Being told to stop is no failure. While it runs, the server catches the signals itself, and sends them on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def worker_count(settings: Settings) -> int:
    """Returns how many processes serve. Raises ConfigurationError where there can be only one."""
    if address_of(settings).backend is Backend.SQLITE:
        if (settings.workers or 1) > 1:
            raise ConfigurationError(
                f"SQLite is one file for one process: it cannot be served by WORKERS={settings.workers}. Leave WORKERS "
                "out, or put the data where several can write, with DATABASE_URL=postgresql://…"
            )
        return 1
    return settings.workers or available_cores()


def available_cores() -> int:
    """Returns the cores that this process may use: in a container, what it was given of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


class SharedPort(socket.socket):
    """A port that every worker gets a socket of its own for, so that the kernel spreads the connections over them.

    Of one socket for all, whoever is awake takes a whole burst: 16 connections that came together went to one worker.
    """

    def __reduce__(self) -> tuple[Callable[..., SharedPort], tuple[object, ...]]:  # how it reaches a worker
        return SharedPort.bound, (self.family, self.getsockname())

    @classmethod
    def bound(cls, family: int, address: Any) -> SharedPort:
        """Returns a socket of this address, beside others of the same user."""
        port = cls(family, socket.SOCK_STREAM)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(address)
        return port


class Supervisor(Multiprocess):
    """Keeps the workers running, and calls ``started`` when all of them are there to answer."""

    def __init__(self, config: uvicorn.Config, port: socket.socket, started: Callable[[], None]) -> None:
        super().__init__(config, sockets=[port])
        self._started = started

    def init_processes(self) -> None:
        super().init_processes()
        if all(worker.wait_until_ready(START_WITHIN, self.should_exit) for worker in self.processes):
            self._started()

    @property
    def exit_code(self) -> int:
        """Of the program, once it has stopped: of a worker that could not start, if there was one."""
        return STARTUP_FAILURE if any(worker.exitcode == STARTUP_FAILURE for worker in self.processes) else 0


@contextlib.contextmanager
def _bound(settings: Settings, *, shared: bool) -> Iterator[socket.socket]:
    """The port, bound before anything else is done: one that is taken is told at once."""
    with _explained_port(settings):
        port = socket.socket(_family(settings), socket.SOCK_STREAM)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((settings.host, settings.port))
        if shared:  # only now, that it is known to be nobody else's
            address = port.getsockname()
            port.close()
            port = SharedPort.bound(port.family, address)
    with contextlib.closing(port):
        port.set_inheritable(True)  # by the processes of --reload
        yield port


def _listen(listener: socket.socket, config: uvicorn.Config, settings: Settings) -> None:
    """Accept connections: what is announced from here on is true. They are answered as soon as the server is up."""
    with _explained_port(settings):
        listener.listen(config.backlog)


@contextlib.contextmanager
def _explained_port(settings: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}, port {settings.port} ({error.strerror}): "
            "choose another port with --port or PORT, another address with --host or HOST."
        ) from None


def _family(settings: Settings) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in settings.host else socket.AF_INET


def _config(settings: Settings, *, reload: bool, workers: int) -> uvicorn.Config:
    relay = {"class": f"{__name__}.UvicornLog"}
    return uvicorn.Config(
        "identity_graphql.server.worker:create",
        factory=True,
        workers=workers,
        reload=reload,
        reload_dirs=[str(Path(__file__).parent.parent)] if reload else None,
        http=http_protocol(settings),
        ws="none",  # there are no subscriptions
        access_log=False,  # it would log query strings; the program logs its own line
        log_config={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"relay": relay},
            "loggers": {"uvicorn": {"handlers": ["relay"], "level": settings.log_level, "propagate": False}},
        },
        server_header=False,
        proxy_headers=False,  # nothing here asks where a request came from
        timeout_graceful_shutdown=GRACE,
    )


class UvicornLog(logging.Handler):
    """The server's own lines among ours, in the same form; of an error, only what `describe` lets through."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        details: dict[str, Any] = describe(error) if error else {}
        log.log(record.levelno, "server", message=record.getMessage(), **details)
