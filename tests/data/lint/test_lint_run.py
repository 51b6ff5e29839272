"""Each check of lint on a set made to have that one flaw, and on sets that have none."""

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.data.lint import lint_dataset
from deepfake_detectors.data.lint.report import write_report
from deepfake_detectors.outputs import OutputInUseError, folder_lock
from support.lint_pictures import SIDE, content, lint_list, picture, plain_set


def codes(result, *levels):
    return {finding.code for finding in result.findings if finding.level in levels}


@pytest.mark.parametrize("start", [0, 1000])
def test_a_clean_set_has_no_errors_and_no_warnings(start):
    result = lint_list(plain_set(40, start) + plain_set(20, start + 500, "test"))
    assert codes(result, "error", "warning") == set()
    assert {"duplicate-bytes", "near-duplicate-splits", "metadata-classifier"} <= codes(result, "ok")


EXIF = Image.Exif()
EXIF[271] = "maker"
FLAWS = {  # check -> how the fakes are saved
    "format": {"form": "PNG"},
    "jpeg_quality": {"quality": 60},
    "jpeg_tables": {"quality": 60},
    "subsampling": {"subsampling": 0},
    "progressive": {"progressive": True},
    "size": {"side": (SIDE, SIDE + 8)},
    "has_exif": {"exif": EXIF.tobytes()},
    "metadata": {"comment": b"made with"},
    "bytes_per_pixel": {"quality": 40},
}


@pytest.mark.parametrize(
    ("attribute", "flawed"), [*((name, "fake") for name in FLAWS), ("format", "real"), ("bytes_per_pixel", "real")]
)
def test_an_attribute_that_follows_the_class_is_an_error(attribute, flawed):
    pictures = plain_set(20)
    for number, item in enumerate(pictures):
        if item.label == flawed:
            item.content = content(number, **FLAWS[attribute])
    (finding,) = lint_list(pictures).by_code(f"shortcut-{attribute}")
    assert (finding.level, finding.split) == ("error", "train")
    assert finding.details["manipulation"] is None and finding.split == "train"


def test_the_metadata_classifier_learns_what_no_single_attribute_shows():
    # Wide and low-quality, or high and high-quality: fake. The other two combinations: real.
    pictures = plain_set(60)
    for number, item in enumerate(pictures):
        wide = number // 2 % 2 == 0
        good = wide == (item.label == "real")
        side = (SIDE + 8, SIDE) if wide else (SIDE, SIDE + 8)
        item.content = content(number, side=side, quality=90 if good else 70)
    result = lint_list(pictures)
    assert not any(code.startswith("shortcut-") for code in codes(result, "error", "warning"))
    (finding,) = result.by_code("metadata-classifier")
    assert finding.level == "error"
    assert finding.details["auc"] > 0.95
    (control,) = result.by_code("bytes-per-pixel")
    assert control.details["low"] < 0.5 < control.details["high"]


def test_a_shortcut_of_one_manipulation_is_found():
    pictures = plain_set(30)
    rare = [item for item in pictures if item.label == "fake"][:4]
    for number, item in enumerate(rare):
        item.content, item.columns["manipulation"] = content(500 + number, form="PNG"), "rare"
    result = lint_list(pictures)
    (finding,) = [item for item in result.by_code("shortcut-format") if item.level == "error"]
    assert finding.details["manipulation"] == "rare" and finding.details["value"] == "PNG"
    (named,) = result.by_code("misnamed")
    assert named.details["files"] == 4
    assert "PNG as .jpg" in named.message


@pytest.mark.parametrize("count", [2, 3])
def test_complete_separations_need_three_pictures(count):
    pictures = plain_set(count)
    for number, item in enumerate(pictures):
        if item.label == "fake":
            item.content = content(number, form="PNG")
    assert len(lint_list(pictures).by_code("shortcut-format")) == (count == 3)


def test_a_difference_by_chance_is_not_reported():
    pictures = plain_set(20)
    for number in (0, 1, 3):  # of 20 each: one real and two fake
        pictures[number].content = content(number, quality=60)
    assert not lint_list(pictures).by_code("shortcut-jpeg_quality")


def test_pictures_of_one_video_count_once():
    pictures = plain_set(40)
    fakes = [item for item in pictures if item.label == "fake"]
    for number, item in enumerate(fakes[:12]):
        item.content = content(700 + number, quality=60)
    assert lint_list(pictures).by_code("shortcut-jpeg_quality")
    for item in fakes[:12]:
        item.columns |= {"video_id": "one"}
    assert not lint_list(pictures).by_code("shortcut-jpeg_quality")


def test_splits_without_both_classes_are_compared_together():
    pictures = plain_set(10)
    for item in pictures:
        item.split = item.label
        item.content = item.content if item.label == "real" else content(int(item.id.split("/")[-1]), quality=50)
    result = lint_list(pictures)
    assert {finding.split for finding in result.by_code("shortcut-jpeg_quality")} == {"all splits"}
    assert [finding.level for finding in result.by_code("class-balance")] == ["warning", "warning"]


def test_exact_duplicates():
    pictures = plain_set(10) + plain_set(5, 100, "test")
    pictures[1].content = pictures[0].content  # real and fake
    pictures[20].content = pictures[4].content  # two splits
    pictures[8].content = pictures[6].content  # within a class
    pictures[3].content = content(901, form="PNG")
    pictures[13].content = content(901, form="PNG", compress_level=0)  # other bytes, same pixels
    result = lint_list(pictures)
    found = {item.code: item.details["examples"] for item in result.findings if item.code.startswith("duplicate-")}
    assert found == {
        "duplicate-bytes-classes": [["train/real/0", "train/fake/1"]],
        "duplicate-bytes-splits": [["train/real/4", "test/real/100"]],
        "duplicate-bytes-inside": [["train/real/6", "train/real/8"]],
        "duplicate-pixels-inside": [["train/fake/3", "train/fake/13"]],
    }
    assert {"duplicate-bytes-classes", "duplicate-bytes-splits"} <= codes(result, "error")


def test_near_duplicates():
    pictures = plain_set(10) + plain_set(5, 100, "test")
    pictures[1].content = content(0, quality=60)  # of real 0, no common source stated
    pictures[3].content = content(2, quality=60)  # of real 2, of its group
    pictures[3].columns["group_id"] = pictures[2].columns["group_id"]
    pictures[20].content = content(4, quality=60)  # of train in test
    pictures[8].content = content(6, quality=60)
    pictures[12].content = content(10, quality=60)
    for item in (pictures[10], pictures[12]):
        item.columns["video_id"] = "one"  # frames of a video are alike by nature
    result = lint_list(pictures, near=2)
    found = {item.code: item for item in result.findings if item.code.startswith("near-duplicate-")}
    expected = {
        "near-duplicate-classes": ("warning", ["train/real/0", "train/fake/1"]),
        "near-duplicate-made-from": ("note", ["train/real/2", "train/fake/3"]),
        "near-duplicate-splits": ("warning", ["train/real/4", "test/real/100"]),
        "near-duplicate-inside": ("note", ["train/real/6", "train/real/8"]),
    }
    assert found.keys() == expected.keys()
    for code, (level, ids) in expected.items():
        assert (found[code].level, found[code].details["pairs"]) == (level, 1), code
        assert sorted(found[code].details["examples"][0][:2]) == sorted(ids)


def test_overlaps_of_videos_groups_and_sources():
    train, test = plain_set(5), plain_set(5, 100, "test")
    for number, item in enumerate(train + test):
        item.columns |= {"video_id": f"v{number}", "group_id": f"g{number}", "target_id": f"p{number}"}
    clean = lint_list(train + test)
    assert {"overlap-videos", "overlap-groups", "overlap-sources"} <= codes(clean, "ok")

    test[0].columns["video_id"] = "v0"
    test[1].columns["group_id"] = "g1"
    test[2].columns["source_id"] = "p2"  # somebody's face who is a target in training
    result = lint_list(train + test)
    for code, shared in (("videos", "v0"), ("groups", "g1"), ("sources", "p2")):
        (finding,) = result.by_code(f"overlap-{code}")
        assert (finding.level, finding.details["examples"]) == ("error", [shared])


def test_unknown_sources_are_said_to_be_unknown():
    pictures = plain_set(5) + plain_set(5, 100, "test")
    for item in pictures:
        item.columns["group_id"] = item.id  # as builders write it where nothing is known
    result = lint_list(pictures)
    assert "overlap-unknown" in codes(result, "note")
    assert not result.by_code("overlap-groups")


@pytest.mark.parametrize("column", ["target_id", "group_id"])
def test_fakes_beside_their_originals(column):
    pictures = plain_set(5)
    for number, item in enumerate(pictures):
        item.columns[column] = f"source{number // 2 if number < 6 else number}"
    (finding,) = lint_list(pictures).by_code("paired")
    assert finding.details == {"paired": 3, "fakes": 5, "by": column}


@pytest.mark.parametrize(("dropped", "level"), [(0, "ok"), (8, "note"), (14, "warning")])
def test_class_balance(dropped, level):
    pictures = [item for number, item in enumerate(plain_set(30)) if number % 2 or number >= 2 * dropped]
    (finding,) = lint_list(pictures).by_code("class-balance")
    assert finding.level == level
    assert finding.details["real"] == 30 - dropped


def test_shares_and_manipulations_that_differ_between_splits():
    test = [item for number, item in enumerate(plain_set(10, 100, "test")) if number % 2 or number > 10]
    pictures = plain_set(10) + test
    pictures[1].columns["manipulation"] = "rare"
    result = lint_list(pictures)
    assert "balance-shift" in codes(result, "note")
    (finding,) = result.by_code("manipulation-absent")
    assert finding.details == {"absent": ["rare"]}
    assert finding.split == "test"


def test_pictures_in_several_rows_weigh_more(tmp_path):
    pictures = []
    for number in range(6):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content(number))
        for row in range(3 if number == 0 else 1):  # the first real one is asked about three times
            pictures.append(picture(10 * number + row, "real" if number < 3 else "fake", data=path))
    result = lint_list(pictures)
    (finding,) = result.by_code("repeated-rows")
    assert finding.details["rows"] == 8
    assert finding.details["most"] == 3
    assert np.isclose(finding.details["real_share_of_rows"], 5 / 8)
    assert np.isclose(finding.details["real_share_of_pictures"], 3 / 6)
    assert not any(code.startswith("duplicate-bytes-") for code in codes(result, "error", "warning"))


def test_a_broken_picture_is_a_finding_and_the_rest_is_linted():
    pictures = plain_set(20)
    pictures[5].content = pictures[5].content[:150]
    for number, item in enumerate(pictures):
        if item.label == "fake" and number != 5:
            item.content = content(number, quality=60)
    result = lint_list(pictures)
    (finding,) = result.by_code("unreadable")
    assert finding.level == "error"
    assert finding.details == {"pictures": 1, "examples": [pictures[5].id]}
    assert result.by_code("shortcut-jpeg_quality")
    assert len(result.rows) == 39


def test_nothing_to_lint():
    with pytest.raises(ValueError, match="test "):
        lint_list([])


def test_only_broken_pictures():
    pictures = plain_set(2)
    for item in pictures:
        item.content = b""
    assert codes(lint_list(pictures), "error") == {"unreadable"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_report_replaces_the_one_before_and_leaves_it_where_it_fails(tmp_path):
    folder = tmp_path / "report"
    result = lint_list(plain_set(20))
    assert write_report(result, folder, "markdown").read_text().count(".png)") == len(list(folder.glob("*.png"))) > 0
    write_report(result, folder)
    assert sorted(contents(folder)) == ["lint.json", "pictures.parquet", "report.html"]
    before = contents(folder)
    with folder_lock(folder), pytest.raises(OutputInUseError, match="process"):
        write_report(result, folder, "markdown")
    assert contents(folder) == before
    (folder / "pictures.parquet").unlink()
    (folder / "pictures.parquet").mkdir()  # cannot be written
    with pytest.raises(OSError):
        write_report(result, folder, "markdown")
    assert (folder / "report.html").read_bytes() == before["report.html"]
    assert (folder / "lint.json").read_bytes() == before["lint.json"]


def test_a_file_in_the_place_of_the_report_is_told_before_anything_is_measured(tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        lint_dataset(str(tmp_path), output=place)
    assert place.read_text() == "mine"
