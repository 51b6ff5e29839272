"""What an answer of FakeVLM says: the published rule, and a stricter one."""

import random
import re

__all__ = ["UNDETERMINED", "UNDETERMINED_POLICIES", "VERDICT_RULES", "parse_fakevlm_verdict"]

UNDETERMINED = "undetermined"
VERDICT_RULES = ("official", "strict")
UNDETERMINED_POLICIES = ("keep", "error", "fake", "random")

SENTENCE = re.compile(r"\bthis\s+is\s+an?\s+(real|fake)\s+image\b", re.IGNORECASE)
WORD = re.compile(r"\b(real|fake)\b", re.IGNORECASE)


def parse_fakevlm_verdict(
    text: str, rule: str = "official", *, holds_prompt: bool = False, undetermined: str = "keep"
) -> str:
    """`"real"`, `"fake"` or `"undetermined"`.

    Args:
        text: the answer.
        rule: `"official"` is the published code: the first sentence (text up to a full stop) that contains "real",
            else "fake", of the first two ("not real" and "unrealistic" count as real). `"strict"` takes what "this
            is a real/fake image" says, else the whole words; where both kinds occur, nothing is determined.
        holds_prompt: `text` is prompt and answer, as the official Hugging Face script decodes it; only what follows
            its last question mark counts.
        undetermined: `"keep"` it as a class of its own (to be counted as wrong); raise an `"error"`; call it
            `"fake"`; or draw at `"random"`, as the published code does.

    Raises:
        ValueError: for another rule or policy, or for an undetermined text under `"error"`.
    """
    if rule not in VERDICT_RULES:
        raise ValueError(f"verdict_rule is {rule!r}, allowed are {', '.join(map(repr, VERDICT_RULES))}.")
    if undetermined not in UNDETERMINED_POLICIES:
        raise ValueError(
            f"undetermined is {undetermined!r}, allowed are {', '.join(map(repr, UNDETERMINED_POLICIES))}."
        )
    if holds_prompt:
        text = text.split("?")[-1]
    verdict = _official(text) if rule == "official" else _strict(text)
    if verdict != UNDETERMINED or undetermined == "keep":
        return verdict
    if undetermined == "error":
        raise ValueError(f"The answer says neither real nor fake: {text[:200]!r}")
    return "fake" if undetermined == "fake" else random.choice(("real", "fake"))


def _official(text: str) -> str:
    for sentence in text.split(".")[:2]:
        for verdict in ("real", "fake"):
            if verdict in sentence.lower():
                return verdict
    return UNDETERMINED


def _strict(text: str) -> str:
    for pattern in (SENTENCE, WORD):
        found = {word.lower() for word in pattern.findall(text)}
        if found:
            return found.pop() if len(found) == 1 else UNDETERMINED
    return UNDETERMINED
