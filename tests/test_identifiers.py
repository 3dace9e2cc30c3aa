"""Normalisation: what is accepted, what is refused, and which texts are the same identifier."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from identity_graphql.domain.identifiers import (
    EMAIL,
    PHONE_NUMBER,
    Details,
    Given,
    Identifier,
    Ignored,
    Normalisation,
    columns_of,
)
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.phone_numbers import REGIONS
from identity_graphql.errors import ConfigurationError, InvalidInput, Problem

PLAIN = Normalisation()
NORMALISATIONS = (
    PLAIN,
    *(Normalisation(region) for region in ("US", "IN", "GB", "DE", "IT", "AR", "BR", "MX")),
)

ZERO_WIDTH = "".join(
    chr(code)
    for first, last in (
        (0x061C, 0x061C),
        (0x180E, 0x180E),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x2064),
        (0x2066, 0x2069),
        (0xFEFF, 0xFEFF),
    )
    for code in range(first, last + 1)
)
SEPARATORS = "".join(
    char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) in {"Zs", "Zl", "Zp"}
)
NOTHING_TO_SEE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # printable all the same, by their categories
BLANKS = "\t\n\r" + SEPARATORS + ZERO_WIDTH + NOTHING_TO_SEE
VARIATION_SELECTORS = [
    chr(code)
    for first, last in ((0x180B, 0x180D), (0x180F, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for code in range(first, last + 1)
]
IGNORABLE = [  # Default_Ignorable_Code_Point, as DerivedCoreProperties.txt of Unicode 16 has it
    chr(code)
    for first, last in (
        (0x00AD, 0x00AD),
        (0x034F, 0x034F),
        (0x061C, 0x061C),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0xFFF0, 0xFFF8),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE0FFF),
    )
    for code in range(first, last + 1)
]
CONTROLS = "".join(char for char in map(chr, range(256)) if unicodedata.category(char) == "Cc" and char not in "\t\n\r")


def only_problem(error: pytest.ExceptionInfo[InvalidInput]) -> Problem:
    (problem,) = error.value.problems
    return problem


# Both kinds


@pytest.mark.parametrize("absent", [None, "", " ", BLANKS], ids=["null", "empty", "space", "all blanks"])
def test_null_and_blank_are_absent_without_a_warning(absent: str | None) -> None:
    assert PLAIN.email(absent) is None
    assert PLAIN.phone_number(absent) is None
    assert PLAIN.details(Given(email=absent, phone_number="123456")).ignored == ()
    assert PLAIN.details(Given(email="doc@hillvalley.edu", phone_number=absent)).ignored == ()


@pytest.mark.parametrize(
    "word",
    [
        "null",
        "NULL",
        "undefined",
        "None",
        "NaN",
        "n/a",
        "N/A",
        "[object Object]",
        "[OBJECT OBJECT]",
        "\ufeff Null\n",
        "anonymous",
        "Unknown ",
        "INVALID",
        "-1",
        "\uff0d\uff11",
    ],
)
def test_a_word_for_a_missing_value_is_absent_with_a_warning(word: str) -> None:
    with_phone = PLAIN.details(Given(email=word, phone_number="123456"))
    with_email = PLAIN.details(Given(email="doc@hillvalley.edu", phone_number=word))

    assert (columns_of(with_phone.identifiers)[0], [ignored.field for ignored in with_phone.ignored]) == (
        None,
        ["email"],
    )
    assert (columns_of(with_email.identifiers)[1], [ignored.field for ignored in with_email.ignored]) == (
        None,
        ["phoneNumber"],
    )


@pytest.mark.parametrize("number", ["-1", " -1 ", -1, -1.0], ids=repr)
def test_minus_one_as_a_number_is_the_word_that_it_is_as_a_text(number: object) -> None:
    for normalisation in NORMALISATIONS:
        details = normalisation.details(Given(email="doc@hillvalley.edu", phone_number=number))

        assert columns_of(details.identifiers)[1] is None
        assert details.ignored == (
            Ignored("phoneNumber", "phoneNumber is a word for a missing value; it counts as not given"),
        )
    with pytest.raises(InvalidInput, match="must be a string"):
        PLAIN.email(-1)


@pytest.mark.parametrize("number", ["1", "+1", "- 1", "-1.0", "-2", -2, -1.5, 1], ids=repr)
def test_what_only_resembles_minus_one_is_refused_as_before(number: object) -> None:
    with pytest.raises(InvalidInput) as error:
        PLAIN.phone_number(number)

    assert only_problem(error).path == "phoneNumber"


@pytest.mark.parametrize(
    "email",
    ["unknown@x.io", "anonymous@x.io", "invalid@x.io", "-1@x.io", "a@unknown", "a@x.invalid", "test@example.com"],
)
def test_an_email_with_such_a_word_in_it_is_an_email(email: str) -> None:
    assert PLAIN.email(email) == email


def test_numbers_that_people_make_up_are_numbers() -> None:
    assert PLAIN.phone_number("9999999999") == "9999999999"
    assert PLAIN.phone_number("-1-234-567") == "1234567"


@pytest.mark.parametrize(
    "bad",
    [*CONTROLS, chr(0xD800), chr(0xD83D), chr(0xDFFF)],
    ids=lambda char: f"U+{ord(char):04X}",
)
@pytest.mark.parametrize("place", ["{}12@3456", "12{}@3456", "12@3456{}", " {} "])
def test_control_characters_and_lone_surrogates_are_refused_wherever_they_are(bad: str, place: str) -> None:
    for field, read in (("email", PLAIN.email), ("phoneNumber", PLAIN.phone_number)):
        with pytest.raises(InvalidInput, match="control characters or unpaired surrogates") as error:
            read(place.format(bad))
        assert only_problem(error).path == field


@pytest.mark.parametrize("blank", BLANKS, ids=lambda char: f"U+{ord(char):04X}")
def test_blanks_and_zero_width_characters_around_a_value_are_cut_off(blank: str) -> None:
    assert PLAIN.email(f"{blank}doc@hillvalley.edu{blank}{blank}") == "doc@hillvalley.edu"
    assert PLAIN.phone_number(f"{blank}{blank}123456{blank}") == "123456"


@pytest.mark.parametrize("text", ["1" * 250_000, "a\u0301\u0316" * 80_000, "@" * 250_000, "1 " * 125_000])
def test_a_far_too_long_text_is_refused_at_once(text: str) -> None:
    start = time.process_time()

    for read in (PLAIN.email, NORMALISATIONS[1].phone_number):
        with pytest.raises(InvalidInput, match="too long"):
            read(text)

    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000 + "<@b",
        "a@" + "b" * 1_000,
        "a@" + "b-" * 500,
        "a@" + "b." * 500 + "-",
        "\u00fc" * 500 + "@\u00fc" * 9,
        "a@" + "\u00fc." * 500,
        "1/" * 500,
        "1.0" * 300,
        "." * 1_000 + "1",
        "1" * 1_000 + ".0x",
        "(1" * 500,
        "0" * 1_000 + "1",
    ],
    ids=lambda text: ascii(text[:5]) + ascii(text[-3:]),
)
def test_the_longest_texts_are_judged_at_once(text: str) -> None:
    start = time.process_time()

    for read in (PLAIN.email, PLAIN.phone_number, Normalisation("DE").phone_number):
        with pytest.raises(InvalidInput):
            read(text)

    assert time.process_time() - start < 0.5


# Emails


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("McFly@HillValley.EDU", "mcfly@hillvalley.edu", id="lower case"),
        pytest.param("m.c.fly+1955@hillvalley.edu", "m.c.fly+1955@hillvalley.edu", id="no dots or plus folding"),
        pytest.param("a@b.test", "a@b.test", id="test domain"),
        pytest.param("a@localhost", "a@localhost", id="localhost"),
        pytest.param("a@b", "a@b", id="domain of one label"),
        pytest.param("a@_spf.under_score_.b-c.x3.4", "a@_spf.under_score_.b-c.x3.4", id="underscores and digits"),
        pytest.param("a@ab--c.de", "a@ab--c.de", id="two hyphens that mean nothing"),
        pytest.param("a@" + "b" * 63 + ".de", "a@" + "b" * 63 + ".de", id="label of 63"),
        pytest.param("a@xn--bcher-kva.example", "a@xn--bcher-kva.example", id="encoded domain"),
        pytest.param("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example", id="encoded domain in capitals"),
        pytest.param("a@B.DE.", "a@b.de", id="dot of the root"),
        pytest.param("a@localhost.", "a@localhost", id="dot of the root behind one label"),
        pytest.param("a@b\u00fccher.example.", "a@xn--bcher-kva.example", id="dot behind an international domain"),
        pytest.param("a@example.com\u3002", "a@example.com", id="ideographic full stop at the end"),
        pytest.param("a@example\uff0ecom\uff61", "a@example.com", id="full stops of other widths"),
        pytest.param("<John@Example.com>", "john@example.com", id="angle brackets"),
        pytest.param(" < john@example.com\u00a0> ", "john@example.com", id="blanks and angle brackets"),
        pytest.param("mailto:john@example.com", "john@example.com", id="mailto"),
        pytest.param("MailTo: john@example.com", "john@example.com", id="mailto and a blank"),
        pytest.param("mailto://john@example.com", "john@example.com", id="mailto and two slashes"),
        pytest.param("mailto:/john@example.com", "/john@example.com", id="mailto and one slash"),
        pytest.param("//john@example.com", "//john@example.com", id="two slashes"),
        pytest.param("<MAILTO://john@example.com.>", "john@example.com", id="everything that is repaired"),
        pytest.param("_john_@my_host", "_john_@my_host", id="underscores that are no markup"),
        pytest.param("\uff1cjohn@b\u00fccher.example\uff1e", "john@xn--bcher-kva.example", id="full-width brackets"),
        pytest.param(
            "\uff34\uff41\uff52\uff4f\uff20\uff45\uff58\uff0e\uff4a\uff50", "taro@ex.jp", id="all of it full-width"
        ),
        pytest.param("taro\ufe6bx.jp", "taro@x.jp", id="small @"),
        pytest.param("\uff76\uff9e@x.jp", "\u30ac@x.jp", id="half-width katakana"),
        pytest.param("!#$%&'*+-/=?^_`{|}~.@b", "!#$%&'*+-/=?^_`{|}~.@b", id="signs before the @"),
        pytest.param("'o'hara@x.ie", "'o'hara@x.ie", id="apostrophe"),
        pytest.param(".a..b.@docomo.example", ".a..b.@docomo.example", id="dots as Japanese carriers gave them out"),
        pytest.param("\u7528\u6237@\u4f8b\u5b50.\u6d4b\u8bd5", "\u7528\u6237@xn--fsqu00a.xn--0zwm56d", id="Chinese"),
        pytest.param("\U0001f600@x.de", "\U0001f600@x.de", id="emoji before the @"),
        pytest.param("\u2764\ufe0f@x.de", "\u2764@x.de", id="emoji as a keyboard sends it"),
        pytest.param("\U0001f44d\U0001f3fd@x.de", "\U0001f44d\U0001f3fd@x.de", id="emoji of a visible colour"),
        pytest.param("\u845b\U000e0100@x.jp", "\u845b@x.jp", id="name in the form that its bearer prefers"),
        pytest.param("e\ufe0f\u0301@x.de", "\u00e9@x.de", id="accent behind a variation selector"),
        pytest.param("Jose\u0301@x.es", "jos\u00e9@x.es", id="decomposed"),
        pytest.param("JOS\u00c9@x.es", "jos\u00e9@x.es", id="composed capital"),
        pytest.param("\u212aarl@x.de", "karl@x.de", id="Kelvin sign"),
        pytest.param("\u0130@x.tr", "i\u0307@x.tr", id="dotted capital I"),
        pytest.param("stra\u00dfe@x.de", "stra\u00dfe@x.de", id="sharp s is not folded"),
        pytest.param("\u1e9e@x.de", "\u00df@x.de", id="capital sharp s"),
        pytest.param("ΟΔΟΣ@x.gr", "οδος@x.gr", id="final sigma"),
        pytest.param("a@Stra\u00dfe.de", "a@xn--strae-oqa.de", id="sharp s in the domain"),
        pytest.param("a@BU\u0308CHER.example", "a@xn--bcher-kva.example", id="international domain"),
        pytest.param("a@b\u00fccher\u3002example", "a@xn--bcher-kva.example", id="ideographic full stop"),
        pytest.param("a@\uff45xample.com", "a@example.com", id="full-width letter in the domain"),
        pytest.param("x" * 250 + "@b.c", "x" * 250 + "@b.c", id="254 characters"),
        pytest.param("e\u0301" * 250 + "@b.c", "\u00e9" * 250 + "@b.c", id="254 characters once composed"),
    ],
)
def test_an_email_is_normalised(given: str, expected: str) -> None:
    assert PLAIN.email(given) == expected
    assert PLAIN.email(expected) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param("doc", "exactly one @", id="no @"),
        pytest.param("@", "exactly one @", id="only @"),
        pytest.param("@b", "exactly one @", id="nothing before"),
        pytest.param("a@", "exactly one @", id="nothing after"),
        pytest.param("a@b@c", "exactly one @", id="two"),
        pytest.param("a b@c", "blanks", id="inner space"),
        pytest.param("a@b\tc", "blanks", id="inner tab"),
        pytest.param("a\u200b@b", "blanks", id="inner zero-width"),
        pytest.param("a@\u00a0b", "blanks", id="inner no-break space"),
        pytest.param("x" * 251 + "@b.c", "at most 254", id="255 characters"),
        pytest.param("x" * 245 + "@b\u00fc.de", "at most 254", id="255 characters once encoded"),
        pytest.param("a@\u2603\ufffd.de", "international domain", id="no domain character"),
        pytest.param("a@\u00fc..de", "between its dots", id="empty label"),
        pytest.param("a@b..de", "between its dots", id="empty label in ASCII"),
        pytest.param("a@.b.de", "between its dots", id="dot in front"),
        pytest.param("a@.\u00fc.de", "between its dots", id="dot in front of an international domain"),
        pytest.param("a@b.de..", "between its dots", id="two dots at the end"),
        pytest.param("a@\u00fc.de\u3002.", "between its dots", id="two dots behind an international domain"),
        pytest.param("a@.", "between its dots", id="only a dot"),
        pytest.param("a@\u3002", "between its dots", id="only an ideographic dot"),
        pytest.param("a@-b.de", "between its dots", id="hyphen at the beginning of a label"),
        pytest.param("a@b-.de", "between its dots", id="hyphen at the end of a label"),
        pytest.param("a@-\u00fc.de", "international domain", id="hyphen at the beginning of an international label"),
        pytest.param("a@-b.\u00fc.de", "between its dots", id="hyphen beside an international label"),
        pytest.param("a@" + "b" * 64 + ".de", "between its dots", id="label of 64"),
        pytest.param("a@b!.de", "between its dots", id="sign in the domain"),
        pytest.param("a@[127.0.0.1]", "between its dots", id="address of a host"),
        pytest.param("a@b>", "between its dots", id="bracket at the end"),
        pytest.param("a@b'", "between its dots", id="apostrophe at the end"),
        pytest.param("a@b.de?subject=c", "between its dots", id="mailto with a subject"),
        pytest.param("a@b\u00fc\u2603.de", "international domain", id="emoji in the domain"),
        pytest.param("a@xn--a.de", "international domain", id="encoded domain that encodes nothing"),
        pytest.param("a@xn--.de", "international domain", id="encoded domain of nothing"),
        pytest.param("a@xn---bbk.de", "international domain", id="another encoding of a domain"),
        pytest.param("john@example.com,", "one address", id="comma at the end"),
        pytest.param("john@example.com;", "one address", id="semicolon at the end"),
        pytest.param("john@b\u00fccher.example,", "one address", id="comma behind an international domain"),
        pytest.param("john@b\u00fccher.example\uff1b", "one address", id="full-width semicolon"),
        pytest.param("john@example.com.,", "one address", id="dot and comma"),
        pytest.param("<john@example.com>,", "one address", id="comma behind brackets"),
        pytest.param("a@b.de,c@d.de", "one address", id="two addresses"),
        pytest.param("<a@b.de", "before the @", id="opening bracket only"),
        pytest.param("<<a@b.de>>", "before the @", id="two pairs of brackets"),
        pytest.param("John<a@b.de>", "before the @", id="name and brackets"),
        pytest.param("John <a@b.de>", "blanks", id="name, blank and brackets"),
        pytest.param("mailto:mailto:a@b.de", "before the @", id="mailto twice"),
        pytest.param("https://a@b.de", "before the @", id="another address than of mail"),
        pytest.param('"a"@b.de', "before the @", id="quoted"),
        pytest.param('"a b"@b.de', "blanks", id="quoted with a blank"),
        pytest.param("a\\@b.de", "before the @", id="backslash"),
        pytest.param("(a)a@b.de", "before the @", id="comment"),
        pytest.param("jos\ufffd@b.de", "before the @", id="character lost in a conversion"),
        pytest.param("a\u00ad@b.de", "invisible", id="soft hyphen before the @"),
        pytest.param("a\ue000@b.de", "invisible", id="private character"),
        pytest.param("<>", "exactly one @", id="only brackets"),
        pytest.param("mailto:", "exactly one @", id="only mailto"),
        pytest.param("a@" + "\u00fc" * 64 + ".de", "international domain", id="long label"),
        pytest.param("a@b\uff20\u00fc.de", "exactly one @", id="two, one of them full-width"),
        pytest.param("a@\u2100\u00fc.de", "international domain", id="maps to a slash"),
        pytest.param("a@exam\u00adple.com", "invisible", id="soft hyphen in the domain"),
        pytest.param("a@\u00ad", "invisible", id="only a soft hyphen"),
        pytest.param("_john@example.com_", "no _ at the end of all", id="markup"),
        pytest.param("__john@example.com__.", "no _ at the end of all", id="stronger markup and a dot"),
        pytest.param("_john@b\u00fccher.example_", "no _ at the end of all", id="markup and an international domain"),
        pytest.param("john@localhost_", "no _ at the end of all", id="underscore behind one label"),
        pytest.param("\U0001f468\u200d\U0001f469@x.de", "invisible", id="emoji that is joined of several"),
        pytest.param("a@m\u00fcnchen_x.de", "international domain", id="underscore in an international label"),
        pytest.param("a@\u00e4b--c.com", "international domain", id="two hyphens in an international label"),
        pytest.param("a@\u0627b.de", "international domain", id="mixed directions"),
    ],
)
def test_an_email_that_cannot_be_one_is_refused(given: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        PLAIN.email(given)

    assert only_problem(error).path == "email"


@pytest.mark.parametrize("blank", BLANKS, ids=lambda char: f"U+{ord(char):04X}")
def test_no_blank_is_allowed_inside_an_email(blank: str) -> None:
    for email in (f"a{blank}b@c", f"a@b{blank}c"):
        with pytest.raises(InvalidInput, match="blanks"):
            PLAIN.email(email)


def test_what_cannot_be_seen_makes_no_other_email_on_either_side_of_the_at() -> None:
    assert set(VARIATION_SELECTORS) < set(IGNORABLE)
    for char in [*IGNORABLE, "\u2800"]:
        for text in (f"a{char}b@x.io", f"ab@x{char}.io"):
            if char in VARIATION_SELECTORS:
                assert PLAIN.email(text) == text.replace(char, ""), ascii(text)
            else:
                with pytest.raises(InvalidInput, match="invisible"):
                    PLAIN.email(text)


@pytest.mark.parametrize(
    "given", [0, 1, True, 1.5, b"a@b", [], ["a@b"], {}, object()], ids=lambda given: repr(given)[:12]
)
def test_an_email_must_be_a_string(given: object) -> None:
    with pytest.raises(InvalidInput) as error:
        PLAIN.email(given)

    assert only_problem(error) == Problem("email", "email must be a string")


def test_every_single_character_in_an_email_normalises_to_a_fixed_point() -> None:
    for code in range(0x3100):
        for email in (f"{chr(code)}\u0345@x", f"\u0391{chr(code)}@x", f"a@{chr(code)}b.de"):
            assert_settled(PLAIN.email, email)


# Phone numbers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("123456", "123456", id="seed"),
        pytest.param("919191", "919191", id="seed too"),
        pytest.param(123456, "123456", id="integer"),
        pytest.param(10**15 - 1, "9" * 15, id="largest integer"),
        pytest.param(9876543210.0, "9876543210", id="whole number with a fraction of zero"),
        pytest.param(9.87654321e9, "9876543210", id="JSON number with an exponent"),
        pytest.param("9876543210.0", "9876543210", id="spreadsheet"),
        pytest.param("9876543210.00", "9876543210", id="two zeros behind the dot"),
        pytest.param("9876543210.", "9876543210", id="only the dot"),
        pytest.param("1511234567.0", "1511234567", id="10 digits"),
        pytest.param("+49151234567.0", "+49151234567", id="spreadsheet with +"),
        pytest.param("0049151234567.0", "+49151234567", id="spreadsheet with 00"),
        pytest.param("'+4917612345678", "+4917612345678", id="spreadsheet's mark of a text"),
        pytest.param("\u20190301234567", "0301234567", id="typographic mark of a text"),
        pytest.param(" 123456.0 ", "123456", id="spreadsheet with blanks"),
        pytest.param("-9876543210.0", "9876543210", id="spreadsheet with a dash in front"),
        pytest.param("(9876543210.0)", "9876543210", id="spreadsheet in parentheses"),
        pytest.param("9876543210\uff0e0", "9876543210", id="full-width dot"),
        pytest.param("\uff19\u0669\u096f\uff0e\uff10", "999", id="digits of other scripts and a dot"),
        pytest.param("9876543210.0x5", "9876543210;ext=5", id="spreadsheet and extension"),
        pytest.param("9876543210 ext. 5.0", "9876543210;ext=5", id="extension from a spreadsheet"),
        pytest.param("555.0000", "555", id="digits, a dot and zeros"),
        pytest.param("202.555.0000", "2025550000", id="dots between groups"),
        pytest.param("01.23.45.67.00", "0123456700", id="French groups"),
        pytest.param("202-555.0", "202555", id="groups, a dot and one zero"),
        pytest.param("202.555.0", "202555", id="dots between groups, a dot and one zero"),
        pytest.param("+91-9876543210.0", "+919876543210", id="spreadsheet with a calling code and a dash"),
        pytest.param("98765-43210.0", "9876543210", id="spreadsheet with groups"),
        pytest.param("(98765) 43210\uff0e0", "9876543210", id="spreadsheet with groups and a full-width dot"),
        pytest.param("(98765-43210.0)", "9876543210", id="spreadsheet with groups in parentheses"),
        pytest.param("(98765)-(43210).0", "9876543210", id="spreadsheet with a dot behind a parenthesis"),
        pytest.param("98765-43210.0 x5.0", "9876543210;ext=5", id="spreadsheet with groups and extension"),
        pytest.param("98765-43210.00", "987654321000", id="a group of two zeros"),
        pytest.param("1234567.0000000", "1234567", id="as many zeros as digits"),
        pytest.param("12345678901234.0000000", "12345678901234", id="many digits and zeros"),
        pytest.param("123.05", "12305", id="not only zeros behind the dot"),
        pytest.param(
            "\uff0b\uff14\uff19\uff08\uff10\uff09\uff13\uff10\uff0f\uff11\uff12", "+4903012", id="all full-width"
        ),
        pytest.param("\uff10\uff13\u30fc1234\u30fb5678", "0312345678", id="keys of a Japanese keyboard"),
        pytest.param("12345\uff1b\uff45\uff58\uff54\uff1d\uff15", "12345;ext=5", id="full-width extension"),
        pytest.param("0176/1234567", "01761234567", id="area code and slash"),
        pytest.param("035771/1234567", "0357711234567", id="longest area code and slash"),
        pytest.param("+49 35771 / 1234567", "+49357711234567", id="area code behind the calling code"),
        pytest.param("0049 35771/1234567", "+49357711234567", id="area code behind 00 and the calling code"),
        pytest.param("555/123/4567", "5551234567", id="two slashes"),
        pytest.param("0475/12/34/56", "0475123456", id="slashes between all groups"),
        pytest.param("(0351) 123/4567", "03511234567", id="slash in a local number"),
        pytest.param("+49 35771/12", "+493577112", id="calling code, area code, slash and a short number"),
        pytest.param("0049 35771/12", "+493577112", id="00, calling code, area code, slash and a short number"),
        pytest.param("+43 1 58801/12", "+4315880112", id="slash before an extension that is dialled through"),
        pytest.param("00 1 202 555 012/3", "+12025550123", id="00, and a slash before the last digit"),
        pytest.param("9876543210/", "9876543210", id="slash behind"),
        pytest.param("+4935771 1234567", "+49357711234567", id="7 and 7 digits, the calling code among them"),
        pytest.param("00 4935771 1234567", "+49357711234567", id="the same with 00"),
        pytest.param("9876543210-11", "987654321011", id="dash before what is dialled through"),
        pytest.param("01 23 45 67 89", "0123456789", id="pairs of digits"),
        pytest.param("555 0100 555 0101", "55501005550101", id="two numbers, or one in groups"),
        pytest.param("5550100 x 5550101", "5550100;ext=5550101", id="extension as long as the number"),
        pytest.param("+1 (202) 555-01.23/4", "+120255501234", id="punctuation"),
        pytest.param("202\u00a0555\u200b01\n23", "2025550123", id="blanks inside"),
        pytest.param("-123", "123", id="dash in a text"),
        pytest.param("TEL:+1-202-555-0123", "+12025550123", id="tel"),
        pytest.param("tel:123;ext=5", "123;ext=5", id="tel with extension"),
        pytest.param("00 49 30 1234567", "+49301234567", id="00 is +"),
        pytest.param("0049123", "+49123", id="short 00"),
        pytest.param("+0049123", "+0049123", id="00 after +"),
        pytest.param("00000123", "+000123", id="00 is taken once"),
        pytest.param("0301234567", "0301234567", id="one leading zero"),
        pytest.param("\u0669\u0661\u0669\u0661", "9191", id="Arabic digits"),
        pytest.param("\u0967\u0968\u0969", "123", id="Devanagari digits"),
        pytest.param("\uff11\U0001d7da\u0663", "123", id="mixed digits"),
        pytest.param("123", "123", id="3 digits"),
        pytest.param("1" * 15, "1" * 15, id="15 digits"),
        pytest.param("+" + "1" * 15, "+" + "1" * 15, id="15 digits after +"),
        pytest.param("00" + "1" * 15, "+" + "1" * 15, id="15 digits after 00"),
        pytest.param("1" * 15 + "x12345678", "1" * 15 + ";ext=12345678", id="15 digits and an extension"),
        pytest.param("12345;ext=5", "12345;ext=5", id=";ext="),
        pytest.param("12345;EXT=05", "12345;ext=05", id=";EXT="),
        pytest.param("12345x5", "12345;ext=5", id="x"),
        pytest.param("12345 X 5", "12345;ext=5", id="X"),
        pytest.param("12345 ext. 5", "12345;ext=5", id="ext."),
        pytest.param("12345 Ext5", "12345;ext=5", id="Ext"),
        pytest.param("12345 extension 5", "12345;ext=5", id="extension"),
        pytest.param("12345x\u0665", "12345;ext=5", id="Arabic digit in the extension"),
        pytest.param("12345x12345678", "12345;ext=12345678", id="extension of 8 digits"),
        pytest.param("12345x0", "12345;ext=0", id="extension zero"),
        pytest.param("12345\u037eext=5", "12345;ext=5", id="Greek question mark composes to ;"),
    ],
)
def test_a_phone_number_is_normalised(given: str | int, expected: str) -> None:
    assert PLAIN.phone_number(given) == expected
    assert PLAIN.phone_number(expected) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param("0800-FLOWERS", "only digits", id="letters"),
        pytest.param("12", "3 to 15", id="2 digits"),
        pytest.param("0012", "3 to 15", id="2 digits after 00"),
        pytest.param("1" * 16, "3 to 15", id="16 digits"),
        pytest.param("+" + "1" * 16, "3 to 15", id="16 digits after +"),
        pytest.param("0" + "1" * 15, "3 to 15", id="16 digits with a zero in front"),
        pytest.param("1" * 1000, "3 to 15", id="1,000 digits"),
        pytest.param(2**53 - 1, "3 to 15", id="integer of 16 digits"),
        pytest.param(float(2**53 - 1), "3 to 15", id="float of 16 digits"),
        pytest.param("9876543210 / 9876543211", "there are two", id="two numbers"),
        pytest.param("9876543210\n9876543211", "there are two", id="two lines"),
        pytest.param("555-0100 / 555-0101", "there are two", id="two short numbers"),
        pytest.param("9876543210/11", "there are two", id="last digits of a second number"),
        pytest.param("98765 43210 / 11", "there are two", id="last digits behind groups"),
        pytest.param("9876543210/1", "there are two", id="last digit of a second number"),
        pytest.param("9876543210/211", "there are two", id="last three digits of a second number"),
        pytest.param("9876543210//11", "there are two", id="two slashes and last digits"),
        pytest.param("/9876543210/11", "there are two", id="slash in front and last digits"),
        pytest.param("5550100/01/02", "there are two", id="last digits of a second and a third number"),
        pytest.param("+91 98765 43210/11", "there are two", id="last digits behind +"),
        pytest.param("0091 98765 43210/11", "there are two", id="last digits behind 00"),
        pytest.param("5550100\u30fb11", "there are two", id="last digits behind a Japanese key"),
        pytest.param("5550100 5550101", "there are two", id="blank"),
        pytest.param("5550100\t5550101", "there are two", id="tab"),
        pytest.param("5550100\u200b5550101", "there are two", id="zero-width space"),
        pytest.param("5550100 5550101 x5", "there are two", id="blank, and an extension"),
        pytest.param("5550100\r\n5550101", "there are two", id="two short lines"),
        pytest.param("555 0100\n555 0101", "there are two", id="two lines of groups"),
        pytest.param("555 0100\u2028555 0101", "there are two", id="two lines of groups in Unicode's way"),
        pytest.param("555-0100 555-0101", "there are two", id="blank between groups"),
        pytest.param("5550100 - 5550101", "there are two", id="dash and blanks"),
        pytest.param("5550100-5550101", "there are two", id="dash"),
        pytest.param("5550100.5550101", "there are two", id="dot"),
        pytest.param("(5550100)(5550101)", "there are two", id="parentheses"),
        pytest.param("+12025550123 +12025550124", "there are two", id="two with + and a blank"),
        pytest.param("5550100\uff0f5550101", "there are two", id="two numbers and a full-width slash"),
        pytest.param("5550100, 5550101", "one number", id="comma"),
        pytest.param("5550100; 5550101", "one number", id="semicolon"),
        pytest.param("5550100 or 5550101", "one number", id="or"),
        pytest.param("+4930123456/+4930123457", "one number", id="two with +"),
        pytest.param("03-1234-5678\u301c9", "one number", id="wave dash of a range"),
        pytest.param("9,876,543,210", "one number", id="commas between thousands"),
        pytest.param("9876543210,0", "one number", id="decimal comma"),
        pytest.param("9.19E+11", "exponent", id="exponent"),
        pytest.param("9,19E+11", "exponent", id="exponent and decimal comma"),
        pytest.param("9.876543210e9", "exponent", id="exponent with all digits"),
        pytest.param("919E9", "exponent", id="exponent without a fraction"),
        pytest.param("'9\uff0e19\uff25\uff0b11", "exponent", id="full-width exponent"),
        pytest.param('"9876543210"', "one number", id="quotes"),
        pytest.param('="9876543210"', "one number", id="formula"),
        pytest.param("''123456", "one number", id="two apostrophes"),
        pytest.param("123456'", "one number", id="apostrophe behind"),
        pytest.param("+", "3 to 15", id="only +"),
        pytest.param("-.()/", "3 to 15", id="only punctuation"),
        pytest.param("tel:", "3 to 15", id="only tel"),
        pytest.param(";ext=5", "3 to 15", id="only an extension"),
        pytest.param("x5", "3 to 15", id="only x"),
        pytest.param("1+23", "only digits", id="+ inside"),
        pytest.param("123+", "only digits", id="+ behind"),
        pytest.param("++123", "only digits", id="two +"),
        pytest.param("123\uff0b", "only digits", id="full-width + behind"),
        pytest.param("+tel:123", "only digits", id="+ before tel"),
        pytest.param("tel:tel:123", "only digits", id="tel twice"),
        pytest.param("123x4x5", "only digits", id="extension twice"),
        pytest.param("123x", "only digits", id="extension without digits"),
        pytest.param("123;ext=", "only digits", id="empty ;ext="),
        pytest.param("123x123456789", "only digits", id="extension of 9 digits"),
        pytest.param("123x+5", "only digits", id="+ in the extension"),
        pytest.param("123 exten\u017fion 5", "only digits", id="long s"),
        pytest.param("tel:123;phone-context=x", "only digits", id="another parameter"),
        pytest.param("1\u0301 234", "only digits", id="accent on a digit"),
        pytest.param("12\u00b3", "only digits", id="superscript is no decimal digit"),
        pytest.param("\u5341\u4e8c\u4e09", "only digits", id="numerals that are no decimal digits"),
        pytest.param("doc@hillvalley.edu", "only digits", id="an email"),
        pytest.param(1, "3 to 15", id="small integer"),
        pytest.param(-123456, "from 0 to", id="negative"),
        pytest.param(2**53, "from 0 to", id="too large an integer"),
        pytest.param(10**5000, "from 0 to", id="enormous integer"),
        pytest.param(True, "string or a whole", id="true"),
        pytest.param(False, "string or a whole", id="false"),
        pytest.param(123456.5, "string or a whole", id="fraction"),
        pytest.param(float("inf"), "string or a whole", id="infinity"),
        pytest.param(-123456.0, "from 0 to", id="negative float"),
        pytest.param(2.0**53, "from 0 to", id="too large a float"),
        pytest.param(1e300, "from 0 to", id="enormous float"),
        pytest.param(float("nan"), "string or a whole", id="nan"),
        pytest.param([123456], "string or a whole", id="list"),
        pytest.param({"a": 1}, "string or a whole", id="object"),
        pytest.param(b"123456", "string or a whole", id="bytes"),
    ],
)
def test_a_phone_number_that_cannot_be_one_is_refused(given: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        PLAIN.phone_number(given)

    assert only_problem(error).path == "phoneNumber"


DASHES = [
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(char) == "Pd" or char in "\u00ad\u02d7\u2043\u207b\u208b\u2212\u2796\u30fc\uff70"
]
RANGES = ["\u301c", "\u3030"]  # the wave dashes: 5678 to 5679 are two numbers


@pytest.mark.parametrize("dash", [dash for dash in DASHES if dash not in RANGES], ids=lambda c: f"U+{ord(c):04X}")
def test_every_dash_is_a_dash(dash: str) -> None:
    assert PLAIN.phone_number(f"030{dash}12{dash}34{dash}{dash}567") == "0301234567"
    assert PLAIN.phone_number(f"030{dash}123 x{dash}5") == "030123;ext=5"


@pytest.mark.parametrize("dash", RANGES, ids=lambda char: f"U+{ord(char):04X}")
def test_a_dash_that_stands_for_a_range_is_refused(dash: str) -> None:
    with pytest.raises(InvalidInput, match="one number"):
        PLAIN.phone_number(f"03-1234-5678{dash}9")


@pytest.mark.parametrize(
    ("sign", "chars"),
    [
        ("+", "\u02d6\u207a\u208a\u2795\ufb29\ufe62\uff0b"),
        ("/", "\u2044\u2215\u29f8\u30fb\uff0f\uff65"),
        (".", "\u00b7\u2022\u2024\u2027\u3002\ufe52\uff0e\uff61"),
        ("(", "\u207d\u208d\ufe59\uff08"),
        (")", "\u207e\u208e\ufe5a\uff09"),
        ("'", "\u2018\u2019\uff07"),
    ],
)
def test_a_sign_of_another_width_or_height_is_the_sign(sign: str, chars: str) -> None:
    for char in chars:
        for text in ("{}0176 1234567", "0176{}1234567", "0176{}1234567.0", "0176 1234567{}"):
            written = text.format(char)
            assert outcome(PLAIN, written) == outcome(PLAIN, text.format(sign)), f"U+{ord(char):04X}"


@pytest.mark.parametrize(
    "two",
    [
        "9876543210 / 9876543211",
        "9876543210 9876543211",
        "+919876543210 (+919876543211)",
        "0176-12345678 0176-12345679",
    ],
)
def test_two_numbers_in_one_field_are_refused_in_every_region(two: str) -> None:
    for normalisation in (PLAIN, *map(Normalisation, sorted(REGIONS))):
        with pytest.raises(InvalidInput, match=r"3 to 15 digits|only digits|there are two"):
            normalisation.phone_number(two)


@pytest.mark.parametrize(
    "zeros", ["0", "0.0", "000.000", "000", "+0", "tel:0-0", "(00) 00", "0" * 99, "000x5", "\u0660\u0660", 0], ids=repr
)
def test_zeros_only_count_as_absent_with_a_warning(zeros: str | int) -> None:
    details = PLAIN.details(Given(email="doc@hillvalley.edu", phone_number=zeros))

    assert PLAIN.phone_number(zeros) is None
    assert columns_of(details.identifiers)[1] is None
    assert [ignored.field for ignored in details.ignored] == ["phoneNumber"]
    assert details.raw == {"email": "doc@hillvalley.edu", "phoneNumber": zeros}


def test_a_float_is_kept_as_the_whole_number_that_it_is() -> None:
    details = PLAIN.details(Given(phone_number=9876543210.0))

    assert details == PLAIN.details(Given(phone_number=9876543210))
    assert type(details.raw["phoneNumber"]) is int
    assert PLAIN.details(Given(phone_number="9876543210.0")).raw == {"phoneNumber": "9876543210.0"}


# Regions


@pytest.mark.parametrize(
    ("region", "given", "expected"),
    [
        pytest.param("IN", "98765 43210", "+919876543210", id="national"),
        pytest.param("IN", "09876543210", "+919876543210", id="with the national prefix"),
        pytest.param("IN", "+91 98765 43210", "+919876543210", id="international"),
        pytest.param("IN", 9876543210, "+919876543210", id="integer"),
        pytest.param("IN", "+1 202 555 0123", "+12025550123", id="of another country"),
        pytest.param("US", "(202) 555-0123 x5", "+12025550123;ext=5", id="extension is kept"),
        pytest.param("US", "011 91 98765 43210", "+919876543210", id="international prefix of the region"),
        pytest.param("US", "1234567", "1234567", id="not valid"),
        pytest.param("US", "+1234567", "+1234567", id="international, not valid"),
        pytest.param("GB", "00919876543210", "+919876543210", id="00"),
        pytest.param("DE", "919191x5", "919191;ext=5", id="short number with extension"),
        pytest.param("IT", "06 6982 1234", "+390669821234", id="leading zero that belongs to the number"),
        pytest.param("DE", "15112345670.0", "+4915112345670", id="spreadsheet"),
        pytest.param("DE", "1511234567.0", "1511234567", id="spreadsheet, not valid without the zero of its fraction"),
        pytest.param("DE", "+4915112345670.0", "+4915112345670", id="spreadsheet with +"),
        pytest.param("DE", "0176 12345678", "+4917612345678", id="with the national prefix, of a long plan"),
        pytest.param("DE", "4917612345678", "+4917612345678", id="calling code without +"),
        pytest.param("DE", "49 (0)176 12345678", "+4917612345678", id="calling code and national prefix"),
        pytest.param("DE", "+49 (0)176 12345678", "+4917612345678", id="+ and national prefix"),
        pytest.param("DE", "(+49) 176\u201112345678", "+4917612345678", id="+ in parentheses"),
        pytest.param("DE", "\uff0b49 176 12345678", "+4917612345678", id="full-width +"),
        pytest.param("DE", "tel:4917612345678x5", "+4917612345678;ext=5", id="calling code and extension"),
        pytest.param("DE", 4917612345678.0, "+4917612345678", id="calling code in a float"),
        pytest.param("DE", "04921 12345", "+49492112345", id="area code like the calling code, as it is written"),
        pytest.param("DE", "492112345", "+492112345", id="area code like the calling code, as nobody writes it"),
        pytest.param("DE", "49 491", "49491", id="short, though it begins with the calling code"),
        pytest.param("PL", "48 304 56 93", "+48483045693", id="area code like the calling code, without prefix"),
        pytest.param("PL", "48512345678", "+48512345678", id="calling code without a national reading"),
        pytest.param("IN", "9118001234", "+919118001234", id="mobile number that begins like the calling code"),
        pytest.param("IN", "919876543210", "+919876543210", id="calling code of India"),
        pytest.param("AT", "4366412345678", "+4366412345678", id="calling code of Austria"),
        pytest.param("US", "12025550123", "+12025550123", id="calling code that is the national prefix, too"),
        pytest.param("US", "011 49 1511 2345678", "+4915112345678", id="16 digits, 3 of them dialled to leave"),
        pytest.param(
            "JP",
            "\uff10\uff19\uff10\u30fc\uff11\uff12\uff13\uff14\u30fc\uff15\uff16\uff17\uff18",
            "+819012345678",
            id="Japanese keyboard",
        ),
    ],
)
def test_a_number_that_is_valid_in_the_region_becomes_e164(region: str, given: str | int, expected: str) -> None:
    normalisation = Normalisation(region)

    assert normalisation.phone_number(given) == expected
    assert normalisation.phone_number(expected) == expected


@pytest.mark.parametrize("seed", ["123456", "919191", "717171"])
def test_the_numbers_of_the_task_stay_as_they_are_in_every_region(seed: str) -> None:
    assert {Normalisation(region).phone_number(seed) for region in REGIONS} == {seed}


def test_a_number_that_would_read_differently_the_next_time_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("identity_graphql.domain.phone_numbers._e164", lambda number, region: "+1" + number.lstrip("+"))

    assert Normalisation("US").phone_number("+2025550123") == "+2025550123"


@pytest.mark.parametrize("region", ["", "in", "UK", "XX", "001", "IND", "India"])
def test_an_unknown_region_is_a_configuration_error_that_names_the_setting(region: str) -> None:
    with pytest.raises(ConfigurationError, match="DEFAULT_REGION"):
        Normalisation(region)


def test_the_version_names_the_rules_and_the_region() -> None:
    assert Normalisation().version == "3"
    assert Normalisation("IN").version == "3:IN"


@pytest.mark.parametrize(
    ("ours", "theirs", "told", "untold"),
    [
        (PLAIN, "1", ["9876543210.0", "15 digits", "mailto:", "by id", "0016", "of version 1."], ["set DEFAULT"]),
        (PLAIN, "1", ["Since version 1", "Since version 2"], []),
        (PLAIN, "2", ["98765-43210.0", "two phone numbers", "mailto://", "cannot be seen", "a second time"], []),
        (
            PLAIN,
            "2",
            ["Since version 2", "unknown", "-1", "0022", "of version 2."],
            ["Since version 1"],
        ),
        (Normalisation("IN"), "1:IN", ["Since version 1", "of version 1."], ["as it was"]),
        (Normalisation("IN"), "1", ["Since version 1", "leave DEFAULT_REGION out"], []),
        (Normalisation("IN"), "1:DE", ["Since version 1", "set DEFAULT_REGION=DE"], []),
        (Normalisation("IN"), "2:IN", ["Since version 2", "of version 2."], ["Since version 1", "as it was"]),
        (Normalisation("IN"), "3", ["leave DEFAULT_REGION out"], ["Since", "release"]),
        (PLAIN, "3:IN", ["set DEFAULT_REGION=IN"], ["Since", "release"]),
        (PLAIN, "4", ["newer release", "version 3"], ["Since", "DEFAULT_REGION"]),
        (PLAIN, "3.0123abcd", ["IDENTIFIER_KINDS was another"], ["Since", "release", "DEFAULT_REGION"]),
        (Normalisation("IN"), "3:IN.0123abcd", ["IDENTIFIER_KINDS"], ["Since", "release", "DEFAULT_REGION"]),
        (PLAIN, "3:IN.0123abcd", ["IDENTIFIER_KINDS", "set DEFAULT_REGION=IN,"], ["Since", "release"]),
        (Normalisation(kinds=Kinds.parse('{"a": {}}')), "3", ["IDENTIFIER_KINDS was empty"], ["release", "REGION"]),
    ],
)
def test_what_differs_from_another_version_is_told(
    ours: Normalisation, theirs: str, told: list[str], untold: list[str]
) -> None:
    text = ours.changes_since(theirs)

    assert [word for word in told if word not in text] == []
    assert [word for word in untold if word in text] == []


# Details


def test_details_hold_the_normalised_and_the_raw_values() -> None:
    details = PLAIN.details(Given(email=" Doc@HillValley.edu", phone_number=123456))

    assert details == Details(
        (Identifier(EMAIL, "doc@hillvalley.edu"), Identifier(PHONE_NUMBER, "123456")),
        raw={"email": " Doc@HillValley.edu", "phoneNumber": 123456},
    )


def test_details_may_be_one_identifier() -> None:
    assert PLAIN.details(Given(email="a@b")).identifiers == (Identifier(EMAIL, "a@b"),)
    assert PLAIN.details(Given(phone_number="123")).identifiers == (Identifier(PHONE_NUMBER, "123"),)
    assert PLAIN.details(Given(phone_number="123")).raw == {"phoneNumber": "123"}
    assert PLAIN.details(Given(email="", phone_number="123")).raw == {"email": "", "phoneNumber": "123"}


@pytest.mark.parametrize(
    ("email", "phone_number"),
    [(None, None), ("", " "), ("null", None), (None, 0), ("n/a", "000"), ("invalid", -1), ("Unknown", "anonymous")],
)
def test_details_without_any_identifier_are_refused_at_the_root(email: object, phone_number: object) -> None:
    with pytest.raises(InvalidInput) as error:
        PLAIN.details(Given(email=email, phone_number=phone_number))

    assert only_problem(error) == Problem("root", "At least one of email or phoneNumber must be provided")


def test_two_bad_fields_are_two_problems() -> None:
    with pytest.raises(InvalidInput) as error:
        PLAIN.details(Given(email="doc", phone_number="letters"))

    assert [problem.path for problem in error.value.problems] == ["email", "phoneNumber"]


def test_one_bad_field_is_one_problem_even_if_the_other_is_absent() -> None:
    with pytest.raises(InvalidInput) as email:
        PLAIN.details(Given(email="doc"))
    with pytest.raises(InvalidInput) as phone_number:
        PLAIN.details(Given(email="null", phone_number="letters"))

    assert only_problem(email).path == "email"
    assert only_problem(phone_number).path == "phoneNumber"


def test_messages_never_repeat_the_value() -> None:
    with pytest.raises(InvalidInput) as error:
        PLAIN.details(Given(email="secret", phone_number="+1secret2"))
    ignored = PLAIN.details(Given(email="[object Object]", phone_number="123")).ignored

    assert "secret" not in error.value.message
    for email, phone_number in (
        ("secret,@secret.de", "777 777 777 / 777 777 778"),
        ("secret@-secret", "7.77E+11"),
        ("secret@secret\u2603", "7" * 16),
        ("secret\ufffd@x", "7777777/7777778"),
        ("<secret@x", "7,7"),
    ):
        with pytest.raises(InvalidInput) as error:
            PLAIN.details(Given(email=email, phone_number=phone_number))
        assert len(error.value.problems) == 2
        assert not {"secret", "77", "7.7", "7,7"} & {
            part for part in ("secret", "77", "7.7", "7,7") if part in error.value.message
        }
    assert ignored == (Ignored("email", "email is a word for a missing value; it counts as not given"),)


def test_identifiers_sort_by_kind_and_then_by_value() -> None:
    email = Identifier(EMAIL, "z@z")
    phone_number = Identifier(PHONE_NUMBER, "1")

    assert sorted([phone_number, email]) == [email, phone_number]


# What must hold for everything


def assert_settled(normalise: Callable[[object], str | None], given: object, longest: int = 254) -> None:
    """The value is refused as input, absent, or normalised for good."""
    try:
        value = normalise(given)
    except InvalidInput:
        return
    if value is not None:
        assert normalise(value) == value
        assert 0 < len(value) <= longest
        assert not set(value) & set(BLANKS)
        assert not any(unicodedata.category(char) in {"Cc", "Cs"} for char in value)


many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
any_character = st.characters(exclude_categories=[])
near_email = st.lists(
    st.sampled_from(
        [
            "@",
            "@",
            ".",
            "a",
            "Σ",
            "\u03b1",
            "\u0130",
            "\u212a",
            "\u1e9e",
            "\u0301",
            "\u0345",
            "\u3002",
            "xn--",
            "-",
        ]
    )
    | st.sampled_from([" ", "\u200d", "null", "\u00ad", "\uff20", "\u05d0", "\u0661", "é" * 60])
    | any_character,
    max_size=12,
).map("".join)
email_shaped = st.builds(
    "{}@{}{}".format, st.text(min_size=1), st.text(min_size=1), st.sampled_from(["", ".de", "\u3002DE"])
)
digits = st.text(st.sampled_from("0123456789") | st.characters(categories=["Nd"]), min_size=1, max_size=14)
phone_shaped = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "", "tel:", "TEL: ", " "]),
    st.sampled_from(["", "+", "00", "0", "000", "+0", "+1", "+91", "+44", "+49", "+39", "+54", "+55", "+521", "011"]),
    digits,
    st.sampled_from(["", "", "x", ";ext=", " ext. ", "EXT", "extension ", "xx", "x5x"]),
    st.just("") | digits,
)
near_phone = st.lists(
    st.sampled_from(
        ["tel:", "+", "0", "00", "1", "91", "234567", "x", ";ext=", "ext", "ension", "-", "(", " ", "\u200b"]
    )
    | any_character,
    max_size=12,
).map("".join)


@many
@given(near_email | email_shaped)
def test_normalising_an_email_twice_changes_nothing(text: str) -> None:
    assert_settled(PLAIN.email, text)


@many
@given(st.emails())
def test_every_email_of_rfc_5321_that_needs_no_quotes_is_accepted_in_lower_case(email: str) -> None:
    assert PLAIN.email(email) == email.lower()
    assert PLAIN.email(f" <MAILTO:{email}.> ") == email.lower()


@many
@given(st.text("ab1-_.!\u3002", min_size=1, max_size=8))
def test_a_domain_is_judged_alike_in_ascii_and_behind_an_international_label(domain: str) -> None:
    assert is_accepted(f"a@{domain}") == is_accepted(f"a@\u00fc.{domain}")


def is_accepted(email: str) -> bool:
    try:
        return PLAIN.email(email) is not None
    except InvalidInput:
        return False


@many
@given(st.integers(0, 2**53 - 1), st.sampled_from(NORMALISATIONS))
@example(9876543210, PLAIN)
@example(1511234567, Normalisation("DE"))
def test_a_whole_number_is_the_same_however_it_is_written(number: int, normalisation: Normalisation) -> None:
    plain = outcome(normalisation, str(number))

    assert outcome(normalisation, number) == plain
    assert outcome(normalisation, float(number)) == plain
    assert outcome(normalisation, f"{number}.0") == plain
    assert outcome(normalisation, f"{number}.000") == plain


def outcome(normalisation: Normalisation, phone_number: object) -> str | None:
    """The normalised number, or what is wrong with it."""
    try:
        return normalisation.phone_number(phone_number)
    except InvalidInput as refused:
        return refused.message


@many
@given(phone_shaped | near_phone, st.sampled_from((PLAIN, *map(Normalisation, sorted(REGIONS)))))
@example("00000123", PLAIN)
@example("+0049 30 1234567", Normalisation("DE"))
@example("0x5", Normalisation("DE"))
def test_normalising_a_phone_number_twice_changes_nothing(text: str, normalisation: Normalisation) -> None:
    assert_settled(normalisation.phone_number, text, longest=64)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(any_character),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@many
@given(anything, anything, st.sampled_from(NORMALISATIONS))
def test_whatever_is_given_is_accepted_or_refused_as_input(
    email: object, phone_number: object, normalisation: Normalisation
) -> None:
    assert_settled(normalisation.email, email)
    assert_settled(normalisation.phone_number, phone_number, longest=64)
    try:
        details = normalisation.details(Given(email=email, phone_number=phone_number))
    except InvalidInput as refused:
        names = [problem.path for problem in refused.problems]
    else:
        names = [str(identifier.kind) for identifier in details.identifiers]

    assert names in (
        ["root"],
        ["email"],
        ["phoneNumber"],
        ["email", "phoneNumber"],
        ["phone_number"],
        ["email", "phone_number"],
    )


@many
@given(email_shaped | near_email, phone_shaped, st.sampled_from(NORMALISATIONS))
def test_details_agree_with_the_single_fields(email: str, phone_number: str, normalisation: Normalisation) -> None:
    try:
        details = normalisation.details(Given(email=email, phone_number=phone_number))
    except InvalidInput:
        return
    assert columns_of(details.identifiers)[0] == normalisation.email(email)
    assert columns_of(details.identifiers)[1] == normalisation.phone_number(phone_number)
    assert details.raw == {"email": email, "phoneNumber": phone_number}
