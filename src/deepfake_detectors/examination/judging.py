"""The detector of an examination: its identity, its readings, and logits of crops and frames."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import CONFIG_NAME, cached_file

from deepfake_detectors.checkpoints import BUILT_IN, built_in_path
from deepfake_detectors.examination.crops import CropRecipe, recipe_of
from deepfake_detectors.facts import family_facts
from deepfake_detectors.files import weights_digest
from deepfake_detectors.modeling.detection import join_prepared, require_ability
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.pipelines import load_detector, resolve_model

__all__ = ["Judge", "Reading", "files_digest", "public_name"]

DEFAULT_THRESHOLD = 0.5
FILES, PARAMETERS = "safetensors files", "parameters in memory"
_digests: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Reading:
    """One verdict of a checkpoint: that of a named head, or its only one.

    Attributes:
        head: name of the head; `None` if the checkpoint has no named heads.
        subject: `"faces"` or `"picture"`.
        threshold: P(fake) at or above which the label is `fake`.
        band: decision band of the head; `None` if none was fitted.
        license_notice: terms of the weights.
        recipe: crop recipe of the checkpoint; `None` for whole images.
        seen_side: shorter side in pixels to which the processor resizes; `None` if its config does not have it.
    """

    head: str | None
    subject: str
    threshold: float
    band: Mapping[str, Any] | None
    license_notice: str | None
    recipe: CropRecipe | None
    seen_side: int | None = None


class Judge:
    """A loaded detector for examining files. Load it once for several files.

    Args:
        model: folder, Hub id or name of a built-in checkpoint; `None` for the default; or a loaded
            `DeepfakeDetectionPipeline`.
        device, dtype: as in `pipelines.load_detector`; not for a loaded pipeline.
        batch_size: images per forward pass.
        family: family of a stock folder, as in `pipelines.pipeline`; not for a loaded pipeline.

    Attributes:
        pipeline: the loaded detector.
        facts: name, family, class, revision, digest of the weights, terms and limits, as the record holds them.
        turn: held by the thread whose pictures the model judges; several may prepare theirs.

    Raises:
        ValueError: if `model` does not contain a detector.
        OSError: if the model does not exist.
    """

    def __init__(
        self,
        model: str | Path | DeepfakeDetectionPipeline | None = None,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int = 4,
        family: str | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}, expected a whole number of at least 1.")
        loaded = isinstance(model, DeepfakeDetectionPipeline)
        if loaded and (device is not None or dtype != "auto" or family is not None):
            raise ValueError("device, dtype and family are those of the loaded pipeline; leave them out.")
        if isinstance(model, DeepfakeDetectionPipeline) and model.decoding != "full":
            raise ValueError(
                f"The pipeline has decoding={model.decoding!r}, which changes pixels: an examination is evidence "
                "about the file as it is. Give a pipeline with decoding='full'."
            )
        self.batch_size = batch_size
        self.turn = threading.Lock()
        if isinstance(model, DeepfakeDetectionPipeline):
            self.pipeline, source = model, str(model.model.name_or_path)
        else:
            self.pipeline, source = load_detector(model, device, dtype, family), resolve_model(model)
        detector = self.pipeline.model
        self.facts: dict[str, Any] = {
            "name": public_name(source),
            "family": detector.config.model_type,
            "class": type(detector).__name__,
            "revision": getattr(detector.config, "_commit_hash", None),
            "weights": {
                "sha256": _parameters_digest(self.pipeline) if loaded else files_digest(source),
                "of": PARAMETERS if loaded else FILES,
            },
            "dtype": str(detector.dtype).removeprefix("torch."),
            "device": detector.device.type,
            "license_notice": getattr(detector.config, "license_notice", None),
            "limits": _limits(detector.config.model_type, type(detector).__name__),
        }

    def readings(self, head: str | None = None, threshold: float | str | None = None) -> list[Reading]:
        """Return the readings of the checkpoint: one verdict, or one per head if no head is given.

        Raises:
            ValueError: for an unknown head or operating point.
        """
        config = self.pipeline.model.config
        if hasattr(config, "of_head"):
            names: list[str | None] = list(config.heads) if head is None else [config.require_head(head)]
        elif head is not None:
            raise ValueError(
                f"head is {head!r}, but {type(self.pipeline.model).__name__} has one verdict and no named heads."
            )
        else:
            names = [None]
        return [self._reading(name, threshold) for name in names]

    def _reading(self, head: str | None, threshold: float | str | None) -> Reading:
        config = self.pipeline.model.config

        def field(name: str) -> Any:
            return getattr(config, name, None) if head is None else config.of_head(head, name)

        subject = self.pipeline.model.subject if head is None else field("subject")
        limit = DEFAULT_THRESHOLD
        if threshold is not None:
            named = () if head is None else (head,)
            limit = self.pipeline.resolve_threshold(threshold, *named)
        faces = subject == "faces"
        return Reading(
            head,
            "faces" if faces else "picture",
            limit,
            field("decision_band"),
            field("license_notice"),
            recipe_of(self.pipeline.processor) if faces else None,
            _seen_side(self.pipeline.processor),
        )

    def prepare(self, image: Image.Image, reading: Reading) -> dict[str, Any]:
        """Return the processor's tensors for one RGB image, each with a batch axis of 1."""
        options = {} if reading.head is None else {"head": reading.head}
        found = self.pipeline.processor(images=image, return_tensors="pt", **options)
        return {name: value for name, value in found.items() if name != "head"}

    def logits(self, prepared: Sequence[Mapping[str, Any]], reading: Reading) -> list[tuple[float, float]]:
        """Score prepared images in one forward pass.

        Returns:
            Calibrated logits (real, fake) of each.

        Raises:
            ValueError: if the logits are not finite.
        """
        model = self.pipeline.model
        features = join_prepared(self.pipeline.processor, prepared)
        for name, value in features.items():
            if isinstance(value, torch.Tensor):
                value = value.to(model.device)
                features[name] = value.to(model.dtype) if value.is_floating_point() else value
        heads = {} if reading.head is None else {"head": reading.head}
        logits = model.detect(**features, **heads).logits.float().cpu()
        if not torch.isfinite(logits).all():
            raise ValueError(
                f"The model returned logits that are not finite in {model.dtype}: its weights are damaged, or "
                'overflow; try dtype="float32".'
            )
        return [(float(real), float(fake)) for real, fake in logits]

    def describe(self, image: Image.Image, reading: Reading, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the pipeline's row for one image, with explanation and mask if requested in `options`."""
        heads = {} if reading.head is None else {"head": reading.head}
        return self.pipeline(image, threshold=reading.threshold, **heads, **options)

    def require(self, explain: bool, localize: bool) -> None:
        """Raise a `ValueError` if the detector lacks a requested ability."""
        for ability, asked in (("explain", explain), ("localize", localize)):
            if asked:
                require_ability(self.pipeline.model, ability)


def _seen_side(processor: Any) -> int | None:
    """Return the shorter side to which an image processor resizes, from its `size`."""
    size = getattr(getattr(processor, "image_processor", processor), "size", None)
    if size is None:
        return None
    sides = [dict(size).get(name) for name in ("shortest_edge", "height", "width")]
    return min((int(side) for side in sides if side), default=None)


def public_name(source: str) -> str:
    """Return the public name of a model: for a folder, only its name without the location."""
    for name in BUILT_IN:
        if Path(source) == built_in_path(name):
            return name
    return Path(source).resolve().name if Path(source).exists() or Path(source).is_absolute() else source


def _limits(family: str, class_name: str) -> list[str]:
    try:
        limits = family_facts(family).get("limits") or []
    except ValueError:  # a family of another package without facts
        return []
    return [str(limit) for limit in (limits.get(class_name, []) if isinstance(limits, Mapping) else limits)]


def files_digest(source: str) -> str | None:
    """Return the SHA-256 of the weights of a folder or Hub id; `None` without safetensors files."""
    folder = Path(source)
    if not folder.is_dir():
        config = cached_file(source, CONFIG_NAME)
        folder = Path(str(config)).parent
    return weights_digest(folder)


def _parameters_digest(pipeline: DeepfakeDetectionPipeline) -> str:
    """Return the SHA-256 over names and bytes of all parameters and saved buffers, computed once per pipeline."""
    if pipeline.model not in _digests:
        digest = sha256()
        for name, tensor in sorted(pipeline.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        _digests[pipeline.model] = digest.hexdigest()
    return _digests[pipeline.model]
