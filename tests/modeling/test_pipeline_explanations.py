"""Explanations come with the row they belong to, and only where they were asked for."""

import pytest
from PIL import Image
from transformers import pipeline

from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det_llm

TASK = "deepfake-detection"
TOLERANCE = 1e-5  # on P(fake): batches of another size add up in another order


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(folder / f"{index}.png") for index in range(3)]
    for picture, path in zip(random_pictures(3), paths, strict=True):
        picture.save(path)
    return paths


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> DeepfakeDetectionPipeline:
    folder = tiny_m2f2_det_llm(tmp_path_factory.mktemp("explainer"))
    return pipeline(TASK, model=str(folder), generate_kwargs={"max_new_tokens": 8}, explain=True)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_explanations_in_their_places(explainer, paths: list[str], batch_size: int) -> None:
    alone = [explainer(path) for path in paths]
    rows = explainer([paths[0], "missing.png", *paths[1:]], batch_size=batch_size, on_error="record")
    assert "error" in rows.pop(1)
    assert [row["explanation"] for row in rows] == [row["explanation"] for row in alone]
    assert [row["explanation_verdict"] for row in rows] == [row["explanation_verdict"] for row in alone]
    assert [row["fake_probability"] for row in rows] == pytest.approx(
        [row["fake_probability"] for row in alone], abs=TOLERANCE
    )
    assert all(isinstance(row["explanation"], str) for row in rows)
    assert len({row["explanation"] for row in rows}) > 1, "equal texts could not show a mistaken order"


def test_an_explanation_only_where_asked_for(explainer, paths: list[str]) -> None:
    verdict = explainer(paths[0], explain=False)
    assert verdict["explanation"] is None and verdict["explanation_verdict"] is None
    assert verdict["fake_probability"] == pytest.approx(explainer(paths[0])["fake_probability"], abs=TOLERANCE)


def test_a_question_changes_the_explanation(explainer, paths: list[str]) -> None:
    own = explainer(paths[0])["explanation"]
    asked = explainer(paths[0], question="What about the eyes?")["explanation"]
    assert asked != own
    features = explainer.processor(images=Image.open(paths[0]))
    direct = explainer.model.explain(
        explainer.processor, question="What about the eyes?", max_new_tokens=8, **features
    )
    assert asked == direct.explanations[0]


@pytest.mark.parametrize(("threshold", "verdict"), [(0.0, "fake"), (1.0, "real")])
def test_the_question_is_about_the_verdict_that_the_label_shows(explainer, paths, threshold, verdict) -> None:
    row = explainer(paths[0], threshold=threshold)
    question = explainer.processor.explanation_question.format(verdict=verdict)
    assert row["label"] == verdict
    assert row["explanation"] == explainer(paths[0], question=question)["explanation"]
