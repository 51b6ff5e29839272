"""Combine scored frames into tracks, readings and a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deepfake_detectors.examination.crops import CropRecipe
from deepfake_detectors.examination.decision import NOT_APPLICABLE, decide_track, worst, worst_track
from deepfake_detectors.examination.judging import Reading
from deepfake_detectors.examination.sampling import WORST_FRAMES, FrameReader
from deepfake_detectors.examination.tracks import link_faces, pool

__all__ = ["conclude", "deciding", "of_head"]


def conclude(reader: FrameReader, pooling: str, moving: bool) -> dict[str, Any]:
    """Tracks, readings and the deciding one, as in the record."""
    entries = {entry["index"]: entry for entry in reader.frames}
    described = {
        (moment.index, id(face)): entries[moment.index]["faces"][place]
        for moment, faces in reader.faces
        for place, face in enumerate(faces)  # scored ones come first in the record
    }
    linked = link_faces(reader.faces)
    tracks: list[dict[str, Any]] = []
    for track in linked:
        faces = [described[index, id(face)] for index, face in zip(track.frames, track.faces, strict=True)]
        for face in faces:
            face["track"] = track.id
        for reading, recipe in zip(reader.readings, reader.recipes, strict=True):
            if recipe is not None:
                verdicts = [of_head(face["verdicts"], reading) for face in faces]
                tracks.append(
                    {
                        "id": track.id,
                        "boxes": [face["box"] for face in faces],
                        **_pooled(reading, list(track.frames), verdicts, pooling, moving, face=True),
                    }
                )
    said = []
    for reading, recipe in zip(reader.readings, reader.recipes, strict=True):
        if recipe is not None:
            own = [track for track in tracks if track["head"] == reading.head]
            chosen = worst_track(own, reading.band) if moving else worst(own)
        else:
            own = [entry for entry in reader.frames if entry["verdicts"]]
            chosen = None
            if own:
                verdicts = [of_head(entry["verdicts"], reading) for entry in own]
                chosen = _pooled(reading, [entry["index"] for entry in own], verdicts, pooling, moving, face=False)
        said.append(_reading_entry(reader, reading, recipe, chosen, len(own)))
    return {
        **deciding(said),
        "pooling": pooling if moving else None,
        "readings": said,
        "tracks": [
            {("pooled" if name == "fake_probability" else name): value for name, value in track.items()}
            for track in tracks
        ],
    }


def deciding(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the most serious reading, which decides about the whole file, and which one it is."""
    chosen = worst(readings)
    assert chosen is not None  # every checkpoint gives a verdict
    return {
        "decision": chosen["decision"],
        "fake_probability": chosen["fake_probability"],
        "reason": chosen["reason"],
        "deciding": {"head": chosen["head"], "subject": chosen["subject"], "track": chosen["track"]},
    }


def of_head(verdicts: Sequence[dict[str, Any]], reading: Reading) -> dict[str, Any]:
    return next(verdict for verdict in verdicts if verdict["head"] == reading.head)


def _pooled(
    reading: Reading, frames: list[int], verdicts: list[dict[str, Any]], pooling: str, moving: bool, face: bool
) -> dict[str, Any]:
    scores = [verdict["fake_probability"] for verdict in verdicts]
    probability = pool(scores, pooling) if moving else scores[0]
    decision, reason = decide_track(probability, reading.band, len(frames) if moving and face else None)
    ranked = sorted(range(len(frames)), key=lambda place: (-scores[place], place))
    return {
        "head": reading.head,
        "frames": frames,
        "fake_probability": probability,
        "decision": decision,
        "reason": reason,
        "worst_frames": [frames[place] for place in ranked[:WORST_FRAMES]],
    }


def _reading_entry(
    reader: FrameReader, reading: Reading, recipe: CropRecipe | None, chosen: Mapping[str, Any] | None, judged: int
) -> dict[str, Any]:
    probability = None if chosen is None else chosen["fake_probability"]
    return {
        "head": reading.head,
        "subject": reading.subject,
        "decision": NOT_APPLICABLE if chosen is None else chosen["decision"],
        "fake_probability": probability,
        "label": None if probability is None else "fake" if probability >= reading.threshold else "real",
        "reason": _why_nothing(reader, recipe) if chosen is None else chosen["reason"],
        "track": None if chosen is None else chosen.get("id"),
        "judged": judged if recipe is not None else int(chosen is not None),
        "worst_frames": [] if chosen is None else chosen["worst_frames"],
        "threshold": reading.threshold,
        "band": None if reading.band is None else dict(reading.band),
        "crop": None if recipe is None else asdict(recipe),
        "license_notice": reading.license_notice,
    }


def _why_nothing(reader: FrameReader, recipe: CropRecipe | None) -> str:
    refused = [entry["check"] for entry in reader.frames if entry["check"] and not entry["check"]["applicable"]]
    if refused and len(refused) == len(reader.frames):
        return refused[0]["reason"]
    if not reader.frames:
        return "none of the frames could be examined"
    small = [face["check"] for entry in reader.frames for face in entry["faces"] if face["check"]]
    if small:
        largest = max(small, key=lambda check: check["measured"]["short_side"])
        return f"all faces that were found are too small. {largest['reason']}"
    looked = len(reader.frames) - len(refused)
    where = "the image" if reader.frames[0]["seconds"] is None else f"{looked} frames"
    name = "" if reader.finder is None else f" (face finder: {reader.finder.name})"
    return f"this detector is for faces, and no face was found in {where}{name}"
