"""Pictures for model tests."""

import numpy as np
from PIL import Image


def random_pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise pictures of different sizes."""
    generator = np.random.default_rng(seed)
    return [
        Image.fromarray(generator.integers(0, 256, (60 + 11 * i, 90 - 7 * i, 3), dtype=np.uint8)) for i in range(count)
    ]
