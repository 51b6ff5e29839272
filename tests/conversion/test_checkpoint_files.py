"""Which files hold a folder's weights, and how one checkpoint takes the place of another."""

import json

import pytest

from deepfake_detectors.conversion.checkpoint_files import new_checkpoint
from deepfake_detectors.files import weight_files

INDEX = "model.safetensors.index.json"


def write_index(folder, *names, index=INDEX):
    (folder / index).write_text(json.dumps({"weight_map": {str(n): name for n, name in enumerate(names)}}))


def found(folder):
    return [path.relative_to(folder).as_posix() for path in weight_files(folder)]


def test_weights_without_an_index(tmp_path):
    assert found(tmp_path) == [] and weight_files(tmp_path / "nowhere") == []
    for name in ("pytorch_model-2.bin", "pytorch_model-1.bin", "training_args.bin"):
        (tmp_path / name).touch()
    assert found(tmp_path) == ["pytorch_model-1.bin", "pytorch_model-2.bin"]
    (tmp_path / "model.safetensors").touch()
    assert found(tmp_path) == ["model.safetensors"]


def test_an_index_says_which_files_count(tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("b.safetensors", "parts/a.safetensors", "stray.safetensors"):
        (tmp_path / name).touch()
    write_index(tmp_path, "parts/a.safetensors", "b.safetensors", "b.safetensors")
    assert found(tmp_path) == ["b.safetensors", "parts/a.safetensors"]


def test_links_of_a_cache_are_files_of_the_folder(tmp_path):
    """As the Hub's cache has them: snapshots are links to blobs."""
    (tmp_path / "blob").touch()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.safetensors").symlink_to(tmp_path / "blob")
    write_index(tmp_path / "snapshot", "a.safetensors")
    assert found(tmp_path / "snapshot") == ["a.safetensors"]


@pytest.mark.parametrize("index", [INDEX, "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("name", ["{outside}", "../secret.safetensors", "x/../../secret.safetensors"])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, index, name):
    outside = tmp_path / "secret.safetensors"
    outside.touch()
    (tmp_path / "model" / "x").mkdir(parents=True)
    write_index(tmp_path / "model", name.format(outside=outside), index=index)
    with pytest.raises(ValueError, match=r"secret\.safetensors.*inside the folder"):
        weight_files(tmp_path / "model")


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[]", "{"])
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ValueError, match=INDEX):
        weight_files(tmp_path)


def test_an_index_with_a_gap(tmp_path):
    write_index(tmp_path, "gone.safetensors")
    with pytest.raises(ValueError, match=r"gone\.safetensors"):
        weight_files(tmp_path)


def test_a_new_checkpoint_leaves_other_files_and_no_old_weights(tmp_path):
    output = tmp_path / "out"
    (output / "adapter").mkdir(parents=True)
    for name in ("config.json", "model-1.safetensors", INDEX, "notes.txt", "adapter/mine.safetensors"):
        (output / name).write_text("old")
    (output / "link").symlink_to("notes.txt")
    (output / "adapter" / "config.json").write_text("old")
    with pytest.raises(ValueError, match="`overwrite`"), new_checkpoint(output):
        pass
    with new_checkpoint(output, overwrite=True) as folder:
        (folder / "config.json").write_text("new")
        (folder / "model.safetensors").write_text("new")
    contents = {path.relative_to(output).as_posix(): path.read_text() for path in output.rglob("*") if path.is_file()}
    assert contents == {
        "config.json": "new",
        "model.safetensors": "new",
        "notes.txt": "old",
        "link": "old",
        "adapter/mine.safetensors": "old",
        "adapter/config.json": "old",
    }
    assert (output / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
