"""The tables of a build are those that `datasets` makes of the same rows, and no file is read twice for them."""

import inspect
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from datasets.table import embed_table_storage

from deepfake_detectors.data.registry import make_builder
from deepfake_detectors.data.row_tables import row_tables
from deepfake_detectors.dataset_scripts._archives import read_picture
from support import raw_trees_pictures, raw_trees_videos
from support.pictures import random_pictures
from support.raw_trees import Tree

TREES = {
    kind.dataset: kind
    for module in (raw_trees_pictures, raw_trees_videos)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, Tree) and hasattr(kind, "dataset")
}


@pytest.mark.parametrize("name", sorted(TREES))
def test_tables_are_those_of_datasets(name, tmp_path):
    tree = TREES[name]()
    tree.write(tmp_path / "raw")
    builder = make_builder(tree.dataset, tmp_path / "raw", tree.config, tree.options)
    builder.log_findings = False
    features = builder.info.features
    for split, units in builder.find_splits().items():
        rows = [row for _, row in builder._generate_examples(units=units)]
        encoded = [features.encode_example({key: row.get(key) for key in features}) for row in rows]
        expected = embed_table_storage(pa.Table.from_pylist(encoded, schema=features.arrow_schema))
        found = list(row_tables(builder, split, units, 2))
        assert [table.num_rows for table in found[:-1]] == [2] * (len(found) - 1)
        joined = pa.concat_tables(found)
        assert joined.schema.equals(expected.schema, check_metadata=True)
        assert joined.to_pylist() == expected.to_pylist()
        for cell in joined["image"].to_pylist():
            assert cell["bytes"] and os.sep not in (cell["path"] or "")
    assert builder.embed_files is False


@pytest.fixture
def pictures(tmp_path) -> Path:
    root = tmp_path / "raw"
    for number, picture in enumerate(random_pictures(4)):
        path = root / "train" / ("real", "fake")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return root


def test_what_was_checked_is_what_is_written(pictures, monkeypatch):
    """A file that goes away right after it was checked is not missed."""
    builder = make_builder("image_folder", pictures, "real_fake")
    contents = {path.name: path.read_bytes() for path in pictures.rglob("*.png")}
    check = type(builder).check_picture

    def check_and_remove(self, source, where=""):
        checked = check(self, source, where)
        Path(source).unlink()
        return checked

    splits = builder.find_splits()
    monkeypatch.setattr(type(builder), "check_picture", check_and_remove)
    (table,) = row_tables(builder, "train", splits["train"], 100)
    assert {row["image"]["path"]: row["image"]["bytes"] for row in table.to_pylist()} == contents


def test_a_file_of_the_same_name_in_the_working_directory_is_not_taken(pictures, tmp_path, monkeypatch):
    file = next(pictures.rglob("0.png"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(file, "0.png")
    member = read_picture(tmp_path / "a.zip", "0.png")
    (tmp_path / "0.png").write_bytes(b"another file")
    monkeypatch.chdir(tmp_path)
    builder = make_builder("image_folder", pictures, "real_fake")
    (unit, *_) = builder.find_splits()["train"]
    monkeypatch.setattr(type(builder), "examples", lambda self, unit: iter([{"id": "a", **unit.columns, **member}]))
    (table,) = row_tables(builder, "train", [unit], 100)
    assert table.to_pylist()[0]["image"] == {"bytes": file.read_bytes(), "path": "0.png"}
