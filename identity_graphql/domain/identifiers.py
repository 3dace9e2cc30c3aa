"""Identifiers: what is accepted, and which texts are the same one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import combinations
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.emails import normalised_email
from identity_graphql.domain.kinds import NO_KINDS_DECLARED, Kind, Kinds
from identity_graphql.domain.phone_numbers import REGIONS, normalised_phone_number
from identity_graphql.domain.text import BLANKS, CONTROL, folded
from identity_graphql.errors import ConfigurationError, InvalidInput, Problem

RULES = 3
"""Which rules these are. The number goes up where the same text would be another identifier than before, or none."""

CHANGES = {
    "1": "Since version 1, phone numbers such as 9876543210.0, those with other dashes than - and, under "
    "DEFAULT_REGION, those with its calling code but no + in front are read as what they are; emails lose angle "
    "brackets, mailto: and a final dot; and phone numbers of more than 15 digits and emails that cannot be any are "
    "refused: who is stored under one is found by id only (docs/decisions/0016-normalisation-2.md).",
    "2": "Since version 2, anonymous, unknown, invalid and -1 count as not given; the .0 of phone numbers such as "
    "98765-43210.0 is taken off; two phone numbers such as 5550100 5550101 or 9876543210/11 are refused; emails lose "
    "the slashes of mailto:// and variation selectors, and are refused with other signs that cannot be seen or _ at "
    "the end: who is stored as one of these was read can be stored a second time "
    "(docs/decisions/0022-words-for-a-missing-value.md).",
}
"""What was changed after each version of the rules, in their order."""


EMAIL: Final = "email"
PHONE_NUMBER: Final = "phone_number"
BUILT_IN = (EMAIL, PHONE_NUMBER)
"""The kinds that have columns of their own, by the names of these."""


class Identifier(Struct, frozen=True, order=True, array_like=True):
    """A normalised value of some kind, such as `EMAIL`. Ordered by kind, then by value."""

    kind: str
    value: str


Columns = tuple[str | None, str | None, tuple[Identifier, ...]]
"""Identifiers as rows have them: the first email and phone number, and the others in order."""


def columns_of(identifiers: Sequence[Identifier]) -> Columns:
    """Returns these identifiers by the columns that hold them."""
    if len(identifiers) == 2:  # nearly all are so
        one, other = identifiers
        if one.kind == EMAIL and other.kind == PHONE_NUMBER:
            return one.value, other.value, ()
    email: str | None = None
    phone_number: str | None = None
    others: list[Identifier] = []
    for identifier in identifiers:
        if identifier.kind == EMAIL and email is None:
            email = identifier.value
        elif identifier.kind == PHONE_NUMBER and phone_number is None:
            phone_number = identifier.value
        else:
            others.append(identifier)
    return email, phone_number, tuple(sorted(others))


def identifiers(
    email: str | None, phone_number: str | None, others: tuple[Identifier, ...] = ()
) -> tuple[Identifier, ...]:
    """Returns the identifiers in these columns: the email, the phone number, then the others."""
    if email is None:
        return others if phone_number is None else (Identifier(PHONE_NUMBER, phone_number), *others)
    if phone_number is None:
        return (Identifier(EMAIL, email), *others)
    return (Identifier(EMAIL, email), Identifier(PHONE_NUMBER, phone_number), *others)


def pairs_of(identifiers: Collection[Identifier]) -> tuple[tuple[Identifier, Identifier], ...]:
    """Returns every two of these identifiers, in order."""
    if len(identifiers) == 2:  # nearly all are so
        one, other = identifiers
        return ((one, other),) if one < other else ((other, one),)
    return tuple(combinations(sorted(identifiers), 2))


class Ignored(Struct, frozen=True):
    """A value that counts as absent although something was given: worth a warning to the caller.

    ``field`` is the name that the caller knows; ``message`` never contains the value.
    """

    field: str
    message: str


class Given(Struct, frozen=True):
    """What a request brings, as it came: unread, and perhaps nothing that could be read.

    ``identifiers``: kinds and values. ``source``: which system says so; ``occurred_at``: when it was true.
    """

    email: object = None
    phone_number: object = None
    identifiers: Sequence[tuple[object, object]] = ()
    source: object = None
    occurred_at: datetime | None = None


class Details(Struct, frozen=True):
    """What one request says: 1 to `MOST_IDENTIFIERS` identifiers of one customer, in order of priority.

    ``raw`` has what was given, as it came, under the caller's names ("email", "phoneNumber", "identifiers").
    """

    identifiers: tuple[Identifier, ...]
    raw: Mapping[str, Any]
    ignored: tuple[Ignored, ...] = ()
    source: str | None = None
    occurred_at: datetime | None = None
    blocked: tuple[str, ...] = ()
    """the fields, by the names that the caller knows, of which a value is blocked and counts as not given"""

    @property
    def pairs(self) -> tuple[tuple[Identifier, Identifier], ...]:
        """The evidence that its identifiers belong together: every two of them."""
        return pairs_of(self.identifiers)

    def without(self, blocked: Collection[Identifier]) -> Details:
        """Returns the same where these identifiers count as not given: perhaps none is left."""
        left = tuple(identifier for identifier in self.identifiers if identifier not in blocked)
        if len(left) == len(self.identifiers):
            return self
        kinds = {identifier.kind: None for identifier in self.identifiers if identifier in blocked}
        # The log is to keep nothing that an erasure of the value would not find by what counted.
        raw = raw_without(self.raw, kinds)
        return replace(self, identifiers=left, raw=raw, blocked=tuple(dict.fromkeys(map(field_of, kinds))))


RAW: Mapping[str, str] = {EMAIL: "email", PHONE_NUMBER: "phoneNumber"}
"""The names under which `Details.raw` has what was typed for the built-in kinds."""


def raw_without(raw: Mapping[str, Any], kinds: Collection[str]) -> dict[str, Any]:
    """Returns what was typed, without all that was of these kinds."""
    left = {name: value for name, value in raw.items() if name not in {RAW[kind] for kind in kinds if kind in RAW}}
    if "identifiers" in left:
        left["identifiers"] = [[kind, value] for kind, value in left["identifiers"] if kind not in kinds]
    return left


class Normalisation(Struct, frozen=True):
    """The rules that decide which texts are the same identifier; ``version`` is recorded with every event.

    With a ``region`` (ISO 3166, such as "IN"), phone numbers that are valid there become E.164.
    Normalising what is normalised changes nothing, whatever the region. ``kinds`` are those that a request may bring.
    """

    region: str | None = None
    kinds: Kinds = NO_KINDS_DECLARED

    def __post_init__(self) -> None:
        if self.region is not None and self.region not in REGIONS:
            raise ConfigurationError(
                "DEFAULT_REGION must be the two capital letters of a country (ISO 3166), such as IN or GB; "
                f"{self.region!r} is not one. Leave it out to keep phone numbers as they are given."
            )

    @property
    def version(self) -> str:
        rules = str(RULES) if self.region is None else f"{RULES}:{self.region}"
        return f"{rules}.{self.kinds.version}" if self.kinds.version else rules

    def changes_since(self, version: str) -> str:
        """Returns in words how the normalisation of another version differs, and how to have that one again."""
        readings, _, kinds = version.partition(".")
        rules, _, region = readings.partition(":")
        sentences: list[str] = []
        if rules in CHANGES:
            sentences += [text for version, text in CHANGES.items() if int(version) >= int(rules)]
            sentences.append(f"To go on as before, use a release whose rules are of version {rules}.")
        elif rules != str(RULES):
            sentences.append(f"That is of a newer release, to be used again: this one's rules are of version {RULES}.")
        if region != (self.region or ""):
            as_it_was = f"set DEFAULT_REGION={region}" if region else "leave DEFAULT_REGION out"
            sentences.append(f"The same phone number reads differently under another region: {as_it_was}, as it was.")
        if kinds != self.kinds.version:
            was = "was another" if kinds else "was empty"
            sentences.append(
                f"The setting IDENTIFIER_KINDS {was}: values of a kind may read differently now, or be none."
            )
        return " ".join(sentences)

    def details(self, given: Given) -> Details:
        """Returns what a request says, or everything that is wrong with it at once."""
        problems: list[Problem] = []
        found: list[Identifier] = []
        ignored: list[Ignored] = []
        raw: dict[str, Any] = {}

        def keep(kind: str, read: Callable[[object], str | Ignored | None], value: object) -> None:
            try:
                one = read(value)
            except InvalidInput as error:
                problems.extend(error.problems)
                return
            if isinstance(one, str):
                found.append(Identifier(kind, one))
            elif one is not None:
                ignored.append(one)

        if given.email is not None:
            keep(EMAIL, _email, given.email)
            if isinstance(given.email, str):
                raw["email"] = given.email
        if given.phone_number is not None:
            phone_number = _whole(given.phone_number)
            keep(PHONE_NUMBER, self._phone_number, phone_number)
            if isinstance(phone_number, str | int):
                raw["phoneNumber"] = phone_number
        for name, value in given.identifiers:
            kind = self.kinds.find(name) if isinstance(name, str) else None
            if kind is None:
                problems.append(Problem("identifiers", self._unknown(name)))
            else:
                keep(kind.name, partial(self._value, kind), value)
        try:
            source = _source(given.source)
        except InvalidInput as error:
            problems += error.problems
        if problems:
            raise InvalidInput(*problems)
        if given.identifiers:
            # As the log has them: those of one kind are judged in the same order again, should an undo ask for it.
            found = list(identifiers(*columns_of(tuple(dict.fromkeys(found)))))
            raw["identifiers"] = [[name, value] for name, value in given.identifiers if value is not None]
        if not found:
            raise self.none_given
        if len(found) > MOST_IDENTIFIERS:
            message = f"At most {MOST_IDENTIFIERS} identifiers of one customer can be given at once"
            raise InvalidInput(Problem("root", message))
        return Details(self.kinds.ordered(found), raw, tuple(ignored), source, given.occurred_at)

    @property
    def none_given(self) -> InvalidInput:
        """The error of a request of which nothing counts."""
        if len(self.kinds.kinds) > len(BUILT_IN):
            return InvalidInput(Problem("root", "At least one of email, phoneNumber or identifiers must be provided"))
        return InvalidInput(Problem("root", "At least one of email or phoneNumber must be provided"))

    def identifier(self, kind: object, given: object) -> Identifier | None:
        """Returns the identifier of a declared kind; None if there is none. Raises InvalidInput."""
        declared = self.kinds.find(kind) if isinstance(kind, str) else None
        if declared is None:
            raise InvalidInput(Problem("identifiers", self._unknown(kind)))
        value = self._value(declared, given)
        return Identifier(declared.name, value) if isinstance(value, str) else None

    def _value(self, kind: Kind, given: object) -> str | Ignored | None:
        if kind.name == EMAIL:
            return _email(given)
        return self._phone_number(given) if kind.name == PHONE_NUMBER else _value(kind, _whole(given))

    def _unknown(self, kind: object) -> str:
        names = ", ".join(one.name for one in self.kinds.kinds)
        named = f"{kind} is" if isinstance(kind, str) and _KIND.fullmatch(kind) else "That is"
        return f"{named} no kind of identifier here; there are {names} (the setting IDENTIFIER_KINDS declares others)"

    def email(self, given: object) -> str | None:
        """Returns the normalised email; None if there is none."""
        return _present(_email(given))

    def phone_number(self, given: object) -> str | None:
        """Returns the normalised phone number; None if there is none."""
        return _present(self._phone_number(given))

    def _phone_number(self, given: object) -> str | Ignored | None:
        return _phone_number(_whole(given), self.region)


_NULL_WORDS = frozenset(
    {"null", "undefined", "none", "nan", "n/a", "[object object]", "anonymous", "unknown", "invalid", "-1"}
)

_NO_NUMBER = -1
"""The one of these words that JSON can write as a number."""

MOST_IDENTIFIERS = 16
"""That a request may bring: every two of them are a pair."""

LONGEST_SOURCE = 64

_KIND = re.compile("[a-z][a-z0-9_]{0,31}")

_LONGEST_TEXT = 1_024
"""Far above what fits, blanks around it included. The log keeps what was given, and NFC is quadratic in accents."""

_LARGEST_INTEGER = 2**53 - 1
"""Above it JSON's numbers are no longer exact, and what arrives may not be what was sent."""


def field_of(kind: str) -> str:
    """Returns the name that the caller knows for a value of a kind."""
    return _FIELDS.get(kind, f"identifiers.{kind}")


_FIELDS = {EMAIL: "email", PHONE_NUMBER: "phoneNumber"}


def _refused(field: str, message: str) -> InvalidInput:
    return InvalidInput(Problem(field, f"{field} {message}"))


def _present(value: str | Ignored | None) -> str | None:
    return value if isinstance(value, str) else None


def _source(given: object) -> str | None:
    if given is None or (isinstance(given, str) and not given.strip(BLANKS)):
        return None
    if not isinstance(given, str) or not is_readable(given):
        raise _refused("source", "must be readable text: the name of the system that says so")
    if len(given) > LONGEST_SOURCE:
        raise _refused("source", f"must have at most {LONGEST_SOURCE} characters")
    return given.strip()


def _value(kind: Kind, given: object) -> str | Ignored | None:
    """The value of a kind that is declared, if it says anything."""
    field = field_of(kind.name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise _refused(field, "must be a string or a whole number")
    if isinstance(given, int):
        if abs(given) > _LARGEST_INTEGER:
            raise _refused(field, f"must be from -{_LARGEST_INTEGER} to {_LARGEST_INTEGER} if it is not a string")
        given = str(given)
    text = _text(field, given)
    if not isinstance(text, str):
        return text
    try:
        return kind.normalised(given) or None
    except ValueError as error:
        raise _refused(field, str(error)) from error


def _text(field: str, given: str) -> str | Ignored | None:
    """The text, folded, if it says anything."""
    if len(given) > _LONGEST_TEXT:
        raise _refused(field, "is too long")
    if CONTROL.search(given):
        raise _refused(field, "must not contain control characters or unpaired surrogates")
    text = folded(given)
    if text.lower() in _NULL_WORDS:
        return Ignored(field, f"{field} is a word for a missing value; it counts as not given")
    return text or None


def is_readable(text: str) -> bool:
    """Returns whether a text for people says something, and has nothing in it that cannot be shown."""
    return bool(text.strip(BLANKS)) and not CONTROL.search(text)


def _email(given: object) -> str | Ignored | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise _refused("email", "must be a string")
    text = _text("email", given)
    if not isinstance(text, str):
        return text

    try:
        return normalised_email(text)
    except ValueError as error:
        raise _refused("email", str(error)) from error


def _whole(given: object) -> object:
    """JSON has one kind of number: 5550100.0 is 5550100, and is kept as that."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


def _phone_number(given: object, region: str | None) -> str | Ignored | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise _refused("phoneNumber", "must be a string or a whole number")
    if isinstance(given, int):
        if not 0 <= given <= _LARGEST_INTEGER and given != _NO_NUMBER:
            raise _refused("phoneNumber", f"must be from 0 to {_LARGEST_INTEGER} if it is not a string")
        given = str(given)
    text = _text("phoneNumber", given)
    if not isinstance(text, str):
        return text

    try:
        number = normalised_phone_number(text, region)
    except ValueError as error:
        raise _refused("phoneNumber", str(error)) from error
    return number or Ignored("phoneNumber", "phoneNumber has only zeros; it counts as not given")
