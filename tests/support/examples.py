"""How many examples a random test tries: a few in `make test`, many in `make test-long`."""

from __future__ import annotations

import os


def examples(short: int, long: int) -> int:
    """Returns how many to try in this run. A test that asks is marked `deep`, so that the long run has it."""
    return long if os.environ.get("TEST_LONG") else short
