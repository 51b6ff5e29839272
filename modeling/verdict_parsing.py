"""What a generated text says: real, fake, or neither."""

import re

__all__ = ["PARSERS", "parse_verdict"]

PARSERS = ("official", "word")
REAL_WORD = re.compile(r"\b(real|authentic|genuine)\b", re.IGNORECASE)
FAKE_WORD = re.compile(r"\b(fake|faked|computer-generated|manipulated|forged|synthetic)\b", re.IGNORECASE)


def parse_verdict(text: str, parser: str = "word") -> str | None:
    """`"real"`, `"fake"` or `None`.

    Args:
        text: the answer.
        parser: `"official"` is M2F2-Det's published rule: contains "real" -> real, else contains "fake" or
            "computer-generated" -> fake ("unrealistic" counts as real); `"word"` looks for whole words and gives
            `None` where both kinds or neither occur.

    Raises:
        ValueError: for another parser.
    """
    if parser == "official":
        lowered = text.lower()
        if "real" in lowered:
            return "real"
        return "fake" if "fake" in lowered or "computer-generated" in lowered else None
    if parser != "word":
        raise ValueError(f"parser is {parser!r}, allowed are {', '.join(map(repr, PARSERS))}.")
    real, fake = REAL_WORD.search(text), FAKE_WORD.search(text)
    if bool(real) == bool(fake):
        return None
    return "real" if real else "fake"
