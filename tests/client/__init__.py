"""A client of the REST shim as others get theirs: generated from the OpenAPI document by openapi-python-client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOCK = HERE / "requirements.txt"
VENV = HERE / ".venv"
INSTALLED = VENV / "installed"  # written as the last thing


class Unavailable(Exception):
    """Why no client can be generated here."""


def install() -> None:
    """The generator, in an environment of its own, unless it is there. Raises Unavailable."""
    if INSTALLED.exists() and INSTALLED.stat().st_mtime >= LOCK.stat().st_mtime:
        return
    make = ("venv", "-q", "--clear", "--python", sys.executable, VENV)
    fill = ("pip", "install", "-q", "--python", VENV / "bin/python", "--require-hashes", "-r", LOCK)
    for command in (make, fill):
        done = subprocess.run([sys.executable, "-m", "uv", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"The generator of clients cannot be installed:\n{done.stderr.strip()}")
    INSTALLED.touch()


def generate(document: dict[str, Any], folder: Path) -> None:
    """Write the package `client` into a folder. Asserts that nothing of the document is left out."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "config.json").write_text(json.dumps({"post_hooks": []}))  # no formatting
    command = ("openapi-python-client", "generate", "--path", "openapi.json", "--config", "config.json")
    options = ("--meta", "none", "--output-path", "client", "--fail-on-warning")
    done = subprocess.run(
        [VENV / "bin" / command[0], *command[1:], *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "arning" not in done.stdout + done.stderr


def call(folder: Path, address: str, *requests: dict[str, Any]) -> list[Any]:
    """Send requests by the package `client` of a folder, as look-ups where they say so: status, what the client made
    of the answer, warnings; at last what it made of the health checks."""
    done = subprocess.run(
        [VENV / "bin/python", HERE / "calls.py", address],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers
