"""Lint between two data sets: what stands in both, and what only looks alike within one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepfake_detectors.data.lint import Source, lint_dataset
from deepfake_detectors_cli import app
from support.lint_pictures import content, picture, plain_set


def source(name, pictures):
    return Source(name, len(pictures), iter(pictures))


def leaks(train, test, **options):
    return lint_dataset(source("old", train), against=source("new", test), **options)


def codes(result, *levels):
    return {finding.code for finding in result.findings if finding.level in levels}


def test_sets_that_share_nothing():
    result = leaks(plain_set(10), plain_set(10, 1000, "test"))
    assert codes(result, "error", "warning") == set()
    assert codes(result, "ok") >= {"duplicate-bytes-splits", "duplicate-pixels-splits", "near-duplicate-splits"}
    assert {row["split"] for row in result.counts} == {"old", "new"}


def test_copies_in_both_sets_are_errors():
    # The same ids in both sets, and an internal copy in each, which is no leak.
    train = [*plain_set(10), picture(900, "real", data=content(0)), picture(901, "real", data=content(0))]
    test = [*plain_set(10, 1000), picture(0, "real", data=content(4, form="PNG")), picture(1, "fake", data=content(7))]
    train.append(picture(902, "real", data=content(4, form="BMP")))
    result = leaks(train, test)
    (same,) = result.by_code("duplicate-bytes-splits")
    assert same.level == "error" and same.details["groups"] == 1
    assert same.details["examples"] == [["old: train/fake/7", "new: train/fake/1"]]
    (pixels,) = result.by_code("duplicate-pixels-splits")
    assert pixels.level == "error" and pixels.details["groups"] == 1


def test_a_saved_again_copy_is_a_near_duplicate():
    result = leaks(plain_set(10), [*plain_set(10, 1000), picture(5, "fake", data=content(5, quality=60))])
    (near,) = result.by_code("near-duplicate-splits")
    assert near.level == "warning" and near.details["pairs"] == 1
    assert near.details["examples"][0][:2] == ["old: train/fake/5", "new: train/fake/5"]


def test_videos_and_persons_by_id():
    train = plain_set(4, video_id="clip 1", target_id="person 7")
    result = leaks(train, plain_set(4, 1000, video_id="clip 2", source_id="person 7"))
    assert {finding.code for finding in result.findings if finding.level == "error"} == {"overlap-sources"}
    (persons,) = result.by_code("overlap-sources")
    assert persons.details["examples"] == ["person 7"]


def test_command_ends_with_1_for_a_leak(tmp_path: Path):
    for folder, start in (("a", 0), ("b", 1000)):
        for label in ("real", "fake"):
            (tmp_path / folder / label).mkdir(parents=True)
            for number in range(3):
                place = tmp_path / folder / label / f"{number}.jpg"
                place.write_bytes(content(start + 2 * number + (label == "fake")))
    command = ["dataset", "lint", str(tmp_path / "a"), "--against", str(tmp_path / "b")]
    clean = CliRunner().invoke(app, command)
    assert clean.exit_code == 0, clean.output
    (tmp_path / "b" / "fake" / "9.jpg").write_bytes(content(2))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    found = json.loads(result.stdout)["findings"]
    assert "duplicate-bytes-splits" in {item["code"] for item in found if item["level"] == "error"}


def test_a_missing_set_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        lint_dataset(source("old", plain_set(2)), against="nowhere")
