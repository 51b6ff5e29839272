"""What lint reads of every data set: the builder's own rows, and around a broken picture all the others."""

import inspect

import pytest
import raw_trees_pictures
import raw_trees_videos
from raw_trees import Tree

from deepfake_detectors.building import make_builder
from deepfake_detectors.linting import builder_source
from deepfake_detectors.linting.run import lint
from deepfake_detectors.linting.sources import Source

TREES = {
    kind.dataset: kind
    for module in (raw_trees_pictures, raw_trees_videos)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, Tree) and hasattr(kind, "dataset")
}


def open_builder(tree, root):
    builder = make_builder(tree.dataset, root, tree.config, tree.options)
    builder.log_findings = False
    return builder


def builder_rows(builder):
    splits = builder.inspect(builder.config.data_dir)
    return {
        row["id"]: (split, row["label"], row["group_id"], row["video_id"])
        for split, units in splits.items()
        for unit in units
        for row in builder.examples(unit)
    }


@pytest.mark.parametrize("name", sorted(TREES))
def test_every_builder_can_be_linted(name, tmp_path):
    tree = TREES[name]()
    tree.write(tmp_path / "raw")
    expected = builder_rows(open_builder(tree, tmp_path / "raw"))
    source = builder_source(name, open_builder(tree, tmp_path / "raw"))
    pictures = list(source.pictures)
    read = {item.id: (item.split, item.label, item.columns["group_id"], item.columns["video_id"]) for item in pictures}
    assert read == expected
    assert source.total >= len(pictures) == len(expected)
    assert not any(item.error for item in pictures)

    said = tree.truncated(tmp_path / "raw").text
    if name == "ffpp_hdf5":  # half a container holds nothing
        with pytest.raises(ValueError, match=said):
            builder_source(name, open_builder(tree, tmp_path / "raw"))
        return
    result = lint(builder_source(name, open_builder(tree, tmp_path / "raw")))
    (broken,) = result.by_code("unreadable")
    assert (broken.level, broken.details["pictures"]) == ("error", 1)
    (identity,) = broken.details["examples"]
    assert identity not in set(result.rows["id"])
    others = {key for key in expected if not key.startswith(identity)}  # one that ends an archive hides its video
    assert others and others <= set(result.rows["id"])


def test_pixels_without_files_are_compared_by_what_they_have(tmp_path):
    tree = TREES["ffpp_hdf5"]()
    tree.write(tmp_path / "raw")
    result = lint(builder_source("ffpp_hdf5", open_builder(tree, tmp_path / "raw")))
    assert result.rows["bytes"].isna().all() and result.rows["width"].notna().all()
    assert not result.by_code("bytes-per-pixel")
    assert result.by_code("metadata-classifier") or result.by_code("class-balance")


def test_a_source_is_read_once_and_no_more_than_needed(tmp_path):
    """A stream of any length is measured picture by picture."""
    alive = 0
    most = 0

    class Counted(bytes):
        def __new__(cls, data):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, data)

        def __del__(self):
            nonlocal alive
            alive -= 1

    from lint_pictures import content, picture

    kept = [content(number) for number in range(4)]
    pictures = (picture(n, ("real", "fake")[n % 2], data=Counted(kept[n % 4])) for n in range(2000))
    result = lint(Source("stream", None, pictures), radius=0)
    assert sum(row["pictures"] for row in result.counts) == 2000
    assert most < 600
