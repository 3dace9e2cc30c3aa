"""Keeps one throw-away server for the test process that started it, and does not outlive it.

A JSON array a line comes in on stdin (`["start", "/usr/sbin/mariadbd", ...]`), and one answer a line goes
out: `{"result": ...}` or `{"error": ...}`. When stdin ends, because the test process is done or was killed,
the server is stopped and its folder removed. Standard library only: it runs outside the virtual environment.
"""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Guard:
    """One folder, and at most one server in it; root's server runs as the user `nobody`."""

    def __init__(self, parent: str, stop_signal: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="idgql", dir=parent)).resolve()
        self._stop_signal = signal.Signals[stop_signal]
        self._server: subprocess.Popen[bytes] | None = None
        self._home = self._folder / "home"
        self._home.mkdir(mode=0o700)
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:  # the servers refuse to run as root
            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._folder.chmod(0o711)
            self.give(str(self._home))

    def folder(self) -> str:
        return str(self._folder)

    def give(self, path: str) -> None:
        """Give a folder beneath ours to the server's user."""
        if self._identity:
            for place in (Path(path), *Path(path).rglob("*")):
                os.chown(place, self._identity["user"], self._identity["group"], follow_symlinks=False)

    def run(self, *command: str) -> None:
        process = self._popen(command)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code:
            raise RuntimeError(f"{command[0]} ended with {code}")

    def start(self, *command: str) -> None:
        if self.running():
            raise RuntimeError("the server runs already")
        self._server = self._popen(command)

    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.send_signal(self._stop_signal)
        self.thaw()  # a stopped process gets no other signal than SIGKILL
        try:
            self._server.wait(15)
        except subprocess.TimeoutExpired:
            self._kill()
        self._server = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _popen(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": str(self._home)}
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._identity,
            )

    def _signal(self, number: signal.Signals) -> None:
        # The server first, so that it starts no child between the two; PostgreSQL puts every child into a
        # session of its own, so that a signal to a process group would not reach them.
        if self._server is None or self._server.poll() is not None:
            return
        self._server.send_signal(number)
        send(number, children(self._server.pid))

    def _kill(self) -> None:
        if self._server is None:
            return
        self.freeze()
        orphans = list(children(self._server.pid))  # before it dies: then they are nobody's children
        self._server.kill()
        self._server.wait()
        send(signal.SIGKILL, orphans)


def send(number: signal.Signals, processes: Iterable[int]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def children(parent: int) -> Iterator[int]:
    if not os.path.exists("/proc/self/stat"):
        listing = subprocess.run(["ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, check=True)
        for line in listing.stdout.splitlines():
            pid, ppid = map(int, line.split())
            if ppid == parent:
                yield pid
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(after_name[1]) == parent:
            yield int(folder.name)


def main(parent: str, stop_signal: str) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    guard = Guard(parent, stop_signal)
    try:
        for line in sys.stdin:
            action, *arguments = json.loads(line)
            answer: dict[str, object]
            try:
                answer = {"result": getattr(guard, action)(*arguments)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(1, json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        pass  # the test process died before it read the answer
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        guard.stop()
        guard.remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
