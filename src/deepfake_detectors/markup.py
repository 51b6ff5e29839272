"""Pages for readers: text from elsewhere inside Markdown, and Markdown as one HTML file."""

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


def html_page(title: str, text: str, pictures: Mapping[str, bytes] | None = None) -> str:
    """Return Markdown as one HTML page that loads nothing from elsewhere.

    Args:
        title: of the page.
        text: Markdown with tables; HTML in it is shown, not obeyed.
        pictures: name -> content of PNG files; where the text links to one by its name, it stands in the page.

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
