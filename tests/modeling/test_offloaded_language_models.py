"""Weights in main memory or on disk: verdict and explanation of the language models stay what they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoModel, AutoProcessor

import deepfake_detectors  # noqa: F401 - registers the families
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from support.pictures import random_pictures
from support.tiny_models import tiny_antifakeprompt, tiny_fakevlm, tiny_lvlm_dfd_llm, tiny_m2f2_det_llm

MODELS = {
    "m2f2_det": tiny_m2f2_det_llm,
    "fakevlm": tiny_fakevlm,
    "antifakeprompt": tiny_antifakeprompt,
    "lvlm_dfd": tiny_lvlm_dfd_llm,
}
Row = dict[str, Any]


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp("models") / "model")


def judged(folder: Path, model: Any) -> list[Row]:
    processor = AutoProcessor.from_pretrained(folder)
    judge = DeepfakeDetectionPipeline(model=model.eval(), processor=processor)
    return judge(random_pictures(2), batch_size=2, explain=True, generate_kwargs={"max_new_tokens": 4})


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Row]:
    return judged(folder, AutoModel.from_pretrained(folder))


def assert_equal(found: list[Row], expected: list[Row]) -> None:
    assert [row["explanation"] for row in found] == [row["explanation"] for row in expected]
    scores = [row["fake_probability"] for row in expected]
    assert [row["fake_probability"] for row in found] == pytest.approx(scores, abs=1e-5)


def test_parts_on_disk(folder: Path, expected: list[Row], tmp_path: Path) -> None:
    whole = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    found = AutoModel.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": whole // 2}, offload_folder=str(tmp_path)
    )
    assert {str(place) for place in found.hf_device_map.values()} == {"cpu", "disk"}
    assert_equal(judged(folder, found), expected)


def test_all_in_main_memory_until_needed(folder: Path, expected: list[Row]) -> None:
    model = AutoModel.from_pretrained(folder)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert next(model.parameters()).device.type == "meta"
    assert_equal(judged(folder, model), expected)
