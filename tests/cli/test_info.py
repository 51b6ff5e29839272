"""`info` as a user types it."""

import json
import shutil
from pathlib import Path

import pytest

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
