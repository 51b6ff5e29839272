"""Golden files of LVLM-DFD in the form of the official release, and converted."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from deepfake_detectors.conversion import convert

LLM_KEYS = "llama_model.base_model.model."


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def imagebind_fields(golden: dict[str, Any]) -> dict[str, Any]:
    dims, fixed = golden["dims"], golden["imagebind"]
    common = {"layer_norm_eps": fixed["layer_norm_eps"]}
    return {
        "vision_config": {
            **common,
            "hidden_size": dims["vision_width"],
            "intermediate_size": fixed["mlp_ratio"] * dims["vision_width"],
            "num_hidden_layers": dims["vision_blocks"],
            "num_attention_heads": dims["vision_heads"],
            "image_size": fixed["image_size"],
            "patch_size": fixed["patch"],
        },
        "text_config": {
            **common,
            "hidden_size": dims["text_width"],
            "intermediate_size": fixed["mlp_ratio"] * dims["text_width"],
            "num_hidden_layers": dims["text_blocks"],
            "num_attention_heads": dims["text_heads"],
            "vocab_size": fixed["text_vocab"],
            "max_position_embeddings": fixed["text_context"],
        },
        "projection_dim": dims["out_embed_dim"],
        "max_logit_scale": fixed["max_logit_scale"],
    }


def head_fields(golden: dict[str, Any]) -> dict[str, Any]:
    return {
        "tap_layers": golden["dims"]["tap_layers"],
        "num_ctx_tokens": golden["n_ctx"],
        "locator_width": golden["locator"]["width"],
        "classifier_widths": golden["classifier"]["widths"],
        "classifier_hidden_size": golden["classifier"]["hidden"],
        "prompt_widths": golden["prompt_learner"]["widths"],
        "num_prompt_tokens": golden["prompt_learner"]["n_prompts"],
    }


def lvlm_fields(golden: dict[str, Any]) -> dict[str, Any]:
    return {
        "imagebind_config": imagebind_fields(golden),
        **head_fields(golden),
        "stop_token_id": golden["dims"]["stop_token_id"],
    }


def official_tensors(goldens: Path) -> dict[str, torch.Tensor]:
    """The state dict with its text embedding table spread out again."""
    tensors = load_file(goldens / "state_dict.safetensors")
    rows_name = next(name for name in tensors if name.endswith(".rows"))
    name = rows_name.removesuffix(".rows")
    rows, ids = tensors.pop(rows_name), tensors.pop(f"{name}.row_ids")
    table = torch.zeros(read_config(goldens)["imagebind"]["text_vocab"], rows.shape[1])
    table[ids.long()] = rows
    return {**tensors, name: table}


def write_release(goldens: Path, folder: Path) -> list[Path]:
    """`ckpt.pth` as a trainer saves it (no frozen language model in it) and a Vicuna folder."""
    golden, tensors = read_config(goldens), official_tensors(goldens)
    vicuna = folder / "vicuna"
    vicuna.mkdir(parents=True)
    base = {
        key.removeprefix(LLM_KEYS).replace(".base_layer", ""): tensors.pop(key)
        for key in list(tensors)
        if key.startswith(LLM_KEYS) and ".lora_" not in key
    }
    save_file(base, vicuna / "model.safetensors", metadata={"format": "pt"})
    (vicuna / "config.json").write_text(json.dumps(golden["llm_config"]))
    (vicuna / "tokenizer.json").write_bytes((goldens / "tokenizer.json").read_bytes())
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (vicuna / "tokenizer_config.json").write_text(json.dumps({**special, "unk_token": "<unk>"}))
    torch.save(tensors, folder / "ckpt.pth")
    return [folder / "ckpt.pth", vicuna]


def convert_golden(goldens: Path, workspace: Path, output: str = "converted", **options: Any) -> Path:
    golden = read_config(goldens)
    release = workspace / "release"
    sources = [release / "ckpt.pth", release / "vicuna"] if release.exists() else write_release(goldens, release)
    fields = {**lvlm_fields(golden), **options.pop("config", {})}
    alpha = golden["dims"]["lora_alpha"]
    return convert("lvlm_dfd", sources, workspace / output, config=fields, llm_lora_alpha=alpha, **options)
