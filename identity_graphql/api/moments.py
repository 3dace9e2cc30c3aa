"""Moments as they come over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime

EXPECTED = "a moment must be ISO 8601 with its offset from UTC, such as 2026-01-31T09:30:00Z"


def moment(value: object) -> datetime:
    """Returns a moment with its offset from UTC: without one it would be read as another time elsewhere.

    Raises ValueError for anything else.
    """
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):  # no moment; one before the year 1 or after the year 9999
        pass
    raise ValueError(EXPECTED)
