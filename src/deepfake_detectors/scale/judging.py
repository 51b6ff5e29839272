"""The detector of a run, its task, and result rows for batches of prepared images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.pipelines import load_detector
from deepfake_detectors.scale.preparing import Batch

__all__ = ["DetectorFailed", "Judgement", "Question", "assembled", "repeated_row"]


class DetectorFailed(RuntimeError):
    """The detector itself failed on readable images."""


@dataclass(frozen=True)
class Question:
    """What a detector is asked about every image; arguments as in the pipeline.

    Attributes:
        model: folder, Hub id or name of a built-in checkpoint; `None` for the default.
        family: of a stock folder, as in the pipeline.
    """

    model: str | None = None
    family: str | None = None
    device: str | None = None
    dtype: str = "auto"
    head: str | None = None
    threshold: float | str | None = None
    explain: bool = False
    localize: bool = False
    question: str | None = None
    max_new_tokens: int | None = None
    decoding: str = "full"

    def answer_options(self) -> dict[str, Any]:
        """Return what an answer depends on beside the weights and the image."""
        left_out = {"model", "device"} | ({"decoding"} if self.decoding == "full" else set())
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def extra(self) -> tuple[str, ...]:
        """Columns beside those that every run has."""
        named = {
            "explanation": self.explain,
            "explanation_verdict": self.explain,
            "mask": self.localize,
            "head": self.head is not None,
        }
        return tuple(name for name, asked in named.items() if asked)

    def call_options(self) -> dict[str, Any]:
        """Return the arguments of a call of the pipeline."""
        options = {
            "head": self.head,
            "threshold": self.threshold,
            "explain": self.explain or None,
            "localize": self.localize or None,
            "question": self.question,
            "decoding": None if self.decoding == "full" else self.decoding,
            "generate_kwargs": None if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens},
        }
        return {name: value for name, value in options.items() if value is not None}


class Judgement:
    """A loaded detector that answers a question.

    Args:
        question: what is asked.
        pipeline: loaded before; loaded here if `None`.

    Raises:
        OSError, ValueError, ImportError: as `load_detector`, and for a question that the detector cannot answer.
    """

    def __init__(self, question: Question, pipeline: DeepfakeDetectionPipeline | None = None) -> None:
        self.question = question
        if pipeline is None:
            pipeline = load_detector(question.model, question.device, question.dtype, question.family)
        self.pipeline = pipeline
        _, self._forward, self._postprocess = pipeline._sanitize_parameters(**question.call_options())

    @property
    def processor(self) -> Any:
        return self.pipeline.processor

    def rows(self, batch: Batch) -> dict[int, dict[str, Any]]:
        """Return place -> row of the images of a batch, with the verdict if there is one.

        A mask is the bytes of a PNG under `mask_png`.

        Raises:
            DetectorFailed: if the detector fails.
        """
        rows = batch.rows
        if not batch.places:
            return rows
        count = len(batch.places)
        names = [rows[place]["source"] for place in batch.places]
        inputs = {**batch.features, "source": names, "picture_size": batch.sizes, "failure": [None] * count}
        try:
            output = self.pipeline.forward(inputs, **self._forward)
            for index, place in enumerate(batch.places):
                single = {
                    name: output[name][index : index + 1]
                    if name in ("fake_probability", "mask")
                    else output[name][index]
                    for name in output
                    if output[name] is not None
                }
                verdict = self.pipeline.postprocess(
                    {"mask": None, "heatmap": None, "failure": None, **single}, **self._postprocess
                )
                rows[place] |= {name: value for name, value in verdict.items() if name != "mask"}
                if verdict["mask"] is not None:
                    rows[place]["mask_png"] = _png(verdict["mask"])
        except (ValueError, RuntimeError) as error:
            raise DetectorFailed(
                f"{type(self.pipeline.model).__name__} failed on {names[0]} or another image of its batch: {error}"
            ) from error
        return rows


def _png(image: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def assembled(rows: Mapping[int, Mapping[str, Any]], places: Iterable[int]) -> list[dict[str, Any]]:
    """Return the rows of a unit in order; those of repeated content get the verdict of its first image."""
    return [
        repeated_row(rows[place], rows[rows[place]["same_as"]]) if "same_as" in rows[place] else dict(rows[place])
        for place in places
    ]


def repeated_row(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of an image with the verdict of another one that has the same content."""
    found = {**first, **{name: row[name] for name in ("id", "source", "sha256")}}
    if first.get("error") is not None:  # it names the other image
        found["error"] = f"{row['id']} is the same as {first['id']}: {first['error']}"
    return found
