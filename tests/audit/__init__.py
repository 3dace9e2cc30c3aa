"""The audits of GraphQL over HTTP, as the npm package `graphql-http` has them, against the running program."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.serving import process

HERE = Path(__file__).parent
LOCK = HERE / "package-lock.json"
INSTALLED = HERE / "node_modules" / ".package-lock.json"  # written by npm as the last thing


class Unavailable(Exception):
    """Why the audits cannot be run here, and what to install."""


@dataclass(frozen=True, slots=True)
class Report:
    """One line for each audit that is not ok, and a last line with the counts."""

    text: str
    ok: bool


def install() -> None:
    """What package-lock.json names, into node_modules, unless it is there. Raises Unavailable."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        raise Unavailable(
            f"The audits need Node.js 18 or newer and npm, but there is no program {' and no program '.join(missing)}:"
            " install them (Debian and Ubuntu: apt-get install nodejs npm)."
        )
    if INSTALLED.exists() and INSTALLED.stat().st_mtime >= LOCK.stat().st_mtime:
        return
    done = subprocess.run(["npm", "ci", "--loglevel=error"], cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"`npm ci` in {HERE} failed:\n{done.stderr.strip()}")


async def audit(folder: Path) -> Report:
    """Start the program, with its data in a folder, and run all audits against it."""
    async with process(f"sqlite:///{folder / 'identity.db'}") as address:
        node = await asyncio.create_subprocess_exec(
            *("node", str(HERE / "audit.mjs"), f"{address}/graphql"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(120):
                output, _ = await node.communicate()
        finally:
            if node.returncode is None:
                node.kill()
    return Report(output.decode().strip(), node.returncode == 0)
