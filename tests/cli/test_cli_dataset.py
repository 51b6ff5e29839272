"""`deepfake-detectors dataset` as a user calls it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from typer.testing import CliRunner

from deepfake_detectors.data import build_dataset, lint_dataset
from deepfake_detectors.data.registry import DATASETS
from deepfake_detectors_cli.app import app
from support.folder_tree import save
from support.real_data import needs_real_data, real_data

runner = CliRunner()


def run(*arguments, code=0):
    result = runner.invoke(app, ["dataset", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def raw(tmp_path):
    for number in range(3):
        save(tmp_path / "raw" / "nature" / f"{number}.jpg")
        save(tmp_path / "raw" / "ai" / f"{number}.png")
    return tmp_path / "raw"


def test_list_names_every_builder():
    rows = [json.loads(line) for line in run("list").stdout.splitlines()]
    assert [row["name"] for row in rows] == sorted(DATASETS)
    assert all(row["terms"] for row in rows)
    assert {row["name"]: row["layout_verified"] for row in rows}["genimage"] is False


def test_info():
    facts = json.loads(run("info", "ffpp_hdf5").stdout)
    assert facts["configs"] == ["c40", "c23"]
    assert "split_file" in facts["options"]
    assert facts["published_counts"]["c40"]["test"] == {"real": 140, "fake": 560}
    assert json.loads(run("info", "deepfakebench").stdout)["published_counts"] == {}
    assert "layout" in run("info", "ffpp_hdf5", "--format", "table").stdout


def test_build_then_load(raw, tmp_path):
    result = run("build", "image_folder", "--config", "nature_ai", "--data-dir", raw, "--output", tmp_path / "out")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"split": "train", "rows": 6, "built": True}]
    assert result.stderr.startswith("Terms of real/fake image folder:")
    rows = datasets.load_dataset(str(tmp_path / "out" / "nature_ai"), split="train", cache_dir=str(tmp_path / "cache"))
    assert {row["file_format"]: row["label"] for row in rows} == {"JPEG": 0, "PNG": 1}
    again = run("build", "image_folder", "--config", "nature_ai", "--data-dir", raw, "--output", tmp_path / "out")
    assert json.loads(again.stdout)["built"] is False


def test_options_reach_the_config(raw, tmp_path):
    arguments = ["--config", "custom", "--option", "real=nature", "--option", 'fake=["ai"]', "--option", "prefix=p"]
    run("build", "image_folder", *arguments, "--data-dir", raw, "--output", tmp_path / "out")
    rows = datasets.load_dataset(str(tmp_path / "out" / "custom"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["id"][0] == "p/ai/0.png"


def test_check(raw):
    report = json.loads(run("check", "image_folder", "--config", "nature_ai", "--data-dir", raw, "--decode").stdout)
    assert report["ok"] is True
    assert (report["layout_verified"], report["terms"]) == (True, DATASETS["image_folder"].terms)
    assert {row["label"]: row["rows"] for row in report["counts"]} == {"real": 3, "fake": 3}


def test_check_ends_with_one_on_a_hard_finding(raw):
    (raw / "ai" / "1.png").write_bytes(b"")
    arguments = ["image_folder", "--config", "nature_ai", "--data-dir", raw, "--decode"]
    report = json.loads(run("check", *arguments, code=1).stdout)
    assert "1.png (0 bytes) cannot be decoded" in report["findings"][0]["message"]
    assert "error: " in run("check", *arguments, "--format", "table", code=1).stdout


def test_build_of_a_broken_copy_says_why(raw, tmp_path):
    (raw / "ai" / "1.png").write_bytes(b"")
    arguments = ["image_folder", "--config", "nature_ai", "--data-dir", raw, "--output", tmp_path / "out"]
    assert "1.png (0 bytes) cannot be decoded" in run("build", *arguments, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nope"], "'nope'"),
        (["check", "image_folder", "--data-dir", "{raw}"], "0_real_1_fake"),
        (["check", "image_folder", "--data-dir", "{raw}/gone"], "is not a folder"),
        (["check", "image_folder", "--data-dir", "{raw}", "--option", "x"], "expected KEY=VALUE"),
        (
            ["check", "image_folder", "--data-dir", "{raw}", "--config", "real_fake", "--option", "x=1"],
            "image_folder has no option x",
        ),
    ],
)
def test_wrong_use(raw, arguments, message):
    assert message in run(*(text.format(raw=raw) for text in arguments), code=2).stderr


class TestTerms:
    """`celeb_df` stands for data that allow research only, `image_folder` for one's own."""

    @pytest.fixture
    def celeb(self, tmp_path):
        for folder, video in (("Celeb-real", "id0_0000"), ("YouTube-real", "00000"), ("Celeb-synthesis", "id0_id1_0")):
            save(tmp_path / "celeb" / folder / "frames" / video / "0.png")
        (tmp_path / "celeb" / "List_of_testing_videos.txt").write_text("1 YouTube-real/00000.mp4\n")
        return ["build", "celeb_df", "--data-dir", tmp_path / "celeb", "--output", tmp_path / "out"]

    def test_script_is_told_and_goes_on(self, celeb, tmp_path):
        result = run(*celeb)
        assert result.stderr.startswith("Terms of Celeb-DF: Celeb-DF terms of use")
        assert "--accept-terms" in result.stderr
        assert (tmp_path / "out" / "v2" / ".build.json").is_file()

    def test_flag(self, celeb):
        assert "--accept-terms" not in run(*celeb, "--accept-terms").stderr

    @pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
    def test_person_is_asked(self, celeb, tmp_path, monkeypatch, answer, code):
        monkeypatch.setattr("deepfake_detectors_cli.dataset_build.at_terminal", lambda: True)
        result = runner.invoke(app, ["dataset", *map(str, celeb)], input=answer)
        assert (result.exit_code, (tmp_path / "out").exists()) == (code, code == 0)
        assert result.stderr.index("Terms of Celeb-DF") < result.stderr.index("Do you accept")


@pytest.mark.parametrize("command", [[], ["list"], ["info"], ["check"], ["build"]])
def test_help_has_an_example(command):
    assert "Example" in run(*command, "--help").stdout


def stated_counts(name):
    """Real and fake pictures as the README of the real data states them: (config and split, or nothing) -> counts."""
    lines = real_data("README.md").read_text(encoding="utf-8").splitlines()
    cell = next(line for line in lines if line.startswith(f"| `{name}/`")).split("|")[3]
    return {
        tuple(words.split()): (int(real), int(fake))
        for words, real, fake in re.findall(r"([a-z]?[\w ]*?) *\b(\d+)/(\d+)", cell)
    }


@needs_real_data
@pytest.mark.parametrize("config", ["c40", "c23"])
def test_real_ddvqa(tmp_path, config):
    stated = {split: counts for (level, split), counts in stated_counts("ddvqa").items() if level == config}
    assert built_counts(tmp_path, "ddvqa", "--config", config) == stated


@needs_real_data
@pytest.mark.parametrize("name", ["faces_stylegan2", "scenes_text2image", "photos_flux_imagen", "copymove_noso"])
def test_real_folders(tmp_path, name):
    options = ["--config", "real_fake", "--data-dir", real_data(name), "--option", f"prefix={name}"]
    masks = "masks" if (real_data(name) / "masks").is_dir() else ""
    built = built_counts(tmp_path, "image_folder", *options, "--option", f'masks="{masks}"')
    assert list(built.values()) == list(stated_counts(name).values())


def built_counts(output, name, *options):
    """Real and fake rows per split of what `dataset build` writes."""
    lines = run("build", name, *options, "--output", output).stdout.splitlines()
    counts = {}
    for row in map(json.loads, lines):
        folder = str(next(path for path in output.iterdir() if path.is_dir() and path.name != "cache"))
        labels = datasets.load_dataset(folder, split=row["split"], cache_dir=str(output / "cache"))["label"][:]
        assert len(labels) == row["rows"]
        counts[row["split"]] = (labels.count(0), labels.count(1))
    return counts


def test_list_needs_neither_the_library_nor_what_it_needs():
    """In a fresh interpreter, where nothing else has imported anything yet."""
    code = (
        "import sys, resource; from deepfake_detectors_cli import app\n"
        "try:\n    app(['dataset', 'list'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'deepfake_detectors', 'rich'} & set(sys.modules)\n"
        "print(sorted(heavy), resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == sorted(DATASETS)
    heavy, seconds = done.stderr.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert float(seconds) < 0.6


def test_command_and_function_write_the_same(raw, tmp_path):
    arguments = ["image_folder", "--config", "nature_ai", "--data-dir", raw]
    run("build", *arguments, "--output", tmp_path / "command" / "built")
    build_dataset("image_folder", tmp_path / "function" / "built", raw, "nature_ai")
    run("lint", *arguments, "--output", tmp_path / "command" / "lint", "--near", 2, "--fail-on", "never")
    lint_dataset("image_folder", raw, "nature_ai", output=tmp_path / "function" / "lint", near=2)
    written = [
        {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "command", tmp_path / "function")
    ]
    assert written[0] == written[1]
    assert {Path(name).name for name in written[0]} == {
        ".build.json",
        "train-00000-of-00001.parquet",
        "lint.json",
        "pictures.parquet",
        "report.html",
    }


def test_the_limit_of_pixels_is_an_option(raw, tmp_path):
    given = ["image_folder", "--config", "nature_ai", "--data-dir", raw, "--max-pixels"]
    assert "--max-pixels" in run("build", *given, "100", "--output", tmp_path / "out", code=1).stderr
    run("build", *given, "1000", "--output", tmp_path / "out")
    run("check", *given, "1000", "--decode")
    assert json.loads(run("check", *given, "100", "--decode", code=1).stdout)["ok"] is False
