"""Convert official M2F2-Det files to a folder that `from_pretrained` loads.

Files (see the official repository's release): `current_model_180.pth` (stage-1 detector, the `bridge` variant),
`M2F2_Det_densenet121.pth` (detector of the language model, the `cosine` variant), `vision_tower.pth` (its CLIP image
tower), and the folder `llava-v1.5-7b-M2F2-Det` (the complete language model).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from deepfake_detectors.conversion.checkpoint_files import (
    LLAMA_FIELDS,
    TOKENIZER_FILES,
    has_tokenizer,
    read_config,
    read_tensors,
)
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.conversion.m2f2_det_detector import (
    STAGE_1_CLASSES,
    STATE_DICT_KEYS,
    bridge_blocks,
    convert_detector,
    official_key_table,
)
from deepfake_detectors.files import weight_files
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det_llm import (
    DEEPFAKE_PROJECTOR_STD,
    M2F2DetDeepfakeProjector,
    M2F2DetForConditionalGeneration,
)
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, IMAGE_MARKER

__all__ = ["convert_m2f2_det", "language_model_key_table"]

logger = logging.getLogger(__name__)

PROJECTOR = "model.deepfake_projector."
VOCABULARY_ROWS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
LLAVA_FIELDS = (*LLAMA_FIELDS, "tie_word_embeddings", "pad_token_id")


def language_model_key_table(keys: Iterable[str], variant: str = "cosine") -> KeyTable:
    """Return the key table of the released folder; `keys` are without the prefix of the training tool."""
    detector = [key.removeprefix("deepfake_encoder.") for key in keys if key.startswith("deepfake_encoder.")]
    inner = official_key_table(variant, detector)

    def detector_key(match: re.Match[str]) -> str:
        (name,) = rename_keys([match[1]], inner, "The detector in the language model").values()
        return f"model.{name}"

    return [
        (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
        (r"model\.((?:embed_tokens|layers|norm)\..+)", r"model.language_model.\1"),
        (r"lm_head\.weight", "lm_head.weight"),
        (r"model\.mm_projector\.0\.(.+)", r"model.multi_modal_projector.linear_1.\1"),
        (r"model\.mm_projector\.2\.(.+)", r"model.multi_modal_projector.linear_2.\1"),
        (r"model\.vision_tower\.vision_tower\.vision_model\.embeddings\.position_ids", None),
        (r"model\.vision_tower\.vision_tower\.vision_model\.(.+)", r"model.vision_tower.\1"),
        (r"deepfake_projector\.0\.(.+)", r"model.deepfake_projector.linear_1.\1"),
        (r"deepfake_projector\.2\.(.+)", r"model.deepfake_projector.linear_2.\1"),
        (r"deepfake_encoder\.clip_text_encoder\.model\.text_model\.embeddings\.position_ids", None),
        # The first `deepfake_encoder.` is the detector, a second one its CNN.
        (r"deepfake_encoder\.(.+)", detector_key),
    ]


def convert_m2f2_det(
    sources: Sequence[Path], output: Path, *, config: dict[str, Any] | None = None, variant: str | None = None
) -> None:
    """Write a complete folder with its processor: a verdict class from files, or the language model from its folder.

    Args:
        sources: official files in any order: one detector file, for the cosine detector also `vision_tower.pth`
            unless the detector file has a tower, and optionally the bridge blocks (`bridge_adapter.*`). Or the
            released folder of the language model, or its weight files and a tokenizer folder. A plain LLaVA folder
            with the file of the cosine detector gives the start of stage 2: everything except the deepfake projector.
            A detector file replaces the detector in a folder.
        output: empty or new folder.
        config: `M2F2DetConfig` fields that differ from the released sizes, or from the folder's config.json.
        variant: `"bridge"` or `"cosine"`, to require it; by default determined from the keys. A language model gets
            the bridge detector only on request, because the released one was trained with the other.

    Raises:
        ValueError: if a file cannot be read, has an unknown type or the wrong variant, if the tokenizer is missing, or
            if any key is missing, unexpected or of the wrong shape.
    """
    if not any(path.is_dir() for path in sources):
        convert_detector(sources, output, config=config, variant=variant)
        return
    _convert_language_model(list(sources), output, config or {}, variant or "cosine")


def _convert_language_model(sources: list[Path], output: Path, config: dict[str, Any], variant: str) -> None:
    files, folders = [path for path in sources if path.is_file()], [path for path in sources if path.is_dir()]
    for folder in folders:
        files += weight_files(folder)
    if not files:
        raise ValueError(f"No weights (*.safetensors, pytorch_model*.bin) in {', '.join(map(str, sources))}.")
    tokenizer = _read_tokenizer(folders)
    fields, image_aspect = _read_llava_config(folders)

    tensors, blocks = _read_parts(files, variant)
    names = rename_keys(tensors, language_model_key_table(tensors, variant), "The language model checkpoint")
    tensors = {new: tensors[old] for old, new in names.items()}

    fields |= config
    rows = fields["text_config"].get("vocab_size", len(tensors["lm_head.weight"]))
    fields["text_config"] = {**fields["text_config"], "vocab_size": max(rows, len(tokenizer))}
    placeholders = {
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_MARKER),
        "deepfake_token_id": tokenizer.convert_tokens_to_ids(DEEPFAKE_MARKER),
    }
    settings = M2F2DetConfig(variant=variant, **{**fields, **placeholders})
    if variant == "bridge":
        tensors |= {f"model.{name}": tensor for name, tensor in bridge_blocks(blocks, settings).items()}
    for name in VOCABULARY_ROWS:
        missing = settings.text_config.vocab_size - len(tensors[name])
        # Never used: placeholders are replaced at the input and masked at the output.
        tensors[name] = torch.cat([tensors[name], tensors[name].new_zeros(missing, tensors[name].shape[1])])

    with torch.device("meta"):
        model = M2F2DetForConditionalGeneration(settings)
    if not any(name.startswith(PROJECTOR) for name in tensors):
        logger.warning(
            "The sources do not contain a deepfake_projector (plain LLaVA with a detector), so it gets initial "
            "values, as at the start of the official stage 2. Train it before use."
        )
        tensors |= _fresh_projector(settings)
    check_complete(tensors, model.state_dict(), "The language model checkpoint")
    model.load_state_dict(tensors, strict=True, assign=True)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(output)
    size = settings.vision_config.image_size
    M2F2DetProcessor(
        M2F2DetImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_pad=image_aspect == "pad"
        ),
        tokenizer,
        image_seq_length=settings.num_patches,
    ).save_pretrained(output)


def _read_parts(files: Sequence[Path], variant: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of all files with the names of the released folder, and those of the bridge's blocks."""
    tensors: dict[str, torch.Tensor] = {}
    detector: dict[str, torch.Tensor] = {}
    blocks: dict[str, torch.Tensor] = {}
    for path in files:
        found = read_tensors(path, allow=STAGE_1_CLASSES, inside=STATE_DICT_KEYS)
        found = {key.removeprefix("module."): tensor for key, tensor in found.items()}
        if all(key.startswith("bridge_adapter.") for key in found):
            blocks |= found
        elif any(key.startswith("clip_text_encoder.") for key in found):
            if detector:
                raise ValueError(f"{path} is a second detector file; pass only one.")
            detector = _prefixed_detector(found, path, variant)
        else:
            tensors |= found
    if detector:
        tensors = {key: value for key, value in tensors.items() if not key.startswith("deepfake_encoder.")} | detector
    elif variant == "bridge":
        raise ValueError(
            "A bridge detector was requested, but the sources contain only the language model: add the detector's "
            "file "
            "(current_model_180.pth in the release) to `sources`."
        )
    return tensors, blocks


def _prefixed_detector(tensors: dict[str, torch.Tensor], path: Path, variant: str) -> dict[str, torch.Tensor]:
    """The detector's own file has names without the language model's prefix, and a tower that is not used."""
    found = "bridge" if any(key.startswith("bridge_adapter_proj.") for key in tensors) else "cosine"
    if found == "bridge" and variant != found:
        raise ValueError(
            f"{path} is the stage-1 (bridge) detector; the released language model was trained with the cosine one "
            "(M2F2_Det_densenet121.pth in the release). To use the bridge detector anyway, pass `variant` 'bridge', "
            "and retrain the deepfake projector before trusting the texts."
        )
    if found != variant:
        raise ValueError(
            f"{path} is the cosine detector, but the bridge one was requested (current_model_180.pth in the release)."
        )
    return {f"deepfake_encoder.{k}": v for k, v in tensors.items() if not k.startswith("clip_vision_encoder.")}


def _fresh_projector(config: M2F2DetConfig) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = M2F2DetDeepfakeProjector(config)
        for linear in (projector.linear_1, projector.linear_2):
            torch.nn.init.normal_(linear.weight, std=DEEPFAKE_PROJECTOR_STD)
    return {f"{PROJECTOR}{name}": tensor for name, tensor in projector.state_dict().items()}


def _read_tokenizer(folders: list[Path]) -> PreTrainedTokenizerBase:
    for folder in folders:
        if has_tokenizer(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.unk_token  # as in the official code
            tokenizer.add_tokens([IMAGE_MARKER, DEEPFAKE_MARKER], special_tokens=True)
            return tokenizer
    raise ValueError(
        f"No tokenizer ({', '.join(TOKENIZER_FILES)}) among the sources: add a folder with the tokenizer to `sources`."
    )


def _read_llava_config(folders: list[Path]) -> tuple[dict[str, Any], str]:
    """Return `M2F2DetConfig` fields and the image mode from a LLaVA config.json; without one, the released sizes."""
    for folder in folders:
        if "mm_projector_type" in (official := read_config(folder)):
            text = {name: official[name] for name in LLAVA_FIELDS if name in official}
            fields = {
                "text_config": text,
                "vision_feature_layer": official.get("mm_vision_select_layer", -2),
                "tie_word_embeddings": official.get("tie_word_embeddings", False),
            }
            return fields, official.get("image_aspect_ratio", "pad")
    return {"text_config": {}}, "square"
