"""Convert AntifakePrompt's learned words to PEFT adapters, one folder per side, and back.

PEFT's token tuning has one list of ids for all tables, but the word has a different id on each side, so the two
submodels are wrapped separately. A stock InstructBLIP needs rows for both ids first:

```python
model.resize_token_embeddings(llm_soft_word_id + 1)
model.qformer.resize_token_embeddings(qformer_soft_word_id + 1)
model.language_model = PeftModel.from_pretrained(model.language_model, "words/language_model")
model.qformer = PeftModel.from_pretrained(model.qformer, "words/qformer")
```
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection

__all__ = ["export_peft", "import_peft"]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


class _Side(NamedTuple):
    word: str
    folder: str
    id_field: str
    table: str

    @property
    def key(self) -> str:
        return f"base_model.model.{self.table}.trainable_tokens_delta"


SIDES = (
    _Side("qformer_soft_word", "qformer", "qformer_soft_word_id", "embeddings.word_embeddings"),
    _Side("llm_soft_word", "language_model", "llm_soft_word_id", "model.embed_tokens"),
)


def export_peft(model: AntifakePromptForDeepfakeDetection, save_directory: str | Path) -> None:
    """Write `qformer/` and `language_model/` (one of them for a one-sided word) into `save_directory`."""
    from peft import TrainableTokensConfig

    words = model.soft_words()
    for side in SIDES:
        if side.word not in words:
            continue
        folder = Path(save_directory) / side.folder
        folder.mkdir(parents=True, exist_ok=True)
        TrainableTokensConfig(
            token_indices=[getattr(model.config, side.id_field)],
            target_modules=[side.table.split(".")[-1]],
            inference_mode=True,
            base_model_name_or_path=model.config.base_model_name_or_path,
        ).save_pretrained(str(folder))
        save_file({side.key: words[side.word].detach().float().cpu().contiguous()}, folder / WEIGHTS)


def import_peft(model: AntifakePromptForDeepfakeDetection, directory: str | Path) -> None:
    """Load the words from `export_peft`, or from training with PEFT, into `model`.

    Raises:
        ValueError: if a side is missing or unexpected, tunes another id or several, or has the wrong width.
    """
    from peft import PeftConfig

    words = model.soft_words()
    found = {}
    for side in SIDES:
        folder = Path(directory) / side.folder
        if not (folder / CONFIG).is_file():
            continue
        if side.word not in words:
            raise ValueError(f"{folder} tunes a word that soft_word_sides={model.config.soft_word_sides!r} excludes.")
        config = PeftConfig.from_pretrained(str(folder))
        wanted = [getattr(model.config, side.id_field)]
        indices = getattr(config, "token_indices", None)
        if indices != wanted:
            raise ValueError(f"{folder} tunes the tokens {indices}, but the learned word of this model is {wanted}.")
        tensors = load_file(folder / WEIGHTS)
        if set(tensors) != {side.key} or tensors[side.key].shape != words[side.word].shape:
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            raise ValueError(f"{folder} contains {shapes}, expected {side.key} of {tuple(words[side.word].shape)}.")
        found[side.word] = tensors[side.key]
    if missing := sorted(set(words) - set(found)):
        raise ValueError(
            f"{directory} lacks {', '.join(missing)}; expected the folders {', '.join(side.folder for side in SIDES)}."
        )
    with torch.no_grad():
        for name, word in words.items():
            word.copy_(found[name])
