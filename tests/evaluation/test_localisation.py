import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from deepfake_detectors.evaluation.localisation import (
    count_pixels,
    pixel_scores,
    read_counts,
    read_mask,
    score_localisation,
    write_counts,
)
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.sets import folder_set


def picture_of(values):
    return Image.fromarray(np.asarray(values, dtype=np.uint8))


def noisy(seed, size=(23, 31)):
    """A true mask with a hole, and a mask that follows it roughly."""
    generator = np.random.default_rng(seed)
    truth = np.zeros(size, dtype=np.uint8)
    truth[5:15, 8:20] = 255
    mask = np.clip(generator.normal(90 + 0.3 * truth, 40), 0, 255).astype(np.uint8)
    return mask, truth


def test_histogram_gives_the_scores_of_the_pixels():
    mask, truth = noisy(0)
    found = pixel_scores(count_pixels(picture_of(mask), picture_of(truth), "x"))
    changed, marked = (truth > 127).ravel(), (mask >= 128).ravel()
    assert found["pixel_auc"] == pytest.approx(roc_auc_score(changed, mask.ravel()), abs=1e-12)
    assert found["pixel_f1"] == pytest.approx(f1_score(changed, marked), abs=1e-12)
    assert found["iou"] == pytest.approx(jaccard_score(changed, marked), abs=1e-12)


def test_summed_histograms_are_all_pixels_together():
    pairs = [noisy(seed, size) for seed, size in ((0, (23, 31)), (1, (40, 40)))]
    total = sum(count_pixels(picture_of(mask), picture_of(truth), "x") for mask, truth in pairs)
    masks, truths = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    assert pixel_scores(total)["pixel_auc"] == pytest.approx(roc_auc_score(truths > 127, masks), abs=1e-12)


@pytest.mark.parametrize("truth", [None, np.zeros((4, 4)), np.full((4, 4), 255)])
def test_nothing_to_tell_apart(truth):
    drawn = None if truth is None else picture_of(truth)
    assert set(pixel_scores(count_pixels(picture_of(np.zeros((4, 4))), drawn, "x")).values()) == {None}


def test_masks_of_different_sizes():
    with pytest.raises(ValueError, match=r"face\.png: its true mask has 5x4 .*4x4"):
        count_pixels(picture_of(np.zeros((4, 4))), picture_of(np.zeros((4, 5))), "face.png")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA"])
def test_masks_in_any_mode_and_with_transparent_black(tmp_path, mode):
    truth = picture_of(noisy(0)[1])
    options = {"transparency": (0, 0, 0) if mode == "RGB" else 0} if mode in ("P", "RGB", "L") else {}
    drawn = truth.convert(mode)
    if mode.endswith("A"):
        drawn.putalpha(truth)
    drawn.save(tmp_path / "m.png", **options)
    content = (tmp_path / "m.png").read_bytes()
    for source in (
        str(tmp_path / "m.png"),
        {"bytes": content, "path": None},
        {"bytes": None, "path": tmp_path / "m.png"},
    ):
        np.testing.assert_array_equal(np.asarray(read_mask(source)), np.asarray(truth))


def test_what_is_no_mask(tmp_path):
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"m\.png: this mask cannot be read"):
        read_mask(str(tmp_path / "m.png"))
    with pytest.raises(ValueError, match="cannot be read"):
        read_mask(str(tmp_path / "none.png"))
    with pytest.raises(ValueError, match="goes up to 1 of 255; white must mark"):
        read_mask(picture_of(noisy(0)[1] // 255))


def test_file_of_counts(tmp_path):
    file = tmp_path / "l.jsonl"
    rows = [Prediction("a", "fake", 0.9, manipulation="swap"), Prediction("b", "fake", 0.8, manipulation="swap")]
    rows += [Prediction("c", "fake", 0.8), Prediction("r", "real", 0.1)]
    counts = {row.id: count_pixels(*map(picture_of, noisy(n)), row.id) for n, row in enumerate(rows[:2])}
    real = np.zeros((10, 10))
    real[0] = 200
    write_counts(file, {**counts, "r": count_pixels(picture_of(real), None, "r")})
    write_counts(file, {"a": counts["a"]})  # again, after a kill between the two files
    found = score_localisation(read_counts(file), rows, resamples=50, seed=0)
    assert found["counts"] == {"forged with mask": 2, "forged without": 1, "real": 1}
    each = [pixel_scores(pair) for pair in counts.values()]
    for name in ("pixel_auc", "pixel_f1", "iou"):
        assert found["metrics"][name]["value"] == pytest.approx(np.mean([entry[name] for entry in each]))
        assert found["metrics"][name]["low"] <= found["metrics"][name]["value"] <= found["metrics"][name]["high"]
        assert found["per_manipulation"]["swap"][name] == found["metrics"][name]["value"]
        assert found["metrics"][f"{name}_pooled"]["value"] == pixel_scores(sum(counts.values()))[name]
    assert found["metrics"]["marked_on_real"]["value"] == pytest.approx(0.1)
    json.dumps(found, allow_nan=False)

    alone = score_localisation(read_counts(file), rows[2:], resamples=0, seed=0)
    assert alone["metrics"]["iou"]["value"] is None and "no forged image" in alone["undefined"]["iou"]
    file.write_text('{"id": "a", "changed": {}}\n')
    with pytest.raises(ValueError, match="line 1: not the pixel counts"):
        score_localisation(read_counts(file), rows, 0, 0)


def test_masks_of_a_folder(tmp_path):
    for name in ("fake/swap/1.jpg", "fake/gan/2.png", "masks/swap/1.png", "masks/2.png", "real/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture_of(np.zeros((8, 8))).save(tmp_path / name)
    found = folder_set(tmp_path / "real", tmp_path / "fake", tmp_path / "masks")
    masks = dict(zip(found.ids, found.masks, strict=True))
    assert masks == {
        "real/1.png": None,
        "fake/gan/2.png": str(tmp_path / "masks/2.png"),
        "fake/swap/1.jpg": str(tmp_path / "masks/swap/1.png"),
    }
    (tmp_path / "masks/2.png").unlink()
    with pytest.raises(ValueError, match=r"2\.png has 0 masks in `mask_dir`"):
        folder_set(None, tmp_path / "fake", tmp_path / "masks")
    with pytest.raises(FileNotFoundError, match=r"`mask_dir` .*nowhere"):
        folder_set(None, tmp_path / "fake", tmp_path / "nowhere")
