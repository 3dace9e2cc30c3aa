"""Kinds of identifiers: what the setting may declare, how values are read, and which kind comes first."""

from __future__ import annotations

import json
import sys
import unicodedata
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from identity_graphql.app import create_app
from identity_graphql.domain.erasure import ERASED
from identity_graphql.domain.identifiers import BUILT_IN, Identifier
from identity_graphql.domain.kinds import NO_KINDS_DECLARED, Case, Kind, Kinds, OnLimit
from identity_graphql.domain.text import CONTROL
from identity_graphql.errors import ConfigurationError
from identity_graphql.settings import Settings

DESIGN = """
    {"customer_id": {"limit": 1, "on_limit": "withhold"}, "device_id": {"limit": 20}, "loyalty_card": {"case": "fold"}}
""".strip()

options_of_any: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"limit": st.integers(1, 3), "priority": st.integers(-2, 2)}
)
options_of_declared: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 3),
        "priority": st.integers(-2, 2),
        "case": st.sampled_from(list(Case)),
        "pattern": st.sampled_from(["[0-9]+", "(a|b)*", "ä\\pL"]),
    },
)


@st.composite
def settings(draw: st.DrawFn) -> dict[str, dict[str, object]]:
    names = draw(st.lists(st.sampled_from([*BUILT_IN, "a", "b2", "c_", "d", "e"]), unique=True))
    declared: dict[str, dict[str, object]] = {}
    for name in names:
        options = draw(options_of_any if name in BUILT_IN else options_of_declared)
        if "limit" in options:
            options |= draw(st.sampled_from([{}, {"on_limit": "alarm"}, {"on_limit": "withhold"}]))
        declared[name] = options
    return declared


def kind(**options: object) -> Kind:
    found = Kinds.parse(json.dumps({"code": options})).find("code")
    assert found is not None
    return found


def names(kinds: Kinds) -> list[str]:
    return [kind.name for kind in kinds.kinds]


# -- the setting


@pytest.mark.parametrize("text", ["", " \n", "{}", '{"email": {}}', '{"phone_number": {}, "email": {}}'])
def test_without_a_declaration_there_are_the_built_in_kinds_alone(text: str) -> None:
    kinds = Kinds.parse(text)

    assert kinds == NO_KINDS_DECLARED
    assert names(kinds) == list(BUILT_IN)
    assert (kinds.version, kinds.document) == ("", "{}")


def test_kinds_are_declared_with_their_options_and_found_by_name() -> None:
    kinds = Kinds.parse(DESIGN)

    assert kinds.kinds == (
        Kind("customer_id", limit=1, on_limit=OnLimit.WITHHOLD),
        Kind("email"),
        Kind("phone_number"),
        Kind("device_id", limit=20),
        Kind("loyalty_card", case=Case.FOLD),
    )
    assert kinds.find("device_id") == Kind("device_id", limit=20)
    assert kinds.find("handle") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("customer_id", "must be JSON such as"),
        ('{"a": {}', "must be JSON such as .* line 1 column"),
        ("[" * 100_000, "must be JSON such as"),
        ('{"a": {"limit": ' + "9" * 5000 + "}}", "must be JSON such as"),
        ('["customer_id"]', "must be a JSON object of names and options"),
        ("null", "must be a JSON object of names and options"),
        ('{"a": {}, "b": {}, "a": {"limit": 1}}', '"a" stands there twice'),
        ('{"a": {"limit": 1, "limit": 2}}', '"limit" stands there twice'),
        ('{"CustomerId": {}}', 'the name "CustomerId" must be 1 to 32 small letters'),
        ('{"1st": {}}', "begin with a letter"),
        ('{"": {}}', 'the name "" must be'),
        ('{"id\\n": {}}', r'the name "id\\n" must be'),
        (json.dumps({"a" * 33: {}}), "the name .* must be 1 to 32"),
        (json.dumps({f"k{n}": {} for n in range(65)}), "must declare at most 64 kinds, not 65"),
        ('{"a": 1}', "the options of a must be a JSON object"),
        ('{"a": null}', "the options of a must be a JSON object"),
        ('{"a": {"limt": 1}}', 'a has the unknown option "limt"; is limit meant[?]'),
        ('{"a": {"onLimit": "alarm"}}', "is on_limit meant[?]"),
        ('{"a": {"colour": 1}}', "there are limit, on_limit, case, pattern, priority"),
        ('{"a": {"limit": 0}}', "limit of a must be 1 or more"),
        ('{"a": {"limit": true}}', "limit of a must be a whole number"),
        ('{"a": {"limit": "1"}}', "limit of a must be a whole number, such as 1, without quotes"),
        ('{"a": {"limit": 1.0}}', "limit of a must be a whole number"),
        ('{"a": {"limit": NaN}}', "limit of a must be a whole number"),
        ('{"a": {"limit": null}}', "limit of a must be a whole number"),
        ('{"a": {"priority": false}}', "priority of a must be a whole number"),
        ('{"a": {"on_limit": "alarm"}}', "on_limit of a means nothing without a limit"),
        ('{"a": {"limit": 1, "on_limit": "block"}}', 'on_limit of a must be "alarm" or "withhold"'),
        ('{"a": {"case": "lower"}}', 'case of a must be "keep" or "fold"'),
        ('{"a": {"case": ["fold"]}}', 'case of a must be "keep" or "fold"'),
        ('{"email": {"case": "fold"}}', "email can have no case, as it is built in"),
        ('{"phone_number": {"pattern": "1"}}', "phone_number can have no pattern, as it is built in"),
        ('{"a": {"pattern": 1}}', "pattern of a must be a regular expression of 1 to 200 characters"),
        ('{"a": {"pattern": ""}}', "pattern of a must be a regular expression of 1 to 200 characters"),
        (json.dumps({"a": {"pattern": "a" * 201}}), "pattern of a must be a regular expression of 1 to 200 characters"),
        ('{"a": {"pattern": "("}}', r"pattern of a must be a regular expression of RE2 .*missing \)"),
        ('{"a": {"pattern": "(?=a)"}}', "pattern of a must be a regular expression of RE2 .*invalid perl operator"),
        ('{"a": {"pattern": "(a)\\\\1"}}', "pattern of a must be a regular expression of RE2 .*invalid escape"),
        ('{"a": {"pattern": "\\ud800"}}', "pattern of a must not contain unpaired surrogates"),
        ('{"a": {"pattern": "((\\\\pL{200}){2}){2}"}}', "RE2 that is not too large .*too large"),
        ('{"a": {"pattern": "((a{100}){100}){100}"}}', "RE2 that is not too large .*invalid repetition size"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_wrong_with_the_setting_is_said_in_a_sentence(
    text: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match=f"^IDENTIFIER_KINDS: .*{told}") as error:
        Kinds.parse(text)

    assert "\n" not in str(error.value)
    assert str(error.value).endswith((".", "?"))
    assert capfd.readouterr().err == "", "the engine of the patterns is silent"


def test_the_program_does_not_start_with_kinds_that_cannot_work(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/identity.db"

    create_app(Settings.model_validate({"database_url": url, "identifier_kinds": DESIGN}))
    with pytest.raises(ConfigurationError, match="IDENTIFIER_KINDS: limit of a must be"):
        create_app(Settings.model_validate({"database_url": url, "identifier_kinds": '{"a": {"limit": 0}}'}))


def test_the_setting_is_read_from_the_environment_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDENTIFIER_KINDS", DESIGN)
    assert Settings.load().identifier_kinds == DESIGN

    monkeypatch.delenv("IDENTIFIER_KINDS")
    (tmp_path / ".env").write_text(f"IDENTIFIER_KINDS={DESIGN}\n")
    assert Settings.load().identifier_kinds == DESIGN


# -- document and version


@given(settings())
def test_the_document_is_read_back_as_the_same_kinds(declared: dict[str, dict[str, object]]) -> None:
    kinds = Kinds.parse(json.dumps(declared))

    again = Kinds.parse(kinds.document)
    assert again == kinds
    assert (again.document, again.version) == (kinds.document, kinds.version)
    assert (kinds.version == "") == (kinds == NO_KINDS_DECLARED)


def test_kinds_that_mean_the_same_have_one_version_however_they_are_written() -> None:
    written = ['{"a": {"limit": 1}, "b": {}}', ' {"b":{"case":"keep"},"email":{},"a":{"on_limit":"alarm","limit":1}}']
    versions = {Kinds.parse(text).version for text in written}

    assert len(versions) == 1
    assert all(len(version) == 8 for version in versions)
    assert Kinds.parse('{"a": {"limit": 2}, "b": {}}').version not in versions
    assert Kinds.parse('{"a": {}, "b": {}}').version != Kinds.parse('{"b": {}, "a": {}}').version, "another order"


def test_kinds_that_others_read_by_other_rules_are_named() -> None:
    before = Kinds.parse('{"a": {"limit": 1}, "b": {"case": "fold"}, "c": {"pattern": "[0-9]+"}, "gone": {}}')
    now = Kinds.parse('{"a": {"limit": 2, "priority": 1}, "b": {}, "c": {}, "new": {"case": "fold"}}')

    assert now.read_otherwise(before) == ["b", "c"]
    assert before.read_otherwise(before) == []
    assert now.read_otherwise(NO_KINDS_DECLARED) == []


# -- order


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (DESIGN, ["customer_id", "email", "phone_number", "device_id", "loyalty_card"]),
        ('{"b": {}, "a": {}}', ["email", "phone_number", "b", "a"]),
        ('{"b": {"limit": 1}, "a": {"limit": 1}}', ["b", "a", "email", "phone_number"]),
        ('{"b": {"limit": 1}, "a": {"priority": 9}}', ["a", "b", "email", "phone_number"]),
        ('{"c": {"priority": 2}, "b": {"priority": -1}, "a": {"priority": 2}}', ["b", "c", "a", *BUILT_IN]),
        ('{"phone_number": {"limit": 1}, "a": {"limit": 1}}', ["phone_number", "a", "email"]),
        ('{"phone_number": {"limit": 5}, "email": {"limit": 5}}', ["email", "phone_number"]),
        ('{"phone_number": {"priority": 1}}', ["phone_number", "email"]),
    ],
)
def test_the_order_of_the_kinds_is_priority_then_limit_one_then_built_in_then_others(
    text: str, order: list[str]
) -> None:
    assert names(Kinds.parse(text)) == order


@given(settings(), st.lists(st.sampled_from(["email", "phone_number", "a", "b2", "gone", "lost"]), max_size=6))
def test_identifiers_are_ordered_by_kind_and_else_stay_as_they_come(
    declared: dict[str, dict[str, object]], given_kinds: list[str]
) -> None:
    kinds = Kinds.parse(json.dumps(declared))
    identifiers = [Identifier(kind, str(place)) for place, kind in enumerate(given_kinds)]

    known = [identifier for kind in names(kinds) for identifier in identifiers if identifier.kind == kind]
    unknown = [identifier for identifier in identifiers if kinds.find(identifier.kind) is None]
    assert kinds.ordered(iter(identifiers)) == (*known, *unknown)


# -- values


@pytest.mark.parametrize(
    ("options", "text", "value"),
    [
        ({}, " \u200b42\u00a0", "42"),
        ({}, "A b", "A b"),
        ({}, "e\u0301", "é"),
        ({}, "\uff11\uff12", "\uff11\uff12"),
        ({}, "\u3000", ""),
        ({}, "ERASED:1", "ERASED:1"),
        ({}, "x" * 254 + " ", "x" * 254),
        ({"case": "fold"}, "AB-12 Straße", "ab-12 strasse"),
        ({"case": "fold"}, "ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ({"case": "fold", "pattern": "[a-z]{2}[0-9]+"}, "AB12", "ab12"),
        ({"pattern": "[0-9]+"}, " ", ""),
        ({"pattern": "\\pL+"}, "Åse", "Åse"),
    ],
)
def test_a_value_is_trimmed_and_in_one_form(options: dict[str, object], text: str, value: str) -> None:
    assert kind(**options).normalised(text) == value


@pytest.mark.parametrize(
    ("options", "text", "why"),
    [
        ({}, "x" * 255, "must have at most 254 characters"),
        ({"case": "fold"}, "ß" * 128, "must have at most 254 characters"),
        ({}, f" {ERASED}1", "must not begin with erased:"),
        ({"case": "fold"}, "Erased:1", "must not begin with erased:"),
        ({"pattern": "[0-9]+"}, "12a", "must match the pattern"),
        ({"pattern": "[0-9]+"}, "12\n1", "must match the pattern"),
        ({"pattern": "a|ab"}, "abc", "must match the pattern"),
        ({"case": "fold", "pattern": "[A-Z]+"}, "AB", "must match the pattern"),
    ],
)
def test_a_value_that_cannot_be_one_is_refused_with_the_reason(options: dict[str, object], text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind(**options).normalised(text)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*b", "(.*a){20}b", "b|(a|aa)+"])
def test_a_pattern_takes_linear_time_whatever_it_is(pattern: str) -> None:
    """An engine that backtracks would not come back from these in a lifetime."""
    with pytest.raises(ValueError, match="must match the pattern"):
        kind(pattern=pattern).normalised("a" * 253 + "!")


def test_a_pattern_may_have_all_letters_as_often_as_a_value_has_characters() -> None:
    assert kind(pattern=r"[\pL\pN._-]{1,254}").normalised("é" * 254) == "é" * 254


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=80).filter(lambda text: not CONTROL.search(text))


@given(words, st.sampled_from(Case))
@example("\u0345\u0301", Case.FOLD)
@example("\u1fb3\u0300", Case.FOLD)
@example("\u034f\u0301 a", Case.FOLD)
def test_normalising_what_is_normalised_changes_nothing(text: str, case: Case) -> None:
    try:
        value = Kind("code", case=case).normalised(text)
    except ValueError:
        return
    assert Kind("code", case=case).normalised(value) == value
    assert unicodedata.is_normalized("NFC", value)


def test_no_character_of_unicode_is_normalised_twice_or_to_nothing_else_by_its_capital() -> None:
    folding = Kind("code", case=Case.FOLD)
    texts = [char for char in map(chr, range(sys.maxunicode + 1)) if not CONTROL.search(char)]
    marks = ["\u0301", "\u0345", "\u0308", "\u1fbe", "I"]
    texts += [a + b + c for a, b, c in product(["\u03b1", "\u1f80", "ǰ", "\u0130", *marks], marks, marks)]
    for text in texts:
        value = folding.normalised(text)
        assert folding.normalised(value) == value, ascii(text)
        assert folding.normalised(unicodedata.normalize("NFD", text)) == value, ascii(text)
