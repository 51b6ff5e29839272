"""The published evaluation of M2F2-Det, from its own prediction files (these need the real data) and frame scores."""

import csv
import json
from pathlib import Path

import pytest

from deepfake_detectors.evaluation.metrics import auc
from deepfake_detectors.evaluation.predictions import read_answers, read_references
from deepfake_detectors.evaluation.protocols.m2f2_det import score_explanations, score_judgements
from deepfake_detectors.evaluation.texts import explanation_metrics
from deepfake_detectors.evaluation.videos import (
    aggregate_videos,
    official_video_metrics,
    official_videos,
    video_metrics,
)
from support.golden_files import golden_folder
from support.real_data import MISSING, ROOT, real_data

GOLDENS = golden_folder("m2f2_det")
OFFICIAL = json.loads((GOLDENS / "ddvqa_official_eval.json").read_text())
VIDEO = json.loads((GOLDENS / "metrics" / "expected.json").read_text())
EXACT = 1e-12


@pytest.fixture(scope="module")
def ddvqa() -> Path:
    if not ROOT:
        pytest.skip(MISSING)
    return real_data("ddvqa")


@pytest.fixture(scope="module")
def judgement(ddvqa):
    return score_judgements(read_answers(ddvqa / "predictions" / Path(OFFICIAL["judgement"]["file"]).name), 200)


@pytest.fixture(scope="module")
def files(ddvqa):
    name = Path(OFFICIAL["explanation"]["file"].split(" vs ")[0]).name
    return read_answers(ddvqa / "predictions" / name), read_references(ddvqa / "splits" / "test_explanation.jsonl")


@pytest.fixture(scope="module")
def explanation(files):
    return score_explanations(*files)


@pytest.mark.parametrize("name", ["accuracy", "f1", "precision", "recall"])
def test_m2f2_det_judgement_metric(judgement, name):
    assert judgement["metrics"][name]["value"] == pytest.approx(OFFICIAL["judgement"][name], abs=EXACT)


def test_m2f2_det_judgement_counts(judgement):
    expected = OFFICIAL["judgement"]
    assert judgement["counts"] == {"answers": expected["n"], "scored": expected["n"], "skipped": 0}
    assert {name: judgement["confusion"][name] for name in expected["confusion"]} == expected["confusion"]
    assert judgement["positive_class"] == expected["positive_class"]


def test_m2f2_det_judgement_per_manipulation(judgement):
    expected = dict(OFFICIAL["judgement"]["per_manipulation_correct_total"])
    expected["real"] = expected.pop("Original")
    found = {name: [row["correct"], row["count"]] for name, row in judgement["per_manipulation"].items()}
    assert found == expected


def test_m2f2_det_corrected_judgement_counts_whole_words(judgement):
    expected = OFFICIAL["judgement"]["whole_word_parse_instead"]
    corrected = judgement["corrected"]
    assert corrected["metrics"]["accuracy"]["value"] == pytest.approx(expected["accuracy"], abs=EXACT)
    assert sum(row["correct"] for row in corrected["per_manipulation"].values()) == expected["correct"]
    assert sum(row["undetermined"] for row in corrected["per_manipulation"].values()) == expected["unparsed"]
    assert corrected["metrics"]["accuracy"]["low"] < expected["accuracy"] < corrected["metrics"]["accuracy"]["high"]


@pytest.mark.parametrize("name", ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"])
def test_m2f2_det_explanation_metric(explanation, name):
    assert explanation["metrics"][name]["value"] == pytest.approx(OFFICIAL["explanation"][name], abs=EXACT)


def test_m2f2_det_explanation_bleu_is_the_mean_of_four(explanation):
    expected = OFFICIAL["explanation"]["Bleu_printed_as_mean_of_1_to_4"]
    assert explanation["metrics"]["Bleu"]["value"] == pytest.approx(expected, abs=EXACT)
    assert explanation["counts"]["explanations"] == OFFICIAL["explanation"]["n"]


def test_m2f2_det_explanation_names_what_was_not_run(explanation):
    assert explanation["metrics"]["SPICE"]["value"] is OFFICIAL["explanation"]["SPICE"] is None
    assert set(explanation["undefined"]) == {"METEOR", "SPICE"}
    assert "Java" in explanation["undefined"]["SPICE"]


def test_m2f2_det_corrected_explanations_ignore_case_and_punctuation(explanation, files):
    answers, references = files
    shouted = {str(answer.key): answer.clean_text.upper().replace(".", " !") for answer in answers}
    assert explanation_metrics(shouted, references).value("ROUGE_L") < 0.1
    corrected = score_explanations(
        [type(answer)(answer.stem, shouted[str(answer.key)], answer.key) for answer in answers], references
    )["corrected"]
    assert corrected["metrics"]["ROUGE_L"] == explanation["corrected"]["metrics"]["ROUGE_L"]
    assert corrected["metrics"]["ROUGE_L"]["value"] > OFFICIAL["explanation"]["ROUGE_L"]


@pytest.fixture(scope="module")
def frames():
    with (GOLDENS / "metrics" / "frame_scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    videos = [row["image_id"].rsplit("_", 1)[0] for row in rows]
    return videos, [int(row["ground_truth"]) for row in rows], [float(row["prediction"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "expected"), [("auc", "official_auc"), ("best_threshold_accuracy", "official_best_threshold_accuracy")]
)
def test_m2f2_det_official_video_metric(frames, name, expected):
    assert official_video_metrics(*frames).value(name) == pytest.approx(VIDEO[expected], abs=EXACT)


@pytest.mark.parametrize(("aggregation", "expected"), [("trimmed", "auc_trimmed"), ("mean", "auc_plain_mean")])
def test_m2f2_det_corrected_video_auc(frames, aggregation, expected):
    videos, real, scores = frames
    names, labels, pooled = aggregate_videos(videos, real, scores, aggregation)
    assert len(names) == VIDEO["corrected"]["n_videos"]
    assert auc(labels, pooled) == pytest.approx(VIDEO["corrected"][expected], abs=EXACT)
    # The other polarity, which is the one of this package, ranks the same.
    fake = video_metrics(videos, [1 - value for value in real], [1 - value for value in scores])[aggregation]
    assert fake["metrics"]["auc"]["value"] == pytest.approx(VIDEO["corrected"][expected], abs=EXACT)


def test_m2f2_det_frame_auc(frames):
    _, real, scores = frames
    assert auc(real, scores) == pytest.approx(VIDEO["corrected"]["frame_auc"], abs=EXACT)


def test_m2f2_det_official_labels_are_those_of_the_next_video(frames):
    videos, real, scores = frames
    truth = dict(zip(videos, real, strict=True))  # in the order of the file
    labels, pooled = official_videos(videos, real, scores)
    assert labels.tolist() == list(truth.values())[1:]
    assert len(pooled) == VIDEO["corrected"]["n_videos"] - 1
