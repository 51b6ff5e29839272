"""`model_info()`: describe a checkpoint, its abilities and its terms, without reading its weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from transformers import AutoModel
from transformers.utils import cached_file

from deepfake_detectors.dataset_scripts._files import read_text
from deepfake_detectors.files import parse_yaml
from deepfake_detectors.model_folders import model_faults
from deepfake_detectors.pipelines import load_config

__all__ = ["model_info"]

CARD_HEADER = re.compile(r"\s*---\r?\n(.*?)\r?\n---", re.DOTALL)


def model_info(model: str | Path | None = None, family: str | None = None) -> dict[str, Any]:
    """Describe a checkpoint.

    Args:
        model: a folder or Hub id of a detector, or the name of a built-in checkpoint; `None` means the default.
        family: family of a stock folder, as in `pipeline`.

    Returns:
        A JSON-serialisable dict: `model` (where it is loaded from), `family`, `class`, `explains`, `localizes`,
        `converses`, `parameters` (their number), `dtype` (as saved), `operating_points` (name -> threshold on
        P(fake)), `calibration`, `license`, `license_notice`, and `summary`, the first paragraph of its card. Unknown
        values are `None`.

    Raises:
        ValueError: if it does not contain a detector.
        OSError: if the model does not exist.
    """
    source, config = load_config(model, family)
    with model_faults(source), torch.device("meta"):  # only sizes: weights are not read
        detector = AutoModel.from_config(config, trust_remote_code=False)
    return {
        "model": source,
        "family": config.model_type,
        "class": type(detector).__name__,
        "explains": detector.can_explain,
        "localizes": detector.can_localize,
        "converses": detector.can_converse,
        "parameters": detector.num_parameters(),
        "dtype": str(config.dtype).removeprefix("torch.") if config.dtype else None,
        "operating_points": config.operating_points,
        "calibration": config.calibration,
        "license_notice": getattr(config, "license_notice", None),
        **_card(source),
    }


def _card(source: str) -> dict[str, Any]:
    path = cached_file(source, "README.md", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return {"license": None, "summary": None}
    text = read_text(Path(path))
    if (header := CARD_HEADER.match(text)) is not None:
        parse_yaml(header[1], path)  # with limits, unlike the client's own reader
    with model_faults(source):
        card = ModelCard(text)
    return {
        "license": card.data.get("license_name") or card.data.get("license"),
        "summary": _first_paragraph(card.text),
    }


def _first_paragraph(text: str) -> str | None:
    for paragraph in text.split("\n\n"):
        if paragraph.strip() and not paragraph.lstrip().startswith(("#", "<!--", "|", "```", "![")):
            return " ".join(paragraph.split())
    return None
