"""From a dataset builder to batches of images: splits, order of rows, and model inputs."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from deepfake_detectors.data.loading import load_split, undecoded
from deepfake_detectors.dataset_scripts._builder import CLASS_NAMES, split_by_group
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.train.arguments import DataArguments, SourceArguments
from deepfake_detectors.train.augmentation import PictureVariation, Variation
from deepfake_detectors.train.masks import ColumnMasks, MaskLabels, MaskShaper, NoMasks, PairMasks
from deepfake_detectors.train.self_blended import SelfBlending

__all__ = [
    "BalancedSampler",
    "Draw",
    "PictureDataset",
    "TrainingSampler",
    "VideoSampler",
    "load_train_and_validation",
    "require_both_classes",
    "set_validation_aside",
    "spread_over_videos",
    "training_pictures",
    "training_sampler",
]


class Draw(NamedTuple):
    """One draw of a row in training: its index, and the number of the draw in the whole run."""

    row: int
    number: int


def require_both_classes(labels: Sequence[int], what: str) -> None:
    """Raise a `ValueError` unless the labels include both classes."""
    counts = Counter(labels)
    if len(counts) < len(CLASS_NAMES):
        table = ", ".join(f"{counts[index]} {name}" for index, name in enumerate(CLASS_NAMES))
        raise ValueError(
            f"The {what} has {table}. Training and validation need both classes; check the data folder, or change "
            "validation_fraction or validation_seed."
        )


class TrainingSampler(Sampler[Draw]):
    """Sampler that draws every row once per pass, in a random order that depends only on seed and epoch.

    Args:
        length: number of rows.
        seed: seed of the order.
    """

    def __init__(self, length: int, seed: int = 0) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        order = self.order(np.random.default_rng([self.seed, self.epoch]))
        for number, row in enumerate(order, start=self.epoch * self.length):
            yield Draw(row, number)

    def order(self, generator: np.random.Generator) -> Iterator[int]:
        """Return the rows of one pass."""
        yield from map(int, generator.permutation(self.length))


class BalancedSampler(TrainingSampler):
    """Sampler that draws half real rows and half fakes, evenly from all manipulations, throughout the order.

    One pass has as many draws as there are rows. Each class and manipulation is read in a random order, and again in a
    new order when exhausted.

    Args:
        labels: 0 real, 1 fake, one per row.
        manipulations: one name per row.
        seed: seed of the order.

    Raises:
        ValueError: if a class is missing.
    """

    def __init__(self, labels: Sequence[int], manipulations: Sequence[str], seed: int = 0) -> None:
        require_both_classes(labels, "set to sample from")
        super().__init__(len(labels), seed)
        self.reals = [row for row, label in enumerate(labels) if label == 0]
        by_method: dict[str, list[int]] = {}
        for row, (label, method) in enumerate(zip(labels, manipulations, strict=True)):
            if label == 1:
                by_method.setdefault(method, []).append(row)
        self.fakes = [by_method[method] for method in sorted(by_method)]

    def order(self, generator: np.random.Generator) -> Iterator[int]:
        reals, fakes = _endless(self.reals, generator), [_endless(pool, generator) for pool in self.fakes]
        for position in range(self.length):
            pair, is_fake = divmod(position, 2)
            yield next(fakes[(pair + self.epoch) % len(fakes)] if is_fake else reals)


class VideoSampler(TrainingSampler):
    """Sampler that draws one random frame per video and pass, as in M2F2-Det's first stage.

    Args:
        video_ids: one per row.
        seed: seed of the order and the frames.
    """

    def __init__(self, video_ids: Sequence[str], seed: int = 0) -> None:
        self.videos = list(rows_of_videos(video_ids).values())
        super().__init__(len(self.videos), seed)

    def order(self, generator: np.random.Generator) -> Iterator[int]:
        for video in generator.permutation(len(self.videos)):
            rows = self.videos[int(video)]
            yield rows[int(generator.integers(len(rows)))]


def rows_of_videos(video_ids: Sequence[str]) -> dict[str, list[int]]:
    """video -> its rows, in their order."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(video_ids):
        rows[video].append(row)
    return rows


def spread_over_videos(video_ids: Sequence[str], frames: int) -> list[int]:
    """Return at most this many evenly spaced rows per video, ascending."""
    chosen: list[int] = []
    for rows in rows_of_videos(video_ids).values():
        places = np.linspace(-0.5, len(rows) - 0.5, min(frames, len(rows)) + 1)
        chosen += [rows[round((low + high) / 2)] for low, high in itertools.pairwise(places.tolist())]
    return sorted(chosen)


def _endless(pool: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (pool[int(position)] for position in generator.permutation(len(pool)))


def load_train_and_validation(
    arguments: DataArguments, rebuild: bool = True
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Return training and validation rows; validation is a separate split or set aside in whole groups.

    Both parts have both classes, except with `only_reals`, which creates fakes during training.
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
    """Return rows to train on and rows set aside in whole groups, each with both classes.

    A row without a group does not share its source. The share is counted in images, not in questions, so that every
    training stage sets aside the same groups.
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
    """Dataset that converts rows of a builder to model inputs.

    Args:
        rows: with the columns `image` and `label`.
        image_processor: the family's own, so that training and inference see the same.
        variation: augmentation; `None` for none.
        masks: mask labels of the unaugmented rows, or `None` for no mask labels.
        blending: turns this share of the real images (its `probability`) into self-blended fakes.
        mask_shaper: shapes the masks of self-blended fakes; needed with `blending` and `masks`.
        seed: seed of all random draws. A draw depends only on the seed and its number, not on a global random state,
            so that a resumed run sees the same data.
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
        self.rows = undecoded(rows)
        self.labels = rows["label"][:]
        self.image_processor = image_processor
        self.variation = PictureVariation() if variation is None else variation
        self.masks, self.blending, self.mask_shaper, self.seed = masks, blending, mask_shaper, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw | int) -> dict[str, torch.Tensor]:
        """`pixel_values` (3, height, width), `labels` () int64 and, with masks, `mask_labels` (size, size).

        A plain index returns the unaugmented row; a `Draw` augments it.
        """
        if isinstance(draw, int):
            return self._item(draw, Variation())
        generator = np.random.default_rng([self.seed, draw.number])
        return self._item(draw.row, self.variation.draw(generator), generator)

    def _item(
        self, row: int, variation: Variation, generator: np.random.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        values, label, mask = self.rows[row], self.labels[row], None
        image = np.asarray(load_image(values["image"]))
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
    """Return the side of the square images from a family's image processor."""
    size = image_processor.crop_size or image_processor.size
    return int(size["height"])


def training_pictures(
    rows: datasets.Dataset, image_processor: Any, side: int | None, arguments: DataArguments, seed: int
) -> PictureDataset:
    """Return the training set of a recipe.

    Args:
        rows: rows of the training split.
        image_processor: the model's image processor.
        side: side of the model's mask labels; `None` if it does not use any.
        arguments: arguments of the recipe.
        seed: seed of all random draws.

    Raises:
        ValueError: for masks that the model cannot use, or columns that the dataset does not have.
    """
    wants = [name for name in ("twin_masks", "mask_column") if getattr(arguments, name)]
    if wants and side is None:
        raise ValueError(f"{wants[0]} needs a model with one mask head, but this one does not have one; leave it out.")
    blending = None
    if arguments.self_blend:
        landmarks = arguments.self_blend_landmarks
        if landmarks is not None and landmarks not in rows.column_names:
            raise ValueError(
                f"self_blend_landmarks is {landmarks!r}, but the dataset has {', '.join(rows.column_names)}."
            )
        blending = SelfBlending(arguments.self_blend, arguments.self_blend_regions, landmarks=landmarks)
    shaper = None if side is None else MaskShaper(image_processor, side)
    return PictureDataset(
        rows,
        image_processor,
        variation=PictureVariation(
            arguments.mirror, arguments.shift_cell, arguments.random_crop, arguments.blur, arguments.jpeg
        ),
        masks=_masks(rows, shaper, arguments),
        blending=blending,
        mask_shaper=shaper,
        seed=seed,
    )


def _masks(rows: datasets.Dataset, shaper: MaskShaper | None, arguments: DataArguments) -> MaskLabels | None:
    if shaper is None:
        return None
    if arguments.twin_masks:
        return PairMasks(rows, shaper.size)
    if arguments.mask_column is not None:
        return ColumnMasks(rows, arguments.mask_column, shaper)
    return NoMasks(rows["label"][:], shaper) if arguments.self_blend else None


def training_sampler(rows: datasets.Dataset, arguments: DataArguments, seed: int) -> TrainingSampler:
    """Return the sampler for a recipe."""
    if arguments.balanced_sampling:
        return BalancedSampler(rows["label"][:], rows["manipulation"][:], seed)
    if arguments.one_frame_per_video:
        return VideoSampler(rows["video_id"][:], seed)
    return TrainingSampler(len(rows), seed)
