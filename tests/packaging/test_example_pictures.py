"""The committed example pictures are what `examples/make_forgeries.py` makes, and small enough for a repository."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PICTURES = EXAMPLES / "pictures"
MAX_BYTES = 100_000
JPEG_TOLERANCE = 2.0  # mean grey levels; another JPEG encoder rounds differently, another picture is far off


def load_script():
    spec = importlib.util.spec_from_file_location("make_forgeries", EXAMPLES / "make_forgeries.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """What the script makes today, after JPEG, as float arrays (height, width, 3)."""
    script = load_script()
    arrays = {}
    for name, picture in script.make_pictures().items():
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=script.JPEG_QUALITY, subsampling=0)
        arrays[name] = np.asarray(Image.open(buffer), dtype=float)
    return arrays


def committed(name: str) -> np.ndarray:
    return np.asarray(Image.open(PICTURES / name), dtype=float)


def test_the_script_makes_the_committed_pictures(made):
    assert sorted(made) == sorted(path.name for path in PICTURES.glob("*.jpg"))
    for name, array in made.items():
        assert array.shape == committed(name).shape, name
        assert np.abs(array - committed(name)).mean() < JPEG_TOLERANCE, name


def test_a_forgery_is_told_from_its_photograph_by_more_than_the_tolerance(made):
    """Otherwise the test above would pass with the two mixed up."""
    subjects = {name.split("_")[1].removesuffix(".jpg") for name in made}
    assert len(made) == 2 * len(subjects)
    for name in made:
        if name.startswith("fake_"):
            photograph = committed(f"real_{name.split('_')[1]}.jpg")
            changed = np.abs(committed(name) - photograph).max(axis=-1) > 12
            assert 0.02 < changed.mean() < 0.5, name  # a part of the picture, not all of it
            assert np.abs(committed(name) - photograph).mean() > JPEG_TOLERANCE, name


def test_pictures_are_small_and_each_is_documented():
    readme = (PICTURES / "README.md").read_text()
    for path in PICTURES.glob("*.jpg"):
        assert path.stat().st_size <= MAX_BYTES, path.name
        assert f"`{path.name}`" in readme
