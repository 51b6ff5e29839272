"""From a data set builder to batches: splits, and rows as model inputs."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.dataset_scripts._builder import split_by_group
from deepfake_detectors.train.arguments import DataArguments, SourceArguments
from deepfake_detectors.train.mask_labels import MaskLabels, MaskShaper
from deepfake_detectors.train.samplers import Draw, require_both_classes, spread_over_videos
from deepfake_detectors.train.self_blended import SelfBlending
from deepfake_detectors.train.variation import PictureVariation, Variation

__all__ = [
    "PictureDataset",
    "load_train_and_validation",
    "require_both_classes",
    "set_validation_aside",
]


def load_train_and_validation(
    arguments: DataArguments, rebuild: bool = True
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The training rows, and the validation rows: a split of its own, or set aside by whole groups.

    Both classes are in either, but for `only_reals`, whose fakes are made while training.
    """
    rows = _load(arguments, arguments.train_split, rebuild)
    if arguments.validation_split is None:
        train, validation = set_validation_aside(rows, arguments)
    else:
        train, validation = rows, _load(arguments, arguments.validation_split, rebuild)
        require_both_classes(train["label"], f"split {arguments.train_split!r}")
        require_both_classes(validation["label"], f"split {arguments.validation_split!r}")
    if arguments.validation_frames is not None:
        validation = validation.select(spread_over_videos(validation["video_id"], arguments.validation_frames))
    if arguments.only_reals:
        train = train.select([row for row, label in enumerate(train["label"]) if label == 0])
    return train, validation


def _load(arguments: DataArguments, split: str, rebuild: bool) -> datasets.Dataset:
    return load_split(
        arguments.dataset,
        split,
        arguments.data_dir,
        arguments.dataset_config,
        arguments.dataset_options,
        rebuild,
    )


def set_validation_aside(
    rows: datasets.Dataset, arguments: SourceArguments
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows to train on, and rows set aside by whole groups, each with both classes.

    A row without a group shares its source with no other. The share is one of pictures, however many questions are
    asked about each, so that every stage of a training holds out the same groups.
    """
    groups = [
        identity if group is None else group for group, identity in zip(rows["group_id"], rows["id"], strict=True)
    ]
    pictures = {
        identity if video is None else (video, frame): group
        for identity, video, frame, group in zip(rows["id"], rows["video_id"], rows["frame"], groups, strict=True)
    }
    group_of_picture = list(pictures.values())
    drawn = split_by_group(group_of_picture, arguments.validation_fraction, arguments.validation_seed)[1]
    held_out = {group_of_picture[index] for index in drawn}
    second = [index for index, group in enumerate(groups) if group in held_out]
    first = [index for index, group in enumerate(groups) if group not in held_out]
    train, validation = rows.select(first), rows.select(second)
    require_both_classes(train["label"], "training split")
    require_both_classes(validation["label"], "validation split")
    return train, validation


class PictureDataset(Dataset):
    """Rows of a builder as model inputs.

    Args:
        rows: with the columns `image` and `label`.
        image_processor: the family's own, so that training sees what inference will see.
        variation: what may happen to a picture; `None` for nothing.
        masks: mask labels of the rows as they are, or `None` for no mask labels.
        blending: turns this share of the real pictures (its `probability`) into self-blended fakes.
        mask_shaper: of the masks of self-blended fakes; needed with `blending` and `masks`.
        seed: of whatever is drawn. What a draw gets follows from it and the draw's number, not from a global random
            state that loaders advance at their own pace: a resumed run sees what the first would have.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        image_processor: Any,
        variation: PictureVariation | None = None,
        masks: MaskLabels | None = None,
        blending: SelfBlending | None = None,
        mask_shaper: MaskShaper | None = None,
        seed: int = 0,
    ) -> None:
        self.rows = rows
        self.labels = rows["label"][:]
        self.image_processor = image_processor
        self.variation = PictureVariation() if variation is None else variation
        self.masks, self.blending, self.mask_shaper, self.seed = masks, blending, mask_shaper, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw | int) -> dict[str, torch.Tensor]:
        """`pixel_values` (3, height, width), `labels` () int64 and, with masks, `mask_labels` (size, size).

        A plain index gives the row as it is; a `Draw` varies it.
        """
        if isinstance(draw, int):
            return self._item(draw, Variation())
        generator = np.random.default_rng([self.seed, draw.number])
        return self._item(draw.row, self.variation.draw(generator), generator)

    def _item(
        self, row: int, variation: Variation, generator: np.random.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        values, label, mask = self.rows[row], self.labels[row], None
        image = np.asarray(values["image"].convert("RGB"))
        chosen = generator is not None and self.blending is not None and label == 0
        if chosen and generator.random() < self.blending.probability:
            landmarks = values[self.blending.landmarks] if self.blending.landmarks is not None else None
            image, mask, _ = self.blending.blend(image, generator, landmarks)
            label = 1
        picture = variation.picture(image, crop_side(self.image_processor))
        pixels = self.image_processor(picture, return_tensors="pt")["pixel_values"]
        item = {"pixel_values": pixels[0], "labels": torch.tensor(label)}
        if self.masks is not None:
            known = self.masks.label(row, variation) if mask is None else self.mask_shaper(mask, variation)
            item["mask_labels"] = torch.from_numpy(known)
        return item


def crop_side(image_processor: Any) -> int:
    """Side of the square picture that a family's image processor makes."""
    size = image_processor.crop_size or image_processor.size
    return int(size["height"])
