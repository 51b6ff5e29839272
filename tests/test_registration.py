"""What importing the package registers with transformers."""

from pathlib import Path

import pytest
import transformers
from transformers import CONFIG_MAPPING, AutoModel, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from deepfake_detectors import FAMILIES, AutoModelForDeepfakeDetection
from deepfake_detectors.registration import _AutoDetector
from support.tiny_models import tiny_lvlm_dfd, tiny_m2f2_det, tiny_m2f2_det_llm

FOLDERS = {
    "M2F2DetForDeepfakeDetection": tiny_m2f2_det,
    "M2F2DetForConditionalGeneration": tiny_m2f2_det_llm,
    "LvlmDfdForDeepfakeDetection": tiny_lvlm_dfd,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_behind_the_auto_classes(name: str) -> None:
    family = FAMILIES[name]
    config = CONFIG_MAPPING[name]
    assert config is family.load("config")
    assert AutoModelForDeepfakeDetection._model_mapping[config] is family.load("verdict")
    assert AutoModel._model_mapping[config] == family.model_classes
    for door, role in family.doors.items():
        assert getattr(transformers, door)._model_mapping[config] is family.load(role)


@pytest.mark.parametrize("expected", FOLDERS)
def test_the_stock_pipeline_loads_the_saved_class_once(
    expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FOLDERS[expected](tmp_path)
    loaded = []
    original = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def counting(cls, *args, **kwargs):
        loaded.append(cls.__name__)
        return original(cls, *args, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counting))
    detector = transformers.pipeline("deepfake-detection", model=str(folder))
    assert type(detector.model).__name__ == expected
    assert loaded == [expected]


def test_a_stock_model_keeps_its_language_head_in_the_pipeline() -> None:
    assert _AutoDetector._model_mapping[LlavaConfig] is LlavaForConditionalGeneration
