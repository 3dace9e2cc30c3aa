"""Which media type an answer has: `Accept`, as RFC 9110 reads it, for the two types of GraphQL over HTTP."""

from __future__ import annotations

import re
from functools import lru_cache

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"  # its status tells a request that failed from one that ran

LONGEST_REMEMBERED = 256  # characters

_WEIGHT = re.compile(r";\s*q\s*=\s*([^;\s]*)")
_NUMBER = re.compile(r"[01](\.\d{0,3})?")


def media_type_for(accept: str) -> str | None:
    """The best of what a client accepts; None if it accepts neither.

    A client sends the same header with every request, so the answer is remembered, unless the header is so long that
    many of them would fill the memory.
    """
    return _best(accept) if len(accept) <= LONGEST_REMEMBERED else _best.__wrapped__(accept)


@lru_cache(maxsize=256)
def _best(accept: str) -> str | None:
    weights = {part.partition(";")[0].strip(): _weight(part) for part in accept.lower().split(",")}
    otherwise = weights.get("application/*", weights.get("*/*", 0.0))
    # Of equals the first: what is named, as it is listed, and then what everybody has always been able to read.
    named = [name for name in weights if name in (JSON, GRAPHQL_RESPONSE)]
    best = max((*named, JSON, GRAPHQL_RESPONSE), key=lambda name: weights.get(name, otherwise))
    return best if weights.get(best, otherwise) > 0 else None


def _weight(part: str) -> float:
    """The `q` of one part of the header; nothing is acceptable by one that is no weight."""
    found = _WEIGHT.search(part)
    if found is None:
        return 1.0
    return float(found[1]) if _NUMBER.fullmatch(found[1]) else 0.0
