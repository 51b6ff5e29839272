"""Families that other packages add: they work everywhere without an edit here, and cannot break the import."""

import json
from pathlib import Path

import pytest
from PIL import Image

from support.plugins import install, install_toy_family, run_python

pytestmark = pytest.mark.slow

# Builds a detector whose P(fake) is sigmoid(20 * brightness - 10), and uses it through every public door.
PROGRAM = """
import json, sys, torch, transformers
import deepfake_detectors as dfd
from transformers import AutoConfig, AutoModel, AutoProcessor

kind, folder = sys.argv[1], sys.argv[2]
family = dfd.FAMILIES[kind]
model = family.load("verdict")(family.load("config")())
with torch.no_grad():
    model.head.weight.copy_(torch.tensor([[0.0], [20.0]]))
    model.head.bias.copy_(torch.tensor([0.0, -10.0]))
model.save_pretrained(folder)
family.load("processor")(family.load("image_processor")()).save_pretrained(folder)

detector = dfd.pipeline(model=folder)
stock = transformers.pipeline("deepfake-detection", model=folder)
rows = detector(["dark.png", "bright.png"], localize=detector.model.can_localize or None)
masks = [row.pop("mask") for row in rows]
print(json.dumps({
    "plugin": family.plugin,
    "classes": [type(found).__name__ for found in (
        AutoConfig.from_pretrained(folder), AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder),
        dfd.AutoModelForDeepfakeDetection.from_pretrained(folder), stock.model,
    )],
    "rows": rows,
    "masks": [mask and [list(mask.size), mask.getpixel((0, 0))] for mask in masks],
    "info": dfd.model_info(folder),
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install_toy_family(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name, level in (("dark", 10), ("bright", 250)):
        Image.new("RGB", (40, 30), (level,) * 3).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module", params=["toy", "toy_mask"])
def saved(request, site, place) -> tuple[str, dict]:
    """The name of the family, whose detector is in the folder of that name, and what the library said of it."""
    done = run_python(site, "-c", PROGRAM, request.param, request.param, cwd=place)
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout)


def command(site: Path, place: Path, *arguments: str):
    return run_python(site, "-m", "deepfake_detectors_cli", *arguments, cwd=place)


def test_auto_classes_and_pipelines_know_it(saved) -> None:
    name, found = saved
    prefix = {"toy": "Toy", "toy_mask": "ToyMask"}[name]
    verdict = f"{prefix}ForDeepfakeDetection"
    assert found["classes"] == [f"{prefix}Config", verdict, "ToyProcessor", verdict, verdict]
    assert [row["label"] for row in found["rows"]] == ["real", "fake"]
    assert found["rows"][0]["fake_probability"] < 0.01 < 0.99 < found["rows"][1]["fake_probability"]
    assert found["masks"] == ([None, None] if name == "toy" else [[[40, 30], 10], [[40, 30], 250]])
    assert found["plugin"] == {"toy": "toy_family:TOY", "toy_mask": "toy_family:TOY_MASK"}[name]


def test_model_info_describes_it(saved) -> None:
    name, found = saved
    assert (found["info"]["family"], found["info"]["explains"]) == (name, False)
    assert (found["info"]["localizes"], found["info"]["parameters"]) == (name == "toy_mask", 4)


def test_info_lists_it(site, place) -> None:
    done = command(site, place, "info")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plugins"] == [
        {"name": "toy", "package": "toy-family"},
        {"name": "toy_mask", "package": "toy-family"},
    ]


def test_detect_command(saved, site, place) -> None:
    name, found = saved
    masks = ["--save-masks", "masks"] if name == "toy_mask" else []
    done = command(site, place, "detect", "dark.png", "bright.png", "--model", name, *masks)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["fake_probability"] for row in rows] == pytest.approx(
        [row["fake_probability"] for row in found["rows"]]
    )
    if masks:
        assert Image.open(place / rows[1]["mask"]).getpixel((0, 0)) == 250


def test_evaluate_command(saved, site, place) -> None:
    name, _ = saved
    for kind, picture in (("real", "dark.png"), ("fake", "bright.png")):
        (place / kind).mkdir(exist_ok=True)
        (place / kind / picture).write_bytes((place / picture).read_bytes())
    folders = ("--real-dir", "real", "--fake-dir", "fake")
    done = command(site, place, "evaluate", "--model", name, *folders, "--output", f"report-{name}")
    assert done.returncode == 0, done.stderr
    results = json.loads((place / f"report-{name}" / "results.json").read_text())
    assert results["model_type"] == name
    assert results["metrics"]["accuracy"]["value"] == 1.0


def test_publish_dry_run(saved, site, place) -> None:
    """The plug-in brings the facts for the card in a file of its own."""
    name, _ = saved
    request = ("--model", name, "--repo", f"me/{name}", "--without-results", "--dry-run", f"published-{name}")
    done = command(site, place, "publish", *request)
    assert done.returncode == 0, done.stderr
    folder = place / f"published-{name}"
    assert json.loads((folder / "config.json").read_text())["model_type"] == name
    assert "judges by brightness" in (folder / "README.md").read_text()


ROW = dict.fromkeys(("config", "verdict", "processor", "image_processor"), "toy_family.modeling:ToyConfig")
ROW |= {"title": "X", "judges": "faces"}
BROKEN = {
    "raises_on_import": "raise RuntimeError('half installed')",
    "lacks_keys": "ROW = {'title': 'X'}",
    "unknown_key": f"ROW = {ROW | {'colour': 'red'}}",
    "no_such_module": f"ROW = {ROW | {'config': 'module_that_is_absent:Config'}}",
    "another_model_type": f"ROW = {ROW}",
    "cannot_detect": f"ROW = {ROW | {'config': 'cannot_detect_config:Config'}}",
    "not_a_mapping": "ROW = 3",
    "fakevlm": f"ROW = {ROW}",  # this package has a family of that name
}


def test_broken_plugins_are_left_out_by_name(tmp_path) -> None:
    for name, code in BROKEN.items():
        install(tmp_path, f"package_{name}", {name: f"package_{name}:ROW"}, code)
    (tmp_path / "cannot_detect_config.py").write_text(
        "from transformers import PreTrainedConfig\n\nclass Config(PreTrainedConfig): model_type = 'cannot_detect'"
    )
    install_toy_family(tmp_path)
    program = (
        "from toy_family.modeling import ToyForDeepfakeDetection\n"  # first: registered all the same
        "import deepfake_detectors, json; print(json.dumps(list(deepfake_detectors.FAMILIES)))"
    )
    done = run_python(tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    families = json.loads(done.stdout)
    assert {"fakevlm", "m2f2_det", "toy", "toy_mask"} <= set(families)
    assert set(families) & set(BROKEN) == {"fakevlm"}
    for name in BROKEN:
        assert done.stderr.count(f"package_{name}:ROW") == 1, done.stderr
    assert "toy_family:" not in done.stderr
