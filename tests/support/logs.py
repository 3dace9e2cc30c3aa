"""What the program logs, from INFO up."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from structlog.testing import capture_logs

from identity_graphql import observability

Entries = list[MutableMapping[str, Any]]


@contextmanager
def logged() -> Iterator[Entries]:
    """The entries that are logged meanwhile, by what is made meanwhile."""
    observability.configure(level="INFO", form="json")
    try:
        with capture_logs() as entries:
            yield entries
    finally:
        observability.configure(level="ERROR", form="json")


def outages(entries: Entries) -> list[tuple[str, ...]]:
    """What is logged of outages, in order: the state and the cause of each beginning, and each end."""
    told: list[tuple[str, ...]] = []
    for entry in entries:
        if entry["event"] == "database.unavailable":
            assert entry["log_level"] == "warning"
            told.append((entry["state"], entry["cause"]))
        if entry["event"] == "database.back":
            assert entry["log_level"] == "info"
            assert entry["seconds"] >= 0
            told.append(("back",))
    return told


def refusals(entries: Entries) -> list[tuple[str, str]]:
    """The path of every request that was refused, and the cause that its line tells."""
    return [(entry["path"], entry["cause"]) for entry in entries if entry.get("error") == "BUSY"]
