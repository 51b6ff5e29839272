import json

import pytest

from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction, check_ids, read_frame_scores, read_predictions
from deepfake_detectors.evaluation.protocols import DEFAULT_PROTOCOL, PROTOCOLS, evaluate_rows, get_protocol
from deepfake_detectors.evaluation.protocols.fakevlm import fakevlm_verdict, with_coin
from deepfake_detectors.evaluation.protocols.lvlm_dfd import lvlm_dfd_verdicts
from support.golden_files import golden_folder

QUICK = Settings(resamples=20)


def texts(pairs, **extra):
    return [Prediction(str(n), label, text=text, **extra) for n, (label, text) in enumerate(pairs)]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_every_protocol_says_what_it_is(protocol):
    told = json.loads(json.dumps(protocol.describe()))
    assert set(told["metrics"].values()) <= {"higher", "lower"} and told["metrics"]
    assert told["source"] and told["positive_class"]
    assert bool(told["defects"]) == (protocol.name != DEFAULT_PROTOCOL)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_results_name_only_declared_metrics(protocol):
    rows = [
        Prediction(
            f"{method}{n}",
            label,
            score=(n % 7) / 10 + (label == "fake") * 0.2,
            text=f"This is a {label} image.",
            manipulation=method,
            video_id=f"{method}/{n // 25}",
        )
        for label, method in (("real", "real"), ("fake", "swap"))
        for n in range(75)
    ]
    results = evaluate_rows(rows, protocol, QUICK)
    assert set(results["metrics"]) <= set(protocol.metrics)
    assert set(results["defects"]) <= set(protocol.defects)
    if protocol.name == DEFAULT_PROTOCOL:
        assert "corrected" not in results and results["videos"]["trimmed"]["videos"] == 6
        swap = results["per_manipulation"]["swap"]
        assert swap["auc"] == results["metrics"]["auc"]["value"]  # the only method
        assert swap["auc_interval"] == {key: results["metrics"]["auc"][key] for key in ("low", "high")}
    else:
        assert set(results["corrected"]["metrics"]) <= set(PROTOCOLS[DEFAULT_PROTOCOL].metrics)
        assert results["defects"]
    json.dumps(results, allow_nan=False)


def test_bootstrap_draws_the_widest_known_unit():
    def rows(**extra):
        return [
            Prediction(
                str(n),
                "fake" if n % 8 > 3 else "real",
                score=(n * 5 % 16) / 16,
                **{key: f"{key}{n // 4}" for key in extra},
            )
            for n in range(16)
        ]

    found = {
        by: evaluate_rows(rows(**dict.fromkeys(keys)), get_protocol("corrected"), QUICK)["bootstrap"]["by"]
        for by, keys in {"picture": (), "video": ["video_id"], "group": ["video_id", "group_id"]}.items()
    }
    assert found == {"picture": "picture", "video": "video", "group": "group of shared source material"}
    frames = evaluate_rows(rows(video_id=None), get_protocol("corrected"), Settings(resamples=200))
    alone = evaluate_rows(rows(), get_protocol("corrected"), Settings(resamples=200))
    assert frames["metrics"]["auc"]["value"] == alone["metrics"]["auc"]["value"]
    assert frames["metrics"]["auc"]["low"] != alone["metrics"]["auc"]["low"]


def test_unknown_protocol():
    with pytest.raises(ValueError, match=r"'paper:gpt', allowed are corrected, paper:m2f2_det, paper:fakevlm"):
        get_protocol("paper:gpt")


def test_fakevlm_rule_gives_the_published_verdicts():
    path = golden_folder("fakevlm") / "verdict_cases.jsonl"
    for case in map(json.loads, path.read_text().splitlines()):
        found = fakevlm_verdict(case["text"], holds_prompt=case["rule"] == "full_decode")
        assert (found or "undetermined") == case["label"], case


def test_lvlm_dfd_rule_gives_the_published_verdicts():
    for case in json.loads((golden_folder("lvlm_dfd") / "verdict_cases.json").read_text())["cases"]:
        (found,) = lvlm_dfd_verdicts([case["response"]])
        assert found == {0: "real", 1: "fake", None: None}[case["pred"]], case


def test_lvlm_dfd_answer_without_a_hit_has_the_verdict_before_it():
    assert lvlm_dfd_verdicts(["Hm.", "Yes.", "Hm.", "pristine", ""]) == [None, "fake", "fake", "real", "real"]


def test_coin_is_seeded_and_fair():
    silent = [None] * 400
    assert with_coin(silent, 3) == with_coin(silent, 3) != with_coin(silent, 4)
    assert 150 < with_coin(silent).count("fake") < 250
    assert with_coin(["real", None, "fake"])[::2] == ["real", "fake"]


def test_fakevlm_positive_class_is_real():
    rows = texts([("real", "This is a real image.")] * 3 + [("real", "fake")] + [("fake", "It is not real.")])
    results = evaluate_rows(rows, get_protocol("paper:fakevlm"), QUICK)
    values = {name: entry["value"] for name, entry in results["metrics"].items()}
    assert values["accuracy_real"] == 3 / 4 and values["accuracy_fake"] == 0.0
    assert values["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert values["f1_fake"] == 0.0 and values["f1_macro"] == values["f1"] / 2
    assert results["coins"] == {"thrown": 0, "seed": 0}


def test_fakevlm_coins_can_be_right_and_are_corrected_to_wrong():
    rows = texts([("fake", "I cannot tell.")] * 40, category="animal")
    results = evaluate_rows(rows, get_protocol("paper:fakevlm"), QUICK)
    assert results["coins"]["thrown"] == 40 and results["metrics"]["accuracy"]["value"] > 0.2
    assert results["per_category"]["animal"]["count"] == 40
    assert results["metrics"]["f1"]["value"] is None
    assert results["corrected"]["metrics"]["accuracy"]["value"] == 0.0


def test_antifakeprompt_average_weighs_sets_alike():
    rows = [Prediction(f"r{n}", "real", 0.1, category="COCO") for n in range(8)]
    rows += [Prediction("f", "fake", 0.9, category="SD3"), Prediction("g", "fake", 0.4, category="LaMa")]
    results = evaluate_rows(rows, get_protocol("paper:antifakeprompt"), QUICK)
    assert {name: row["accuracy"] for name, row in results["per_set"].items()} == {"COCO": 1, "LaMa": 0, "SD3": 1}
    assert results["metrics"]["average"]["value"] == pytest.approx(2 / 3)
    assert results["corrected"]["metrics"]["accuracy"]["value"] == 0.9
    with pytest.raises(ValueError, match="'COCO'"):
        evaluate_rows(
            [*rows, Prediction("x", "fake", 0.9, category="COCO")], get_protocol("paper:antifakeprompt"), QUICK
        )


def test_lvlm_dfd_reports_what_it_has():
    rows = [Prediction("a", "real", 0.2, "No, it is pristine."), Prediction("b", "fake", 0.7, "Another deepfake.")]
    results = evaluate_rows(rows, get_protocol("paper:lvlm_dfd"), QUICK)
    assert results["metrics"]["auc"]["value"] == 1.0
    assert results["metrics"]["text_accuracy"]["value"] == 0.5  # "not" in "Another"
    results = evaluate_rows(texts([("real", "No"), ("fake", "Yes")]), get_protocol("paper:lvlm_dfd"), QUICK)
    assert results["metrics"]["text_accuracy"]["value"] == 1.0
    assert "score" in results["undefined"]["auc"]


def test_polarity_of_integer_labels_is_the_protocols(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "label": 1, "text": "x", "cate": "deepfake"}\n')
    found = {
        name: read_predictions(path, protocol.integer_labels)[0].label
        for name, protocol in PROTOCOLS.items()
        if protocol.integer_labels
    }
    assert found == {"paper:fakevlm": "real", "paper:antifakeprompt": "fake", "paper:lvlm_dfd": "fake"}
    assert read_predictions(path, {1: "fake"})[0].category == "deepfake"
    with pytest.raises(ValueError, match="label of a is 1"):
        read_predictions(path)


def test_predictions_survive_a_round_trip(tmp_path):
    rows = [Prediction("a\u2028b", "fake", 0.1 + 0.2, "t\n", "swap", "face", "v", "g"), Prediction("c", "real", 0.0)]
    (tmp_path / "p.jsonl").write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    assert read_predictions(tmp_path / "p.jsonl") == rows


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image_id,truth\n", "expected image_id, ground_truth, prediction"),
        ("image_id,ground_truth,prediction\n", "is empty"),
        ("image_id,ground_truth,prediction\nv_0,fake,0.5\n", "line 2: ground_truth is 'fake'"),
        ("image_id,ground_truth,prediction\nv_0,1,high\n", "line 2: prediction is 'high'"),
        ("image_id,ground_truth,prediction\nv_0,1,nan\n", "line 2: prediction is nan"),
    ],
)
def test_broken_frame_scores(tmp_path, table, message):
    (tmp_path / "f.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        read_frame_scores(tmp_path / "f.csv")


def test_check_ids():
    check_ids(["a", "b"], ["b", "a", "a"])
    with pytest.raises(ValueError, match=r"^1 predictions .*\bc\b"):
        check_ids(["a", "c"], ["a", "b"])
    with pytest.raises(ValueError, match=r"^1 of 2 .*\bb\b"):
        check_ids(["a"], ["a", "b"])


def test_method_is_ranked_against_all_reals():
    scores = {"real1": 0.1, "real2": 0.6, "A": 0.5, "B": 0.9}
    rows = [
        Prediction(name, "real" if name.startswith("real") else "fake", score, manipulation=name, group_id=name)
        for name, score in scores.items()
    ]
    table = evaluate_rows(rows, get_protocol("corrected"), QUICK)["per_manipulation"]
    assert (table["A"]["auc"], table["B"]["auc"]) == (0.5, 1.0)
