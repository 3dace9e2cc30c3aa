"""What identifiers of every kind have in common: which characters say nothing, and which are the same."""

from __future__ import annotations

import re
import unicodedata

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text may contain: control characters (but tab and newline, which are blanks) and lone surrogates."""

BLANKS = "\t\n\r \u00a0\u061c\u1680\u180e\u3000\ufeff" + "".join(
    chr(code)
    for first, last in ((0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064), (0x2066, 0x2069))
    for code in range(first, last + 1)
)
"""What copying and pasting brings along: all that separates (Zs, Zl, Zp, tab, newline) or has no width."""

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


def folded(text: str) -> str:
    """Returns the text in NFC, in characters of ordinary width, without blanks around it."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_WIDTHS))
    return text.strip(BLANKS)
