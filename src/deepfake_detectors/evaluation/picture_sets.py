"""What a model is evaluated on: a data set of this package, or plain folders of real and of fake pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfake_detectors.evaluation.predictions import Prediction

__all__ = ["PictureSet", "data_set", "folder_set"]


@dataclass
class PictureSet:
    """Labelled pictures in a fixed order.

    Attributes:
        name: for messages and the report.
        rows: what is known of every picture, without score and text.
        images: where it is read from, anything that the pipeline takes; as long as `rows`.
    """

    name: str
    rows: list[Prediction]
    images: Sequence[Any]

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]


class _EncodedImages(Sequence):
    """The pictures of a data set as they lie there, so that only the detector's own loader decodes them."""

    def __init__(self, column: Any) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: Any) -> Any:
        return self.column[index]["image"]


def data_set(dataset: str, config: str | None, split: str, data_dir: str | Path | None) -> PictureSet:
    """A split of a data set of this package.

    Raises:
        ValueError, FileNotFoundError, ImportError: as `deepfake_detectors.builders.load_split`.
    """
    from deepfake_detectors.builders import load_split

    table = load_split(dataset, split, data_dir, config)
    import datasets

    table = table.cast_column("image", datasets.Image(decode=False))
    names = table.features["label"].names
    known = table.select_columns(["id", "label", "manipulation", "category", "video_id", "group_id"]).to_list()
    rows = [Prediction(**{**row, "label": names[row["label"]]}) for row in known]
    label = "/".join(part for part in (dataset, config, split) if part)
    return PictureSet(label, rows, _EncodedImages(table))


def folder_set(real_dir: Path | None, fake_dir: Path | None) -> PictureSet:
    """Pictures of one or two folders, searched to any depth.

    In `fake_dir` the first folder below names the manipulation. Where pictures lie two folders deep
    (`<manipulation>/<video>/<frame>.png`), the second one is their video; in `real_dir` too.

    Raises:
        ValueError: if neither folder is given, both are the same, or one holds no pictures.
        FileNotFoundError: for a path that is no folder.
    """
    from deepfake_detectors.cli.inputs import PICTURE_SUFFIXES

    given = {"real": real_dir, "fake": fake_dir}
    if real_dir is None and fake_dir is None:
        raise ValueError("No pictures: give --real-dir, --fake-dir or both.")
    if real_dir is not None and fake_dir is not None and real_dir.resolve() == fake_dir.resolve():
        raise ValueError(f"--real-dir and --fake-dir are the same folder, {real_dir}.")
    rows, images = [], []
    for label, folder in given.items():
        if folder is None:
            continue
        if not folder.is_dir():
            raise FileNotFoundError(f"--{label}-dir {folder}: there is no such folder.")
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
        )
        if not files:
            raise ValueError(f"--{label}-dir {folder} holds no pictures.")
        for path in files:
            inside = path.relative_to(folder)
            above = inside.parts[:-1]
            rows.append(
                Prediction(
                    id=f"{label}/{inside.as_posix()}",
                    label=label,
                    manipulation="real" if label == "real" else (above[0] if above else folder.name),
                    video_id=f"{label}/{'/'.join(above)}" if len(above) > 1 else None,
                )
            )
            images.append(str(path))
    name = " and ".join(f"{label} pictures of {folder}" for label, folder in given.items() if folder is not None)
    return PictureSet(name, rows, images)
