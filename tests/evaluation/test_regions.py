"""Agreement of named regions with true masks."""

import numpy as np
from PIL import Image

from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.regions import score_regions
from deepfake_detectors.modeling.regions_lvlm_dfd import region_area, verdict_answer
from deepfake_detectors.train.sft_families import LVLM_DFD


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
