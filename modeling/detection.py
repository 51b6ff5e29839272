"""The contract of all detectors: `model.detect(**inputs)` returns calibrated logits and optionally a mask."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from transformers import PreTrainedConfig, ProcessorMixin
from transformers.utils import CONFIG_NAME, ModelOutput

from .saving import finish_saving, saved_whole

__all__ = [
    "LLAVA_CODE_FIELDS",
    "HUB_ARGUMENTS",
    "OFFICIAL_SUFFIXES",
    "DeepfakeDetectionMixin",
    "DeepfakeDetectionOutput",
    "DeepfakeExplanationOutput",
    "DetectorProcessorMixin",
    "UnconvertedCheckpointError",
    "VerdictProcessor",
    "MaskSupervision",
    "given_mask_labels",
    "join_prepared",
    "named_after",
    "own_weights",
    "detector_classes",
    "refuse_foreign_checkpoint",
    "refuse_official_files",
    "require_ability",
    "require_complete",
    "require_head",
    "verdict_config",
]

# Arguments that locate a checkpoint.
HUB_ARGUMENTS = ("cache_dir", "revision", "token", "subfolder", "local_files_only")
# Built-in checkpoints with abilities that not every detector has.
BUILT_IN_EXAMPLES = {"explain": "m2f2-det-mini", "converse": "m2f2-det-mini", "heatmap": "m2f2-det-mini"}
# How a caller requests an ability, and its name in messages if that differs.
ASKED_BY = {
    "explain": "explain=True",
    "localize": "localize=True",
    "converse": "history",
    "heatmap": "localize='heatmap'",
}
CAN = {"heatmap": "make a heat map"}
OFFICIAL_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
# Only LLaVA's original code and its forks write these keys to config.json.
LLAVA_CODE_FIELDS = ("mm_projector_type", "mm_vision_tower")


class UnconvertedCheckpointError(ValueError):
    """Raised for official weights that must be converted before they can be loaded.

    Args:
        fault: what was found, as a full sentence.
        family: `model_type` to convert to; `None` if unknown.
        source: what should have been loaded.
    """

    def __init__(self, fault: str, family: str | None, source: Any) -> None:
        super().__init__(fault, family, str(source))
        self.fault, self.family, self.source = fault, family, str(source)

    def __str__(self) -> str:
        family = "family" if self.family is None else repr(self.family)
        return f"{self.fault} Convert it first: deepfake_detectors.convert({family}, {self.source!r}, output)"


@dataclass
class DeepfakeDetectionOutput(ModelOutput):
    """
    Args:
        logits (`torch.FloatTensor` of shape `(batch, 2)`): calibrated, float32, order `[real, fake]`, so that
            `logits.softmax(-1)[:, 1]` is P(fake).
        mask (`torch.FloatTensor` of shape `(batch, height, width)`, *optional*): manipulated area in [0, 1].
    """

    logits: torch.FloatTensor | None = None
    mask: torch.FloatTensor | None = None

    @property
    def fake_probability(self) -> torch.FloatTensor:
        """P(fake), shape `(batch,)`, in [0, 1]."""
        return self.logits.softmax(dim=-1)[:, 1]


@dataclass
class DeepfakeExplanationOutput(DeepfakeDetectionOutput):
    """
    Args:
        explanations (`list[str]`): one text per image, without special tokens.
        explanation_verdicts (`list[str | None]`): the verdict in each text, `"real"` or `"fake"`; `None` if it says
            neither or both.
    """

    explanations: list[str] | None = None
    explanation_verdicts: list[str | None] | None = None


class MaskSupervision(TypedDict, total=False):
    """Keyword arguments of a verdict class's `forward` in addition to images and class labels.

    `Trainer` expects every parameter with "label" in its name in each batch, and reports neither loss nor metrics
    without it. Mask labels are optional and therefore not parameters. `Trainer` keeps their column with
    `label_names=["labels", "mask_labels"]` or `remove_unused_columns=False`.
    """

    mask_labels: torch.Tensor | None


def given_mask_labels(kwargs: Any) -> torch.Tensor | None:
    """Return `mask_labels` from the keyword arguments of `forward`, or `None`.

    Raises:
        TypeError: for any other keyword.
    """
    unknown = sorted(set(kwargs) - set(MaskSupervision.__annotations__))
    if unknown:
        raise TypeError(f"forward() got unexpected keyword arguments: {', '.join(unknown)}.")
    return kwargs.get("mask_labels")


def require_ability(model: Any, ability: str) -> None:
    """Raise a `ValueError` if `model` lacks an ability; the message names the families that have it.

    Args:
        model: a detector with the class attributes `can_explain`, `can_localize`, `can_converse` and `can_heatmap`.
        ability: `"explain"`, `"localize"`, `"converse"` or `"heatmap"`.
    """
    if getattr(model, f"can_{ability}", False):
        return
    able = {
        f"{cls.config_class.model_type} ({cls.__name__})"
        for cls in detector_classes()
        if getattr(cls, f"can_{ability}", False)
    }
    remedy = (
        f"Families that can: {', '.join(sorted(able))}."
        if able
        else f"None of the loaded classes can {CAN.get(ability, ability)}."
    )
    if ability in BUILT_IN_EXAMPLES:
        remedy += f" The built-in checkpoint {BUILT_IN_EXAMPLES[ability]!r} is a small example."
    doing = CAN.get(ability, ability)
    raise ValueError(f"{type(model).__name__} gives a verdict but cannot {doing} ({ASKED_BY[ability]}). {remedy}")


def require_head(model: Any, head: str | None) -> str | None:
    """Return the head to use, by default the checkpoint's default head; `None` for models without named heads.

    Raises:
        ValueError: if the model does not have this head, or has no named heads; the message lists the existing ones.
    """
    if hasattr(model.config, "require_head"):
        return model.config.require_head(head)
    if head is not None:
        able = sorted(
            cls.__name__
            for cls in _subclasses(DeepfakeDetectionMixin)
            if hasattr(getattr(cls, "config_class", None), "require_head")
        )
        raise ValueError(
            f"head is {head!r}, but {type(model).__name__} has one verdict and no named heads. Classes with named "
            f"heads: {', '.join(able) or 'none loaded'}."
        )
    return None


def detector_classes() -> set[Any]:
    """Return the detector classes imported so far, including copies from the Hub, without base classes."""
    return {
        cls for cls in _subclasses(DeepfakeDetectionMixin) if not cls.__name__.endswith(("PreTrainedModel", "Mixin"))
    }


def _subclasses(cls: type) -> set[type]:
    children: list[type] = cls.__subclasses__()
    return {cls}.union(*map(_subclasses, children))


@contextmanager
def own_weights(module: Any) -> Iterator[None]:
    """Make the weights of `module` itself (not of its children) readable while the context is open.

    Accelerate loads offloaded weights only when their module is called, and `detect` and `explain` do not call it.
    """
    hook = getattr(module, "_hf_hook", None)
    if hook is None or all(weight.device.type != "meta" for weight in module.parameters(recurse=False)):
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


class DeepfakeDetectionMixin:
    """Mixin before `PreTrainedModel`: adds `detect`, calibration, and a strict `from_pretrained`.

    Attributes:
        can_explain: whether the class has `explain`, and `generate` writes text.
        can_localize: whether `detect` gives a `mask`.
        can_heatmap: whether the class has `heatmap`, which shows what the verdict is based on, not what was
            manipulated.
        can_converse: whether `explain` takes a `history`, and the class has `converse`.
        subject: what the class was trained to judge: `"faces"` (give it face crops) or `"picture"` (whole images of
            any kind). It decides how images are cropped and whether a verdict applies.
    """

    can_explain: ClassVar[bool] = False
    can_localize: ClassVar[bool] = False
    can_heatmap: ClassVar[bool] = False
    can_converse: ClassVar[bool] = False
    subject: ClassVar[str] = "picture"

    @property
    def input_device(self) -> torch.device:
        """Device for the inputs: the model's device, or the one to which accelerate moves offloaded weights."""
        for module in self.modules():
            hook = getattr(module, "_hf_hook", None)
            for part in getattr(hook, "hooks", (hook,)):
                if (device := getattr(part, "execution_device", None)) is not None:
                    return torch.device(device)
        return self.device

    def calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply the config's calibration to raw logits `(batch, 2)`; return float32 logits of the same shape.

        The difference d = fake - real becomes `scale * d + bias`; the mean of the pair does not change.
        """
        logits = logits.float()
        scale, bias = self.config.calibration["scale"], self.config.calibration["bias"]
        if (scale, bias) == (1.0, 0.0):
            return logits
        half = (scale * (logits[:, 1] - logits[:, 0]) + bias) / 2
        mean = logits.mean(dim=-1)
        return torch.stack([mean - half, mean + half], dim=-1)

    @torch.no_grad()
    def detect(self, **inputs: Any) -> DeepfakeDetectionOutput:
        """Score a batch. `inputs` are the tensors of the family's processor; see the class for their shapes."""
        return DeepfakeDetectionOutput(logits=self.calibrate(self(**inputs).logits))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a model like `PreTrainedModel.from_pretrained`, but require every weight and the right family.

        Raises:
            UnconvertedCheckpointError: for an official file, or a folder of them.
            ValueError: if the folder contains another family, or if keys are missing, unexpected or of the wrong
                shape. The message lists them.
        """
        finish_saving(pretrained_model_name_or_path)
        refuse_foreign_checkpoint(cls, pretrained_model_name_or_path, kwargs)
        return_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(  # type: ignore[misc]
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        require_complete(cls, pretrained_model_name_or_path, info)
        return (model, info) if return_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save like `PreTrainedModel.save_pretrained`; if killed, the folder has either its old or its new state."""
        if not kwargs.get("is_main_process", args[0] if args else True) or kwargs.get("distributed_checkpoint"):
            super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
            return
        kwargs = named_after(save_directory, kwargs)
        with saved_whole(save_directory) as folder:
            super().save_pretrained(folder, *args, **kwargs)  # type: ignore[misc]


def named_after(save_directory: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `save_pretrained`; the repository is named after the folder if no name is given."""
    if kwargs.get("push_to_hub") and "repo_id" not in kwargs:
        return {**kwargs, "repo_id": Path(save_directory).name}
    return kwargs


class DetectorProcessorMixin:
    """Mixin for processors: `from_pretrained` does not run code from the folder, `save_pretrained` is atomic."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load like the base class, with `trust_remote_code=False` by default."""
        # Otherwise transformers asks on standard input about tokenizers that come with their own code.
        kwargs.setdefault("trust_remote_code", False)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Save like the base class; if killed, the folder has either its old or its new state."""
        kwargs = named_after(save_directory, {**kwargs, "push_to_hub": push_to_hub})
        with saved_whole(save_directory) as folder:
            saved = super().save_pretrained(folder, **kwargs)  # type: ignore[misc]
        return [str(Path(save_directory) / Path(path).relative_to(folder)) for path in saved or ()]


class VerdictProcessor(DetectorProcessorMixin, ProcessorMixin):
    """Processor for folders without a language model: turns images into `pixel_values`, without a tokenizer.

    Args:
        image_processor: the family's image processor.
    """

    def __init__(self, image_processor: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, **kwargs)


def join_prepared(processor: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put together what a processor made of single pictures, as the model reads a batch.

    Args:
        processor: the one that made them. One whose tensors do not have one row per picture, or whose prompts differ
            in length, has `collate(rows)`; the tensors of all others are laid in a row.
        rows: of each picture, tensors with a batch axis of 1, and lists.
    """
    if hasattr(processor, "collate"):
        return dict(processor.collate(rows))
    joined: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        joined[name] = (
            torch.cat(values) if isinstance(first, torch.Tensor) else [part for value in values for part in value]
        )
    return joined


def require_complete(cls: Any, source: Any, info: dict[str, Any]) -> None:
    """Raise a `ValueError` that lists missing and unexpected keys and those with the wrong shape.

    Args:
        cls: a detector class.
        source: the folder or Hub id passed to `from_pretrained`.
        info: the loading info of `from_pretrained(output_loading_info=True)`.
    """
    faults = {
        kind: sorted(str(key) for key in info[kind])
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info[kind]
    }
    if faults:
        listing = "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:8])}" for kind, keys in faults.items())
        raise ValueError(
            f"{source} does not contain a complete {cls.__name__}: {listing}. "
            "If this is an official file, convert it: "
            f"deepfake_detectors.convert({cls.config_class.model_type!r}, sources, output)."
        )


def verdict_config(cls: Any, source: Any, kwargs: dict[str, Any]) -> tuple[PreTrainedConfig, bool]:
    """Return the config for loading a verdict class from its own folder or from that of the family's LLM class.

    Args:
        cls: the verdict class; its config has `text_config`, which is `None` without a language model.
        source: the folder or Hub id passed to `from_pretrained`.
        kwargs: its other arguments; `config` and config fields are taken out.

    Returns:
        The config without the language model, and whether the folder has one.
    """
    config_class = cls.config_class
    config = kwargs.pop("config", None)
    # Compared by model_type, because remote code from the Hub makes the config class another object.
    if getattr(config, "model_type", None) != config_class.model_type:
        refuse_foreign_checkpoint(cls, source, kwargs)
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        fields = {name: kwargs.pop(name) for name in list(kwargs) if name in config_class.__annotations__}
        config = config_class.from_pretrained(source if config is None else config, **hub_kwargs, **fields)
    if config.text_config is None:
        return config, False
    config = copy.deepcopy(config)
    config.text_config, config.architectures = None, [cls.__name__]
    return config, True


def refuse_official_files(family: str, source: Any) -> None:
    """Raise an `UnconvertedCheckpointError` if `source` is an official file, or a folder of them without a config.

    Args:
        family: `model_type` to load.
        source: the folder or Hub id passed to `from_pretrained`.
    """
    path = Path(str(source))
    if path.is_file() and path.suffix in OFFICIAL_SUFFIXES:
        raise UnconvertedCheckpointError(
            f"{source} is an official checkpoint file, not a folder to load.", family, source
        )
    if path.is_dir() and not (path / CONFIG_NAME).exists():
        official = sorted(child.name for child in path.iterdir() if child.suffix in OFFICIAL_SUFFIXES)
        if official:
            raise UnconvertedCheckpointError(
                f"{source} contains {', '.join(official)} but no {CONFIG_NAME}.", family, source
            )


def refuse_foreign_checkpoint(cls: Any, source: Any, kwargs: dict[str, Any]) -> None:
    """Raise an error if `source` has official files, or a `model_type` that `cls` cannot load.

    Args:
        cls: a detector class.
        source: the folder or Hub id passed to `from_pretrained`.
        kwargs: its other arguments.

    Raises:
        UnconvertedCheckpointError: for official files, and for a folder in the layout of LLaVA's original code.
        ValueError: for a folder of another family.
    """
    family = cls.config_class.model_type
    refuse_official_files(family, source)
    if isinstance(kwargs.get("config"), PreTrainedConfig):
        fields = kwargs["config"].to_dict()
    else:
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        fields = PreTrainedConfig.get_config_dict(source, **hub_kwargs)[0]
    found = fields.get("model_type")
    if found == family:
        return
    if any(name in fields for name in LLAVA_CODE_FIELDS):
        raise UnconvertedCheckpointError(f"{source} has the layout of the original LLaVA code.", family, source)
    raise ValueError(
        f"{source} is a checkpoint of model_type {found!r}, but {cls.__name__} loads {family!r}. Use the class of "
        f"that family, or, for an official {family} checkpoint: "
        f"deepfake_detectors.convert({family!r}, {str(source)!r}, output)"
    )
