"""Escape external text in Markdown, and convert Markdown to one HTML file."""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from collections.abc import Mapping

__all__ = ["STYLE", "as_markdown", "html_page"]

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left}
img{max-width:100%}code{background:#f3f3f3;padding:0 .2em}li{margin:.3rem 0}li,code{overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#555}code{background:#2a2a2a}
img{background:#fff}}"""

ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
# An underscore inside a word is not markup.
SIGNS = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)")


def as_markdown(text: object) -> str:
    """Return Markdown that shows the text literally on one line, without markup, HTML or table cells.

    Args:
        text: converted with `str` if necessary. Control characters and bytes that are not text become escapes such as
            `\\x1b`.
    """
    line = "".join(
        ascii(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Cs") else sign
        for sign in " ".join(str(text).split())
    )
    marked = SIGNS.sub(lambda match: f"\\{match[0]}", line)
    return "".join(ENTITIES.get(sign, sign) for sign in marked)


def html_page(title: str, text: str, pictures: Mapping[str, bytes] | None = None) -> str:
    """Return Markdown as one self-contained HTML page.

    Args:
        title: title of the page.
        text: Markdown with tables; HTML in it is escaped.
        pictures: name -> content of PNG files; images that the text links to by name are embedded in the page.

    Raises:
        ImportError: if markdown-it-py is not installed, with the command that installs it.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ImportError(
            "Reports need markdown-it-py, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for name, picture in (pictures or {}).items():
        content = base64.b64encode(picture).decode()
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{content}"')
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n'
    )
