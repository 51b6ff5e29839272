"""What the mini bases of all families are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["LLAMA", "PICTURE", "VISION", "laid_over", "with_prompts"]

IMAGE_SIZE, PATCH_SIZE = 224, 32  # of DD-VQA's pictures; 49 patches keep the prompts short
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PICTURE = {
    "size": {"shortest_edge": IMAGE_SIZE},
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
}
PROMPT_SHARE = 10  # one copy of a family's prompts per so many texts: every training row will hold them


def with_prompts(texts: Sequence[str], prompts: Sequence[str], markers: Sequence[str] = ()) -> list[str]:
    """The texts, and the prompts about as often as training will show them; placeholders are no words to learn."""
    for marker in markers:
        prompts = [prompt.replace(marker, "") for prompt in prompts]
    return [*texts, *list(prompts) * (1 + len(texts) // PROMPT_SHARE)]


def laid_over(fields: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `fields`, field by field in sub-configs too."""
    both = dict(fields)
    for name, value in own.items():
        below = both.get(name)
        both[name] = laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both
