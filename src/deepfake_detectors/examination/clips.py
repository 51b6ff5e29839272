"""Videos as labelled images: the frames and crops that `examine` uses, read on access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from deepfake_detectors.examination.crops import CropRecipe, crop_face
from deepfake_detectors.examination.faces import DEFAULT_FINDER, Face, FaceFinder
from deepfake_detectors.examination.video import VIDEO_SUFFIXES, Frame, VideoError, is_video, sample_frames
from deepfake_detectors.files import walk_folder
from deepfake_detectors.modeling.image_loading import InputImageError, load_image

__all__ = ["ClipPicture", "ClipView", "CutPictures", "Pictures", "clip_files", "clip_pictures", "largest_face"]


@dataclass(frozen=True)
class ClipView:
    """Selection of images from a video.

    Attributes:
        frames: number of evenly spaced frames.
        recipe: crop recipe for the largest face of each; `None` for whole frames.
        finder: name of the face finder.
    """

    frames: int = 32
    recipe: CropRecipe | None = None
    finder: str = DEFAULT_FINDER

    def describe(self) -> str:
        """Return the settings that affect the images, in addition to the file."""
        return f"{self.frames} frames" + ("" if self.recipe is None else f", {self.finder}, {self.recipe}")


@dataclass(frozen=True)
class ClipPicture:
    """One undecoded image of a video.

    Attributes:
        clip: the file.
        index, seconds: values of the frame, as in `Frame`.
        face: the face to crop; `None` for the whole frame.
    """

    clip: str
    index: int
    seconds: float
    face: Face | None


def clip_files(folder: Path) -> list[Path]:
    """Return the videos below a folder, sorted, excluding files with the content of an image."""
    return [path for path in walk_folder(folder, recursive=True, suffixes=VIDEO_SUFFIXES).files if is_video(path)]


def clip_pictures(path: str | Path, view: ClipView, finder: FaceFinder | None) -> list[ClipPicture]:
    """Return the images of a video; when cropping faces, frames without a face are skipped.

    Args:
        path: the video.
        view: selection of images.
        finder: the face finder; required if `view` has a recipe.

    Raises:
        VideoError, ImportError: as for `sample_frames`.
    """
    found = []
    for frame in sample_frames(path, view.frames):
        face = None
        if view.recipe is not None:
            face = largest_face(frame.image, view.recipe, finder)
            if face is None:
                continue
        found.append(ClipPicture(str(path), frame.index, frame.seconds, face))
    return found


def largest_face(image: Image.Image, recipe: CropRecipe, finder: FaceFinder | None) -> Face | None:
    """Return the largest face that the recipe can crop, or `None`."""
    if finder is None:
        raise ValueError("Cropping faces needs a face finder.")
    faces = finder.find(image)
    return faces[0] if faces else None


class Pictures(Sequence):
    """Images of a dataset, some of which are frames or crops of videos.

    Those are returned as PIL images. Reading in order decodes every video once and keeps one frame in memory.

    Args:
        items: `ClipPicture`, or inputs of `load_image`, which are returned unchanged.
        view: with which the videos were listed.
    """

    in_order = True  # whoever reads them in several threads would decode the videos again and again

    def __init__(self, items: Sequence[Any], view: ClipView) -> None:
        self.items, self.view = items, view
        self._clip: str | None = None
        self._frames: Iterator[Frame] = iter(())
        self._frame: Frame | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        item = self.items[index]
        if not isinstance(item, ClipPicture):
            return item
        image = self._frame_of(item).image
        if item.face is None or self.view.recipe is None:
            return image
        return crop_face(image, item.face, self.view.recipe).image

    def _frame_of(self, item: ClipPicture) -> Frame:
        if self._clip != item.clip or self._frame is None or self._frame.seconds > item.seconds:
            self._clip, self._frame = item.clip, None
            self._frames = sample_frames(item.clip, self.view.frames)
        while self._frame is None or self._frame.seconds < item.seconds:
            self._frame = next(self._frames, None)
            if self._frame is None:
                raise VideoError(
                    f"{item.clip} has changed: its frame at {item.seconds:.2f} s no longer exists.", item.clip
                )
        return self._frame

    @property
    def files(self) -> list[Any]:
        """Return the file of each image; `None` for images of videos."""
        return [None if isinstance(item, ClipPicture) else item for item in self.items]


class CutPictures(Sequence):
    """Images of a dataset, cropped to the largest face on access.

    Args:
        images: inputs of `load_image`.
        places: `(n,)` indices of `images` with a face.
        faces: `(n,)` the face of each.
        recipe: the crop recipe.
    """

    def __init__(
        self, images: Sequence[Any], places: Sequence[int], faces: Sequence[Face], recipe: CropRecipe
    ) -> None:
        self.images, self.places, self.faces, self.recipe = images, places, faces, recipe
        self.in_order = bool(getattr(images, "in_order", False))

    @classmethod
    def look(cls, images: Sequence[Any], recipe: CropRecipe, finder: FaceFinder) -> CutPictures:
        """Find the largest face of every image; images without a face and unreadable ones are left out."""
        places, faces = [], []
        for place in range(len(images)):
            try:
                face = largest_face(load_image(images[place]), recipe, finder)
            except InputImageError:
                continue
            if face is not None:
                places.append(place)
                faces.append(face)
        return cls(images, places, faces, recipe)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return crop_face(load_image(self.images[self.places[index]]), self.faces[index], self.recipe).image
