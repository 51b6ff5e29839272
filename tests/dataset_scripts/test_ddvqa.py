"""DD-VQA builder on a small tree in the official layout, and on the real data where it is."""

import logging
import shutil
from collections import Counter

import pytest

from deepfake_detectors.dataset_scripts.ddvqa import DDVQA
from support.ddvqa_tree import picture, stems, write_lists, write_tree
from support.real_data import needs_real_data, real_data

TRAIN = stems(range(4), "0136")
TEST = stems(range(10, 12), "03")
NAMES = {"0": "Deepfakes", "1": "Face2Face", "3": "FaceSwap", "5": "real", "6": "NeuralTextures"}


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "ddvqa", TRAIN, TEST)


@pytest.fixture
def build(tmp_path):
    def run(data_dir, config="c40", **options):
        builder = DDVQA(config_name=config, data_dir=str(data_dir), cache_dir=str(tmp_path / "cache"), **options)
        builder.download_and_prepare()
        return builder.as_dataset()

    return run


def test_pictures_and_columns(root, build):
    data = build(root)
    assert {split: len(rows) for split, rows in data.items()} == {"train": len(TRAIN), "test": len(TEST)}
    row = next(row for row in data["train"] if row["id"].endswith("/6_002_003"))
    image = row.pop("image")
    assert (image.size, image.mode) == ((32, 32), "RGB")
    assert row == {
        "id": "ddvqa/c40/train/6_002_003",
        "label": 1,
        "manipulation": "NeuralTextures",
        "family": "reenact",
        "video_id": "FaceForensics++/NeuralTextures/002_003",
        "group_id": "FaceForensics++/002",
        "target_id": "002",
        "source_id": "003",
        "frame": None,
        "compression": "c40",
        "category": "face",
        "file_format": "JPEG",
    }
    assert data["train"].features["label"].names == ["real", "fake"]


def test_every_name_becomes_the_right_label(root, build):
    rows = build(root)["train"]
    found = {row["id"].rsplit("/", 1)[1]: (row["label"], row["manipulation"]) for row in rows}
    assert found == {stem: (int(stem[0] != "5"), NAMES[stem[0]]) for stem in TRAIN}


def test_groups_join_videos_that_share_material(tmp_path, build):
    train = ["5_001", "0_001_002", "1_002_003", "5_007", "0_010_009"]
    rows = build(write_tree(tmp_path / "ddvqa", train, TEST))["train"]
    groups = {row["id"].rsplit("/", 1)[1]: row["group_id"].rsplit("/", 1)[1] for row in rows}
    assert groups == {"5_001": "001", "0_001_002": "001", "1_002_003": "001", "5_007": "007", "0_010_009": "009"}


def test_stretches_of_one_youtube_video_are_one_group(tmp_path):
    train, test = ["5_756", "1_756_503", "3_976_954"], ["5_755", "0_078_955", "5_100"]
    root = write_tree(tmp_path / "ddvqa", train, test)
    for config in ("c40", "c23"):
        builder = DDVQA(config_name=config, data_dir=str(root), cache_dir=str(tmp_path / "cache"))
        splits = builder.inspect(root)
        groups = {unit.id.rsplit("/", 1)[1]: unit.columns["group_id"] for units in splits.values() for unit in units}
        # The training groups keep their names, by which validation is cut.
        assert groups == {f"{stem}": f"FaceForensics++/{group}" for stem, group in (
            ("5_756", "503"), ("1_756_503", "503"), ("3_976_954", "954"),
            ("5_755", "503"), ("0_078_955", "954"), ("5_100", "100"),
        ) if config == "c40" or stem in test}  # fmt: skip
        reported = [item.message for item in builder.findings if item.level == "warning"]
        assert any("955 (test) / 954 (train)" in text and "2 of 3 " in text for text in reported)


def test_c23_has_test_pictures_only(root, build):
    data = build(root, "c23")
    assert list(data) == ["test"]
    assert set(data["test"]["compression"]) == {"c23"}


def test_judgements(root, build):
    data = build(root, "c40_judge")
    assert list(data) == ["train"]
    assert len(data["train"]) == 2 * len(TRAIN) == len(set(data["train"]["id"]))
    row = data["train"][0]
    assert row["question"] == "Do the image looks real or fake?"  # without the model's placeholders
    assert row["answer"] == f"The image looks {['real', 'fake'][row['label']]}."
    assert row["messages"] == [
        {"role": "user", "content": row["question"]},
        {"role": "assistant", "content": row["answer"]},
    ]


def test_explanations_skip_only_the_method_without_pictures(root, build):
    data = build(root, "c40_explain")
    assert len(data["train"]) == len(TRAIN)
    assert len(data["test"]) == 3 * len(TEST)
    assert data["train"][0]["answers"] == ["It is smooth.", "It is blurred."]
    assert data["train"][0]["answer"] == "It is smooth."
    assert "FaceShifter" not in data["train"]["manipulation"]


def test_several_processes_and_streaming_give_the_same_rows(root, tmp_path, build):
    expected = build(root)["train"]["id"][:]
    builder = DDVQA(config_name="c40", data_dir=str(root), cache_dir=str(tmp_path / "two"))
    builder.download_and_prepare(num_proc=2)
    assert builder.as_dataset(split="train")["id"][:] == expected
    assert [row["id"] for row in builder.as_streaming_dataset(split="train")] == expected


def test_missing_data_dir(build, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder.*Point data_dir"):
        build(tmp_path / "nowhere")


def test_missing_folder(root, build):
    shutil.rmtree(root / "images_c40" / "test")
    with pytest.raises(FileNotFoundError, match=r"images_c40/test is not a folder.*Point data_dir"):
        build(root)


def test_empty_folder(root, build):
    folder = root / "images_c40" / "test"
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"images_c40/test"):
        build(root)


@pytest.mark.parametrize(("split", "stem"), [("train", TRAIN[1]), ("test", TEST[0])])
def test_missing_picture(root, build, split, stem):
    (root / "images_c40" / split / f"{stem}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{split}/{stem}\.jpg"):
        build(root)


def test_missing_annotations(root, build):
    (root / "splits" / "test_explanation.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_explanation\.jsonl is missing"):
        build(root, "c40_explain")


def test_truncated_picture(root, build):
    path = root / "images_c40" / "train" / f"{TRAIN[2]}.jpg"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match=rf"{TRAIN[2]}\.jpg .* cannot be decoded"):
        build(root)


def test_png_named_jpg_is_read_by_content_and_reported(root, build, caplog):
    path = root / "images_c23" / "test" / f"{TEST[1]}.jpg"
    picture(TEST[1], 32).save(path, format="PNG")
    with caplog.at_level(logging.WARNING):
        rows = build(root, "c23")["test"]
    formats = {row["id"].rsplit("/", 1)[1]: row["file_format"] for row in rows}
    assert {stem for stem, form in formats.items() if form == "PNG"} == {TEST[1]}
    assert "c23 test" in caplog.text
    assert "1 Deepfakes PNG" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("4_001_002.jpg", "type '4', expected one of 0 "),
        ("5_001_002.jpg", r"needs 1 numeric video id"),
        ("0_001.jpg", r"needs 2 numeric video id"),
        ("0_abc_002.jpg", r"needs 2 numeric video id"),
        ("notes.txt", "notes.txt"),
    ],
)
def test_file_names_outside_the_convention(root, build, name, message):
    shutil.copy(root / "images_c40" / "train" / f"{TRAIN[0]}.jpg", root / "images_c40" / "train" / name)
    with pytest.raises(ValueError, match=message):
        build(root)


def test_hidden_files_are_left_alone(root, build):
    (root / "images_c40" / "train" / ".DS_Store").write_bytes(b"\0")
    assert len(build(root)["train"]) == len(TRAIN)


def test_same_picture_twice(root, build):
    folder = root / "images_c40" / "train"
    shutil.copy(folder / f"{TRAIN[0]}.jpg", folder / f"{TRAIN[0]}.jpeg")
    with pytest.raises(ValueError, match=r"\.jpg and "):
        build(root)


class TestLabelConflict:
    """A fake that is byte-identical to a real picture, as the published `0_281_474` is."""

    @pytest.fixture
    def conflict(self, root):
        folder = root / "images_c40" / "train"
        shutil.copy(folder / "5_002.jpg", folder / "0_002_003.jpg")
        return root

    def test_kept_with_a_warning(self, conflict, build, caplog):
        with caplog.at_level(logging.WARNING):
            assert len(build(conflict)["train"]) == len(TRAIN)
        assert "0_002_003.jpg: labelled fake, but byte-identical to the real" in caplog.text

    @pytest.mark.parametrize(("config", "rows"), [("c40", 1), ("c40_judge", 2), ("c40_explain", 1)])
    def test_dropped_from_every_form(self, conflict, build, config, rows):
        kept, dropped = build(conflict, config)["train"], build(conflict, config, on_label_conflict="drop")["train"]
        gone = set(kept["id"]) - set(dropped["id"])
        assert len(gone) == rows
        assert all("/0_002_003" in name for name in gone)

    def test_error(self, conflict, build):
        with pytest.raises(ValueError, match=r"0_002_003\.jpg: labelled fake"):
            build(conflict, on_label_conflict="error")

    def test_two_identical_fakes_are_no_conflict(self, root, build, caplog):
        folder = root / "images_c40" / "train"
        shutil.copy(folder / "0_002_003.jpg", folder / "1_002_003.jpg")
        assert len(build(root, on_label_conflict="error")["train"]) == len(TRAIN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "c0"}, "compression is 'c0', expected one of c40, c23"),
        ({"task": "guess"}, "task is 'guess'"),
        ({"on_label_conflict": "maybe"}, "expected one of keep, drop, error"),
        ({"compression": "c23", "task": "judge"}, "c40.*c23"),
    ],
)
def test_config_values_are_checked(root, options, message):
    with pytest.raises(ValueError, match=message):
        DDVQA(config_name="c40", data_dir=str(root), **options)


def test_picture_without_an_entry_in_the_lists_is_kept(root, build):
    write_lists(root, TRAIN[:-1], TEST)
    assert len(build(root)["train"]) == len(TRAIN)


@needs_real_data
class TestRealData:
    """Counts of the data set's README."""

    @pytest.fixture
    def real(self):
        return real_data("ddvqa")

    def test_pictures(self, real, build):
        data = build(real)
        assert Counter(data["train"]["manipulation"]) == {
            "real": 455, "Deepfakes": 231, "Face2Face": 207, "FaceSwap": 187, "NeuralTextures": 259,
        }  # fmt: skip
        assert Counter(data["test"]["manipulation"]) == {
            "real": 72, "Deepfakes": 30, "Face2Face": 14, "FaceSwap": 16, "NeuralTextures": 12,
        }  # fmt: skip
        shared = set(data["train"]["group_id"]) & set(data["test"]["group_id"])
        assert shared == {"FaceForensics++/503", "FaceForensics++/954"}  # stretches of one YouTube video

    def test_c23_pngs(self, real, build):
        rows = build(real, "c23")["test"]
        assert len(rows) == 136
        formats = Counter(zip(rows["manipulation"], rows["file_format"], strict=True))
        assert formats[("NeuralTextures", "PNG")] == 4
        assert sum(count for (_, form), count in formats.items() if form == "JPEG") == 132

    def test_texts(self, real, build):
        assert len(build(real, "c40_judge")["train"]) == 9252
        explanations = build(real, "c40_explain")
        assert len(explanations["train"]) == 7312 - 451  # 451 questions are about FaceShifter pictures
        assert len(explanations["test"]) == 1070
        assert len(build(real, "c40_converse")["train"]) == 9252 + 7312 - 451  # its parts; the whole list is not there

    def test_known_label_error(self, real, build):
        kept, dropped = build(real)["train"], build(real, on_label_conflict="drop")["train"]
        assert set(kept["id"]) - set(dropped["id"]) == {"ddvqa/c40/train/0_281_474"}
