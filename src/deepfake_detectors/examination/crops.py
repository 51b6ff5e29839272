"""Crop faces with a named recipe, so that training, evaluation and examination use the same square."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from deepfake_detectors.examination.faces import Face

__all__ = [
    "ALIGNMENTS",
    "CROP_RECIPES",
    "DEFAULT_RECIPE",
    "PADDINGS",
    "Crop",
    "CropRecipe",
    "crop_face",
    "crop_recipe",
]

ALIGNMENTS = ("none", "five-point")
PADDINGS = ("edge", "black", "shift", "shrink", "clip")

# ArcFace's positions of eyes, nose and corners of the mouth in 112 x 112 pixels (x + 8, because its own is 96 wide).
FIVE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
FIVE_POINTS_SIDE = 112


@dataclass(frozen=True)
class CropRecipe:
    """Recipe for cropping a face for a detector.

    Args:
        name: name of the recipe, stored in records.
        margin: share added to the box in total, half on each side: 0.3 crops 1.3 times the box. With
            `"five-point"`, share of the template's square.
        square: use the longer side of the box for both; otherwise the crop has the shape of the box and is stretched
            to `size`.
        alignment: `"none"`, or `"five-point"`: eyes, nose and mouth are aligned with ArcFace's template.
        padding: handling of the image border. `"edge"` repeats the last pixels, `"black"` fills with black; `"shift"`
            moves the square inside; `"shrink"` moves left and top to the border and uses the remaining square;
            `"clip"` cuts off the outside.
        size: side of the crop in pixels; `None` keeps the pixels of the image.
        source: origin of the numbers.

    Raises:
        ValueError: for a value that is not allowed.
    """

    name: str
    margin: float = 0.3
    square: bool = True
    alignment: str = "none"
    padding: str = "edge"
    size: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f"alignment is {self.alignment!r}, expected one of {', '.join(ALIGNMENTS)}.")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding is {self.padding!r}, expected one of {', '.join(PADDINGS)}.")
        if self.alignment == "five-point" and (self.size is None or self.padding not in ("edge", "black")):
            raise ValueError('Alignment "five-point" needs a size, and padding "edge" or "black".')
        if not self.square and self.padding in ("shift", "shrink"):
            raise ValueError(f"padding {self.padding!r} is for square crops.")
        if isinstance(self.margin, bool) or not isinstance(self.margin, (int, float)) or not -0.5 <= self.margin <= 10:
            raise ValueError(f"margin is {self.margin!r}, expected a number from -0.5 to 10.")
        if self.size is not None and (not isinstance(self.size, int) or not 1 <= self.size <= 4096):
            raise ValueError(f"size is {self.size!r}, expected a number of pixels up to 4096, or None.")


CROP_RECIPES: dict[str, CropRecipe] = {
    recipe.name: recipe
    for recipe in (
        CropRecipe(
            "deepfakebench",
            margin=0.3,
            alignment="five-point",
            padding="black",
            size=256,
            source="SCLBD/DeepfakeBench, preprocessing/preprocess.py: similarity to the ArcFace template, scale 1.3",
        ),
        CropRecipe(
            "faceforensics",
            margin=0.3,
            padding="shrink",
            size=299,
            source="ondyari/FaceForensics, classification/detect_from_video.py: square box times 1.3, for XceptionNet",
        ),
        CropRecipe(
            "sbi",
            margin=0.25,
            square=False,
            padding="clip",
            size=380,
            source="mapooon/SelfBlendedImages, src/inference/preprocess.py: an eighth of the box on each edge",
        ),
        CropRecipe(
            "tight",
            margin=0.12,
            padding="shift",
            source="ours: CenterFace's box covers as much of the crop as of DD-VQA's c40 images (0.89 of the height, "
            "median); M2F2-Det's own recipe is unpublished",
        ),
        CropRecipe(
            "wide",
            margin=0.6,
            padding="shift",
            source="ours: the samples of LVLM-DFD's repository show a face with a wide margin; its own recipe is "
            "unpublished",
        ),
    )
}
DEFAULT_RECIPE = "tight"


@dataclass(frozen=True)
class Crop:
    """A cropped face.

    Attributes:
        image: the RGB input for the detector.
        box: left, top, right, bottom of its region, in pixels of the image, possibly beyond the border. For an aligned
            crop, the upright box around the rotated square.
        transform: `(2, 3)` float64, maps pixel centres (x, y, 1) of the image to those of the crop.
    """

    image: Image.Image
    box: tuple[float, float, float, float]
    transform: np.ndarray


def crop_recipe(spec: str | Mapping[str, Any] | CropRecipe | None = None) -> CropRecipe:
    """Return a recipe given by a processor's config or a caller.

    Args:
        spec: a name in `CROP_RECIPES`; a dict of the fields of `CropRecipe` (missing fields come from the recipe with
            this `name`); `None` for the default.

    Raises:
        ValueError: for an unknown name, field or value.
    """
    if isinstance(spec, CropRecipe):
        return spec
    if spec is None:
        spec = DEFAULT_RECIPE
    if isinstance(spec, str):
        if spec not in CROP_RECIPES:
            raise ValueError(f"There is no crop recipe {spec!r}; available are {', '.join(map(repr, CROP_RECIPES))}.")
        return CROP_RECIPES[spec]
    if not isinstance(spec, Mapping):
        raise ValueError(f"A crop recipe must be a name or a dict, not {type(spec).__name__}.")
    fields = [field.name for field in dataclasses.fields(CropRecipe)]
    unknown = [str(key) for key in spec if key not in fields]
    if unknown:
        raise ValueError(f"A crop recipe does not have {', '.join(unknown)}; allowed are {', '.join(fields)}.")
    known = CROP_RECIPES.get(str(spec.get("name")))
    base = {} if known is None else dataclasses.asdict(known)
    return CropRecipe(**{"name": "custom", **base, **spec})


def recipe_of(processor: Any) -> CropRecipe:
    """Return the recipe in a processor's `face_crop`, or the default.

    Args:
        processor: processor of a checkpoint, or its image processor.

    Raises:
        ValueError: as for `crop_recipe`.
    """
    for part in (processor, getattr(processor, "image_processor", None)):
        spec = getattr(part, "face_crop", None)
        if spec is not None:
            return crop_recipe(spec)
    return crop_recipe(None)


def crop_face(image: Image.Image, face: Face, recipe: CropRecipe) -> Crop:
    """Crop a face from an upright RGB image.

    Raises:
        ValueError: if the recipe needs landmarks that the face does not have, or if its box is outside the image.
    """
    if recipe.alignment == "five-point":
        return _aligned(image, face, recipe)
    left, top, right, bottom = _region(face.box, image.size, recipe)
    if right <= left or bottom <= top or right <= 0 or bottom <= 0 or left >= image.width or top >= image.height:
        raise ValueError(f"The box {face.box} is outside the image of {image.width}x{image.height}.")
    cut = image.crop((left, top, right, bottom))  # black beyond the border
    if recipe.padding == "edge":
        cut = _edges_repeated(image, left, top, right, bottom)
    size = cut.size if recipe.size is None else (recipe.size, recipe.size)
    if cut.size != size:
        cut = cut.resize(size, Image.Resampling.BILINEAR)
    across, down = size[0] / (right - left), size[1] / (bottom - top)
    transform = np.array(
        [[across, 0, (0.5 - left) * across - 0.5], [0, down, (0.5 - top) * down - 0.5]], dtype=np.float64
    )
    return Crop(cut, (float(left), float(top), float(right), float(bottom)), transform)


def _region(
    box: tuple[float, float, float, float], size: tuple[int, int], recipe: CropRecipe
) -> tuple[int, int, int, int]:
    """Return the integer pixels to crop, as in the source of each padding mode."""
    if not recipe.square:
        across, down = ((box[2] - box[0]) * recipe.margin / 2, (box[3] - box[1]) * recipe.margin / 2)
        # int() truncates and one is added at the far side, as in SBI.
        edges = (int(box[0] - across), int(box[1] - down), int(box[2] + across) + 1, int(box[3] + down) + 1)
        if recipe.padding == "clip":
            return max(0, edges[0]), max(0, edges[1]), min(size[0], edges[2]), min(size[1], edges[3])
        return edges
    whole = [int(edge) for edge in box]
    side = int(max(whole[2] - whole[0], whole[3] - whole[1]) * (1 + recipe.margin))
    side = max(1, side)
    left = (whole[0] + whole[2]) // 2 - side // 2
    top = (whole[1] + whole[3]) // 2 - side // 2
    if recipe.padding == "shrink":
        left, top = max(0, left), max(0, top)
        side = min(side, size[0] - left, size[1] - top)
    elif recipe.padding == "shift":
        side = min(side, *size)
        left, top = min(max(0, left), size[0] - side), min(max(0, top), size[1] - side)
    elif recipe.padding == "clip":
        return max(0, left), max(0, top), min(size[0], left + side), min(size[1], top + side)
    return left, top, left + side, top + side


def _edges_repeated(image: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    inside = (max(0, left), max(0, top), min(image.width, right), min(image.height, bottom))
    cut = np.asarray(image.crop(inside))
    beyond = ((inside[1] - top, bottom - inside[3]), (inside[0] - left, right - inside[2]), (0, 0))
    return Image.fromarray(np.pad(cut, beyond, mode="edge"))


def _aligned(image: Image.Image, face: Face, recipe: CropRecipe) -> Crop:
    if face.landmarks is None:
        raise ValueError(
            f"The crop recipe {recipe.name!r} aligns faces by five landmarks, but this face has none: use the face "
            "finder 'centerface', which returns them, or a recipe without alignment."
        )
    assert recipe.size is not None
    template = FIVE_POINTS * recipe.size / FIVE_POINTS_SIDE
    border = recipe.size * recipe.margin / 2
    template = (template + border) * recipe.size / (recipe.size + 2 * border)
    transform = _similarity(np.asarray(face.landmarks, dtype=np.float64), template)
    back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
    corners = np.array([[x, y, 1] for x in (0, recipe.size) for y in (0, recipe.size)]) - [0.5, 0.5, 0]
    reach = corners @ back.T + 0.5
    box = (*reach.min(axis=0), *reach.max(axis=0))
    columns, rows = np.meshgrid(np.arange(recipe.size), np.arange(recipe.size))
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back.T
    cut = Image.fromarray(_sampled(np.asarray(image), places[..., 0], places[..., 1], recipe.padding))
    return Crop(cut, tuple(float(edge) for edge in box), transform)  # type: ignore[arg-type]


def _sampled(pixels: np.ndarray, x: np.ndarray, y: np.ndarray, padding: str) -> np.ndarray:
    """Sample pixels bilinearly with rounding. (Pillow's `transform` truncates, which is half a level too dark.)

    Args:
        pixels: `(height, width, 3)` uint8.
        x, y: `(rows, columns)` positions, where 0 is the centre of the first pixel.
        padding: `"edge"` or `"black"`.
    """
    height, width = pixels.shape[:2]
    left, top = np.floor(x), np.floor(y)
    total = np.zeros((*x.shape, 3))
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
        if padding == "black":
            weight = weight * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        inside = row.clip(0, height - 1).astype(np.intp), column.clip(0, width - 1).astype(np.intp)
        total += weight[..., None] * pixels[inside]
    return (total + 0.5).astype(np.uint8)


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rotation, scale and shift, `(2, 3)`, that best maps points `(n, 2)` to others (Umeyama, 1991)."""
    centre, aim = source.mean(axis=0), target.mean(axis=0)
    spread = (source - centre).var(axis=0).sum()
    if spread == 0:
        raise ValueError("All landmarks of the face are the same point.")
    rotation, stretch, basis = np.linalg.svd((target - aim).T @ (source - centre) / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(rotation) * np.linalg.det(basis)) or 1.0])
    linear = (rotation * signs) @ basis * (stretch @ signs) / spread
    return np.column_stack([linear, aim - linear @ centre])
