"""DD-VQA in a clone of M2F2-Det's repository: zipped pictures, and the conversations of stage 3."""

import json
import zipfile

import pytest

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.data.registry import make_builder
from deepfake_detectors.evaluation.evaluate import evaluate
from support.ddvqa_tree import stems, training_conversations, write_clone, write_tree
from support.tiny_clip_probe import tiny_clip_probe

TRAIN = stems(range(3), "01")
TEST = stems(range(10, 12), "03")
JUDGE = "Do the image looks real or fake?"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clone(tmp_path):
    return write_clone(tmp_path / "M2F2_Det", TRAIN, TEST)


def archive_of(clone, level="c40"):
    return clone / "utils" / "DDVQA_images" / f"{level}.zip"


def without_image(row):
    return {name: value for name, value in row.items() if name != "image"}


def test_zipped_pictures_give_the_rows_of_the_unpacked_layout(clone, tmp_path):
    tree = write_tree(tmp_path / "ddvqa", TRAIN, TEST)
    for config, split in (("c40", "train"), ("c40", "test"), ("c23", "test"), ("c40_judge", "train")):
        zipped, plain = load_split("ddvqa", split, clone, config), load_split("ddvqa", split, tree, config)
        assert sorted(zipped["id"]) == sorted(plain["id"])
        rows = {row["id"]: row for row in plain}
        for row in zipped:
            assert without_image(row) == without_image(rows[row["id"]])
            assert row["image"].tobytes() == rows[row["id"]]["image"].tobytes()


def test_evaluate_takes_a_clone(clone, tmp_path):
    """As it is: nothing is unpacked."""
    results = evaluate(tiny_clip_probe(tmp_path / "model"), dataset="ddvqa", data_dir=clone, resamples=0)
    assert {row.id for row in results.predictions} == set(load_split("ddvqa", "test", clone)["id"])
    assert not results.failures and len(results.predictions) == len(TEST)
    assert not (clone / "utils" / "DDVQA_images" / "c40").exists()


def test_folders_unpacked_beside_the_zip_are_read_instead(clone):
    with zipfile.ZipFile(archive_of(clone)) as archive:
        archive.extractall(clone / "utils" / "DDVQA_images")
    archive_of(clone).write_bytes(b"not read")
    assert len(load_split("ddvqa", "train", clone, "c40")) == len(TRAIN)


def test_the_folder_utils_may_be_given_itself(clone):
    assert len(load_split("ddvqa", "test", clone / "utils", "c40_explain")) == 3 * len(TEST)


def test_conversations_of_several_turns(clone):
    rows = load_split("ddvqa", "train", clone, "c40_converse")
    assert len(rows) == 3 * len(TRAIN)
    row = next(row for row in rows if row["id"].endswith("/5_000/converse/2"))
    assert row["messages"] == [
        {"role": "user", "content": JUDGE},
        {"role": "assistant", "content": "The image looks real."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "The skin is smooth."},
    ]
    assert (row["question"], row["answer"]) == (JUDGE, "The image looks real.")


def test_explanations_of_a_clone_are_those_of_its_conversations(clone):
    rows = load_split("ddvqa", "train", clone, "c40_explain")
    assert len(rows) == 2 * len(TRAIN)
    assert set(rows["answer"]) == {"The skin is smooth."}
    assert JUDGE not in rows["question"]


def test_reworded_questions_stand_in_where_the_list_is_missing(tmp_path):
    root = write_tree(tmp_path / "ddvqa", TRAIN, TEST)
    for path in (root / "annotations" / "train_set").glob("*/*.json"):
        path.write_text(
            path.read_text().replace("Does the skin look fake?", "Does the person's skin looks real/fake?")
        )
    rows = load_split("ddvqa", "train", root, "c40_converse")
    assert len(rows) == 3 * len(TRAIN)  # two judgements and one reworded question each
    assert sum(question.startswith("The skin in the image is ") for question in rows["question"]) == len(TRAIN)
    builder = make_builder("ddvqa", root, "c40_converse")
    builder.inspect(root)
    assert any("train_DDVQA_format.json" in finding.message for finding in builder.findings)


@pytest.mark.parametrize("name", ["c40/train/holiday.jpg", "c40/test/7_000_001.jpg"])
def test_a_foreign_picture_in_the_zip_is_named(clone, name):
    with zipfile.ZipFile(archive_of(clone), "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match=rf"c40\.zip::{name} starts with type"):
        load_split("ddvqa", "train", clone, "c40")


def test_pictures_beside_the_splits_are_reported(clone):
    with zipfile.ZipFile(archive_of(clone), "a") as archive:
        archive.writestr("c40/images_all/5_000.jpg", b"x")
    builder = make_builder("ddvqa", clone, "c40")
    builder.inspect(clone)
    assert any("images_all/5_000.jpg" in finding.message for finding in builder.findings)


def test_broken_or_hostile_archives_are_named(clone):
    archive_of(clone).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"c40\.zip cannot be read as zip"):
        load_split("ddvqa", "train", clone, "c40")
    with zipfile.ZipFile(archive_of(clone), "w") as archive:
        archive.writestr("c40/train/../../../5_000.jpg", b"x")
    with pytest.raises(ValueError, match=r"\.\./"):
        load_split("ddvqa", "train", clone, "c40")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["conversations"].pop(), "expected questions from human"),
        (lambda record: record["conversations"].reverse(), "expected questions from human"),
        (lambda record: record["conversations"].clear(), "expected questions from human"),
        (lambda record: record.pop("image"), "should have an image and conversations"),
        (lambda record: record["conversations"][1].update(value="The image looks fake."), "5_000 "),
    ],
)
def test_records_of_another_form_are_named(clone, change, message):
    records = training_conversations(TRAIN)
    change(records[0])
    (clone / "utils" / "DDVQA_split" / "c40" / "train_DDVQA_format.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match=message):
        load_split("ddvqa", "train", clone, "c40_converse")
