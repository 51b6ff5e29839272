"""UADFV: 49 videos, each with one face swap.

Yang, Li and Lyu, "Exposing Deep Fakes Using Inconsistent Head Poses" (ICASSP 2019). Expected:

    real/[videos/]<number>.mp4            or below real/: images/<number>/, frames/<number>/
    fake/[videos/]<number>_fake.mp4
"""

from __future__ import annotations

import re
from pathlib import Path

import datasets

from ._builder import Unit, unit_columns
from ._files import require_folder, stable_id
from ._frames import FrameBuilder, FrameConfig

__all__ = ["UADFV"]

VERSION = datasets.Version("1.0.0")
NAMES = {"real": re.compile(r"(\d+)"), "fake": re.compile(r"(\d+)_fake")}


class UADFV(FrameBuilder):
    """UADFV: 49 real and 49 fake videos, published without splits, so all are `test`.

    DeepfakeBench lists all 98 in each of train, validation and test.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = FrameConfig
    BUILDER_CONFIGS = [FrameConfig(name="default", version=VERSION, description="All 98 videos.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "UADFV"
    TERMS = "Access by form, research only."
    LAYOUT = "real/[videos/]<number>.mp4 and fake/[videos/]<number>_fake.mp4 (or frames/<name>/ below each)"
    LAYOUT_VERIFIED = False  # as described by third parties
    REMEDY = "Point data_dir at the folder with real/ and fake/ (form linked in github.com/SCLBD/DeepfakeBench)."
    HOMEPAGE = "https://github.com/SCLBD/DeepfakeBench"

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """49 pairs."""
        return {"test": {"real": 49, "fake": 49}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, real ones first; a real video and its fake are one group."""
        containers = {label: require_folder(root / label, f"the {label} videos", self.REMEDY) for label in NAMES}
        source = self.choose_source(list(containers.values()))
        videos = {label: self.find_videos(root, folder, source) for label, folder in containers.items()}
        units = []
        numbers: dict[str, set[str]] = {label: set() for label in NAMES}
        for label, found in videos.items():
            for name, path in found.items():
                match = NAMES[label].fullmatch(name)
                if match is None:
                    raise ValueError(
                        f"{path} does not have the name of a {label} video: 0000 is real, 0000_fake is fake. Move it "
                        "elsewhere."
                    )
                number = match.group(1)
                numbers[label].add(number)
                columns = unit_columns(
                    label=label,
                    group_id=f"UADFV/{number}",
                    manipulation="uadfv",
                    family="swap",
                    video_id=f"UADFV/{label}/{name}",
                    target_id=number,
                )
                unit = self.video_unit(root, stable_id("uadfv", label, name), path, columns)
                if unit is not None:
                    units.append(unit)
        for label, other, suffix in (("real", "fake", ""), ("fake", "real", "_fake")):
            absent = sorted(numbers[other] - numbers[label])
            self.missing += [f"{containers[label] / source / number}{suffix} ({other} exists)" for number in absent]
        return {"test": units}
