"""Folders are written whole or not at all, also where a process is killed."""

import os
from pathlib import Path

import pytest

from deepfake_detectors.files import read_json_object
from deepfake_detectors.outputs import written_whole


def write(output, text, **options):
    with written_whole(output, **options) as folder:
        (folder / "text").write_text(text)


@pytest.fixture
def output(tmp_path):
    write(tmp_path / "out", "old")
    return tmp_path / "out"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_or_an_empty_one(tmp_path):
    write(tmp_path / "deep" / "new", "words")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "words")
    for folder in (tmp_path / "deep" / "new", tmp_path / "empty"):
        assert (folder / "text").read_text() == "words"
        assert folder.stat().st_mode & 0o777 == 0o755
    assert names(tmp_path) == ["deep", "empty"] and names(tmp_path / "deep") == ["new"]


def test_a_taken_folder_needs_replace(output):
    with pytest.raises(ValueError, match="out exists and is not an empty folder; choose another `dry_run`"):
        write(output, "new", remedy="choose another `dry_run`")
    assert (output / "text").read_text() == "old"
    (output / "more").write_text("also goes")
    write(output, "new", replace=True)
    assert names(output) == ["text"] and (output / "text").read_text() == "new"
    assert names(output.parent) == ["out"]


def test_a_file_is_never_replaced(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        write(tmp_path / "out", "new", replace=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_link_keeps_pointing_to_the_folder(output, tmp_path):
    (tmp_path / "link").symlink_to(output)
    write(tmp_path / "link", "new", replace=True)
    assert (tmp_path / "link").is_symlink() and (output / "text").read_text() == "new"


def test_a_failure_leaves_what_was_there(output):
    with pytest.raises(KeyboardInterrupt), written_whole(output, replace=True) as folder:
        (folder / "text").write_text("half")
        raise KeyboardInterrupt
    assert (output / "text").read_text() == "old" and names(output.parent) == ["out"]


def test_a_failing_swap_is_undone_at_once(output, monkeypatch):
    rename = Path.rename

    def fail(self, target):
        if Path(target) == output.resolve() and not self.name.endswith(".old"):
            raise OSError("no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space"):
        write(output, "new", replace=True)
    assert (output / "text").read_text() == "old" and names(output.parent) == ["out"]


def killed_at_rename(number, output):
    """Replace `output` in a process that is gone when it is about to rename for the `number`th time."""
    child = os.fork()
    if child == 0:
        rename, count = Path.rename, 0

        def dying(self, target):
            nonlocal count
            count += 1
            if count == number:
                os._exit(9)
            return rename(self, target)

        Path.rename = dying
        try:
            write(output, "new", replace=True)
        finally:
            os._exit(1)  # it was to die before
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("made_again", [False, True])
def test_a_kill_between_the_renames_is_undone_by_the_next_call(output, made_again):
    killed_at_rename(2, output)
    assert not output.exists(), "else this tests nothing"
    if made_again:
        output.mkdir()
    with pytest.raises(ValueError, match="not an empty folder"):
        write(output, "new")
    assert (output / "text").read_text() == "old"


def test_a_kill_between_the_renames_does_not_stop_the_next_replacement(output):
    killed_at_rename(2, output)
    write(output, "newer", replace=True)
    assert (output / "text").read_text() == "newer"
    assert not (output.parent / ".out.old").exists()


def test_a_kill_behind_the_renames_is_finished_by_the_next_call(output, tmp_path):
    """The new folder is in its place, the old one was not removed yet."""
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "text").write_text("older")
    with pytest.raises(ValueError, match="not an empty folder"):
        write(output, "new")
    assert (output / "text").read_text() == "old" and names(tmp_path) == ["out"]


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "[" * 100_000])
def test_json_that_is_no_object(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json"):
        read_json_object(tmp_path / "x.json")
