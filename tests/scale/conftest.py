"""Pictures and a tiny detector for `score`."""

from pathlib import Path

import pytest

from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_m2f2_det(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def second_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_m2f2_det(tmp_path_factory.mktemp("second"), seed=7)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine different pictures, one of them twice, and one that is not a picture."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, picture in enumerate(random_pictures(9)):
        picture.save(folder / ("deep" if number > 6 else "") / f"{number}.png")
    (folder / "copy of 0.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder
