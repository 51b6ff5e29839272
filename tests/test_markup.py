"""Names of files inside Markdown are shown as they are."""

import pytest
from markdown_it import MarkdownIt

from deepfake_detectors.markup import as_markdown

NAMES = ["<script>alert(1)</script>", "a|b", "`x`", "*a* _b_", "[x](javascript:1)", "a&lt;b", "plain_name-c23", "\\"]


@pytest.mark.parametrize("name", NAMES)
def test_text_survives_and_nothing_else_arises(name):
    page = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = page.parse(f"| a |\n| --- |\n| {as_markdown(name)} |\n")
    cell = tokens[next(place for place, token in enumerate(tokens) if token.type == "td_open") + 1]
    assert {token.type for token in cell.children} <= {"text", "text_special"}
    assert "".join(token.content for token in cell.children) == name
    assert "<" not in as_markdown(name)


def test_control_signs_and_lines():
    assert as_markdown("a\n# b") == "a # b"
    assert as_markdown("\x1b[31m") == r"\\x1b\[31m"
    as_markdown("\udcff").encode()
