"""The `deepfake-detection` pipeline: any detector of this package, images from any source, one row per image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.pipelines.pt_utils import PipelineIterator
from transformers.utils import logging

from .configuration_detection import decide
from .conversation_turns import History, has_one_per_picture
from .detection import detector_classes, join_prepared, named_after, require_ability, require_head
from .image_loading import InputImageError, describe_image_source, draft_side, load_draft, load_image
from .pipeline_inputs import Asked, asked_pictures, is_single, readable_rows
from .prefetching import PreparedBatches
from .saving import saved_whole

__all__ = ["TASK", "DeepfakeDetectionPipeline", "show_license_notice"]

logger = logging.get_logger(__name__)

TASK = "deepfake-detection"
DEFAULT_THRESHOLD = 0.5
ON_ERROR = ("raise", "record")
HEATMAP = "heatmap"
NEEDS_EXPLAIN = "question, history and generate_kwargs shape the explanation: pass explain=True with them."
TURN_PARTS = ("question", "history")
OWN_TURN = "own_"  # in front of their names among the features of a picture


class DeepfakeDetectionPipeline(Pipeline):
    """Scores images with a detector of this package.

    The model needs `detect(**inputs)`, and with `can_explain` also `explain(processor, question=..., threshold=...,
    **inputs)`, where `inputs` is the output of the processor for images without text. With `can_localize`, the image
    processor needs `mask_to_picture(mask, picture_size)`. A model that loads stock folders needs
    `adopt_processor(stock_processor)`; a processor whose tensors do not have one row per image needs `collate(rows)`.

    ```python
    import deepfake_detectors
    from transformers import pipeline

    pipeline("deepfake-detection")("face.jpg")["fake_probability"]
    ```

    Args:
        model: a detector of this package.
        processor: the detector's processor, called with `images=<RGB PIL image>, return_tensors="pt"`.
        threshold, explain, localize, question, history, head, generate_kwargs, on_error, batch_size, num_workers:
            defaults for every call, see `__call__`. All other arguments are those of `transformers.Pipeline`.

    Raises:
        ValueError: if the model is not a detector, if the processor is missing, or for an argument that a call would
            refuse.
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
            hint = f"If these are the weights of a detector, load them with {loaders}. " if loaders else ""
            raise ValueError(
                f"{type(model).__name__} (model_type {model.config.model_type!r}) is not a deepfake detector (no "
                f"`detect` method). {hint}Official weights in another format must be converted first: "
                "deepfake_detectors.convert(family, sources, output)."
            )
        # transformers.pipeline() passes on arguments that were meant for the download
        kwargs.pop("local_files_only", None)
        if getattr(model, "hf_device_map", None) is None and model.device.type == "meta":
            kwargs["device"] = model.device  # accelerate manages the weights: they must not be moved
        super().__init__(model, *args, **kwargs)
        if self.processor is None:
            raise ValueError(
                f"{type(self).__name__} needs the processor of {type(model).__name__}: pass processor=..."
            )
        if hasattr(model, "adopt_processor"):  # for a stock folder, whose own processor does not know the question
            self.processor = model.adopt_processor(self.processor)
        if self.image_processor is None:  # a family may have only an image processor
            self.image_processor = self.processor
        self.device = getattr(model, "input_device", self.device)  # weights may be on another device
        self.model.eval()
        if notice := getattr(model.config, "license_notice", None):
            show_license_notice(notice)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Score one image or many.

        Args:
            inputs: a path, an http(s) URL, bytes, an open file, a PIL image, a numpy array, a torch tensor or a dict
                with "image" (see `load_image`), or several of these: a list, a tuple, a generator, a dataset (with a
                column `image`), a column of a dataset or of a pandas table (in its order), or a `KeyDataset`.
            threshold (`float` or `str`, *optional*): P(fake) in [0, 1] at or above which the label is `fake`, or the
                name of one of the model's operating points (`model.config.operating_points`). Default 0.5.
            explain (`bool`, *optional*): also write an explanation.
            localize (`bool` or `"heatmap"`, *optional*): also return a mask of the manipulated area; or, with
                `"heatmap"`, what the verdict is based on, for families without masks. A heat map is attention or
                relevance within one image: it does not show what was manipulated, or whether anything was.
            head (`str`, *optional*): use this head, if the checkpoint has several: `"face"` of the built-in
                `clip-probe-mini` needs face crops. The default is `model.config.default_head`.
            question (`str` or list, *optional*): ask this instead of the detector's own question; needs
                `explain=True`. A list has one per image, `None` for the detector's own.
            history (`list[tuple[str, str]]` or list of such lists, *optional*): earlier questions with their answers,
                oldest first, before the question; needs `explain=True`. A list of lists has one per image.
            generate_kwargs (`dict`, *optional*): arguments of `generate` for the explanation.
            on_error (`str`, *optional*): `"raise"` (default) stops at the first image that cannot be read; `"record"`
                returns the row `{"error": <message>, "input": <path or description>}` in its place.
            max_pixels (`int`, *optional*): largest width times height to decode, default 100 million; decoding uses at
                most ten bytes per pixel.
            allow_private_hosts (`bool`, *optional*): also download from loopback, link-local and private addresses.
            timeout (`float`, *optional*): timeout of a download in seconds, default 20.
            decoding (`str`, *optional*): `"full"` (default), or `"draft"`: decode large JPEG files in a half, a
                quarter or an eighth of their size, but at least twice that of the processor. For photos of 5
                megapixels this saves half of the CPU time for reading or more. It **changes the pixels** that the
                model sees, and so its scores, a little; the rows contain `decoding: "draft"`. Other formats are
                decoded in full.
            batch_size (`int`, *optional*): images per forward pass, default 1.
            num_workers (`int`, *optional*): threads that load and preprocess images while the model scores others,
                default 0. Generators run in the calling thread; the workers read the rows of tables.

        Returns:
            For one image a dict, for a list or tuple a list of dicts in the same order, and for any other input a lazy
            iterator of dicts. Each has `label` (`"real"` or `"fake"`), `score` (the probability of that label),
            `fake_probability` (in [0, 1]), `threshold`, `decision` (`"likely fake"`, `"likely real"` or
            `"inconclusive"` by the checkpoint's decision band; `None` if it does not have one), `explanation` and
            `explanation_verdict` (`str` or `None`) and `mask` (`None`, or a PIL image of mode `L`, 0-255, with the
            size of the image). With `decoding="draft"` also `decoding`. With `localize="heatmap"` also `heatmap`, in
            the same form. For a checkpoint with named
            heads also `head`, and the `terms` of that head's weights.

        Raises:
            InputImageError: a `ValueError` that names the image, unless `on_error="record"`.
            ValueError: for an argument out of range, or an ability that the model does not have.
        """
        if own := self._pop_own_turns(kwargs):
            inputs = asked_pictures(inputs, own)
        if is_single(inputs):
            return super().__call__(inputs, **kwargs)
        if isinstance(inputs, (list, tuple)):
            # The base class looks at the first element.
            return super().__call__(list(inputs), **kwargs) if inputs else []
        if (rows := readable_rows(inputs)) is not None:
            return super().__call__(rows, **kwargs)
        if isinstance(inputs, Iterable):
            return super().__call__((item for item in inputs), **kwargs)
        return super().__call__(inputs, **kwargs)

    def _pop_own_turns(self, options: dict[str, Any]) -> dict[str, Sequence[Any]]:
        """Take questions and histories that are given one per picture out of a call's options."""
        own: dict[str, Sequence[Any]] = {}
        if isinstance(options.get("question"), (list, tuple)):
            own["question"] = options.pop("question")
        if has_one_per_picture(options.get("history")):
            histories = options.pop("history")
            if any(histories):
                require_ability(self.model, "converse")
                own["history"] = histories
        if own and not options.get("explain", self._forward_params.get("explain")):
            raise ValueError(NEEDS_EXPLAIN)
        return own

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
        history: History | None = None,
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
        # A call may add a question to explain=True from the constructor.
        explains = {**getattr(self, "_forward_params", {}), **forward}.get("explain", False)
        if not explains and any(value is not None for value in (question, history, generate_kwargs)):
            raise ValueError(NEEDS_EXPLAIN)
        if isinstance(question, (list, tuple)) or has_one_per_picture(history):
            raise ValueError("question and history with one entry per image belong to the call that has the images.")
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
            # The explanation is about the verdict shown in the label.
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
        """Return a field of the config, for this head if the model has several."""
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
        """Load and preprocess one image for one of the model's heads; `loading` is passed to `load_image`.

        Args:
            input_: as in `__call__`, a single one.
            head: prepare for this head.
            draft_side: of `load_draft`; loaded in full if `None`.

        Returns:
            The processor's tensors, each with a batch axis of 1, plus `source` (its name), `picture_size` (width and
            height, for the mask), `failure` (`None`, or the `InputImageError`) and, if every image has its own,
            question and history. A failed image gets the tensors of a blank one, to keep its place in the batch; its
            error is raised later in the main process, because a worker process would lose it.
        """
        failure, picture_size, own = None, (0, 0), {}
        if isinstance(input_, Asked):
            input_, own = input_.image, {OWN_TURN + name: value for name, value in input_.turn.items()}
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
            features = {"row": features}  # which batching does not change
        return {**features, **own, "source": source, "picture_size": picture_size, "failure": failure}

    def _process(self, image: Image.Image, head: str | None) -> Mapping[str, Any]:
        options = {} if head is None else {"head": head}
        found = self.processor(images=image, return_tensors="pt", **options)
        return {name: value for name, value in found.items() if name != "head"}  # `_forward` names it for the batch

    def _prepare(self, image: Image.Image, source: str, head: str | None) -> Mapping[str, Any]:
        try:
            return self._process(image, head)
        except ValueError as error:
            raise InputImageError(
                f"{source}: the processor cannot use this image of {image.width}x{image.height} pixels ({error}).",
                source,
            ) from error

    def _forward(
        self,
        model_inputs: dict[str, Any],
        on_error: str = "raise",
        explain: bool = False,
        localize: bool | str = False,
        question: str | None = None,
        history: History | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        head: str | None = None,
    ) -> dict[str, Any]:
        features = dict(model_inputs)
        rows = features.pop("row", None)
        source, failure, picture_size = (features.pop(name) for name in ("source", "failure", "picture_size"))
        own = {name: features.pop(OWN_TURN + name) for name in TURN_PARTS if OWN_TURN + name in features}
        batched = isinstance(failure, list)  # entries of a single image are not in a list
        failures = failure if batched else [failure]
        if on_error == "raise":
            for error in failures:
                if error is not None:
                    raise error
        # The blank for a failed image is removed here, so that it cannot affect the rest of the batch.
        good = [index for index, error in enumerate(failures) if error is None]
        probability = torch.full((len(failures),), math.nan, dtype=torch.float32, device=self.device)
        texts: list[str | None] = [None] * len(failures)
        verdicts: list[str | None] = [None] * len(failures)
        masks: torch.Tensor | None = None
        heatmaps: torch.Tensor | None = None
        if good:
            if rows is not None:
                features = join_prepared(self.processor, [rows[index] for index in good] if batched else [rows])
            elif len(good) < len(failures):
                features = _select(features, good)
            features = {name: self._in_dtype(value) for name, value in features.items()}
            if explain:
                turn = {"question": question, **({} if history is None else {"history": history})}
                for name, value in own.items():
                    turn[name] = [value[index] for index in good] if batched else [value]
                output = self.model.explain(
                    self.processor,
                    threshold=threshold,
                    **turn,
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
        """Start a conversation about one image.

        Args:
            image: a single image, as in `__call__`.

        Returns:
            A `Conversation`, with the verdict in `detection`.

        Raises:
            InputImageError: a `ValueError`, for an image that cannot be read.
            ValueError: if the detector cannot converse.
        """
        require_ability(self.model, "converse")
        features = self.preprocess(image)
        _, failure, _ = (features.pop(name) for name in ("source", "failure", "picture_size"))
        if failure is not None:
            raise failure
        if "row" in features:
            features = join_prepared(self.processor, [features["row"]])
        inputs = {name: self._in_dtype(value.to(self.model.input_device)) for name, value in features.items()}
        return self.model.converse(self.processor, **inputs)

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
        """Turn the output for one image into its row; see `__call__`."""
        if (failure := model_outputs["failure"]) is not None:
            return {"error": str(failure), "input": failure.source}
        probability = model_outputs["fake_probability"].item()
        if not math.isfinite(probability):
            raise ValueError(
                f"{model_outputs['source']}: the model answered P(fake) = {probability}. Either its written answer "
                f"(score='generate') says neither real nor fake, or its weights are damaged or overflow in "
                f"{self.model.dtype}; try dtype=torch.float32."
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
        """Save model and processor to a folder that `pipeline("deepfake-detection", model=folder)` loads.

        Args:
            save_directory: folder to write; created if needed.
            remote_code: also copy the code of pipeline, model and processors and refer to it in the configs, for users
                without this package. `transformers.pipeline` then requires `trust_remote_code=True`, even if the
                package is imported; `deepfake_detectors.pipeline` does not.
            kwargs: passed to the model's and the processor's `save_pretrained`.
        """
        config = self.model.config
        # A folder without the code must not refer to it, regardless of where the model came from.
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


def _select(features: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The entries of `rows`."""
    return {
        name: value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
        for name, value in features.items()
    }


@contextmanager
def _carrying_code(model: Any, processor: Any) -> Iterator[None]:
    """Make `save_pretrained` also write the code of model, config and processors while the context is open."""
    classes = {type(model): "AutoModel", type(model.config): "AutoConfig", type(processor): "AutoProcessor"}
    if (image_processor := getattr(processor, "image_processor", None)) is not None:
        classes[type(image_processor)] = "AutoImageProcessor"
    # A chat model's folder has an image processor from transformers.
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
    """Log the terms of restricted weights as a warning, once per process. Detectors have them in `license_notice`."""
    logger.warning_once(notice)
