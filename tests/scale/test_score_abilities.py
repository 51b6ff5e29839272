"""Explanations of the top share, masks beside the verdicts, and named heads."""

import numpy as np
from PIL import Image

import deepfake_detectors as dfd
from support.tiny_clip_probe import tiny_clip_probe
from support.tiny_models import tiny_lvlm_dfd, tiny_m2f2_det_llm


def test_explanations_of_the_top_share(photos, tmp_path) -> None:
    model = tiny_m2f2_det_llm(tmp_path / "llm")
    run = dfd.score(photos, tmp_path / "out", model=model, unit_rows=4, explain_top=0.3, max_new_tokens=3)
    rows = run.read().to_pylist()
    scores = sorted((row["first_probability"] for row in rows if row["error"] is None), reverse=True)
    for row in rows:
        wanted = row["error"] is None and row["first_probability"] >= scores[2]
        assert (row["explanation"] is not None) == wanted
    assert run.cascade["explained"] == run.cascade["chosen"] == sum(row["explanation"] is not None for row in rows)
    assert dfd.score(photos, tmp_path / "out", model=model, unit_rows=4, explain_top=0.3, max_new_tokens=3).cascade[
        "judged_now"
    ] == {"first": 0, "second": 0}


def test_masks_lie_beside_the_verdicts(photos, tmp_path) -> None:
    model = tiny_lvlm_dfd(tmp_path / "lvlm")
    run = dfd.score(photos, tmp_path / "out", model=model, unit_rows=4, localize=True)
    pipe = dfd.pipeline(model=str(model), device="cpu")
    for row in run.read().to_pylist():
        if row["error"] is not None:
            assert row["mask"] is None
            continue
        mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]), int)
        expected = np.asarray(pipe(row["source"], localize=True)["mask"], int)
        assert mask.shape == expected.shape and np.abs(mask - expected).max() <= 1
    # When an image changes, the masks of its old unit go.
    before = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    (photos / "broken.png").write_bytes((photos / "1.png").read_bytes())
    dfd.score(photos, tmp_path / "out", model=model, unit_rows=4, localize=True)
    after = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    assert len(after) == 3 and len(after & before) == 2


def test_a_named_head(photos, tmp_path) -> None:
    model = tiny_clip_probe(tmp_path / "probe")
    run = dfd.score(photos, tmp_path / "out", model=model, head="face", batch_size=4)
    pipe = dfd.pipeline(model=str(model), device="cpu")
    for row in run.read().to_pylist():
        if row["error"] is None:
            expected = pipe(row["source"], head="face")
            assert row["head"] == "face" and abs(row["fake_probability"] - expected["fake_probability"]) < 1e-5
