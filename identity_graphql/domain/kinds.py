"""Which kinds of identifiers there are, and the rules of each: the setting IDENTIFIER_KINDS.

`email` and `phone_number` are always there, with rules of their own for their values (`emails`, `phone_numbers`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Final, Protocol, TypeVar

import re2
from msgspec import Struct

from identity_graphql.domain.text import BLANKS
from identity_graphql.errors import ConfigurationError

_BUILT_IN = ("email", "phone_number")

_LONGEST = 254

_RESERVED = "erased:"
"""What the tokens begin with that stand in the place of erased values."""

_MOST_KINDS = 64
_LONGEST_PATTERN = 200
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

_PATTERN_MEMORY = 8 * 2**20
"""Bytes that a compiled pattern may take; enough for every letter of Unicode, 254 times."""


class OnLimit(StrEnum):
    """What becomes of a request that would bring a cluster over the limit of a kind."""

    ALARM = "alarm"
    """it links, and says so"""
    WITHHOLD = "withhold"
    """it does not link"""


class Case(StrEnum):
    """Whether capitals are other letters."""

    KEEP = "keep"
    FOLD = "fold"


class Kind(Struct, frozen=True):
    """A kind of identifier, and what is declared about it.

    At most ``limit`` values of it in one cluster, else ``on_limit``; ``pattern`` must match the whole of a normalised
    value.
    """

    name: str
    limit: int | None = None
    on_limit: OnLimit = OnLimit.ALARM
    case: Case = Case.KEEP
    pattern: str | None = None
    priority: int | None = None

    @property
    def is_built_in(self) -> bool:
        return self.name in _BUILT_IN

    @property
    def withholds(self) -> bool:
        """Whether a request that exceeds the limit is withheld."""
        return self.on_limit is OnLimit.WITHHOLD

    def normalised(self, text: str) -> str:
        """Returns the value in a text without control characters; an empty one if there is none.

        Normalising what is normalised changes nothing. Raises ValueError, which says what is wrong. Not for the
        built-in kinds.
        """
        value = _caseless(text) if self.case is Case.FOLD else unicodedata.normalize("NFC", text)
        value = value.strip(BLANKS)
        if len(value) > _LONGEST:
            raise ValueError(f"must have at most {_LONGEST} characters")
        if value.startswith(_RESERVED):
            raise ValueError(f"must not begin with {_RESERVED}, which stands for erased values")
        if value and self.pattern is not None and not _compiled(self.pattern).fullmatch(value):
            raise ValueError(f"must match the pattern {self.pattern}")
        return value


class _OfAKind(Protocol):
    @property
    def kind(self) -> str: ...


_Identifier = TypeVar("_Identifier", bound=_OfAKind)


class Kinds(Struct, frozen=True, dict=True):
    """All kinds of identifiers, the one of highest priority first.

    First come those with a ``priority``, the smallest first; then those with a limit of 1, as declared; then email
    and phone_number; then the others as declared. Made by `parse`.
    """

    kinds: tuple[Kind, ...]

    @classmethod
    def parse(cls, text: str) -> Kinds:
        """Returns what the setting, or a `document`, declares. Raises ConfigurationError, which says what to write."""
        declared = [_kind(name, options) for name, options in _declarations(text).items()]
        names = {kind.name for kind in declared}
        missing = [Kind(name) for name in _BUILT_IN if name not in names]
        return cls(tuple(sorted([*declared, *missing], key=_priority)))

    def find(self, name: str) -> Kind | None:
        """Returns the kind of this name; None if it is neither built in nor declared."""
        return self._by_name.get(name)

    def ordered(self, identifiers: Iterable[_Identifier]) -> tuple[_Identifier, ...]:
        """Returns these identifiers by the priority of their kinds, those of one kind as they come.

        Kinds that are not declared, or no longer, are last.
        """
        found = tuple(identifiers)
        if len(found) < 2:
            return found
        places, last = self._places, len(self.kinds)
        if len(found) == 2:  # nearly all are so
            first, second = found
            in_order = places.get(first.kind, last) <= places.get(second.kind, last)
            return found if in_order else (second, first)
        return tuple(sorted(found, key=lambda identifier: places.get(identifier.kind, last)))

    @property
    def document(self) -> str:
        """All that is declared, as JSON in one form: `parse` makes the same of it. Bare built-in kinds go without
        saying."""
        return json.dumps(
            {kind.name: options for kind in self.kinds if (options := _options(kind)) or not kind.is_built_in},
            separators=(",", ":"),
        )

    @cached_property
    def version(self) -> str:
        """Which kinds these are, in eight hexadecimal digits; empty if none is declared."""
        if self == NO_KINDS_DECLARED:
            return ""
        return hashlib.sha256(self.document.encode()).hexdigest()[:8]

    def read_otherwise(self, other: Kinds) -> list[str]:
        """Returns the names of the kinds that both declare, and whose values the other reads by other rules."""
        return [
            kind.name
            for kind in self.kinds
            if (there := other.find(kind.name)) and (kind.case, kind.pattern) != (there.case, there.pattern)
        ]

    @cached_property
    def limits(self) -> Mapping[str, int]:
        """The kinds of which one customer has but so many values."""
        return {kind.name: kind.limit for kind in self.kinds if kind.limit is not None}

    @cached_property
    def _by_name(self) -> Mapping[str, Kind]:
        return {kind.name: kind for kind in self.kinds}

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {kind.name: place for place, kind in enumerate(self.kinds)}


NO_KINDS_DECLARED: Final = Kinds(tuple(map(Kind, _BUILT_IN)))
"""The built-in kinds alone, without options."""


def _priority(kind: Kind) -> tuple[int, int]:
    """The place of a kind; the same for those that keep the order of their declaration."""
    if kind.priority is not None:
        return 0, kind.priority
    if kind.limit == 1:
        return 1, 0
    return (2, _BUILT_IN.index(kind.name)) if kind.is_built_in else (3, 0)


def _caseless(text: str) -> str:
    """The text without differences of case, in NFC (Unicode, canonical caseless matching, D145)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


@lru_cache(_MOST_KINDS)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    return re2.compile(pattern, options)


# -- reading the setting


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError(f"IDENTIFIER_KINDS: {message}")


def _declarations(text: str) -> Mapping[str, Mapping[str, object]]:
    """The JSON object of the setting: names and options, not looked at yet."""
    if not text.strip():
        return {}
    try:
        declared = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise _wrong(f'must be JSON such as {{"customer_id": {{"limit": 1}}}}{where}.') from None
    if not isinstance(declared, dict):
        raise _wrong('must be a JSON object of names and options, such as {"customer_id": {"limit": 1}}.')
    if len(declared) > _MOST_KINDS:
        raise _wrong(f"must declare at most {_MOST_KINDS} kinds, not {len(declared)}.")
    for name, options in declared.items():
        if not _NAME.fullmatch(name):
            raise _wrong(
                f"the name {_shown(name)} must be 1 to 32 small letters, digits and _, and begin with a letter, "
                "such as customer_id."
            )
        if not isinstance(options, dict):
            raise _wrong(f'the options of {name} must be a JSON object, such as {{"limit": 1}}, or {{}} for none.')
    return declared


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(f"{_shown(twice)} stands there twice; leave one of the two.")
    return found


def _kind(name: str, options: Mapping[str, object]) -> Kind:
    """The kind that these options make."""
    for option in options:
        if option not in _READ:
            near = difflib.get_close_matches(option, _READ, 1)
            hint = f"is {near[0]} meant?" if near else f"there are {', '.join(_READ)}."
            raise _wrong(f"{name} has the unknown option {_shown(option)}; {hint}")
        if name in _BUILT_IN and option in ("case", "pattern"):
            raise _wrong(f"{name} can have no {option}, as it is built in and has rules of its own; leave it out.")
    if "on_limit" in options and "limit" not in options:
        raise _wrong(f"on_limit of {name} means nothing without a limit; add a limit, or leave it out.")
    read: dict[str, Any] = {}
    for option, value in options.items():
        try:
            read[option] = _READ[option](value)
        except ValueError as error:
            raise _wrong(f"{option} of {name} {error}.") from None
    return Kind(name, **read)


def _options(kind: Kind) -> dict[str, object]:
    """The options of a kind that are not the default ones, in one order."""
    bare = Kind(kind.name)
    return {option: value for option in _READ if (value := getattr(kind, option)) != getattr(bare, option)}


def _shown(name: str) -> str:
    """A name that somebody wrote, so that it fits into a sentence."""
    return json.dumps(name if len(name) <= 40 else f"{name[:40]}...")


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number, such as 1, without quotes")
    return value


def _limit(value: object) -> int:
    if (limit := _whole_number(value)) < 1:
        raise ValueError("must be 1 or more; leave it out for no limit")
    return limit


def _one_of(choices: type[OnLimit] | type[Case], value: object) -> OnLimit | Case:
    if isinstance(value, str) and value in list(choices):
        return choices(value)
    raise ValueError(f"must be {' or '.join(json.dumps(choice) for choice in choices)}")


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_PATTERN:
        raise ValueError(f"must be a regular expression of 1 to {_LONGEST_PATTERN} characters, as a text")
    try:
        _compiled(value)
    except UnicodeEncodeError:
        raise ValueError("must not contain unpaired surrogates") from None
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if error.args else "it cannot be compiled"
        raise ValueError(f"must be a regular expression of RE2 that is not too large ({why})") from None
    return value


_READ: Final = {
    "limit": _limit,
    "on_limit": lambda value: _one_of(OnLimit, value),
    "case": lambda value: _one_of(Case, value),
    "pattern": _pattern,
    "priority": _whole_number,
}
"""The options, and how each is read. Raises ValueError, which says what it must be."""
