"""`info` as a user types it."""

import json
import shutil
from pathlib import Path

import pytest

from deepfake_detectors import FAMILIES, model_info
from deepfake_detectors.checkpoints import BUILT_IN, DEFAULT
from deepfake_detectors_cli.tables import list_checkpoints, list_families, read_table

CARD = """---
license: other
license_name: research-only
---

# A tiny detector

![picture](x.png)

Trained on nothing,
so it knows nothing.

More text.
"""


@pytest.fixture
def with_card(model: str, tmp_path: Path) -> Path:
    folder = tmp_path / "with_card"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text(CARD)
    return folder


def test_facts(shell, model: str) -> None:
    result = shell("info", "--model", model)
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    weights = facts.pop("parameters")
    assert facts == {
        "model": model,
        "family": "m2f2_det",
        "class": "M2F2DetForDeepfakeDetection",
        "explains": False,
        "localizes": False,
        "converses": False,
        "dtype": "float32",
        "operating_points": {"strict": 0.01, "fpr@1%": 0.99},
        "calibration": {"scale": 1.0, "bias": 0.0},
        "license": None,
        "license_notice": None,
        "summary": None,
    }
    from transformers import AutoModel

    assert weights == sum(parameter.numel() for parameter in AutoModel.from_pretrained(model).parameters())


def test_card(shell, with_card: Path) -> None:
    facts = json.loads(shell("info", "-m", with_card).stdout)
    assert facts["license"] == "research-only"
    assert facts["summary"] == "Trained on nothing, so it knows nothing."


def test_table(shell, with_card: Path) -> None:
    result = shell("info", "-m", with_card, "--format", "table")
    lines = {line[:16].strip(): line[16:].strip() for line in result.stdout.splitlines()}
    assert lines["explains"] == "no"
    assert lines["operating points"] == "fpr@1% 0.99, strict 0.01"
    assert lines["license"] == "research-only"


def test_wrong_model(shell, tmp_path: Path) -> None:
    result = shell("info", "-m", tmp_path / "absent")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1


# ---- without a model ------------------------------------------------------------------------------------------------


def test_families_and_built_in_checkpoints_are_listed(shell) -> None:
    found = json.loads(shell("info").stdout)
    assert found == {"families": list_families(), "plugins": [], "checkpoints": list_checkpoints()}
    own = {name: family for name, family in FAMILIES.items() if family.plugin is None}
    assert [row["name"] for row in found["families"]] == list(own) == list(read_table("families"))
    for row, family in zip(found["families"], own.values(), strict=True):
        assert (row["title"], row["judges"], row["paper"]) == (family.title, family.judges, family.paper)
        assert row["writes_text"] == (family.generation is not None)
        assert row["official"] == [dict(item) for item in family.official]
    assert sorted(row["name"] for row in found["checkpoints"]) == sorted(BUILT_IN)


def test_the_list_as_a_table(shell) -> None:
    result = shell("info", "--format", "table")
    assert result.exit_code == 0
    for word in (*FAMILIES, *BUILT_IN, "lingcco/fakeVLM"):
        assert word in result.stdout


def test_a_built_in_checkpoint_by_name(shell) -> None:
    facts = json.loads(shell("info", "--model", DEFAULT).stdout)
    assert facts == model_info() == model_info(DEFAULT)
    assert facts["explains"] is False and facts["license"]
    assert model_info("m2f2-det-mini")["explains"] is True
