"""Emails: from what people write to one form. The rules are numbered in decision 0016, and amended in 0022."""

from __future__ import annotations

import re
import unicodedata

import idna

from identity_graphql.domain.text import BLANK, BLANKS

_LONGEST = 254

# What the email field of a web form takes (WHATWG HTML), and anything printable outside ASCII (RFC 6531)
_ASCII_SIGN = r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]"
_LOCAL_PART = re.compile(rf"(?:{_ASCII_SIGN}|[^\x00-\x7f\ufffd])+")

# RFC 1123, and the underscore that names of real hosts have
_ASCII_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_LABEL = re.compile(_ASCII_LABEL)

_ASCII_EMAIL = re.compile(rf"{_ASCII_SIGN}+@{_ASCII_LABEL}(?:\.{_ASCII_LABEL})*(?<!_)")

_MAILTO = re.compile("^mailto:(?://)?")


def normalised_email(text: str) -> str:
    """Returns the email in a folded text. Raises ValueError, which says what is wrong."""
    text = unicodedata.normalize("NFC", text.lower())
    # Nearly all are so, and one look at them is enough.
    if _ASCII_EMAIL.fullmatch(text) and len(text) <= _LONGEST and "xn--" not in text:
        return text
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1].strip(BLANKS)
    text = _MAILTO.sub("", text).strip(BLANKS)

    if BLANK.search(text) or not text.isprintable():
        raise ValueError("must not contain blanks or invisible characters")
    if "," in text or ";" in text:
        raise ValueError("must be one address, without a comma or semicolon in it or behind it")
    local_part, _, domain = text.partition("@")
    if not local_part or not domain or "@" in domain:
        raise ValueError("must have exactly one @, with something on both sides of it")
    if not _LOCAL_PART.fullmatch(local_part):
        raise ValueError("must have only letters, digits and .!#$%&'*+/=?^_`{|}~- before the @")
    email = f"{local_part}@{_ascii_domain(domain)}"
    if len(email) > _LONGEST:
        raise ValueError(f"must have at most {_LONGEST} characters")
    return email


def _ascii_domain(domain: str) -> str:
    """The domain as it stands in the DNS, without the dot of the root. The same rule for each label of any script."""
    try:
        if not domain.isascii():
            domain = idna.uts46_remap(domain, std3_rules=False)
        labels = [_ascii_label(label) for label in domain.removesuffix(".").split(".")]
    except UnicodeError:
        raise ValueError("has a domain that is not a valid international domain name") from None
    if not all(map(_LABEL.fullmatch, labels)) or labels[-1].endswith("_"):
        raise ValueError(
            "has a domain that cannot be one: between its dots must be 1 to 63 letters, digits, - or _, "
            "with no - at either end, and no _ at the end of all"
        )
    return ".".join(labels)


def _ascii_label(label: str) -> str:
    return label if label.isascii() and not label.startswith("xn--") else idna.alabel(label).decode()
