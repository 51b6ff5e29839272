"""A chat model is measured and calibrated as any detector, and its folder stays one of its stock class."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText

from deepfake_detectors import evaluate, pipeline
from support.tiny_models import tiny_chat_vlm


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, low in (("real", 0), ("fake", 100)):
        (root / name).mkdir()
        for index in range(12):
            pixels = generator.integers(low, low + 150, (64, 56 + index, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_measured_and_calibrated(pictures, tmp_path):
    folder = tiny_chat_vlm(tmp_path / "model")
    options = {"real_dir": pictures / "real", "fake_dir": pictures / "fake", "resamples": 20, "batch_size": 5}
    results = evaluate(folder, **options, fit="temperature", save_to=tmp_path / "fitted")
    assert 0 <= results.metrics["auc"]["value"] <= 1
    fields = json.loads((tmp_path / "fitted" / "config.json").read_text())
    assert (fields["model_type"], fields["detector_family"]) == ("qwen3_vl", "chat_vlm")
    scale = fields["calibration"]["scale"]
    assert scale != 1.0
    rows = [pipeline(model=path)(str(pictures / "real" / "0.png")) for path in (folder, tmp_path / "fitted")]
    before, after = (np.log(row["fake_probability"] / (1 - row["fake_probability"])) for row in rows)
    assert after == pytest.approx(scale * before, rel=1e-3)
    AutoModelForImageTextToText.from_pretrained(tmp_path / "fitted")
