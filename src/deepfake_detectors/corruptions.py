"""Corruptions that images go through when shared: named re-encodings with fixed parameters, and sets of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["ROBUSTNESS_SETS", "STABILITY_SET", "Corruption", "corruption", "corruption_set"]

Step = tuple[str, float]


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    pixels = transforms.jpeg(transforms.pil_to_tensor(image), int(quality))
    return transforms.to_pil_image(pixels)


def _webp(image: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=int(quality))
    return load_image(file.getvalue())


def _resize(image: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return transforms.resize(image, [height, width], InterpolationMode.BICUBIC, antialias=True)


def _fit(image: Image.Image, side: float) -> Image.Image:
    return image if max(image.size) <= side else _resize(image, side / max(image.size))


def _show(image: Image.Image, width: float) -> Image.Image:
    return _resize(image, width / image.width)


def _crop(image: Image.Image, share: float) -> Image.Image:
    width, height = (max(1, round(side * share)) for side in image.size)
    return transforms.center_crop(image, [height, width])


def _blur(image: Image.Image, sigma: float) -> Image.Image:
    # Three deviations to each side, but with reflected edges the kernel must fit into the image.
    reach = min(int(3 * sigma + 0.5), min(image.size) - 1)
    return transforms.gaussian_blur(image, [2 * reach + 1] * 2, [sigma, sigma]) if reach else image


def _noise(image: Image.Image, sigma: float, generator: torch.Generator) -> Image.Image:
    pixels = transforms.pil_to_tensor(image).float()
    noisy = pixels + sigma * torch.randn(pixels.shape, generator=generator)
    return transforms.to_pil_image(noisy.round().clamp(0, 255).to(torch.uint8))


def _gamma(image: Image.Image, gamma: float) -> Image.Image:
    return transforms.adjust_gamma(image, gamma)


def _flip(image: Image.Image, _: float) -> Image.Image:
    return transforms.horizontal_flip(image)


def _rotate(image: Image.Image, angle: float) -> Image.Image:
    return transforms.rotate(image, angle, InterpolationMode.BILINEAR)


RANDOM = frozenset({"noise"})  # operations that also take a generator

# Operation -> what does it, and in words; `{}` stands for its one parameter.
OPERATIONS: Mapping[str, tuple[Callable[..., Image.Image], str]] = {
    "jpeg": (_jpeg, "JPEG of quality {:g}"),
    "webp": (_webp, "WebP of quality {:g}"),
    "resize": (_resize, "both sides times {:g}, bicubic"),
    "fit": (_fit, "shrunk to a longer side of at most {:g} pixels, bicubic"),
    "show": (_show, "displayed {:g} pixels wide, bicubic, stored losslessly"),
    "crop": (_crop, "centre crop of {:g} of both sides"),
    "blur": (_blur, "Gaussian blur of {:g} pixels"),
    "noise": (_noise, "Gaussian noise, standard deviation {:g} of 255 levels"),
    "gamma": (_gamma, "gamma {:g}"),
    "flip": (_flip, "mirrored left to right"),
    "rotate": (_rotate, "rotated by {:g} degrees, with black corners"),
}
# Services do not publish how they process images, and change it, so these parameters are our own choice.
ROUND_TRIPS: Mapping[str, tuple[Step, ...]] = {
    "screenshot": (("show", 1080),),
    "messenger": (("fit", 1600), ("jpeg", 75)),
}


@dataclass(frozen=True)
class Corruption:
    """A corruption of images, always the same for the same image and seed.

    Attributes:
        name: such as `"jpeg-70"`.
        family: kind of corruption, such as `"jpeg"`; `"chain"` for several in a row.
        steps: operations from `OPERATIONS` with their parameters, in order.
    """

    name: str
    family: str
    steps: tuple[Step, ...]

    def apply(self, image: Image.Image, seed: int = 0, key: str = "") -> Image.Image:
        """Return the altered image.

        Args:
            image: an image of mode `RGB`.
            seed: seed of random operations.
            key: key of the image, such as its id, so that images get different noise.

        Returns:
            An image of mode `RGB`, possibly of another size.
        """
        drawn = int.from_bytes(sha256(f"{seed}\0{self.name}\0{key}".encode()).digest()[:8], "big") >> 1
        # Its own, not the one of the process: several threads may change pictures.
        generator = torch.Generator().manual_seed(drawn)
        for operation, parameter in self.steps:
            own = (generator,) if operation in RANDOM else ()
            image = OPERATIONS[operation][0](image, parameter, *own)
        return image

    def describe(self) -> str:
        """Return the steps in words."""
        return ", then ".join(OPERATIONS[operation][1].format(parameter) for operation, parameter in self.steps)


def corruption(name: str) -> Corruption:
    """Return a corruption by name: an operation with its parameter, a round trip, or several joined by `+`.

    Args:
        name: such as `"jpeg-70"`, `"resize-0.5"`, `"messenger"` or `"screenshot+messenger"`.

    Raises:
        ValueError: for an unknown name.
    """
    steps: list[Step] = []
    for part in name.split("+"):
        operation, dash, number = part.partition("-")
        if part in ROUND_TRIPS:
            steps += ROUND_TRIPS[part]
        elif part == "flip":
            steps.append(("flip", 1))
        elif operation in OPERATIONS and dash:
            steps.append((operation, _parameter(name, operation, number)))
        else:
            raise ValueError(
                f"{name!r} is not a corruption: expected an operation ({', '.join(OPERATIONS)}) with a number, such "
                f"as jpeg-70, a round trip ({', '.join(ROUND_TRIPS)}), or several of these joined by +."
            )
    first = name.partition("-")[0]
    return Corruption(name, "chain" if "+" in name else first, tuple(steps))


# Operation -> smallest and largest parameter.
LIMITS = {"jpeg": (1, 100), "webp": (1, 100), "crop": (0.05, 1), "resize": (0.05, 4), "gamma": (0.1, 10)}
LIMITS |= {"blur": (0.1, 50), "noise": (0.1, 255), "rotate": (-180, 180), "fit": (16, 10000), "show": (16, 10000)}


def _parameter(name: str, operation: str, text: str) -> float:
    low, high = LIMITS.get(operation, (1, 1))
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise ValueError(f"{name!r}: {operation} takes a number from {low:g} to {high:g}, got {text!r}.")
    return number


ROBUSTNESS_SETS: Mapping[str, tuple[str, ...]] = {
    "light": (
        "jpeg-70",
        "jpeg-30",
        "webp-50",
        "resize-0.5",
        "crop-0.8",
        "blur-2",
        "noise-10",
        "messenger",
        "screenshot+messenger",
    ),
    "full": (
        *(f"jpeg-{quality}" for quality in (90, 80, 70, 60, 50, 40, 30)),
        *(f"webp-{quality}" for quality in (90, 70, 50, 30)),
        *(f"resize-{factor}" for factor in (0.25, 0.5, 0.75, 1.5, 2)),
        *(f"crop-{share}" for share in (0.9, 0.8, 0.6)),
        *(f"blur-{sigma}" for sigma in (1, 2, 3)),
        *(f"noise-{sigma}" for sigma in (5, 10, 20)),
        *(f"gamma-{gamma}" for gamma in (0.7, 1.5)),
        "screenshot",
        "messenger",
        "resize-0.5+jpeg-70",
        "messenger+messenger",
        "screenshot+messenger",
        "screenshot+messenger+crop-0.9+messenger",
    ),
    # Table 7 of the FakeVLM paper only lists kinds and numbers; this is our interpretation of noise and blur.
    "fakevlm-table7": (
        "jpeg-70",
        "jpeg-80",
        "resize-0.5",
        "resize-0.75",
        "noise-10",
        "noise-5",
        "flip",
        "rotate-15",
        "blur-3",
    ),
}
# What an examination also scores in addition to the image itself: common effects of sharing.
STABILITY_SET = ("jpeg-90", "jpeg-70", "resize-0.75", "messenger")


@cache
def corruption_set(name: str) -> tuple[Corruption, ...]:
    """Return the corruptions of a set.

    Args:
        name: key of `ROBUSTNESS_SETS`, or names of corruptions joined by commas.

    Raises:
        ValueError: for an unknown name, or a duplicate corruption.
    """
    if name in ROBUSTNESS_SETS:
        return tuple(corruption(part) for part in ROBUSTNESS_SETS[name])
    names = [part.strip() for part in name.split(",")]
    if len(set(names)) < len(names):
        raise ValueError(f"{name!r} contains a corruption twice.")
    try:
        return tuple(corruption(part) for part in names)
    except ValueError as error:
        raise ValueError(f"{error} Available sets are {', '.join(ROBUSTNESS_SETS)}.") from error
