"""What parity tests of every family need."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import nn


def to_pictures(images_u8: torch.Tensor) -> list[Image.Image]:
    """(batch, 3, height, width) uint8 to PIL pictures."""
    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in images_u8]


@contextmanager
def outputs_of(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Collect what the named sub-modules return, call by call."""
    kept: dict[str, list[torch.Tensor]] = defaultdict(list)

    def keep(name: str):
        return lambda module, args, output: kept[name].append(output)

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def assert_within(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert tuple(actual.shape) == tuple(expected.shape)
    difference = (actual.detach().double() - expected.double()).abs().max().item()
    assert difference <= tolerance, f"largest difference {difference:.3g}, allowed {tolerance:.3g}"
