"""Parity of the FaceForensics++ HDF5 reader with M2F2-Det's own: order, ids, labels and pixels."""

import json

import h5py
import numpy as np
import pytest

from deepfake_detectors.dataset_scripts.ffpp_hdf5 import FFPPHdf5
from support.golden_files import golden_folder

FOLDER = golden_folder("m2f2_det") / "ffpp_h5"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
COMPRESSION = next(FOLDER.glob("FF++_*.h5")).stem.split("_")[2]
FRAMES = EXPECTED["length"] // len(EXPECTED["video_order"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    builder = FFPPHdf5(
        config_name=COMPRESSION,
        data_dir=str(FOLDER),
        split_file="split.json",
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )
    builder.download_and_prepare()
    assert list(builder.info.splits) == ["test"]
    return builder.as_dataset(split="test")


def test_m2f2_det_ffpp_length(rows):
    assert len(rows) == EXPECTED["length"]


def test_m2f2_det_ffpp_first_ids(rows):
    first = EXPECTED["first_ids"]
    assert rows["id"][: len(first)] == first


def test_m2f2_det_ffpp_all_ids_in_video_and_frame_order(rows):
    assert rows["id"][:] == [f"{video}_{frame}" for video in EXPECTED["video_order"] for frame in range(FRAMES)]


def test_m2f2_det_ffpp_files_in_order(rows):
    seen = list(dict.fromkeys(rows["manipulation"]))
    assert seen == ["real" if name == "original" else name for name in EXPECTED["dataset_order"]]


@pytest.mark.parametrize("item", EXPECTED["items"], ids=[item["id"] for item in EXPECTED["items"]])
def test_m2f2_det_ffpp_item(rows, item):
    row = rows[item["index"]]
    pixels = np.asarray(row["image"])
    assert (row["id"], row["label"]) == (item["id"], item["label"])
    assert list(pixels.transpose(2, 0, 1).shape) == item["shape"]
    assert pixels[0, 0].tolist() == item["first_pixel_uint8"]


def test_m2f2_det_ffpp_every_pixel_is_that_of_the_file(rows):
    at = 0
    for number, name in enumerate(EXPECTED["dataset_order"]):
        with h5py.File(FOLDER / f"FF++_{name}_{COMPRESSION}_test_only.h5") as file:
            for video in (video for video in EXPECTED["video_order"] if video.startswith(f"{number}_")):
                block = np.stack([np.asarray(image) for image in rows[at : at + FRAMES]["image"]])
                assert np.array_equal(block, file[video.split("_", 1)[1]][:FRAMES])
                at += FRAMES
    assert at == len(rows)
