"""What an answer of LVLM-DFD says: real, fake, or neither."""

import re

__all__ = ["ANSWER_MODES", "parse_answer"]

ANSWER_MODES = ("robust", "legacy")
LEADING = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
WORD = re.compile(
    r"\b(?:(?P<real>pristine|real|authentic|genuine)|(deepfakes?|fake|faked|manipulated|forged))\b", re.I
)
NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|cannot)\b|n['’]t\b", re.I)
# A negation reaches over at most so many words of its own clause.
REACH = 4


def parse_answer(text: str, mode: str = "robust") -> str | None:
    """`"real"`, `"fake"` or `None`.

    Args:
        text: the answer to "Is this a deepfake image?".
        mode: `"robust"` takes a leading yes or no, else what the whole words "pristine", "deepfake" and the like say
            together with a "not" in front of them, and gives `None` where they contradict each other or are absent;
            `"legacy"` is the published rule: six case-sensitive substring tests, of which the last to hold wins
            ("not" also inside "another", "No" inside "Nose").

    Raises:
        ValueError: for another mode.
    """
    if mode == "legacy":
        return _legacy(text)
    if mode != "robust":
        raise ValueError(f"mode is {mode!r}, allowed are {', '.join(map(repr, ANSWER_MODES))}.")
    if leading := LEADING.match(text):
        return "fake" if leading[1].lower() == "yes" else "real"
    verdicts = set()
    for word in WORD.finditer(text):
        clause = re.split(r"[.,;:!?]", text[: word.start()])[-1]
        negated = NEGATION.search(" ".join(clause.split()[-REACH:])) is not None
        verdicts.add("real" if (word["real"] is not None) != negated else "fake")
    return verdicts.pop() if len(verdicts) == 1 else None


def _legacy(text: str) -> str | None:
    verdict = None
    for words, says in (
        (("pristine",), "real"),
        (("not", "pristine"), "fake"),
        (("deepfake",), "fake"),
        (("not", "deepfake"), "real"),
        (("Yes",), "fake"),
        (("No",), "real"),
    ):
        if all(word in text for word in words):
            verdict = says
    return verdict
