"""Videos as images of a labelled set: the frames and crops that `examine` looks at, read when they are asked for."""

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
    """How a video becomes images.

    Attributes:
        frames: how many, evenly spread.
        recipe: how the largest face of each is cut out; `None` for whole frames.
        finder: name of the face finder.
    """

    frames: int = 32
    recipe: CropRecipe | None = None
    finder: str = DEFAULT_FINDER

    def describe(self) -> str:
        """Return what the images depend on beside the file."""
        return f"{self.frames} frames" + ("" if self.recipe is None else f", {self.finder}, {self.recipe}")


@dataclass(frozen=True)
class ClipPicture:
    """One image of a video, not decoded yet.

    Attributes:
        clip: the file.
        index, seconds: of the frame, as `Frame` has them.
        face: what is cut out of it; `None` for the whole frame.
    """

    clip: str
    index: int
    seconds: float
    face: Face | None


def clip_files(folder: Path) -> list[Path]:
    """Return the videos below a folder, sorted: files with the name and not the content of an image."""
    return [path for path in walk_folder(folder, recursive=True, suffixes=VIDEO_SUFFIXES).files if is_video(path)]


def clip_pictures(path: str | Path, view: ClipView, finder: FaceFinder | None) -> list[ClipPicture]:
    """Return the images that a video gives; frames without a face give none where faces are cut out.

    Args:
        path: the video.
        view: what is taken of it.
        finder: of that name; needed where `view` has a recipe.

    Raises:
        VideoError, ImportError: as `sample_frames`.
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
    """Return the largest face that the recipe can cut out, or `None`."""
    if finder is None:
        raise ValueError("Cutting faces out needs a face finder.")
    faces = finder.find(image)
    return faces[0] if faces else None


class Pictures(Sequence):
    """Images of a set, some of which are frames or crops of videos.

    Those come out as PIL images. Reading them in order decodes every video once and holds one frame.

    Args:
        items: `ClipPicture`, or anything that `load_image` takes, which comes out as it is.
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
                raise VideoError(f"{item.clip} has changed: its frame at {item.seconds:.2f} s is gone.", item.clip)
        return self._frame

    @property
    def files(self) -> list[Any]:
        """What lies in a file of its own; `None` for images of videos."""
        return [None if isinstance(item, ClipPicture) else item for item in self.items]


class CutPictures(Sequence):
    """Images of a set, of each the largest face, cut out when it is asked for.

    Args:
        images: what `load_image` takes.
        places: `(n,)` which of `images` have a face.
        faces: `(n,)` the face of each.
        recipe: how it is cut out.
    """

    def __init__(
        self, images: Sequence[Any], places: Sequence[int], faces: Sequence[Face], recipe: CropRecipe
    ) -> None:
        self.images, self.places, self.faces, self.recipe = images, places, faces, recipe
        self.in_order = bool(getattr(images, "in_order", False))

    @classmethod
    def look(cls, images: Sequence[Any], recipe: CropRecipe, finder: FaceFinder) -> CutPictures:
        """Find the largest face of every image; those without one, and unreadable ones, are left out."""
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
