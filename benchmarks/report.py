"""Tables for the terminal and for RESULTS.md, and a bar while they are being made."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable

RESULTS = Path(__file__).with_name("RESULTS.md")
INTRODUCTION = """# Results

The last table of each kind that `make bench` printed; `python -m benchmarks --help` says which there are. What
counts are the ratios within one table: the machine is shared by the server, the database and the load generator.
"""
LIBRARIES = ("SQLAlchemy", "asyncpg", "strawberry-graphql", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True)
class Table:
    """``rows``: as many cells as there are columns; ``notes``: what one has to know to read it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


class Progress:
    """One bar for each long step."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}", justify="left"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar; what it yields moves it on by so many."""
        task = self._bars.add_task(description, total=total)
        yield lambda done: self._bars.advance(task, done)

    def say(self, line: str) -> None:
        self._bars.console.print(line, highlight=False)


def show(table: Table) -> None:
    """Print it, and keep it in RESULTS.md instead of its predecessor."""
    shown = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
    for row in table.rows:
        shown.add_row(*row)
    console = Console()
    console.print(shown)
    notes = [*table.notes, circumstances()]
    for note in notes:
        console.print(note, highlight=False)
    lines = [f"## {table.title}", "", *_markdown(table), ""]
    for note in notes:
        lines += [note, ""]
    RESULTS.write_text(_replaced(RESULTS.read_text() if RESULTS.exists() else INTRODUCTION, table.title, lines))


def circumstances() -> str:
    """The machine, the versions, the commit."""
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--abbrev=9"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}, {os.cpu_count()} cores ({_processor()}), "
        f"Python {platform.python_version()}, {libraries}."
    )


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _markdown(table: Table) -> list[str]:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" + "|---:" * (len(table.columns) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in table.rows]


def _replaced(text: str, title: str, lines: Sequence[str]) -> str:
    """The text with the section of this title in the place of the one that had it, or at the end."""
    sections = re.split(r"(?m)^(?=## )", text)
    new = "\n".join(lines).rstrip() + "\n\n"
    kept = [new if section.startswith(f"## {title}\n") else section for section in sections]
    if new not in kept:
        kept.append(new)
    return "\n\n".join(section.strip() for section in kept) + "\n"
