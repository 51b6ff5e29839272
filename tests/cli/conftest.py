"""What a user of the command has at hand: a detector, a few pictures and a shell."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepfake_detectors_cli import app
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_m2f2_det(tmp_path_factory.mktemp("detector"), operating_points={"strict": 0.01, "fpr@1%": 0.99}))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with the pictures 0.png, 1.JPG and 2.webp, one more in a folder below, and things to be skipped."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name, picture in zip(("0.png", "1.JPG", "2.webp", "deeper/3.png"), random_pictures(4), strict=True):
        picture.save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture
def shell() -> Callable[..., object]:
    """`shell("detect", path)` gives exit_code, stdout and stderr."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
