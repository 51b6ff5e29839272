"""The 23 test sets of AntifakePrompt: one folder per set, each of one class.

Chang et al., "AntifakePrompt: Prompt-Tuned Vision-Language Models are Fake Image Detectors" (2023). Expected:

    <set>/.../<picture>      3,000 pictures per set; the published code walks a folder and takes its label as given
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import datasets

from .common import RawBuilder, RawConfig, Unit
from .raw_files import first_names, is_picture, stable_id, walk_files

__all__ = ["AntifakePrompt", "AntifakePromptConfig"]

PICTURES_PER_SET = 3000
HELD_IN = frozenset({"COCO", "SD3", "SD2IP"})
READ_BY_OFFICIAL_CODE = (".jpg", ".jpeg", ".png")  # as written: it compares with case
SETS: dict[str, tuple[str, str | None, tuple[str, ...]]] = {  # name -> class, family, further folder names
    "COCO": ("real", None, ("coco_val", "coco2017")),
    "Flickr": ("real", None, ("flickr30k",)),
    "SD2": ("fake", "synthesis", ("stable_diffusion_2",)),
    "SD3": ("fake", "synthesis", ("stable_diffusion_3",)),
    "SDXL": ("fake", "synthesis", ()),
    "IF": ("fake", "synthesis", ("deepfloyd_if",)),
    "DALLE-2": ("fake", "synthesis", ()),
    "DALLE-3": ("fake", "synthesis", ()),
    "playground v2.5": ("fake", "synthesis", ("playground",)),
    "DiffusionDB": ("fake", "synthesis", ()),
    "SGXL": ("fake", "synthesis", ("stylegan_xl",)),
    "GLIDE": ("fake", "synthesis", ()),
    "ControlNet": ("fake", "edit", ("stylization",)),
    "DeeperForensics": ("fake", "swap", ("df",)),
    "DFDC": ("fake", "swap", ()),
    "FF++": ("fake", "swap", ("faceforensics",)),
    "LaMa": ("fake", "inpaint", ()),
    "SD2IP": ("fake", "inpaint", ("sd2_inpainting",)),
    "LIIF": ("fake", "edit", ()),
    "LTE": ("fake", "edit", ()),
    "SD2SR": ("fake", "edit", ("sd2_superresolution",)),
    "Adversarial": ("fake", "edit", ("adver", "adversarial_attack")),
    "Backdoor": ("fake", "edit", ("backdoor_attack",)),
    "Data poisoning": ("fake", "edit", ("poisoning", "data_poisoning_attack")),
}


@dataclass
class AntifakePromptConfig(RawConfig):
    """The published sets, and folders of one's own.

    Args:
        real: names of further folders with real pictures.
        fake: names of further folders with fake pictures.
    """

    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()


class AntifakePrompt(RawBuilder):
    """The test sets of AntifakePrompt, each folder of one class; a folder of another name is never given a class.

    `category` says whether the published prompts were trained on pictures of this set (`held_in`) or not (`held_out`).
    Attacked photographs count as fake. The training pictures have no published layout and are not read.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = AntifakePromptConfig
    BUILDER_CONFIGS = [AntifakePromptConfig(name="default", version=VERSION, description="All sets that are there.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "AntifakePrompt"
    TERMS = (
        "Those of each source; several (FaceForensics++, DFDC, DeeperForensics) are for non-commercial research only."
    )
    LAYOUT = f"<set>/.../<picture>, the sets being {', '.join(SETS)}"
    REMEDY = "Point data_dir at the folder above the sets (github.com/nctu-eva-lab/AntifakePrompt)."
    HOMEPAGE = "https://github.com/nctu-eva-lab/AntifakePrompt"
    LAYOUT_VERIFIED = False

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """One unit per picture, set by set in the order of the published table."""
        known = {_plain(alias): name for name, (_, _, more) in SETS.items() for alias in (name, *more)}
        own = {**dict.fromkeys(self.config.real, "real"), **dict.fromkeys(self.config.fake, "fake")}
        folders: dict[str, Path] = {}
        unknown = []
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            name = folder.name if folder.name in own else known.get(_plain(folder.name))
            if name is None:
                unknown.append(folder.name)
            elif name in folders:
                raise ValueError(f"{folder} and {folders[name]} are both the set {name}; keep one of them.")
            else:
                folders[name] = folder
        if unknown:
            self.report(
                "error",
                f"Folders that are no published set, not read: {first_names(unknown)}. State their class: real=... or "
                "fake=...",
            )
        absent = [name for name in SETS if name not in folders]
        if absent:
            self.report("warning", f"{len(absent)} sets are not there: {first_names(absent, limit=len(absent))}.")
        units = []
        for name in [*(name for name in SETS if name in folders), *(name for name in folders if name not in SETS)]:
            label, family, _ = SETS.get(name, (own.get(name, ""), None, ()))
            units += self._set(root, name, folders[name], label, family)
        return {"test": units}

    def _set(self, root: Path, name: str, folder: Path, label: str, family: str | None) -> list[Unit]:
        units, other = [], []
        for path in walk_files(root, folder):
            if not is_picture(path):
                other.append(path.name)
                continue
            identity = stable_id("antifakeprompt", name, path.relative_to(folder).as_posix())
            columns = {
                "label": label,
                "manipulation": "real" if label == "real" else name,
                "family": family,
                "video_id": None,
                "group_id": identity,
                "target_id": None,
                "source_id": None,
                "frame": None,
                "compression": None,
                "category": "held_in" if name in HELD_IN else "held_out",
            }
            units.append(Unit(identity, str(path), columns))
        if other:
            self.report("warning", f"{name}: {len(other)} files are no pictures: {first_names(other)}.")
        if name in SETS and len(units) != PICTURES_PER_SET:
            self.report("warning", f"{name}: {len(units)} pictures, published are {PICTURES_PER_SET}.")
        suffixes = Counter(Path(unit.path).suffix for unit in units)
        unseen = {suffix: count for suffix, count in suffixes.items() if suffix not in READ_BY_OFFICIAL_CODE}
        if unseen:
            self.report("warning", f"{name}: {sum(unseen.values())} pictures that the published code skips: {unseen}.")
        return units


def _plain(name: str) -> str:
    """A name without case and punctuation, by which folders are compared."""
    return "".join(character for character in name.casefold() if character.isalnum() or character == "+")
