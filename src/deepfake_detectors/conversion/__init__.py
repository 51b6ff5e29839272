"""Official checkpoints in, folders that `from_pretrained` loads out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepfake_detectors.families import FAMILIES, resolve
from deepfake_detectors.files import written_whole

__all__ = ["CONVERTERS", "check_request", "convert"]

# Converters are found by name and imported when they are used.
CONVERTERS: dict[str, str] = {
    name: reference
    for family in FAMILIES.values()
    for name, reference in (
        (family.name, family.converter),
        *((name, component.get("converter")) for name, component in family.components.items()),
    )
    if reference is not None
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
        resolve(CONVERTERS[family])([Path(source) for source in sources], folder, **options)
    return Path(output)


def check_request(family: str, options: Mapping[str, Any]) -> None:
    """Raise a `ValueError` for an unknown family, or for an option that the family does not have."""
    if family not in CONVERTERS:
        raise ValueError(f"There is no converter for {family!r}; known families: {', '.join(sorted(CONVERTERS))}.")
    known = [
        name for name in inspect.signature(resolve(CONVERTERS[family])).parameters if name not in ("sources", "output")
    ]
    strange = [name for name in options if name not in known]
    if strange:
        raise ValueError(f"{family} has no option {', '.join(strange)}; it has {', '.join(known)}.")
