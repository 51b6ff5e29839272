"""Does a verdict rest on the regions that its explanation names? Judged again with these covered, and with others."""

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
SHARED = 0.1  # of the shape may be covered in both copies
LATTICE = 96  # side of the grid on which it is decided where a shape fits, whatever the size of the picture


@dataclass
class CoveredSets:
    """The pictures whose answers name regions, with these covered (`"named"`) and with others (`"elsewhere"`)."""

    sets: dict[str, PictureSet]
    counts: dict[str, int]


class _CoveredPictures(Sequence):
    """Pictures with an area covered, made when they are asked for.

    Args:
        images: the pictures, anything that `load_image` takes.
        regions: of each, the regions named.
        toward: of each, the region that the shape is moved to; `None` to leave it where it is.
        max_pixels: width times height of a picture that is decoded.
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
    """Return an RGB picture with the pixels of `area`, bool `(height, width)`, in the mean colour of the picture."""
    pixels = np.array(rgb_image(image))
    pixels[area] = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
    return Image.fromarray(pixels)


def moved_area(area: np.ndarray, region: str) -> np.ndarray:
    """Return an area of the same shape around the middle of a region; what leaves the picture is cut off.

    Args:
        area: bool `(height, width)`, not empty.
        region: one of `REGIONS`.

    Raises:
        ValueError: as `region_area`.
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
    """Return the pictures to judge again.

    The control covers the same shape around another region of the face, drawn by picture and seed among those where
    it fits whole into the picture and meets at most a tenth of what the other copy covers. A picture without such a
    place, as where the whole face is named, is left out.

    Args:
        pictures: the set, crops of one face each.
        rows: what was said of them.
        seed: of the control.
        max_pixels: width times height of a picture that is decoded.

    Returns:
        The two sets, empty where no picture is left, and counts: `naming a region`, `no place for the control`.
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
    """Compare what covering the named regions changes with what covering others does.

    Args:
        before: predictions of the pictures as they are.
        after: `"named"` and `"elsewhere"` -> predictions of the covered pictures.
        counts: as `covered_sets` gives them.
        settings: of the intervals.

    Returns:
        `counts`, `metrics` and `undefined`. All are means over the pictures in [-1, 1]: `score_drop`, P(fake) before
        minus after the named regions were covered; `score_drop_of_control`, the same for the others; and
        `score_drop_beyond_control`, the first minus the second, picture by picture.
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
    """The region around which the same shape is covered; `None` where it fits nowhere."""
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
