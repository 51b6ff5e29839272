"""Golden config.json to `M2F2DetConfig` fields, and golden weights to a converted folder."""

import json
from pathlib import Path
from typing import Any

from deepfake_detectors.conversion import convert


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def clip_fields(golden: dict[str, Any]) -> dict[str, Any]:
    vision, text = golden["clip_vision"], golden["clip_text"]
    return {
        "vision_config": {
            "hidden_size": vision["hidden"],
            "intermediate_size": vision["inter"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "image_size": vision["image"],
            "patch_size": vision["patch"],
        },
        "prompt_text_config": {
            "vocab_size": text["vocab"],
            "hidden_size": text["hidden"],
            "intermediate_size": text["inter"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["pos"],
            "projection_dim": text["proj"],
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "prompt_token_num": golden["prompt_token_num"],
        "vision_feature_layer": golden["vision_select_layer"],
    }


def stage1_fields(golden: dict[str, Any]) -> dict[str, Any]:
    network = golden["efficientnet"]
    return {
        **clip_fields(golden),
        "hidden_size": golden["hidden_size"],
        "encoder_config": {
            "type": "efficientnet",
            "blocks": network["mbconv(expand,kernel,stride,in,out,layers)"],
            "num_features": network["last_channel"],
        },
        "bridge_dim": golden["bridge_dim_internal"],
        "bridge_num_heads": golden["bridge_heads"],
        "bridge_intermediate_size": golden["bridge_ffn"],
        "bridge_adapter_dim": golden["bridge_adapter_dim"],
        "bridge_vision_layers": golden["vision_taps"],
        # torchvision counts the stem as features[0]
        "bridge_encoder_layers": [f"blocks.{tap - 1}" for tap in golden["cnn_taps"]],
    }


def cosine_fields(golden: dict[str, Any]) -> dict[str, Any]:
    network = golden["densenet"]
    table = {name: network[name] for name in ("growth_rate", "block_config", "num_init_features", "bn_size")}
    return {
        **clip_fields(golden),
        "hidden_size": golden["detector_hidden_size"],
        "encoder_config": {"type": "densenet", **table},
    }


def convert_stage1(goldens: Path, output: Path) -> Path:
    folder = goldens / "stage1_detector"
    sources = [folder / "model.safetensors", folder / "bridge_adapter_unregistered.safetensors"]
    return convert("m2f2_det", sources, output, config=stage1_fields(read_config(folder)))


def convert_cosine(goldens: Path, output: Path) -> Path:
    folder = goldens / "llava_detector"
    return convert("m2f2_det", [folder / "model.safetensors"], output, config=cosine_fields(read_config(folder)))


def language_model_fields(golden: dict[str, Any]) -> dict[str, Any]:
    llm = golden["llm"]
    return {
        **cosine_fields(golden),
        "text_config": {
            "hidden_size": llm["hidden"],
            "intermediate_size": llm["inter"],
            "num_hidden_layers": llm["layers"],
            "num_attention_heads": llm["heads"],
            "num_key_value_heads": llm["kv"],
            "vocab_size": llm["vocab"],
            "rms_norm_eps": llm["rms_norm_eps"],
            "rope_theta": llm["rope_theta"],
            "bos_token_id": llm["bos"],
            "eos_token_id": llm["eos"],
            "pad_token_id": llm["pad"],
            "tie_word_embeddings": llm["tie_word_embeddings"],
        },
    }


def convert_language_model(goldens: Path, output: Path) -> Path:
    folder = goldens / "deepfake_llm"
    fields = language_model_fields(read_config(folder))
    return convert("m2f2_det", [folder / "model.safetensors", folder / "tokenizer"], output, config=fields)
