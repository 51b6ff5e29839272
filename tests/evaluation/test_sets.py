"""Sets of pictures to score: what is known of each picture, and which folders are refused."""

import pytest

from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.protocols import evaluate_rows, get_protocol
from deepfake_detectors.evaluation.sets import data_set, folder_set
from support.folder_tree import save


def scored(pictures, right):
    """Results of paper:antifakeprompt where the pictures of the sets `right` are judged rightly, and no others."""
    rows = [
        type(row)(**{**vars(row), "score": float((row.label == "fake") == (row.set in right))})
        for row in pictures.rows
    ]
    return evaluate_rows(rows, get_protocol("paper:antifakeprompt"), Settings(resamples=0))


def test_sets_of_antifakeprompt_are_scored_one_by_one(tmp_path):
    for name in ("COCO", "flickr30k", "SD3", "dalle_2"):
        save(tmp_path / name / "deep" / "1.jpg")
    save(tmp_path / "COCO" / "2.jpg")
    results = scored(data_set("antifakeprompt", data_dir=tmp_path), {"COCO", "SD3"})
    found = {name: (row["count"], row["accuracy"]) for name, row in results["per_set"].items()}
    assert found == {"COCO": (2, 1.0), "Flickr": (1, 0.0), "SD3": (1, 1.0), "DALLE-2": (1, 0.0)}
    assert results["metrics"]["average"]["value"] == 0.5


def test_folders_of_real_pictures_are_sets_too(tmp_path):
    for place in ("real/COCO", "real/Flickr", "fake/SD2", "fake/DALLE-2", "fake/COCO"):
        save(tmp_path / place / "1.jpg")
    pictures = folder_set(tmp_path / "real", tmp_path / "fake")
    results = scored(pictures, {"real/COCO", "fake/SD2"})
    assert set(results["per_set"]) == {"real/COCO", "real/Flickr", "fake/SD2", "fake/DALLE-2", "fake/COCO"}
    assert results["metrics"]["average"]["value"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("sides", [("faces", "faces/made"), ("faces/made", "faces")])
def test_nested_folders_are_refused(tmp_path, sides):
    save(tmp_path / "faces" / "1.jpg")
    save(tmp_path / "faces" / "made" / "1.jpg")
    with pytest.raises(ValueError, match=r"made .*`(real|fake)_dir`"):
        folder_set(*(tmp_path / side for side in sides))
