"""Convert FakeVLM checkpoints to a folder for `from_pretrained`, or for any stock Llava loader.

There are two layouts: that of the original LLaVA code (used for training in the first official release), and the stock
Hugging Face one (the released checkpoint), which works without conversion but gets the right processor from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from deepfake_detectors.conversion.checkpoint_files import LLAMA_FIELDS, TOKENIZER_FILES, read_config, read_tensors
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.files import weight_files
from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.modeling_fakevlm import GENERATION_DEFAULTS, FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.processing_fakevlm import IMAGE_FIELDS, FakeVLMProcessor
from deepfake_detectors.modeling.prompting_fakevlm import verdict_tokens

__all__ = ["ORIGINAL_TABLE", "STOCK_TABLE", "convert_fakevlm"]

# Original LLaVA names -> stock names of transformers 4.x, which all versions read.
ORIGINAL_TABLE: KeyTable = [
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
    (r"(?:model\.vision_tower\.vision_tower|vision_tower)\.vision_model\.embeddings\.position_ids", None),
    (r"(?:model\.vision_tower\.)?vision_tower\.(vision_model\..+)", r"vision_tower.\1"),
    (r"model\.mm_projector\.0\.(weight|bias)", r"multi_modal_projector.linear_1.\1"),
    (r"model\.mm_projector\.2\.(weight|bias)", r"multi_modal_projector.linear_2.\1"),
    (r"model\.((?:embed_tokens|layers|norm)\..+)", r"language_model.model.\1"),
    (r"lm_head\.weight", r"language_model.lm_head.weight"),
]
# Stock names on disk -> names in memory.
STOCK_TABLE: KeyTable = [
    (r"language_model\.lm_head\.(.+)", r"lm_head.\1"),
    (r"language_model\.model\.(.+)", r"model.language_model.\1"),
    (r"vision_tower\.vision_model\.(.+)", r"model.vision_tower.\1"),
    (r"multi_modal_projector\.(.+)", r"model.multi_modal_projector.\1"),
]
VOCABULARY_ROWS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
ROWS_MULTIPLE = 64  # as the stock conversion pads the vocabulary
PROJECTOR = "mlp2x_gelu"
SHARD_SIZE = "5GB"
LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
IMAGE, PAD = "<image>", "<pad>"
DISK_FORMATS = ("fakevlm", "llava")
# Fields for verdicts, which stock loaders do not have.
VERDICT_FIELDS = {*FakeVLMConfig.__annotations__, "id2label", "label2id", "model_type", "architectures"}


def convert_fakevlm(
    sources: Sequence[Path], output: Path, *, config: dict[str, Any] | None = None, format: str = "fakevlm"
) -> None:
    """Write a complete folder with its processor.

    Args:
        sources: one folder in the original LLaVA layout, or its weight files with a tokenizer (folder or
            tokenizer.json), plus a CLIP file or folder if the checkpoint lacks the image tower; or one stock Llava
            folder.
        output: empty or new folder.
        config: `FakeVLMConfig` fields that differ from the source's config.json.
        format: `"fakevlm"`, or `"llava"` for a folder for stock Llava loaders, vLLM and `transformers serve`.

    Raises:
        ValueError: if tokenizer or weights are missing, if any key is missing, unexpected or of another shape, or for
            an unknown format.
    """
    if format not in DISK_FORMATS:
        raise ValueError(f"format is {format!r}, allowed are {', '.join(map(repr, DISK_FORMATS))}.")
    stock = [folder for folder in sources if folder.is_dir() and _is_stock(folder)]
    if stock:
        if len(sources) > 1:
            raise ValueError(f"{stock[0]} is a complete stock Llava folder; pass it without other sources.")
        _convert_stock(stock[0], output, config or {}, format)
        return
    tensors = _read_original(sources)
    tokenizer = _read_tokenizer(sources)
    settings, tensors = _with_added_rows(_settings(sources, config or {}, tensors), tensors, tokenizer)
    with torch.device("meta"):
        model = FakeVLMForDeepfakeDetection(settings)
    names = rename_keys(tensors, STOCK_TABLE, "The LLaVA checkpoint")
    check_complete({names[name]: t for name, t in tensors.items()}, model.state_dict(), "The LLaVA checkpoint")

    size = settings.vision_config.image_size
    processor = FakeVLMProcessor(
        FakeVLMImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
        tokenizer,
        patch_size=settings.vision_config.patch_size,
        vision_feature_select_strategy=settings.vision_feature_select_strategy,
        prompt_style=settings.prompt_style,
        image_aspect=settings.image_aspect,
        question=settings.question,
    )
    settings.verdict_tokens = _tokens(settings, tokenizer)
    settings.dtype = tensors[VOCABULARY_ROWS[0]].dtype
    generation = GenerationConfig(
        do_sample=False,
        max_new_tokens=GENERATION_DEFAULTS["max_new_tokens"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_torch_state_dict(tensors, output, max_shard_size=SHARD_SIZE)
    _save_configs(settings, generation, processor, output, format)


def _convert_stock(source: Path, output: Path, config: dict[str, Any], format: str) -> None:
    weight_files(source)  # refuses an index that points outside the folder
    model = FakeVLMForDeepfakeDetection.from_pretrained(source, **config)
    settings = model.config
    processor = FakeVLMProcessor.from_pretrained(
        source, prompt_style=settings.prompt_style, image_aspect=settings.image_aspect, question=settings.question
    )
    if settings.lacks_verdict_tokens:
        settings.verdict_tokens = _tokens(settings, processor.tokenizer)
    model.save_pretrained(output, max_shard_size=SHARD_SIZE)
    _save_configs(settings, model.generation_config, processor, output, format)


def _tokens(settings: FakeVLMConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return verdict_tokens(
        tokenizer,
        settings.verdict_prompt,
        settings.forced_prefix,
        settings.image_token_index,
        settings.text_config.vocab_size,
    )


def _is_stock(folder: Path) -> bool:
    fields = read_config(folder)
    return fields.get("model_type") in ("llava", "fakevlm") and "text_config" in fields


def _weight_files(sources: Sequence[Path]) -> list[Path]:
    files = [path for path in sources if not path.is_dir() and path.suffix != ".json"]
    for folder in (path for path in sources if path.is_dir()):
        files += weight_files(folder)
    if not files:
        where = ", ".join(map(str, sources)) or "the sources"
        raise ValueError(f"No weights (*.safetensors, pytorch_model*.bin) in {where}.")
    return files


def _read_original(sources: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return tensors with their stock names and an unchanged vocabulary."""
    official: dict[str, torch.Tensor] = {}
    tower: dict[str, torch.Tensor] = {}
    for path in _weight_files(sources):
        tensors = read_tensors(path)
        if any(key.startswith("vision_model.") for key in tensors):  # a CLIP checkpoint, without its text half
            tower |= {f"vision_tower.{key}": t for key, t in tensors.items() if key.startswith("vision_model.")}
            continue
        doubled = sorted(official.keys() & tensors.keys())
        if doubled:
            raise ValueError(f"{path} repeats tensors of another source: {', '.join(doubled[:8])}.")
        official |= tensors
    if not any(key.startswith("model.mm_projector.") for key in official):
        first = ", ".join(list(official)[:3]) or "none"
        raise ValueError(
            f"The sources do not contain a LLaVA checkpoint: there is no model.mm_projector.* among their keys "
            f"(first keys: {first}). For a folder in the stock Llava layout, pass the folder itself, with its "
            "config.json."
        )
    if not any(key.startswith("model.vision_tower.") for key in official):
        if not tower:
            raise ValueError(
                "The checkpoint does not contain a CLIP image tower: add the folder or weight file of "
                "openai/clip-vit-large-patch14-336 to `sources`."
            )
        official |= tower
    names = rename_keys(official, ORIGINAL_TABLE, "The LLaVA checkpoint")
    return {new: official[old].contiguous() for old, new in names.items()}


def _settings(sources: Sequence[Path], config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return `FakeVLMConfig` fields: the released sizes, overridden by the source's config.json, then by `config`."""
    fields: dict[str, Any] = {"text_config": {}, "image_aspect": "pad"}
    for folder in sources:
        official = read_config(folder) if folder.is_dir() else {}
        if "mm_projector_type" not in official:
            continue
        if official["mm_projector_type"] != PROJECTOR:
            raise ValueError(
                f"{folder} has mm_projector_type {official['mm_projector_type']!r}, expected {PROJECTOR!r}."
            )
        fields["text_config"] = {name: official[name] for name in LLAMA_FIELDS if name in official}
        fields["vision_feature_layer"] = official.get("mm_vision_select_layer", -2)
        whole = official.get("mm_vision_select_feature", "patch") == "cls_patch"
        fields["vision_feature_select_strategy"] = "full" if whole else "default"
        fields["image_aspect"] = "pad" if official.get("image_aspect_ratio") == "pad" else "crop"
    merged = {**fields, **config}
    merged["text_config"] = {"model_type": "llama", **fields["text_config"], **config.get("text_config", {})}
    merged["text_config"]["vocab_size"] = len(tensors[VOCABULARY_ROWS[0]])
    if "vision_config" in config:
        merged["vision_config"] = {"model_type": "clip_vision_model", **config["vision_config"]}
    return merged


def _with_added_rows(
    fields: dict[str, Any], tensors: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase
) -> tuple[FakeVLMConfig, dict[str, torch.Tensor]]:
    """Add `<image>` and `<pad>` after the vocabulary, with rows for them."""
    words = fields["text_config"]["vocab_size"]
    image, pad = _with_markers(tokenizer, words)
    rows = -(-(max(words, image + 1, pad + 1)) // ROWS_MULTIPLE) * ROWS_MULTIPLE
    text = {**fields["text_config"], "vocab_size": rows, "pad_token_id": pad}
    settings = FakeVLMConfig(**{**fields, "text_config": text, "image_token_index": image, "base_vocab_size": words})
    grown = dict(tensors)
    for name in VOCABULARY_ROWS:
        # The mean row gives the mean logit, so that an added token is never the most likely.
        mean = tensors[name].float().mean(dim=0, keepdim=True).to(tensors[name].dtype)
        grown[name] = torch.cat([tensors[name], mean.expand(rows - words, -1)])
    return settings, grown


def _read_tokenizer(sources: Sequence[Path]) -> PreTrainedTokenizerBase:
    """Return the tokenizer among the sources: from a folder, or a bare `tokenizer.json` (with Llama's special tokens).

    Raises:
        ValueError: if there is none, or if it lacks Llama's special tokens.
    """
    for source in sources:
        if source.is_dir() and (source / "tokenizer_config.json").exists():
            return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        alone = source / "tokenizer.json" if source.is_dir() else source
        if alone.name.endswith(".json") and alone.name != "config.json" and alone.is_file():
            backend = Tokenizer.from_file(str(alone))
            absent = [token for token in LLAMA_TOKENS.values() if token not in backend.get_vocab()]
            if absent:
                raise ValueError(f"{alone} is not a Llama tokenizer: it lacks {', '.join(absent)}.")
            return PreTrainedTokenizerFast(tokenizer_object=backend, **LLAMA_TOKENS)
    raise ValueError(
        f"No tokenizer ({', '.join(TOKENIZER_FILES)}) among the sources: add a folder with the tokenizer and its "
        "tokenizer_config.json to `sources`."
    )


def _with_markers(tokenizer: PreTrainedTokenizerBase, words: int) -> tuple[int, int]:
    """Add `<image>` and `<pad>` as the first ids after `words`, the rows of the model; return their ids.

    A tokenizer that already has them keeps them. One that is shorter than the model is padded first, so that trained
    rows keep their meaning.

    Raises:
        ValueError: if the tokenizer belongs to another checkpoint: its tokens do not match the rows, or the markers
            are among them.
    """
    vocabulary = tokenizer.get_vocab()
    rowless = sorted(token for token, index in vocabulary.items() if index >= words and token not in (IMAGE, PAD))
    if rowless:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the checkpoint has {words} rows (none for "
            f"{', '.join(rowless[:4])}): they do not belong together."
        )
    for marker in (IMAGE, PAD):
        if vocabulary.get(marker, words) < words:
            raise ValueError(
                f"The tokenizer's {marker} has the id {vocabulary[marker]}, which is a word of this checkpoint (with "
                f"{words} rows): "
                "they do not belong together."
            )
    if IMAGE not in vocabulary:
        tokenizer.add_tokens([f"<unused{index}>" for index in range(len(tokenizer), words)])
        tokenizer.add_tokens([IMAGE], special_tokens=True)
    if PAD not in vocabulary:
        tokenizer.add_tokens([PAD], special_tokens=True)
    tokenizer.pad_token = PAD
    return tokenizer.convert_tokens_to_ids(IMAGE), tokenizer.convert_tokens_to_ids(PAD)


def _save_configs(
    config: FakeVLMConfig, generation: GenerationConfig, processor: FakeVLMProcessor, output: Path, format: str
) -> None:
    """Write config, generation config and processor to `output`.

    Args:
        format: `"fakevlm"`, or `"llava"`: `model_type` llava and a stock `LlavaProcessor` (with torchvision's resize,
            which differs from the official one by at most one grey level).
    """
    generation.save_pretrained(output)
    if format == "fakevlm":
        config.save_pretrained(output)
        processor.save_pretrained(output)
        return
    fields = {name: value for name, value in config.to_dict().items() if name not in VERDICT_FIELDS}
    LlavaConfig(**fields, architectures=["LlavaForConditionalGeneration"]).save_pretrained(output)
    own = processor.image_processor
    settings = {name: getattr(own, name) for name in IMAGE_FIELDS if getattr(own, name) is not None}
    if not settings.pop("do_pad", False):
        image_processor = CLIPImageProcessor(**settings)
    else:
        image_processor = LlavaImageProcessor(**settings, do_pad=True)
    stock = LlavaProcessor(
        image_processor,
        processor.tokenizer,
        patch_size=processor.patch_size,
        vision_feature_select_strategy=processor.vision_feature_select_strategy,
        chat_template=processor.chat_template,
        num_additional_image_tokens=1,
    )
    stock.save_pretrained(output)
    image_processor.save_pretrained(output)  # preprocessor_config.json, for servers with transformers 4
