"""Raw files compared with what is published of them."""

import pytest

from deepfake_detectors.data.check import check_dataset
from deepfake_detectors.data.registry import make_builder
from support.folder_tree import save


def test_check_counts_and_decodes(raw, open_builder):
    result = check_dataset(open_builder(), decode=True)
    assert result.ok
    assert result.rows == result.units
    assert sum(result.rows.values()) == 16
    for name in ("train1.jpg", "train3.jpg"):
        (raw / "train" / "real" / name).write_bytes(b"")
    assert check_dataset(open_builder()).ok  # sizes and content are read on request only
    errors = [item.message for item in check_dataset(open_builder(), decode=True).findings if item.level == "error"]
    assert ["train1.jpg" in errors[0], "train3.jpg" in errors[1], len(errors)] == [True, True, 2]


def test_check_gives_a_refusal_as_finding(raw, open_builder, tmp_path):
    (raw / "train" / "real" / "link.png").symlink_to(save(tmp_path / "outside.png"))
    result = check_dataset(open_builder())
    assert not result.ok
    message = result.findings[-1].message
    assert "link.png" in message and str(tmp_path / "outside.png") in message


def test_counts_are_errors_whether_or_not_the_layout_is_verified(tmp_path):
    save(tmp_path / "test" / "frames" / "a" / "000.png")
    (tmp_path / "test" / "labels.csv").write_text("\ufefffilename,label\na.mp4,0\n", encoding="utf-8")
    result = check_dataset(make_builder("dfdc", tmp_path))
    assert not result.ok
    errors = [item.message for item in result.findings if item.level == "error"]
    assert any("test: 1 real" in message and "2500" in message for message in errors)


def test_a_name_and_a_builder_are_checked_alike(raw, open_builder):
    (raw / "train" / "real" / "train1.jpg").write_bytes(b"")
    by_name = check_dataset("image_folder", raw, "real_fake", decode=True)
    assert by_name == check_dataset(open_builder(), decode=True)
    assert [item.level for item in by_name.findings] == ["error"]
    with pytest.raises(ValueError, match="config"):
        check_dataset(open_builder(), config="real_fake")


def test_the_limit_of_pixels_is_told_with_its_remedy(raw):
    found = check_dataset("image_folder", raw, "real_fake", decode=True, max_pixels=100)
    errors = [item.message for item in found.findings if item.level == "error"]
    assert len(errors) == 16
    assert all("max_pixels" in message and "Download" not in message for message in errors)
    assert check_dataset("image_folder", raw, "real_fake", decode=True, max_pixels=16 * 12 * 2).ok
    with pytest.raises(ValueError, match="max_pixels is 0"):
        check_dataset("image_folder", raw, "real_fake", max_pixels=0)
