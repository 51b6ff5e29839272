"""Official Hub ids of the layout that the library reads: loaded by their id alone, without a conversion."""

import json

import pytest
import torch
from typer.testing import CliRunner

import deepfake_detectors as dfd
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors_cli import app
from support.fakevlm_folders import write_stock_folder
from support.golden_files import golden_folder
from support.hub_server import use_hub
from support.pictures import random_pictures

OFFICIAL = "lingcco/fakeVLM"


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return write_stock_folder(golden_folder("fakevlm"), tmp_path_factory.mktemp("stock"))


@pytest.fixture
def hub(stock, monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as server:
        for name in (OFFICIAL, "somebody/copy"):
            repository = server.repositories.create("model", name)
            repository.add_commit({path.name: path.read_bytes() for path in stock.iterdir()}, "weights")
        yield server


def test_fakevlm_is_loaded_by_its_id(hub, stock, tmp_path):
    picture = random_pictures(1)[0]
    detector = dfd.pipeline(model=OFFICIAL)
    assert type(detector.model) is FakeVLMForDeepfakeDetection
    row = detector(picture)
    model = FakeVLMForDeepfakeDetection.from_pretrained(stock)
    pixels = detector.processor(images=picture)["pixel_values"]
    assert torch.equal(detector.model.detect(pixels).logits, model.detect(pixels).logits)
    assert row["fake_probability"] == pytest.approx(model.detect(pixels).fake_probability.item(), abs=1e-6)

    picture.save(tmp_path / "face.png")
    command = ["detect", str(tmp_path / "face.png"), "--format", "json", "--model"]
    shown = CliRunner().invoke(app, [*command, OFFICIAL])
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["fake_probability"] == pytest.approx(row["fake_probability"], abs=1e-6)
    # The same files under another id are anybody's Llava; said whose they are, they are FakeVLM.
    refused = CliRunner().invoke(app, [*command, "somebody/copy"])
    assert refused.exit_code != 0 and "fakevlm" in refused.stderr
    named = CliRunner().invoke(app, [*command, "somebody/copy", "--family", "fakevlm"])
    assert named.exit_code == 0, named.stderr
    assert json.loads(named.stdout)["fake_probability"] == pytest.approx(row["fake_probability"], abs=1e-6)
    assert dfd.model_info(OFFICIAL)["family"] == "fakevlm"
