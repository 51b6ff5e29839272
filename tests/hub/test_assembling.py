"""By which doors of transformers a published folder loads, for every class of every family."""

import json
import sys

import pytest
import transformers

from deepfake_detectors.families import FAMILIES
from deepfake_detectors.hub.assembling import Base, add_code, assemble
from support.tiny_clip_probe import tiny_clip_probe
from support.tiny_models import (
    tiny_antifakeprompt,
    tiny_chat_vlm,
    tiny_fakevlm,
    tiny_lvlm_dfd,
    tiny_lvlm_dfd_llm,
    tiny_m2f2_det,
    tiny_m2f2_det_llm,
)

TINY = {
    "M2F2DetForDeepfakeDetection": tiny_m2f2_det,
    "M2F2DetForConditionalGeneration": tiny_m2f2_det_llm,
    "FakeVLMForDeepfakeDetection": tiny_fakevlm,
    "AntifakePromptForDeepfakeDetection": tiny_antifakeprompt,
    "LvlmDfdForDeepfakeDetection": tiny_lvlm_dfd,
    "LvlmDfdForConditionalGeneration": tiny_lvlm_dfd_llm,
    "ClipProbeForDeepfakeDetection": tiny_clip_probe,
    "ChatVlmForDeepfakeDetection": tiny_chat_vlm,
}
DOORS = {
    "ChatVlmForDeepfakeDetection": {},  # every door of its stock class opens without code
    "ClipProbeForDeepfakeDetection": {
        "AutoModelForImageClassification": "modeling_clip_probe.ClipProbeForDeepfakeDetection",
    },
    "M2F2DetForDeepfakeDetection": {
        "AutoModelForImageClassification": "modeling_m2f2_det.M2F2DetForDeepfakeDetection",
    },
    "M2F2DetForConditionalGeneration": {
        "AutoModelForImageTextToText": "modeling_m2f2_det_llm.M2F2DetForConditionalGeneration",
        "AutoModelForImageClassification": "modeling_m2f2_det.M2F2DetForDeepfakeDetection",
    },
    "FakeVLMForDeepfakeDetection": {"AutoModelForImageTextToText": "modeling_fakevlm.FakeVLMForDeepfakeDetection"},
    "AntifakePromptForDeepfakeDetection": {},
    "LvlmDfdForDeepfakeDetection": {},
    "LvlmDfdForConditionalGeneration": {
        "AutoModelForImageTextToText": "modeling_lvlm_dfd_llm.LvlmDfdForConditionalGeneration",
    },
}
OWN = {"AutoConfig", "AutoModel"}


def own_classes():
    """Of the families in families.toml that have a model class of their own."""
    rows = [row for row in FAMILIES.values() if row.config.startswith("deepfake_detectors.")]
    return {cls.__name__ for row in rows for cls in row.model_classes if row.converter is not None}


def test_every_class_is_tried():
    assert own_classes() <= set(TINY)
    assert set(TINY) == set(DOORS)


@pytest.mark.parametrize("name", TINY)
def test_doors(name, tmp_path):
    source, target = TINY[name](tmp_path / "model"), tmp_path / "published"
    target.mkdir()
    found = assemble(source, target)
    assert found.class_name == name and not found.adapter
    auto_map = json.loads((target / "config.json").read_text())["auto_map"]
    assert {door: reference for door, reference in auto_map.items() if door not in OWN} == DOORS[name]
    for reference in auto_map.values():
        file, _, class_name = reference.partition(".")
        assert f"class {class_name}(" in (target / f"{file}.py").read_text()
    for door, reference in DOORS[name].items():
        loaded = getattr(transformers, door).from_pretrained(target, trust_remote_code=False)
        assert type(loaded).__name__ == reference.partition(".")[2]


def test_code_of_another_package_comes_from_its_own_folder(tmp_path, monkeypatch):
    package = tmp_path / "other_detector"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "words.py").write_text("WORDS = ()\n")
    (package / "toy.py").write_text("from .words import WORDS\n\n\nclass Toy:\n    words = WORDS\n")
    (package / "stranger.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    from other_detector.toy import Toy

    (tmp_path / "target").mkdir()
    assert add_code(tmp_path / "target", {"AutoModel": Toy}) == {"AutoModel": "toy.Toy"}
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["toy.py", "words.py"]
    for module in [name for name in sys.modules if name.startswith("other_detector")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("me/base", Base("me/base")), ("me/base@v1.0", Base("me/base", "v1.0")), ("me/base@", Base("me/base"))],
)
def test_base(text, expected):
    assert Base.parse(text) == expected


@pytest.mark.parametrize("text", ["", "a/b/c", "../base", "me/ba se"])
def test_base_that_is_no_hub_id(text):
    with pytest.raises(ValueError, match="`base`"):
        Base.parse(text)
