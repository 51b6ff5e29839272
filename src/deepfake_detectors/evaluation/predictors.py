"""External detectors: any object with `predict(paths)` that returns P(fake) of each image."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

from deepfake_detectors.evaluation.scoring import (
    DetectorError,
    OutsideDetector,
    Progress,
    Scored,
    batchwise,
    describe_set,
    score_pictures,
)
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.modeling.image_loading import MAX_PIXELS, InputImageError, load_image

__all__ = ["Predictor", "PredictorDetector"]


@runtime_checkable
class Predictor(Protocol):
    """Interface for measuring a detector of another package.

    The attribute `name` is used in results, by default the class name. A `version` distinguishes two states, so that
    cached predictions of one are not used for the other.
    """

    def predict(self, paths: Sequence[str]) -> Sequence[float]:
        """Return P(fake) in [0, 1] of every image file."""
        ...


class PredictorDetector(OutsideDetector):
    """A `Predictor` in place of a checkpoint.

    Args:
        predictor: scores files.
        batch_size: files per call.
        max_pixels: largest width times height to decode.
    """

    def __init__(self, predictor: Predictor, batch_size: int = 8, max_pixels: int | None = None) -> None:
        self.predictor, self.batch_size = predictor, batch_size
        self.max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
        self.source = str(getattr(predictor, "name", type(predictor).__name__))

    def score(
        self,
        pictures: PictureSet,
        folder: Path | None = None,
        explain: bool = False,
        max_new_tokens: int | None = None,
        progress: Progress | None = None,
        head: str | None = None,
    ) -> Scored:
        """Score all readable images; arguments as in `scoring.Detector.score`.

        An image that is not a file, such as a frame of a video, is written to a temporary PNG for the call.

        Raises:
            ValueError: for a folder of another run or one in use by another process, and for `explain` and `head`.
            DetectorError: if `predict` fails, or returns something other than probabilities.
        """
        if explain or head is not None:
            raise ValueError(f"{self.source} only has `predict`: leave out `explain` and `head`.")
        version = getattr(self.predictor, "version", None)
        model = {"name": self.source, **({} if version is None else {"version": str(version)})}
        run = {"model": model, "set": describe_set(pictures), "explain": False}
        judge = batchwise(self._judge, self.batch_size)
        return score_pictures(judge, pictures, run, folder, self.batch_size, progress=progress)

    def _judge(self, images: list[Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{} for _ in images]
        with tempfile.TemporaryDirectory(prefix="deepfake-benchmark-") as folder:
            paths: dict[int, str] = {}
            for place, image in enumerate(images):
                try:
                    paths[place] = self._file(image, Path(folder), place)
                except InputImageError as error:
                    rows[place] = {"error": str(error)}
            try:
                answers = [float(answer) for answer in self.predictor.predict(list(paths.values()))] if paths else []
            except Exception as error:  # any error in external code is a failure of the detector
                raise DetectorError(f"{self.source}.predict failed: {type(error).__name__}: {error}") from error
        if len(answers) != len(paths):
            raise DetectorError(f"{self.source}.predict returned {len(answers)} answers for {len(paths)} images.")
        for place, answer in zip(paths, answers, strict=True):
            if not (math.isfinite(answer) and 0.0 <= answer <= 1.0):
                raise DetectorError(f"{self.source}.predict returned {answer}, expected P(fake) in [0, 1].")
            rows[place] = {"fake_probability": answer}
        return rows

    def _file(self, image: Any, folder: Path, place: int) -> str:
        """Return a file with the image, which is known to be readable."""
        decoded = load_image(image, max_pixels=self.max_pixels)
        if isinstance(image, (str, Path)):
            return str(image)
        content = image.get("bytes") if isinstance(image, dict) else None
        if isinstance(image, dict) and content is None and image.get("path"):
            return str(image["path"])
        if content is not None:  # the original bytes, because a detector may depend on how the file was saved
            file = folder / f"{place}{PurePath(str(image.get('path') or '')).suffix}"
            file.write_bytes(content)
            return str(file)
        file = folder / f"{place}.png"
        decoded.save(file)
        return str(file)
