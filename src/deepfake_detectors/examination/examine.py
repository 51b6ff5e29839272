"""`examine()`: examine one image or video."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepfake_detectors.corruptions import STABILITY_SET, corruption
from deepfake_detectors.examination.conclusion import conclude, of_head
from deepfake_detectors.examination.crops import CropRecipe, crop_recipe
from deepfake_detectors.examination.faces import DEFAULT_FINDER, FaceFinder, TurnTaking, face_finder
from deepfake_detectors.examination.judging import Judge, Reading
from deepfake_detectors.examination.provenance import read_provenance
from deepfake_detectors.examination.record import RECORD_FILE, library_versions, sealed, source_facts, to_json
from deepfake_detectors.examination.sampling import FrameReader, Seen, frame_name
from deepfake_detectors.examination.sheet import SHEET_FILE, render_sheet
from deepfake_detectors.examination.stability import apply_stability
from deepfake_detectors.examination.timeline import TIMELINE_FILE, draw_timeline
from deepfake_detectors.examination.tracks import DEFAULT_POOLING, POOLING
from deepfake_detectors.examination.video import VideoError, is_video, probe, sample_frames
from deepfake_detectors.masks import draw_overlay
from deepfake_detectors.modeling.image_loading import MAX_PIXELS, InputImageError, load_image, read_image_facts
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.modeling.prefetching import prefetched
from deepfake_detectors.outputs import written_whole

__all__ = ["Examination", "examine", "examine_files"]

Progress = Callable[[int, int | None], None]


@dataclass
class Examination:
    """The result of `examine`.

    Attributes:
        record: all results, JSON-serialisable; the content of `examination.json`.
        pictures: folder with the crops, shown frames, masks and overlays of the record. It is temporary and deleted
            with this object; `save` copies it.
    """

    record: dict[str, Any]
    pictures: Path
    _holder: tempfile.TemporaryDirectory

    @property
    def decision(self) -> str | None:
        """`"likely fake"`, `"likely real"`, `"inconclusive"`, `"not applicable"`; `None` without a decision band."""
        return self.record["decision"]

    @property
    def fake_probability(self) -> float | None:
        """P(fake) in [0, 1] of the deciding face or image; `None` if nothing could be scored."""
        return self.record["fake_probability"]

    @property
    def reason(self) -> str | None:
        """Reason why the file is not applicable or inconclusive, or `None`."""
        return self.record["reason"]

    @property
    def tracks(self) -> list[dict[str, Any]]:
        """Faces tracked through the frames: `id`, `head`, `frames`, `boxes`, `pooled`, `decision` ..."""
        return self.record["tracks"]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Data of each examined frame: `index`, `seconds`, `faces`, `verdicts` ..."""
        return self.record["frames"]

    def sheet(self) -> str:
        """Return the sheet as a self-contained HTML page."""
        return render_sheet(self.record, self.pictures)

    def save(self, folder: str | Path) -> Path:
        """Write `examination.json`, `sheet.html` and the images.

        Args:
            folder: a new or empty folder, or one with an examination, which is replaced.

        Returns:
            The folder.

        Raises:
            ValueError: if the folder contains something else.
            OSError: if it cannot be written.
        """
        folder = Path(folder)
        earlier = (folder / RECORD_FILE).is_file()
        with written_whole(folder, replace=earlier, remedy="choose another folder") as unfinished:
            shutil.copytree(self.pictures, unfinished, dirs_exist_ok=True)
            (unfinished / RECORD_FILE).write_text(to_json(self.record), encoding="utf-8")
            (unfinished / SHEET_FILE).write_text(self.sheet(), encoding="utf-8")
            if timeline := draw_timeline(self.record):
                (unfinished / TIMELINE_FILE).write_text(timeline, encoding="utf-8")
        return folder


def examine(
    source: str | Path,
    model: str | Path | DeepfakeDetectionPipeline | Judge | None = None,
    *,
    head: str | None = None,
    finder: str | FaceFinder | None = None,
    crop: str | Mapping[str, Any] | CropRecipe | None = None,
    pooling: str = DEFAULT_POOLING,
    frames: int = 32,
    every: float | None = None,
    start: float | None = None,
    end: float | None = None,
    threshold: float | str | None = None,
    explain: bool = False,
    localize: bool = False,
    question: str | None = None,
    checks: bool = True,
    stability: bool = False,
    device: str | None = None,
    dtype: str = "auto",
    batch_size: int = 4,
    num_workers: int = 0,
    family: str | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Examination:
    """Examine an image or a video file.

    A checkpoint for faces gets crops of the faces that are found, one for images gets the whole frame, and one with
    heads for both gets both. In a video, evenly spaced frames are examined, faces are linked into tracks, and P(fake)
    is pooled for each track. The worst track, or image, decides.

    ```python
    examine("clip.mp4").save("clip-report/")
    examine("photo.jpg", "m2f2", explain=True).decision
    ```

    Args:
        source: an image or video file.
        model: folder, Hub id or name of a built-in checkpoint; `None` for the default; a loaded pipeline or `Judge`.
        head: use only this head, if the checkpoint has several.
        finder: name in `FACE_FINDERS`, or an object with `name` and `find`.
        crop: recipe for face crops, as in `crop_recipe`; by default the checkpoint's own.
        pooling: name in `POOLING`: how the scores of a track's frames are combined.
        frames: number of evenly spaced frames of a video.
        every: seconds between frames, instead of `frames`.
        start, end: part of a video to examine, in seconds.
        threshold: P(fake) in [0, 1] at or above which the label is `fake`, or the name of an operating point; 0.5 by
            default. The decision does not depend on it.
        explain: write explanations of the worst frames.
        localize: mark the manipulated area in the worst frames.
        question: ask this instead of the detector's own question; needs `explain`.
        checks: refuse images that no detector was tested on: blank or tiny images, drawings and documents.
        stability: also score re-encoded copies (`corruptions.STABILITY_SET`); if one of them changes the verdict, the
            decision is inconclusive, with the numbers in the reason. Takes five times as long.
        device, dtype: as in `load_detector`; not for a loaded model.
        batch_size: crops or frames per forward pass.
        num_workers: threads that check frames, find faces and prepare crops while the model judges others; one at a
            time asks the finder. The record is the same.
        family: of a stock folder, as in `pipeline`; not for a loaded model.
        max_pixels: width times height of an image, or of the frames of a moving one, that is decoded.
        progress: called with how many frames are done, and how many there will be at most (`None` if unknown).

    Raises:
        InputImageError, VideoError: a `ValueError` about a file that cannot be examined.
        ValueError: for arguments that are out of range or that the checkpoint does not support.
        OSError: if the model does not exist.
        ImportError: for a missing library, naming the extra.
    """
    if pooling not in POOLING:
        raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(map(repr, POOLING))}.")
    if question is not None and not explain:
        raise ValueError("question shapes the explanation: pass explain=True with it.")
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"num_workers is {num_workers!r}, expected a whole number of 0 or more.")
    path = Path(source)
    moving = is_video(path, max_pixels=max_pixels)
    still = (
        None if moving else load_image(path, max_pixels=max_pixels)
    )  # before loading the model, so that an unreadable file is reported at once
    if isinstance(model, Judge) and family is not None:
        raise ValueError("a loaded `Judge` already has a family; leave out `family`.")
    judge = model if isinstance(model, Judge) else Judge(model, device, dtype, batch_size, family)
    judge.require(explain, localize)
    readings = judge.readings(head, threshold)
    recipes = [reading.recipe if crop is None or reading.recipe is None else crop_recipe(crop) for reading in readings]
    seeker = _finder(finder, readings)
    if seeker is not None and num_workers > 1:
        seeker = TurnTaking(seeker)
    holder = tempfile.TemporaryDirectory(prefix="deepfake-examination-")
    reader = FrameReader(judge, readings, recipes, seeker, checks, explain or localize, Path(holder.name))
    copies = [corruption(name) for name in STABILITY_SET] if stability else []
    readers = [
        FrameReader(judge, readings, recipes, seeker, checks, False, Path(holder.name) / "copies" / copy.name)
        for copy in copies
    ]

    def look(frame: tuple[int, float | None, Any]) -> list[Seen]:
        index, seconds, image = frame
        changed = [
            other.look(index, seconds, copy.apply(image, key=str(index)))
            for copy, other in zip(copies, readers, strict=True)
        ]
        return [reader.look(index, seconds, image), *changed]

    described: dict[str, Any]
    sampled: Iterable[tuple[int, float | None, Any]]
    if still is not None:
        sampled, most = [(0, None, still)], None
        described = {key: value for key, value in read_image_facts(path).items() if key not in ("exif", "text")}
    else:
        described = probe(path, max_pixels=max_pixels)
        most = None if every is not None else frames
        found_frames = sample_frames(path, frames, every, start, end, max_pixels=max_pixels)
        sampled = ((frame.index, frame.seconds, frame.image) for frame in found_frames)
    for done, seen in enumerate(prefetched(look, sampled, num_workers), start=1):
        for each, of_frame in zip((reader, *readers), seen, strict=True):
            each.add(of_frame)
        if progress is not None and moving:
            progress(done, most)
    for each in (reader, *readers):
        each.finish()
    found = conclude(reader, pooling, moving)
    compared = None
    if stability:
        others = [conclude(other, pooling, moving) for other in readers]
        compared = apply_stability(found, list(zip(copies, others, strict=True)))
        shutil.rmtree(Path(holder.name) / "copies")
    if explain or localize:
        asked: dict[str, Any] = {"explain": explain, "localize": localize}
        if question is not None:
            asked["question"] = question
        _describe_worst(reader, found, {name: value for name, value in asked.items() if value})
    reader.keep_frames(
        {index for verdict in found["readings"] for index in verdict["worst_frames"]} or {_first(reader)}
    )
    record = {
        "source": source_facts(path),
        "kind": "video" if moving else "picture",
        "container": described,
        "model": judge.facts,
        **found,
        "frames": reader.frames,
        "stability": compared,
        "options": {
            "head": head,
            "finder": None if seeker is None else seeker.name,
            "crop": None if crop is None else asdict(crop_recipe(crop)),
            "pooling": pooling,
            "frames": frames,
            "every": every,
            "start": start,
            "end": end,
            "threshold": threshold,
            "explain": explain,
            "localize": localize,
            "question": question,
            "checks": checks,
            "stability": stability,
            "batch_size": judge.batch_size,
        },
        "provenance": read_provenance(path),
        "versions": library_versions(),
    }
    return Examination(sealed(record), Path(holder.name), holder)


def examine_files(
    sources: Iterable[str | Path], judge: Judge, files_at_once: int = 0, **options: Any
) -> Iterator[Examination | InputImageError | VideoError]:
    """Examine files one after the other, some of them ahead.

    Args:
        sources: picture and video files.
        judge: the detector; one file at a time is judged by it.
        files_at_once: files that are looked at, in threads, while the model judges others; 0 for one by one.
        options: of `examine`.

    Yields:
        For each file, in order, its examination, or why it cannot be examined.

    Raises:
        ValueError, ImportError: as `examine`, for what is not the fault of one file.
    """

    def examined(source: str | Path) -> Examination | InputImageError | VideoError:
        try:
            return examine(source, judge, **options)
        except (InputImageError, VideoError) as error:
            return error

    yield from prefetched(examined, sources, files_at_once)


def _finder(finder: str | FaceFinder | None, readings: Sequence[Reading]) -> FaceFinder | None:
    if all(reading.subject != "faces" for reading in readings):
        return None
    if finder is not None and not isinstance(finder, str):
        return finder
    try:
        return face_finder(DEFAULT_FINDER if finder is None else finder)
    except ImportError as error:
        whole = [reading.head for reading in readings if reading.subject == "picture"]
        if not whole:
            raise
        raise ImportError(f"{error} To score only whole images, pass head={whole[0]!r}.") from error


def _first(reader: FrameReader) -> int:
    return reader.frames[0]["index"] if reader.frames else 0


def _describe_worst(reader: FrameReader, found: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Add explanations and masks to the verdicts of the worst frames of each reading."""
    entries = {entry["index"]: entry for entry in reader.frames}
    for number, (reading, said) in enumerate(zip(reader.readings, found["readings"], strict=True)):
        if reading.subject == "picture":
            for verdict, image in reader.worst_pictures(number):
                index = next(
                    entry["index"] for entry in reader.frames if any(verdict is own for own in entry["verdicts"])
                )
                _describe(reader, reading, verdict, image, frame_name(index), options)
            continue
        for index in said["worst_frames"]:
            for face in entries[index]["faces"]:
                if face["track"] == said["track"]:
                    verdict = of_head(face["verdicts"], reading)
                    crop = load_image(reader.folder / verdict["crop"])
                    _describe(reader, reading, verdict, crop, Path(verdict["crop"]).stem, options)


def _describe(
    reader: FrameReader, reading: Reading, verdict: dict[str, Any], image: Any, name: str, options: Mapping[str, Any]
) -> None:
    with reader.judge.turn:
        row = reader.judge.describe(image, reading, options)
    if options.get("explain"):
        verdict["explanation"] = row["explanation"]
        verdict["explanation_verdict"] = row["explanation_verdict"]
    if row["mask"] is not None:
        (reader.folder / "masks").mkdir(exist_ok=True)
        suffix = "" if reading.head is None else f"-{reading.head}"
        verdict["mask"] = f"masks/{name}{suffix}.mask.png"
        verdict["overlay"] = f"masks/{name}{suffix}.overlay.jpg"
        row["mask"].save(reader.folder / verdict["mask"])
        draw_overlay(image, row["mask"]).save(reader.folder / verdict["overlay"], quality=90)
