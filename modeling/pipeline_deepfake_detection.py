"""The `deepfake-detection` pipeline: any detector of this package, any kind of picture, one row per picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.pipelines.pt_utils import PipelineIterator
from transformers.utils import logging

from .configuration_detection import decide
from .detection import detector_classes, named_after, require_ability, require_head
from .image_loading import InputImageError, describe_image_source, draft_side, load_draft, load_image
from .prefetching import PreparedBatches
from .saving import saved_whole

__all__ = ["TASK", "DeepfakeDetectionPipeline", "show_license_notice"]

logger = logging.get_logger(__name__)

TASK = "deepfake-detection"
DEFAULT_THRESHOLD = 0.5
ON_ERROR = ("raise", "record")
HEATMAP = "heatmap"
SINGLE_INPUTS = (str, os.PathLike, bytes, bytearray, memoryview, Mapping, Image.Image, np.ndarray, torch.Tensor)


class DeepfakeDetectionPipeline(Pipeline):
    """Judges pictures with a detector that keeps the contract of this package.

    That is `model.detect(**inputs)`, and of a class with `can_explain` also `model.explain(processor, question=...,
    threshold=..., **inputs)`, where `inputs` are what the processor makes of pictures alone. The image processor of a
    class with `can_localize` has `mask_to_picture(mask, picture_size)`. A model that reads stock folders has
    `adopt_processor(stock_processor)`; a processor whose tensors do not have one row per picture has `collate(rows)`.

    ```python
    import deepfake_detectors
    from transformers import pipeline

    pipeline("deepfake-detection")("face.jpg")["fake_probability"]
    ```

    Args:
        model: a detector of this package.
        processor: the detector's processor; it is called with `images=<RGB PIL image>, return_tensors="pt"`.
        threshold, explain, localize, question, history, head, generate_kwargs, on_error, batch_size, num_workers:
            defaults for every call, see `__call__`. The other arguments are those of `transformers.Pipeline`.

    Raises:
        ValueError: if the model is not a detector, if the processor is missing, or for any argument that a call
            would refuse.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _load_tokenizer = False

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        if not hasattr(model, "detect"):
            built_on_it = sorted({cls.__name__ for cls in detector_classes() if issubclass(cls, type(model))})
            loaders = " or ".join(f"{name}.from_pretrained" for name in built_on_it)
            hint = f"If the weights are those of a detector, load them with {loaders}. " if loaders else ""
            raise ValueError(
                f"{type(model).__name__} (model_type {model.config.model_type!r}) is not a deepfake detector (no "
                f"`detect` method). {hint}Weights of an official release in another form have to be converted first: "
                "deepfake_detectors.convert(family, sources, output)."
            )
        kwargs.pop("local_files_only", None)  # transformers.pipeline() hands on what was meant for the download
        if getattr(model, "hf_device_map", None) is None and model.device.type == "meta":
            kwargs["device"] = model.device  # accelerate brings the weights: they must not be moved
        super().__init__(model, *args, **kwargs)
        if self.processor is None:
            raise ValueError(
                f"{type(self).__name__} needs the processor of {type(model).__name__}: pass processor=..."
            )
        if hasattr(model, "adopt_processor"):  # of a stock folder, whose own processor does not know the question
            self.processor = model.adopt_processor(self.processor)
        if self.image_processor is None:  # a family may have an image processor and nothing around it
            self.image_processor = self.processor
        self.device = getattr(model, "input_device", self.device)  # weights may lie elsewhere
        self.model.eval()
        if notice := getattr(model.config, "license_notice", None):
            show_license_notice(notice)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Judge one picture or many.

        Args:
            inputs: a path, an http(s) URL, bytes, an open file, a PIL image, a numpy array, a torch tensor or a dict
                with "image" (`load_image` has the details), or several: a list, a tuple, a generator, a dataset
                (rows with a column `image`), a column of one or of pandas (in its order), or a `KeyDataset`.
            threshold (`float` or `str`, *optional*): label `fake` from this P(fake) on, in [0, 1]; or the name of
                one of the model's operating points (`model.config.operating_points`). Default 0.5.
            explain (`bool`, *optional*): also write an explanation.
            localize (`bool` or `"heatmap"`, *optional*): also give the manipulated area; or, of a family that gives
                none, what its verdict looked at. A heat map is attention or relevance within one picture: it does not
                say what was changed, nor whether anything was.
            head (`str`, *optional*): judge with this head, where the checkpoint has several: `"face"` of the built-in
                `clip-probe-mini` takes crops of faces. The default is `model.config.default_head`.
            question (`str`, *optional*): ask this instead of the detector's own question; needs `explain=True`.
            history (`list[tuple[str, str]]`, *optional*): earlier questions with their answers, the oldest first,
                which the question follows; needs `explain=True`.
            generate_kwargs (`dict`, *optional*): arguments of `generate` for the explanation.
            on_error (`str`, *optional*): `"raise"` (default) stops at the first picture that cannot be read;
                `"record"` gives the row `{"error": <message>, "input": <path or description>}` in its place.
            max_pixels (`int`, *optional*): width times height that is decoded, default 100 million; memory for it
                is bounded to ten bytes for each of them.
            allow_private_hosts (`bool`, *optional*): also download from loopback, link-local and private addresses.
            timeout (`float`, *optional*): seconds that a download may take, default 20.
            decoding (`str`, *optional*): `"full"` (default), or `"draft"`: large JPEG files are decoded in a half, a
                quarter or an eighth of their size, but at least twice that of the processor. Of photos with 5
                megapixels this saves half of the host's work or more. It **changes the pixels** that the model sees,
                and so its scores, a little: the rows say `decoding: "draft"`. Other formats are decoded in full.
            batch_size (`int`, *optional*): pictures per forward pass, default 1.
            num_workers (`int`, *optional*): threads that load and prepare pictures while the model judges others,
                default 0. Inputs are taken, and generators run, in the calling thread; rows of tables are read by
                the workers.

        Returns:
            For one picture a dict, for a list or tuple a list of dicts in the same order, and for everything else a
            lazy iterator of them. Each has `label` (`"real"` or `"fake"`), `score` (the probability of that label),
            `fake_probability` (in [0, 1]), `threshold`, `decision` (`"likely fake"`, `"likely real"` or
            `"inconclusive"` by the checkpoint's decision band; `None` where none was fitted), `explanation` and
            `explanation_verdict` (`str` or `None`) and `mask` (`None`, or a PIL image of mode `L`, 0-255, at the size
            of the picture). With `decoding="draft"` also `decoding`. With `localize="heatmap"` also `heatmap`, of the
            same form. Of a checkpoint with named heads also `head`, and `terms` of that head's weights.

        Raises:
            InputImageError: a `ValueError` that names the picture, unless `on_error="record"`.
            ValueError: for an argument out of range, or for an ability that the model does not have.
        """
        if isinstance(inputs, SINGLE_INPUTS) or hasattr(inputs, "read"):
            return super().__call__(inputs, **kwargs)
        if isinstance(inputs, (list, tuple)):
            # The base class looks at the first element.
            return super().__call__(list(inputs), **kwargs) if inputs else []
        if hasattr(inputs, "iloc"):  # pandas: by position, because labels may be in any order or have gaps
            inputs = _column(inputs).to_numpy(dtype=object)
            return super().__call__(_ReadableRows(inputs), **kwargs)
        if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__"):
            return super().__call__(_ReadableRows(inputs), **kwargs)
        if isinstance(inputs, Iterable):
            return super().__call__((item for item in inputs), **kwargs)
        return super().__call__(inputs, **kwargs)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        """As the base class, which hands pictures to worker processes and generators to one of them only."""
        for name, value, least in (("num_workers", num_workers, 0), ("batch_size", batch_size, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}, expected a whole number of {least} or more.")
        batches = PreparedBatches(inputs, partial(self.preprocess, **preprocess_params), num_workers, batch_size)
        judged = PipelineIterator(batches, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(judged, self.postprocess, postprocess_params)

    def _sanitize_parameters(
        self,
        explain: bool | None = None,
        localize: bool | str | None = None,
        question: str | None = None,
        history: Sequence[tuple[str, str]] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        threshold: float | str | None = None,
        on_error: str | None = None,
        head: str | None = None,
        max_pixels: int | None = None,
        allow_private_hosts: bool | None = None,
        timeout: float | None = None,
        decoding: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if explain:
            require_ability(self.model, "explain")
        if isinstance(localize, str) and localize != HEATMAP:
            raise ValueError(f"localize is {localize!r}, expected True, False or {HEATMAP!r}.")
        if localize:
            require_ability(self.model, "heatmap" if localize == HEATMAP else "localize")
        forward: dict[str, Any] = {}
        postprocess: dict[str, Any] = {}
        if history:
            require_ability(self.model, "converse")
        options = {
            "explain": explain,
            "localize": localize,
            "question": question,
            "history": history or None,
            "generate_kwargs": generate_kwargs,
        }
        for name, value in options.items():
            if value is not None:
                forward[name] = value
        # A call may add its question to explain=True of the construction.
        explains = {**getattr(self, "_forward_params", {}), **forward}.get("explain", False)
        if not explains and any(value is not None for value in (question, history, generate_kwargs)):
            raise ValueError(
                "question, history and generate_kwargs shape the explanation: pass explain=True with them."
            )
        loading = {"max_pixels": max_pixels, "allow_private_hosts": allow_private_hosts, "timeout": timeout}
        preprocess: dict[str, Any] = {name: value for name, value in loading.items() if value is not None}
        for name in ("max_pixels", "timeout"):
            value = preprocess.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, Real) or not value > 0:
                raise ValueError(f"{name} is {value!r}, expected a positive number.")
        if head is not None:
            preprocess["head"] = forward["head"] = postprocess["head"] = require_head(self.model, head)
            if notice := self._of_head(head, "license_notice"):
                show_license_notice(notice)
        if decoding is not None:
            judging = {**getattr(self, "_forward_params", {}), **forward}.get("head")
            preprocess["draft_side"] = draft_side(decoding, self.processor, judging)
            postprocess["decoding"] = decoding
        if threshold is not None:
            # The explanation is asked about the same verdict that the label shows.
            forward["threshold"] = postprocess["threshold"] = self.resolve_threshold(
                threshold, {**getattr(self, "_forward_params", {}), **forward}.get("head")
            )
        if on_error is not None:
            if on_error not in ON_ERROR:
                raise ValueError(f"on_error is {on_error!r}, expected one of {', '.join(map(repr, ON_ERROR))}.")
            forward["on_error"] = on_error
        return preprocess, forward, postprocess

    @property
    def decoding(self) -> str:
        """How pictures are decoded where a call does not say it: `"full"` or `"draft"`."""
        return self._postprocess_params.get("decoding", "full")

    def _of_head(self, head: str | None, field: str) -> Any:
        """A field of the config, of that head where the model has several."""
        config = self.model.config
        return config.of_head(head, field) if hasattr(config, "of_head") else getattr(config, field, None)

    def resolve_threshold(self, threshold: float | str, head: str | None = None) -> float:
        if isinstance(threshold, str):
            known = self._of_head(head, "operating_points")
            if threshold not in known:
                names = f"This model has: {', '.join(known)}." if known else "This model has none; pass a number."
                raise ValueError(f"threshold {threshold!r} is not an operating point. {names}")
            return float(known[threshold])
        if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0.0 <= threshold <= 1.0:
            raise ValueError(
                f"threshold is {threshold!r}, expected a number in [0, 1] or the name of an operating point."
            )
        return float(threshold)

    def preprocess(
        self, input_: Any, head: str | None = None, draft_side: int | None = None, **loading: Any
    ) -> dict[str, Any]:
        """Load and prepare one picture, for one of the model's heads; `loading` is passed to `load_image`.

        Args:
            input_: as in `__call__`, a single one.
            head: prepare for this head.
            draft_side: of `load_draft`; loaded in full if `None`.

        Returns:
            The processor's tensors, each with a batch axis of 1, plus `source` (its name), `picture_size` (width and
            height, for the mask) and `failure` (`None`, or the `InputImageError`). A picture that failed has the
            tensors of a blank one, so that it keeps its place in the batch; and its error is raised later, in the main
            process, because a worker process would lose it.
        """
        failure, picture_size = None, (0, 0)
        try:
            if isinstance(input_, InputImageError):
                raise input_
            if draft_side is None:
                image = load_image(input_, **loading)
                picture_size = image.size
            else:
                image, picture_size = load_draft(input_, draft_side, **loading)
            features = self._prepare(image, describe_image_source(input_), head)
        except InputImageError as error:
            failure = error
            features = self._process(Image.new("RGB", (64, 64)), head)
        source = describe_image_source(input_) if failure is None else failure.source
        if hasattr(self.processor, "collate"):
            features = {"row": features}  # which batching leaves alone
        return {**features, "source": source, "picture_size": picture_size, "failure": failure}

    def _process(self, image: Image.Image, head: str | None) -> Mapping[str, Any]:
        options = {} if head is None else {"head": head}
        found = self.processor(images=image, return_tensors="pt", **options)
        return {name: value for name, value in found.items() if name != "head"}  # `_forward` names it for the batch

    def _prepare(self, image: Image.Image, source: str, head: str | None) -> Mapping[str, Any]:
        try:
            return self._process(image, head)
        except ValueError as error:
            raise InputImageError(
                f"{source}: the processor cannot use this picture of {image.width}x{image.height} pixels ({error}).",
                source,
            ) from error

    def _forward(
        self,
        model_inputs: dict[str, Any],
        on_error: str = "raise",
        explain: bool = False,
        localize: bool | str = False,
        question: str | None = None,
        history: Sequence[tuple[str, str]] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        head: str | None = None,
    ) -> dict[str, Any]:
        features = dict(model_inputs)
        rows = features.pop("row", None)
        source, failure, picture_size = (features.pop(name) for name in ("source", "failure", "picture_size"))
        batched = isinstance(failure, list)  # of a single picture, the entries come bare
        failures = failure if batched else [failure]
        if on_error == "raise":
            for error in failures:
                if error is not None:
                    raise error
        # The blank that stands for a failed picture goes no further: it must not reach the others of its batch.
        good = [index for index, error in enumerate(failures) if error is None]
        probability = torch.full((len(failures),), math.nan, dtype=torch.float32, device=self.device)
        texts: list[str | None] = [None] * len(failures)
        verdicts: list[str | None] = [None] * len(failures)
        masks: torch.Tensor | None = None
        heatmaps: torch.Tensor | None = None
        if good:
            if rows is not None:
                features = self.processor.collate([rows[index] for index in good] if batched else [rows])
                features = {name: self._in_dtype(value) for name, value in features.items()}
            else:
                features = self._select(features, good)
            if explain:
                turns = {} if history is None else {"history": history}
                output = self.model.explain(
                    self.processor,
                    question=question,
                    threshold=threshold,
                    **turns,
                    **features,
                    **(generate_kwargs or {}),
                )
                for index, text, verdict in zip(good, output.explanations, output.explanation_verdicts, strict=True):
                    texts[index], verdicts[index] = text, verdict
            else:
                output = self.model.detect(**features, **({} if head is None else {"head": head}))
            probability[good] = output.fake_probability
            if localize == HEATMAP:
                found = self.model.heatmap(**features)
                heatmaps = found.new_zeros(len(failures), *found.shape[1:])
                heatmaps[good] = found
            elif localize:
                masks = output.mask.new_zeros(len(failures), *output.mask.shape[1:])
                masks[good] = output.mask
        return {
            "fake_probability": probability,
            "mask": masks,
            "heatmap": heatmaps,
            "picture_size": picture_size,
            "explanation": texts if batched else texts[0],
            "explanation_verdict": verdicts if batched else verdicts[0],
            "source": source,
            "failure": failure,
        }

    def converse(self, image: Any) -> Any:
        """Begin a conversation about one picture.

        Args:
            image: as in `__call__`, a single one.

        Returns:
            A `Conversation`, with the verdict in `detection`.

        Raises:
            InputImageError: a `ValueError`, for a picture that cannot be read.
            ValueError: if the detector cannot converse.
        """
        require_ability(self.model, "converse")
        features = self.preprocess(image)
        _, failure, _ = (features.pop(name) for name in ("source", "failure", "picture_size"))
        if failure is not None:
            raise failure
        if "row" in features:
            features = dict(self.processor.collate([features["row"]]))
        inputs = {name: self._in_dtype(value.to(self.model.input_device)) for name, value in features.items()}
        return self.model.converse(self.processor, **inputs)

    def _select(self, features: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        """The tensors of `rows`, floating ones in the model's dtype."""
        selected = {}
        for key, value in features.items():
            value = value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
            selected[key] = self._in_dtype(value)
        return selected

    def _in_dtype(self, value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(self.model.dtype) if floating else value

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        threshold: float = DEFAULT_THRESHOLD,
        head: str | None = None,
        decoding: str = "full",
    ) -> dict[str, Any]:
        """Turn the output for one picture into its row; see `__call__`."""
        if (failure := model_outputs["failure"]) is not None:
            return {"error": str(failure), "input": failure.source}
        probability = model_outputs["fake_probability"].item()
        if not math.isfinite(probability):
            raise ValueError(
                f"{model_outputs['source']}: the model answered P(fake) = {probability}. Either it judges by the "
                "words it writes (score='generate') and they say neither real nor fake, or its weights are damaged or "
                f"overflow in {self.model.dtype}; try dtype=torch.float32."
            )
        fake = probability >= threshold
        mask = model_outputs["mask"]
        if mask is not None:
            mask = self.image_processor.mask_to_picture(mask[0], tuple(model_outputs["picture_size"]))
        heat = {}
        if (heatmap := model_outputs["heatmap"]) is not None:
            size = tuple(model_outputs["picture_size"])
            heat = {"heatmap": self.image_processor.heatmap_to_picture(heatmap[0], size)}
        named = require_head(self.model, head)
        heads = {} if named is None else {"head": named, "terms": self._of_head(named, "license_notice")}
        return {
            "label": self.model.config.id2label[int(fake)],
            "score": probability if fake else 1.0 - probability,
            "fake_probability": probability,
            "threshold": threshold,
            "decision": decide(probability, self._of_head(head, "decision_band")),
            "explanation": model_outputs["explanation"],
            "explanation_verdict": model_outputs["explanation_verdict"],
            "mask": mask,
            **heat,
            **heads,
            **({} if decoding == "full" else {"decoding": decoding}),
        }

    def save_pretrained(self, save_directory: str | Path, remote_code: bool = False, **kwargs: Any) -> None:
        """Save model and processor into one folder that `pipeline("deepfake-detection", model=folder)` loads.

        Args:
            save_directory: the folder; created if needed.
            remote_code: also copy the code of pipeline, model and processors and name it in the configs, for users who
                do not have this package. `transformers.pipeline` then demands `trust_remote_code=True`, even where the
                package is imported; `deepfake_detectors.pipeline` does not.
            kwargs: passed to the model's and the processor's `save_pretrained`.
        """
        config = self.model.config
        # A folder without the code must not name it, wherever the model came from.
        inherited = vars(config).pop("custom_pipelines", None)
        kwargs = named_after(save_directory, kwargs)
        try:
            with saved_whole(save_directory) as folder:
                if remote_code:
                    implementation = f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"
                    config.custom_pipelines = {TASK: {"impl": implementation, "pt": ["AutoModel"]}}
                    custom_object_save(self, folder)
                with _carrying_code(self.model, self.processor) if remote_code else nullcontext():
                    self.model.save_pretrained(folder, **kwargs)
                    self.processor.save_pretrained(folder, **kwargs)
        finally:
            vars(config).pop("custom_pipelines", None)
            if inherited is not None:
                config.custom_pipelines = inherited


@contextmanager
def _carrying_code(model: Any, processor: Any) -> Iterator[None]:
    """While it lasts, `save_pretrained` also writes the code of model, config and processors, and names it."""
    classes = {type(model): "AutoModel", type(model.config): "AutoConfig", type(processor): "AutoProcessor"}
    if (image_processor := getattr(processor, "image_processor", None)) is not None:
        classes[type(image_processor)] = "AutoImageProcessor"
    # A chat model's folder has an image processor of the library.
    classes = {cls: name for cls, name in classes.items() if not cls.__module__.startswith("transformers.")}
    before = {cls: cls._auto_class for cls in classes}
    named = vars(model.config).get("auto_map")
    try:
        for cls, name in classes.items():
            cls._auto_class = name
        yield
    finally:
        for cls, name in before.items():
            cls._auto_class = name
        vars(model.config).pop("auto_map", None)
        if named is not None:
            model.config.auto_map = named


def show_license_notice(notice: str) -> None:
    """Log the terms of restricted weights as a warning, once per process. Detectors carry it as `license_notice`."""
    logger.warning_once(notice)


def _column(table: Any) -> Any:
    """The column of a pandas table that holds its pictures; a single column as it is."""
    if not hasattr(table, "columns"):
        return table
    if "image" not in table.columns:
        names = ", ".join(map(str, table.columns))
        raise InputImageError(f"a table with the columns {names}: pass one of them, or name it 'image'.", "a table")
    return table["image"]


class _ReadableRows(Dataset):
    """A dataset or a column whose rows may fail to decode, because `datasets` opens pictures by itself."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        try:
            row = self.rows[index]
            return row.as_py() if hasattr(row, "as_py") else row  # a cell of pyarrow
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = f"row {index}"
            return InputImageError(f"{name}: cannot be read ({type(error).__name__}: {error}).", name)
