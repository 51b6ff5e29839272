"""Celeb-DF: polarity of the list, both real folders, the test rebuilt from the list."""

import pytest

from deepfake_detectors.dataset_scripts.celeb_df import CelebDF
from support.folder_tree import save

VIDEOS = {
    "Celeb-real": ["id0_0000", "id0_0001", "id1_0000"],
    "YouTube-real": ["00000", "00001"],
    "Celeb-synthesis": ["id0_id1_0000", "id1_id0_0000", "id2_id3_0000"],
}
TEST = ["1 Celeb-real/id0_0001.mp4", "1 YouTube-real/00001.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "celeb"
    for name, videos in VIDEOS.items():
        for video in videos:
            for number in range(2):
                save(folder / name / "frames" / video / f"{number:03d}.png", (8, 8))
    (folder / "List_of_testing_videos.txt").write_text("\n".join(TEST) + "\n")
    return folder


def make(root, tmp_path, config="v2", **options):
    return CelebDF(config_name=config, data_dir=str(root), cache_dir=str(tmp_path / "cache"), **options)


def test_rows(root, tmp_path):
    builder = make(root, tmp_path)
    builder.download_and_prepare()
    data = builder.as_dataset()
    test = {row["video_id"]: row for row in data["test"]}
    assert {video: row["label"] for video, row in test.items()} == {
        "Celeb-DF-v2/Celeb-real/id0_0001": 0,
        "Celeb-DF-v2/YouTube-real/00001": 0,
        "Celeb-DF-v2/Celeb-synthesis/id0_id1_0000": 1,
    }
    fake = test["Celeb-DF-v2/Celeb-synthesis/id0_id1_0000"]
    assert (fake["target_id"], fake["source_id"], fake["family"]) == ("id0_0000", "id1", "swap")
    assert not set(data["train"]["video_id"]) & set(test)
    assert len(data["train"]) == 2 * (sum(map(len, VIDEOS.values())) - len(TEST))
    assert {video.split("/")[1] for video in data["train"]["video_id"]} == set(VIDEOS)


def test_people_join_groups(root, tmp_path):
    units = [unit for found in make(root, tmp_path).inspect(root).values() for unit in found]
    groups = {unit.columns["video_id"].split("/", 1)[1]: unit.columns["group_id"] for unit in units}
    assert groups["Celeb-real/id0_0000"] == groups["Celeb-real/id1_0000"] == groups["Celeb-synthesis/id1_id0_0000"]
    assert len({groups[name] for name in ("Celeb-real/id0_0000", "Celeb-synthesis/id2_id3_0000")}) == 2
    assert groups["YouTube-real/00000"] != groups["YouTube-real/00001"]


def test_people_on_both_sides_are_told(root, tmp_path):
    builder = make(root, tmp_path)
    builder.inspect(root)
    assert "1 group(s) of related material are in several splits: Celeb-DF-v2/id0." in [
        finding.message for finding in builder.findings if finding.level == "note"
    ]


@pytest.mark.parametrize(("config", "level"), [("v2", "error"), ("v1", "warning")])
def test_counts(root, tmp_path, config, level):
    builder = make(root, tmp_path, config)
    builder.inspect(root)
    found = [finding for finding in builder.findings if "published" in finding.message]
    assert {finding.level for finding in found if "videos" in finding.message} >= {level}
    assert any(finding.message.startswith("List_of_testing_videos.txt has 3") for finding in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 Celeb-real/id0_0000.mp4", r"line 4 .* fake .*Celeb-real .*real"),
        (TEST[0], "a second time"),
        ("1 Other/x.mp4", "expected '<1"),
    ],
)
def test_bad_line(root, tmp_path, line, message):
    path = root / "List_of_testing_videos.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        make(root, tmp_path).inspect(root)


def test_listed_video_is_missing(root, tmp_path):
    path = root / "List_of_testing_videos.txt"
    path.write_text(path.read_text() + "1 YouTube-real/00009.mp4\n")
    with pytest.raises(FileNotFoundError, match="YouTube-real/00009"):
        make(root, tmp_path).download_and_prepare()


@pytest.mark.parametrize("folder", VIDEOS)
def test_missing_folder(root, tmp_path, folder):
    (root / folder).rename(root / "gone")
    with pytest.raises(FileNotFoundError, match=f"{folder} is not a folder"):
        make(root, tmp_path).inspect(root)


def test_other_spelling_of_the_folder(root, tmp_path):
    (root / "YouTube-real").rename(root / "Youtube-real")
    assert sum(map(len, make(root, tmp_path).inspect(root).values())) == sum(map(len, VIDEOS.values()))


def test_missing_list(root, tmp_path):
    (root / "List_of_testing_videos.txt").unlink()
    with pytest.raises(FileNotFoundError, match="List_of_testing_videos"):
        make(root, tmp_path).inspect(root)


def test_extra_video(root, tmp_path):
    save(root / "Celeb-synthesis" / "frames" / "notes" / "000.png")
    with pytest.raises(ValueError, match="Celeb-synthesis/notes"):
        make(root, tmp_path).inspect(root)
