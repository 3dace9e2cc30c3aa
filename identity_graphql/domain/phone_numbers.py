"""Phone numbers: from what people write to one form, and to E.164 where a region is known.

The rules are numbered in decision 0016, and amended in 0022.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Set
from itertools import pairwise

import phonenumbers

from identity_graphql.domain.text import BLANK

REGIONS: Set[str] = phonenumbers.SUPPORTED_REGIONS

_FEWEST_DIGITS, _MOST_DIGITS = 3, 15  # at most: ITU-T E.164

_LONGEST_LOCAL_NUMBER = 6
"""So short a number without + may lack its area code; Germany's plan calls 919191 valid all the same."""

_LONGEST_AREA_CODE = 6  # the national prefix included

_LONGEST_CALLING_CODE = 3

_LONGEST_ENDING = 3
"""Of a second number of which only the last digits are written: 9876543210/11."""

LIKE: Mapping[str, str] = {
    # Every dash of Unicode (Pd) but the wave dashes, which stand for a range; what is named a minus or a hyphen; and
    # what the key of "-" types in Japanese.
    "-": "\u00ad\u02d7\u058a\u05be\u1400\u1806\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u207b\u208b\u2212\u2796"
    "\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u2e5d\u30a0\u30fc\ufe31\ufe32\U00010ead",
    "+": "\u02d6\u207a\u208a\u2795\ufb29",
    "/": "\u2044\u2215\u29f8\u30fb",
    ".": "\u00b7\u2022\u2024\u2027\u3002",
    "(": "\u207d\u208d",
    ")": "\u207e\u208e",
    "'": "\u2018\u2019",
}
"""What counts as a sign of ASCII, beside what is of another width."""

_LIKE = str.maketrans({char: sign for sign, chars in LIKE.items() for char in chars})

_PUNCTUATION = dict.fromkeys(map(ord, "-.()/"))

_EXPONENT = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]*)?e[+-]?[0-9]+", re.IGNORECASE)

_NUMBER_AND_EXTENSION = re.compile(r"([^0-9]*[^a-z;]*)(.*)", re.IGNORECASE | re.DOTALL)

_DECIMALS = re.compile(r"(?:([0-9][)]?)\.0|^([^0-9]*[0-9]+)\.0+)(?=[^0-9]*$)")
"""What spreadsheets write behind a number: a dot and one zero, which is no group; behind digits in one run, zeros."""

_DIALLED = re.compile("^[^0-9+]*00")

_NO_DIGITS = re.compile("[^0-9]+")

_SLASH = re.compile("/")

_SEPARATORS = (_SLASH, re.compile("[\n\r\u2028\u2029]"), BLANK, _NO_DIGITS)
"""What may stand between two numbers, and between the groups of one."""

_PHONE_NUMBER = re.compile(
    r"(?:tel:)?(?P<plus>\+?)(?P<digits>[0-9]*+)(?:(?:;ext=|ext(?:ension)?|x)(?P<extension>[0-9]{1,8}))?",
    re.ASCII | re.IGNORECASE,
)


def normalised_phone_number(text: str, region: str | None) -> str | None:
    """Returns the phone number in a folded text; None if it has only zeros.

    Raises ValueError, which says what is wrong.
    """
    match = _PHONE_NUMBER.fullmatch(text) or _PHONE_NUMBER.fullmatch(_without_punctuation(text))
    if match is None:
        raise ValueError(
            "must be one number with only digits, a + in front and an extension of at most 8 digits at the end"
        )
    plus, digits, extension = match["plus"], match["digits"], match["extension"]
    if digits and not digits.strip("0"):
        return None
    if not plus and digits.startswith("00"):
        plus, digits = "+", digits[2:]

    number = plus + digits
    if region is not None and (plus or len(digits) > _LONGEST_LOCAL_NUMBER):
        number = _international(number, region)
    # Only now: what a country dials before a number abroad is no part of the number.
    if not _FEWEST_DIGITS <= len(number.removeprefix("+")) <= _MOST_DIGITS:
        raise ValueError(
            f"must have {_FEWEST_DIGITS} to {_MOST_DIGITS} digits; more are no phone number (E.164), or are two"
        )
    return number if extension is None else f"{number};ext={extension}"


def _without_punctuation(text: str) -> str:
    """What is left of the text without what separates digits or comes from a spreadsheet."""
    text = _plain(text).removeprefix("'")  # with it a spreadsheet marks a text
    bare = BLANK.sub("", text)
    if _EXPONENT.fullmatch(bare):
        raise ValueError("must not be in exponent notation, which loses digits: write all of them, or a JSON number")
    number, extension = map(_without_decimals, _number_and_extension(bare))
    number = number.translate(_PUNCTUATION)
    # Nearly all are too short to be two, and this look at them is enough.
    if (len(number) > 2 * _LONGEST_AREA_CODE + 1 or "/" in text) and _is_two_numbers(_number_and_extension(text)[0]):
        raise ValueError("must be one number; there are two")
    return number + extension.translate(_PUNCTUATION)


def _plain(text: str) -> str:
    """The text with the signs and the digits of ASCII."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char, char)) for char in text.translate(_LIKE))


def _number_and_extension(text: str) -> tuple[str, str]:
    match = _NUMBER_AND_EXTENSION.fullmatch(text)
    assert match is not None, "it takes any text"
    return match[1], match[2]


def _without_decimals(part: str) -> str:
    return _DECIMALS.sub(r"\1\2", part) if "." in part else part


def _is_two_numbers(number: str) -> bool:
    """Whether there are two numbers in it, or behind a slash the last digits of a second one."""
    number = _DIALLED.sub("+", number)
    return _has_two_long_groups(number) or _has_second_ending(number)


def _has_two_long_groups(number: str) -> bool:
    """In one number no two neighbours are both longer than an area code, whatever separates its groups."""
    return any(
        min(len(first), len(second)) > _LONGEST_AREA_CODE and second.strip("0")
        for separator in _SEPARATORS
        for first, second in pairwise(_groups(number, separator))
    )


def _has_second_ending(number: str) -> bool:
    first, second, *_ = *_groups(number, _SLASH), "", ""
    shortest = 2 if "+" in number else 1  # behind +, a single digit counts as the last one of the number
    return len(first) > _LONGEST_AREA_CODE and shortest <= len(second) <= _LONGEST_ENDING


def _groups(number: str, separator: re.Pattern[str]) -> list[str]:
    """The digits between the separators, behind + without as many as a calling code may have."""
    groups = [group for group in (_NO_DIGITS.sub("", part) for part in separator.split(number)) if group]
    if groups and "+" in number:
        groups[0] = groups[0][_LONGEST_CALLING_CODE:]
    return groups


def _international(number: str, region: str) -> str:
    """The number as E.164 if it is a valid one, else as it was."""
    e164 = _e164(number, region)
    # Plans take off prefixes as they read: never settle on a form that the next reading would change.
    return number if e164 is None or _e164(e164, region) != e164 else e164


def _e164(number: str, region: str) -> str | None:
    """The valid number that this is read as in the region."""
    read, with_plus = _valid(number, region), f"+{number}"
    # Digits that begin with the calling code; a + in front would not.
    if read != with_plus and number.startswith(str(phonenumbers.country_code_for_region(region))):
        international = _valid(with_plus, region)
        if international is not None and (read is None or not _is_written_as_usual(number, region)):
            return international
    return read


def _is_written_as_usual(number: str, region: str) -> bool:
    """Whether people of the region write it so: with the national prefix if it is usually written."""
    return phonenumbers.PhoneNumberMatcher(number, region, leniency=phonenumbers.Leniency.VALID).has_next()


def _valid(number: str, region: str) -> str | None:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
