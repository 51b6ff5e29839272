"""Convert official AntifakePrompt files to a full folder or an adapter folder.

Files: the released `COCO_*.pth` (the two learned words), LAVIS' InstructBLIP base file
(`instruct_blip_vicuna7b_trimmed.pth`: queries, vision norm, Q-Former, projection), the vision tower `eva_vit_g.pth`
(or all of these from a transformers folder of InstructBLIP), the folder of Vicuna-7B v1.3, and a folder with
the tokenizer of `bert-base-uncased`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from deepfake_detectors.conversion.checkpoint_files import (
    LLAMA_FIELDS,
    TOKENIZER_FILES,
    has_tokenizer,
    read_config,
    read_tensors,
)
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.files import weight_files
from deepfake_detectors.modeling.configuration_antifakeprompt import DEFAULT_BASE, AntifakePromptConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import IMAGE_STATISTICS, AntifakePromptImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import save_soft_words
from deepfake_detectors.modeling.processing_antifakeprompt import (
    AntifakePromptProcessor,
    add_soft_word,
    save_processor_settings,
)

__all__ = ["LAVIS_TABLE", "WORD_FILE_TABLE", "convert_antifakeprompt", "fuse_attention_biases"]

logger = logging.getLogger(__name__)

STATE_DICT_KEYS = ("model",)
ZERO_SHOT = "zero_shot"
QFORMER_TOKENIZER_FOLDER = "qformer_tokenizer"
# The published vision tower file also has parts that InstructBLIP does not use.
UNUSED_TOWER_KEYS = re.compile(r"(norm|fc_norm|head)\..+")
LLM_FIELDS = ("model_type", *LLAMA_FIELDS, "rope_parameters", "tie_word_embeddings")
INSTRUCTBLIP_FIELDS = ("vision_config", "qformer_config", "text_config", "num_query_tokens")


QFORMER_WORD = "Qformer.bert.embeddings.train_word_embeddings.weight"
LLM_WORD = "llm_model.model.train_embed_tokens.weight"

LAYER = r"visual_encoder\.blocks\.(\d+)"
OURS = r"vision_model.encoder.layers.\1"
BUFFERS: KeyTable = [
    (r"Qformer\.bert\.embeddings\.position_ids", None),
    (r"llm_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
]
# For complete models, with fused attention biases.
LAVIS_TABLE: KeyTable = [
    *BUFFERS,
    (r"query_tokens", "query_tokens"),
    (r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.(.+)", r"vision_model.embeddings.patch_embedding.\1"),
    (LAYER + r"\.norm([12])\.(.+)", OURS + r".layer_norm\2.\3"),
    (LAYER + r"\.attn\.qkv\.(weight|bias)", OURS + r".self_attn.qkv.\2"),
    (LAYER + r"\.attn\.proj\.(.+)", OURS + r".self_attn.projection.\2"),
    (LAYER + r"\.mlp\.(fc[12])\.(.+)", OURS + r".mlp.\2.\3"),
    (r"ln_vision\.(.+)", r"vision_model.post_layernorm.\1"),
    (r"Qformer\.bert\.embeddings\.train_word_embeddings\.weight", "qformer.embeddings.word_embeddings.soft_word"),
    (r"Qformer\.bert\.embeddings\.LayerNorm\.(.+)", r"qformer.embeddings.layernorm.\1"),
    (r"Qformer\.bert\.embeddings\.(.+)", r"qformer.embeddings.\1"),
    (r"Qformer\.bert\.(.+\.(?:cross)?attention)\.self\.(.+)", r"qformer.\1.attention.\2"),
    (r"Qformer\.bert\.(.+)", r"qformer.\1"),
    (r"llm_proj\.(.+)", r"language_projection.\1"),
    (r"llm_model\.model\.train_embed_tokens\.weight", "language_model.model.embed_tokens.soft_word"),
    (r"llm_model\.(.+)", r"language_model.\1"),
]
# For the released files, whose tensors become the adapter.
WORD_FILE_TABLE: KeyTable = [
    *BUFFERS,
    (r"Qformer\.bert\.embeddings\.train_word_embeddings\.weight", "qformer_soft_word"),
    (r"llm_model\.model\.train_embed_tokens\.weight", "llm_soft_word"),
]


@dataclass
class _Sources:
    words: dict[str, torch.Tensor] = field(default_factory=dict)
    words_file: Path | None = None
    lavis: dict[str, torch.Tensor] = field(default_factory=dict)
    tower: dict[str, torch.Tensor] = field(default_factory=dict)
    stock: dict[str, torch.Tensor] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    tokenizers: dict[str, Any] = field(default_factory=dict)
    statistics: tuple[Any, Any] = (None, None)


def convert_antifakeprompt(
    sources: Sequence[Path], output: Path, *, config: dict[str, Any] | None = None, variant: str | None = None
) -> None:
    """Write a complete folder, or an adapter folder from only a released file.

    Args:
        sources: official files and folders in any order, see the module docstring.
        output: empty or new folder.
        config: `AntifakePromptConfig` fields that differ from the released ones; for an adapter,
            `base_model_name_or_path` is its InstructBLIP (by default the stock one). Also `image_mean` and
            `image_std`, for words that you trained.
        variant: a key of `IMAGE_STATISTICS` for the image statistics; by default `"lama"` for files with that name,
            otherwise the first. Or `"zero_shot"`: an InstructBLIP without learned words that is asked the official
            question, as in that column of the paper.

    Raises:
        ValueError: if a file cannot be read or has an unknown type, if the learned words or a tokenizer are missing,
            or if any key is missing, unexpected or of the wrong shape.
    """
    found = _sort_sources(sources)
    fields = {**found.fields, **(config or {})}
    if variant == ZERO_SHOT:
        if found.words:
            raise ValueError(
                f"`variant` {ZERO_SHOT!r} does not use learned words, but {found.words_file} contains them: leave "
                "out one of the two."
            )
        fields, variant = {**fields, "soft_word_sides": "none"}, None
    own_statistics = fields.pop("image_mean", None), fields.pop("image_std", None)
    if all(own_statistics):
        if variant is not None:
            raise ValueError("image_mean and image_std are given, so `variant` must be left out.")
        found.statistics = own_statistics
    elif any(own_statistics):
        raise ValueError("image_mean and image_std belong together: pass both.")
    else:
        fields["variant"] = _variant(variant, found.words_file)
        found.statistics = IMAGE_STATISTICS[fields["variant"]]
    if not found.lavis and not found.stock and not found.tower:
        _write_adapter(found, fields, output)
    else:
        _write_model(found, fields, output)


def _write_adapter(found: _Sources, fields: dict[str, Any], output: Path) -> None:
    base = fields.pop("base_model_name_or_path", None) or DEFAULT_BASE
    settings = AntifakePromptConfig(**fields)
    words = {new: found.words[old] for old, new in rename_keys(found.words, WORD_FILE_TABLE, "The words").items()}
    sides = {"both": ("qformer", "llm"), "none": ()}.get(settings.soft_word_sides, (settings.soft_word_sides,))
    _check_words({f"{side}_soft_word" for side in sides}, set(words))
    save_soft_words(words, settings, base, output)
    save_processor_settings(output, _image_processor(found, settings), _processor_settings(settings))


def _write_model(found: _Sources, fields: dict[str, Any], output: Path) -> None:
    if fields.pop("base_model_name_or_path", None):
        raise ValueError(
            "base_model_name_or_path is for an adapter, but the sources include a base: leave out one of the two."
        )
    for kind in ("llm", "qformer"):
        if kind not in found.tokenizers:
            raise ValueError(
                f"No tokenizer of the {'language model' if kind == 'llm' else 'Q-Former (bert-base-uncased)'} among "
                f"the sources: add a folder with one of {', '.join(TOKENIZER_FILES)} to `sources`."
            )
    add_soft_word(found.tokenizers["llm"], found.tokenizers["qformer"])
    for name, word in found.words.items():
        if name in found.lavis and not torch.equal(found.lavis[name], word):
            raise ValueError(f"Two of the sources have different learned words ({name}); pass only one.")
    lavis = fuse_attention_biases({**found.lavis, **_tower_blocks(found.tower, fields), **found.words})
    names = rename_keys(lavis, LAVIS_TABLE, "The official files")
    tensors = {new: lavis[old].contiguous() for old, new in names.items()}
    _add(tensors, found.stock, "A folder in transformers' form")

    text = dict(fields.get("text_config", {}))
    rows = tensors.get("language_model.model.embed_tokens.weight")
    if rows is not None:
        text["vocab_size"] = len(rows)  # the tables do not change: added tokens come after them
    fields = {**fields, "text_config": text}
    settings = AntifakePromptConfig(**fields)
    processor = AntifakePromptProcessor(
        _image_processor(found, settings),
        found.tokenizers["llm"],
        found.tokenizers["qformer"],
        **_processor_settings(settings),
    )
    settings = AntifakePromptConfig(**{**fields, **processor.prompt_fields()})

    with torch.device("meta"):
        model = AntifakePromptForDeepfakeDetection(settings)
    words = {name for name in tensors if name.endswith(".soft_word")}
    _check_words({name for name in model.state_dict() if name.endswith(".soft_word")}, words)
    check_complete(tensors, model.state_dict(), "The AntifakePrompt checkpoint")
    model.load_state_dict(tensors, strict=True, assign=True)
    model.save_pretrained(output)
    processor.save_pretrained(output)


def _tower_blocks(tower: dict[str, torch.Tensor], fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tower's own file with LAVIS' names, without blocks after those that InstructBLIP uses."""
    depth = AntifakePromptConfig(**fields).vision_config.num_hidden_layers
    blocks = {key: re.match(r"blocks\.(\d+)\.", key) for key in tower}
    return {
        f"visual_encoder.{key}": tower[key] for key, block in blocks.items() if block is None or int(block[1]) < depth
    }


def _check_words(wanted: set[str], found: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise ValueError(
            f"The learned words are missing from the sources ({', '.join(missing)}): add the released .pth file. For "
            'an ablation with one word, give config={"soft_word_sides": "llm"} (or "qformer"); for InstructBLIP as it '
            f"is, `variant` {ZERO_SHOT!r}."
        )
    if extra := sorted(found - wanted):
        raise ValueError(f"The sources contain {', '.join(extra)}, which soft_word_sides excludes.")


def _image_processor(found: _Sources, settings: AntifakePromptConfig) -> AntifakePromptImageProcessor:
    mean, std = found.statistics
    size = settings.vision_config.image_size
    return AntifakePromptImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, image_mean=mean, image_std=std
    )


def _processor_settings(settings: AntifakePromptConfig) -> dict[str, Any]:
    return {
        "num_query_tokens": settings.num_query_tokens,
        "soft_word": settings.soft_word,
        "soft_word_sides": settings.soft_word_sides,
        "prompt": settings.prompt,
        "plain_prompt": settings.plain_prompt,
        "candidates": settings.candidates,
    }


def _variant(variant: str | None, words_file: Path | None) -> str:
    if variant is None:
        first = next(iter(IMAGE_STATISTICS))
        variant = "lama" if words_file is not None and words_file.stem.lower().endswith("lama") else first
        logger.warning("Using the image statistics of the checkpoint %r; choose others with `variant`.", variant)
    if variant not in IMAGE_STATISTICS:
        raise ValueError(
            f"variant is {variant!r}, allowed are {', '.join(map(repr, (*IMAGE_STATISTICS, ZERO_SHOT)))}."
        )
    return variant


def _sort_sources(sources: Sequence[Path]) -> _Sources:
    found = _Sources()
    for path in sources:
        if path.is_dir():
            _read_folder(found, path)
        else:
            _read_file(found, path)
    if not any((found.words, found.lavis, found.stock, found.tower)):
        raise ValueError(f"No AntifakePrompt weights among {', '.join(map(str, sources)) or 'the sources'}.")
    return found


def _read_file(found: _Sources, path: Path) -> None:
    tensors = read_tensors(path, inside=STATE_DICT_KEYS)
    if any(key.startswith(("Qformer.bert.encoder.", "visual_encoder.")) for key in tensors):
        _add(found.lavis, tensors, path)
    elif {QFORMER_WORD, LLM_WORD} & set(tensors):
        rename_keys(tensors, WORD_FILE_TABLE, str(path))
        if found.words:
            raise ValueError(f"{path} is a second file of learned words; pass only one.")
        found.words = {key: tensors[key] for key in (QFORMER_WORD, LLM_WORD) if key in tensors}
        found.words_file = path
    elif any(key.startswith("blocks.") for key in tensors):
        _add(found.tower, {key: t for key, t in tensors.items() if not UNUSED_TOWER_KEYS.fullmatch(key)}, path)
    else:
        raise ValueError(
            f"{path} is not an AntifakePrompt file: its first keys are {', '.join(list(tensors)[:3])}. Expected the "
            f"learned words ({QFORMER_WORD}, {LLM_WORD}), LAVIS' InstructBLIP (Qformer.bert.*) or its vision tower "
            "(blocks.*). A fine-tuned file without the two words is not an AntifakePrompt."
        )


def _read_folder(found: _Sources, path: Path) -> None:
    settings = read_config(path)
    kind = settings.get("model_type")
    weights = weight_files(path)
    tensors: dict[str, torch.Tensor] = {}
    for file in weights:
        tensors |= read_tensors(file)
    if weights and kind == "instructblip":
        found.stock = {**tensors, **{k: v for k, v in found.stock.items() if k.startswith("language_model.")}}
        found.fields = {**{n: settings[n] for n in INSTRUCTBLIP_FIELDS if n in settings}, **found.fields}
    elif weights and "lm_head.weight" in tensors:
        # This replaces the language model of an InstructBLIP folder.
        found.stock = {k: v for k, v in found.stock.items() if not k.startswith("language_model.")}
        found.stock |= {f"language_model.{k}": v for k, v in tensors.items() if not k.endswith("rotary_emb.inv_freq")}
        found.fields["text_config"] = {name: settings[name] for name in LLM_FIELDS if name in settings}
    elif weights:
        raise ValueError(
            f"{path} contains a model of type {kind!r}; expected 'instructblip', or a language model with "
            "lm_head.weight."
        )
    _read_tokenizers(found, path, replace=kind != "instructblip")


def _read_tokenizers(found: _Sources, path: Path, replace: bool) -> None:
    known = 0
    for folder in (path, path / QFORMER_TOKENIZER_FOLDER):
        if not has_tokenizer(folder):
            continue
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        kind = "qformer" if "[CLS]" in tokenizer.get_vocab() else "llm"
        if replace or kind not in found.tokenizers:
            found.tokenizers[kind] = tokenizer
        known += 1
    if not known and not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        raise ValueError(f"{path} contains neither weights nor a tokenizer.")


def _add(target: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], what: Path | str) -> None:
    if doubled := sorted(set(target) & set(tensors)):
        raise ValueError(f"{what} repeats {len(doubled)} tensors of another source, such as {doubled[0]}.")
    target |= tensors


def fuse_attention_biases(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fuse `q_bias` and `v_bias` of every vision block into one bias of q, k and v, with zeros for the keys.

    Raises:
        ValueError: if one bias of a pair is missing.
    """
    fused = dict(tensors)
    for key in [key for key in tensors if key.endswith((".attn.q_bias", ".attn.v_bias"))]:
        block = key.rsplit(".", 1)[0]
        pair = [f"{block}.q_bias", f"{block}.v_bias"]
        if any(name not in tensors for name in pair):
            raise ValueError(f"{block} has only one of q_bias and v_bias.")
        query, value = (tensors[name] for name in pair)
        fused[f"{block}.qkv.bias"] = torch.cat([query, torch.zeros_like(value), value])
        del fused[key]
    return fused
