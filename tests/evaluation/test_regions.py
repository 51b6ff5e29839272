"""Agreement of named regions with true masks."""

import json

import numpy as np
from PIL import Image

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.regions import score_regions
from deepfake_detectors.modeling.regions_lvlm_dfd import region_area, verdict_answer
from deepfake_detectors.train.sft_families import LVLM_DFD
from support.pictures import random_pictures


def mask(*names):
    return Image.fromarray((np.maximum.reduce([region_area(n, 96, 96) for n in names]) * 255).astype(np.uint8))


MASKS = {"a": mask("nose", "left eye"), "b": mask("full face"), "c": None, "r": None}


def rows(**texts):
    return [Prediction(name, "real" if name == "r" else "fake", 0.5, text=text) for name, text in texts.items()]


def test_named_regions_against_masks():
    found = score_regions(
        rows(
            a=verdict_answer(True, ["nose", "right jaw"]),
            b="The artifact is at the full face, chin.",
            c=verdict_answer(True, ["nose"]),
            r=verdict_answer(False),
        ),
        MASKS.get,
        50,
        0,
    )
    assert found["metrics"]["region_precision"]["value"] == 0.5
    assert found["metrics"]["region_recall"]["value"] == 0.75
    assert found["metrics"]["named_on_real"]["value"] == 0.0
    assert found["unknown"] == ["chin"]
    assert found["counts"] == {"forged with mask": 2, "real": 1, "naming a region": 3}


def test_evaluate_compares_the_regions_of_answers_with_the_masks(tmp_path):
    for folder in ("real", "fake", "masks"):
        (tmp_path / folder).mkdir()
    said = {"a": "nose", "b": "right jaw"}
    rows = []
    for name, picture in zip(("a", "b", "r"), random_pictures(3), strict=True):
        label = "real" if name == "r" else "fake"
        picture.save(tmp_path / label / f"{name}.png")
        answer = verdict_answer(name in said, [said[name]] if name in said else [])
        rows.append({"id": f"{label}/{name}.png", "label": label, "score": 0.5, "text": answer})
        if name in said:
            mask("nose").save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        f"{name}_dir": tmp_path / folder for name, folder in (("real", "real"), ("fake", "fake"), ("mask", "masks"))
    }
    found = evaluate(predictions=tmp_path / "said.jsonl", **given, resamples=0)
    values = {name: entry["value"] for name, entry in found.content["regions"]["metrics"].items()}
    assert values["region_precision"] == values["region_recall"] == 0.5  # one of two names it
    assert values["named_on_real"] == 0.0
    assert any(row["metric"] == "region_recall" for row in found.summary())


def test_answers_without_regions_give_no_section():
    assert score_regions(rows(a="It is fake.", r="It is real."), MASKS.get, 0, 0) is None


def test_training_answers_name_what_the_mask_covers():
    fake, real = ({"label": label, "mask": MASKS["a"]} for label in (1, 0))
    pairs = LVLM_DFD.verdict_pairs(fake)
    assert pairs[0][1] == "Yes. This is a deepfake image, the artifact is at the left eye, nose of the image."
    assert pairs[1] == (
        "How much is the forgery score?",
        "The forgery score is 100% for this image. The artifact is at the left eye, nose of the image.",
    )
    assert "artifact" not in LVLM_DFD.verdict_pairs(real)[0][1]
    assert LVLM_DFD.verdict_pairs({"label": 1})[0][1] == "Yes. This is a deepfake image."
    asked = LVLM_DFD.verdict_pairs({**fake, "question": "Why?", "answer": "Blur."})
    assert asked[1] == ("Why?", "Blur.")


def test_the_control_never_looks():
    parts = ["nose", "left eye", "right jaw", "left cheek"]
    masks = {name: mask(name) for name in parts}
    told = [Prediction(name, "fake", 0.5, text=verdict_answer(True, [name])) for name in parts]
    looks = score_regions(told, masks.get, 20, 0)["metrics"]
    assert looks["region_recall"]["value"] == 1.0 and looks["region_recall_of_control"]["value"] == 0.0
    same = [Prediction(name, "fake", 0.5, text=verdict_answer(True, ["nose"])) for name in parts]
    constant = score_regions(same, masks.get, 20, 0)["metrics"]
    assert constant["region_precision_of_control"] == constant["region_precision"]
    alone = score_regions(told[:1], masks.get, 20, 0)
    assert alone["metrics"]["region_recall_of_control"]["value"] is None
