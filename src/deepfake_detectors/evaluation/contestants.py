"""The parts of a benchmark, read from a plan: detectors, test sets, and training data of the detectors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from deepfake_detectors.checkpoints import DEFAULT
from deepfake_detectors.data.registry import DATASETS
from deepfake_detectors.evaluation.predictors import Predictor
from deepfake_detectors.evaluation.scoring import Detector
from deepfake_detectors.evaluation.sets import PictureSet, data_set, folder_set
from deepfake_detectors.examination.clips import ClipView
from deepfake_detectors.examination.faces import DEFAULT_FINDER
from deepfake_detectors.files import read_yaml

__all__ = ["Contestant", "TestSet", "read_contestants", "read_plan", "read_test_sets"]

NAME = re.compile(r"[\w+@][\w.+@ -]{0,79}")  # used as the name of a folder
PLAN_KEYS = frozenset(
    "detectors datasets train robustness resamples seed batch_size device dtype processes controls".split()
)
DETECTOR_KEYS = frozenset("name model family head threshold scores predict".split())
SET_KEYS = frozenset(
    "name dataset dataset_config dataset_options split data_dir real_dir fake_dir frames crop finder".split()
)


@dataclass(frozen=True)
class Contestant:
    """A detector of a benchmark: a checkpoint, an object with `predict`, or files of scores.

    Attributes:
        name: name in the leaderboard.
        model: folder, Hub id, name of a built-in checkpoint, a `Predictor` or a `Detector`; `None` for files of
            scores.
        scores: name of a dataset -> file of cached predictions; empty for a detector to run.
        options: `family`, `head` and `threshold`, as in `evaluate`.
    """

    name: str
    model: str | Predictor | Detector | None = None
    scores: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TestSet:
    """A dataset of a benchmark.

    Attributes:
        name: name in the leaderboard.
        options: the parameters of `evaluate` for it: `dataset` with its options, or `real_dir` and `fake_dir`.
    """

    __test__ = False  # not a test, even though its name starts like one

    name: str
    options: Mapping[str, Any]

    def open(self) -> PictureSet:
        """Return its whole images, with videos as frames; raise the errors of `data_set` and `folder_set`."""
        given = dict(self.options)
        if "dataset" in given:
            return data_set(
                str(given["dataset"]),
                given.get("dataset_config"),
                given.get("data_dir"),
                given.get("dataset_options"),
                given.get("split", "test"),
            )
        sides = [None if given.get(key) is None else Path(given[key]) for key in ("real_dir", "fake_dir")]
        view = ClipView(given.get("frames", 32), None, given.get("finder", DEFAULT_FINDER))
        return folder_set(sides[0], sides[1], view=lambda: view)


def read_plan(file: str | Path) -> dict[str, Any]:
    """Return the parameters of `benchmark` from a YAML file. Its paths are relative to the working directory.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not YAML, or has an unknown parameter.
    """
    plan = read_yaml(file)
    if not isinstance(plan, dict):
        raise ValueError(f"{file} must contain `detectors` and `datasets`, but contains a {type(plan).__name__}.")
    _check_keys(plan, PLAN_KEYS, str(file))
    for key in ("detectors", "datasets", "train"):
        if key in plan and not isinstance(plan[key], list):
            raise ValueError(f"{file}: `{key}` must be a list, but is a {type(plan[key]).__name__}.")
    return plan


def read_contestants(given: Sequence[Any], sets: Sequence[TestSet]) -> list[Contestant]:
    """Return the detectors of a benchmark.

    Args:
        given: for each detector a model name; an object with `predict(paths)`; or a mapping with `name` and one of
            `model` (with `family`, `head` and `threshold`), `predict` (`"module:object"`, an object with
            `predict(paths)`), or `scores`: a file of cached predictions, or one per dataset name.
        sets: the test sets of the benchmark.

    Raises:
        ValueError: for another type, a duplicate name, or scores for unknown datasets.
        ImportError: if the module does not exist.
    """
    found = [_contestant(item, sets) for item in given]
    if not found:
        raise ValueError("`detectors` is empty: list at least one.")
    _check_names([contestant.name for contestant in found], "detectors")
    return found


def _contestant(item: Any, sets: Sequence[TestSet]) -> Contestant:
    if isinstance(item, (str, Path)):
        return Contestant(_short(str(item)), str(item))
    if not isinstance(item, Mapping):
        if not isinstance(item, Predictor):
            raise ValueError(
                f"`detectors` contains a {type(item).__name__}, expected a model, a mapping, or an object with "
                "`predict`."
            )
        return Contestant(str(getattr(item, "name", type(item).__name__)), item)
    _check_keys(item, DETECTOR_KEYS, "a detector")
    kinds = [key for key in ("model", "scores", "predict") if item.get(key) is not None]
    if len(kinds) > 1:
        raise ValueError(f"`detectors`: {dict(item)} has {' and '.join(kinds)}, expected exactly one of them.")
    if item.get("family") is not None and kinds in (["scores"], ["predict"]):
        raise ValueError(f"`detectors`: {dict(item)} has `family`, which only applies to a stock `model`.")
    options = {key: item[key] for key in ("family", "head", "threshold") if item.get(key) is not None}
    if kinds == ["scores"]:
        scores = item["scores"]
        files = dict(scores) if isinstance(scores, Mapping) else {entry.name: scores for entry in sets}
        unknown = sorted(set(files) - {entry.name for entry in sets})
        if unknown:
            raise ValueError(f"`detectors`: scores for {', '.join(unknown)}, which are not among the datasets.")
        name = str(item.get("name") or "scores")
        return Contestant(name, None, {key: Path(file) for key, file in files.items()}, options)
    if kinds == ["predict"]:
        judge = _imported(str(item["predict"]))
        return Contestant(str(item.get("name") or getattr(judge, "name", type(judge).__name__)), judge, {}, options)
    model = str(item.get("model") or DEFAULT)
    return Contestant(str(item.get("name") or _short(model)), model, {}, options)


def _imported(place: str) -> Predictor:
    module, colon, attribute = place.partition(":")
    if not colon:
        raise ValueError(f"`predict` is {place!r}, expected module:object.")
    found = getattr(import_module(module), attribute, None)
    if isinstance(found, type):
        found = found()
    if not isinstance(found, Predictor):
        raise ValueError(f"`predict` {place!r} is not an object with `predict(paths)`.")
    return found


def read_test_sets(given: Sequence[Any], parameter: str = "datasets") -> list[TestSet]:
    """Return the datasets of a benchmark.

    Args:
        given: the name of a dataset, a built folder, or a folder with subfolders `real` and/or `fake`; or a mapping
            with `name` and the parameters of `evaluate` for a dataset.
        parameter: name of the parameter, for messages.

    Raises:
        ValueError: for another type, or a duplicate name.
        FileNotFoundError: for a missing folder.
    """
    found = [_test_set(item, parameter) for item in given]
    if not found:
        raise ValueError(f"`{parameter}` is empty: list at least one.")
    _check_names([entry.name for entry in found], parameter)
    return found


def _test_set(item: Any, parameter: str) -> TestSet:
    if isinstance(item, (str, Path)):
        if str(item) in DATASETS:
            return TestSet(str(item), {"dataset": str(item)})
        folder = Path(item)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"`{parameter}`: {item} is neither a folder nor one of {', '.join(sorted(DATASETS))}."
            )
        sides = {f"{label}_dir": str(folder / label) for label in ("real", "fake") if (folder / label).is_dir()}
        return TestSet(_short(str(folder.resolve())), sides or {"dataset": str(folder)})
    if not isinstance(item, Mapping):
        raise ValueError(f"`{parameter}` contains a {type(item).__name__}, expected a name, a folder or a mapping.")
    _check_keys(item, SET_KEYS, "a dataset")
    options = {key: value for key, value in item.items() if key != "name" and value is not None}
    if not {"dataset", "real_dir", "fake_dir"} & set(options):
        raise ValueError(
            f"`{parameter}`: {dict(item)} does not refer to images: set `dataset`, or `real_dir` and/or `fake_dir`."
        )
    named = next(options[key] for key in ("dataset", "fake_dir", "real_dir") if key in options)
    return TestSet(str(item.get("name") or _short(str(named))), options)


def _short(name: str) -> str:
    """Return the last part of a path or a Hub id."""
    return re.sub(r"[^\w.+@ -]", "-", Path(name).name) or name


def _check_names(names: Sequence[str], what: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"`{what}`: the name {name!r} must have 1 to 80 characters: letters, digits, spaces and .+@-_ ."
            )
        if [other.casefold() for other in names].count(name.casefold()) > 1:
            raise ValueError(f"`{what}`: the name {name!r} occurs twice; give each a different `name`.")


def _check_keys(given: Mapping[Any, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ValueError(f"{where} has {', '.join(unknown)}; allowed are {', '.join(sorted(known))}.")
