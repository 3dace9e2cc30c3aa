"""Names of arguments: the program has them in snake case, what comes over HTTP in camel case."""

from __future__ import annotations

import re

ARGUMENTS = frozenset(
    {"as_of", "as_of_seq", "contact_ids", "dry_run", "expected_other_version", "expected_version", "then_ban"}
)
"""Those that errors name. Other words in snake case are the names of kinds, `customer_id`: data, left as they are."""

_SNAKE_CASE = re.compile(r"(?<!\.)\b[a-z]+(?:_[a-z0-9]+)+\b")
"""Not behind a dot: `identifiers.dry_run` is a kind that somebody declared by that name."""


def wire_names(text: str) -> str:
    """Returns a path or a message of ours with the names that callers know: `contact_ids` as `contactIds`."""
    return _SNAKE_CASE.sub(lambda match: _camel_case(match[0]) if match[0] in ARGUMENTS else match[0], text)


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
