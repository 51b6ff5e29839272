"""The 23 test sets of AntifakePrompt: one folder per set, each of one class.

Chang et al., "AntifakePrompt: Prompt-Tuned Vision-Language Models are Fake Image Detectors" (2023). Expected:

    <set>/.../<image>      3,000 images per set; the published code walks a folder and takes its label as given
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
READ_BY_OFFICIAL_CODE = (".jpg", ".jpeg", ".png")  # as written: it compares with case
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
    """The test sets of AntifakePrompt, each folder of one class; a folder of another name is never given a class.

    `category` says whether the published prompts were trained on images of this set (`held_in`) or not (`held_out`).
    Attacked photographs count as fake. The training images have no published layout and are not read.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIGS = [ClassFoldersConfig(name="default", version=VERSION, description="All sets that are there.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "AntifakePrompt"
    TERMS = (
        "Those of each source; several (FaceForensics++, DFDC, DeeperForensics) are for non-commercial research only."
    )
    LAYOUT = f"<set>/.../<image>, the sets being {', '.join(SETS)}"
    REMEDY = "Point data_dir at the folder above the sets (github.com/nctu-eva-lab/AntifakePrompt)."
    HOMEPAGE = "https://github.com/nctu-eva-lab/AntifakePrompt"
    LAYOUT_VERIFIED = False

    PREFIX = "antifakeprompt"
    SETS = SETS

    def picture_units(self, root: Path, name: str, folder: Path, known: PictureSet) -> list[Unit]:
        """The images of one set; says where the published code would read fewer, or found more."""
        units = super().picture_units(root, name, folder, known)
        if name in SETS and len(units) != PICTURES_PER_SET:
            self.report("warning", f"{name}: {len(units)} images, published are {PICTURES_PER_SET}.")
        unseen = [Path(unit.path).name for unit in units if Path(unit.path).suffix not in READ_BY_OFFICIAL_CODE]
        if unseen:
            text = f"{name}: {len(unseen)} images that the published code skips: {first_names(unseen)}."
            self.report("warning", text)
        return units
