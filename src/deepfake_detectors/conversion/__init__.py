"""Official checkpoints in, folders that `from_pretrained` loads out."""

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
        sources: an official file or folder, or several in any order; the family's converter tells them apart by their
            keys. A CLIP probe also takes the Hub id of its CLIP model.
        output: new or empty folder; written whole or not at all.
        overwrite: replace the checkpoint in `output`, which stays as it is until the new one is complete. Files there
            that the new one does not have stay, except weights.
        options: of the family's converter; see there.

    Returns:
        `output`.

    Raises:
        FileNotFoundError: for a source that does not exist.
        ValueError: for an unknown family, an option that the family does not have, a folder that is not empty, or
            files that do not fit (the message lists the keys); and where `output` is, or holds, a source.
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
    """Raise an error where `convert` would, before it has read anything.

    Raises:
        ValueError: for an unknown family, or an option that the family does not have.
        FileNotFoundError: for a source that does not exist, and is not a Hub id where the family takes one.
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
        raise FileNotFoundError(f"There is no file or folder {', '.join(missing)}; give {expected}.{released}")
