"""FakeClue: inverted labels, zips, records without pictures and pictures without records."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from deepfake_detectors.dataset_scripts.fakeclue import FakeClue
from support.folder_tree import save

RECORDS = {
    "train": [
        ("ff++/fake/Deepfakes/c23/frames/071_054/160.png", 0, "deepfake"),
        ("ff++/real/c23/frames/071/3.png", 1, "deepfake"),
        ("doc/fake/é.jpg", 0, "doc"),
    ],
    "test": [("satellite/real/a.jpg", 1, "satellite"), ("ff++/fake/FaceSwap/c23/frames/054_071/7.png", 0, "deepfake")],
}


def entry(image, label, cate):
    text = f"This is a {'real' if label else 'fake'} image."
    turns = [{"from": "human", "value": "<image>Does the image looks real/fake?"}, {"from": "gpt", "value": text}]
    return {"image": image, "label": label, "cate": cate, "conversations": turns}


def write_lists(root, records):
    (root / "data_json").mkdir(exist_ok=True)
    for split, found in records.items():
        (root / "data_json" / f"{split}.json").write_text(json.dumps([entry(*record) for record in found]))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "fakeclue"
    for split, records in RECORDS.items():
        for image, *_ in records:
            save(folder / split / image)
    write_lists(folder, RECORDS)
    return folder


@pytest.fixture
def zipped(root):
    for split, prefix in (("train", ""), ("test", "test/")):
        with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
            for image, *_ in RECORDS[split]:
                archive.write(root / split / image, prefix + image)
        shutil.rmtree(root / split)
    return root


def make(root, tmp_path, **options):
    return FakeClue(data_dir=str(root), cache_dir=str(tmp_path / "cache"), **options)


def messages(builder, *levels):
    return [finding.message for finding in builder.findings if finding.level in levels]


@pytest.mark.parametrize("form", ["root", "zipped"])
def test_rows(form, request, tmp_path):
    folder = request.getfixturevalue(form)
    builder = make(folder, tmp_path)
    builder.download_and_prepare()
    data = builder.as_dataset()
    train = {row["id"]: row for row in data["train"]}
    fake = train["fakeclue/train/ff++/fake/Deepfakes/c23/frames/071_054/160.png"]
    real = train["fakeclue/train/ff++/real/c23/frames/071/3.png"]
    assert (fake["label"], real["label"]) == (1, 0)
    assert (fake["manipulation"], fake["video_id"], fake["frame"], fake["compression"]) == (
        "Deepfakes", "FaceForensics++/Deepfakes/071_054", 160, "c23",
    )  # fmt: skip
    assert fake["group_id"] == real["group_id"]
    assert fake["question"] == "Does the image looks real/fake?"
    assert fake["messages"][1] == {"role": "assistant", "content": "This is a fake image."}
    assert fake["image"].size == (16, 12)
    assert sorted(row["category"] for row in data["test"]) == ["deepfake", "satellite"]


def test_zip_and_folder_give_the_same_bytes(root, tmp_path):
    rows = {form: [] for form in ("folder", "zip")}
    for unit in make(root, tmp_path).inspect(root)["train"]:
        rows["folder"] += [Path(row["image"]).read_bytes() for row in make(root, tmp_path).examples(unit)]
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        for image, *_ in RECORDS["train"]:
            archive.write(root / "train" / image, image)
    shutil.rmtree(root / "train")
    builder = make(root, tmp_path)
    for unit in builder.inspect(root)["train"]:
        rows["zip"] += [row["image"]["bytes"] for row in builder.examples(unit)]
    assert rows["zip"] == rows["folder"]
    assert len(rows["zip"]) == len(RECORDS["train"])


def test_two_processes_read_one_zip(zipped, tmp_path):
    builder = make(zipped, tmp_path)
    builder.download_and_prepare(num_proc=2)
    assert len(builder.as_dataset(split="train")) == len(RECORDS["train"])


def test_videos_on_both_sides_are_reported(root, tmp_path):
    builder = make(root, tmp_path)
    builder.inspect(root)
    assert any("1 groups of videos" in text for text in messages(builder, "warning"))
    assert any("not verified" in text for text in messages(builder, "warning"))
    assert any(text.startswith("test: 1 real") and "1808" in text for text in messages(builder, "warning"))


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_zip_that_leads_out_is_refused(zipped, tmp_path, name):
    with zipfile.ZipFile(zipped / "train.zip", "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match=r"train\.zip .*evil\.png"):
        make(zipped, tmp_path).inspect(zipped)


def test_truncated_zip(zipped, tmp_path):
    path = zipped / "train.zip"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"train\.zip cannot be read as zip"):
        make(zipped, tmp_path).inspect(zipped)


def test_truncated_picture_in_a_zip(root, tmp_path):
    with zipfile.ZipFile(root / "test.zip", "w") as archive:
        for image, *_ in RECORDS["test"]:
            archive.writestr(image, (root / "test" / image).read_bytes()[:100])
    shutil.rmtree(root / "test")
    builder = make(root, tmp_path)
    with pytest.raises(ValueError, match=r"satellite/real/a\.jpg in .*test\.zip \(100 bytes\) cannot be decoded"):
        list(builder.examples(builder.inspect(root)["test"][0]))


def test_missing_and_extra(root, tmp_path):
    (root / "train" / "doc" / "fake" / "é.jpg").rename(root / "train" / "doc" / "fake" / "other.jpg")
    builder = make(root, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train/doc/fake/é\.jpg"):
        builder.download_and_prepare()
    assert any("1 images" in text and "other.jpg" in text for text in messages(builder, "warning"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "has label 2, expected 1"),
        ({"label": "real"}, "has label 'real'"),
        ({"image": "../x.png"}, "x.png"),
        ({"conversations": []}, "one question and one answer"),
    ],
)
def test_bad_record(root, tmp_path, change, message):
    path = root / "data_json" / "test.json"
    path.write_text(json.dumps([entry(*RECORDS["test"][0]) | change]))
    with pytest.raises(ValueError, match=message):
        make(root, tmp_path).inspect(root)


def test_record_twice(root, tmp_path):
    write_lists(root, {**RECORDS, "test": RECORDS["test"] * 2})
    with pytest.raises(ValueError, match=r"have the same id 'fakeclue/test/satellite/real/a\.jpg'"):
        make(root, tmp_path).inspect(root)


def test_label_against_the_folder_is_reported_and_the_json_stands(root, tmp_path):
    write_lists(root, {**RECORDS, "test": [("satellite/real/a.jpg", 0, "satellite")]})
    builder = make(root, tmp_path)
    assert builder.inspect(root)["test"][0].columns["label"] == "fake"
    assert any("1 labels" in text for text in messages(builder, "warning"))


def test_neither_zip_nor_folder(root, tmp_path):
    shutil.rmtree(root / "test")
    with pytest.raises(FileNotFoundError, match=r"Neither .*test\.zip nor"):
        make(root, tmp_path).inspect(root)


def test_stretches_of_one_youtube_video_are_one_group(root, tmp_path):
    records = {
        "train": [("ff++/real/c23/frames/954/0.png", 1, "deepfake")],
        "test": [("ff++/fake/FaceSwap/c23/frames/078_955/0.png", 0, "deepfake")],
    }
    for split, found in records.items():
        save(root / split / found[0][0])
    write_lists(root, records)
    builder = make(root, tmp_path)
    splits = builder.inspect(root)
    assert {unit.columns["group_id"] for units in splits.values() for unit in units} == {"FaceForensics++/078"}
    assert any("1 groups of videos" in text for text in messages(builder, "warning"))
