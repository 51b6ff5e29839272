"""Folders are walked in one way: each real file once, loops end, and nothing is left out in silence."""

import os
from pathlib import Path

import pytest
from PIL import Image

from deepfake_detectors.evaluation.sets import folder_set
from deepfake_detectors.files import expand_inputs, walk_folder


@pytest.fixture
def pics(tmp_path: Path) -> Path:
    """Two pictures, one of them in a folder of its own, and a text."""
    folder = tmp_path / "pics"
    (folder / "deep").mkdir(parents=True)
    for place in ("a.png", "deep/b.png"):
        Image.new("RGB", (8, 8)).save(folder / place)
    (folder / "notes.txt").write_text("text")
    return folder


def names(files: list[Path] | list[str], folder: Path) -> list[str]:
    return [os.path.relpath(file, folder) for file in files]


@pytest.mark.parametrize("recursive", [False, True])
def test_files_and_others(pics: Path, recursive: bool) -> None:
    walk = walk_folder(pics, recursive)
    assert names(walk.files, pics) == ["a.png", *(["deep/b.png"] if recursive else [])]
    assert walk.others == 1 and not walk.faults


def test_links_are_followed_once_and_loops_end(pics: Path, tmp_path: Path) -> None:
    (pics / "self").symlink_to(".")
    (pics / "up").symlink_to(tmp_path)
    (pics / "again.png").symlink_to("a.png")
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "c.png")
    (pics / "linked").symlink_to(other)
    for found in (walk_folder(pics, True).files, expand_inputs([f"{pics}/**/*.png"]).pictures):
        assert sorted(Path(os.path.realpath(file)).name for file in found) == ["a.png", "b.png", "c.png"]
    assert names(walk_folder(pics, True).files, pics)[0] == "a.png"


def test_what_cannot_be_read_is_named(pics: Path) -> None:
    (pics / "gone.png").symlink_to("nowhere.png")
    (pics / "circle.png").symlink_to("circle.png")
    os.mkfifo(pics / "pipe.png")
    os.mkfifo(pics / "pipe")  # nobody took it for a picture
    walk = walk_folder(pics)
    assert {Path(path).name for path in walk.faults} == {"gone.png", "circle.png", "pipe.png"}
    assert all(fault.startswith(path) for path, fault in walk.faults.items())
    assert expand_inputs([str(pics)]).faults == walk.faults


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="who runs this may read everything")
def test_folders_that_may_not_be_read_are_named(pics: Path) -> None:
    (pics / "deep").chmod(0)
    try:
        assert list(walk_folder(pics, True).faults) == [str(pics / "deep")]
    finally:
        (pics / "deep").chmod(0o755)


def test_names_that_are_not_text_and_paths_that_are_too_long(pics: Path) -> None:
    odd = os.fsdecode(bytes(pics) + b"/\xff\xfe.png")
    Image.new("RGB", (8, 8)).save(odd)
    here = Path.cwd()
    try:
        os.chdir(pics)
        for _ in range(30):  # deeper than a path may be long
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
        os.chdir(pics)
    finally:
        os.chdir(here)
    walk = walk_folder(pics, recursive=True)
    assert odd in map(str, walk.files)
    assert len(walk.files) == 3 and len(walk.faults) == 1
    long = expand_inputs(["x" * 5000, "nul\0byte", "http://a..b/*.jpg"])
    assert len(long.pictures) == 3 and not long.faults


def test_evaluation_refuses_a_folder_of_which_it_would_see_less(pics: Path) -> None:
    (pics / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match=r"gone\.png"):
        folder_set(pics, None)


def test_tables_of_images(tmp_path):
    (tmp_path / "list.csv").write_text("img_path,label\na.jpg,real\n/b.jpg,fake\n")
    (tmp_path / "other.csv").write_text("name\na.jpg\n")
    found = expand_inputs([str(tmp_path / "list.csv"), str(tmp_path / "other.csv")])
    assert found.pictures == [str(tmp_path / "a.jpg"), "/b.jpg"]
    assert list(found.faults) == [str(tmp_path / "other.csv")]
