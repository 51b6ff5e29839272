"""The 23 test sets of AntifakePrompt: one folder per set, each with one class.

Chang et al., "AntifakePrompt: Prompt-Tuned Vision-Language Models are Fake Image Detectors" (2023). Expected:

    <set>/.../<image>      3,000 images per set; in the published code the label is given per folder
"""

from __future__ import annotations

from pathlib import Path

import datasets

from ._builder import Unit
from ._class_folders import ClassFolders, ClassFoldersConfig, PictureSet
from ._files import first_names

__all__ = ["SETS", "AntifakePrompt"]

PICTURES_PER_SET = 3000
HELD_IN = frozenset({"COCO", "SD3", "SD2IP"})
READ_BY_OFFICIAL_CODE = (".jpg", ".jpeg", ".png")  # exactly as in the published code, which is case-sensitive
PUBLISHED = {
    "COCO": PictureSet("real", aliases=("coco_val", "coco2017")),
    "Flickr": PictureSet("real", aliases=("flickr30k",)),
    "SD2": PictureSet("fake", "synthesis", aliases=("stable_diffusion_2",)),
    "SD3": PictureSet("fake", "synthesis", aliases=("stable_diffusion_3",)),
    "SDXL": PictureSet("fake", "synthesis"),
    "IF": PictureSet("fake", "synthesis", aliases=("deepfloyd_if",)),
    "DALLE-2": PictureSet("fake", "synthesis"),
    "DALLE-3": PictureSet("fake", "synthesis"),
    "playground v2.5": PictureSet("fake", "synthesis", aliases=("playground",)),
    "DiffusionDB": PictureSet("fake", "synthesis"),
    "SGXL": PictureSet("fake", "synthesis", aliases=("stylegan_xl",)),
    "GLIDE": PictureSet("fake", "synthesis"),
    "ControlNet": PictureSet("fake", "edit", aliases=("stylization",)),
    "DeeperForensics": PictureSet("fake", "swap", aliases=("df",)),
    "DFDC": PictureSet("fake", "swap"),
    "FF++": PictureSet("fake", "swap", aliases=("faceforensics",)),
    "LaMa": PictureSet("fake", "inpaint"),
    "SD2IP": PictureSet("fake", "inpaint", aliases=("sd2_inpainting",)),
    "LIIF": PictureSet("fake", "edit"),
    "LTE": PictureSet("fake", "edit"),
    "SD2SR": PictureSet("fake", "edit", aliases=("sd2_superresolution",)),
    "Adversarial": PictureSet("fake", "edit", aliases=("adver", "adversarial_attack")),
    "Backdoor": PictureSet("fake", "edit", aliases=("backdoor_attack",)),
    "Data poisoning": PictureSet("fake", "edit", aliases=("poisoning", "data_poisoning_attack")),
}
SETS = {
    name: known._replace(category="held_in" if name in HELD_IN else "held_out") for name, known in PUBLISHED.items()
}


class AntifakePrompt(ClassFolders):
    """The test sets of AntifakePrompt, one class per folder; folders with other names never get a class.

    `category` says whether the published prompts were trained on images of this set (`held_in`) or not (`held_out`).
    Attacked photographs count as fake. The training images are not read, because their layout is not published.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIGS = [ClassFoldersConfig(name="default", version=VERSION, description="All available sets.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "AntifakePrompt"
    TERMS = (
        "The terms of each source apply; several (FaceForensics++, DFDC, DeeperForensics) allow only non-commercial "
        "research."
    )
    LAYOUT = f"<set>/.../<image>, with the sets {', '.join(SETS)}"
    REMEDY = "Point data_dir at the folder above the sets (github.com/nctu-eva-lab/AntifakePrompt)."
    HOMEPAGE = "https://github.com/nctu-eva-lab/AntifakePrompt"
    LAYOUT_VERIFIED = False

    PREFIX = "antifakeprompt"
    SETS = SETS

    def picture_units(self, root: Path, name: str, folder: Path, known: PictureSet) -> list[Unit]:
        """Return the images of one set; report differences from the published code."""
        units = super().picture_units(root, name, folder, known)
        if name in SETS and len(units) != PICTURES_PER_SET:
            self.report("warning", f"{name}: {len(units)} images, but {PICTURES_PER_SET} were published.")
        unseen = [Path(unit.path).name for unit in units if Path(unit.path).suffix not in READ_BY_OFFICIAL_CODE]
        if unseen:
            text = f"{name}: {len(unseen)} images that the published code skips: {first_names(unseen)}."
            self.report("warning", text)
        return units
