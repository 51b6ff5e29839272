"""Golden config.json to `AntifakePromptConfig` fields, and golden weights to a converted folder."""

import json
from pathlib import Path
from typing import Any

from deepfake_detectors.conversion import convert
from deepfake_detectors.modeling.configuration_antifakeprompt import PROMPTS


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def golden_fields(golden: dict[str, Any]) -> dict[str, Any]:
    vision, qformer, llm = golden["vision"], golden["qformer"], golden["llm"]
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    shared = (*sizes, "max_position_embeddings")
    return {
        "vision_config": {
            "hidden_size": vision["embed_dim"],
            "intermediate_size": vision["mlp_hidden"],
            "num_hidden_layers": vision["depth"],
            "num_attention_heads": vision["num_heads"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "layer_norm_eps": vision["block_norm_eps"],
        },
        "qformer_config": {
            **{name: qformer[name] for name in shared},
            "vocab_size": qformer["vocab_size_with_DEC"],
            "cross_attention_frequency": qformer["cross_attention_freq"],
            "layer_norm_eps": qformer["layer_norm_eps"],
            "pad_token_id": qformer["pad_token_id"],
        },
        "text_config": {
            "model_type": "llama",
            **{name: llm[name] for name in (*shared, "rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id")},
        },
        "num_query_tokens": golden["num_query_token"],
        "ln_vision_eps": vision["ln_vision_eps"],
        "prompt_position": next((name for name, text in PROMPTS.items() if text == golden["prompt"]), "custom"),
        "prompt": golden["prompt"],
        "plain_prompt": plain_question(golden),
        "candidates": golden["candidates"],
        "image_mean": golden["mean"],
        "image_std": golden["std"],
    }


def plain_question(golden: dict[str, Any]) -> str:
    """The question without the word, wherever the word stands in the prompt: as the table of tokens writes it."""
    texts = [entry["text"] for entry in golden["tokenization"]]
    questions = [text for text in texts if "[*]" not in text and text.endswith("?")]
    wanted = golden["prompt"].replace("[*]", "").replace(" ", "")
    same = [text for text in questions if text.replace(" ", "") == wanted]
    return [*same, *questions, "Is this photo real?"][0]


def convert_golden(folder: Path, output: Path, **fields: Any) -> Path:
    sources = [
        folder / name
        for name in ("model_lavis.safetensors", "released_style_checkpoint.pth", "llm_tokenizer", "qformer_tokenizer")
    ]
    return convert("antifakeprompt", sources, output, config={**golden_fields(read_config(folder)), **fields})
