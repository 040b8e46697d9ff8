"""Text from files made safe to show: characters that steer a terminal or reorder a line are spelled out."""

from __future__ import annotations

import re
import unicodedata

_LONG = re.compile(r"(\S{200})\S{200,}(\S{100})")
_UNUSUAL = re.compile(r"[^ -~]")
_LAYOUT = "\n\t"
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format, surrogate, line and paragraph separators


def printable(text: str) -> str:
    r"""The text with control and format characters as escapes; line feeds and tabs stay.

    >>> print(printable("w\x1b[31m, \u202eb, größe"))
    w\x1b[31m, \u202eb, größe
    """
    if text.isprintable():
        return text
    return _UNUSUAL.sub(_spelled, text)


def shortened(text: str) -> str:
    """The text with very long names cut in the middle.

    >>> len(shortened("name " + 100_000 * "n"))
    306
    """
    return _LONG.sub(r"\1…\2", text)


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    if character in _LAYOUT or unicodedata.category(character) not in _STEERING:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
