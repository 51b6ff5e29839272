"""Provenance data in a file: Content Credentials (C2PA), camera fields, generator settings.

It is shown next to the score and never part of it: such data can be removed, and without a signature anybody can write
it.
"""

from __future__ import annotations

import importlib
import json
import mimetypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepfake_detectors.modeling.image_loading import InputImageError, read_image_facts

__all__ = ["read_provenance"]

# https://cv.iptc.org/newscodes/digitalsourcetype: media made by a trained model, completely or in part.
AI_SOURCE_TYPES = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicallyEnhanced",
    "trainedAlgorithmicData",
)
CAMERA_FIELDS = ("Make", "Model", "LensModel", "Software", "DateTime", "DateTimeOriginal", "Artist", "Copyright")
# Text chunks with generator settings, and texts that generators write elsewhere.
GENERATOR_CHUNKS = ("parameters", "prompt", "workflow", "dream", "sd-metadata", "invokeai_metadata", "invokeai_graph")
GENERATOR_WORDS = (
    "midjourney",
    "stable diffusion",
    "dall-e",
    "dall·e",
    "comfyui",
    "novelai",
    "invokeai",
    "adobe firefly",
    "made with google ai",
    "openai",
)
LONGEST_TEXT = 300
# Nothing is downloaded: neither remote manifests nor certificate status.
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the provenance data of an image or video. Nothing is downloaded, and a fault is a status, not an error.

    Returns:
        `c2pa`: `status` (`"present"`, `"absent"`, `"unreadable"`, or `"not read"` without the extra), `detail`
        (reason), and if present `issuer`, `signed_by`, `signed_at`, `claim_generator`, `title`, `actions`,
        `source_types`, `ai_generated` (`True` if a claim says that a trained model made it or part of it, otherwise
        `None`: missing information is not a claim), `validation_state` and `validation_codes` (failures and untrusted
        parts); `camera`: EXIF fields; `remarks`: sentences about traces of generators.
    """
    facts: dict[str, Any] = {}
    try:
        facts = read_image_facts(path)
    except InputImageError:
        pass  # a video; its container does not have EXIF
    exif, text = facts.get("exif", {}), facts.get("text", {})
    return {
        "c2pa": _read_c2pa(path, facts.get("mime")),
        "camera": {name: _short(exif[name]) for name in CAMERA_FIELDS if exif.get(name)},
        "remarks": list(_remarks(exif, text)),
    }


def _read_c2pa(path: Path, mime: str | None) -> dict[str, Any]:
    try:
        c2pa = importlib.import_module("c2pa")
    except ImportError:
        return {
            "status": "not read",
            "detail": "Reading Content Credentials needs the extra [provenance]: "
            "pip install 'deepfake-detectors[provenance]'",
        }
    kind = mime or mimetypes.guess_type(path.name)[0] or "video/mp4"
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(SETTINGS))
        with path.open("rb") as file, c2pa.Reader(kind, file, context=context) as reader:
            return _describe(json.loads(reader.json()), reader.get_validation_state())
    except c2pa.C2paError.ManifestNotFound:
        return {"status": "absent", "detail": "The file does not contain Content Credentials."}
    except c2pa.C2paError.NotSupported:
        return {"status": "not read", "detail": f"Content Credentials are not supported for files of type {kind}."}
    except (c2pa.C2paError, ValueError) as error:
        return {"status": "unreadable", "detail": _short(_without_path(str(error), path))}


def _describe(store: Mapping[str, Any], state: str | None) -> dict[str, Any]:
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    signature = manifest.get("signature_info") or {}
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    types = [
        str(action["digitalSourceType"]).rsplit("/", 1)[-1] for action in actions if action.get("digitalSourceType")
    ]
    generators = manifest.get("claim_generator_info") or []
    named = " ".join(str(part) for info in generators[:1] for part in (info.get("name"), info.get("version")) if part)
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = [item.get("code") for item in results.get("failure", [])] or [
        item.get("code") for item in store.get("validation_status", [])
    ]
    return {
        "status": "present",
        "detail": None,
        "issuer": _short(signature.get("issuer")),
        "signed_by": _short(signature.get("common_name")),
        "signed_at": _short(signature.get("time")),
        "claim_generator": _short(named or manifest.get("claim_generator")),
        "title": _short(manifest.get("title")),
        "actions": [_short(action.get("action")) for action in actions],
        "source_types": [_short(name) for name in types],
        "ai_generated": True if any(name in AI_SOURCE_TYPES for name in types) else None,
        "validation_state": state,
        "validation_codes": sorted({str(code) for code in failures if code}),
    }


def _remarks(exif: Mapping[str, str], text: Mapping[str, str]) -> Iterator[str]:
    for name, value in text.items():
        if name.lower() in GENERATOR_CHUNKS:
            yield f"The text chunk {name!r}, which image generators use for their settings, contains: {_short(value)}"
    everything = {**exif, **text}
    for name, value in everything.items():
        said = [word for word in GENERATOR_WORDS if word in value.lower()]
        if said and name.lower() not in GENERATOR_CHUNKS:
            yield f"The field {_short(name)} mentions {', '.join(said)}."
        if any(kind in value for kind in AI_SOURCE_TYPES[:2]):
            yield f"The field {_short(name)} has the IPTC source type of generated media; it is not signed."


def _short(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _without_path(text: str, path: Path) -> str:
    return text.replace(str(path.resolve()), path.name).replace(str(path), path.name)
