"""What a recipe of supervised fine-tuning may hold, beside what every recipe may."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import ModelConfig, SFTConfig

from deepfake_detectors.train.arguments import SourceArguments
from deepfake_detectors.train.publishing import check_publishing

__all__ = ["CONVERSATIONS", "SftDataArguments", "SftModelArguments", "SftTrainingArguments"]

CONVERSATIONS = ("dataset", "verdict")


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
            "help": "'dataset': question and answer as the data set has them. 'verdict': the family's own question "
            "and verdict sentence for the row's label, then the data set's words where it has any."
        },
    )
    validation_pictures: int | None = field(
        default=None, metadata={"help": "At most so many validation pictures, drawn by validation_seed; default all."}
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
    """TRL's `SFTConfig` with defaults that fit conversations about pictures."""

    # The collator needs columns that the model does not.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay false."})
    max_length: int | None = field(default=None, metadata={"help": "Cut texts to so many tokens; default uncut."})
    hub_strategy: str = field(default="end", metadata={"help": "Only 'end': no pickle is published."})
    cpu_threads: int | None = field(
        default=None, metadata={"help": "Threads of torch on CPU. The last digits of a sum depend on it."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns is true, but the collator reads those columns; leave it false.")
        if self.packing or self.padding_free:
            raise ValueError("packing and padding_free do not fit conversations about pictures; leave both false.")
        if self.cpu_threads is not None and self.cpu_threads < 1:
            raise ValueError(f"cpu_threads is {self.cpu_threads}, expected 1 or more.")
        check_publishing(self)
