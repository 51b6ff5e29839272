"""Process the frames of one file: checks, faces, crops and logits, with constant memory."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from deepfake_detectors.examination.checks import Check, check_face, check_image
from deepfake_detectors.examination.crops import Crop, CropRecipe, crop_face
from deepfake_detectors.examination.decision import decide_track
from deepfake_detectors.examination.faces import Face, FaceFinder
from deepfake_detectors.examination.judging import Judge, Reading

__all__ = ["WORST_FRAMES", "FrameReader", "Moment", "Seen", "frame_name"]

WORST_FRAMES = 3  # frames per verdict that are shown, explained and masked
SHOWN_SIDE = 1280  # longer side of the shown frames


@dataclass(frozen=True)
class Moment:
    """Number and time of a frame whose image is no longer in memory."""

    index: int
    seconds: float


def frame_name(index: int) -> str:
    """Return the file name of a frame without suffix."""
    return f"frame-{index:06d}"


@dataclass
class Seen:
    """What was found in a frame, before the model judges it.

    Attributes:
        entry: the frame's entry in the record.
        faces: those that can be judged.
        waiting: number of the reading, its verdict in `entry`, the processor's tensors, and the picture where it is
            held for later.
    """

    entry: dict[str, Any]
    faces: list[Face] = field(default_factory=list)
    waiting: list[tuple[int, dict[str, Any], dict[str, Any], Image.Image | None]] = field(default_factory=list)


@dataclass
class FrameReader:
    """Looks at one frame after another: `look`, which several threads may do at once, then `add`, in their order.

    Args:
        judge: the detector.
        readings: its requested verdicts.
        recipes: crop recipe of each reading; `None` for readings of whole images.
        finder: face finder; `None` if none of the readings needs it.
        checks: whether to run the checks before a verdict.
        keep_worst: keep the whole images with the highest P(fake), to explain them later.
        folder: folder for crops (PNG) and shown frames (JPEG).

    Attributes:
        frames: data of each frame for the record.
        faces: the moments and faces for `link_faces`.
    """

    judge: Judge
    readings: Sequence[Reading]
    recipes: Sequence[CropRecipe | None]
    finder: FaceFinder | None
    checks: bool
    keep_worst: bool
    folder: Path
    frames: list[dict[str, Any]] = field(default_factory=list)
    faces: list[tuple[Moment, list[Face]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting: list[list[tuple[dict[str, Any], dict[str, Any], Image.Image | None]]] = [
            [] for _ in self.readings
        ]
        self._worst: list[list[tuple[float, int, dict[str, Any], Image.Image]]] = [[] for _ in self.readings]
        self._order = count()
        for name in ("crops", "frames"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def look(self, index: int, seconds: float | None, image: Image.Image) -> Seen:
        """Check a frame, find and cut out its faces, and prepare what the model is to judge.

        Args:
            index: its number.
            seconds: its time; `None` for an image.
            image: upright, RGB.
        """
        check = check_image(image, seen_side=self._seen_side(whole=True)) if self.checks else None
        entry: dict[str, Any] = {
            "index": index,
            "seconds": seconds,
            "width": image.width,
            "height": image.height,
            "check": None if check is None else asdict(check),
            "verdicts": [],
            "faces": [],
        }
        seen = Seen(entry)
        shown = image.copy()
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        shown.save(self.folder / "frames" / f"{frame_name(index)}.jpg", quality=88)
        found: list[tuple[Face, dict[CropRecipe, Crop]]] = []
        if check is None or check.applicable:
            if self.finder is not None:
                found = self._cut_out(entry, self.finder.find(image), image)
            self._prepare(seen, found, image)
        seen.faces = [face for face, _ in found]
        return seen

    def add(self, seen: Seen) -> None:
        """Take the next frame; what is to be judged waits for a full batch."""
        self.frames.append(seen.entry)
        self.faces.append((Moment(seen.entry["index"], seen.entry["seconds"] or 0.0), seen.faces))
        for number, verdict, prepared, held in seen.waiting:
            self._waiting[number].append((verdict, prepared, held))
            if len(self._waiting[number]) >= self.judge.batch_size:
                self._judge(number)

    def _seen_side(self, whole: bool) -> int | None:
        """Return the largest shorter side that the readings of whole images, or of faces, resize to."""
        sides = [
            reading.seen_side
            for reading, recipe in zip(self.readings, self.recipes, strict=True)
            if (recipe is None) == whole and reading.seen_side is not None
        ]
        return max(sides, default=None)

    def _cut_out(
        self, entry: dict[str, Any], found: Sequence[Face], image: Image.Image
    ) -> list[tuple[Face, dict[CropRecipe, Crop]]]:
        """Describe all faces of a frame, scorable ones first, and return the scorable ones with their crops."""
        recipes = {recipe for recipe in self.recipes if recipe is not None}
        judged, refused = [], []
        for face in found:
            crops = {recipe: crop_face(image, face, recipe) for recipe in recipes}
            checks = [
                check_face(crop.box, seen_side=self._seen_side(whole=False)) if self.checks else None
                for crop in crops.values()
            ]
            check = next((check for check in checks if check is not None), None)
            if any(check is not None and not check.applicable for check in checks):
                check = next(check for check in checks if check is not None and not check.applicable)
                refused.append(_face_entry(face, check))
            else:
                judged.append((face, crops, _face_entry(face, check)))
        entry["faces"] = [*(described for _, _, described in judged), *refused]
        return [(face, crops) for face, crops, _ in judged]

    def _prepare(self, seen: Seen, found: Sequence[tuple[Face, dict[CropRecipe, Crop]]], image: Image.Image) -> None:
        entry = seen.entry
        for number, (reading, recipe) in enumerate(zip(self.readings, self.recipes, strict=True)):
            if recipe is None:
                verdict: dict[str, Any] = {"head": reading.head}
                entry["verdicts"].append(verdict)
                self._wait(seen, number, verdict, image)
        several = len({recipe for recipe in self.recipes if recipe is not None}) > 1
        for place, (_, crops) in enumerate(found):
            described = entry["faces"][place]
            for number, (reading, recipe) in enumerate(zip(self.readings, self.recipes, strict=True)):
                if recipe is None:
                    continue
                crop = crops[recipe]
                suffix = f"-{reading.head}" if several else ""
                name = f"crops/{frame_name(entry['index'])}-face-{place + 1}{suffix}.png"
                crop.image.save(self.folder / name, compress_level=1)
                verdict = {
                    "head": reading.head,
                    "crop": name,
                    "crop_box": [round(float(edge), 3) for edge in crop.box],
                    "crop_size": list(crop.image.size),
                }
                described["verdicts"].append(verdict)
                self._wait(seen, number, verdict, crop.image)

    def _wait(self, seen: Seen, number: int, verdict: dict[str, Any], image: Image.Image) -> None:
        reading = self.readings[number]
        held = image if self.keep_worst and reading.subject == "picture" else None
        seen.waiting.append((number, verdict, self.judge.prepare(image, reading), held))

    def finish(self) -> None:
        """Score the incomplete last batch."""
        for number in range(len(self.readings)):
            if self._waiting[number]:
                self._judge(number)

    def _judge(self, number: int) -> None:
        waiting, self._waiting[number] = self._waiting[number], []
        reading = self.readings[number]
        with self.judge.turn:
            pairs = self.judge.logits([prepared for _, prepared, _ in waiting], reading)
        for (verdict, _, held), (real, fake) in zip(waiting, pairs, strict=True):
            probability = _fake_probability(real, fake)
            verdict["logits"] = [real, fake]
            verdict["fake_probability"] = probability
            verdict["decision"], _ = decide_track(probability, reading.band)
            if held is not None:
                item = (probability, -next(self._order), verdict, held)
                (heapq.heappush if len(self._worst[number]) < WORST_FRAMES else heapq.heappushpop)(
                    self._worst[number], item
                )

    def worst_pictures(self, number: int) -> list[tuple[dict[str, Any], Image.Image]]:
        """Return verdict and image of the whole frames with the highest P(fake) in a reading, highest first."""
        return [(verdict, image) for _, _, verdict, image in sorted(self._worst[number], reverse=True)]

    def keep_frames(self, shown: set[int]) -> None:
        """Remove the images of frames that are not shown."""
        for entry in self.frames:
            if entry["index"] not in shown:
                (self.folder / "frames" / f"{frame_name(entry['index'])}.jpg").unlink()


def _face_entry(face: Face, check: Check | None) -> dict[str, Any]:
    return {
        "track": None,
        "box": [round(float(edge), 3) for edge in face.box],
        "landmarks": None
        if face.landmarks is None
        else [[round(float(x), 3), round(float(y), 3)] for x, y in face.landmarks],
        "score": round(float(face.score), 6),
        "check": None if check is None else asdict(check),
        "verdicts": [],
    }


def _fake_probability(real: float, fake: float) -> float:
    return 1 / (1 + math.exp(min(700.0, real - fake)))
