"""AntifakePrompt's training: two learned vectors for a frozen InstructBLIP; and the LoRA baseline."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedConfig

from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE, INITIALIZER_STD, save_soft_words
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor, save_processor_settings
from deepfake_detectors.train.families import ClassifierTraining, refuse_fields
from deepfake_detectors.train.trainers import ClassifierTrainer, LoraTrainer

__all__ = ["AnswerCollator", "AnswerLoraTrainer", "AnswerTrainer", "SoftWordTrainer", "SoftWordTraining"]

PROMPT_FIELDS = ("soft_word", "soft_word_sides", "prompt", "plain_prompt", "candidates")


class AnswerCollator:
    """Collates images with class labels into a batch with the answers to the checkpoint's prompt as token labels.

    Args:
        processor: the model's processor; its candidates are the answers, real first.
    """

    def __init__(self, processor: AntifakePromptProcessor) -> None:
        self.processor = processor

    def __call__(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        classes = torch.stack([item["labels"] for item in items])
        answers = [self.processor.candidates[int(label)] for label in classes]
        batch = self.processor.encode_answers([self.processor.prompt] * len(items), answers)
        pixels = torch.stack([item["pixel_values"] for item in items])
        return {**batch, "pixel_values": pixels, "class_labels": classes}


class AnswerTrainer(ClassifierTrainer):
    """Trains with the language model's loss on the answers; validation adds the verdicts of `detect`."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = {name: value for name, value in inputs.items() if name != "class_labels"}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    @torch.no_grad()
    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs).detach().mean()
            if prediction_loss_only:
                return loss, None, None
            verdict = self.accelerator.unwrap_model(model).detect(pixel_values=inputs["pixel_values"])
        return loss, verdict.logits, inputs["class_labels"]


class SoftWordTrainer(AnswerTrainer):
    """Trains only the words; every folder it writes is an adapter folder.

    Raises:
        ValueError: for `push_to_hub` of words whose base is a local folder, which others cannot load.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        base = kwargs["model"].config.base_model_name_or_path
        if kwargs["args"].push_to_hub and Path(base).is_dir():
            raise ValueError(
                f"push_to_hub is set, but the base {base} is a local folder, which others cannot load; start from its "
                "Hub id."
            )
        super().__init__(*args, **kwargs)

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        if self.args.should_save:
            folder = output_dir or self.args.output_dir
            self.accelerator.unwrap_model(self.model).save_adapter(folder, self.processor)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._put_words(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._put_words(self.state.best_model_checkpoint)

    @torch.no_grad()
    def _put_words(self, folder: str) -> None:
        words = load_file(Path(folder) / ADAPTER_FILE)
        for name, word in self.accelerator.unwrap_model(self.model).soft_words().items():
            if name not in words or words[name].shape != word.shape:
                found = {key: tuple(value.shape) for key, value in words.items()}
                raise ValueError(f"{folder} has the words {found}, but this model needs {name} {tuple(word.shape)}.")
            word.copy_(words[name])


class AnswerLoraTrainer(AnswerTrainer, LoraTrainer):
    """Trains LoRA in an InstructBLIP without learned words, the paper's baseline.

    Raises:
        ValueError: for a model with learned words, which LoRA would leave frozen.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sides = kwargs["model"].get_base_model().config.soft_word_sides
        if sides != "none":
            raise ValueError(
                f"lora trains an InstructBLIP without learned words, but soft_word_sides is {sides!r}. Start from a "
                'folder of convert("antifakeprompt", [instructblip], output, variant="zero_shot"), or leave out lora.'
            )
        super().__init__(*args, **kwargs)


class SoftWordTraining(ClassifierTraining):
    """Hooks of `train_classifier` for AntifakePrompt: the words are trained on an unchanged InstructBLIP."""

    base_model_types = ("instructblip",)
    trainer_class = SoftWordTrainer
    lora_trainer_class = AnswerLoraTrainer

    def build(self, config: Mapping[str, Any], image_processor: Mapping[str, Any]) -> tuple[Any, Any]:
        """Refuse to build a model with random weights.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"model_type is {self.family.name!r}, whose words are trained on an InstructBLIP: set it in "
            "model_name_or_path."
        )

    def load(self, source: str, config: Mapping[str, Any], image_processor: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return a detector with a known base, so that its words can be saved separately, and its processor.

        Args:
            source: folder or Hub id of an InstructBLIP (the words start at N(0, 0.02), as in the official code), of a
                full AntifakePrompt, or of an adapter folder (which continue from their words).
            config: fields of `AntifakePromptConfig`, only for new words; otherwise the checkpoint has its own.
            image_processor: fields of `AntifakePromptImageProcessor`, only for new words.

        Raises:
            ValueError: for fields with existing words, or an unusable base.
        """
        base, _ = PreTrainedConfig.get_config_dict(source)
        if base.get("model_type") in self.base_model_types:
            return _new_words(source, base, config, image_processor)
        refuse_fields(source, config, image_processor)
        model = AntifakePromptForDeepfakeDetection.from_pretrained(source)
        if model.config.base_model_name_or_path is None:
            model.config.base_model_name_or_path = _findable(source)
        return model, AntifakePromptProcessor.from_pretrained(source)

    def freeze(self, model: Any) -> None:
        model.freeze_all_but_soft_words()

    def collator(self, processor: Any) -> AnswerCollator:
        return AnswerCollator(processor)


def _new_words(
    source: str, base: dict[str, Any], config_fields: Mapping[str, Any], image_processor: Mapping[str, Any]
) -> tuple[AntifakePromptForDeepfakeDetection, AntifakePromptProcessor]:
    # Loading fills in the sizes from the base.
    config = AntifakePromptConfig(**config_fields)
    if config.soft_word_sides == "none":
        raise ValueError("soft_word_sides is 'none', so there is no word to learn; choose both, qformer or llm.")
    widths = {"qformer_soft_word": "qformer_config", "llm_soft_word": "text_config"}
    sides = {"both": tuple(widths), "qformer": ("qformer_soft_word",), "llm": ("llm_soft_word",)}
    words = {
        name: torch.empty(1, base[widths[name]]["hidden_size"]).normal_(0.0, INITIALIZER_STD)
        for name in sides[config.soft_word_sides]
    }
    settings = {name: getattr(config, name) for name in PROMPT_FIELDS}
    settings["num_query_tokens"] = base.get("num_query_tokens", config.num_query_tokens)
    with tempfile.TemporaryDirectory() as folder:
        save_soft_words(words, config, _findable(source), folder)
        save_processor_settings(folder, AntifakePromptImageProcessor(**image_processor), settings)
        return (
            AntifakePromptForDeepfakeDetection.from_pretrained(folder),
            AntifakePromptProcessor.from_pretrained(folder),
        )


def _findable(source: str) -> str:
    """Return the full path of a folder, so that its adapter finds it from anywhere; return a Hub id unchanged."""
    return str(Path(source).resolve()) if Path(source).is_dir() else str(source)
