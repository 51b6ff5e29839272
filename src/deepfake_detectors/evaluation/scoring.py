"""Run a detector over a dataset. With a folder, a killed run can be repeated and scores only what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.localisation import (
    LOCALISATION_FILE,
    count_pixels,
    read_counts,
    read_mask,
    write_counts,
)
from deepfake_detectors.evaluation.predictions import Prediction, read_predictions
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.examination.crops import CropRecipe, recipe_of
from deepfake_detectors.examination.video import VideoError
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.files import read_json_object, weights_digest
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.detection import require_ability, require_head
from deepfake_detectors.modeling.image_loading import InputImageError
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.modeling.prefetching import prefetched
from deepfake_detectors.outputs import folder_lock, write_text
from deepfake_detectors.pipelines import load_config, load_detector

__all__ = [
    "PREDICTIONS_FILE",
    "RUN_FILE",
    "Detector",
    "DetectorError",
    "OutsideDetector",
    "Progress",
    "Scored",
    "batchwise",
    "describe_set",
    "score_pictures",
]

PREDICTIONS_FILE = "predictions.jsonl"
RUN_FILE = "run.json"
BLOCK = 65536  # bytes read at a time
WEIGHT_SUFFIXES = (".safetensors", ".json")

Progress = Callable[[int, int], None]
Judging = Callable[[Iterable[Any]], Iterator[dict[str, Any]]]


class DetectorError(RuntimeError):
    """Raised if the detector itself fails on readable images."""


@dataclass
class Scored:
    """The predictions for a dataset.

    Attributes:
        rows: predictions of all readable images, in the order of the dataset.
        run: settings that affect the numbers of an image.
        folder: folder they were written to; `None` if they are only in memory.
        failures: id -> reason why the image could not be read.
        counts: id -> `count_pixels`, if masks were measured in memory; with a folder they are stored there.
    """

    rows: list[Prediction]
    run: dict[str, Any]
    folder: Path | None = None
    failures: dict[str, str] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    def pixel_counts(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield id and `count_pixels` of images with measured masks.

        Raises:
            FileNotFoundError, ValueError: as for `read_counts`.
        """
        if self.folder is None:
            yield from self.counts.items()
        else:
            yield from read_counts(self.folder / LOCALISATION_FILE)

    def save(self, directory: Path) -> list[Path]:
        """Write the same files as scoring with this folder, and return them.

        Nothing is written if they are already in the folder.
        """
        named = [RUN_FILE, PREDICTIONS_FILE, *([LOCALISATION_FILE] if "masks" in self.run else [])]
        files = [directory / name for name in named]
        if self.folder is not None and self.folder.resolve() == directory.resolve():
            return [file for file in files if file.is_file()]
        directory.mkdir(parents=True, exist_ok=True)
        write_text(files[0], _run_text(self.run))
        write_text(files[1], "".join(row.to_json() + "\n" for row in self.rows))
        if "masks" in self.run:
            part = directory / f"{LOCALISATION_FILE}.part"
            part.unlink(missing_ok=True)
            write_counts(part, dict(self.pixel_counts()))
            part.replace(files[2])
        return files


class OutsideDetector:
    """Base of replacements for a checkpoint that only score whole images."""

    localises = False
    facts: Mapping[str, Any] = {}

    def reported(self, head: str | None, field: str) -> Any:
        """Return nothing, because operating points are unknown."""
        return {}

    def face_recipe(self, head: str | None = None) -> None:
        """Return nothing, because images are not cropped."""


class Detector:
    """The evaluated detector; its weights are loaded with the first image.

    Args:
        model: folder, Hub id or name of a built-in checkpoint; `None` for the default of the package.
        device, dtype: as in `pipelines.load_detector`.
        batch_size: images per forward pass.
        max_pixels: width times height of an image that is decoded; `None` for the pipeline's own limit.
        family: of a stock folder, as in `pipelines.pipeline`.
        num_workers: threads that load and prepare images while the model judges others.
        decoding: `"full"` or `"draft"`, as in the pipeline.

    Raises:
        OSError, ValueError: as for `pipelines.load_config`.
    """

    def __init__(
        self,
        model: str | None,
        device: str | None,
        dtype: str,
        batch_size: int,
        max_pixels: int | None = None,
        family: str | None = None,
        num_workers: int = 0,
        decoding: str = "full",
    ) -> None:
        self.max_pixels, self.family, self.num_workers, self.decoding = max_pixels, family, num_workers, decoding
        self.model, self.device, self.dtype, self.batch_size = model, device, dtype, batch_size
        self.source, self.config = load_config(model, family)
        architectures = set(self.config.architectures or ())
        classes = FAMILIES[self.config.model_type].model_classes
        self.localises = any(cls.can_localize for cls in classes if cls.__name__ in architectures)
        self._pipeline: DeepfakeDetectionPipeline | None = None

    def score(
        self,
        pictures: PictureSet,
        folder: Path | None = None,
        explain: bool = False,
        max_new_tokens: int | None = None,
        progress: Progress | None = None,
        head: str | None = None,
    ) -> Scored:
        """Score all readable images that are not in `folder` yet.

        Args:
            pictures: the dataset; if it has masks and the detector localises, pixels are counted as well.
            folder: folder of the run; `None` to keep the predictions in memory.
            explain: also write explanations.
            max_new_tokens: maximum length of explanations; `None` uses the detector's own limit.
            progress: called with the number of images done and the total, first before any image is scored.
            head: head to use, for a checkpoint with several.

        Raises:
            ValueError: for a folder of another run or one in use by another process, a detector that cannot explain,
                or an unknown head.
            DetectorError: if the detector fails on images that could be read.
        """
        localise = self.localises and pictures.masks is not None
        options: dict[str, Any] = {"explain": explain, "localize": localise}
        if max_new_tokens is not None:
            options["generate_kwargs"] = {"max_new_tokens": max_new_tokens}
        if head is not None:
            options["head"] = head
        if self.decoding != "full":
            options["decoding"] = self.decoding
        if folder is None or not (folder / PREDICTIONS_FILE).is_file():
            self._load_able(options)  # a new run: nothing is written if the model cannot do it
        # Settings that affect the numbers of an image. Protocols and other settings may change between runs.
        run = {
            "model": _describe_model(self.source),
            "set": describe_set(pictures),
            "dtype": self.dtype,
            "explain": explain,
            **({"masks": pictures.mask_source} if localise else {}),
            **({"max_new_tokens": max_new_tokens} if max_new_tokens is not None else {}),
            **({"head": head} if head is not None else {}),
            **({"family": self.family} if self.family is not None else {}),
            **({"decoding": self.decoding} if self.decoding != "full" else {}),
        }

        def judge(images: Iterable[Any]) -> Iterator[dict[str, Any]]:
            detector = self._load_able(options)
            ways = {"batch_size": self.batch_size, "num_workers": self.num_workers, "max_pixels": self.max_pixels}
            try:
                yield from detector(iter(images), on_error="record", **ways, **options)
            except (InputImageError, VideoError):  # of the set, which cuts or changes pictures before they are judged
                raise
            except ValueError as error:  # unreadable images became rows: this is the model's own failure
                raise DetectorError(str(error)) from error

        return score_pictures(
            judge, pictures, run, folder, self.batch_size, localise, progress, num_workers=self.num_workers
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Return family and digest of the weights, which identify the checkpoint of the numbers."""
        return {"model_type": self.config.model_type, "weights": weights_digest(self.source)}

    def reported(self, head: str | None, field: str) -> Any:
        """Return a field of the config, such as `"operating_points"`, for this head if there are several."""
        of_head = getattr(self.config, "of_head", None)
        return getattr(self.config, field) if of_head is None else of_head(head, field)

    def face_recipe(self, head: str | None = None) -> CropRecipe | None:
        """Return the crop recipe for faces; `None` for a detector for whole images."""
        of_head = getattr(self.config, "of_head", None)
        judges = FAMILIES[self.config.model_type].judges if of_head is None else of_head(head, "subject")
        if judges != "faces":
            return None
        return recipe_of(open_checkpoint(self.source, self.family).load_processor())

    def _load_able(self, options: Mapping[str, Any]) -> DeepfakeDetectionPipeline:
        """Return the pipeline after checking that the model supports `options`."""
        if self._pipeline is None:
            self._pipeline = load_detector(self.model, self.device, self.dtype, self.family)
        for ability in ("explain", "localize"):
            if options[ability]:
                require_ability(self._pipeline.model, ability)
        require_head(self._pipeline.model, options.get("head"))
        return self._pipeline


def batchwise(judge: Callable[[list[Any]], list[dict[str, Any]]], batch_size: int) -> Judging:
    """Return what `score_pictures` takes, of a function that judges a list of images at a time."""

    def judging(images: Iterable[Any]) -> Iterator[dict[str, Any]]:
        source = iter(images)
        while batch := list(islice(source, batch_size)):
            yield from judge(batch)

    return judging


def score_pictures(
    judge: Judging,
    pictures: PictureSet,
    run: dict[str, Any],
    folder: Path | None = None,
    batch_size: int = 8,
    localise: bool = False,
    progress: Progress | None = None,
    num_workers: int = 0,
) -> Scored:
    """Score all images of a dataset that are not in `folder` yet.

    Args:
        judge: takes images and yields a row for each, `{"fake_probability", "explanation", "mask"}` or `{"error"}`; it
            may read ahead.
        pictures: the set.
        run: what the numbers of an image depend on; a folder of another run is refused.
        folder: of the run; `None` to keep the predictions in memory.
        batch_size: images that `judge` judges together; as many are written at a time.
        localise: also count the pixels of the masks that `judge` gives.
        progress: as in `Detector.score`.
        num_workers: threads that make pictures which are cut, changed or covered first, where order does not matter.

    Raises:
        ValueError: for a folder of another run or one in use by another process.
    """
    scored = Scored([], run, folder)
    with nullcontext() if folder is None else folder_lock(folder):
        done = {} if folder is None else _resume(folder, run, pictures)
        if progress is not None:
            progress(len(done), len(pictures.rows))
        for finished in _score_missing(judge, pictures, done, batch_size, scored, localise, num_workers):
            if progress is not None:
                progress(finished, len(pictures.rows))
    return scored


def _resume(folder: Path, run: dict[str, Any], pictures: PictureSet) -> dict[str, Prediction]:
    """Claim the folder for the run, and return existing predictions by id."""
    _claim_folder(folder, run)
    done = _read_progress(folder / PREDICTIONS_FILE)
    _refuse_changed(pictures, done, folder)
    strangers = sorted(set(done) - set(pictures.ids))
    if strangers:
        raise ValueError(
            f"{folder / PREDICTIONS_FILE} contains predictions for images that are not in the dataset: "
            f"{', '.join(strangers[:3])}. Choose another `output`."
        )
    if (folder / LOCALISATION_FILE).is_file():
        _cut_torn_line(folder / LOCALISATION_FILE)
    return done


def _score_missing(
    judge: Judging,
    pictures: PictureSet,
    done: Mapping[str, Prediction],
    batch_size: int,
    scored: Scored,
    localise: bool,
    num_workers: int,
) -> Iterator[int]:
    """Fill `scored` in the order of the dataset, and yield the number of images done after each batch.

    Batches depend on positions in the dataset and not on what is missing, so that a rerun computes the same numbers.

    Args:
        judge: as in `score_pictures`.
        pictures: the set.
        done: what was scored before, by id.
        batch_size: as in `score_pictures`.
        scored: gets rows and failures; in its folder, predictions are appended.
        localise: also count the pixels of masks, before the predictions are written: the counts of every prediction
            in the file are there.
        num_workers: as in `score_pictures`.
    """
    finished = len(done)
    known_ids = set(done)
    batches = [slice(start, start + batch_size) for start in range(0, len(pictures.rows), batch_size)]
    missing = [batch for batch in batches if not known_ids.issuperset(row.id for row in pictures.rows[batch])]
    places = (place for batch in missing for place in range(*batch.indices(len(pictures.rows))))
    workers = 0 if pictures.in_order else num_workers
    verdicts = judge(prefetched(pictures.images.__getitem__, places, workers, batch_size if workers else 0))
    for batch in batches:
        start, rows = batch.start, pictures.rows[batch]
        before = finished
        fresh: dict[str, Prediction] = {}
        masks: dict[int, Any] = {}
        if not known_ids.issuperset(row.id for row in rows):
            judged = list(islice(verdicts, len(rows)))
            for place, (row, verdict) in enumerate(zip(rows, judged, strict=True), start=start):
                if row.id in done:
                    continue
                finished += 1
                if "error" in verdict:
                    scored.failures[row.id] = verdict["error"]
                    continue
                masks[place] = verdict.get("mask")
                fresh[row.id] = replace(row, score=verdict["fake_probability"], text=verdict.get("explanation"))
            if localise:
                counts = _count_masks(pictures, masks)
                if scored.folder is None:
                    scored.counts |= counts
                elif masks:
                    write_counts(scored.folder / LOCALISATION_FILE, counts)
            if fresh and scored.folder is not None:
                with (scored.folder / PREDICTIONS_FILE).open("a", encoding="utf-8") as handle:
                    # A single write, so that a kill rarely truncates a batch.
                    handle.write("".join(prediction.to_json() + "\n" for prediction in fresh.values()))
        scored.rows += [known for row in rows if (known := done.get(row.id) or fresh.get(row.id)) is not None]
        if finished > before:
            yield finished


def _count_masks(pictures: PictureSet, masks: Mapping[int, Any]) -> dict[str, np.ndarray]:
    """Return id -> `count_pixels` of the masks; fakes without a true mask are left out."""
    counts = {}
    for place, mask in masks.items():
        row = pictures.rows[place]
        truth = None if pictures.masks is None else pictures.masks[place]
        if row.label == "fake" and truth is None:
            continue  # the manipulated area is unknown
        drawn = None if row.label == "real" else read_mask(truth)
        counts[row.id] = count_pixels(mask, drawn, row.id)
    return counts


def _describe_model(source: str) -> dict[str, Any]:
    """Return the identity of a model's state: its name, and for a folder size and time of its files."""
    folder = Path(source)
    files: dict[str, list[int]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in WEIGHT_SUFFIXES and path.is_file():
                status = path.stat()
                files[path.name] = [status.st_size, status.st_mtime_ns]
    return {"name": source, "files": files}


def describe_set(pictures: PictureSet) -> dict[str, Any]:
    """Return the identity of a dataset: its name, size, files, and a digest of its metadata.

    Files of a folder are not included, because an unreadable image may be replaced, see `_refuse_changed`.
    """
    content = "\n".join(replace(row, file_state=None).to_json() for row in pictures.rows)
    return {
        "name": pictures.name,
        "pictures": len(pictures.rows),
        "sha256": sha256(content.encode()).hexdigest(),
        "files": pictures.fingerprint,
    }


def _refuse_changed(pictures: PictureSet, done: Mapping[str, Prediction], output: Path) -> None:
    """Raise a `ValueError` if an image has been changed since it was scored."""
    changed = [row.id for row in pictures.rows if row.id in done and done[row.id].file_state != row.file_state]
    if changed:
        raise ValueError(
            f"{len(changed)} images have changed since they were scored in {output}, such as {changed[0]}. Choose "
            "another `output`, or remove this folder."
        )


def _claim_folder(output: Path, run: dict[str, Any]) -> None:
    """Record the run in the folder, or check that it matches the recorded one.

    Raises:
        ValueError: if the folder has predictions of another run, or of unknown origin.
    """
    file, predictions = output / RUN_FILE, output / PREDICTIONS_FILE
    if file.is_file() and predictions.is_file():
        try:
            begun = read_json_object(file)
        except ValueError as error:
            raise ValueError(f"{error} Choose another `output`, or remove this folder.") from error
        wanted = json.loads(_run_text(run))  # because JSON changes types such as tuples
        different = [key for key in sorted({*begun, *wanted}) if begun.get(key) != wanted.get(key)]
        if different:
            raise ValueError(
                f"{output} contains predictions of another run: {', '.join(different)} differ (see {file}). "
                "Choose another `output`, or remove this folder."
            )
    elif predictions.is_file():
        raise ValueError(f"{predictions} exists without {RUN_FILE}, so its run is unknown. Choose another `output`.")
    else:
        output.mkdir(parents=True, exist_ok=True)
        # Written atomically before the first prediction.
        write_text(file, _run_text(run))


def _run_text(run: Mapping[str, Any]) -> str:
    return json.dumps(run, indent=2) + "\n"


def _read_progress(file: Path) -> dict[str, Prediction]:
    """Return existing predictions by id. A last line truncated by a kill is removed from the file.

    Raises:
        ValueError: for any other broken line.
    """
    if not file.is_file():
        return {}
    _cut_torn_line(file)
    return {row.id: row for row in read_predictions(file)} if file.stat().st_size else {}


def _cut_torn_line(file: Path) -> None:
    """Remove an incomplete last line, truncated by a kill."""
    size = file.stat().st_size
    with file.open("r+b") as handle:
        end = size
        while end:
            start = max(0, end - BLOCK)
            handle.seek(start)
            found = handle.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            handle.truncate(end)
