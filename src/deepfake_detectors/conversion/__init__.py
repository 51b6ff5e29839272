"""Conversion of official checkpoints to folders that `from_pretrained` loads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepfake_detectors.conversion.checkpoint_files import new_checkpoint
from deepfake_detectors.families import FAMILIES, resolve
from deepfake_detectors.model_folders import check_model_folder, model_faults
from deepfake_detectors.outputs import refuse_inputs

__all__ = ["CONVERTERS", "check_request", "convert"]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Converters are found by name and imported on use.
CONVERTERS: dict[str, str] = {
    name: reference
    for family in FAMILIES.values()
    for name, reference in (
        (family.name, family.converter),
        *((name, component.get("converter")) for name, component in family.components.items()),
    )
    if reference is not None
}


def convert(
    family: str,
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Convert official files of one family into a folder that `from_pretrained` loads.

    Args:
        family: a key of `CONVERTERS`.
        sources: an official file or folder, or several in any order; the family's converter identifies them by their
            keys. A CLIP probe also accepts the Hub id of its CLIP model.
        output: new or empty folder; written completely or not at all.
        overwrite: replace the checkpoint in `output` once the new one is complete. Other files in it are kept, except
            weights.
        options: options of the family's converter; see there.

    Returns:
        `output`.

    Raises:
        FileNotFoundError: for a source that does not exist.
        ValueError: for an unknown family or option, a non-empty folder, files that do not fit (the message lists the
            keys), or an `output` that is or contains a source.
    """
    paths = [Path(source) for source in ([sources] if isinstance(sources, (str, Path)) else sources)]
    check_request(family, options, paths)
    for path in paths:
        check_model_folder(path)
    refuse_inputs([output], paths, inside=True)
    with new_checkpoint(output, overwrite) as folder, model_faults(", ".join(map(str, paths))):
        resolve(CONVERTERS[family])(paths, folder, **options)
    return Path(output)


def check_request(family: str, options: Mapping[str, Any], sources: Sequence[str | Path] = ()) -> None:
    """Raise errors that `convert` would raise before reading anything.

    Raises:
        ValueError: for an unknown family or option.
        FileNotFoundError: for a source that does not exist and is not an accepted Hub id.
    """
    if family not in CONVERTERS:
        raise ValueError(f"There is no converter for {family!r}; known families: {', '.join(sorted(CONVERTERS))}.")
    parameters = inspect.signature(resolve(CONVERTERS[family])).parameters
    known = [name for name in parameters if name not in ("sources", "output")]
    if strange := [name for name in options if name not in known]:
        raise ValueError(f"{family} has no option {', '.join(strange)}; it has {', '.join(known)}.")
    row = FAMILIES.get(family)
    hub_ids = row is not None and row.converts_hub_ids
    missing = [str(source) for source in sources if not Path(source).exists()]
    if missing := [source for source in missing if not (hub_ids and HUB_ID.fullmatch(source))]:
        expected = "the official files, or a Hub id owner/name" if hub_ids else "the official files"
        released = "" if row is None else row.where_released()
        raise FileNotFoundError(
            f"These files or folders do not exist: {', '.join(missing)}. Pass {expected}.{released}"
        )
