"""Lint finds the leaks and imbalances that the real sets' own notes state; the numbers are read from those notes."""

import re

import pytest

from deepfake_detectors.data.lint import lint_dataset, open_source
from support.real_data import needs_real_data, real_data

pytestmark = needs_real_data


@pytest.fixture(scope="module")
def linted():
    """`linted(set, config)`, each linted once."""
    known = {}

    def run(name, config=None):
        if (name, config) not in known:
            source = open_source(name, real_data(name), config) if config else open_source(str(real_data(name)))
            known[name, config] = lint_dataset(source)
        return known[name, config]

    return run


def stated(name, pattern):
    """The numbers of a sentence in the notes of a set."""
    text = " ".join(real_data(name).joinpath("README.md").read_text(encoding="utf-8").split())
    found = re.search(pattern, text)
    assert found, pattern
    return [float(group) if group.replace(".", "").isdigit() else group for group in found.groups()]


def only(result, code, split=None):
    (finding,) = [item for item in result.by_code(code) if split is None or item.split == split]
    return finding


def test_ddvqa_byte_identical_pair(linted):
    fake, real = stated("ddvqa", r"`(\w+)\.jpg` is byte-identical to `(\w+)\.jpg`")
    finding = only(linted("ddvqa", "c40"), "duplicate-bytes-classes")
    assert finding.level == "error"
    (pair,) = finding.details["examples"]
    assert {name.rsplit("/", 1)[1] for name in pair} == {fake, real}


def test_ddvqa_counts_and_imbalance(linted):
    result = linted("ddvqa", "c40")
    train, test = stated("ddvqa", r"Train is (\d+) % fake, test (\d+) %")
    shares = {split: only(result, "class-balance", split).details["fake_share"] for split in ("train", "test")}
    assert (round(100 * shares["train"]), round(100 * shares["test"])) == (train, test)
    assert only(result, "class-balance", "train").level == "warning"
    assert only(result, "class-balance", "test").level == "ok"
    assert only(result, "balance-shift").level == "note"


def test_ddvqa_has_no_video_in_both_splits(linted):
    train, test = stated("ddvqa", r"(\d+) videos in train, (\d+) in test, none shared")
    finding = only(linted("ddvqa", "c40"), "overlap-sources")
    assert finding.level == "ok"
    assert finding.details["sizes"] == {"train": train, "test": test}
    codes = {item.code for item in linted("ddvqa", "c40").findings}
    assert not codes & {"duplicate-bytes-splits", "duplicate-pixels-splits"}
    assert only(linted("ddvqa", "c40"), "near-duplicate-splits").level == "ok"


def test_ddvqa_fakes_beside_their_originals(linted):
    numbers = stated("ddvqa", r"(\d+) of (\d+) training fakes and (\d+) of (\d+) test fakes have the real picture")
    found = [only(linted("ddvqa", "c40"), "paired", split).details for split in ("train", "test")]
    assert [number for item in found for number in (item["paired"], item["fakes"])] == numbers
    assert only(linted("ddvqa", "c40"), "near-duplicate-made-from").details["pairs"] > 0  # they are pixel-aligned


def test_ddvqa_c40_has_no_format_shortcut(linted):
    stated("ddvqa", r"(No format shortcut in c40)")
    result = linted("ddvqa", "c40")
    assert not [item for item in result.findings if item.code.startswith("shortcut-") and item.level != "note"]
    assert not result.by_code("misnamed")
    assert {item.level for item in result.by_code("metadata-classifier")} == {"ok"}
    assert result.rows["jpeg_tables"].nunique() == 1


def test_ddvqa_c23_png_under_another_name(linted):
    (kind,) = stated("ddvqa", r"the type (\d) files end in `\.jpg` but are PNG")
    result = linted("ddvqa", "c23")
    named = only(result, "misnamed")
    assert {name.rsplit("/", 1)[1].split("_")[0] for name in named.details["examples"]} == {str(int(kind))}
    for code in ("shortcut-format", "shortcut-bytes_per_pixel"):
        assert only(result, code).level == "error"
        assert only(result, code).details["manipulation"] == "NeuralTextures"


def test_ddvqa_rows_per_picture(linted):
    fewest, most = stated("ddvqa", r"repeats a picture (\d+) to (\d+) times")
    rows, pictures = stated("ddvqa", r"(\d+) % of rows but (\d+) % of pictures are real")
    found = only(linted("ddvqa", "c40_judge"), "repeated-rows").details
    assert (found["fewest"], found["most"]) == (fewest, most)
    assert (round(100 * found["real_share_of_rows"]), round(100 * found["real_share_of_pictures"])) == (rows, pictures)


@pytest.mark.parametrize("name", ["faces_stylegan2", "scenes_text2image", "photos_flux_imagen"])
def test_bytes_per_pixel_control(linted, name):
    value, low, high = stated(name, r"bytes per pixel (\d\.\d+) \[(\d\.\d+), (\d\.\d+)\]")
    found = only(linted(name), "bytes-per-pixel")
    strength = max(found.details["auc"], 1 - found.details["auc"])  # theirs was cross-validated, so had no direction
    assert low - 0.01 <= strength <= high + 0.01
    assert abs(strength - value) < 0.05
    assert found.level == ("note" if name == "faces_stylegan2" else "ok")  # the one whose interval excludes chance


@pytest.mark.parametrize("name", ["faces_stylegan2", "scenes_text2image", "photos_flux_imagen", "copymove_noso"])
def test_prepared_sets_have_no_strong_shortcut(linted, name):
    """Their notes say how size, format and quality were made equal."""
    result = linted(name)
    # That a folder of masks is there is no flaw of the pictures.
    assert {item.level for item in result.findings if item.code != "raw-files"} <= {"note", "ok"}
    counted = {"real": 0, "fake": 0}
    for row in result.counts:
        counted[row["label"]] += row["pictures"]
    table = real_data("README.md").read_text(encoding="utf-8")
    real, fake = re.search(rf"`{name}/` \|[^|]*\| (\d+)/(\d+)", table).groups()
    assert counted == {"real": int(real), "fake": int(fake)}


def test_copymove_shares_its_scenes(linted):
    stated("copymove_noso", r"(Real and forged pictures of a scene are the same photo)")
    found = only(linted("copymove_noso"), "paired").details
    assert found["paired"] == found["fakes"] > 0
    assert found["by"] == "group_id"
    assert only(linted("copymove_noso"), "class-balance").level == "note"
