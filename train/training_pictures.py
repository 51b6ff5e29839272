"""What a recipe says about pictures, put together: variation, masks, self-blended fakes, order."""

from __future__ import annotations

from typing import Any

import datasets

from deepfake_detectors.train.arguments import DataArguments
from deepfake_detectors.train.data import PictureDataset
from deepfake_detectors.train.mask_labels import ColumnMasks, MaskLabels, MaskShaper, NoMasks, PairMasks
from deepfake_detectors.train.samplers import BalancedSampler, TrainingSampler, VideoSampler
from deepfake_detectors.train.self_blended import SelfBlending
from deepfake_detectors.train.variation import PictureVariation

__all__ = ["training_pictures", "training_sampler"]


def training_pictures(
    rows: datasets.Dataset, image_processor: Any, side: int | None, arguments: DataArguments, seed: int
) -> PictureDataset:
    """The training set of a recipe.

    Args:
        rows: of the training split.
        image_processor: of the model.
        side: of the mask labels that the model learns from; `None` if it learns from none.
        arguments: of the recipe.
        seed: of whatever is drawn.

    Raises:
        ValueError: for masks that the model cannot learn from, or columns that the data set does not have.
    """
    wants = [name for name in ("twin_masks", "mask_column") if getattr(arguments, name)]
    if wants and side is None:
        raise ValueError(f"{wants[0]} needs a model with one mask head, but this one has none; leave it out.")
    blending = None
    if arguments.self_blend:
        landmarks = arguments.self_blend_landmarks
        if landmarks is not None and landmarks not in rows.column_names:
            raise ValueError(
                f"self_blend_landmarks is {landmarks!r}, but the data set has {', '.join(rows.column_names)}."
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
    """The order that a recipe asks for."""
    if arguments.balanced_sampling:
        return BalancedSampler(rows["label"][:], rows["manipulation"][:], seed)
    if arguments.one_frame_per_video:
        return VideoSampler(rows["video_id"][:], seed)
    return TrainingSampler(len(rows), seed)
