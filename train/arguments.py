"""Settings of a recipe: the keys of these classes and no others. The command line overrides the recipe file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from trl import ModelConfig, SFTConfig, TrlParser

from deepfake_detectors.files import read_yaml
from deepfake_detectors.train.optimization import OPTIMIZERS, SCHEDULES, schedule_options
from deepfake_detectors.train.recipe_files import find_recipe

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

    model_type: str | None = field(default=None, metadata={"help": "Family to build with random weights."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the family's config; JSON on the command line."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint to start from, instead of model_type."}
    )
    image_processor: dict | str | None = field(
        default=None, metadata={"help": "Fields of the family's image processor; JSON on the command line."}
    )
    pretrained_parts: dict | str | None = field(
        default=None,
        metadata={"help": "Module name -> pretrained weights (folder, Hub id, or name of a timm network)."},
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
                "one of them: a family for random weights, or a checkpoint to start from."
            )


@dataclass
class SourceArguments:
    """Rows to train on, and rows to set aside."""

    dataset: str = field(default="ddvqa", metadata={"help": "Name of a builder of this package."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Config of the builder; default: the builder's own."}
    )
    dataset_options: dict | str | None = field(
        default=None, metadata={"help": "Other fields of the builder's config; JSON on the command line."}
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder with the dataset in its official layout. Default: $DEEPFAKE_DATA/<dataset>."},
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    validation_fraction: float = field(
        default=0.17,
        metadata={
            "help": "Share of the training images to set aside for validation, in whole groups of source videos."
        },
    )
    validation_seed: int = field(default=0, metadata={"help": "Seed for the choice of these groups."})

    def __post_init__(self) -> None:
        self.dataset_options = parse_mapping("dataset_options", self.dataset_options)


@dataclass
class DataArguments(SourceArguments):
    """Images to train on, and their augmentation."""

    validation_split: str | None = field(
        default=None, metadata={"help": "Split of the dataset to validate on, instead of setting a share aside."}
    )
    balanced_sampling: bool = field(
        default=False, metadata={"help": "Draw half real images, and fakes evenly from all manipulations."}
    )
    mirror: bool = field(default=False, metadata={"help": "Mirror images with probability 0.5."})
    shift_cell: int = field(
        default=0,
        metadata={
            "help": "Shift images by -1, 0 or 1 times this many pixels; a multiple of 8 keeps the JPEG block grid."
        },
    )
    random_crop: bool = field(
        default=False, metadata={"help": "Resize the shorter side to the model's size and crop a random square."}
    )
    blur: float = field(default=0.0, metadata={"help": "Probability of a Gaussian blur of up to 3 pixels."})
    jpeg: float = field(default=0.0, metadata={"help": "Probability of JPEG compression, at quality 30 or 100."})
    one_frame_per_video: bool = field(default=False, metadata={"help": "Draw one random frame per video and epoch."})
    validation_frames: int | None = field(
        default=None, metadata={"help": "Number of evenly spaced frames per video to validate on; default: all."}
    )
    twin_masks: bool = field(
        default=False, metadata={"help": "Derive mask labels from the difference between a fake and its real frame."}
    )
    mask_column: str | None = field(
        default=None, metadata={"help": "Take mask labels from this column of the dataset."}
    )
    self_blend: float = field(
        default=0.0, metadata={"help": "Share of the drawn real images that become self-blended fakes."}
    )
    self_blend_regions: list[str] | None = field(
        default=None, metadata={"help": "Regions to blend; see train/self_blended.py."}
    )
    self_blend_landmarks: str | None = field(
        default=None, metadata={"help": "Column with (points, 2) landmarks in pixels; default: drawn shapes."}
    )
    only_reals: bool = field(default=False, metadata={"help": "Train only on real images and self-blended fakes."})

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
            ("balanced_sampling", "one_frame_per_video", "both decide the order; choose one"),
            ("balanced_sampling", "only_reals", "there are no fakes to balance"),
            ("twin_masks", "mask_column", "both provide masks; choose one"),
            ("random_crop", "twin_masks", "the masks are not cropped with the image"),
            ("random_crop", "mask_column", "the masks are not cropped with the image"),
            ("random_crop", "self_blend", "the masks are not cropped with the image"),
        )
        if self.only_reals and not 0.0 < self.self_blend < 1.0:
            raise ValueError(
                f"only_reals needs self_blend between 0 and 1 (exclusive), not {self.self_blend}: the share of "
                "images that become fakes, such as 0.5 for equal numbers."
            )


@dataclass
class ClassifierTrainingArguments(TrainingArguments):
    """`TrainingArguments` with additional settings for image classifiers."""

    learning_rates: dict | str | None = field(
        default=None, metadata={"help": "Module name prefix -> learning rate, if it differs from `learning_rate`."}
    )
    optimizer: str | None = field(
        default=None,
        metadata={"help": "An optimizer that `optim` does not offer: 'adam' (coupled L2 as weight decay)."},
    )
    decay_everything: bool = field(default=False, metadata={"help": "Also apply weight decay to biases and norms."})
    lr_schedule: str | None = field(
        default=None,
        metadata={
            "help": "A schedule that `lr_scheduler_type` does not offer: 'epoch_cosine' (one value per epoch; "
            "`lr_scheduler_kwargs` can have min_lr, start_lr, warmup_steps)."
        },
    )
    plateau_metric: str = field(default="loss", metadata={"help": "Validation metric for reduce_lr_on_plateau."})
    hub_strategy: str = field(default="end", metadata={"help": "Must be 'end', so that no pickle is published."})
    freeze: list[str] | None = field(default=None, metadata={"help": "Prefixes of module names to freeze."})
    cpu_threads: int | None = field(
        default=None,
        metadata={
            "help": "PyTorch threads on the CPU. The last digits of sums, and thus of the weights, depend on it."
        },
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
                "dataloader_drop_last is true, which would also leave the last validation images out of all metrics; "
                "set it to false."
            )


def use_new_names(arguments: TrainingArguments) -> None:
    """Rename options to their newer names if this version of transformers has them, to avoid its warnings.

    Recipes and TRL's own defaults use names that all supported versions accept.
    """
    known = {item.name for item in fields(arguments)}
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")
        if new in known and getattr(arguments, new) is None:
            setattr(arguments, new, getattr(arguments, old))


def check_publishing(arguments: TrainingArguments) -> None:
    """Refuse settings that would upload a pickle to the Hub.

    Raises:
        ValueError: for `push_to_hub` with a `hub_strategy` that also pushes during training.
    """
    if arguments.push_to_hub and arguments.hub_strategy != HubStrategy.END:
        raise ValueError(
            f"hub_strategy is {HubStrategy(arguments.hub_strategy).value!r}, which uploads pickles "
            "(training_args.bin or optimizer states) during training; set hub_strategy to 'end'."
        )


def parse_recipe(arguments: list[str] | None = None) -> tuple[ModelArguments, DataArguments, Any]:
    """Read `--config recipe.yaml` and the overrides after it.

    Raises:
        ValueError: for an unknown key in the recipe, or an unknown option.
    """
    return read_recipe((ModelArguments, DataArguments, ClassifierTrainingArguments), arguments)


def read_recipe(classes: tuple[type, ...], arguments: list[str] | None = None) -> tuple[Any, ...]:
    """Return one instance of each class, from `--config recipe.yaml` and the overrides after it.

    `--config` takes a path, or the name of a recipe that ships with the package (`recipe_files.find_recipe`).

    Raises:
        ValueError: for a key in the recipe, or an option, that none of the classes has.
        FileNotFoundError: for a recipe that does not exist.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--config" in given[:-1]:  # as TrlParser finds it, whose own reader has no bounds
        place = given.index("--config") + 1
        given[place] = str(find_recipe(given[place]))
        if not isinstance(content := read_yaml(given[place]), dict):
            raise ValueError(f"{given[place]} must hold keys and values, but is a {type(content).__name__}.")
    return TrlParser(classes).parse_args_and_config(given)


def _require_known(name: str, value: str | None, known: Mapping[str, Any]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{name} is {value!r}, allowed are {', '.join(known)}, or no value.")


def _refuse_pairs(arguments: Any, *pairs: tuple[str, str, str]) -> None:
    for first, second, reason in pairs:
        if getattr(arguments, first) and getattr(arguments, second):
            raise ValueError(f"{first} and {second} cannot be set together: {reason}.")


def parse_mapping(name: str, value: dict | str | None) -> dict[str, Any]:
    """Return the option `name`: a mapping from a recipe, or JSON from the command line; `None` is empty."""
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
    """Model to train, and which part of it; LoRA uses TRL's own options (`use_peft`, `lora_r`, ...)."""

    train_only: list[str] | None = field(
        default=None, metadata={"help": "Prefixes of module names to train; everything else is frozen."}
    )
    train_vision: bool = field(default=True, metadata={"help": "Set to false to freeze the vision tower."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name_or_path is None:
            raise ValueError(
                "model_name_or_path is not set: fine-tuning needs a folder to start from; for a trial, create one "
                "with deepfake_detectors.train.mini_base."
            )
        if self.use_peft and self.train_only:
            raise ValueError(
                "train_only cannot be set with use_peft: LoRA already freezes the base; set lora_modules_to_save for "
                "modules to train fully."
            )
        if not self.train_vision and (self.use_peft or self.train_only):
            raise ValueError(
                "train_vision=False is only for full fine-tuning; otherwise set train_only or the LoRA targets."
            )


@dataclass
class SftDataArguments(SourceArguments):
    """Conversations to train on."""

    dataset_configs: list[str] | None = field(
        default=None, metadata={"help": "Configs of the builder whose rows are combined, instead of dataset_config."}
    )
    conversation: str = field(
        default="dataset",
        metadata={
            "help": "'dataset': question and answer from the dataset. 'verdict': the family's own question and "
            "verdict sentence for the row's label, followed by the dataset's text if there is any."
        },
    )
    validation_pictures: int | None = field(
        default=None,
        metadata={"help": "Maximum number of validation images, drawn with validation_seed; default: all."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conversation not in CONVERSATIONS:
            raise ValueError(
                f"conversation is {self.conversation!r}, allowed are {', '.join(map(repr, CONVERSATIONS))}."
            )
        if self.dataset_configs and self.dataset_config:
            raise ValueError("dataset_config and dataset_configs are both set; list all configs in dataset_configs.")
        if self.validation_pictures is not None and self.validation_pictures < 2:
            raise ValueError(f"validation_pictures is {self.validation_pictures}, expected 2 or more.")


@dataclass
class SftTrainingArguments(SFTConfig):
    """TRL's `SFTConfig` with defaults for conversations about images."""

    # The collator needs columns that the model does not use.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay false."})
    max_length: int | None = field(
        default=None, metadata={"help": "Truncate texts to this many tokens; default: no limit."}
    )
    hub_strategy: str = field(default="end", metadata={"help": "Must be 'end', so that no pickle is published."})
    cpu_threads: int | None = field(
        default=None, metadata={"help": "PyTorch threads on the CPU. The last digits of sums depend on it."}
    )

    def __post_init__(self) -> None:
        use_new_names(self)
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns is true, but the collator needs those columns; set it to false.")
        if self.packing or self.padding_free:
            raise ValueError("packing and padding_free do not work for conversations about images; set both to false.")
        if self.cpu_threads is not None and self.cpu_threads < 1:
            raise ValueError(f"cpu_threads is {self.cpu_threads}, expected 1 or more.")
        check_publishing(self)
