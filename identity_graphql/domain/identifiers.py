"""Emails and phone numbers: what is accepted, and which texts are the same identifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from msgspec import Struct

from identity_graphql.domain.emails import normalised_email
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


def identifiers(email: str | None, phone_number: str | None) -> tuple[Identifier, ...]:
    """Returns those of the two that there are, the email first."""
    if email is None:
        return () if phone_number is None else (Identifier(PHONE_NUMBER, phone_number),)
    if phone_number is None:
        return (Identifier(EMAIL, email),)
    return Identifier(EMAIL, email), Identifier(PHONE_NUMBER, phone_number)


def pairs_of(identifiers: Sequence[Identifier]) -> tuple[tuple[Identifier, Identifier], ...]:
    """Returns every two of these identifiers, in order."""
    return tuple(combinations(sorted(identifiers), 2))


class Ignored(Struct, frozen=True):
    """A value that counts as absent although something was given: worth a warning to the caller.

    ``field`` is the name that the caller knows; ``message`` never contains the value.
    """

    field: str
    message: str


class Details(Struct, frozen=True):
    """What one request says: one or two identifiers.

    ``raw`` has what was given, as it came, under the caller's names ("email", "phoneNumber").
    """

    email: str | None
    phone_number: str | None
    raw: Mapping[str, str | int]
    ignored: tuple[Ignored, ...] = ()

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """One or two, the email first."""
        return identifiers(self.email, self.phone_number)

    @property
    def pair(self) -> tuple[Identifier, Identifier] | None:
        """The evidence that its email and phone number belong together; None if it has only one of them."""
        found = self.identifiers
        return (found[0], found[1]) if len(found) == 2 else None


class Normalisation(Struct, frozen=True):
    """The rules that decide which texts are the same identifier; ``version`` is recorded with every event.

    With a ``region`` (ISO 3166, such as "IN"), phone numbers that are valid there become E.164.
    Normalising what is normalised changes nothing, whatever the region.
    """

    region: str | None = None

    def __post_init__(self) -> None:
        if self.region is not None and self.region not in REGIONS:
            raise ConfigurationError(
                "DEFAULT_REGION must be the two capital letters of a country (ISO 3166), such as IN or GB; "
                f"{self.region!r} is not one. Leave it out to keep phone numbers as they are given."
            )

    @property
    def version(self) -> str:
        return str(RULES) if self.region is None else f"{RULES}:{self.region}"

    def changes_since(self, version: str) -> str:
        """Returns in words how the normalisation of another version differs, and how to have that one again."""
        rules, _, region = version.partition(":")
        sentences: list[str] = []
        if rules in CHANGES:
            sentences += [text for version, text in CHANGES.items() if int(version) >= int(rules)]
            sentences.append(f"To go on as before, use a release whose rules are of version {rules}.")
        elif rules != str(RULES):
            sentences.append(f"That is of a newer release, to be used again: this one's rules are of version {RULES}.")
        if region != (self.region or ""):
            as_it_was = f"set DEFAULT_REGION={region}" if region else "leave DEFAULT_REGION out"
            sentences.append(f"The same phone number reads differently under another region: {as_it_was}, as it was.")
        return " ".join(sentences)

    def details(self, *, email: object = None, phone_number: object = None) -> Details:
        """Returns what a request says, or everything that is wrong with it at once."""
        phone_number = _whole(phone_number)
        problems: list[Problem] = []
        found: list[str | Ignored | None] = []
        for given, read in ((email, _email), (phone_number, self._phone_number)):
            try:
                found.append(read(given))
            except InvalidInput as error:
                problems += error.problems
        if problems:
            raise InvalidInput(*problems)
        values = [_present(value) for value in found]
        if values == [None, None]:
            raise InvalidInput(Problem("root", "At least one of email or phoneNumber must be provided"))
        return Details(
            email=values[0],
            phone_number=values[1],
            raw={
                field: given
                for field, given in (("email", email), ("phoneNumber", phone_number))
                if isinstance(given, (str, int))
            },
            ignored=tuple(value for value in found if isinstance(value, Ignored)),
        )

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

_LONGEST_TEXT = 1_024
"""Far above what fits, blanks around it included. The log keeps what was given, and NFC is quadratic in accents."""

_LARGEST_INTEGER = 2**53 - 1
"""Above it JSON's numbers are no longer exact, and what arrives may not be what was sent."""


def _refused(field: str, message: str) -> InvalidInput:
    return InvalidInput(Problem(field, f"{field} {message}"))


def _present(value: str | Ignored | None) -> str | None:
    return value if isinstance(value, str) else None


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
