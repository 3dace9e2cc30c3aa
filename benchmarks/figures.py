"""What one measurement came to, and the medians of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from msgspec import Struct


class Figures(Struct, frozen=True):
    """Requests per second; latency in milliseconds, half and 99 of 100 were faster; errors of any kind."""

    rate: float
    p50: float
    p99: float
    errors: int = 0


def figures(latencies: Sequence[float], seconds: float, errors: int = 0) -> Figures:
    """The figures of requests that took so many seconds each, in this time altogether."""
    ordered = sorted(latencies)
    return Figures(len(ordered) / seconds, _percentile(ordered, 0.50) * 1000, _percentile(ordered, 0.99) * 1000, errors)


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure; errors are added up: none may hide."""
    return Figures(
        median(f.rate for f in rounds),
        median(f.p50 for f in rounds),
        median(f.p99 for f in rounds),
        sum(f.errors for f in rounds),
    )


def _percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)] if ordered else 0.0
