"""Images of a probe's recipe, and their cached features."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.data.registry import DATA_VARIABLE
from deepfake_detectors.evaluation.sets import folder_set
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor, same_history
from deepfake_detectors.modeling.modeling_clip_probe import ClipProbeForDeepfakeDetection
from deepfake_detectors.train.probe_recipe import CopySettings, HeadRecipe, Part

__all__ = ["FeatureStore", "Picture", "changed_copy", "data_root", "encoder_digest", "list_pictures"]

FORM = 1  # version of the cached features; increase it when their computation changes


@dataclass(frozen=True)
class Picture:
    """A training image.

    Attributes:
        part, source: as in the recipe. id: its name inside the part. fake: its class. manipulation: how it was made;
            `"real"` for a real image. group: images in the same group share source material. twin: id of the real
            image that this fake was made from, if known. image: an input of `load_image`: a path, or a cell of a
            dataset with its bytes.
        shrink_to: see `Part`.
    """

    part: str
    source: str
    id: str
    fake: bool
    manipulation: str
    group: str
    image: Any
    twin: str | None = None
    shrink_to: int | None = None

    def content(self) -> bytes:
        """Return the bytes of the file."""
        if isinstance(self.image, dict) and self.image.get("bytes") is not None:
            return bytes(self.image["bytes"])
        return Path(self.image["path"] if isinstance(self.image, dict) else self.image).read_bytes()


def data_root(data_dir: str | None) -> Path:
    """Return the folder with the parts.

    Raises:
        ValueError: if neither `data_dir` nor the environment variable is set.
    """
    root = data_dir or os.environ.get(DATA_VARIABLE)
    if not root:
        raise ValueError(f"No data: set data_dir in the recipe, or {DATA_VARIABLE} to the folder with its parts.")
    return Path(root)


def list_pictures(recipe: HeadRecipe, root: Path) -> list[Picture]:
    """Return the images of all parts, in the order of the recipe and then of their names.

    Raises:
        ValueError, FileNotFoundError: for a part without images.
    """
    found = []
    for name, part in recipe.parts.items():
        listed = _of_folder(name, part, root) if part.folder is not None else _of_dataset(name, part, root)
        found += [replace(picture, source=part.source or name, shrink_to=part.shrink_to) for picture in listed]
    return found


def _of_folder(name: str, part: Part, root: Path) -> list[Picture]:
    folder = root / str(part.folder)
    pictures = folder_set(folder, None) if part.label == "real" else folder_set(None, folder)
    listed = sorted(zip(pictures.rows, pictures.images, strict=True), key=lambda pair: pair[0].id)
    start, step = part.every or (0, 1)
    return [
        Picture(name, name, row.id, part.label == "fake", str(row.manipulation), f"{name}/{row.id}", image)
        for row, image in listed[start::step]
    ]


def _of_dataset(name: str, part: Part, root: Path) -> list[Picture]:
    import datasets

    table = load_split(
        str(part.dataset), part.split, root / str(part.dataset), part.dataset_config, part.dataset_options
    ).cast_column("image", datasets.Image(decode=False))
    fake = [label == 1 for label in table["label"]]
    targets = table["target_id"] if "target_id" in table.column_names else [None] * len(fake)
    real_of = {target: id_ for target, id_, is_fake in zip(targets, table["id"], fake, strict=True) if not is_fake}
    columns = zip(table["id"], fake, table["manipulation"], table["group_id"], table["image"], targets, strict=True)
    return [
        Picture(
            name, name, id_, is_fake, str(kind), str(group or id_), image, real_of.get(target) if is_fake else None
        )
        for id_, is_fake, kind, group, image, target in columns
    ]


def changed_copy(picture: Image.Image, settings: CopySettings, digest: str) -> Image.Image:
    """Return the altered copy of an image, determined by `settings` and its bytes.

    Args:
        picture: RGB.
        settings: the possible changes.
        digest: hexadecimal hash of the file.
    """
    draw = np.random.default_rng([settings.seed, int(digest[:16], 16)])
    happens = draw.random(3) < (settings.shrink, settings.blur, settings.jpeg)
    factor = float(np.exp(draw.uniform(*np.log(settings.shrink_factor))))
    sigma = float(draw.uniform(*settings.blur_sigma))
    quality = int(draw.integers(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1))
    if happens[0]:
        size = [max(1, round(side * factor)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    if happens[1]:
        picture = picture.filter(ImageFilter.GaussianBlur(sigma))
    if happens[2]:
        array = same_history(np.asarray(picture).transpose(2, 0, 1), None, quality)
        picture = Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))
    return picture


def encoder_digest(model: ClipProbeForDeepfakeDetection) -> str:
    """Return a hash of the tower's weights in memory."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if not name.startswith("heads."):
            digest.update(name.encode())
            digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


class FeatureStore:
    """Features for one head, cached or computed one image at a time, so that batching does not matter.

    Args:
        folder: cache folder with one file per image, named by a hash of everything that determines the features.
        model: a model with that head.
        image_processor: the model's.
        head: name of the head.
    """

    def __init__(
        self, folder: Path, model: ClipProbeForDeepfakeDetection, image_processor: ClipProbeImageProcessor, head: str
    ) -> None:
        self.folder, self.model, self.processor, self.head = folder, model, image_processor, head
        settings = model.config.heads[head]
        self.stamp = {
            "form": FORM,
            "encoder": encoder_digest(model),
            "preprocessing": {**image_processor.to_dict(), "heads": image_processor.heads[head], "default_head": None},
            "features": settings["features"],
            "layers": settings["layers"],
        }
        folder.mkdir(parents=True, exist_ok=True)

    def features(self, pictures: Sequence[Picture], copies: CopySettings | None = None) -> np.ndarray:
        """Return `(images, feature size)` float32, for the images or their altered copies."""
        return np.stack([self._of(picture, copies) for picture in pictures])

    def _of(self, picture: Picture, copies: CopySettings | None) -> np.ndarray:
        content = picture.content()
        digest = hashlib.sha256(content).hexdigest()
        stamp = {
            **self.stamp,
            "picture": digest,
            "shrink_to": picture.shrink_to,
            "copies": None if copies is None else asdict(copies),
        }
        name = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()
        file = self.folder / name[:2] / f"{name}.npy"
        if file.is_file():
            return np.load(file, allow_pickle=False)
        image = load_image(content)
        if copies is not None:
            image = changed_copy(image, copies, digest)
        found = self._computed(image, picture.shrink_to)
        buffer = BytesIO()
        np.save(buffer, found)
        file.parent.mkdir(exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(buffer.getvalue())
        part.replace(file)
        return found

    def _computed(self, image: Image.Image, shrink_to: int | None) -> np.ndarray:
        inputs = self.processor(image, head=self.head, shrink_to=shrink_to, return_tensors="pt")
        with torch.inference_mode():
            return self.model.features(inputs["pixel_values"], self.head)[0].numpy()
