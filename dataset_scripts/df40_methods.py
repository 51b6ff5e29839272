"""The forty methods of DF40, whose names differ between its paper, its folders and its lists."""

from __future__ import annotations

__all__ = ["ALIASES", "METHODS", "OWN_REALS", "method_name"]

FAMILIES = {
    "swap": "fsgan faceswap simswap inswap blendface uniface mobileswap e4s facedancer deepfacelab",
    "reenact": (
        "fomm facevid2vid wav2lip MRAA one_shot_free pirender tpsm lia danet sadtalker mcnet hyperreenact heygen"
    ),
    "synthesis": ("VQGAN StyleGAN2 StyleGAN3 StyleGANXL sd2.1 ddim RDDM PixArt DiT SiT MidJourney whichfaceisreal"),
    "edit": "CollabDiff e4e stargan starganv2 styleclip",
}
METHODS = {name: family for family, names in FAMILIES.items() for name in names.split()}
ALIASES = {"whichisreal": "whichfaceisreal", "dagan": "danet", "ddpm": "ddim"}  # files, folders and paper differ
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


def method_name(name: str) -> str | None:
    """The name of a method as in `METHODS`, from any of its spellings; `None` for no method."""
    plain = ALIASES.get(name.casefold(), name).casefold()
    return next((method for method in METHODS if method.casefold() == plain), None)
