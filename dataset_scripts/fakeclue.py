"""FakeClue: real and synthetic images of seven categories with explanations, in the layout of its Hub repository.

Wen et al., "Spot the Fake: Large Multimodal Model-Based Synthetic Image Detection with Artifact Explanation" (FakeVLM,
NeurIPS 2025). Expected in the data folder:

    {train,test}.zip, or unpacked {train,test}/         images <source>/{fake,real}/...
    data_json/{train,test}.json                         list of {image, label, cate, conversations}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ._archives import list_members, read_picture
from ._builder import INSIDE, RawBuilder, RawConfig, Unit, unit_columns
from ._files import first_names, is_picture, read_json, refuse_outside, stable_id, walk_files
from ._releases import related_videos

__all__ = ["FakeClue"]

SPLITS = ("train", "test")
LABELS = {1: "real", 0: "fake"}  # the opposite of everywhere else
FACEFORENSICS = "ff++"


class FakeClue(RawBuilder):
    """FakeClue: `label` and `cate` come only from the JSON, where 1 is real and 0 is fake; here 0 is real.

    Its FaceForensics++ frames were split at random: `group_id` joins the frames of related videos, and videos in both
    splits are reported. It includes images of Chameleon, so Chameleon is not a clean test set for models trained on
    it.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIGS = [RawConfig(name="default", version=VERSION, description="Images with explanations.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "FakeClue"
    TERMS = (
        "The Hub repository says Apache-2.0, but the sources (GenImage, FaceForensics++, Chameleon) are for "
        "non-commercial research only."
    )
    LAYOUT = "{train,test}.zip or {train,test}/, data_json/{train,test}.json"
    REMEDY = "Point data_dir at a copy of the Hub dataset lingcco/FakeClue."
    HOMEPAGE = "https://huggingface.co/datasets/lingcco/FakeClue"
    LAYOUT_VERIFIED = False

    def has_dialogue(self) -> bool:
        """Return true, because every image has a question and an explanation."""
        return True

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """Return the counts of the test split from third parties."""
        return {"test": {"real": 1808, "fake": 3192}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per record, in the order of the JSON."""
        records = {split: self._read(root, split) for split in SPLITS}
        videos = [
            tuple(_video(record["image"]).split("_"))
            for found in records.values()
            for record in found
            if _video(record["image"])
        ]
        groups = related_videos(videos)
        splits = {split: self._split(root, split, found, groups) for split, found in records.items()}
        sides = [
            {u.columns["group_id"] for u in splits[split] if u.columns["video_id"] is not None} for split in SPLITS
        ]
        shared = sorted(sides[0] & sides[1])
        if shared:
            self.report(
                "warning", f"{len(shared)} groups of videos are in both train and test: {first_names(shared)}."
            )
        return splits

    def _read(self, root: Path, split: str) -> list[dict[str, Any]]:
        path = root / "data_json" / f"{split}.json"
        records = read_json(path, self.REMEDY)
        if not isinstance(records, list):
            raise ValueError(f"{path} should be a list of records.")
        for number, record in enumerate(records):
            where = f"{path}, record {number}"
            if not isinstance(record, dict) or not {"image", "label", "cate", "conversations"} <= set(record):
                raise ValueError(f"{where} lacks one of image, label, cate, conversations.")
            if not isinstance(record["image"], str):
                raise ValueError(f"{where} has image {record['image']!r}, expected a path.")
            if type(record["label"]) is not int or record["label"] not in LABELS:
                raise ValueError(f"{where} ({record['image']}) has label {record['label']!r}, expected 1 (real) or 0.")
            turns = record["conversations"]
            speakers = [
                turn.get("from") if isinstance(turn, dict) and isinstance(turn.get("value"), str) else None
                for turn in (turns if isinstance(turns, list) else [])
            ]
            if speakers != ["human", "gpt"]:
                raise ValueError(
                    f"{where} ({record['image']}) should have one question and one answer, each with a text as its "
                    "value."
                )
            if ".." in PurePosixPath(record["image"]).parts or record["image"].startswith("/"):
                raise ValueError(f"{where} has the image {record['image']!r}, which is outside the folder.")
        return records

    def _split(self, root: Path, split: str, records: list[dict[str, Any]], groups: dict[str, str]) -> list[Unit]:
        pictures = self._pictures(root, split)
        units, contradicted = [], []
        used: set[str] = set()
        for record in records:
            name = stable_id(record["image"])
            location = pictures.get(name)
            if location is None:
                self.missing.append(f"{split}/{name}")
                continue
            used.add(name)
            unit = self._unit(split, name, location, record, groups)
            if {"real": "fake", "fake": "real"}[unit.columns["label"]] in PurePosixPath(name).parts[:2]:
                contradicted.append(name)
            units.append(unit)
        extra = sorted(set(pictures) - used)
        if extra:
            self.report(
                "warning", f"{split}: {len(extra)} images ignored because they have no record: {first_names(extra)}."
            )
        if contradicted:
            self.report(
                "warning",
                f"{split}: {len(contradicted)} labels differ from the folder name; those in the JSON are used: "
                f"{first_names(contradicted)}.",
            )
        return units

    def _pictures(self, root: Path, split: str) -> dict[str, str]:
        """Return name in the JSON -> location of the image: a path, or `<zip>::<member>`."""
        folder, archive = root / split, root / f"{split}.zip"
        if folder.is_dir():
            found = {path.relative_to(folder).as_posix(): str(path) for path in walk_files(root, folder)}
        elif archive.is_file():
            refuse_outside(root, archive)
            found = {name: f"{archive}{INSIDE}{name}" for name in list_members(archive)}
        else:
            raise FileNotFoundError(f"Neither {archive} nor {folder} exists. {self.REMEDY}")
        # Zips may repeat the split as their first folder.
        return {
            stable_id(name.removeprefix(f"{split}/")): place
            for name, place in found.items()
            if is_picture(Path(name)) and not PurePosixPath(name).name.startswith(".")
        }

    def _unit(self, split: str, name: str, location: str, record: dict[str, Any], groups: dict[str, str]) -> Unit:
        label = LABELS[record["label"]]
        parts = PurePosixPath(name).parts
        video = _video(name)
        method = parts[2] if video and label == "fake" and len(parts) > 3 else None
        identity = stable_id("fakeclue", split, name)
        people = video.split("_") if video else []
        question, answer = (turn["value"].replace("<image>", "").strip() for turn in record["conversations"])
        columns: dict[str, Any] = unit_columns(
            label=label,
            group_id=f"FaceForensics++/{groups[people[0]]}" if people else identity,
            manipulation=method,
            video_id=f"FaceForensics++/{'real' if label == 'real' else method}/{video}" if video else None,
            target_id=people[0] if people else None,
            source_id=people[1] if len(people) > 1 else None,
            compression=next((part for part in parts if part in ("raw", "c23", "c40")), None),
            category=record["cate"],
        )
        number = PurePosixPath(name).stem
        columns["frame"] = int(number) if video and number.isdecimal() else None
        columns |= {
            "question": question,
            "answer": answer,
            "answers": [answer],
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        }
        return Unit(identity, location, columns)

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Yield the image, from its file or from the zip."""
        archive, inside, name = unit.path.partition(INSIDE)
        if inside:
            yield {"id": unit.id, **read_picture(Path(archive), name, self.config.max_pixels), **unit.columns}
        else:
            yield from super().examples(unit)


def _video(name: str) -> str:
    """Return the FaceForensics++ video of an image, or nothing: `ff++/<class>/.../frames/<video>/<frame>.png`."""
    parts = PurePosixPath(name).parts
    if parts[0] == FACEFORENSICS and "frames" in parts[:-2]:
        return parts[parts.index("frames") + 1]
    return ""
