"""Text from elsewhere, such as file names, inside Markdown."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["as_markdown"]

ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
# Inside a word, an underscore is not markup.
SIGNS = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)")


def as_markdown(text: object) -> str:
    """Return a text as Markdown that shows it as it is, on one line: no markup, no HTML, no table cells of its own.

    Args:
        text: what is not a string is written as `str` does it. Control signs and bytes that are not text become
            escapes such as `\\x1b`.
    """
    line = "".join(
        ascii(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Cs") else sign
        for sign in " ".join(str(text).split())
    )
    marked = SIGNS.sub(lambda match: f"\\{match[0]}", line)
    return "".join(ENTITIES.get(sign, sign) for sign in marked)
