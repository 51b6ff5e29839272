"""Text from elsewhere, such as file names, inside Markdown."""

from __future__ import annotations

import unicodedata

__all__ = ["as_markdown"]

SIGNS = "\\`*_[]<>|"


def as_markdown(text: object) -> str:
    """Return a text as Markdown that shows it as it is: no markup, no HTML, no table cells of its own, on one line.

    Args:
        text: anything; what is not a string is written as `str` does it. Control signs and bytes that are not text
            become escapes such as `\\x1b`.
    """
    line = " ".join(str(text).split())
    return "".join(_shown(sign) for sign in line)


def _shown(sign: str) -> str:
    if unicodedata.category(sign) in ("Cc", "Cs"):
        return "\\" + ascii(sign)[1:-1]
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(sign) or (f"\\{sign}" if sign in SIGNS else sign)
