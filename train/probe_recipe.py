"""Settings of a recipe for `train_probe`: the keys of these classes and no others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepfake_detectors.files import read_yaml
from deepfake_detectors.train.recipe_files import find_recipe

__all__ = ["CopySettings", "HeadRecipe", "Part", "ProbeRecipe", "read_probe_recipe"]

METHODS = ("logistic", "ridge")
VALIDATIONS = ("leave_one_source_out", "cross_validation")


@dataclass(frozen=True)
class Part:
    """Images treated as one set: a folder with one class, or a split of a dataset of this package.

    Args:
        folder: folder of images, below the data folder; needs `label`.
        label: `"real"` or `"fake"`, for a folder.
        dataset, dataset_config, split, dataset_options: a builder, whose rows have labels.
        mass: total weight of the part's images per class, before the classes are balanced.
        per_manipulation: first divide that weight equally among the manipulations.
        source: parts with the same source are left out together in validation.
        against: for a fake part, the real parts it is compared with.
        every: `[start, step]`, use only these of the sorted files.
        shrink_to: overrides the head's preprocessing, for sets of small images.
    """

    folder: str | None = None
    label: str | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    split: str = "train"
    dataset_options: dict[str, Any] | None = None
    mass: float = 1.0
    per_manipulation: bool = False
    source: str | None = None
    against: tuple[str, ...] = ()
    every: tuple[int, int] | None = None
    shrink_to: int | None = None

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.dataset is None):
            raise ValueError(
                f"A part has folder {self.folder!r} and dataset {self.dataset!r}; set exactly one of them."
            )
        if self.folder is not None and self.label not in ("real", "fake"):
            raise ValueError(f"The part {self.folder!r} has label {self.label!r}, expected 'real' or 'fake'.")
        if not self.mass > 0:
            raise ValueError(f"mass of a part is {self.mass!r}, expected a positive number.")


@dataclass(frozen=True)
class CopySettings:
    """Settings for one altered copy of every training image; probabilities in [0, 1], ranges `[low, high]`.

    Args:
        seed: determines the changes together with the image's bytes, independent of the order of images.
        shrink, shrink_factor: probability, and range of the factor (log-uniform).
        blur, blur_sigma: probability, and range of the deviation of a Gaussian, in pixels.
        jpeg, jpeg_quality: probability, and range of the quality (4:2:0).
    """

    seed: int = 0
    shrink: float = 0.7
    shrink_factor: tuple[float, float] = (0.3, 1.0)
    blur: float = 0.2
    blur_sigma: tuple[float, float] = (0.4, 1.2)
    jpeg: float = 0.8
    jpeg_quality: tuple[int, int] = (30, 95)


@dataclass(frozen=True)
class HeadRecipe:
    """One head: its features, its images, and how it is fitted and validated.

    Args:
        parts: name -> images.
        features, layers, clip, subject: as in `ClipProbeConfig`.
        preprocessing: as in `ClipProbeImageProcessor`.
        license_notice: terms of the head.
        method: `"logistic"` (L2, `strength` is scikit-learn's C) or `"ridge"` (targets +1 and -1, `strength` is the
            penalty per row).
        pair_term: for ridge, weight of the target that a fake scores 2 more than its real twin.
        copies: altered copies of the training images; `None` for none.
        validation: `"leave_one_source_out"`, or `"cross_validation"` over groups.
        folds, fold_seed: settings of cross-validation.
        strangers: groups of real parts that are left out together with the fakes of `strange_fakes`, to measure
            results for an unknown source of photographs.
        strange_fakes: the fake parts for that.
        cross_checked: real parts whose false alarms are also measured by cross-validation within the training images.
        false_alarm_rate: target of the decision band.
    """

    parts: dict[str, Part]
    features: tuple[str, ...] = ("class_token", "patch_mean")
    layers: tuple[int, ...] | None = None
    clip: float | None = 6.0
    subject: str = "any picture"
    preprocessing: dict[str, Any] = field(default_factory=dict)
    license_notice: str | None = None
    method: str = "logistic"
    strength: float = 0.0003
    pair_term: float = 0.0
    copies: CopySettings | None = None
    validation: str = "leave_one_source_out"
    folds: int = 5
    fold_seed: int = 0
    strangers: tuple[tuple[str, ...], ...] = ()
    strange_fakes: tuple[str, ...] = ()
    cross_checked: tuple[str, ...] = ()
    false_alarm_rate: float = 0.05

    def __post_init__(self) -> None:
        for name, allowed in (("method", METHODS), ("validation", VALIDATIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, allowed are {', '.join(map(repr, allowed))}.")
        named = {name for part in self.parts.values() for name in part.against}
        named |= {name for group in self.strangers for name in group} | {*self.strange_fakes, *self.cross_checked}
        if unknown := sorted(named - set(self.parts)):
            raise ValueError(
                f"The recipe refers to the parts {', '.join(unknown)}, but defines only {', '.join(self.parts)}."
            )


@dataclass(frozen=True)
class ProbeRecipe:
    """A complete recipe.

    Args:
        encoder: `clip_probe` folder whose tower is used unchanged, for example from `convert("clip_probe", ...)`.
        output_dir: folder to write: the unchanged encoder file, new heads, config and `validation.json`.
        features_dir: folder for cached features.
        heads: name -> head; the first is the default one.
        data_dir: folder with the parts; by default `$DEEPFAKE_DATA`.
        cpu_threads: threads of PyTorch and scikit-learn; 1 makes results reproducible to the digit.
    """

    encoder: str
    output_dir: str
    features_dir: str
    heads: dict[str, HeadRecipe]
    data_dir: str | None = None
    cpu_threads: int = 1


def read_probe_recipe(path: str | Path) -> ProbeRecipe:
    """Read a recipe: a file, or by name one that ships with the package (`recipe_files.find_recipe`).

    Raises:
        OSError: if there is no such file, or it cannot be read.
        ValueError: if it is not YAML, or for a key or value that is not allowed; the message names it.
    """
    path = find_recipe(path)
    content = read_yaml(path)
    heads = {}
    for name, fields in _mapping(content, "heads", path).items():
        parts = {part: _build(Part, settings, part) for part, settings in _mapping(fields, "parts", path).items()}
        copies = None if fields.get("copies") is None else _build(CopySettings, fields["copies"], "copies")
        heads[name] = _build(HeadRecipe, {**fields, "parts": parts, "copies": copies}, f"head {name}")
    return _build(ProbeRecipe, {**content, "heads": heads}, str(path))


def _mapping(content: Any, key: str, path: str | Path) -> dict[str, Any]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path} must contain a non-empty table `{key}`.")
    return found


def _build(kind: Any, fields: Any, what: str) -> Any:
    known = [item.name for item in dataclasses.fields(kind)]
    if not isinstance(fields, dict) or (unknown := sorted(set(fields) - set(known))):
        given = fields if not isinstance(fields, dict) else ", ".join(unknown)
        raise ValueError(f"{what}: unknown {given}; allowed are {', '.join(known)}.")
    required = [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in fields]:
        raise ValueError(f"{what} lacks {', '.join(missing)}.")
    return kind(**{name: _frozen(value) for name, value in fields.items()})


def _frozen(value: Any) -> Any:
    """Convert lists to tuples, so that a recipe is immutable."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
