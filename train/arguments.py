"""What a recipe may hold: every key of these classes, and nothing else. Recipe file first, command line on top."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from trl import ModelConfig, SFTConfig, TrlParser

from deepfake_detectors.files import read_yaml
from deepfake_detectors.train.optimization import OPTIMIZERS, SCHEDULES, schedule_options

__all__ = [
    "CONVERSATIONS",
    "ClassifierTrainingArguments",
    "DataArguments",
    "ModelArguments",
    "SftDataArguments",
    "SftModelArguments",
    "SftTrainingArguments",
    "SourceArguments",
    "check_publishing",
    "parse_mapping",
    "parse_recipe",
    "read_recipe",
    "use_new_names",
]


CONVERSATIONS = ("dataset", "verdict")


@dataclass
class ModelArguments:
    """Which model to train."""

    model_type: str | None = field(default=None, metadata={"help": "Family to build from random weights."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of that family's config; JSON on the command line."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint to start from, instead of model_type."}
    )
    image_processor: dict | str | None = field(
        default=None, metadata={"help": "Fields of the family's image processor; JSON on the command line."}
    )
    pretrained_parts: dict | str | None = field(
        default=None,
        metadata={"help": "Module name -> checkpoint of that part (a folder, a Hub id, or a timm network's name)."},
    )
    lora: dict | str | None = field(
        default=None, metadata={"help": "Fields of PEFT's LoraConfig, to train an adapter; JSON on the command line."}
    )

    def __post_init__(self) -> None:
        self.pretrained_parts = parse_mapping("pretrained_parts", self.pretrained_parts)
        self.lora = parse_mapping("lora", self.lora)
        self.model_config = parse_mapping("model_config", self.model_config)
        self.image_processor = parse_mapping("image_processor", self.image_processor)
        if (self.model_type is None) == (self.model_name_or_path is None):
            raise ValueError(
                f"model_type is {self.model_type!r} and model_name_or_path {self.model_name_or_path!r}; set exactly "
                "one of them: a family to start from random weights, or a checkpoint to start from."
            )


@dataclass
class SourceArguments:
    """Which rows to train on, and which to set aside."""

    dataset: str = field(default="ddvqa", metadata={"help": "Name of a builder of this package."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the builder; its default if unset."})
    dataset_options: dict | str | None = field(
        default=None, metadata={"help": "Further fields of the builder's config; JSON on the command line."}
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder in the dataset's official layout. If unset: $DEEPFAKE_DATA/<dataset>."},
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    validation_fraction: float = field(
        default=0.17, metadata={"help": "Share of the training images set aside, by whole groups of source videos."}
    )
    validation_seed: int = field(default=0, metadata={"help": "Which groups are set aside."})

    def __post_init__(self) -> None:
        self.dataset_options = parse_mapping("dataset_options", self.dataset_options)


@dataclass
class DataArguments(SourceArguments):
    """Which images to train on, and how they are varied."""

    validation_split: str | None = field(
        default=None, metadata={"help": "The dataset's own split to validate on, instead of setting a share aside."}
    )
    balanced_sampling: bool = field(
        default=False, metadata={"help": "Draw half real, and the fakes evenly over the manipulations."}
    )
    mirror: bool = field(default=False, metadata={"help": "Mirror every second image."})
    shift_cell: int = field(
        default=0,
        metadata={"help": "Shift by -1, 0 or 1 times this many pixels; a multiple of 8 keeps JPEG's block grid."},
    )
    random_crop: bool = field(
        default=False, metadata={"help": "Resize the short side to the model's size and cut out a random square."}
    )
    blur: float = field(default=0.0, metadata={"help": "Probability of a Gaussian blur of up to 3 pixels."})
    jpeg: float = field(default=0.0, metadata={"help": "Probability of JPEG, at quality 30 or 100."})
    one_frame_per_video: bool = field(
        default=False, metadata={"help": "Draw one random frame of every video per epoch."}
    )
    validation_frames: int | None = field(
        default=None, metadata={"help": "Validate on so many frames per video, evenly spread; all if unset."}
    )
    twin_masks: bool = field(
        default=False, metadata={"help": "Mask labels from the difference to the real frame behind a fake."}
    )
    mask_column: str | None = field(default=None, metadata={"help": "Mask labels from this column of the dataset."})
    self_blend: float = field(
        default=0.0, metadata={"help": "Share of the real images drawn that become self-blended fakes."}
    )
    self_blend_regions: list[str] | None = field(
        default=None, metadata={"help": "Regions to blend; see train/self_blended.py."}
    )
    self_blend_landmarks: str | None = field(
        default=None, metadata={"help": "Column with (points, 2) landmarks in pixels; drawn shapes if unset."}
    )
    only_reals: bool = field(default=False, metadata={"help": "Train on real images and self-blended fakes alone."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift_cell < 0:
            raise ValueError(f"shift_cell is {self.shift_cell}, expected 0 (off) or a number of pixels.")
        for name in ("blur", "jpeg", "self_blend"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a probability in [0, 1].")
        if self.validation_frames is not None and self.validation_frames < 1:
            raise ValueError(f"validation_frames is {self.validation_frames}, expected 1 or more.")
        _refuse_pairs(
            self,
            ("balanced_sampling", "one_frame_per_video", "each decides the order; choose one"),
            ("balanced_sampling", "only_reals", "there are no fakes to balance with"),
            ("twin_masks", "mask_column", "each gives the masks; choose one"),
            ("random_crop", "twin_masks", "the masks are not cropped with the image"),
            ("random_crop", "mask_column", "the masks are not cropped with the image"),
            ("random_crop", "self_blend", "the masks are not cropped with the image"),
        )
        if self.only_reals and not 0.0 < self.self_blend < 1.0:
            raise ValueError(
                f"only_reals needs self_blend between 0 and 1 (exclusive), not {self.self_blend}: the share of the "
                "images that become fakes, 0.5 for as many as real ones."
            )


@dataclass
class ClassifierTrainingArguments(TrainingArguments):
    """`TrainingArguments`, and what an image classifier needs beside them."""

    learning_rates: dict | str | None = field(
        default=None, metadata={"help": "Module name prefix -> learning rate, where it is not `learning_rate`."}
    )
    optimizer: str | None = field(
        default=None, metadata={"help": "An optimizer without a name in `optim`: 'adam' (coupled L2 as weight decay)."}
    )
    decay_everything: bool = field(default=False, metadata={"help": "Weight decay on biases and norms too."})
    lr_schedule: str | None = field(
        default=None,
        metadata={
            "help": "A schedule without a name in `lr_scheduler_type`: 'epoch_cosine' (one value per epoch; "
            "`lr_scheduler_kwargs` may hold min_lr, start_lr, warmup_steps)."
        },
    )
    plateau_metric: str = field(
        default="loss", metadata={"help": "Validation metric that reduce_lr_on_plateau watches."}
    )
    hub_strategy: str = field(default="end", metadata={"help": "Only 'end': no pickle is published."})
    freeze: list[str] | None = field(default=None, metadata={"help": "Module name prefixes that are not trained."})
    cpu_threads: int | None = field(
        default=None,
        metadata={"help": "Threads of torch on CPU. The last digits of a sum, and so of the weights, depend on it."},
    )
    calibrate: bool = field(
        default=True, metadata={"help": "Fit calibration and the operating point 'eer' on the validation images."}
    )

    def __post_init__(self) -> None:
        use_new_names(self)
        super().__post_init__()
        self.learning_rates = parse_mapping("learning_rates", self.learning_rates)
        _require_known("optimizer", self.optimizer, OPTIMIZERS)
        _require_known("lr_schedule", self.lr_schedule, SCHEDULES)
        if self.lr_schedule is not None:
            self.lr_scheduler_kwargs = schedule_options(self.lr_schedule, self.lr_scheduler_kwargs)
        check_publishing(self)
        if self.cpu_threads is not None and self.cpu_threads < 1:
            raise ValueError(f"cpu_threads is {self.cpu_threads}, expected 1 or more.")
        if self.dataloader_drop_last:
            raise ValueError(
                "dataloader_drop_last is true, which would leave the last validation images out of every metric, "
                "too; set it to false."
            )


def use_new_names(arguments: TrainingArguments) -> None:
    """Give options their newer names where this version of transformers has them, before it warns of the old ones.

    Recipes, and TRL's own defaults, use the names that every supported version knows.
    """
    known = {item.name for item in fields(arguments)}
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")
        if new in known and getattr(arguments, new) is None:
            setattr(arguments, new, getattr(arguments, old))


def check_publishing(arguments: TrainingArguments) -> None:
    """Refuse what would put a pickle on the Hub.

    Raises:
        ValueError: for `push_to_hub` with a `hub_strategy` that also pushes while training runs.
    """
    if arguments.push_to_hub and arguments.hub_strategy != HubStrategy.END:
        raise ValueError(
            f"hub_strategy is {HubStrategy(arguments.hub_strategy).value!r}, which uploads training_args.bin or "
            "optimizer states, which are pickles, while training runs; set hub_strategy to 'end'."
        )


def parse_recipe(arguments: list[str] | None = None) -> tuple[ModelArguments, DataArguments, Any]:
    """Read `--config recipe.yaml` and the overrides behind it.

    Raises:
        ValueError: for a key in the recipe, or an option, that does not exist.
    """
    return read_recipe((ModelArguments, DataArguments, ClassifierTrainingArguments), arguments)


def read_recipe(classes: tuple[type, ...], arguments: list[str] | None = None) -> tuple[Any, ...]:
    """One instance of each class, from `--config recipe.yaml` and the overrides behind it.

    Raises:
        ValueError: for a key in the recipe, or an option, that no class has.
        FileNotFoundError: for a recipe that does not exist.
    """
    given = sys.argv[1:] if arguments is None else arguments
    for name, value in pairwise([*given, ""]):  # as TrlParser finds it, whose own reader has no bounds
        if name == "--config" and Path(value).is_file() and not isinstance(content := read_yaml(value), dict):
            raise ValueError(f"{value} must hold keys and values, but is a {type(content).__name__}.")
    return TrlParser(classes).parse_args_and_config(arguments)


def _require_known(name: str, value: str | None, known: Mapping[str, Any]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{name} is {value!r}, allowed are {', '.join(known)}, or nothing.")


def _refuse_pairs(arguments: Any, *pairs: tuple[str, str, str]) -> None:
    for first, second, reason in pairs:
        if getattr(arguments, first) and getattr(arguments, second):
            raise ValueError(f"{first} and {second} cannot be set together: {reason}.")


def parse_mapping(name: str, value: dict | str | None) -> dict[str, Any]:
    """The option `name`: a mapping from a recipe, or JSON from the command line; `None` is empty."""
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is {value!r}, which is not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f'{name} is {value!r}, expected a mapping such as {{"key": 1}}.')
    return value


@dataclass
class SftModelArguments(ModelConfig):
    """Which model to train, and which part of it; LoRA by TRL's own options (`use_peft`, `lora_r`, ...)."""

    train_only: list[str] | None = field(
        default=None, metadata={"help": "Module name prefixes that are trained; everything else is frozen."}
    )
    train_vision: bool = field(default=True, metadata={"help": "False freezes the vision tower."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name_or_path is None:
            raise ValueError(
                "model_name_or_path is not set: fine-tuning starts from a folder, for a trial one of "
                "deepfake_detectors.train.mini_base."
            )
        if self.use_peft and self.train_only:
            raise ValueError(
                "train_only cannot be set with use_peft: LoRA freezes the base by itself; modules to train in full go "
                "into lora_modules_to_save."
            )
        if not self.train_vision and (self.use_peft or self.train_only):
            raise ValueError(
                "train_vision=False is for full fine-tuning; name the parts in train_only or the LoRA targets."
            )


@dataclass
class SftDataArguments(SourceArguments):
    """Which conversations to train on."""

    dataset_configs: list[str] | None = field(
        default=None, metadata={"help": "Configs of the builder whose rows are joined, instead of dataset_config."}
    )
    conversation: str = field(
        default="dataset",
        metadata={
            "help": "'dataset': question and answer as the dataset has them. 'verdict': the family's own question "
            "and verdict sentence for the row's label, then the dataset's words where it has any."
        },
    )
    validation_pictures: int | None = field(
        default=None, metadata={"help": "At most so many validation images, drawn by validation_seed; default all."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conversation not in CONVERSATIONS:
            raise ValueError(
                f"conversation is {self.conversation!r}, allowed are {', '.join(map(repr, CONVERSATIONS))}."
            )
        if self.dataset_configs and self.dataset_config:
            raise ValueError("dataset_config and dataset_configs are both set; name all configs in dataset_configs.")
        if self.validation_pictures is not None and self.validation_pictures < 2:
            raise ValueError(f"validation_pictures is {self.validation_pictures}, expected 2 or more.")


@dataclass
class SftTrainingArguments(SFTConfig):
    """TRL's `SFTConfig` with defaults that fit conversations about images."""

    # The collator needs columns that the model does not.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay false."})
    max_length: int | None = field(default=None, metadata={"help": "Cut texts to so many tokens; default uncut."})
    hub_strategy: str = field(default="end", metadata={"help": "Only 'end': no pickle is published."})
    cpu_threads: int | None = field(
        default=None, metadata={"help": "Threads of torch on CPU. The last digits of a sum depend on it."}
    )

    def __post_init__(self) -> None:
        use_new_names(self)
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns is true, but the collator reads those columns; leave it false.")
        if self.packing or self.padding_free:
            raise ValueError("packing and padding_free do not fit conversations about images; leave both false.")
        if self.cpu_threads is not None and self.cpu_threads < 1:
            raise ValueError(f"cpu_threads is {self.cpu_threads}, expected 1 or more.")
        check_publishing(self)
