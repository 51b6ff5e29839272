"""The measuring parts of lint, each against another way to know."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from deepfake_detectors.data.lint import measures
from deepfake_detectors.data.lint.duplicates import near_pairs
from deepfake_detectors.data.lint.measures import SCHEMA, Measuring, Picture, measure
from deepfake_detectors.data.lint.metadata_classifier import (
    CATEGORY_COLUMNS,
    NUMBER_COLUMNS,
    _out_of_fold,
    rank_auc,
)
from deepfake_detectors.evaluation.metrics import auc
from support.lint_pictures import content


def measured(data, name="a.jpg"):
    row = measure(Picture("id", "train", "real", data, name, {"video_id": "v"}))
    assert set(row) == set(SCHEMA.names)
    return row


@pytest.mark.parametrize("quality", [1, 30, 75, 92, 100])
def test_jpeg_quality_is_what_it_was_saved_with(quality):
    row = measured(content(0, quality=quality))
    assert (row["format"], row["jpeg_quality"], row["error"]) == ("JPEG", quality, None)


def test_tables_of_another_encoder_get_the_nearest_quality():
    own = Image.open(io.BytesIO(content(0, quality=80))).quantization
    shifted = {
        number: [min(255, value + (place % 3 == 0)) for place, value in enumerate(own[number])] for number in own
    }
    row = measured(content(0, qtables=shifted, quality=-1))
    assert abs(row["jpeg_quality"] - 80) <= 2
    assert row["jpeg_tables"] != measured(content(0, quality=80))["jpeg_tables"]


@pytest.mark.parametrize(("sampling", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_how_a_jpeg_was_saved(sampling, name):
    row = measured(content(0, subsampling=sampling, progressive=sampling == 1, comment=b"x" * sampling))
    assert row["subsampling"] == name
    assert row["progressive"] is (sampling == 1)
    assert row["metadata"] == ("comment" if sampling else "")


def test_exif_and_text():
    exif = Image.Exif()
    exif[271], exif[272] = "maker", "model"
    assert measured(content(0, exif=exif.tobytes()))["exif_tags"] == 2
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a prompt")
    row = measured(content(0, form="PNG", pnginfo=text), "a.PNG")
    assert (row["metadata"], row["extension"]) == ("parameters", ".png")
    assert row["jpeg_quality"] is None


def test_sizes_digests_and_pixels():
    data = content(0, side=(40, 30), form="PNG")
    row = measured(data)
    assert (row["width"], row["height"], row["bytes"]) == (40, 30, len(data))
    again = measured(content(0, side=(40, 30), form="PNG", compress_level=0))
    assert again["file_digest"] != row["file_digest"]
    assert again["pixel_digest"] == row["pixel_digest"]
    array = np.asarray(Image.open(io.BytesIO(data)))
    bare = measured(array, None)  # a frame of a clip or an array has no file
    assert bare["pixel_digest"] == row["pixel_digest"]
    assert bare["perceptual_hash"] == row["perceptual_hash"]
    assert (bare["bytes"], bare["format"], bare["file_digest"]) == (None, None, None)


@pytest.mark.parametrize("data", [b"", b"no picture", content(0)[:200], content(0, form="PNG")[:-30]])
def test_broken_pictures_give_a_row(data):
    row = measured(data)
    assert row["error"]
    assert row["bytes"] == len(data)


def test_missing_file_gives_a_row(tmp_path):
    assert "FileNotFoundError" in measured(tmp_path / "gone.jpg")["error"]


@pytest.mark.parametrize("radius", [0, 1, 4, 9])
def test_near_pairs_are_all_pairs_of_a_brute_force_search(radius, monkeypatch):
    monkeypatch.setattr("deepfake_detectors.data.lint.duplicates.CELLS", 40)
    generator = np.random.default_rng(radius)
    hashes = generator.integers(0, 2**64, 120, dtype=np.uint64)
    for place in range(60):  # near copies of these follow, 0 to 11 bits away
        copy = hashes[place]
        for bit in generator.choice(64, place % 12, replace=False):
            copy ^= np.uint64(1) << np.uint64(bit)
        hashes[60 + place] = copy
    found = [
        (min(i, j), max(i, j), d)
        for left, right, distance in near_pairs(hashes, radius)
        for i, j, d in zip(left.tolist(), right.tolist(), distance.tolist(), strict=True)
    ]
    expected = {
        (i, j, (int(hashes[i]) ^ int(hashes[j])).bit_count())
        for i in range(120)
        for j in range(i + 1, 120)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= radius
    }
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert len(expected) > radius


def test_rank_auc_is_the_auc():
    generator = np.random.default_rng(0)
    truth, values = generator.integers(0, 2, 50), generator.integers(0, 9, 50).astype(float)  # with ties
    assert rank_auc(truth, values) == pytest.approx(auc(truth, values))
    assert rank_auc(np.ones(3, dtype=int), values[:3]) is None


def test_radius_is_limited():
    with pytest.raises(ValueError, match="radius is 16, expected 0 to 15"):
        next(near_pairs(np.zeros(2, dtype=np.uint64), 16))


def test_hashes_are_those_of_imagehash_however_many_are_measured_at_once():
    import imagehash

    sides = [(48, 48)] * 5 + [(50, 31), (48, 48), (33, 60), (33, 60), (700, 700), (1, 1), (48, 48), (48, 48), (48, 48)]
    pictures = [Picture(str(n), "train", "real", content(n, side), "a.jpg") for n, side in enumerate(sides)]
    rows = Measuring().rows(pictures)
    for picture, row in zip(pictures, rows, strict=True):
        image = Image.open(io.BytesIO(picture.content)).convert("RGB")
        bits = imagehash.phash(image).hash
        assert row["perceptual_hash"] == int("".join(str(int(bit)) for bit in bits.flatten()), 2)
        assert row == measure(picture)


def test_a_file_in_several_rows_is_decoded_once(tmp_path, monkeypatch):
    decoded = []
    load = measures.load_stored_image
    monkeypatch.setattr(
        measures, "load_stored_image", lambda data, **options: decoded.append(1) or load(data, **options)
    )
    first, second = content(1), content(2)
    path = tmp_path / "b.jpg"
    path.write_bytes(first)
    measuring = Measuring(kept=1)
    listed = [("a", first, "a.jpg"), ("b", path, "b.png"), ("c", second, "c.jpg"), ("d", first, "d.jpg")]
    rows = measuring.rows([Picture(name, "train", "real", data, file) for name, data, file in listed])
    assert len(decoded) == 2
    assert [row["extension"] for row in rows] == [".jpg", ".png", ".jpg", ".jpg"]
    assert len({row["file_digest"] for row in rows}) == len({row["perceptual_hash"] for row in rows}) == 2
    assert measuring.rows([Picture("e", "test", "fake", second, "e.jpg")])[0]["split"] == "test"
    assert len(decoded) == 2
    measuring.rows([Picture("f", "train", "real", first, "f.jpg")])  # no more than `kept` are remembered
    assert len(decoded) == 3


def test_categories_by_number_give_the_answers_of_categories_by_name():
    """Also with more than the twenty that are told apart, rare ones, and ones that a fold has not seen."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    generator = np.random.default_rng(0)
    count = 150
    part = pd.DataFrame({name: generator.integers(0, 3, count).astype(str) for name in CATEGORY_COLUMNS})
    part["jpeg_tables"] = [f"t{number}" for number in (generator.exponential(9, count)).astype(int)]
    part["metadata"] = part["metadata"].where(generator.random(count) < 0.7, None)
    for name in NUMBER_COLUMNS:
        part[name] = generator.integers(0, 50, count)
    truth = ((part["format"] == "1") ^ (generator.random(count) < 0.3)).to_numpy(dtype=np.int64)
    groups = np.array([str(number // 2) for number in range(count)])
    assert part["jpeg_tables"].nunique() > 20
    named = part[CATEGORY_COLUMNS].astype("object").where(part[CATEGORY_COLUMNS].notna(), "none").astype(str)
    named[NUMBER_COLUMNS] = part[NUMBER_COLUMNS].astype(np.float64)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", max_categories=20), CATEGORY_COLUMNS),
        ("passthrough", NUMBER_COLUMNS),
    )
    forest = RandomForestClassifier(30, min_samples_leaf=3, max_depth=8, class_weight="balanced", random_state=0)
    cut = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    expected = cross_val_predict(
        make_pipeline(columns, forest), named, truth, groups=groups, cv=cut, method="predict_proba"
    )
    assert np.array_equal(_out_of_fold(part, truth, groups, 5), expected[:, 1])
