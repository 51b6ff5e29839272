"""DeepfakeBench JSON: paths, labels, and each known defect of its generator."""

import json

import pytest

from deepfake_detectors.dataset_scripts._deepfakebench import label_of_group, relative_path
from deepfake_detectors.dataset_scripts.deepfakebench import DeepfakeBench
from support.folder_tree import save


def make(root, tmp_path, file, **options):
    return DeepfakeBench(data_dir=str(root), json=file, cache_dir=str(tmp_path / "cache"), **options)


def messages(builder, *levels):
    return [finding.message for finding in builder.findings if finding.level in levels]


def record(root, label, folder, frames=("10", "9", "100")):
    for number in frames:
        save(root / folder / f"{number}.png", (8, 8))
    return {"label": label, "frames": [f"{folder}/{number}.png" for number in frames]}


@pytest.fixture
def rgb(tmp_path):
    (tmp_path / "rgb").mkdir()
    return tmp_path / "rgb"


@pytest.fixture
def celeb(rgb):
    """As the generator writes it: one real folder lost from train, all test videos in train too, val = test."""

    def real(folder, video):
        return record(rgb, "CelebDFv2_real", f"Celeb-DF-v2/{folder}/frames/{video}")

    def fake(video):
        return record(rgb, "CelebDFv2_fake", f"Celeb-DF-v2/Celeb-synthesis/frames/{video}")

    tested_real = {"id0_0000": real("Celeb-real", "id0_0000"), "00000": real("YouTube-real", "00000")}
    tested_fake = {"id0_id1_0000": fake("id0_id1_0000")}
    train_real = {video: real("YouTube-real", video) for video in ("00000", "00001")}
    train_fake = {video: fake(video) for video in ("id0_id1_0000", "id1_id0_0000")}
    groups = {
        "CelebDFv2_real": {"train": train_real, "val": tested_real, "test": tested_real},
        "CelebDFv2_fake": {"train": train_fake, "val": tested_fake, "test": tested_fake},
    }
    (rgb / "c.json").write_text(json.dumps({"Celeb-DF-v2": groups}))
    (rgb / "Celeb-DF-v2" / "List_of_testing_videos.txt").write_text(
        "1 Celeb-real/id0_0000.mp4\n1 YouTube-real/00000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
    )
    return rgb


def write_ff(rgb, compression_levels=("c23", "c40")):
    def level(method, label, videos):
        return {
            name: {video: record(rgb, label, f"FaceForensics++/{method}/{name}/frames/{video}") for video in videos}
            for name in compression_levels
        }

    real, fake = "original_sequences/youtube", "manipulated_sequences/Deepfakes"
    groups = {
        "FF-real": {"train": level(real, "FF-real", ["000", "001"]), "test": level(real, "FF-real", ["003"])},
        "FF-DF": {"train": level(fake, "FF-DF", ["000_001"]), "test": level(fake, "FF-DF", ["003_004"])},
    }
    (rgb / "ff.json").write_text(json.dumps({"FF-DF": groups}))
    return groups


class TestCelebDF:
    def test_nothing_tested_is_trained_on(self, celeb, tmp_path):
        builder = make(celeb, tmp_path, "c.json")
        builder.download_and_prepare()
        data = builder.as_dataset()
        assert set(data) == {"train", "test"}
        videos = {split: set(rows["video_id"]) for split, rows in data.items()}
        assert not videos["train"] & videos["test"]
        assert {video.split("/")[-1] for video in videos["train"]} == {"00001", "id1_id0_0000"}
        assert {row["video_id"].split("/")[-1]: row["label"] for row in data["test"]} == {
            "id0_0000": 0, "00000": 0, "id0_id1_0000": 1,
        }  # fmt: skip
        assert data["test"]["frame"][:3] == [9, 10, 100]

    def test_defects_are_reported(self, celeb, tmp_path):
        builder = make(celeb, tmp_path, "c.json")
        builder.inspect(celeb)
        assert any(text.startswith("3 videos") for text in messages(builder, "warning"))
        assert any("training videos of Celeb-real" in text for text in messages(builder, "error"))
        assert any(text.startswith("15 of 15 ") for text in messages(builder, "note"))

    def test_list_not_there(self, celeb, tmp_path):
        (celeb / "Celeb-DF-v2" / "List_of_testing_videos.txt").unlink()
        builder = make(celeb, tmp_path, "c.json")
        splits = builder.inspect(celeb)
        assert any("List_of_testing_videos.txt is missing" in text for text in messages(builder, "error"))
        assert not {unit.id for unit in splits["train"]} & {unit.id for unit in splits["test"]}


class TestFaceForensics:
    def test_level_and_ids(self, rgb, tmp_path):
        write_ff(rgb)
        splits = make(rgb, tmp_path, "ff.json", compression="c40").inspect(rgb)
        assert {unit.columns["compression"] for units in splits.values() for unit in units} == {"c40"}
        fake = splits["test"][1]
        assert fake.columns["video_id"] == "FaceForensics++/Deepfakes/003_004"
        assert (fake.columns["target_id"], fake.columns["source_id"]) == ("003", "004")
        assert len({unit.columns["group_id"] for unit in splits["train"]}) == 1

    def test_official_lists_win(self, rgb, tmp_path):
        write_ff(rgb)
        for name, pairs in {"train": [["003", "004"]], "val": [], "test": [["000", "001"]]}.items():
            (rgb / "FaceForensics++" / f"{name}.json").write_text(json.dumps(pairs))
        builder = make(rgb, tmp_path, "ff.json")
        splits = builder.inspect(rgb)
        assert {unit.columns["target_id"] for unit in splits["train"]} == {"003"}
        assert any(text.startswith("5 videos moved to their official split") for text in messages(builder, "warning"))

    def test_wrong_label(self, rgb, tmp_path):
        groups = write_ff(rgb)
        groups["FF-real"]["test"]["c23"]["003"]["label"] = "FF-DF"
        (rgb / "ff.json").write_text(json.dumps({"FF-DF": groups}))
        with pytest.raises(ValueError, match=r"FF-real/test/003 is labelled 'FF-DF' in a real group"):
            make(rgb, tmp_path, "ff.json").inspect(rgb)

    def test_missing_frame_is_an_error_unless_allowed(self, rgb, tmp_path):
        write_ff(rgb)
        gone = "FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/003_004/10.png"
        (rgb / gone).unlink()
        builder = make(rgb, tmp_path, "ff.json")
        with pytest.raises(FileNotFoundError, match=r"003_004/10\.png"):
            builder.download_and_prepare()
        assert any(text.startswith("14 of 15 ") for text in messages(builder, "note"))
        partial = make(rgb, tmp_path, "ff.json", allow_missing=True)
        partial.download_and_prepare()
        assert len(partial.as_dataset(split="test")) == 5

    def test_empty_frames(self, rgb, tmp_path):
        groups = write_ff(rgb)
        groups["FF-DF"]["test"]["c23"]["003_004"]["frames"] = []
        (rgb / "ff.json").write_text(json.dumps({"FF-DF": groups}))
        builder = make(rgb, tmp_path, "ff.json")
        builder.inspect(rgb)
        assert any("FF-DF/003_004 (no frames)" in text for text in messages(builder, "error"))


def test_record_in_the_place_of_a_split(rgb, tmp_path):
    videos = {name: record(rgb, "DFDC_Fake", f"DFDC/test/frames/{name}") for name in ("a", "b")}
    stray = {**record(rgb, "DFDC_Real", "DFDC/test/frames/x"), "r": record(rgb, "DFDC_Real", "DFDC/test/frames/r")}
    groups = {"DFDC_Fake": {"test": videos}, "DFDC_Real": {"val": stray}}
    (rgb / "d.json").write_text(json.dumps({"DFDC": groups}))
    builder = make(rgb, tmp_path, "d.json")
    splits = builder.inspect(rgb)
    assert [unit.columns["manipulation"] for unit in splits["test"]] == ["dfdc", "dfdc"]
    assert len(splits["validation"]) == 1
    assert any(text.startswith("2 ") and "DFDC_Real/val/label" in text for text in messages(builder, "warning"))


@pytest.mark.parametrize(
    "listed",
    [
        "Celeb-DF-v2/Celeb-real/frames/a/1.png",
        ".\\datasets\\rgb\\Celeb-DF-v2\\Celeb-real\\frames\\a\\1.png",
        "D:\\x\\Celeb-DF-v2\\Celeb-real\\frames\\a\\1.png",
        "/home/someone/rgb/Celeb-DF-v2/Celeb-real/frames/a/1.png",
        "deepfakes_detection_datasets/Celeb-DF-v2/Celeb-real/frames/a/1.png",
    ],
)
def test_paths_of_other_machines(listed):
    assert str(relative_path(listed)) == "Celeb-DF-v2/Celeb-real/frames/a/1.png"


class TestOtherOfficialLists:
    def test_dfdc_preview(self, rgb, tmp_path):
        videos = {name: record(rgb, "DFDCP_FakeA", f"DFDCP/method_A/frames/{name}") for name in ("a", "b")}
        (rgb / "p.json").write_text(json.dumps({"DFDCP": {"DFDCP_FakeA": {"test": videos}}}))
        rows = {
            f"method_A/1/1_A/{name}.mp4": {"label": "fake", "set": where}
            for name, where in (("a", "train"), ("b", "test"))
        }
        (rgb / "DFDCP" / "dataset.json").write_text(json.dumps(rows))
        splits = make(rgb, tmp_path, "p.json").inspect(rgb)
        assert {split: [unit.columns["video_id"][-1] for unit in units] for split, units in splits.items()} == {
            "train": ["a"], "test": ["b"],
        }  # fmt: skip

    def test_deeperforensics(self, rgb, tmp_path):
        name = "DeeperForensics-1.0"
        fake = record(rgb, "DF_fake", f"{name}/manipulated_videos/end_to_end/frames/000_M101")
        actor = record(rgb, "DF_real", f"{name}/source_videos/M101/frames/x")
        groups = {"DF_fake": {"train": {"000_M101": fake}}, "DF_real": {"train": {"x": actor}, "test": {"x": actor}}}
        (rgb / "d.json").write_text(json.dumps({name: groups}))
        lists = rgb / name / "lists" / "splits"
        lists.mkdir(parents=True)
        for split, video in (("train", "001_M101"), ("val", "002_M102"), ("test", "000_M101")):
            (lists / f"{split}.txt").write_text(f"{video}.mp4\n")
        builder = make(rgb, tmp_path, "d.json")
        splits = builder.inspect(rgb)
        assert "000_M101" in {unit.columns["video_id"].rsplit("/", 1)[1] for unit in splits["test"]}
        assert any(text.startswith("1 videos of actors") for text in messages(builder, "error"))


class TestDF40:
    def test_sections_spellings_and_families(self, rgb, tmp_path):
        train = record(rgb, "x_Fake", "DF40_train/MRAA/frames/000_001")
        test = record(rgb, "x_Fake", "DF40/MRAA/ff/frames/003_004")
        for listed in (train, test):  # files and folders differ, and prefixes are those of another machine
            listed["frames"] = [
                f"deepfakes_detection_datasets/{name.replace('MRAA', 'mraa')}" for name in listed["frames"]
            ]
        both = {"000_001": train, "003_004": test}
        groups = {"mraa_Fake": {"train": both, "val": both, "test": both}}
        (rgb / "mraa_ff.json").write_text(json.dumps({"mraa_ff": groups}))
        splits = make(rgb, tmp_path, "mraa_ff.json").inspect(rgb)
        assert {split: [unit.columns["video_id"][-7:] for unit in units] for split, units in splits.items()} == {
            "train": ["000_001"], "test": ["003_004"],
        }  # fmt: skip
        assert {unit.columns["family"] for units in splits.values() for unit in units} == {"reenact"}

    def test_method_that_the_group_does_not_name(self, rgb, tmp_path):
        fake = record(rgb, "roop_Fake", "DF40/simswap/ff/frames/003_004")
        (rgb / "simswap_ff.json").write_text(json.dumps({"simswap_ff": {"roop_Fake": {"test": {"003_004": fake}}}}))
        (unit,) = make(rgb, tmp_path, "simswap_ff.json").inspect(rgb)["test"]
        assert (unit.columns["manipulation"], unit.columns["family"]) == ("simswap", "swap")


@pytest.mark.parametrize("frames", [[""], [3]])
def test_frames_that_are_no_paths(rgb, tmp_path, frames):
    (rgb / "x.json").write_text(
        json.dumps({"UADFV": {"UADFV_Fake": {"test": {"v": {"label": "UADFV_Fake", "frames": frames}}}}})
    )
    with pytest.raises(ValueError, match="frame"):
        make(rgb, tmp_path, "x.json").inspect(rgb)


def test_path_upwards_is_refused():
    with pytest.raises(ValueError, match=r"\.\."):
        relative_path("UADFV/../../secret.png")


@pytest.mark.parametrize(
    ("group", "label"),
    [("whichisreal_Fake", "fake"), ("UADFV_Real", "real"), ("DFDCP_FakeA", "fake"), ("FF-real", "real")],
)
def test_labels(group, label):
    assert label_of_group(group) == label


def test_label_that_says_nothing():
    with pytest.raises(ValueError, match="_Real or _Fake"):
        label_of_group("realistic")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[]", "bad.json"), ('{"a": {}}', "bad.json.* c23")]
)
def test_bad_file(rgb, tmp_path, text, message):
    (rgb / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        make(rgb, tmp_path, "bad.json").inspect(rgb)


def test_file_must_be_named(rgb, tmp_path):
    with pytest.raises(ValueError, match="json="):
        make(rgb, tmp_path, "")


FF, C2, DF = "FaceForensics++", "Celeb-DF-v2", "DeeperForensics-1.0"


@pytest.mark.parametrize(
    ("group", "folders", "expected"),
    [
        (
            "simswap_",
            {"071": f"{FF}/original_sequences/youtube/c23/frames", "071_054": "DF40_train/simswap/frames"},
            {"071": (f"{FF}/054", "071", None), "071_054": (f"{FF}/054", "071", "054")},
        ),
        (
            "simswap_",
            {"id0_0000": f"{C2}/Celeb-real/frames", "id0_id1_0000": "DF40/simswap/cdf/frames"},
            {"id0_0000": (f"{C2}/id0", "id0_0000", None), "id0_id1_0000": (f"{C2}/id0", "id0_0000", "id1")},
        ),
        (
            "UADFV_",
            {"0000": "UADFV/real/frames", "0000_fake": "UADFV/fake/frames"},
            {"0000": ("UADFV/0000", "0000", None), "0000_fake": ("UADFV/0000", "0000", None)},
        ),
        (
            "DFD_",
            {
                "01__walk": f"{FF}/original_sequences/actors/c23/frames",
                "01_02__walk__ABCDEFGH": f"{FF}/manipulated_sequences/DeepFakeDetection/c23/frames",
            },
            {
                "01__walk": ("DeepFakeDetection/01", "01__walk", None),
                "01_02__walk__ABCDEFGH": ("DeepFakeDetection/01", "01__walk", "02"),
            },
        ),
        (
            "DeeperForensics-1.0_",
            {"000": f"{FF}/original_sequences/youtube/c23/frames", "000_M101": f"{DF}/manipulated_videos/x/frames"},
            {"000": (f"{FF}/000", "000", None), "000_M101": (f"{FF}/000", "000", "M101")},
        ),
    ],
)
def test_names_join_videos_that_share_material(rgb, tmp_path, group, folders, expected):
    (real, real_folder), (fake, fake_folder) = folders.items()
    content = {
        f"{group}Real": {"train": {real: record(rgb, f"{group}Real", f"{real_folder}/{real}")}},
        f"{group}Fake": {"train": {fake: record(rgb, f"{group}Fake", f"{fake_folder}/{fake}")}},
    }
    (rgb / "x.json").write_text(json.dumps({group.strip("_"): content}))
    builder = make(rgb, tmp_path, "x.json")
    columns = [unit.columns for units in builder.inspect(rgb).values() for unit in units]
    found = {c["video_id"].rsplit("/", 1)[1]: (c["group_id"], c["target_id"], c["source_id"]) for c in columns}
    assert found == expected
    assert not any("shared material" in text for text in messages(builder, "warning"))


def test_names_without_a_known_form_are_reported(rgb, tmp_path):
    videos = {name: record(rgb, "DFDC_Real", f"DFDC/test/frames/{name}") for name in ("abc", "abd")}
    (rgb / "x.json").write_text(json.dumps({"DFDC": {"DFDC_Real": {"test": videos}}}))
    builder = make(rgb, tmp_path, "x.json")
    (units,) = builder.inspect(rgb).values()
    assert [unit.columns["group_id"] for unit in units] == [unit.columns["video_id"] for unit in units]
    assert any(text.startswith("2 videos") and "shared material" in text for text in messages(builder, "warning"))
