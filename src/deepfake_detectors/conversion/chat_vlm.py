"""Turn a stock chat model into a detector's folder: the same weights, with its question in the config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from deepfake_detectors.modeling.configuration_chat_vlm import ChatVlmConfig
from deepfake_detectors.modeling.modeling_chat_vlm import ChatVlmForDeepfakeDetection
from deepfake_detectors.modeling.processing_chat_vlm import SETTINGS, ChatVlmProcessor

__all__ = ["convert_chat_vlm"]


def convert_chat_vlm(sources: Sequence[Path], output: Path, *, config: dict[str, Any] | None = None) -> None:
    """Write a chat model's folder with its own question, answers and system prompt.

    It is still a stock folder that every loader of the chat model reads. Stock folders also work without conversion,
    with the package's question; convert them for another question or for training.

    Args:
        sources: one folder of a model that `AutoModelForImageTextToText` loads, with its processor.
        output: folder to write.
        config: fields of `ChatVlmConfig`, such as `question`, `answers`, `base_model`.

    Raises:
        ValueError: for several sources, unknown fields, or a folder without such a model.
    """
    if len(sources) != 1 or not Path(sources[0]).is_dir():
        raise ValueError(f"chat_vlm takes one folder of a chat model, not {', '.join(map(str, sources)) or 'none'}.")
    fields = dict(config or {})
    allowed = ChatVlmConfig.own_fields(dict.fromkeys(ChatVlmConfig.__annotations__))
    if unknown := sorted(set(fields) - set(allowed)):
        raise ValueError(f"config has {', '.join(unknown)}; fields of chat_vlm are {', '.join(sorted(allowed))}.")
    source = sources[0]
    if "base_model" not in fields and (named := PreTrainedConfig.get_config_dict(source)[0].get("_name_or_path")):
        fields["base_model"] = named
    processor = ChatVlmProcessor.from_pretrained(
        source, **{name: value for name, value in fields.items() if name in SETTINGS}
    )
    model = ChatVlmForDeepfakeDetection.from_pretrained(source, dtype="auto", **fields)
    model.save_pretrained(output)
    processor.save_pretrained(output)
