"""What identifiers of every kind have in common: which characters say nothing, and which are the same."""

from __future__ import annotations

import re
import unicodedata

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text may contain: control characters (but tab and newline, which are blanks) and lone surrogates."""

BLANKS = "\t\n\r \u00a0\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e\u2800\u3000\u3164\ufeff\uffa0" + "".join(
    chr(code)
    for first, last in ((0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064), (0x2066, 0x2069))
    for code in range(first, last + 1)
)
"""What copying and pasting brings along: all that separates (Zs, Zl, Zp, tab, newline), has no width, or is a letter
or sign that shows nothing (Default_Ignorable_Code_Point, and the empty Braille pattern). The rest is not printable."""

BLANK = re.compile(f"[{BLANKS}]")

WIDE_BLOCKS = ((0xFE50, 0xFE6F), (0xFF00, 0xFFEF))  # small form variants; half-width and full-width forms

_WIDTHS = str.maketrans(
    {
        char: unicodedata.normalize("NFKC", char)
        for first, last in WIDE_BLOCKS
        for char in map(chr, range(first, last + 1))
        if unicodedata.decomposition(char).startswith(("<wide>", "<narrow>", "<small>"))
    }
)
"""As the width mapping of RFC 8265: what an East Asian keyboard types is what another one does."""

_VARIATION_SELECTORS = dict.fromkeys((0x180B, 0x180C, 0x180D, 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
"""They choose how the character before them is drawn: keyboards for emoji and for Japanese names send them."""

_FOLDED = _WIDTHS | _VARIATION_SELECTORS


def folded(text: str) -> str:
    """Returns the text in NFC, in characters of ordinary width, without variation selectors and blanks around it."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_FOLDED))
    return text.strip(BLANKS)
