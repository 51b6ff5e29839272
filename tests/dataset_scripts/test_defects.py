"""Every builder on the smallest whole tree in its official layout, and on the same tree with each defect.

What must happen to which defect is written beside the trees (`raw_trees_videos.py`, `raw_trees_pictures.py`): the copy
is refused, or `check` says it; nothing is left out in silence.
"""

import inspect
import re
import shutil

import pytest

from deepfake_detectors.data.check import check_dataset
from deepfake_detectors.data.parquet import build_dataset
from deepfake_detectors.data.registry import DATASETS, builder_class, make_builder
from support import raw_trees_pictures, raw_trees_videos
from support.raw_trees import DEFECTS, Tree

TREES = {
    kind.dataset: kind
    for module in (raw_trees_pictures, raw_trees_videos)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, Tree) and hasattr(kind, "dataset")
}
CASES = [(name, defect) for name in sorted(TREES) for defect in DEFECTS if getattr(TREES[name], defect) is not None]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "größe 数据"  # no defect: users have such folders


def open_builder(tree, root):
    builder = make_builder(tree.dataset, root, tree.config, tree.options)
    builder.log_findings = False
    return builder


def rows_of(builder):
    splits = builder.inspect(builder.config.data_dir)
    return {
        row["id"]: (split, row) for split, units in splits.items() for unit in units for row in builder.examples(unit)
    }


def test_every_builder_is_in_the_matrix():
    assert sorted(TREES) == sorted(DATASETS)


@pytest.mark.parametrize("name", sorted(TREES))
def test_readers_of_archives_are_tried_with_paths_upwards(name):
    reads = "list_members" in inspect.getsource(inspect.getmodule(builder_class(name)))
    assert reads == (TREES[name].archive_up is not None)


@pytest.mark.parametrize("name", sorted(TREES))
def test_whole_tree(name, root, tmp_path):
    tree = TREES[name]()
    tree.write(root)
    builder = open_builder(tree, root)
    rows = rows_of(builder)
    labels = {identity: row["label"] for identity, (_, row) in rows.items()}
    assert set(labels.values()) == {"real", "fake"}
    assert {
        identity: "fake" if any(part in identity for part in tree.fakes) else "real" for identity in labels
    } == labels
    assert not any(str(tmp_path) in str(value) for _, row in rows.values() for value in (row["id"], row["video_id"]))
    streamed = {
        row["id"]
        for split in {split for split, _ in rows.values()}
        for row in open_builder(tree, root).as_streaming_dataset(split=split)
    }
    assert streamed == set(rows)

    moved = root.rename(tmp_path / "elsewhere")
    assert list(rows_of(open_builder(tree, moved))) == list(rows)
    done = build_dataset(open_builder(tree, moved), tmp_path / "out").rows
    assert sum(done.values()) == len(rows)


@pytest.mark.parametrize("name", sorted(TREES))
def test_two_processes(name, root, tmp_path):
    tree = TREES[name]()
    tree.write(root)
    options = {"config_name": tree.config, "data_dir": str(root), **tree.options}
    builder = builder_class(name)(cache_dir=str(tmp_path / "cache"), **options)
    builder.download_and_prepare(num_proc=2)
    built = {identity for split in builder.as_dataset().values() for identity in split["id"]}
    assert built == set(rows_of(open_builder(tree, root)))


@pytest.mark.parametrize(("name", "defect"), CASES)
def test_defect(name, defect, root, tmp_path):
    tree = TREES[name]()
    tree.write(root)
    before = rows_of(open_builder(tree, root))
    expected = getattr(tree, defect)(root)
    builder = open_builder(tree, root)
    result = check_dataset(builder, decode=True)
    if expected.level == "refused":
        assert not result.ok
        assert any(item.level == "error" and re.search(expected.text, item.message) for item in result.findings), (
            result
        )
        with pytest.raises((ValueError, OSError), match=expected.text):
            build_dataset(builder, tmp_path / "out")
        return
    after = rows_of(open_builder(tree, root))
    assert len(after) == len(before) - expected.lost
    assert sum(build_dataset(builder, tmp_path / "out").rows.values()) == len(after)
    if expected.level == "read":
        assert expected.text in set(after) - set(before)
    else:
        said = [item.message for item in result.findings if item.level == expected.level]
        assert any(re.search(expected.text, message) for message in said), result
    shutil.rmtree(tmp_path / "out")
