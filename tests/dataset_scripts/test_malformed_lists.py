"""Official lists of another form are refused by name, never with a traceback."""

import json

import pytest

from deepfake_detectors.data.check import check_dataset
from deepfake_detectors.data.registry import make_builder

TURNS = [{"from": "human", "value": "q"}, {"from": "gpt"}]
CLUE = {"image": "doc/real/1.png", "cate": "doc", "label": 1, "conversations": TURNS}
SAID = [{**turn, "value": "a"} for turn in TURNS]
METADATA = "train/dfdc_train_part_0/metadata.json"
ASKED = {"image_path": "media_data/image/u.png", "question_type": "image_tf_image_real_ask_real_a", "answer": "yes"}


@pytest.mark.parametrize(
    ("dataset", "options", "file", "content", "message"),
    [
        ("dfdc", {}, METADATA, [{"a": 1}], "metadata.json is a list"),
        ("dfdc", {}, METADATA, {"a.mp4": "REAL"}, "metadata.json, a.mp4 is 'REAL'"),
        ("dfdcp", {}, "dataset.json", [], "dataset.json is a list"),
        ("loki", {}, "data_json/image/true_or_false.json", [ASKED], "record 0 (media_data/image/u.png) has question"),
        ("fakeclue", {}, "data_json/train.json", [CLUE], "record 0 (doc/real/1.png) should have one question"),
        (
            "fakeclue",
            {},
            "data_json/train.json",
            [{**CLUE, "label": [1], "conversations": SAID}],
            "(doc/real/1.png) has label [1]",
        ),
        ("deepfakebench", {"json": "x.json"}, "x.json", {"UADFV": {"UADFV_Real": [1]}}, "UADFV_Real is list"),
    ],
)
def test_malformed_list_is_a_finding(tmp_path, dataset, options, file, content, message):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    builder = make_builder(dataset, tmp_path, options=options)
    builder.log_findings = False
    assert any(item.level == "error" and message in item.message for item in check_dataset(builder).findings)
