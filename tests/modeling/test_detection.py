"""The contract itself: what a class says of itself, and how a checkpoint that cannot be loaded is refused."""

import json
import pickle

import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from deepfake_detectors.families import FAMILIES
from deepfake_detectors.modeling.detection import UnconvertedCheckpointError, require_ability
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from support.tiny_models import m2f2_det, tiny_antifakeprompt, tiny_fakevlm, tiny_lvlm_dfd_llm, tiny_m2f2_det_llm

SUBJECTS = {"faces": "faces", "any picture": "picture"}  # `judges` in families.toml -> `subject` of the classes
FAMILY_CLASSES = [
    M2F2DetForDeepfakeDetection,
    FakeVLMForDeepfakeDetection,
    AntifakePromptForDeepfakeDetection,
    LvlmDfdForDeepfakeDetection,
]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_classes_judge_what_the_table_says(family):
    assert {cls.subject for cls in family.model_classes} == {SUBJECTS[family.judges]}


@pytest.mark.parametrize("ability", ["explain", "localize"])
def test_a_missing_ability_names_the_families_that_have_it(ability):
    with pytest.raises(ValueError) as caught:
        require_ability(m2f2_det(), ability)
    for family in FAMILIES.values():
        able = any(getattr(cls, f"can_{ability}") for cls in family.model_classes)
        assert (f"{family.name} (" in str(caught.value)) == able, family.name
    assert "PreTrainedModel" not in str(caught.value)


@pytest.mark.parametrize("cls", [*FAMILY_CLASSES, ImageBindModel], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_official_files_have_to_be_converted(cls, as_folder, tmp_path):
    torch.save({}, tmp_path / "official.pth")
    source = tmp_path if as_folder else tmp_path / "official.pth"
    with pytest.raises(UnconvertedCheckpointError) as caught:
        cls.from_pretrained(source)
    assert isinstance(caught.value, ValueError)
    assert caught.value.family == cls.config_class.model_type
    assert caught.value.source == str(source)
    assert f"convert({caught.value.family!r}, {str(source)!r}, output)" in str(caught.value)


@pytest.mark.parametrize("cls", FAMILY_CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("field", ["mm_projector_type", "mm_vision_tower"])
def test_folders_of_the_original_llava_code_have_to_be_converted(cls, field, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", field: "mlp2x_gelu"}))
    with pytest.raises(UnconvertedCheckpointError) as caught:
        cls.from_pretrained(tmp_path)
    assert caught.value.family == cls.config_class.model_type


def test_a_folder_of_another_family_is_no_unconverted_one(tmp_path):
    m2f2_det().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="m2f2_det") as caught:
        LvlmDfdForDeepfakeDetection.from_pretrained(tmp_path)
    assert not isinstance(caught.value, UnconvertedCheckpointError)


@pytest.mark.parametrize("family", ["m2f2_det", None])
def test_unconverted_errors_cross_processes(family):
    error = UnconvertedCheckpointError("x.pth is an official file.", family, "x.pth")
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), found.fault, found.family, found.source) == (type(error), error.fault, family, "x.pth")
    assert str(found) == str(error)


@pytest.mark.parametrize("make", [tiny_m2f2_det_llm, tiny_fakevlm, tiny_antifakeprompt, tiny_lvlm_dfd_llm])
def test_nothing_asks_whether_a_folder_may_run_its_code(make, tmp_path, monkeypatch):
    """A tokenizer class of the folder's own: refused or passed over, and no question on standard input."""
    make(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}, "tokenizer_class": "Evil"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))

    def ask(*_):
        raise AssertionError("asked on standard input")

    monkeypatch.setattr("builtins.input", ask)
    family = FAMILIES[AutoConfig.from_pretrained(tmp_path, trust_remote_code=False).model_type]
    for load in (
        family.load("processor").from_pretrained,
        lambda source: AutoProcessor.from_pretrained(source, trust_remote_code=False),
    ):
        try:
            load(tmp_path)
        except ValueError as error:
            assert "trust_remote_code" in str(error)
    assert not marker.exists()
