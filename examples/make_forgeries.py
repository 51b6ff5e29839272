"""Make the images of `examples/pictures` again: photographs, and forgeries of three of them.

`make_face_swaps.py` makes the others.

Needs: scikit-image and matplotlib (the photographs come with them), numpy, pillow. A second on any CPU; the
same pixels every time.

    python examples/make_forgeries.py --output examples/pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from skimage import data

JPEG_QUALITY = 92  # real and fake get the same history, so that the file itself does not reveal the answer
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def soft_ellipse(size: tuple[int, int], box: Box, feather: float) -> Image.Image:
    """A mask of `size` (width, height), mode `L`: 255 inside the ellipse in `box`, falling off over `feather` px."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(feather))


def self_blend(image: Image.Image, box: Box) -> Image.Image:
    """Blend a changed copy of the image back into itself inside `box`, as face-swap tools blend a foreign face.

    The copy is resampled once more (as a generated face is), a little larger, shifted, and of another colour balance:
    the traces that a detector of blended faces looks for, without a second person's face.
    """
    width, height = image.size
    zoom, shift_x, shift_y = 1.05, 2.5, -2.0
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    coefficients = (
        1 / zoom, 0.0, centre_x - (centre_x + shift_x) / zoom,
        0.0, 1 / zoom, centre_y - (centre_y + shift_y) / zoom,
    )  # fmt: skip
    small = image.resize((width * 5 // 8, height * 5 // 8), Image.Resampling.BICUBIC)
    copy = small.resize(image.size, Image.Resampling.BICUBIC)
    copy = copy.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    colours = np.asarray(copy, dtype=np.float64) * (1.07, 0.99, 0.90) + (4.0, 0.0, -3.0)
    copy = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    return Image.composite(copy, image, soft_ellipse(image.size, box, feather=5))


def copy_move(image: Image.Image, box: Box, offset: tuple[int, int], feather: float) -> Image.Image:
    """Paste the ellipse in `box` a second time, `offset` pixels to the right and down."""
    moved = ImageChops.offset(image, *offset)
    target = (box[0] + offset[0], box[1] + offset[1], box[2] + offset[0], box[3] + offset[1])
    return Image.composite(moved, image, soft_ellipse(image.size, target, feather))


def photographs() -> dict[str, Image.Image]:
    """The photographs by file name, RGB, in their original pixels."""
    astronaut = Image.fromarray(data.astronaut())
    with get_sample_data("grace_hopper.jpg") as file:
        hopper = Image.open(file).convert("RGB")
    return {
        "real_astronaut.jpg": astronaut.crop((115, 5, 339, 229)),
        "real_astronaut_whole.jpg": astronaut,
        "real_cat.jpg": Image.fromarray(data.chelsea()).crop((60, 0, 360, 300)),
        "real_coffee.jpg": Image.fromarray(data.coffee()).crop((100, 0, 500, 400)),
        "real_hopper.jpg": hopper,
        "real_rocket.jpg": Image.fromarray(data.rocket()),
    }


def make_pictures() -> dict[str, Image.Image]:
    """The photographs and the forgeries without a second person's face, by file name, RGB."""
    found = photographs()
    astronaut, cat, coffee = (found[f"real_{name}.jpg"] for name in ("astronaut", "cat", "coffee"))
    return {
        **found,
        "fake_astronaut_self_blended.jpg": self_blend(astronaut, box=(64, 62, 156, 172)),
        "fake_cat_copy_move.jpg": copy_move(cat, box=(70, 75, 160, 155), offset=(40, -75), feather=4),
        "fake_coffee_copy_move.jpg": copy_move(coffee, box=(225, 225, 310, 335), offset=(-180, 60), feather=3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures", help="folder to write to")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, picture in make_pictures().items():
        picture.save(output / name, quality=JPEG_QUALITY, subsampling=0)


if __name__ == "__main__":
    main()
