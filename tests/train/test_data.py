from collections import Counter

import numpy as np
import pytest
import torch

from deepfake_detectors.data.registry import load_split
from deepfake_detectors.data.twin_difference import difference_map
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.train.data import PictureDataset
from deepfake_detectors.train.samplers import BalancedSampler, Draw
from deepfake_detectors.train.twin_masks import TwinMasks, shift_image
from deepfake_detectors.train.variation import PictureVariation
from support.ddvqa_tree import stems, write_tree

SIZE = 96


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    train = [*stems(range(4)), "0_900_901"]  # the last one's real frame is not in the set
    root = write_tree(tmp_path_factory.mktemp("data") / "ddvqa", train, stems(range(20, 22)), SIZE)
    return load_split("ddvqa", "train", root)


@pytest.fixture
def processor():
    return M2F2DetImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


class TestBalancedSampler:
    labels = [0] * 5 + [1] * 31
    methods = ["real"] * 5 + ["A"] * 21 + ["B"] * 7 + ["C"] * 3

    def test_half_real_and_fakes_evenly(self):
        drawn = [self.methods[draw.row] for draw in BalancedSampler(self.labels, self.methods)]
        assert Counter(drawn) == {"real": 18, "A": 6, "B": 6, "C": 6}
        assert Counter(drawn[:12]) == {"real": 6, "A": 2, "B": 2, "C": 2}

    def test_every_picture_comes_before_any_comes_again(self):
        sampler = BalancedSampler([0, 0, 1, 1], ["real", "real", "A", "A"])
        assert sorted(draw.row for draw in sampler) == [0, 1, 2, 3]
        assert [draw.number for draw in sampler] == [0, 1, 2, 3]
        sampler.set_epoch(2)
        assert [draw.number for draw in sampler] == [8, 9, 10, 11]

    def test_order_follows_from_seed_and_epoch(self):
        first, second = (BalancedSampler(self.labels, self.methods, seed=3) for _ in range(2))
        assert list(first) == list(second)
        second.set_epoch(1)
        assert list(first) != list(second)
        first.set_epoch(1)
        assert list(first) == list(second)

    def test_one_class(self):
        with pytest.raises(ValueError, match="0 real, 2 fake"):
            BalancedSampler([1, 1], ["A", "A"])


class TestTwinMasks:
    def test_manipulated_middle_is_found(self, rows):
        masks = TwinMasks(rows, size=4)
        index = rows["id"][:].index("ddvqa/c40/train/0_000_001")
        mask = masks.label(index)
        assert mask.shape == (4, 4)
        assert mask.dtype == np.float32
        assert mask[1:3, 1:3].min() > 0.6  # the tree's fakes differ in the middle half of each side
        assert mask[[0, 0, 3, 3], [0, 3, 0, 3]].max() < 0.4

    def test_real_is_zero_and_a_fake_without_twin_unknown(self, rows):
        masks, ids = TwinMasks(rows, size=4), rows["id"][:]
        assert (masks.label(ids.index("ddvqa/c40/train/5_000")) == 0).all()
        assert (masks.label(ids.index("ddvqa/c40/train/0_900_901")) == -1).all()

    def test_difference_is_mapped_from_noise_to_certainty(self):
        real = np.full((16, 16, 3), 100, dtype=np.uint8)
        for change, expected in ((0, 0.0), (5, 0.0), (10, 0.5), (15, 1.0), (90, 1.0)):
            np.testing.assert_allclose(difference_map(real + np.uint8(change), real), expected)

    def test_size_that_does_not_fit(self, rows):
        index = rows["id"][:].index("ddvqa/c40/train/0_000_001")
        with pytest.raises(ValueError, match="96 x 96 pixels; mask labels of 5 x 5"):
            TwinMasks(rows, size=5).label(index)


def test_mask_moves_with_the_picture(rows):
    """The mask of the moved and mirrored picture is what the moved and mirrored pair would have given."""
    masks, ids = TwinMasks(rows, size=24), rows["id"][:]
    index, twin = ids.index("ddvqa/c40/train/0_000_001"), ids.index("ddvqa/c40/train/5_000")
    pair = [shift_image(np.asarray(rows[i]["image"]), 4, -4)[:, ::-1] for i in (index, twin)]
    expected = difference_map(*pair)
    found = masks.label(index, flip=True, rows=4, columns=-4)
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.15)  # edges are smoothed differently
    assert np.abs(found - masks.label(index)).max() > 0.5


def test_plain_dataset_is_what_inference_sees(rows, processor):
    item = PictureDataset(rows, processor)[2]
    expected = processor(rows[2]["image"], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(item["pixel_values"], expected)
    assert set(item) == {"pixel_values", "labels"}
    assert item["labels"] == rows[2]["label"]


def test_augmented_pictures_are_mirrors_and_shifts(rows, processor):
    image = np.asarray(rows[0]["image"].convert("RGB"))
    allowed = {}
    for flip in (False, True):
        for down in (-8, 0, 8):
            for right in (-8, 0, 8):
                moved = shift_image(image, down, right)
                moved = np.ascontiguousarray(moved[:, ::-1] if flip else moved)
                allowed[processor(moved, return_tensors="pt")["pixel_values"].numpy().tobytes()] = (flip, down, right)
    dataset = PictureDataset(rows, processor, PictureVariation(mirror=True, shift_cell=8))
    seen = [allowed[dataset[Draw(0, number)]["pixel_values"].numpy().tobytes()] for number in range(200)]
    assert set(seen) == set(allowed.values())
    assert seen == [allowed[dataset[Draw(0, number)]["pixel_values"].numpy().tobytes()] for number in range(200)]


def test_shift_repeats_the_edge():
    image = np.arange(9).reshape(3, 3)
    assert shift_image(image, 1, 0).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert shift_image(image, 0, -1).tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]
