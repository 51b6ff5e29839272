"""Check whether a verdict depends on the regions named in its explanation, by covering these or others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image

from deepfake_detectors.evaluation.bootstrap import mean_interval
from deepfake_detectors.evaluation.metrics import MetricSet, Settings
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, scores_of
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.modeling.image_loading import MAX_PIXELS, load_image, rgb_image
from deepfake_detectors.modeling.regions_lvlm_dfd import REGIONS, parse_regions, region_area

__all__ = ["COVERING", "CoveredSets", "cover", "covered_sets", "covering_results", "moved_area"]

COVERING = "covering"
NAMED, ELSEWHERE = "named", "elsewhere"
SHARED = 0.1  # share of the shape that may be covered in both copies
LATTICE = 96  # side of the grid used to decide where a shape fits, independent of the image size


@dataclass
class CoveredSets:
    """The images whose answers name regions, with these (`"named"`) or others (`"elsewhere"`) covered."""

    sets: dict[str, PictureSet]
    counts: dict[str, int]


class _CoveredPictures(Sequence):
    """Images with a covered area, created on access.

    Args:
        images: the images, as accepted by `load_image`.
        regions: the named regions for each image.
        toward: the region that the shape is moved to, for each image; `None` to leave it in place.
        max_pixels: largest width times height to decode.
    """

    def __init__(
        self,
        images: Sequence[Any],
        regions: Sequence[Sequence[str]],
        toward: Sequence[str | None],
        max_pixels: int | None = None,
    ) -> None:
        self.images, self.regions, self.toward = images, regions, toward
        self.in_order = bool(getattr(images, "in_order", False))
        self.max_pixels = MAX_PIXELS if max_pixels is None else max_pixels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        image = load_image(self.images[index], max_pixels=self.max_pixels)
        area, target = _area(self.regions[index], image.height, image.width), self.toward[index]
        return cover(image, area if target is None else moved_area(area, target))


def cover(image: Image.Image, area: np.ndarray) -> Image.Image:
    """Return an RGB image with `area`, bool `(height, width)`, filled with the image's mean colour."""
    pixels = np.array(rgb_image(image))
    pixels[area] = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
    return Image.fromarray(pixels)


def moved_area(area: np.ndarray, region: str) -> np.ndarray:
    """Return an area of the same shape around the centre of a region, cut off at the image border.

    Args:
        area: bool `(height, width)`, not empty.
        region: one of `REGIONS`.

    Raises:
        ValueError: as for `region_area`.
    """
    height, width = area.shape
    target = np.argwhere(region_area(region, height, width)).mean(axis=0)
    places = np.argwhere(area)
    moved = places + np.rint(target - (places.min(axis=0) + places.max(axis=0)) / 2).astype(int)
    inside = ((moved >= 0) & (moved < (height, width))).all(axis=1)
    result = np.zeros_like(area)
    result[tuple(moved[inside].T)] = True
    return result


def covered_sets(
    pictures: PictureSet, rows: Sequence[Prediction], seed: int = 0, max_pixels: int | None = None
) -> CoveredSets:
    """Return the images to score again.

    The control covers the same shape around another region of the face, drawn by image and seed from those where it
    fits completely into the image and overlaps at most a tenth of the area covered in the other copy. Images without
    such a place, for example because the whole face is named, are left out.

    Args:
        pictures: the dataset, crops of one face each.
        rows: their predictions.
        seed: seed of the control.
        max_pixels: largest width times height to decode.

    Returns:
        The two sets, which may be empty, and counts: `naming a region`, `no place for the control`.
    """
    place_of = {name: place for place, name in enumerate(pictures.ids)}
    naming = [(row, known) for row in rows if row.text is not None and (known := parse_regions(row.text)[0])]
    chosen = [(place_of[row.id], known, _place_of_control(row.id, known, seed)) for row, known in naming]
    kept = [(place, known, target) for place, known, target in chosen if target is not None]
    places, regions = [place for place, _, _ in kept], [known for _, known, _ in kept]
    images = [pictures.images[place] for place in places]
    sets = {}
    for kind, toward in ((NAMED, [None] * len(kept)), (ELSEWHERE, [target for _, _, target in kept])):
        state = f"{pictures.fingerprint} {regions} {toward}"
        sets[kind] = replace(
            pictures,
            name=f"{pictures.name}, covered: {kind}",
            rows=[pictures.rows[place] for place in places],
            images=_CoveredPictures(images, regions, toward, max_pixels),
            masks=None,
            mask_source=None,
            references=None,
            fingerprint=sha256(state.encode()).hexdigest(),
        )
    return CoveredSets(sets, {"naming a region": len(naming), "no place for the control": len(naming) - len(kept)})


def covering_results(
    before: Sequence[Prediction],
    after: Mapping[str, Sequence[Prediction]],
    counts: Mapping[str, int],
    settings: Settings,
) -> dict[str, Any]:
    """Compare the effect of covering the named regions with that of covering others.

    Args:
        before: predictions for the unaltered images.
        after: `"named"` and `"elsewhere"` -> predictions for the covered images.
        counts: counts from `covered_sets`.
        settings: settings of the intervals.

    Returns:
        `counts`, `metrics` and `undefined`. All are means over the images in [-1, 1]: `score_drop`, P(fake) before
        minus after the named regions were covered; `score_drop_of_control`, the same for the others; and
        `score_drop_beyond_control`, the first minus the second, image by image.
    """
    judged = [{row.id: row for row in after[kind]} for kind in (NAMED, ELSEWHERE)]
    known = [row for row in before if all(row.id in found for found in judged)]
    result = MetricSet()
    first, second = (scores_of(known) - scores_of([found[row.id] for row in known]) for found in judged)
    groups = bootstrap_groups(known)[1]
    for name, values in (
        ("score_drop", first),
        ("score_drop_of_control", second),
        ("score_drop_beyond_control", first - second),
    ):
        if not known:
            result.add(name, None, "no answer names a region beside which the same shape fits on the face")
            continue
        interval = mean_interval(values, groups, settings.resamples, settings.seed)
        result.add(name, float(values.mean()), interval=interval)
    return {"counts": {**counts, "judged again": len(known)}, **result.to_dict()}


def _area(regions: Sequence[str], height: int, width: int) -> np.ndarray:
    return np.logical_or.reduce([region_area(name, height, width) for name in regions])


def _place_of_control(id: str, regions: Sequence[str], seed: int) -> str | None:
    """Return the region around which the same shape is covered; `None` if it does not fit anywhere."""
    area = _area(regions, LATTICE, LATTICE)
    fitting = []
    for name in REGIONS:
        moved = moved_area(area, name)
        if name not in regions and moved.sum() == area.sum() and (moved & area).sum() <= SHARED * area.sum():
            fitting.append(name)
    if not fitting:
        return None
    drawn = int.from_bytes(sha256(f"{seed} {id}".encode()).digest()[:8], "big")
    return fitting[drawn % len(fitting)]
