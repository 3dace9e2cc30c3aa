"""Which identifiers of a request come together, and which are kept back: by a ban, or by the limit of a kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.kinds import Kinds


class KeptBack(Struct, frozen=True, array_like=True):
    """An identifier that does not join the others of its request.

    ``limit_kind``: the kind whose limit forbids it; None: a ban does.
    """

    identifier: Identifier
    limit_kind: str | None = None


class Joining(Struct, frozen=True):
    """What of a request comes together.

    ``joined``: in order of priority, the first always among them; ``homes``: the clusters that have any of them;
    ``exceeded``: kinds of which the cluster gets more values than their limit, where that is only told.
    """

    joined: tuple[Identifier, ...]
    homes: tuple[int, ...]
    kept_back: tuple[KeptBack, ...] = ()
    exceeded: tuple[str, ...] = ()


def withheld_pairs(
    joined: Sequence[Identifier], kept_back: Sequence[KeptBack]
) -> tuple[tuple[tuple[Identifier, Identifier], str | None], ...]:
    """Returns the pairs of what joined with what did not, each with the kind whose limit keeps it back."""
    rows = ((pair, kept.limit_kind) for kept in kept_back for pair in pairs_with(kept.identifier, joined))
    return tuple(sorted(rows, key=lambda row: row[0]))


def pairs_with(identifier: Identifier, others: Sequence[Identifier]) -> list[tuple[Identifier, Identifier]]:
    """Returns the pairs of an identifier with each of these."""
    return [(identifier, other) if identifier < other else (other, identifier) for other in others]


class Known(Protocol):
    """What is known at the moment of a request."""

    def home(self, identifier: Identifier) -> int | None:
        """Returns the cluster that has an identifier; None if nobody has it."""

    def forbids(self, joined: Sequence[Identifier], homes: Collection[int], identifier: Identifier) -> bool:
        """Returns whether a ban keeps an identifier apart from these, which are of these clusters."""

    def count(self, home: int, kind: str) -> int:
        """Returns how many values of a kind a cluster has."""


def everything(identifiers: Sequence[Identifier], homes: Sequence[int | None]) -> Joining:
    """Returns how a request comes together where neither a ban nor a limit can have a say."""
    return Joining(tuple(identifiers), tuple(dict.fromkeys(home for home in homes if home is not None)))


def joining(identifiers: Sequence[Identifier], known: Known, kinds: Kinds) -> Joining:
    """Returns what of a request comes together: in order of priority, each next identifier that may.

    A limit forbids or is exceeded only where the count rises above it: by joining clusters that each have fewer values
    of the kind than the result, or by a value that is new. So a cluster that is over a limit already can still grow.
    """
    joined: list[Identifier] = []
    homes: list[int] = []
    kept_back: list[KeptBack] = []
    counts = _Counts(known, kinds)
    for identifier in identifiers:
        home = known.home(identifier)
        if joined and known.forbids(joined, homes, identifier):
            kept_back.append(KeptBack(identifier))
            continue
        if home is None or home not in homes:
            if not joined:
                counts.begin(identifier, home)
            elif (forbidding := counts.add(identifier, home)) is not None:
                kept_back.append(KeptBack(identifier, forbidding))
                continue
            if home is not None:
                homes.append(home)
        joined.append(identifier)
    return Joining(tuple(joined), tuple(homes), tuple(kept_back), counts.exceeded)


def is_kept_back_by_limit(kinds: Kinds, limit_kind: str, counts: Sequence[int], *, new: int = 0) -> bool:
    """Returns whether the limit of a kind still forbids what it kept back: customers with so many values of it each,
    and new ones."""
    kind = kinds.find(limit_kind)
    if kind is None or kind.limit is None or not kind.withholds:
        return False
    return sum(counts) + new > max(kind.limit, *counts, 0)


class _Counts:
    """How many values of the limited kinds have come together."""

    def __init__(self, known: Known, kinds: Kinds) -> None:
        self._known = known
        self._kinds = kinds
        self._now = dict.fromkeys(kinds.limits, 0)
        self._most = dict.fromkeys(kinds.limits, 0)  # that one of the clusters has by itself

    def begin(self, identifier: Identifier, home: int | None) -> None:
        """The first identifier: whatever its cluster has, it stays."""
        self._add(self._of(identifier, home), home)

    def add(self, identifier: Identifier, home: int | None) -> str | None:
        """Count one more. Returns the kind whose limit forbids it, and then it is not counted; None if none does."""
        more = self._of(identifier, home)
        for name, count in more.items():
            kind = self._kinds.find(name)
            after = self._now[name] + count
            most = max(self._most[name], 0 if home is None else count)
            if kind is not None and kind.withholds and after > max(self._kinds.limits[name], most):
                return name
        self._add(more, home)
        return None

    @property
    def exceeded(self) -> tuple[str, ...]:
        """The kinds of which the whole has more than their limit, and more than any of its clusters had."""
        limits = self._kinds.limits.items()
        return tuple(name for name, limit in limits if self._now[name] > max(limit, self._most[name]))

    def _of(self, identifier: Identifier, home: int | None) -> dict[str, int]:
        """How many values of each limited kind come with an identifier."""
        if home is None:
            return {identifier.kind: 1} if identifier.kind in self._now else {}
        return {name: count for name in self._now if (count := self._known.count(home, name))}

    def _add(self, more: Mapping[str, int], home: int | None) -> None:
        for name, count in more.items():
            self._now[name] += count
            if home is not None:
                self._most[name] = max(self._most[name], count)
