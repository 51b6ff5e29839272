"""Golden FakeVLM weights to a converted folder, and to a stock folder as transformers 4.45 wrote it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from deepfake_detectors.conversion import convert
from deepfake_detectors.conversion.fakevlm import ORIGINAL_TABLE
from deepfake_detectors.conversion.key_table import rename_keys


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def fakevlm_fields(golden: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    original = golden["llava_original"]
    return {
        "vision_config": golden["vision_config"],
        "text_config": golden["text_config"],
        "vision_feature_layer": original["mm_vision_select_layer"],
        "image_aspect": "pad" if original["image_aspect_ratio"] == "pad" else "crop",
        **overrides,
    }


def convert_fakevlm(folder: Path, output: Path, format: str = "fakevlm", **overrides: Any) -> Path:
    """The golden folder through the public converter."""
    sources = [folder / "model_llava_format.safetensors", folder / "tokenizer.json"]
    config = fakevlm_fields(read_config(folder), **overrides)
    return convert("fakevlm", sources, output, config=config, format=format)


def write_stock_folder(folder: Path, output: Path) -> Path:
    """The golden weights in the layout of the released checkpoint: names, config and processor files of 4.45."""
    golden = read_config(folder)
    twin = golden["hf"]
    original = load_file(folder / "model_llava_format.safetensors")
    names = rename_keys(original, ORIGINAL_TABLE, "goldens")
    tensors = {new: original[old] for old, new in names.items()}
    generator = torch.Generator().manual_seed(0)
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        rows, width = tensors[name].shape
        added = 0.02 * torch.randn(twin["vocab_size"] - rows, width, generator=generator)
        tensors[name] = torch.cat([tensors[name], added])
    output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": twin["image_token_index"],
        "model_type": "llava",
        "pad_token_id": twin["pad_token_id"],
        "projector_hidden_act": twin["projector_hidden_act"],
        "text_config": {
            **golden["text_config"],
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "float32",
            "vocab_size": twin["vocab_size"],
            "pad_token_id": twin["pad_token_id"],
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.45.2",
        "vision_config": {**golden["vision_config"], "model_type": "clip_vision_model"},
        "vision_feature_layer": twin["vision_feature_layer"],
        "vision_feature_select_strategy": twin["vision_feature_select_strategy"],
    }
    image = golden["image_processor"]
    preprocessor = {
        "_valid_processor_keys": ["images", "do_resize"],
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True),
        **image,
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "padding_side": "left",
        "processor_class": "LlavaProcessor",
    }
    files = {"config": config, "preprocessor_config": preprocessor, "tokenizer_config": tokenizer}
    # As 4.45 wrote it: no num_additional_image_tokens, and patch_size null where the training code gave none.
    files["processor_config"] = {"image_token": "<image>", "patch_size": None, "processor_class": "LlavaProcessor"}
    for name, content in files.items():
        (output / f"{name}.json").write_text(json.dumps(content, indent=2))
    (output / "tokenizer.json").write_text((folder / "tokenizer_hf.json").read_text())
    return output
