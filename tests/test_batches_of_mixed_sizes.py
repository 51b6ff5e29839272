"""Pictures whose prompts differ in length, judged in one batch by everything that judges: as each of them alone."""

import numpy as np
import pytest
from PIL import Image

import deepfake_detectors as dfd
from deepfake_detectors.examination.judging import Judge
from support.tiny_models import tiny_chat_vlm

SIZES = [(64, 64), (120, 56), (40, 150), (90, 90)]


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Judge:
    return Judge(tiny_chat_vlm(tmp_path_factory.mktemp("model") / "chat", "qwen2_5_vl"), batch_size=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def alone(judge, photos) -> list[float]:
    found = [judge.pipeline(str(photos / f"{number}.png"))["fake_probability"] for number in range(len(SIZES))]
    assert max(found) - min(found) > 1e-3, "equal verdicts could not show a mixed-up batch"
    return found


def test_the_prompts_differ_in_length(judge) -> None:
    (reading,) = judge.readings()
    lengths = {judge.prepare(Image.new("RGB", size), reading)["input_ids"].shape[1] for size in SIZES}
    assert len(lengths) > 2


def test_the_pipeline(judge, photos, alone) -> None:
    paths = [str(photos / name) for name in ("0.png", "1.png", "broken.png", "2.png", "3.png")]
    rows = judge.pipeline(paths, batch_size=5, on_error="record")
    assert "error" in rows.pop(2)
    assert [row["fake_probability"] for row in rows] == pytest.approx(alone, abs=1e-5)


def test_score(judge, photos, alone, tmp_path) -> None:
    model = judge.pipeline.model.name_or_path
    rows = dfd.score(photos, tmp_path / "out", model=model, batch_size=3, device="cpu").read().to_pylist()
    assert sum(row["error"] is not None for row in rows) == 1
    found = {row["id"]: row["fake_probability"] for row in rows if row["error"] is None}
    assert [found[f"{number}.png"] for number in range(len(SIZES))] == pytest.approx(alone, abs=1e-5)


def test_an_examination(judge, photos, alone) -> None:
    (reading,) = judge.readings()
    prepared = [judge.prepare(Image.open(photos / f"{number}.png"), reading) for number in range(len(SIZES))]
    pairs = judge.logits(prepared, reading)
    assert [1 / (1 + np.exp(real - fake)) for real, fake in pairs] == pytest.approx(alone, abs=1e-5)
    result = dfd.examine(photos / "1.png", judge, checks=False)
    assert result.fake_probability == pytest.approx(alone[1], abs=1e-5)
