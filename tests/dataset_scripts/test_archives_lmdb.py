"""DeepfakeBench frames packed into LMDB give the rows of the same frames in folders."""

import json
from pathlib import Path

import pytest

from deepfake_detectors.data.parquet import build_dataset
from deepfake_detectors.data.registry import make_builder
from support.folder_tree import save

lmdb = pytest.importorskip("lmdb")

FOLDER = "FaceForensics++/manipulated_sequences/Deepfakes/{level}/{kind}/000_001"


@pytest.fixture(params=["/", "\\"])
def packed(request, tmp_path):
    """Frames of c40 with masks under c23, as files in `files/` and as LMDB in `packed/`."""
    names = [FOLDER.format(level="c40", kind="frames") + f"/{number:03d}.png" for number in (10, 9)]
    masks = [FOLDER.format(level="c23", kind="masks") + f"/{number:03d}.png" for number in (10, 9)]
    store = tmp_path / "packed" / "FaceForensics++_lmdb"
    store.mkdir(parents=True)
    with lmdb.open(str(store), map_size=2**20) as environment, environment.begin(write=True) as writing:
        for name in [*names, *masks]:
            content = save(tmp_path / "files" / name, (6, 4)).read_bytes()
            dataset, rest = name.split("/", 1)
            writing.put(f"{dataset}\\{rest.replace('/', request.param)}".encode(), content)
    record = {"000_001": {"label": "FF-DF", "frames": names, "masks": masks}}
    for folder in ("files", "packed"):
        (tmp_path / folder / "x.json").write_text(json.dumps({"FF-DF": {"FF-DF": {"test": {"c40": record}}}}))
    return tmp_path


def rows(folder, **options):
    builder = make_builder("deepfakebench", folder, None, {"json": "x.json", "compression": "c40", **options})
    return [row for unit in builder.inspect(folder)["test"] for row in builder.examples(unit)], builder


def test_same_rows_as_from_files(packed):
    files, _ = rows(packed / "files", masks=True)
    store, builder = rows(packed / "packed", masks=True, lmdb=True)
    assert [row["frame"] for row in store] == [9, 10]
    for row, twin in zip(store, files, strict=True):
        path = Path(twin.pop("image"))
        assert row.pop("image")["bytes"] == path.read_bytes()
        assert row.pop("mask")["bytes"][:8] == b"\x89PNG\r\n\x1a\n"
        twin.pop("mask")
        assert row == twin
    assert build_dataset(builder, packed / "out").rows == {"test": 2}


def test_missing_frame_and_mask(packed):
    path = packed / "packed" / "x.json"
    path.write_text(path.read_text().replace("010.png", "011.png"))
    builder = rows(packed / "packed", lmdb=True)[1]
    assert [name.rsplit("/", 1)[1] for name in builder.missing] == ["011.png"]
    with pytest.raises(FileNotFoundError, match=r"011\.png"):
        build_dataset(builder, packed / "out")


def test_missing_store(packed):
    with pytest.raises(FileNotFoundError, match=r"FaceForensics\+\+_lmdb/data\.mdb is missing"):
        rows(packed / "files", lmdb=True)


def test_truncated_store(packed):
    path = packed / "packed" / "FaceForensics++_lmdb" / "data.mdb"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"data\.mdb (has \d+ of \d+ bytes|cannot be read)"):
        rows(packed / "packed", lmdb=True)


def test_store_that_is_a_link(packed):
    store = packed / "packed" / "FaceForensics++_lmdb"
    store.rename(packed / "outside")
    store.symlink_to(packed / "outside")
    with pytest.raises(ValueError, match=r"data\.mdb"):
        rows(packed / "packed", lmdb=True)


def test_picture_cut_off_inside(packed):
    store = packed / "packed" / "FaceForensics++_lmdb"
    with lmdb.open(str(store), map_size=2**20) as environment, environment.begin(write=True) as writing:
        with writing.cursor() as cursor:
            for key, value in list(cursor):
                if b"frames" in key and key.endswith(b"009.png"):
                    writing.put(key, value[:40])
    with pytest.raises(ValueError, match=r"009\.png in .*data\.mdb \(40 bytes\) cannot be decoded"):
        rows(packed / "packed", lmdb=True)
