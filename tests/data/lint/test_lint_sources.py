"""What lint reads of every data set: the builder's own rows, and around a broken picture all the others."""

import inspect
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfake_detectors.data.lint import Source, builder_source, lint_dataset, parquet_source
from deepfake_detectors.data.lint.sources import open_source
from deepfake_detectors.data.registry import make_builder
from support import raw_trees_pictures, raw_trees_videos
from support.pictures import random_pictures
from support.raw_trees import Tree

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
    result = lint_dataset(builder_source(name, open_builder(tree, tmp_path / "raw")))
    (broken,) = result.by_code("unreadable")
    assert (broken.level, broken.details["pictures"]) == ("error", 1)
    (identity,) = broken.details["examples"]
    assert identity not in set(result.rows["id"])
    others = {key for key in expected if not key.startswith(identity)}  # one that ends an archive hides its video
    assert others and others <= set(result.rows["id"])


def test_pixels_without_files_are_compared_by_what_they_have(tmp_path):
    tree = TREES["ffpp_hdf5"]()
    tree.write(tmp_path / "raw")
    result = lint_dataset(builder_source("ffpp_hdf5", open_builder(tree, tmp_path / "raw")))
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

    from support.lint_pictures import content, picture

    kept = [content(number) for number in range(4)]
    pictures = (picture(n, ("real", "fake")[n % 2], data=Counted(kept[n % 4])) for n in range(2000))
    result = lint_dataset(Source("stream", None, pictures), near=0)
    assert sum(row["pictures"] for row in result.counts) == 2000
    assert most < 600


def test_a_shard_of_parquet_is_not_held_in_memory(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["real", "fake"])})
    with pq.ParquetWriter(tmp_path / "train-00000-of-00001.parquet", features.arrow_schema) as writer:
        for group in range(40):
            rows = [{"image": {"bytes": os.urandom(4000), "path": "a.jpg"}, "label": group % 2} for _ in range(100)]
            writer.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))
    size = (tmp_path / "train-00000-of-00001.parquet").stat().st_size
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for _ in parquet_source(tmp_path).pictures:
        count += 1
        most = max(most, pa.total_allocated_bytes() - before)
    assert count == 4000
    assert most < size / 4


def test_clips_are_compared_by_codec_and_frame_rate(tmp_path):
    """Fakes re-encoded by another codec, at another rate; the frames themselves look alike."""
    for number in range(6):
        folder, rate, codec = (("real", 25, "mpeg4"), ("fake", 30, "mjpeg"))[number % 2]
        path = tmp_path / "raw" / folder / f"{number // 2:04d}{'_fake' if number % 2 else ''}.mp4"
        write_clip(path, rate, codec, shade=30 * number)
    result = lint_dataset("uadfv", tmp_path / "raw", options={"frames_per_video": 2})
    assert len(result.rows) == 12
    (codec,) = result.by_code("shortcut-format")
    assert codec.level == "error" and "mov mjpeg" in codec.message
    (rate,) = result.by_code("shortcut-frame_rate")
    assert rate.level == "error" and "30 in 100 %" in rate.message
    sizes = {path.stat().st_size // 6 for path in (tmp_path / "raw").rglob("*.mp4")}
    assert set(result.rows["bytes"]) == sizes


def write_clip(path, rate, codec, shade):
    import av
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = 48, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(6):
            pixels = np.full((48, 48, 3), shade + number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_a_table_in_place_of_a_folder(tmp_path):
    pictures = random_pictures(4)
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    table = tmp_path / "pictures.csv"
    table.write_text("img_path,label\n" + "".join(f"{n}.png,{('real', 'fake')[n % 2]}\n" for n in range(4)))
    found = list(open_source(table).pictures)
    assert [(picture.label, Path(picture.name).name) for picture in found] == [
        (("real", "fake")[n % 2], f"{n}.png") for n in range(4)
    ]
    assert "4" in lint_dataset(table, against=table).findings[0].message  # all of them are in both
    with pytest.raises(ValueError, match="leave it out"):
        open_source(table, config="casia")
    with pytest.raises(ValueError, match="Leave it out"):
        open_source(table, data_dir=tmp_path)
