"""AntifakePrompt's learned words: inside a frozen embedding table, and as a small folder on top of an InstructBLIP."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file, logging

from .configuration_antifakeprompt import AntifakePromptConfig
from .detection import HUB_ARGUMENTS, refuse_foreign_checkpoint
from .processing_antifakeprompt import AntifakePromptProcessor
from .saving import finish_saving, saved_whole

__all__ = [
    "ADAPTER_FILE",
    "SoftWordAdapterMixin",
    "SoftWordEmbedding",
    "save_soft_words",
]

logger = logging.get_logger(__name__)

ADAPTER_FILE = "soft_words.safetensors"
BASE_TYPES = ("instructblip", "antifakeprompt")
# What a base brings along, whatever the adapter was saved with.
BASE_FIELDS = ("vision_config", "qformer_config", "text_config", "num_query_tokens", "image_token_index")
# Arguments of `from_pretrained` that say where the adapter lies (the last two come from AutoModel), not its base.
OF_THE_ADAPTER = ("config", "revision", "subfolder", "_commit_hash", "adapter_kwargs")
# Start of the words in the official training.
INITIALIZER_STD = 0.02
# Where the words are in a full checkpoint; a stock InstructBLIP lacks them.
WORD_KEYS = {
    "qformer.embeddings.word_embeddings.soft_word",
    "language_model.model.embed_tokens.soft_word",
}


class SoftWordEmbedding(nn.Embedding):
    """An embedding table that gives the learned vector where its id stands.

    The vector is float32 whatever the table is, so that small steps of its training are not lost to rounding; it is
    cast where it is put among the rows.

    Args:
        table: the embedding to wrap; its weight is shared, not copied.
        soft_word_id: id of the learned word, which may lie behind the table; `None` for no word.
        placeholder_ids: ids behind the table that stand for something put in later (image, padding). Every other id
            behind the table is an error, as in any embedding.
    """

    def __init__(self, table: nn.Embedding, soft_word_id: int | None, placeholder_ids: Sequence[int] = ()) -> None:
        rows, width = table.weight.shape
        super().__init__(rows, width, padding_idx=table.padding_idx, _weight=table.weight)
        self.weight = table.weight
        self.soft_word_id = soft_word_id
        self.placeholder_ids = tuple(i for i in placeholder_ids if i >= rows)
        if soft_word_id is None:
            self.register_parameter("soft_word", None)
        else:
            self.soft_word = nn.Parameter(
                table.weight.new_empty(1, width, dtype=torch.float32).normal_(0.0, INITIALIZER_STD)
            )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """int64 ids of any shape to (..., width)."""
        inside = input
        for placeholder in self.placeholder_ids:
            inside = inside.masked_fill(input == placeholder, 0)
        if self.soft_word is None:
            return super().forward(inside)
        learned = input == self.soft_word_id
        rows = super().forward(inside.masked_fill(learned, 0))
        return torch.where(learned.unsqueeze(-1), self.soft_word.to(rows.dtype), rows)


class SoftWordAdapterMixin:
    """Put before `DeepfakeDetectionMixin`: `from_pretrained` of an adapter folder, and saving one."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """A full folder, or an adapter folder, whose base is then loaded with the same arguments.

        Raises:
            ValueError: as `DeepfakeDetectionMixin.from_pretrained`; and if the base is no InstructBLIP, or if words
                are missing or do not fit its widths.
        """
        finish_saving(pretrained_model_name_or_path)
        refuse_foreign_checkpoint(cls, pretrained_model_name_or_path, kwargs)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        fields, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
        if fields.get("base_model_name_or_path") is None:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)  # type: ignore[misc]
        return _load_on_base(cls, pretrained_model_name_or_path, fields, hub, model_args, kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """The full checkpoint, base included; see `save_adapter` for the words alone."""
        base, self.config.base_model_name_or_path = self.config.base_model_name_or_path, None
        try:
            super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        finally:
            self.config.base_model_name_or_path = base

    def save_adapter(
        self, save_directory: str | Path, processor: Any = None, base_model_name_or_path: str | Path | None = None
    ) -> None:
        """Save the learned words alone.

        Args:
            save_directory: the folder; created if needed.
            processor: also save its settings (statistics, prompt), without the tokenizers, which the base has.
            base_model_name_or_path: Hub id or folder of the InstructBLIP below; by default the one that this model
                was loaded on.

        Raises:
            ValueError: if no base is known.
        """
        base = base_model_name_or_path or self.config.base_model_name_or_path
        if base is None:
            raise ValueError(
                "This model is a full checkpoint: name the InstructBLIP that the words belong to with "
                "base_model_name_or_path=..."
            )
        words = {name: word.detach() for name, word in self.soft_words().items()}
        with saved_whole(save_directory) as folder:
            save_soft_words(words, self.config, str(base), folder)
            if processor is not None:
                processor.save_settings(folder)

    def push_adapter_to_hub(
        self,
        repo_id: str,
        processor: Any = None,
        base_model_name_or_path: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload learned words",
        endpoint: str | None = None,
    ) -> str:
        """Upload what `save_adapter` writes; returns the address of the commit.

        Args:
            repo_id: model repository; created if needed.
            processor, base_model_name_or_path: see `save_adapter`. A local folder cannot be found by others.
            private, token, commit_message: as in `push_to_hub`.
            endpoint: address of the Hub, where it is not the usual one.

        Raises:
            ValueError: if no base is known, or if it is a local folder.
        """
        base = base_model_name_or_path or self.config.base_model_name_or_path
        if base is not None and Path(base).exists():
            raise ValueError(f"The base {base} is a local folder; name it by its Hub id: base_model_name_or_path=...")
        api = HfApi(endpoint=endpoint, token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_adapter(folder, processor, base)
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message))


def save_soft_words(
    words: dict[str, torch.Tensor], config: AntifakePromptConfig, base: str, save_directory: str | Path
) -> None:
    """Write an adapter folder: `config.json` and `soft_words.safetensors` (float32).

    Args:
        words: `qformer_soft_word` and/or `llm_soft_word`, each (1, width).
        config: of the model; the base is put into a copy.
        base: Hub id or folder of the InstructBLIP.
        save_directory: created if needed.
    """
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    # Ids depend on the base's tokenizers and are made from them when the adapter is loaded.
    settings = {
        name: value
        for name, value in config.to_dict().items()
        if not name.endswith(("_ids", "_word_id", "_pad_token_id"))
    }
    AntifakePromptConfig.from_dict({**settings, "base_model_name_or_path": base}).save_pretrained(folder)
    tensors = {name: word.float().cpu().contiguous() for name, word in words.items()}
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})


def _load_on_base(
    cls: Any, source: Any, fields: dict[str, Any], hub: dict[str, Any], model_args: Any, kwargs: dict[str, Any]
) -> Any:
    base = fields["base_model_name_or_path"]
    # Revision and sub-folder are the adapter's own.
    base_hub = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
    base_fields, _ = PreTrainedConfig.get_config_dict(base, **base_hub)
    kind = base_fields.get("model_type")
    if kind not in BASE_TYPES or base_fields.get("base_model_name_or_path"):
        raise ValueError(
            f"The adapter {source} names the base {base}, which is a {kind!r}; expected a full InstructBLIP "
            f"({' or '.join(map(repr, BASE_TYPES))})."
        )
    if kind == "instructblip" and fields.get("llm_base"):
        logger.warning(
            "The words of %s were trained on %s. If the language model of %s is another (the stock InstructBLIP holds "
            "Vicuna v1.1), scores differ from the published ones.",
            source,
            fields["llm_base"],
            base,
        )
    processor = AntifakePromptProcessor.from_pretrained(source, **hub)
    merged = {**fields, **{name: base_fields[name] for name in BASE_FIELDS if name in base_fields}}
    config = AntifakePromptConfig.from_dict({**merged, **processor.prompt_fields()})
    words = load_file(cached_file(source, ADAPTER_FILE, **hub))

    return_info = kwargs.get("output_loading_info", False)
    options = {name: value for name, value in kwargs.items() if name not in OF_THE_ADAPTER}
    # Past DeepfakeDetectionMixin, which would refuse a stock InstructBLIP for the words that it lacks.
    load = PreTrainedModel.from_pretrained.__func__
    model, info = load(cls, base, *model_args, **{**options, "config": config, "output_loading_info": True})
    faults = {
        name: sorted(str(key) for key in info[name] if str(key) not in WORD_KEYS)
        for name in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    if any(faults.values()):
        raise ValueError(f"The base {base} of {source} is not a complete InstructBLIP: {faults}.")
    _put_words(model, words, source)
    return (model, {**info, "missing_keys": set()}) if return_info else model


def _put_words(model: Any, words: dict[str, torch.Tensor], source: Any) -> None:
    wanted = model.soft_words()
    if set(words) != set(wanted):
        raise ValueError(
            f"{source} holds the words {', '.join(sorted(words)) or 'none'}, but "
            f"soft_word_sides={model.config.soft_word_sides!r} needs {', '.join(sorted(wanted))}."
        )
    for name, word in wanted.items():
        if words[name].shape != word.shape:
            raise ValueError(
                f"{name} of {source} is {tuple(words[name].shape)}, but its base needs {tuple(word.shape)}: it "
                "belongs to another base."
            )
        with torch.no_grad():
            word.copy_(words[name])
