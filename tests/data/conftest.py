"""A small folder of real and fake pictures, and its builder."""

import pytest

from deepfake_detectors.data.registry import make_builder
from support.folder_tree import save


@pytest.fixture
def raw(tmp_path):
    for split in ("train", "test"):
        for number in range(4):
            save(tmp_path / "raw" / split / "real" / f"{split}{number}.jpg")
            save(tmp_path / "raw" / split / "fake" / "gan" / f"{split}{number}.png")
    return tmp_path / "raw"


@pytest.fixture
def open_builder(raw):
    def run(**options):
        return make_builder("image_folder", raw, "real_fake", options)

    return run
