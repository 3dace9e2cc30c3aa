"""What the sender of a request should know, although the request was settled."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from msgspec import Struct

from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.joining import KeptBack


class WarningCode(StrEnum):
    """What a warning is about. ``description`` is what both edges say of it in their documentation."""

    description: str

    IGNORED_VALUE = "IGNORED_VALUE", "A value that says nothing, such as `null` as a text, counted as not given."
    LINK_WITHHELD = (
        "LINK_WITHHELD",
        "A ban or a limit keeps identifiers of the request apart; the cluster of the first by priority is answered: of"
        " an email and a phone number, the email's.",
    )
    BLOCKED_VALUE = "BLOCKED_VALUE", "A value that a steward blocked counted as not given."
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED", "The cluster has more values of a kind now than its limit; `field` is the kind."

    def __new__(cls, code: str, description: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.description = description
        return member


class Warning(Struct, frozen=True):
    """One thing to know: ``field`` is the argument it is about, None for the request as a whole."""

    code: WarningCode
    field: str | None
    message: str


def kept_apart(identifiers: Sequence[Identifier], kept_back: Sequence[KeptBack]) -> str:
    """Returns why some identifiers of a request were not linked to the others. Without values."""
    if [identifier.kind for identifier in identifiers] == [EMAIL, PHONE_NUMBER] and kept_back[0].limit_kind is None:
        return "A ban keeps this email and this phone number apart; the email's cluster is answered."
    why = " and ".join(dict.fromkeys(forbidding(kept) for kept in kept_back))
    kinds = " and the ".join(dict.fromkeys(words_of(kept.identifier.kind) for kept in kept_back))
    keep = "keep" if " and " in why else "keeps"
    first = words_of(identifiers[0].kind)
    return f"{why[0].upper()}{why[1:]} {keep} the {kinds} apart from the rest; the cluster of the {first} is answered."


def forbidding(kept: KeptBack) -> str:
    """Returns what keeps an identifier back."""
    return "a ban" if kept.limit_kind is None else f"the limit of the kind {kept.limit_kind}"


def words_of(kind: str) -> str:
    """Returns a kind of identifiers as people write it."""
    return kind.replace("_", " ")


def a_kind(kind: str) -> str:
    """Returns a kind of identifiers with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {words_of(kind)}"
