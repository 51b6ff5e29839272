"""Tiny models with random weights, with each family's own classes, processors, prompts and files, for the CPU.

Such a model cannot write before it is trained. It replaces a pretrained base when trying a recipe, and a released
checkpoint in tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deepfake_detectors.families import FAMILIES, require_family

__all__ = ["MINI", "TINY", "Plan", "Size", "laid_over", "tiny_model"]


@dataclass(frozen=True)
class Size:
    """Sizes that all families share.

    Args:
        image_size, patch_size: side of an image and of a patch in pixels.
        width, inner_width: widths of towers and language model.
        heads: number of attention heads of both.
        vision_layers, language_layers: number of layers.
    """

    image_size: int
    patch_size: int
    width: int
    inner_width: int
    heads: int = 4
    vision_layers: int = 3
    language_layers: int = 2

    @property
    def vision(self) -> dict[str, Any]:
        """Return the fields of a vision tower."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner_width,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": self.heads,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
        }

    @property
    def language(self) -> dict[str, Any]:
        """Return the fields of a Llama, except its vocabulary."""
        return {
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.inner_width,
            "num_hidden_layers": self.language_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }

    @property
    def picture(self) -> dict[str, Any]:
        """Return the fields of an image processor that resizes the shorter side and crops the centre."""
        side = self.image_size
        return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


MINI = Size(224, 32, 64, 128)  # the size of DD-VQA's images; 49 patches keep prompts short
TINY = Size(56, 14, 32, 48)
PROMPT_SHARE = 10  # one copy of a family's prompts per this many texts, because every training row contains them


@dataclass(frozen=True)
class Plan:
    """Input of a family's builder, the field `mini` of its row.

    Args:
        size: see `Size`.
        texts: texts that the tokenizers learn from, in addition to the family's prompts.
        vocabulary: maximum number of ids of the language model's tokenizer.
        generates: whether to build the class with a language model if the verdict class does not have one.
        config: fields of the family's config that override the tiny ones.
    """

    size: Size
    texts: Sequence[str]
    vocabulary: int
    generates: bool
    config: dict[str, Any]

    def words(self, prompts: Sequence[str], markers: Sequence[str] = ()) -> list[str]:
        """Return the texts, and the prompts about as many times as in training, without placeholders."""
        for marker in markers:
            prompts = [prompt.replace(marker, "") for prompt in prompts]
        return [*self.texts, *list(prompts) * (1 + len(self.texts) // PROMPT_SHARE)]

    def over(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return `fields` overridden by `config`, also field by field in sub-configs of the same type."""
        return laid_over(fields, self.config)


def tiny_model(
    family: str,
    *,
    generates: bool = False,
    size: Size = TINY,
    texts: Sequence[str] = (),
    vocabulary: int = 500,
    seed: int = 0,
    **config: Any,
) -> tuple[Any, Any]:
    """Build a model with random weights, in eval mode, and its processor.

    Args:
        family: name of a row of the table whose field `mini` names a builder: a function of a `Plan`.
        generates: build the class with a language model, if the family has two classes.
        size: `TINY` (56 x 56 pixels) or `MINI` (224 x 224).
        texts: additional texts that the tokenizers learn from.
        vocabulary: maximum number of ids of the language model's tokenizer.
        seed: seed of the weights.
        config: fields of the family's config, such as `variant="bridge"`.

    Returns:
        The model and its processor.

    Raises:
        ValueError: for an unknown family, one without a builder, or fields that its config refuses.
    """
    row = require_family(family, f"tiny_model({family!r})")
    if row.mini is None:
        known = ", ".join(name for name, other in FAMILIES.items() if other.mini)
        raise ValueError(f"{family} has no `mini` in the table of families; families with one are {known}.")
    torch.manual_seed(seed)
    model, processor = row.load("mini")(Plan(size, texts, vocabulary, generates, config))
    return model.eval(), processor


def laid_over(fields: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` overridden by `own`, also field by field in sub-configs of the same type."""
    both = dict(fields)
    for name, value in own.items():
        below = both.get(name)
        both[name] = laid_over(below, value) if _same_kind(below, value) else value
    return both


def _same_kind(below: Any, value: Any) -> bool:
    if not isinstance(below, dict) or not isinstance(value, dict):
        return False
    # A dict with a type describes a whole part, such as the encoder of M2F2-Det.
    return "type" not in value and value.get("model_type", below.get("model_type")) == below.get("model_type")
