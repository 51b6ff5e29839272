"""Parse generated answers: real, fake, or neither. Every family has its published rule and a stricter one."""

import random
import re

__all__ = [
    "ANSWER_MODES",
    "PARSERS",
    "UNDETERMINED",
    "UNDETERMINED_POLICIES",
    "VERDICT_RULES",
    "parse_answer",
    "parse_fakevlm_verdict",
    "parse_verdict",
]

# M2F2-Det and AntifakePrompt
PARSERS = ("official", "word")
REAL_WORD = re.compile(r"\b(real|authentic|genuine)\b", re.IGNORECASE)
FAKE_WORD = re.compile(r"\b(fake|faked|computer-generated|manipulated|forged|synthetic)\b", re.IGNORECASE)

# FakeVLM
UNDETERMINED = "undetermined"
VERDICT_RULES = ("official", "strict")
UNDETERMINED_POLICIES = ("keep", "error", "fake", "random")
SENTENCE = re.compile(r"\bthis\s+is\s+an?\s+(real|fake)\s+image\b", re.IGNORECASE)
REAL_OR_FAKE = re.compile(r"\b(real|fake)\b", re.IGNORECASE)

# LVLM-DFD
ANSWER_MODES = ("robust", "legacy")
LEADING = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
SAYING = re.compile(
    r"\b(?:(?P<real>pristine|real|authentic|genuine)|(deepfakes?|fake|faked|manipulated|forged))\b", re.I
)
NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|cannot)\b|n['’]t\b", re.I)
# Maximum number of words of its clause that a negation applies to.
REACH = 4


def parse_verdict(text: str, parser: str = "word") -> str | None:
    """`"real"`, `"fake"` or `None`.

    Args:
        text: the answer.
        parser: `"official"` is M2F2-Det's published rule: contains "real" -> real, else contains "fake" or
            "computer-generated" -> fake ("unrealistic" counts as real); `"word"` looks for whole words and returns
            `None` if both kinds or neither occur.

    Raises:
        ValueError: for an unknown parser.
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


def parse_fakevlm_verdict(
    text: str, rule: str = "official", *, holds_prompt: bool = False, undetermined: str = "keep"
) -> str:
    """`"real"`, `"fake"` or `"undetermined"`.

    Args:
        text: the answer.
        rule: `"official"` is the published code: the first sentence (text up to a full stop) that contains "real",
            else "fake", of the first two ("not real" and "unrealistic" count as real). `"strict"` uses "this is a
            real/fake image" if present, otherwise whole words; if both kinds occur, the answer is undetermined.
        holds_prompt: `text` includes the prompt, as decoded by the official Hugging Face script; only the part after
            its last question mark counts.
        undetermined: `"keep"` it as a separate class (counted as wrong); raise an `"error"`; treat it as `"fake"`; or
            draw at `"random"`, as the published code does.

    Raises:
        ValueError: for an unknown rule or policy, or for an undetermined text with `"error"`.
    """
    if rule not in VERDICT_RULES:
        raise ValueError(f"verdict_rule is {rule!r}, allowed are {', '.join(map(repr, VERDICT_RULES))}.")
    if undetermined not in UNDETERMINED_POLICIES:
        raise ValueError(
            f"undetermined is {undetermined!r}, allowed are {', '.join(map(repr, UNDETERMINED_POLICIES))}."
        )
    if holds_prompt:
        text = text.split("?")[-1]
    verdict = _fakevlm_official(text) if rule == "official" else _fakevlm_strict(text)
    if verdict != UNDETERMINED or undetermined == "keep":
        return verdict
    if undetermined == "error":
        raise ValueError(f"The answer says neither real nor fake: {text[:200]!r}")
    return "fake" if undetermined == "fake" else random.choice(("real", "fake"))


def _fakevlm_official(text: str) -> str:
    for sentence in text.split(".")[:2]:
        for verdict in ("real", "fake"):
            if verdict in sentence.lower():
                return verdict
    return UNDETERMINED


def _fakevlm_strict(text: str) -> str:
    for pattern in (SENTENCE, REAL_OR_FAKE):
        found = {word.lower() for word in pattern.findall(text)}
        if found:
            return found.pop() if len(found) == 1 else UNDETERMINED
    return UNDETERMINED


def parse_answer(text: str, mode: str = "robust") -> str | None:
    """`"real"`, `"fake"` or `None`.

    Args:
        text: the answer to "Is this a deepfake image?".
        mode: `"robust"` uses a leading yes or no, otherwise whole words such as "pristine" and "deepfake" with a
            possible "not" before them, and returns `None` if they contradict each other or are absent; `"legacy"` is
            the published rule: six case-sensitive substring tests, of which the last match wins ("not" also inside
            "another", "No" inside "Nose").

    Raises:
        ValueError: for an unknown mode.
    """
    if mode == "legacy":
        return _lvlm_dfd_legacy(text)
    if mode != "robust":
        raise ValueError(f"mode is {mode!r}, allowed are {', '.join(map(repr, ANSWER_MODES))}.")
    if leading := LEADING.match(text):
        return "fake" if leading[1].lower() == "yes" else "real"
    verdicts = set()
    for word in SAYING.finditer(text):
        clause = re.split(r"[.,;:!?]", text[: word.start()])[-1]
        negated = NEGATION.search(" ".join(clause.split()[-REACH:])) is not None
        verdicts.add("real" if (word["real"] is not None) != negated else "fake")
    return verdicts.pop() if len(verdicts) == 1 else None


def _lvlm_dfd_legacy(text: str) -> str | None:
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
