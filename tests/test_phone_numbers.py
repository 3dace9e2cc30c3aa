"""Phone numbers of every region: each way of writing a number is one identifier, or there is a reason."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import phonenumbers
import pytest
from phonenumbers import PhoneMetadata, PhoneNumber, PhoneNumberFormat, PhoneNumberType

from identity_graphql.domain.identifiers import Normalisation
from identity_graphql.domain.phone_numbers import LIKE, REGIONS

REASONS = {
    # Without + they are national numbers, too, written as people there write them: of area 55 in Brazil, of a mobile
    # network in Vietnam, where the national prefix may be left out.
    ("BR", "5540041234"): "+555540041234",
    ("VN", "841992000"): "+84841992000",
}
"""What is another number than the example that it was made of."""


def examples(region: str) -> Iterator[PhoneNumber]:
    """The example numbers of libphonenumber, of every type that the region has."""
    for kind in PhoneNumberType.values():
        number = phonenumbers.example_number_for_type(region, kind)
        if number is not None:
            yield number


def written(number: PhoneNumber, region: str) -> Iterator[str]:
    """The number as people write it."""
    e164 = formatted(number, PhoneNumberFormat.E164)
    yield e164
    yield f"00{e164[1:]}"
    yield e164[1:]
    yield f"{e164[1:]}.0"
    yield formatted(number, PhoneNumberFormat.INTERNATIONAL)
    yield formatted(number, PhoneNumberFormat.INTERNATIONAL).removeprefix("+")
    yield formatted(number, PhoneNumberFormat.INTERNATIONAL).replace("-", "\u2011").replace("+", "\uff0b")
    yield formatted(number, PhoneNumberFormat.RFC3966)
    yield formatted(number, PhoneNumberFormat.NATIONAL)
    yield formatted(number, PhoneNumberFormat.NATIONAL).replace("-", "\u2013").replace(" ", "\u3000")
    yield phonenumbers.format_out_of_country_calling_number(number, region)


def formatted(number: PhoneNumber, form: int) -> str:
    return phonenumbers.format_number(number, form)


def bare(text: str) -> str:
    return re.sub(r"[^0-9+]", "", text.removesuffix(".0").replace("\uff0b", "+"))


def expected(text: str, e164: str, region: str) -> str:
    digits = bare(text)
    if len(digits) <= 6:  # it may lack the area code, and the examples of the task stay as they are
        return digits
    return REASONS.get((region, digits), e164)


def read(text: str, region: str) -> str | None:
    return Normalisation(region).phone_number(text)


def test_every_way_of_writing_an_example_of_any_region_is_one_number() -> None:
    count = 0
    short: set[tuple[str, str]] = set()
    used: set[tuple[str, str]] = set()
    for region in sorted(REGIONS):
        for number in examples(region):
            e164 = formatted(number, PhoneNumberFormat.E164)
            for text in written(number, region):
                wanted = expected(text, e164, region)
                assert read(text, region) == wanted, (region, text)
                count += 1
                if wanted != e164:
                    (short if len(bare(text)) <= 6 else used).add((region, bare(text)))
    assert count > 15_000
    assert used == set(REASONS)
    assert len({region for region, _ in short}) < 30


def test_no_example_has_more_digits_than_a_phone_number_may_have() -> None:
    lengths = {len(formatted(number, PhoneNumberFormat.E164)) for region in REGIONS for number in examples(region)}

    assert max(lengths) <= 1 + 15


def test_what_is_normalised_stays_in_every_region() -> None:
    numbers = [next(examples(region)) for region in sorted(REGIONS)]
    forms = {formatted(number, PhoneNumberFormat.E164) for number in numbers}
    forms |= {form[1:] for form in forms}
    for region in sorted(REGIONS)[::25]:
        for form in forms:
            once = read(form, region)
            assert once is not None
            assert read(once, region) == once, (region, form)


def test_the_signs_that_count_as_others_are_named_once() -> None:
    chars = "".join(LIKE.values())

    assert len(set(chars)) == len(chars)
    assert not any(char.isascii() for char in chars)


@pytest.mark.long
@pytest.mark.parametrize("region", sorted(REGIONS))
def test_every_way_of_writing_a_valid_number_of_a_region_is_one_number(region: str) -> None:
    """Random ones, by the thousand, where the examples are a few."""
    for number in valid_numbers(region, tries=1_500):
        e164 = formatted(number, PhoneNumberFormat.E164)
        national = formatted(number, PhoneNumberFormat.NATIONAL)
        assert read(e164, region) == e164
        assert read(f"00{e164[1:]}", region) == e164
        without_plus = read(e164[1:], region)
        assert without_plus is not None
        assert read(without_plus, region) == without_plus
        if without_plus != e164:
            assert len(e164) <= 1 + 6 or is_national_number(e164[1:], region, without_plus), e164
        # What begins with 00 is international; some plans read their own national form as another number.
        if len(bare(national)) > 6 and not bare(national).startswith("00") and parsed(national, region) == e164:
            assert read(national, region) == e164, national


@pytest.mark.long
@pytest.mark.parametrize("region", sorted(REGIONS))
def test_whatever_digits_are_given_in_a_region_twice_is_as_once(region: str) -> None:
    draw = random.Random(region)
    code = str(phonenumbers.country_code_for_region(region))
    for _ in range(1_000):
        prefix = draw.choice(["", "0", "00", "+", "1", code, code + code, code + "0", "+" + code + "0", "8" + code])
        once = read(prefix + "".join(draw.choices("0123456789", k=draw.randint(7, 9))), region)
        assert once is None or read(once, region) == once, once


def valid_numbers(region: str, *, tries: int) -> Iterator[PhoneNumber]:
    """Valid numbers that E.164 allows: the plans of Germany, Japan and Nigeria have some that are longer."""
    draw = random.Random(region)
    metadata = PhoneMetadata.metadata_for_region(region)
    assert metadata is not None
    patterns = [pattern for pattern in (metadata.fixed_line, metadata.mobile, metadata.general_desc) if pattern]
    for _ in range(tries):
        length = draw.choice([size for pattern in patterns for size in pattern.possible_length if size > 0])
        e164 = f"+{metadata.country_code}{''.join(draw.choices('0123456789', k=length))}"
        number = phonenumbers.parse(e164)
        if len(e164) <= 1 + 15 and phonenumbers.is_valid_number(number) and parsed(e164, region) == e164:
            yield number


def parsed(text: str, region: str) -> str:
    return formatted(phonenumbers.parse(text, region), PhoneNumberFormat.E164)


def is_national_number(digits: str, region: str, e164: str) -> bool:
    """Whether libphonenumber finds a number of the region in a text that is written so."""
    found = next(iter(phonenumbers.PhoneNumberMatcher(digits, region)), None)
    return found is not None and formatted(found.number, PhoneNumberFormat.E164) == e164
