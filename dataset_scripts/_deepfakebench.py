"""Naming in DeepfakeBench and DF40: methods, and the videos, labels and paths of a JSON file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ._files import first_names, read_json

__all__ = [
    "ALIASES",
    "FACEFORENSICS",
    "FF_GROUPS",
    "LEVELS",
    "METHODS",
    "OWN_REALS",
    "SPLITS",
    "Record",
    "label_of_group",
    "manipulation_of_group",
    "method_name",
    "read_records",
    "relative_path",
    "shared_material",
    "target_and_source",
]

FAMILIES = {
    "swap": "fsgan faceswap simswap inswap blendface uniface mobileswap e4s facedancer deepfacelab",
    "reenact": (
        "fomm facevid2vid wav2lip MRAA one_shot_free pirender tpsm lia danet sadtalker mcnet hyperreenact heygen"
    ),
    "synthesis": ("VQGAN StyleGAN2 StyleGAN3 StyleGANXL sd2.1 ddim RDDM PixArt DiT SiT MidJourney whichfaceisreal"),
    "edit": "CollabDiff e4e stargan starganv2 styleclip",
}
METHODS = {name: family for family, names in FAMILIES.items() for name in names.split()}
# files, folders and the paper use different names
ALIASES = {"whichisreal": "whichfaceisreal", "dagan": "danet", "ddpm": "ddim"}
OWN_REALS = frozenset(
    (
        "deepfacelab",
        "heygen",
        "MidJourney",
        "whichfaceisreal",
        "CollabDiff",
        "e4e",
        "stargan",
        "starganv2",
        "styleclip",
    )
)
LEVELS = ("raw", "c0", "c23", "c40")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
FACEFORENSICS = "FaceForensics++"
FF_GROUPS = {  # group -> folder, family
    "FF-real": ("real", None),
    "FF-DF": ("Deepfakes", "swap"),
    "FF-F2F": ("Face2Face", "reenact"),
    "FF-FS": ("FaceSwap", "swap"),
    "FF-NT": ("NeuralTextures", "reenact"),
    "FF-FH": ("FaceShifter", "swap"),
}
GROUP_METHODS = {
    "DFD": "deepfakedetection",
    "CelebDFv1": "celeb_synthesis",
    "CelebDFv2": "celeb_synthesis",
    "DFDC": "dfdc",
    "DFDCP_FakeA": "method_A",
    "DFDCP_FakeB": "method_B",
}
FOLDERS = frozenset(  # folders at which the relevant part of a path from another machine starts
    {
        FACEFORENSICS,
        "Celeb-DF-v1",
        "Celeb-DF-v2",
        "DFDC",
        "DFDCP",
        "DeeperForensics-1.0",
        "UADFV",
        "DF40",
        "DF40_train",
    }
)


# How a video's name encodes its source material, for each dataset folder that its frames are in.
FF_VIDEO = re.compile(r"(?P<target>\d{3})(_(?P<source>\d{3}))?")
NAMES = {
    FACEFORENSICS: FF_VIDEO,
    "DeeperForensics-1.0": re.compile(r"(?P<target>\d{3})(_(?P<source>[MW]\d{3}))?"),
    "Celeb-DF": re.compile(r"(?P<target>id\d+)(_(?P<source>id\d+))?_\d+|(?P<alone>\d+)"),
    "UADFV": re.compile(r"(?P<target>\d+)(_fake)?"),
    "DFD": re.compile(r"(?P<target>[^_]+)(_(?P<source>[^_]+))?__.+"),
}
# the first contains forgeries of videos of the second
PLACES = {"DeeperForensics-1.0": FACEFORENSICS, "DFD": "DeepFakeDetection"}


def method_name(name: str) -> str | None:
    """Return a method's name in `METHODS` from any of its spellings, or `None`."""
    plain = ALIASES.get(name.casefold(), name).casefold()
    return next((method for method in METHODS if method.casefold() == plain), None)


class Record(NamedTuple):
    """A video in the file."""

    group: str
    split: str
    level: str | None
    name: str
    frames: list[str]
    masks: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.name


def read_records(
    path: Path, compression: str, remedy: str, report: Callable[[str, str], None]
) -> tuple[str, list[Record]]:
    """Return the name of the dataset and its videos, including repeated entries.

    Args:
        path: the JSON file.
        compression: the level to read if there are several.
        remedy: advice if the file is missing. report: called with the level and message of each finding.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: naming the file, for another format, a label that contradicts its group, or no videos.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict) or len(content) != 1 or not isinstance(next(iter(content.values())), dict):
        raise ValueError(f"{path} should contain one dataset, {{name: {{group: {{split: ...}}}}}}.")
    ((name, groups),) = content.items()
    records = []
    skipped: list[str] = []
    for group, splits in groups.items():
        label = label_of_group(group)
        if not isinstance(splits, dict):
            raise ValueError(f"{path}: {group} is {type(splits).__name__}, expected {{split: ...}}. Correct the file.")
        for split, node in splits.items():
            if split not in SPLITS or not isinstance(node, dict):
                skipped.append(f"{group}/{split}")
                continue
            for level, video, value in _videos(node):
                where = f"{group}/{split}/{video}"
                if not isinstance(value, dict) or not isinstance(value.get("frames"), list):
                    skipped.append(where)
                    continue
                if level is not None and level != compression:
                    continue
                if not all(isinstance(frame, str) for frame in value["frames"]):
                    raise ValueError(f"{path}: {where} has frames that are not paths. Correct the file.")
                own = value.get("label")
                if isinstance(own, str) and label_of_group(own) != label:
                    raise ValueError(f"{path}: {where} is labelled {own!r} in a {label} group. Correct the file.")
                records.append(Record(group, SPLITS[split], level, video, value["frames"], bool(value.get("masks"))))
    if skipped:
        report("warning", f"{len(skipped)} entries skipped because they are not videos: {first_names(skipped)}.")
    if not records:
        raise ValueError(f"{path} does not list any videos with compression {compression}.")
    return name, records


def label_of_group(group: str) -> str:
    """`real` or `fake` from the end of a group's name; the rest is ignored: `whichisreal_Fake` is fake.

    Raises:
        ValueError: for a name with another ending.
    """
    if group in FF_GROUPS:
        return "real" if group == "FF-real" else "fake"
    end = group.rsplit("_", 1)[-1].casefold()
    if end in ("real", "fake"):
        return end
    if end in ("fakea", "fakeb"):
        return "fake"
    raise ValueError(f"Group {group!r} does not say real or fake; expected a name ending in _Real or _Fake, or FF-*.")


def manipulation_of_group(group: str, file: str) -> tuple[str, str | None]:
    """Return the manipulation and family of a group.

    Args:
        group: name of the group.
        file: stem of the JSON file, which names the method if the group does not: DF40 labels some of its methods
            after the tool, `roop`.
    """
    if group in FF_GROUPS:
        return FF_GROUPS[group]
    if label_of_group(group) == "real":
        return "real", None
    stem = group.rsplit("_", 1)[0]
    if stem.casefold().startswith("roop"):
        stem = file.rsplit("_", 1)[0]
    known = GROUP_METHODS.get(group) or GROUP_METHODS.get(stem) or method_name(stem) or stem
    return known, METHODS.get(known)


def shared_material(name: str, record: Record) -> tuple[str, ...]:
    """Return the videos or persons shown in a video, target first, each prefixed with its dataset; empty if unknown.

    Args:
        name: the dataset of the file.
        record: the video. For DF40, the folders of its frames show whose videos were forged.
    """
    parts = relative_path(record.frames[0]).parts if record.frames else ()
    origin = _origin(name, record, parts)
    match = NAMES[origin].fullmatch(record.name) if origin else None
    if origin is None or match is None:
        return ()
    found = match.groupdict()
    if found.get("alone"):
        return (f"{_released(name, parts)}/YouTube-real/{found['alone']}",)
    place = _released(name, parts) if origin == "Celeb-DF" else PLACES.get(origin, origin)
    return tuple(f"{place}/{found[role]}" for role in ("target", "source") if found.get(role))


def target_and_source(people: tuple[str, ...], record: Record) -> tuple[str | None, str | None]:
    """Return the columns `target_id` and `source_id`. The target is a video: `id0_0000` for `id0_id1_0000` (Celeb-DF),
    and `01__walking` for `01_02__walking__ABCDEFGH` (DeepFakeDetection)."""
    if not people:
        return None, None
    target = people[0].rsplit("/", 1)[-1]
    source = people[1].rsplit("/", 1)[-1] if len(people) > 1 else None
    if people[0].startswith(f"{PLACES['DFD']}/"):
        return f"{target}__{record.name.split('__')[1]}", source
    return f"{target}_{record.name.split('_')[-1]}" if target.startswith("id") else target, source


def _origin(name: str, record: Record, parts: tuple[str, ...]) -> str | None:
    """Return the naming scheme in `NAMES` that a video follows."""
    first = parts[0] if parts else ""
    if record.group in FF_GROUPS or first == FACEFORENSICS:
        # Its tree also contains the actors of DeepFakeDetection.
        return "DFD" if "actors" in parts or "DeepFakeDetection" in parts else FACEFORENSICS
    if first.startswith("DF40"):
        if "cdf" in parts:
            return "Celeb-DF"
        family = METHODS.get(method_name(parts[1]) or "") if len(parts) > 1 else None
        return FACEFORENSICS if "ff" in parts or family in ("swap", "reenact") else None
    known = ["Celeb-DF" if text.startswith("Celeb-DF") else text for text in (first, name)]
    return next((text for text in known if text in NAMES), None)


def _released(name: str, parts: tuple[str, ...]) -> str:
    """Return the version of Celeb-DF; DF40 forged the second."""
    return next((text for text in (*parts[:1], name) if text.startswith("Celeb-DF")), "Celeb-DF-v2")


def relative_path(listed: str) -> PurePosixPath:
    """Return a listed path without machine-specific parts, starting at the first known dataset folder.

    Raises:
        ValueError: for a path with `..` in it.
    """
    parts = [part for part in listed.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{listed} points outside its folder; correct the file that lists it.")
    if parts and parts[0].endswith(":"):
        parts = parts[1:]
    if not parts:
        raise ValueError(f"{listed!r} is not the path of a frame; correct the file that lists it.")
    start = next((number for number, part in enumerate(parts) if part in FOLDERS), 0)
    return PurePosixPath(*parts[start:])


def _videos(node: dict[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    """Yield level, name and value for each entry of a split; for a record in place of a split, its fields."""
    for name, value in node.items():
        if name in LEVELS and isinstance(value, dict) and "frames" not in value:
            yield from ((name, video, record) for video, record in value.items())
        else:
            yield None, name, value
