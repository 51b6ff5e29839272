"""DeeperForensics-1.0: face swaps onto the videos of FaceForensics++, clean and distorted.

Jiang et al., "DeeperForensics-1.0: A Large-Scale Dataset for Real-World Face Forgery Detection" (CVPR 2020). Expected:

    manipulated_videos/<variant>/[videos/]<FaceForensics++ id>_<actor>.mp4       or frames/<name>/ below the variant
    lists/splits/{train,val,test}.txt                                             one fake video per line
    original_sequences/youtube/c23/...                                            the real class, from FaceForensics++
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets

from ._builder import Unit, components, unit_columns
from ._files import first_names, require_folder, stable_id
from ._frames import FrameBuilder, FrameConfig
from ._releases import level_folder, list_path, read_deeper_lists, read_splits

__all__ = ["DeeperForensics", "DeeperForensicsConfig"]

VERSION = datasets.Version("1.0.0")
VARIANTS = (
    "end_to_end",
    *(f"end_to_end_level_{level}" for level in range(1, 6)),
    "end_to_end_random_level",
    *(f"end_to_end_mix_{count}_distortions" for count in (2, 3, 4)),
    "reenact_postprocess",
)
VIDEOS = {"train": 703, "validation": 96, "test": 201}  # of each variant
REALS = "original_sequences/youtube"  # c23, as requested by the authors


@dataclass
class DeeperForensicsConfig(FrameConfig):
    """Selection of the fakes.

    Args:
        variants: folders in `manipulated_videos` to read.
    """

    variants: tuple[str, ...] = ("end_to_end",)

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        unknown = [variant for variant in self.variants if variant not in VARIANTS]
        if unknown or not self.variants:
            raise ValueError(f"variants has {unknown}, expected some of {', '.join(VARIANTS)}.")


class DeeperForensics(FrameBuilder):
    """DeeperForensics-1.0 with its official splits by source actor: 703, 96 and 201 fakes per variant.

    Its `source_videos` show the actors whose faces were used and are not the real class. The real class is the c23
    originals of FaceForensics++, which are not included: put `original_sequences/` next to the fakes. A real video is
    in the split of the fakes made from it. The splits differ from those of FaceForensics++; if its lists are present
    too, its training videos in this test split are reported.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DeeperForensicsConfig
    BUILDER_CONFIGS = [
        DeeperForensicsConfig(name="end_to_end", version=VERSION, description="Undistorted fakes."),
        DeeperForensicsConfig(name="all", version=VERSION, variants=VARIANTS, description="All eleven variants."),
    ]
    DEFAULT_CONFIG_NAME = "end_to_end"
    NAME = "DeeperForensics-1.0"
    TERMS = "DeeperForensics-1.0 terms of use: access by form, non-commercial research only, no redistribution."
    LAYOUT = "manipulated_videos/<variant>/*.mp4, lists/splits/{train,val,test}.txt, original_sequences/youtube/c23/"
    REMEDY = "Point data_dir at the folder with manipulated_videos/ (form: see homepage)."
    HOMEPAGE = "https://github.com/EndlessSora/DeeperForensics-1.0"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """703, 96 and 201 fakes per variant, and as many real videos."""
        return {split: {"real": n, "fake": n * len(self.config.variants)} for split, n in VIDEOS.items()}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, in the order of the lists: real ones, then variant by variant."""
        listed = read_deeper_lists(root / "lists" / "splits", self.REMEDY)
        containers = {variant: root / "manipulated_videos" / variant for variant in self.config.variants}
        for folder in containers.values():
            require_folder(folder, "fake videos", self.REMEDY)
        reals = level_folder(root / REALS, "c23")
        source = self.choose_source([reals, *containers.values()])
        videos = {variant: self.find_videos(root, folder, source) for variant, folder in containers.items()}
        originals = self.find_videos(root, reals, source) if reals.is_dir() else {}
        if not originals:
            self.report("error", f"{reals} has no {source}, so the real class is missing; see the layout.")
        groups = components(pair for pairs in listed.values() for pair in pairs)
        splits: dict[str, list[Unit]] = {}
        for split, pairs in listed.items():
            found = [
                self._unit(root, "real", (target,), originals.get(target), reals / source, groups)
                for target in dict.fromkeys(target for target, _ in pairs)
                if originals
            ]
            for variant, there in videos.items():
                for pair in pairs:
                    path = there.pop("_".join(pair), None)
                    found.append(self._unit(root, variant, pair, path, containers[variant] / source, groups))
            splits[split] = [unit for unit in found if unit is not None]
        extra = [str(path) for there in videos.values() for path in there.values()]
        if extra:
            self.report(
                "warning", f"{len(extra)} video(s) ignored because they are not in any list: {first_names(extra)}."
            )
        self._compare_with_faceforensics(root, listed)
        return splits

    def _unit(
        self, root: Path, variant: str, names: tuple[str, ...], path: Path | None, place: Path, groups: dict[str, str]
    ) -> Unit | None:
        video = "_".join(names)
        if path is None:
            self.missing.append(str(place / video))
            return None
        real = variant == "real"
        columns = unit_columns(
            label="real" if real else "fake",
            group_id=f"{self.NAME}/{groups[names[0]]}",
            manipulation=variant,
            family="swap",
            video_id=f"FaceForensics++/real/{video}" if real else f"{self.NAME}/{variant}/{video}",
            target_id=names[0],
            source_id=names[-1],
            compression="c23" if real else None,
        )
        return self.video_unit(root, stable_id("deeperforensics", variant, video), path, columns)

    def _compare_with_faceforensics(self, root: Path, listed: dict[str, list[tuple[str, str]]]) -> None:
        if not list_path(root, "train.json").is_file():
            return
        pairs = read_splits(root, {"train": "train.json"}, self.REMEDY)["train"]
        trained = {video for pair in pairs for video in pair}
        both = sorted({target for target, _ in listed["test"]} & trained)
        if both:
            self.report(
                "warning", f"{len(both)} test videos are training videos of FaceForensics++: {first_names(both)}."
            )
