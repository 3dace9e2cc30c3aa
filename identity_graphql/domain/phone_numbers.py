"""Phone numbers: from what people write to one form, and to E.164 where a region is known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set

import phonenumbers

REGIONS: Set[str] = phonenumbers.SUPPORTED_REGIONS

_FEWEST_DIGITS, _MOST_DIGITS = 3, 32

_LONGEST_LOCAL_NUMBER = 6
"""So short a number without + may lack its area code; Germany's plan calls 919191 valid all the same."""

_PUNCTUATION = dict.fromkeys(map(ord, "-.()/"))

_PHONE_NUMBER = re.compile(
    r"(?:tel:)?(?P<plus>\+?)(?P<digits>[0-9]*+)(?:(?:;ext=|ext(?:ension)?|x)(?P<extension>[0-9]{1,8}))?",
    re.ASCII | re.IGNORECASE,
)


def normalised_phone_number(text: str, region: str | None) -> str | None:
    """The phone number in a text without blanks; None if it has only zeros. ValueError says what is wrong."""
    bare = text.translate(_PUNCTUATION)
    if not bare.isascii():
        bare = "".join(str(unicodedata.decimal(char, char)) for char in bare)
    match = _PHONE_NUMBER.fullmatch(bare)
    if match is None:
        raise ValueError("must have only digits, a + in front and an extension of at most 8 digits at the end")
    plus, digits, extension = match["plus"], match["digits"], match["extension"]
    if digits and not digits.strip("0"):
        return None
    if not plus and digits.startswith("00"):
        plus, digits = "+", digits[2:]
    if not _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS:
        raise ValueError(f"must have {_FEWEST_DIGITS} to {_MOST_DIGITS} digits")

    number = plus + digits
    if region is not None and (plus or len(digits) > _LONGEST_LOCAL_NUMBER):
        number = _international(number, region)
    return number if extension is None else f"{number};ext={extension}"


def _international(number: str, region: str) -> str:
    """The number as E.164 if it is a valid one, else as it was."""
    e164 = _e164(number, region)
    # Plans take off prefixes as they read: never settle on a form that the next reading would change.
    return number if e164 is None or _e164(e164, region) != e164 else e164


def _e164(number: str, region: str) -> str | None:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
