"""Emails and phone numbers: what is accepted, and which texts are the same identifier."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum

import idna
from msgspec import Struct

from identity_graphql.domain.phone_numbers import REGIONS, normalised_phone_number
from identity_graphql.errors import ConfigurationError, InvalidInput, Problem


class IdentifierKind(StrEnum):
    """The two kinds of identifiers, as the database has them."""

    EMAIL = "email"
    PHONE_NUMBER = "phone_number"

    __hash__ = str.__hash__  # an enum's own is a Python function, and identifiers are looked up all the time


class Identifier(Struct, frozen=True, order=True):
    """A normalised email or phone number."""

    kind: IdentifierKind
    value: str


def identifiers(email: str | None, phone_number: str | None) -> tuple[Identifier, ...]:
    """Those of the two that there are, the email first."""
    if email is None:
        return () if phone_number is None else (Identifier(IdentifierKind.PHONE_NUMBER, phone_number),)
    if phone_number is None:
        return (Identifier(IdentifierKind.EMAIL, email),)
    return Identifier(IdentifierKind.EMAIL, email), Identifier(IdentifierKind.PHONE_NUMBER, phone_number)


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
    def pair(self) -> tuple[str, str] | None:
        """The evidence that its email and phone number belong together; None if it has only one of them."""
        return (self.email, self.phone_number) if self.email and self.phone_number else None


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
        return "1" if self.region is None else f"1:{self.region}"

    def details(self, *, email: object = None, phone_number: object = None) -> Details:
        """What a request says, or everything that is wrong with it at once."""
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
        """The normalised email; None if there is none."""
        return _present(_email(given))

    def phone_number(self, given: object) -> str | None:
        """The normalised phone number; None if there is none."""
        return _present(self._phone_number(given))

    def _phone_number(self, given: object) -> str | Ignored | None:
        return _phone_number(given, self.region)


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_BLANKS = "\t\n\r \u00a0\u061c\u1680\u180e\u3000\ufeff" + "".join(
    chr(code)
    for first, last in ((0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064), (0x2066, 0x2069))
    for code in range(first, last + 1)
)
"""What copying and pasting brings along: all that separates (Zs, Zl, Zp, tab, newline) or has no width."""

_BLANK = re.compile(f"[{_BLANKS}]")

_NULL_WORDS = frozenset({"null", "undefined", "none", "nan", "n/a", "[object object]"})

_LONGEST_TEXT = 1_024
"""Far above what fits, blanks around it included. The log keeps what was given, and NFC is quadratic in accents."""

_LONGEST_EMAIL = 254

_ASCII_DOMAIN = re.compile(r"[a-z0-9.-]+")


def _refused(field: str, message: str) -> InvalidInput:
    return InvalidInput(Problem(field, f"{field} {message}"))


def _present(value: str | Ignored | None) -> str | None:
    return value if isinstance(value, str) else None


def _text(field: str, given: str) -> str | Ignored | None:
    """The text in NFC without blanks around it, if it says anything."""
    if len(given) > _LONGEST_TEXT:
        raise _refused(field, "is too long")
    if _CONTROL.search(given):
        raise _refused(field, "must not contain control characters or unpaired surrogates")
    text = unicodedata.normalize("NFC", given).strip(_BLANKS)
    if text.lower() in _NULL_WORDS:
        return Ignored(field, f"{field} is a word for a missing value; it counts as not given")
    return text or None


def is_readable(text: str) -> bool:
    """Whether a text for people says something, and has nothing in it that cannot be shown."""
    return bool(text.strip(_BLANKS)) and not _CONTROL.search(text)


def _email(given: object) -> str | Ignored | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise _refused("email", "must be a string")
    text = _text("email", given)
    if not isinstance(text, str):
        return text

    text = unicodedata.normalize("NFC", text.lower())
    if _BLANK.search(text):
        raise _refused("email", "must not contain blanks or invisible characters")
    local, _, domain = text.partition("@")
    if not local or not domain or "@" in domain:
        raise _refused("email", "must have exactly one @, with something on both sides of it")
    if not domain.isascii():
        domain = _ascii_domain(domain)
    if len(local) + 1 + len(domain) > _LONGEST_EMAIL:
        raise _refused("email", f"must have at most {_LONGEST_EMAIL} characters")
    return f"{local}@{domain}"


def _ascii_domain(domain: str) -> str:
    try:
        encoded = idna.encode(domain, uts46=True).decode()
    except UnicodeError:
        encoded = ""
    if not _ASCII_DOMAIN.fullmatch(encoded):
        raise _refused("email", "has a domain that is not a valid international domain name")
    return encoded


_LARGEST_INTEGER = 2**53 - 1
"""Above it JSON's numbers are no longer exact, and what arrives may not be what was sent."""


def _phone_number(given: object, region: str | None) -> str | Ignored | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise _refused("phoneNumber", "must be a string or a whole number")
    if isinstance(given, int):
        if not 0 <= given <= _LARGEST_INTEGER:
            raise _refused("phoneNumber", f"must be from 0 to {_LARGEST_INTEGER} if it is not a string")
        given = str(given)
    text = _text("phoneNumber", given)
    if not isinstance(text, str):
        return text

    try:
        number = normalised_phone_number(_BLANK.sub("", text), region)
    except ValueError as error:
        raise _refused("phoneNumber", str(error)) from error
    return number or Ignored("phoneNumber", "phoneNumber has only zeros; it counts as not given")
