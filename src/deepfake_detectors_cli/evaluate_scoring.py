"""Scoring the pictures of a set with a detector: progress on the terminal, predictions on disk as they come."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors_cli.console import fail, say
from deepfake_detectors_cli.options import DtypeName

if TYPE_CHECKING:
    from deepfake_detectors.evaluation.picture_sets import PictureSet
    from deepfake_detectors.evaluation.predictions import Prediction

__all__ = ["Detector", "tell_unreadable"]


class Detector:
    """The detector that is evaluated; loaded when the first picture needs it.

    Args:
        model: folder or Hub id, or `None` for the default of the package.
        device, dtype, batch_size: as on the command line.
    """

    def __init__(self, model: str | None, device: str | None, dtype: DtypeName, batch_size: int) -> None:
        from deepfake_detectors.families import FAMILIES
        from deepfake_detectors.pipelines import load_config

        self.model, self.device, self.dtype, self.batch_size = model, device, dtype, batch_size
        self.source, self.config = load_config(model)
        architectures = set(self.config.architectures or ())
        classes = FAMILIES[self.config.model_type].model_classes
        self.localises = any(cls.can_localize for cls in classes if cls.__name__ in architectures)
        self._pipeline: Any = None

    def load(self) -> Any:
        """The pipeline."""
        if self._pipeline is None:
            from deepfake_detectors.pipelines import load_detector

            self._pipeline = load_detector(self.model, self.device, self.dtype.value)
        return self._pipeline

    def _load_able(self, options: Mapping[str, Any]) -> Any:
        """The pipeline, once it is known that the model can do what `options` ask for."""
        from deepfake_detectors.modeling.detection import require_ability

        detector = self.load()
        for ability in ("explain", "localize"):
            if options[ability]:
                require_ability(detector.model, ability)
        return detector

    def score(
        self,
        pictures: PictureSet,
        output: Path,
        explain: bool,
        failures: dict[str, str],
        max_new_tokens: int | None = None,
    ) -> list[Prediction]:
        """Predictions of all pictures that can be read; only those that `output` lacks are judged.

        Args:
            pictures: the set; where it has masks and the detector localises, pixel counts are written too.
            output: folder of the run.
            explain: also write explanations.
            failures: gets id -> message of the pictures that could not be read.
            max_new_tokens: longest explanation; the detector's own limit if `None`.

        Raises:
            ValueError: for a folder of another run, or a detector that cannot explain.
        """
        from deepfake_detectors.evaluation.localisation import LOCALISATION_FILE
        from deepfake_detectors.evaluation.resumable import (
            PREDICTIONS_FILE,
            claim_folder,
            cut_torn_line,
            describe_model,
            describe_set,
            read_progress,
            refuse_changed,
            score_missing,
        )

        localise = self.localises and pictures.masks is not None
        options: dict[str, Any] = {"explain": explain, "localize": localise}
        if max_new_tokens is not None:
            options["generate_kwargs"] = {"max_new_tokens": max_new_tokens}
        file, pixels = output / PREDICTIONS_FILE, output / LOCALISATION_FILE
        if not file.is_file():  # a new run: nothing is written for a model that cannot do it
            self._load_able(options)
        # What the numbers of a picture depend on. Rules and settings may change between runs.
        run = {
            "model": describe_model(self.source),
            "set": describe_set(pictures),
            "dtype": self.dtype.value,
            "explain": explain,
            **({"masks": pictures.mask_source} if localise else {}),
            **({"max_new_tokens": max_new_tokens} if max_new_tokens is not None else {}),
        }
        claim_folder(output, run)
        done = read_progress(file)
        refuse_changed(pictures, done, output)
        if pixels.is_file():
            cut_torn_line(pixels)
        missing = len(pictures.rows) - len(done)
        if done:
            say(f"{len(done)} of {len(pictures.rows)} pictures were scored before; {max(missing, 0)} are left.")
        if missing <= 0:
            return list(score_missing(_nothing_to_judge, pictures, file, done, self.batch_size, failures))
        detector = self._load_able(options)

        def judge(images: list[Any]) -> list[dict[str, Any]]:
            try:
                return detector(images, batch_size=self.batch_size, on_error="record", **options)
            except ValueError as error:  # unreadable pictures became rows: this is the model's own failure
                fail(error, code=1)

        def keep(verdicts: dict[int, dict[str, Any]]) -> None:
            _keep_pixels(pictures, verdicts, pixels)

        rows = score_missing(judge, pictures, file, done, self.batch_size, failures, keep if localise else None)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            return list(track(rows, "Judging", len(pictures.rows), console=Console(stderr=True), transient=True))
        return list(rows)


def tell_unreadable(failures: Mapping[str, str]) -> None:
    """Say of the first pictures that could not be read why."""
    for name, message in list(failures.items())[:5]:
        say(f"{name}: {message}")
    if len(failures) > 5:
        say(f"... and {len(failures) - 5} more pictures that could not be read.")


def _keep_pixels(pictures: PictureSet, verdicts: dict[int, dict[str, Any]], file: Path) -> None:
    from deepfake_detectors.evaluation.localisation import count_pixels, read_mask, write_counts

    assert pictures.masks is not None
    counts = {}
    for place, verdict in verdicts.items():
        row, truth = pictures.rows[place], pictures.masks[place]
        if row.label == "fake" and truth is None:
            continue  # what was changed is not known
        drawn = None if row.label == "real" else read_mask(truth)
        counts[row.id] = count_pixels(verdict["mask"], drawn, row.id)
    write_counts(file, counts)


def _nothing_to_judge(images: list[Any]) -> list[dict[str, Any]]:
    raise ValueError("The predictions do not cover the set, though as many. Choose another --output.")
