"""The files that a person examines, and detectors that judge them."""

from pathlib import Path
from typing import Any

import pytest

from deepfake_detectors.examination.judging import Judge
from support.examination_files import background, ddvqa_crops, drawing, face_clip, scene

BAND = {
    "low": 0.3,
    "high": 0.6,
    "fitted_on": "pictures of a test",
    "false_alarm_rate": 0.05,
    "miss_rate": 0.12,
    "coverage": 0.61,
}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A picture with three faces (the middle one is a fake of DD-VQA), one without a face, a drawing, and a clip."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("files")
    real, fake = ddvqa_crops("real", 3), ddvqa_crops("fake", 1)
    scene([real[0], fake[0], real[1]]).save(folder / "three <faces> & more.jpg", quality=92)
    background().save(folder / "landscape.jpg", quality=92)
    drawing().save(folder / "drawing.png")
    face_clip(folder / "clip.mp4", [real[0], fake[0]])
    return {path.stem.split()[0]: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def judge() -> Judge:
    """The embedded M2F2-Det, which judges faces and was never given a decision band."""
    return Judge("m2f2-det-mini")


@pytest.fixture
def calibrated(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """The same with a decision band."""
    monkeypatch.setattr(judge.pipeline.model.config, "decision_band", dict(BAND), raising=False)
    return judge


@pytest.fixture(scope="session")
def clip_examination(files: dict[str, Path], judge: Judge) -> Any:
    """Of the clip, six frames."""
    from deepfake_detectors.examination.examine import examine

    return examine(files["clip"], judge, frames=6)
