"""Official checkpoints in, folders that `from_pretrained` loads out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepfake_detectors.conversion.antifakeprompt import convert_antifakeprompt
from deepfake_detectors.conversion.fakevlm import convert_fakevlm
from deepfake_detectors.conversion.imagebind import convert_imagebind
from deepfake_detectors.conversion.lvlm_dfd import convert_lvlm_dfd
from deepfake_detectors.conversion.m2f2_det import convert_m2f2_det
from deepfake_detectors.conversion.output_folder import written_whole

__all__ = ["CONVERTERS", "check_request", "convert"]

CONVERTERS: dict[str, Callable[..., None]] = {
    "antifakeprompt": convert_antifakeprompt,
    "fakevlm": convert_fakevlm,
    "imagebind": convert_imagebind,
    "lvlm_dfd": convert_lvlm_dfd,
    "m2f2_det": convert_m2f2_det,
}


def convert(family: str, sources: Sequence[str | Path], output: str | Path, **options: Any) -> Path:
    """Convert official files of one family.

    Args:
        family: a key of `CONVERTERS`.
        sources: official files, in any order; the family's converter tells them apart by their keys.
        output: new or empty folder; written whole or not at all.
        options: of the family's converter; see there.

    Returns:
        `output`.

    Raises:
        ValueError: for an unknown family, an option that the family does not have, a folder that is not empty, or
            files that do not fit (the message lists the keys).
    """
    check_request(family, options)
    with written_whole(output) as folder:
        CONVERTERS[family]([Path(source) for source in sources], folder, **options)
    return Path(output)


def check_request(family: str, options: Mapping[str, Any]) -> None:
    """Raise a `ValueError` for an unknown family, or for an option that the family does not have."""
    if family not in CONVERTERS:
        raise ValueError(f"There is no converter for {family!r}; known families: {', '.join(sorted(CONVERTERS))}.")
    known = [name for name in inspect.signature(CONVERTERS[family]).parameters if name not in ("sources", "output")]
    strange = [name for name in options if name not in known]
    if strange:
        raise ValueError(f"{family} has no option {', '.join(strange)}; it has {', '.join(known)}.")
