"""What the sender of a request should know, although the request was settled."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from msgspec import Struct


class WarningCode(StrEnum):
    """What a warning is about. ``description`` is what both edges say of it in their documentation."""

    description: str

    IGNORED_VALUE = "IGNORED_VALUE", "A value that says nothing, such as `null` as a text, counted as not given."
    LINK_WITHHELD = (
        "LINK_WITHHELD",
        "A ban keeps the email and the phone number apart; the email's cluster is answered.",
    )

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
