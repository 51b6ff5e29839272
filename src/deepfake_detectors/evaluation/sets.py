"""Test sets: a dataset of this package, or folders of real and fake images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.data.loading import open_split, undecoded
from deepfake_detectors.data.parquet import find_builds
from deepfake_detectors.data.registry import DATASETS, builder_class
from deepfake_detectors.data.twin_difference import difference_mask
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.examination.clips import ClipView, CutPictures, Pictures, clip_files, clip_pictures
from deepfake_detectors.examination.crops import CropRecipe
from deepfake_detectors.examination.faces import DEFAULT_FINDER, face_finder
from deepfake_detectors.examination.video import VideoError
from deepfake_detectors.files import walk_folder
from deepfake_detectors.modeling.image_loading import load_image

TABLE_SET, TABLE_CONFIG = "image_folder", "table"  # config for reading a table of images

__all__ = ["PictureSet", "TwinMasks", "cut_faces", "data_set", "folder_set"]


@dataclass
class PictureSet:
    """Labelled images in a fixed order.

    Attributes:
        name: for messages and the report.
        rows: data of every image, without score and text.
        images: source of each image, as accepted by the pipeline; as long as `rows`.
        masks: manipulated area of each image, as accepted by `load_image`, or `None` for an image without a mask; as
            long as `rows`, or `None` for a dataset without masks.
        mask_source: description of the source of the masks; `None` for a dataset without masks.
        references: id -> reference explanations, if available.
        remarks: caveats for its numbers.
        fingerprint: fingerprint of a dataset's files and reading options; `None` for folders, whose rows have their
            files.
    """

    name: str
    rows: list[Prediction]
    images: Sequence[Any]
    masks: Sequence[Any] | None = None
    mask_source: str | None = None
    references: dict[str, list[str]] | None = None
    remarks: list[str] = field(default_factory=list)
    fingerprint: str | None = None

    @property
    def files(self) -> Sequence[Any]:
        """Return the file of each image; `None` for images derived from something else."""
        if isinstance(self.images, CutPictures):
            return [None] * len(self.images)
        return self.images.files if isinstance(self.images, Pictures) else self.images

    @property
    def in_order(self) -> bool:
        """Whether pictures should be read one after the other, because some are frames of videos."""
        return bool(getattr(self.images, "in_order", False))

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]


class _Cells(Sequence):
    """The undecoded images of a dataset, so that only the detector's own loader decodes them."""

    def __init__(self, table: Any, column: str) -> None:
        self.table, self.column = table.select_columns([column]), column

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        return self.table[index][self.column]


def data_set(
    dataset: str,
    config: str | None = None,
    data_dir: str | Path | None = None,
    options: dict[str, Any] | None = None,
    split: str = "test",
    twin_masks: bool = False,
) -> PictureSet:
    """Return a split of a dataset of this package, with masks and reference explanations if available.

    Args:
        dataset: its name, to read the raw files; a folder written by `dataset build`; or a table `img_path,label` (a
            CSV file, see `dataset_scripts.image_folder`), whose rows belong to `split` by default.
        config, split, data_dir, options: as in `deepfake_detectors.data.loading.load_split`; a folder only takes
            `config` and `split`.
        twin_masks: derive masks from the difference between a fake and the real row of the same target video.

    Raises:
        ValueError, FileNotFoundError, ImportError: as for `load_split` and `find_builds`.
    """
    if dataset not in DATASETS and Path(dataset).suffix.lower() == ".csv":
        if data_dir is not None or config is not None:
            raise ValueError(f"{dataset} is a table of images: leave out `data_dir` and `dataset_config`.")
        data_dir, dataset, config, options = (
            dataset,
            TABLE_SET,
            TABLE_CONFIG,
            {"default_split": split, **(options or {})},
        )
    if dataset not in DATASETS and Path(dataset).is_dir():
        if data_dir is not None or options:
            raise ValueError(f"{dataset} is already built: `data_dir` and `dataset_options` only apply to raw files.")
        table, dataset, config, fingerprint = _built_split(Path(dataset), config, split)
    else:
        table, fingerprint = open_split(dataset, split, data_dir, config, options)
    table = undecoded(table)
    names = table.features["label"].names
    known = table.select_columns(["id", "label", "manipulation", "category", "video_id", "group_id"]).to_list()
    set_of = builder_class(dataset).set_of
    rows = [Prediction(**{**row, "label": names[row["label"]], "set": set_of(row["id"])}) for row in known]
    label = "/".join(part for part in (dataset, config, split) if part)
    found = PictureSet(label, rows, _Cells(table, "image"), fingerprint=fingerprint)
    if twin_masks:
        found.masks, found.mask_source = TwinMasks(found, table["target_id"][:]), "difference to the real twin"
        found.remarks.append(
            "Masks from differences are rough: if the two frames differ, the background counts as changed"
        )
    elif "mask" in table.features:
        found.masks, found.mask_source = _Cells(table, "mask"), "the dataset"
    if "answers" in table.features:
        found.references = dict(zip(found.ids, table["answers"][:], strict=True))
        if len(set(table["question"][:])) > 1:
            found.remarks.append(
                "The dataset has its own questions about its images, but the detector was asked the one it was "
                "trained on, so its explanations answer another question than the references"
            )
    return found


def _built_split(folder: Path, config: str | None, split: str) -> tuple[Any, str, str, str]:
    """Return the rows of a built split, the names of its dataset and config, and the fingerprint of its files."""
    import datasets

    builds = {build.config: build for build in find_builds(folder)}
    if config is None and len(builds) == 1:
        (config,) = builds
    if config not in builds:
        raise ValueError(f"{folder} has the configs {', '.join(builds)}; choose one with `dataset_config`.")

    build = builds[config]
    if split not in build.splits:
        raise ValueError(
            f"{folder} does not have the split {split!r} of {config}; available are {', '.join(build.splits)}."
        )
    rows = datasets.Dataset.from_parquet([str(file) for file in build.splits[split]], features=build.features)
    state = "\n".join(f"{file.name} {_file_state(file)}" for file in build.splits[split])
    return rows, build.dataset, config, sha256(state.encode()).hexdigest()


class TwinMasks(Sequence):
    """Masks from the difference between a fake and its real frame, read on access.

    Args:
        pictures: the set.
        targets: `(n,)`, the target video of every image. Images with the same target must show the same frame.

    Raises:
        ValueError: if no fake has a real twin.
    """

    def __init__(self, pictures: PictureSet, targets: Sequence[str | None]) -> None:
        self.pictures = pictures
        real_of = {
            target: place
            for place, (row, target) in enumerate(zip(pictures.rows, targets, strict=True))
            if row.label == "real" and target is not None
        }
        self.twins = [
            real_of.get(target) if row.label == "fake" and target is not None else None
            for row, target in zip(pictures.rows, targets, strict=True)
        ]
        if not any(twin is not None for twin in self.twins):
            raise ValueError(
                f"`twin_masks`: {pictures.name} does not have a fake with a real image of the same target video."
            )

    def __len__(self) -> int:
        return len(self.twins)

    def __getitem__(self, index: Any) -> Any:
        twin = self.twins[index]
        if twin is None:
            return None
        fake, real = (np.asarray(load_image(self.pictures.images[place])) for place in (index, twin))
        return difference_mask(fake, real) if fake.shape == real.shape else None


def cut_faces(pictures: PictureSet, recipe: CropRecipe, finder: str = DEFAULT_FINDER) -> PictureSet:
    """Return a dataset of the largest face in each image; images without a face are left out, with a remark.

    Args:
        pictures: whole images, such as the frames from the builder of a video dataset.
        recipe: crop recipe for faces.
        finder: name of the face finder.

    Raises:
        ValueError: for a dataset with masks, which do not fit crops, or without any face.
        ImportError: if the finder's library is not installed.
    """
    if pictures.masks is not None:
        raise ValueError(f"{pictures.name} has masks for whole images: leave out `crop` or the masks.")
    cut = CutPictures.look(pictures.images, recipe, face_finder(finder))
    if not len(cut):
        raise ValueError(f"No face was found in the images of {pictures.name}.")
    without = len(pictures.rows) - len(cut)
    remarks = [f"{without} of {len(pictures.rows)} images have no face and are left out"] if without else []
    state = f"{pictures.fingerprint} {finder} {recipe}"
    return replace(
        pictures,
        rows=[pictures.rows[place] for place in cut.places],
        images=cut,
        remarks=[*pictures.remarks, f"The largest face of each image, cropped with {recipe.name!r}", *remarks],
        fingerprint=sha256(state.encode()).hexdigest(),
    )


def folder_set(
    real_dir: Path | None,
    fake_dir: Path | None,
    mask_dir: Path | None = None,
    view: Callable[[], ClipView] = ClipView,
) -> PictureSet:
    """Return the images of one or two folders, searched recursively, and frames or faces of videos in them.

    In `fake_dir` the first subfolder names the manipulation, in `real_dir` the source. They define the set,
    `fake/<manipulation>` or `real/<source>`. If images are two folders deep (`<manipulation>/<video>/<frame>.png`),
    the second one is their video. `mask_dir` has the masks of the fakes, white where manipulated, with the same path
    or a unique stem. Images of a video come from `view` and share its `video_id`.

    Raises:
        ValueError: if neither folder is given, both are the same or nested, one has no images, or a fake has no mask.
        FileNotFoundError: for a path that is not a folder.
        ImportError: for videos, if PyAV or the face finder is not installed.
    """
    given = {"real": real_dir, "fake": fake_dir}
    if real_dir is None and fake_dir is None:
        raise ValueError("There are no images: pass `real_dir`, `fake_dir` or both.")
    if real_dir is not None and fake_dir is not None and real_dir.resolve() == fake_dir.resolve():
        raise ValueError(f"`real_dir` and `fake_dir` are the same folder, {real_dir}.")
    for outer, inner in (("real", "fake"), ("fake", "real")):
        whole, part = given[outer], given[inner]
        if whole is not None and part is not None and part.resolve().is_relative_to(whole.resolve()):
            raise ValueError(
                f"`{inner}_dir` {part} is inside `{outer}_dir` {whole}, so its images would count as both real and "
                "fake. Use two separate folders."
            )
    rows: list[Prediction] = []
    images: list[Any] = []
    clips: list[tuple[str, Path, Path]] = []
    for label, folder in given.items():
        if folder is None:
            continue
        if not folder.is_dir():
            raise FileNotFoundError(f"`{label}_dir` {folder} does not exist.")
        walk = walk_folder(folder, recursive=True)
        if walk.faults:
            raise ValueError(
                f"`{label}_dir` {folder} has {len(walk.faults)} entries that cannot be read, so the numbers would be "
                f"based on fewer images: {next(iter(walk.faults.values()))} Repair or remove them."
            )
        files = walk.files
        videos = clip_files(folder)
        if not files and not videos:
            raise ValueError(f"`{label}_dir` {folder} does not contain images.")
        clips += [(label, folder, path) for path in videos]
        for path in files:
            inside = path.relative_to(folder)
            above = inside.parts[:-1]
            rows.append(
                Prediction(
                    id=f"{label}/{inside.as_posix()}",
                    label=label,
                    manipulation=_manipulation(label, folder, inside),
                    video_id=f"{label}/{'/'.join(above)}" if len(above) > 1 else None,
                    set="/".join((label, *above[:1])),
                    file_state=_file_state(path),
                )
            )
            images.append(str(path))
    masks = None
    remarks: list[str] = []
    source: Sequence[Any] = images
    if clips:
        if mask_dir is not None:
            raise ValueError(f"`mask_dir` is for images, but there are videos, such as {clips[0][2]}.")
        chosen = view()
        source = Pictures(images, chosen)
        remarks = _add_clips(clips, chosen, rows, images)
    if mask_dir is not None:
        if fake_dir is None:
            raise ValueError("`mask_dir` belongs to `fake_dir`: real images have no mask.")
        found = iter(
            _find_masks(
                mask_dir,
                fake_dir,
                [Path(image) for row, image in zip(rows, images, strict=True) if row.label == "fake"],
            )
        )
        masks = [next(found) if row.label == "fake" else None for row in rows]
    name = " and ".join(f"{label} images of {folder}" for label, folder in given.items() if folder is not None)
    return PictureSet(name, rows, source, masks, None if mask_dir is None else str(mask_dir), remarks=remarks)


def _add_clips(
    clips: Sequence[tuple[str, Path, Path]], view: ClipView, rows: list[Prediction], images: list[Any]
) -> list[str]:
    """Append the images of videos, given as label, folder and path; return remarks about them."""
    finder = None if view.recipe is None else face_finder(view.finder)
    remarks = [f"Of {len(clips)} videos: {view.describe()}"]
    for label, folder, path in clips:
        inside = path.relative_to(folder)
        try:
            found = clip_pictures(path, view, finder)
        except VideoError as error:
            remarks.append(f"Left out: {error}")
            continue
        if not found:
            remarks.append(f"Left out because no face was found: {label}/{inside.as_posix()}")
        for picture in found:
            rows.append(
                Prediction(
                    id=f"{label}/{inside.as_posix()}/{picture.index}",
                    label=label,
                    manipulation=_manipulation(label, folder, inside),
                    video_id=f"{label}/{inside.as_posix()}",
                    set="/".join((label, *inside.parts[:-1][:1])),
                    file_state=f"{_file_state(path)} {view.describe()}",
                )
            )
            images.append(picture)
    if not rows:
        raise ValueError(f"None of the {len(clips)} videos has a usable image. {remarks[1]}")
    return remarks


def _manipulation(label: str, folder: Path, inside: Path) -> str:
    """Return the manipulation of an image: the first subfolder of the given one, or that itself."""
    if label == "real":
        return "real"
    return inside.parts[0] if len(inside.parts) > 1 else folder.name


def _file_state(path: Path) -> str:
    """Return values that change when a file is rewritten."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _find_masks(mask_dir: Path, fake_dir: Path, fakes: Sequence[Path]) -> list[str]:
    if not mask_dir.is_dir():
        raise FileNotFoundError(f"`mask_dir` {mask_dir} does not exist.")
    by_path: dict[Path, Path] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in walk_folder(mask_dir, recursive=True).files:
        by_path[path.relative_to(mask_dir).with_suffix("")] = path
        by_stem.setdefault(path.stem, []).append(path)
    masks = []
    for fake in fakes:
        same = by_path.get(fake.relative_to(fake_dir).with_suffix(""))
        found = [same] if same is not None else by_stem.get(fake.stem, [])
        if len(found) != 1:
            raise ValueError(
                f"{fake} has {len(found)} masks in `mask_dir` {mask_dir}, expected one with the same path or stem."
            )
        masks.append(str(found[0]))
    return masks
