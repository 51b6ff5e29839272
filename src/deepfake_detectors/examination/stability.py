"""Check whether the verdict survives re-encoding by sharing; if not, it is inconclusive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepfake_detectors.corruptions import Corruption
from deepfake_detectors.examination.conclusion import deciding
from deepfake_detectors.examination.decision import INCONCLUSIVE

__all__ = ["apply_stability"]


def apply_stability(found: dict[str, Any], changed: Sequence[tuple[Corruption, Mapping[str, Any]]]) -> dict[str, Any]:
    """Compare the conclusion with those for re-encoded copies; a flip becomes inconclusive.

    A reading flips if its decision changes or, without a decision band, if its label changes. A copy that can no
    longer be scored, for example because a face is not found, is not a flip.

    Args:
        found: output of `conclude`; flipped readings and the deciding one are changed in place.
        changed: corruption -> conclusion for the altered frames.

    Returns:
        The entry for the record: `variants`, each with `name`, `steps` in words and `readings` (`head`,
        `fake_probability`, `label`, `decision`, `flipped`), and `flips`, the number of variants that flip a reading.
    """
    readings = found["readings"]
    variants: list[dict[str, Any]] = []
    flipped: dict[int, list[str]] = {}
    for corruption, other in changed:
        entries: list[dict[str, Any]] = []
        for number, (before, after) in enumerate(zip(readings, other["readings"], strict=True)):
            flips = _flips(before, after)
            if flips:
                flipped.setdefault(number, []).append(
                    f"{corruption.name} {before['fake_probability']:.3f} to {after['fake_probability']:.3f}"
                )
            kept = {key: after[key] for key in ("head", "fake_probability", "label", "decision")}
            entries.append({**kept, "flipped": flips})
        variants.append({"name": corruption.name, "steps": corruption.describe(), "readings": entries})
    for number, named in flipped.items():
        said = readings[number]
        was = said["label"] if said["decision"] is None else said["decision"]
        said["decision"] = INCONCLUSIVE
        said["reason"] = (
            f"the verdict “{was}” does not survive re-encoding: {len(named)} of {len(variants)} copies change it "
            "(P(fake) "
            f"after {', '.join(named)})"
        )
    found |= deciding(readings)
    return {
        "variants": variants,
        "flips": sum(any(entry["flipped"] for entry in variant["readings"]) for variant in variants),
    }


def _flips(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    if before["fake_probability"] is None or after["fake_probability"] is None or before["decision"] == INCONCLUSIVE:
        return False
    key = "label" if before["decision"] is None else "decision"
    return before[key] != after[key]
