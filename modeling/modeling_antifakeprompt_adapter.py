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
# Fields taken from the base, regardless of what the adapter was saved with.
BASE_FIELDS = ("vision_config", "qformer_config", "text_config", "num_query_tokens", "image_token_index")
# Arguments of `from_pretrained` that locate the adapter, not its base (the last two come from AutoModel).
OF_THE_ADAPTER = ("config", "revision", "subfolder", "_commit_hash", "adapter_kwargs")
# Initial value of the words in the official training.
INITIALIZER_STD = 0.02
# Keys of the words in a full checkpoint; a stock InstructBLIP does not have them.
WORD_KEYS = {
    "qformer.embeddings.word_embeddings.soft_word",
    "language_model.model.embed_tokens.soft_word",
}


class SoftWordEmbedding(nn.Embedding):
    """An embedding table that returns the learned vector for its id.

    The vector is always float32, so that small training steps are not lost to rounding; it is cast when it is
    inserted.

    Args:
        table: the embedding to wrap; its weight is shared, not copied.
        soft_word_id: id of the learned word, which can be beyond the table; `None` for no word.
        placeholder_ids: ids beyond the table that are replaced later (image, padding). Any other id beyond the table
            is an error, as in every embedding.
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
        """Embed int64 ids of any shape to (..., width)."""
        inside = input
        for placeholder in self.placeholder_ids:
            inside = inside.masked_fill(input == placeholder, 0)
        if self.soft_word is None:
            return super().forward(inside)
        learned = input == self.soft_word_id
        rows = super().forward(inside.masked_fill(learned, 0))
        return torch.where(learned.unsqueeze(-1), self.soft_word.to(rows.dtype), rows)


class SoftWordAdapterMixin:
    """Mixin before `DeepfakeDetectionMixin` that loads and saves adapter folders."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a full folder, or an adapter folder together with its base, using the same arguments.

        Raises:
            ValueError: as `DeepfakeDetectionMixin.from_pretrained`; also if the base is not an InstructBLIP, or if
                words are missing or have the wrong width for it.
        """
        finish_saving(pretrained_model_name_or_path)
        refuse_foreign_checkpoint(cls, pretrained_model_name_or_path, kwargs)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        fields, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
        if fields.get("base_model_name_or_path") is None:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)  # type: ignore[misc]
        return _load_on_base(cls, pretrained_model_name_or_path, fields, hub, model_args, kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the full checkpoint including the base; `save_adapter` saves only the words."""
        base, self.config.base_model_name_or_path = self.config.base_model_name_or_path, None
        try:
            super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        finally:
            self.config.base_model_name_or_path = base

    def save_adapter(
        self, save_directory: str | Path, processor: Any = None, base_model_name_or_path: str | Path | None = None
    ) -> None:
        """Save only the learned words.

        Args:
            save_directory: folder to write; created if needed.
            processor: also save its settings (statistics, prompt), but not the tokenizers, which come with the base.
            base_model_name_or_path: Hub id or folder of the base InstructBLIP; by default the one this model was
                loaded with.

        Raises:
            ValueError: if the base is unknown.
        """
        base = base_model_name_or_path or self.config.base_model_name_or_path
        if base is None:
            raise ValueError(
                "This model is a full checkpoint: pass the InstructBLIP that the words belong to as "
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
        """Upload the files of `save_adapter` and return the URL of the commit.

        Args:
            repo_id: model repository; created if needed.
            processor, base_model_name_or_path: see `save_adapter`. A local folder is refused, because others cannot
                load it.
            private, token, commit_message: as in `push_to_hub`.
            endpoint: address of the Hub, if not the default one.

        Raises:
            ValueError: if the base is unknown or a local folder.
        """
        base = base_model_name_or_path or self.config.base_model_name_or_path
        if base is not None and Path(base).exists():
            raise ValueError(
                f"The base {base} is a local folder; pass its Hub id instead: base_model_name_or_path=..."
            )
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
        config: config of the model; the base is set in a copy.
        base: Hub id or folder of the base InstructBLIP.
        save_directory: folder to write; created if needed.
    """
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    # Token ids depend on the base's tokenizers and are computed when the adapter is loaded.
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
    # Revision and subfolder apply only to the adapter.
    base_hub = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
    base_fields, _ = PreTrainedConfig.get_config_dict(base, **base_hub)
    kind = base_fields.get("model_type")
    if kind not in BASE_TYPES or base_fields.get("base_model_name_or_path"):
        raise ValueError(
            f"The base {base} of the adapter {source} is a {kind!r}; expected a full InstructBLIP "
            f"({' or '.join(map(repr, BASE_TYPES))})."
        )
    if kind == "instructblip" and fields.get("llm_base"):
        logger.warning(
            "The words of %s were trained on %s. If %s has another language model (the stock InstructBLIP has Vicuna "
            "v1.1), scores differ from the published ones.",
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
    # Skips DeepfakeDetectionMixin, which would refuse a stock InstructBLIP because it does not have the words.
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
            f"{source} contains the words {', '.join(sorted(words)) or 'none'}, but "
            f"soft_word_sides={model.config.soft_word_sides!r} needs {', '.join(sorted(wanted))}."
        )
    for name, word in wanted.items():
        if words[name].shape != word.shape:
            raise ValueError(
                f"{name} of {source} is {tuple(words[name].shape)}, but its base needs {tuple(word.shape)}: the "
                "adapter belongs to another base."
            )
        with torch.no_grad():
            word.copy_(words[name])
