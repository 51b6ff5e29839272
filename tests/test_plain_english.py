"""What a user reads is plain English: phrases that were found stiff once do not come back."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "modeling", "dataset_scripts", "train", "hub_cards", "examples", ".ci")
TEXTS = {".jinja", ".md", ".toml", ".yaml", ".yml", ".html", ".js"}

# Files whose words are quoted from official code, so that they may not be changed.
QUOTED = {
    "modeling/prompting_m2f2_det.py": "prompts of the official M2F2-Det code",
    "modeling/prompting_fakevlm.py": "prompts of the official FakeVLM code",
    "dataset_scripts/_ddvqa_questions.py": "questions of the official DD-VQA files",
}

# A stiff phrase, and what to write instead.
PHRASES = {
    # word order
    r"(?<!there )(?<!There )\b(?:is|are|was|were) no (?!longer|more|less|better|one\b)": "is not a, does not have a",
    r"\b(?:holds?|names?|knows?|lists?|gives?|takes?|needs?|carr(?:y|ies)|writes?|finds?|asks?|bears?|reads?) no\b": (
        "does not contain, does not have, does not need"
    ),
    r"\b(?:holds?|names?|knows?|gives?|takes?|writes?|asks?|reads?) none\b": "does not have any",
    r"\bneed not\b": "does not have to",
    r"\b(?:is|are) of (?:one|another|no|any|this|that|both|several)\b": "has, belongs to",
    r"\bnothing of\b": "none of, not any",
    r"\bof no use\b": "ignored, unsupported",
    r"\bof no [a-z]+\b": "without a",
    r"\bin no (?!case|particular)[a-z]+\b": "not in any",
    # words
    r"\bshall\b": "must, should",
    r"\bought\b": "should",
    r"\brightly\b": "correctly",
    r"\bhow probable\b": "the probability",
    r"\b(?:where|there)(?:of|by|in|from|with|upon)\b": "of which, so that",
    r"\b(?:anew|aught|nought|hence|likewise|whence|thence|upon)\b": "again, so, too, on",
    r"\bbesides\b": "also",
    r"\bbe had\b": "be available",
    r"\bthe like\b": "similar",
    r"\bis wanting\b": "is missing",
    r"\bhow (?:probable|likely) it is\b": "the probability of",
    r"\b[Dd]ata[- ]sets?\b": "dataset",
    r"\bpicture's name\b": "file name of an image",
    r"\b(?:say|says|said) of (?:an?|the|each|every|it|its|itself)\b": "say about",
    r"\b[Cc]ontrol (?:and direction )?signs?\b": "control characters",
    r"\bhalves of pairs?\b": "unpaired surrogates",
    r"\bin another way\b": "differently",
    r"\bas often as\b": "as many times as",
    r"\b(?:is|are) asked for\b": "is requested",
    r"\bfrom which on\b": "the threshold from which",
    r"\b(?:was|were|is|are) not said\b": "was not given",
    r"\bnobody (?:said|says|asked)\b": "not given",
    r"\ball that is\b": "everything that is",
    r"\b[Oo]f whatever\b": "of any",
    r"\bjudged? (?:right|wrong)ly\b": "classified correctly",
}


def read_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of everything in a file that is written for people."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, source
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@cache
def all_texts() -> list[tuple[str, int, str]]:
    """Return file, line and text of everything that a user of the package may read."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    paths = [path for path in paths if path.suffix in TEXTS | {".py"} and "egg-info" not in str(path)]
    paths += [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml")]
    names = {path: path.relative_to(ROOT).as_posix() for path in paths}
    return [
        (name, line, re.sub(r"\s*\n\s*(?:#\s)?", " ", text))
        for path, name in names.items()
        if name not in QUOTED and path.is_file()
        for line, text in read_texts(path)
    ]


@pytest.mark.parametrize("phrase", PHRASES)
def test_stiff_phrases_do_not_come_back(phrase):
    pattern = re.compile(phrase)
    found = [
        f"{name}:{line}: …{text[max(0, match.start() - 50) : match.end() + 30]}…"
        for name, line, text in all_texts()
        for match in pattern.finditer(text)
    ]
    assert not found, f"write {PHRASES[phrase]!r} instead:\n" + "\n".join(found)


def test_every_kind_of_text_is_read(tmp_path):
    code = '"""A docstring."""\nx = f"an {1} f-string"\nraise ValueError("an " "error")  # a comment\n'
    (tmp_path / "a.py").write_text(code, encoding="utf-8")
    (tmp_path / "a.md").write_text("A page.\n", encoding="utf-8")
    assert {text for _, text in read_texts(tmp_path / "a.py")} >= {"A docstring.", "an {} f-string", "an error"}
    assert "# a comment" in {text for _, text in read_texts(tmp_path / "a.py")}
    assert [text for _, text in read_texts(tmp_path / "a.md")] == ["A page.\n"]
    assert {name.split("/")[0] for name, _, _ in all_texts()} >= set(FOLDERS)


@pytest.mark.parametrize("name", QUOTED)
def test_quoted_files_exist(name):
    assert (ROOT / name).is_file()
