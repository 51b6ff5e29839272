"""Folders are written whole or not at all, also where a process is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepfake_detectors.files import read_json_object
from deepfake_detectors.outputs import (
    OutputInUseError,
    folder_lock,
    lock_beside,
    opened_whole,
    refuse_inputs,
    short_name,
    write_text,
    written_whole,
)


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


def test_a_file_is_there_when_it_is_whole(tmp_path):
    path = write_text(tmp_path / "x", "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    path.chmod(0o640)
    with pytest.raises(KeyboardInterrupt), opened_whole(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_bytes() == "ä\n".encode() and names(tmp_path) == ["x"]
    write_text(path, "new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_a_link_names_is_replaced_not_the_link(tmp_path):
    (tmp_path / "there").mkdir()
    write_text(tmp_path / "there" / "x", "old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "x")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "x").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_device_is_written_not_replaced():
    with pytest.raises(OSError, match="No space"):
        write_text("/dev/full", "text")
    assert Path("/dev/full").is_char_device()


def test_an_output_that_is_read_is_refused(tmp_path):
    picture = write_text(tmp_path / "a.jpg", "picture")
    (tmp_path / "link.jpg").symlink_to(picture)
    os.link(picture, tmp_path / "hard.jpg")
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("a.jpg", "link.jpg", "hard.jpg", "folder/a.jpg"):
        with pytest.raises(ValueError, match=r"a\.jpg"):
            refuse_inputs([tmp_path / name], ["https://host/a.jpg", picture])
    with pytest.raises(ValueError, match=r"a\.jpg"):
        refuse_inputs([tmp_path / "folder"], [picture], inside=True)
    refuse_inputs([tmp_path / "b.jpg", tmp_path], [picture, tmp_path / "absent"])


@pytest.mark.parametrize("name", ["n" * 246, "ж" * 120, "short"])
def test_long_names_are_cut(name):
    cut = short_name(name)
    assert len(os.fsencode(cut)) <= 200
    assert (cut == name) == (len(os.fsencode(name)) <= 200)
    assert short_name(name + "x") != cut


HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
import outputs
with getattr(outputs, sys.argv[2])(sys.argv[3]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["folder_lock", "lock_beside"])
def test_one_process_at_a_time(tmp_path, kind):
    """The other process imports the module alone, which costs no torch."""
    import deepfake_detectors.outputs as module

    lock, place = {"folder_lock": folder_lock, "lock_beside": lock_beside}[kind], tmp_path / "out"
    words = [sys.executable, "-c", HOLDER, str(Path(module.__file__).parent), kind, str(place)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputInUseError, match=f"process {other.pid} on "), lock(place):
            pass
        other.kill()
    with lock(place):  # nobody asks a dead owner
        with pytest.raises(OutputInUseError, match=f"process {os.getpid()} on "), lock(place):
            pass
    assert names(place if kind == "folder_lock" else tmp_path) == []
