"""What all data set builders share: one schema, grouping by shared source video, and reading files by content.

Imports only `datasets`, Pillow and the standard library, so that a builder beside it stays usable as a loading script.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from PIL import Image, UnidentifiedImageError

__all__ = [
    "CLASS_NAMES",
    "components",
    "detection_features",
    "identical_files",
    "list_files",
    "read_image_format",
    "require_folder",
    "split_by_group",
]

CLASS_NAMES = ["real", "fake"]  # label 0 and 1, whatever the source data used


def detection_features(mask: bool = False, dialogue: bool = False) -> datasets.Features:
    """The schema of every builder of this package.

    Args:
        mask: whether rows carry a manipulation mask.
        dialogue: whether rows carry a question, its answers and the same as chat `messages`.

    Returns:
        Features. `video_id` is `<data set>/<method>/<name>`, because bare names collide between methods; `group_id` is
        the connected component over shared source material, by which splits must be made.
    """
    text = datasets.Value("string")
    features: dict[str, Any] = {
        "id": text,
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=CLASS_NAMES),
        "manipulation": text,
        "family": text,  # swap, reenact, synthesis, edit or inpaint; null for real
        "video_id": text,
        "group_id": text,
        "target_id": text,
        "source_id": text,
        "frame": datasets.Value("int32"),
        "compression": text,
        "category": text,
        "file_format": text,  # by content: a file name may lie, and a format that follows the class is a shortcut
    }
    if mask:
        features["mask"] = datasets.Image()
    if dialogue:
        features["question"] = text
        features["answer"] = text
        features["answers"] = [text]
        features["messages"] = [{"role": text, "content": text}]
    return datasets.Features(features)


def components(links: Iterable[Sequence[Hashable]]) -> dict[Any, Any]:
    """Connected components of a graph.

    Args:
        links: the nodes that belong together, one sequence each; a single node stands for itself.

    Returns:
        For every node the smallest node of its component, which names it whatever the order of `links`.
    """
    parent: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for nodes in links:
        roots = sorted({root(node) for node in nodes})
        for other in roots[1:]:
            parent[other] = roots[0]
    return {node: root(node) for node in parent}


def split_by_group(group_ids: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split rows so that no group lies on both sides.

    Args:
        group_ids: the group of each row.
        fraction: share of rows for the second part, in (0, 1). Groups are drawn until it is reached.
        seed: the same seed and groups give the same split, whatever the order of the rows.

    Returns:
        Row indices of the first part (for training) and of the second (for validation), each ascending.

    Raises:
        ValueError: if `fraction` is out of range, or if there are too few groups to put one on each side.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"The validation fraction is {fraction}, expected a share between 0 and 1 (exclusive).")
    rows: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(group_ids):
        rows[group].append(index)
    if len(rows) < 2:
        raise ValueError(
            f"{len(group_ids)} rows in {len(rows)} group(s) cannot be split: pictures of one group share source "
            "videos and must stay together. Give at least two groups, or a validation split of its own."
        )
    order = sorted(rows)
    random.Random(seed).shuffle(order)
    second: list[int] = []
    for group in order[:-1]:  # one group always stays in the first part
        if len(second) >= fraction * len(group_ids):
            break
        second.extend(rows[group])
    chosen = set(second)
    return [index for index in range(len(group_ids)) if index not in chosen], sorted(second)


def require_folder(path: Path, what: str, remedy: str) -> Path:
    """Return `path` if it is a folder, else raise a `FileNotFoundError` that says what it should hold."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder, but it should hold {what}. {remedy}")
    return path


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def read_image_format(path: Path) -> str:
    """Decode a picture in full and return its format by content, for example `"JPEG"`.

    Raises:
        ValueError: naming the file, if it is empty, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return str(image.format)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) cannot be decoded: {error}. Fetch this file again."
        ) from error


def identical_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of two or more files with the same bytes, in the order given."""
    by_digest: Mapping[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_digest[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    return [group for group in by_digest.values() if len(group) > 1]
