"""GenImage: ImageNet photographs and images from eight generators.

Zhu et al., "GenImage: A Million-Scale Benchmark for Detecting AI-Generated Image" (NeurIPS 2023). Expected:

    <generator>/[<inner folder>/]{train,val}/{ai,nature}/<image>
"""

from __future__ import annotations

from pathlib import Path

import datasets

from ._builder import Unit
from ._files import first_names
from .image_folder import RealFakeFolder, RealFakeFolderConfig

__all__ = ["GenImage"]

GENERATORS = {  # first folder, ignoring case and punctuation -> name
    "adm": "ADM",
    "biggan": "BigGAN",
    "glide": "glide",
    "midjourney": "Midjourney",
    "stablediffusionv14": "stable_diffusion_v_1_4",
    "stablediffusionv15": "stable_diffusion_v_1_5",
    "vqdm": "VQDM",
    "wukong": "wukong",
}


class GenImage(RealFakeFolder):
    """GenImage: `nature` is real, `ai` is fake; the first folder is the generator.

    The category of a fake is its ImageNet class number. Counts are not compared, because the published ones are
    uncertain. Real images are JPEG and fake ones PNG of fixed sizes, which determines results on the raw files.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIGS = [
        RealFakeFolderConfig(name="default", version=VERSION, real="nature", fake="ai", prefix="genimage")
    ]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "GenImage"
    TERMS = "CC BY-NC-SA 4.0 and the terms of ImageNet: non-commercial research only."
    LAYOUT = "<generator>/[<inner folder>/]{train,val}/{ai,nature}/<image>"
    REMEDY = "Point data_dir at the folder above the generators (github.com/GenImage-Dataset/GenImage)."
    HOMEPAGE = "https://github.com/GenImage-Dataset/GenImage"
    LAYOUT_VERIFIED = False
    RESEARCH_ONLY = True

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per image; report missing generators and unknown folders."""
        splits = super().units(root)
        found = {unit.columns["manipulation"] for units in splits.values() for unit in units} - {"real"}
        unknown = sorted(str(name) for name in found - set(GENERATORS.values()))
        if unknown:
            self.report("warning", f"Folders that are not a generator of GenImage: {first_names(unknown)}.")
        absent = sorted(set(GENERATORS.values()) - found)
        if absent:
            self.report("warning", f"No images of {first_names(absent, limit=len(absent))}.")
        return splits

    def _generator(self, above: tuple[str, ...], below: tuple[str, ...], label: str) -> tuple[str | None, str | None]:
        if not above:
            return super()._generator(above, below, label)
        plain = "".join(character for character in above[0].casefold() if character.isalnum())
        return GENERATORS.get(plain, above[0]), None

    def _unit(self, path: Path, parts: tuple[str, ...], label: str, masks: dict[str, list[str]]) -> tuple[str, Unit]:
        split, unit = super()._unit(path, parts, label, masks)
        # 033_sdv4_00152.png: ImageNet class, generator, number. Photographs keep their ImageNet names.
        first = path.stem.split("_")[0]
        if label == "fake" and first.isdigit():
            unit.columns["category"] = first
        return split, unit
