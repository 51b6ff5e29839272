"""How the published scorers of FakeVLM and LVLM-DFD read a verdict out of a text, with their defects."""

from __future__ import annotations

import random
from collections.abc import Sequence

from deepfake_detectors.modeling.verdict_parsing import UNDETERMINED, parse_answer, parse_fakevlm_verdict

__all__ = ["fakevlm_verdict", "lvlm_dfd_verdicts", "with_coin"]


def fakevlm_verdict(text: str, holds_prompt: bool = False) -> str | None:
    """`"real"`, `"fake"` or `None`, where the published code throws a coin.

    The first of the first two sentences (text up to a full stop) that contains "real", else "fake", decides; "not
    real" and "unrealistic" are read as real.

    Args:
        text: the answer.
        holds_prompt: `text` is prompt and answer; only what follows its last question mark counts.
    """
    verdict = parse_fakevlm_verdict(text, "official", holds_prompt=holds_prompt)
    return None if verdict == UNDETERMINED else verdict


def with_coin(verdicts: Sequence[str | None], seed: int = 0) -> list[str]:
    """Replace every `None` by a coin toss, as FakeVLM's code does; here the same seed gives the same coins."""
    generator = random.Random(seed)
    return [verdict if verdict is not None else generator.choice(("fake", "real")) for verdict in verdicts]


def lvlm_dfd_verdicts(texts: Sequence[str]) -> list[str | None]:
    """Read the answers of LVLM-DFD in their order: six case-sensitive searches for substrings, the last hit decides.

    An answer without a hit has the verdict of the picture before it; the published code stops with an error where
    the first answer has none, for which this gives `None`.
    """
    verdicts: list[str | None] = []
    current: str | None = None
    for text in texts:
        current = parse_answer(text, "legacy") or current
        verdicts.append(current)
    return verdicts
