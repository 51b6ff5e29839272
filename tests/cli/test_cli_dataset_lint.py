"""`deepfake-detectors dataset lint` as a user calls it."""

import json
import re
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from deepfake_detectors_cli.app import app
from support.folder_tree import save
from support.lint_pictures import content
from support.real_data import needs_real_data, real_data

runner = CliRunner()


def run(*arguments, code=0):
    result = runner.invoke(app, ["dataset", "lint", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def raw(tmp_path):
    """Photographs as JPEG, forgeries as PNG, one of which is cut off."""
    for split in ("train", "val"):
        for number in range(8):
            path = tmp_path / "raw" / split / "nature" / f"{split}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(number + 100 * len(split)))
            save(tmp_path / "raw" / split / "ai" / f"{split}{number}.png", (48, 48))
    broken = tmp_path / "raw" / "train" / "ai" / "train3.png"
    broken.write_bytes(broken.read_bytes()[:300])
    return tmp_path / "raw"


def levels(result):
    return {item["code"]: item["level"] for item in json.loads(result.stdout)["findings"]}


def test_raw_folder_then_parquet_have_the_same_findings(raw, tmp_path):
    assert levels(run(raw, code=1))["unreadable"] == "error"
    (raw / "train" / "ai" / "train3.png").unlink()  # a builder refuses it
    by_name = run("image_folder", "--config", "nature_ai", "--data-dir", raw, code=1)
    assert levels(by_name)["shortcut-format"] == "error"
    build = ["build", "image_folder", "--config", "nature_ai", "--data-dir", str(raw), "--output", str(tmp_path / "b")]
    assert runner.invoke(app, ["dataset", *build]).exit_code == 0
    built = run(tmp_path / "b", code=1)
    assert levels(built) == levels(by_name)
    assert json.loads(built.stdout)["counts"] == json.loads(by_name.stdout)["counts"]


def test_html_report_stands_alone(raw, tmp_path):
    result = run(raw, "--output", tmp_path / "out", code=1)
    assert "Wrote" in result.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "lint.json", "pictures.parquet"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 2
    assert not re.search(r"<(script|link)|src=\"(?!data:)|href=", page)
    assert "<table>" in page
    assert "file format PNG in 100 % of" in page
    assert json.loads((tmp_path / "out" / "lint.json").read_text()) == json.loads(result.stdout)
    rows = pd.read_parquet(tmp_path / "out" / "pictures.parquet")
    assert len(rows) == 31
    assert {"id", "format", "bytes_per_pixel", "perceptual_hash"} <= set(rows)


def test_markdown_report_names_its_pictures(raw, tmp_path):
    run(raw, "--output", tmp_path / "out", "--format", "markdown", code=1)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^]]*\]\((\S+)\)", text)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == set(linked) >= {"format.png"}
    for path in (raw / "train" / "ai").iterdir():
        path.unlink()
    run(raw, "--output", tmp_path / "out", "--fail-on", "never")  # the pictures of the earlier report are gone
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "lint.json", "pictures.parquet"}


def test_names_cannot_become_markup(tmp_path):
    for label in ("real", "fake"):
        for number in range(3):
            save(tmp_path / "raw" / label / "<b>a|b*c" / f"{label}{number}.png")
    run(tmp_path / "raw", "--output", tmp_path / "out", "--fail-on", "never")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;a|b*c" in page


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1), ("never", 0)])
def test_exit_code(tmp_path, fail_on, code):
    for label, count in (("real", 9), ("fake", 3)):  # unequal, nothing worse
        for number in range(count):
            save(tmp_path / "raw" / label / f"{label}{number}.png", (48, 48))
    run(tmp_path / "raw", "--fail-on", fail_on, code=code)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "'nope'"),
        (["{raw}/train/ai"], "0_real_1_fake"),
        (["{raw}", "--data-dir", "{raw}"], "--data-dir is for"),
        (["image_folder", "--data-dir", "{raw}/gone"], "is not a folder"),
        (["{raw}", "--near", "16"], "'--near'"),
        (["{raw}", "--option", "x"], "expected KEY=VALUE"),
    ],
)
def test_wrong_use(raw, arguments, message):
    assert message in run(*(text.format(raw=raw) for text in arguments), code=2).stderr


@pytest.mark.parametrize(
    ("library", "module"), [("imagehash", "imagehash"), ("pandas", "deepfake_detectors.data.lint")]
)
def test_missing_library_is_named(raw, monkeypatch, library, module):
    for name in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    message = f"Linting needs {library}, which is not installed: pip install 'deepfake-detectors[lint]'"
    result = runner.invoke(app, ["dataset", "lint", str(raw)])
    assert result.exit_code != 0
    assert message in result.stderr


def test_folder_of_several_configs(raw, tmp_path):
    (raw / "train" / "ai" / "train3.png").unlink()
    for option in ("nature_ai", "other"):
        build = ["build", "image_folder", "--config", "nature_ai", "--data-dir", str(raw)]
        assert runner.invoke(app, ["dataset", *build, "--output", str(tmp_path / option)]).exit_code == 0
    (tmp_path / "other" / "nature_ai").rename(tmp_path / "nature_ai" / "second")
    assert "nature_ai, second" in run(tmp_path / "nature_ai", code=2).stderr
    assert json.loads(run(tmp_path / "nature_ai", "--config", "second", code=1).stdout)["counts"]


def test_help_has_an_example():
    assert "Example" in run("--help").stdout


@needs_real_data
def test_real_set_by_command():
    result = run("ddvqa", "--config", "c23", "--data-dir", real_data("ddvqa"), code=1)
    assert levels(result)["misnamed"] == "warning"


def test_pictures_beyond_the_limit_are_rows_that_name_the_option(raw):
    found = json.loads(run(raw, "--config", "nature_ai", "--max-pixels", "1000", code=1).stdout)["findings"]
    unreadable = [item for item in found if item["code"] == "unreadable"]
    assert sum(item["details"]["pictures"] for item in unreadable) == 32
    assert "max_pixels" in unreadable[0]["message"]
