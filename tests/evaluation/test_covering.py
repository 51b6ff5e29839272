"""A verdict that rests on the region it names falls when that is covered, and not when another is."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_detectors.evaluation.covering import COVERING, cover, covered_sets, covering_results, moved_area
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.modeling.regions_lvlm_dfd import REGIONS, region_area, verdict_answer
from deepfake_detectors_cli import app
from support.tiny_models import tiny_lvlm_dfd_llm

SIDE = 96


def picture(region):
    """Grey, and red where it was forged."""
    pixels = np.full((SIDE, SIDE, 3), 100, dtype=np.uint8)
    pixels[region_area(region, SIDE, SIDE)] = (255, 0, 0)
    return Image.fromarray(pixels)


def redness(image):
    pixels = np.asarray(image).astype(float)
    return float(((pixels[..., 0] - pixels[..., 1]) > 100).mean() > 0.005)


def judged(said):
    """Forged at the nose, judged by what is red, explained by `said` of each picture."""
    images = [picture("nose") for _ in said]
    rows = [Prediction(str(place), "fake") for place in range(len(said))]
    before = [
        Prediction(row.id, "fake", redness(image), text=verdict_answer(True, names) if names else "It looks fake.")
        for row, image, names in zip(rows, images, said, strict=True)
    ]
    found = covered_sets(PictureSet("drawn", rows, images), before)
    after = {
        kind: [Prediction(row.id, "fake", redness(part.images[place])) for place, row in enumerate(part.rows)]
        for kind, part in found.sets.items()
    }
    content = covering_results(before, after, found.counts, Settings(resamples=20))
    return content["counts"], {name: entry["value"] for name, entry in content["metrics"].items()}


def test_a_detector_that_means_what_it_says():
    counts, values = judged([["nose"]] * 6)
    assert values == {"score_drop": 1.0, "score_drop_of_control": 0.0, "score_drop_beyond_control": 1.0}
    assert counts == {"naming a region": 6, "no place for the control": 0, "judged again": 6}


def test_a_detector_that_names_something_else():
    _, values = judged([["left jaw"]] * 12)
    assert values["score_drop"] == 0.0 and values["score_drop_of_control"] > 0  # the nose, now and then
    assert values["score_drop_beyond_control"] == -values["score_drop_of_control"]


def test_what_cannot_be_compared_is_counted():
    counts, values = judged([["full face"], [], ["nose"]])
    assert counts == {"naming a region": 2, "no place for the control": 1, "judged again": 1}
    counts, values = judged([[], ["full face"]])
    assert set(values.values()) == {None} and counts["judged again"] == 0


@pytest.mark.parametrize("names", [[name] for name in REGIONS[:8]] + [["left eye", "right eye"]])
def test_the_control_covers_as_much_elsewhere(names):
    rows = [Prediction(str(place), "fake") for place in range(5)]
    said = [Prediction(row.id, "fake", 0.5, text=verdict_answer(True, names)) for row in rows]
    images = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8))] * 5
    found = covered_sets(PictureSet("drawn", rows, images), said).sets
    area = np.logical_or.reduce([region_area(name, 80, 64) for name in names])
    for place in range(5):
        near, far = (
            (np.asarray(found[kind].images[place]) != np.asarray(images[place])).any(axis=2)
            for kind in ("named", "elsewhere")
        )
        assert (near <= area).all() and near.sum() == pytest.approx(area.sum(), rel=0.02)
        assert far.sum() == pytest.approx(near.sum(), rel=0.05) and (near & far).sum() <= 0.15 * near.sum()


def test_cover_and_move():
    area = np.zeros((SIDE, SIDE), dtype=bool)
    area[10:20, 10:20] = True
    moved = moved_area(area, "nose")
    middle = np.argwhere(moved).mean(axis=0)
    assert moved.sum() == 100 and middle == pytest.approx([0.58 * SIDE, 0.5 * SIDE], abs=1)
    covered = np.asarray(cover(Image.new("L", (SIDE, SIDE), 7), area))
    assert covered.shape == (SIDE, SIDE, 3) and (covered == 7).all()


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("covering")
    for label in ("real", "fake"):
        (folder / label).mkdir()
        for place in range(2):
            picture(("nose", "left eye")[place]).save(folder / label / f"{place}.png")
    tiny_lvlm_dfd_llm(folder / "tiny")
    return folder


def test_of_evaluate(given):
    output = given / "out"
    words = [str(given / "tiny"), "--real-dir", str(given / "real"), "--fake-dir", str(given / "fake")]
    words = ["evaluate", "--model", *words, "--explain", "--max-new-tokens", "2", "--cover-regions"]
    result = CliRunner().invoke(app, [*words, "--resamples", "5", "--device", "cpu", "--output", str(output)])
    assert result.exit_code == 0, result.stderr
    # A random model names no region; told to, it is judged again, and the same call finds everything done.
    part = json.loads((output / "results.json").read_text())[COVERING]
    assert part["counts"]["judged again"] == 0 and part["metrics"]["score_drop"]["value"] is None
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        line["text"] = verdict_answer(True, ["nose"])
    (output / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for place in (output / COVERING).glob("*/*.json*"):
        place.unlink()
    options = {"explain": True, "max_new_tokens": 2, "cover_regions": True, "resamples": 5, "device": "cpu"}
    folders = {"real_dir": given / "real", "fake_dir": given / "fake"}
    results = evaluate(given / "tiny", **folders, **options, output=output)
    assert results.content[COVERING]["counts"]["judged again"] == 4
    assert results.metrics and results.content[COVERING]["metrics"]["score_drop"]["low"] is not None
    results.save(output)
    assert "## Covering" in (output / "report.md").read_text()


def test_it_belongs_to_explanations(given):
    with pytest.raises(ValueError, match="`cover_regions`"):
        evaluate(given / "tiny", real_dir=given / "real", cover_regions=True)
