"""The program as people start it: a process of its own, and what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from identity_graphql.settings import Settings
from tests.support.serving import ROOT

PROGRAM = Path(sys.executable).with_name("identity-graphql")
SERVE = (sys.executable, "-m", "identity_graphql", "serve", "--port", "0")


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    # Not the working directory's code, but the installed program's: the tests run it elsewhere.
    return {**kept, "PYTHONPATH": str(ROOT), **settings}


def run(folder: Path, *arguments: str, answer: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder until it ends by itself."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=environment(**settings),
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """What it says when it cannot start: on stderr, without a traceback."""
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("identity-graphql: ")
    assert result.stdout == ""
    return result.stderr.removeprefix("identity-graphql: ").strip()


@contextmanager
def served(
    folder: Path, *arguments: str, command: Sequence[str] = SERVE, **settings: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server, and the lines that it printed before it served."""
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as program,
    ):
        try:
            assert program.stdout is not None
            lines: list[str] = []
            while not lines or "Health" not in lines[-1]:
                lines.append(program.stdout.readline())
                assert lines[-1], (folder / "log").read_text()
            yield program, lines
        finally:
            with suppress(ProcessLookupError):  # all that it started, too
                os.killpg(program.pid, signal.SIGKILL)


def address(lines: list[str]) -> str:
    return lines[-1].split()[-1].removesuffix("/health")


def identify(at: str, **details: Any) -> httpx2.Response:
    return httpx2.post(f"{at}/identify", json=details, timeout=20)
