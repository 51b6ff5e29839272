"""`family` says what a stock Llava folder holds, wherever a model is named; else it would be asked as a chat model."""

import json

import pytest
from typer.testing import CliRunner

import deepfake_detectors as dfd
from deepfake_detectors.app.models import Models
from deepfake_detectors.evaluation.contestants import read_contestants
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.replay import replay
from deepfake_detectors_cli import app
from support.pictures import random_pictures
from support.tiny_models import fakevlm, fakevlm_processor

CLASS = "FakeVLMForDeepfakeDetection"


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """FakeVLM's weights in a folder that only says `llava`."""
    folder = tmp_path_factory.mktemp("weights") / "llava"
    fakevlm().save_pretrained(folder)
    fakevlm_processor().save_pretrained(folder)
    fields = json.loads((folder / "config.json").read_text())
    fields = {name: value for name, value in fields.items() if name != "auto_map"}
    fields |= {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for label in ("real", "fake"):
        (root / label).mkdir()
        for index, picture in enumerate(random_pictures(3, seed=len(label) + 5 * (label == "real"))):
            picture.save(root / label / f"{index}.png")
    return root


def test_described(llava):
    assert dfd.model_info(llava, family="fakevlm")["class"] == CLASS


def test_evaluated_and_the_fit_remembers_the_family(llava, pictures, tmp_path):
    sides = {"real_dir": pictures / "real", "fake_dir": pictures / "fake", "resamples": 0}
    results = dfd.evaluate(
        llava, family="fakevlm", **sides, fit="temperature", save_to=tmp_path / "fitted", output=tmp_path / "run"
    )
    picture = str(pictures / "real" / "0.png")
    expected = dfd.pipeline(model=llava, family="fakevlm")(picture)["fake_probability"]
    found = {row.id: row.score for row in results.scored.rows}
    assert expected in [pytest.approx(score, abs=1e-5) for score in found.values()]
    fields = json.loads((tmp_path / "fitted" / "config.json").read_text())
    again = dfd.pipeline(model=tmp_path / "fitted")
    assert type(again.model).__name__ == CLASS
    assert again.model.config.calibration == fields["calibration"] != {"scale": 1.0, "bias": 0.0}
    with pytest.raises(ValueError, match="another"):  # the same folder, read otherwise, is another run
        dfd.evaluate(llava, family="chat_vlm", **sides, output=tmp_path / "run")


def test_examined_and_replayed(llava, pictures, tmp_path):
    picture = pictures / "real" / "0.png"
    examination = dfd.examine(picture, llava, family="fakevlm", checks=False)
    assert examination.record["model"]["class"] == CLASS
    folder = examination.save(tmp_path / "examined")
    assert replay(folder, picture, model=llava).equal
    with pytest.raises(ValueError, match="family"):
        dfd.examine(picture, Judge(llava, family="fakevlm"), family="fakevlm")
    with pytest.raises(ValueError, match="family"):
        Judge(dfd.pipeline(model=llava, family="fakevlm"), family="fakevlm")


def test_a_plan_and_a_page_say_it_of_their_models(llava):
    (contestant,) = read_contestants([{"model": str(llava), "family": "fakevlm"}], [])
    assert contestant.options == {"family": "fakevlm"}
    with pytest.raises(ValueError, match="family"):
        read_contestants([{"scores": "x.jsonl", "family": "fakevlm"}], [])
    models = Models([llava], family="fakevlm")
    assert models.judge().facts["class"] == CLASS
    with pytest.raises(ValueError, match=r"'fakevlm'.*`model`"):
        Models(family="fakevlm")


def test_refused_where_nothing_is_stock(pictures, tmp_path):
    sides = {"real_dir": pictures / "real", "fake_dir": pictures / "fake"}
    for wrong in ({**sides}, {"predictions": "x.jsonl"}):
        with pytest.raises(ValueError, match="family"):
            dfd.evaluate(family="fakevlm", **wrong)
    for call in (dfd.model_info, Judge, lambda model, family: dfd.export(model, tmp_path / "x", family=family)):
        with pytest.raises(ValueError, match="clip_probe"):
            call("clip-probe-mini", family="fakevlm")


def test_export_reads_the_family(llava, tmp_path):
    with pytest.raises(ValueError, match="fakevlm"):
        dfd.export(llava, tmp_path / "x", family="fakevlm")


@pytest.mark.parametrize("name", "detect examine replay chat evaluate benchmark score info export app".split())
def test_every_command_that_names_a_model_takes_it(name):
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0 and "--family" in result.stdout


def test_as_a_user_types_it(llava, pictures):
    model = ["--model", str(llava), "--family", "fakevlm"]
    result = CliRunner().invoke(app, ["info", *model])
    assert result.exit_code == 0 and json.loads(result.stdout)["class"] == CLASS
    picture = str(pictures / "real" / "0.png")
    result = CliRunner().invoke(app, ["chat", picture, *model, "--max-new-tokens", "3"], input="Is it real?\n")
    assert result.exit_code == 0, result.stderr
    expected = dfd.pipeline(model=llava, family="fakevlm")(picture)["fake_probability"]
    assert f"{expected:.4f}" in result.stderr
    assert CliRunner().invoke(app, ["info", "--family", "fakevlm"]).exit_code == 2
    assert CliRunner().invoke(app, ["benchmark", "--family", "fakevlm", "--output", "x"]).exit_code == 2
