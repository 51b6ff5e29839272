"""Variation of training pictures, and mask labels that go along."""

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.train.arguments import DataArguments
from deepfake_detectors.train.augmentation import PictureVariation, Variation
from deepfake_detectors.train.data import (
    Draw,
    PictureDataset,
    VideoSampler,
    load_train_and_validation,
    set_validation_aside,
    spread_over_videos,
    training_pictures,
    training_sampler,
)
from deepfake_detectors.train.masks import ColumnMasks, MaskShaper, mask_side
from support.ddvqa_tree import stems, write_tree
from support.folder_tree import save
from support.tiny_models import SIZE, lvlm_dfd, lvlm_image_processor, m2f2_det, verdict_processor

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(6)), stems(range(20, 22)), size=56)


def draws(count, **options):
    variation = PictureVariation(**options)
    return [variation.draw(np.random.default_rng([0, number])) for number in range(count)]


def test_nothing_asked_for_changes_nothing():
    assert set(draws(20)) == {Variation()}
    assert np.array_equal(np.asarray(Variation().picture(IMAGE)), IMAGE)


def test_probabilities_and_ranges():
    found = draws(2000, mirror=True, blur=0.1, jpeg=0.1)
    assert np.mean([each.flip for each in found]) == pytest.approx(0.5, abs=0.04)
    sigmas = [each.sigma for each in found if each.sigma]
    assert len(sigmas) == pytest.approx(200, abs=50)
    assert 0 < min(sigmas) < 0.3
    assert 2.7 < max(sigmas) < 3
    qualities = [each.quality for each in found if each.quality is not None]
    assert set(qualities) == {30, 100}
    assert len(qualities) == pytest.approx(200, abs=50)


def test_blur_is_a_gaussian_blur():
    from scipy.ndimage import gaussian_filter

    found = np.asarray(Variation(sigma=1.5).picture(IMAGE)).astype(float)
    expected = gaussian_filter(IMAGE.astype(float), (1.5, 1.5, 0), mode="mirror", truncate=4.0)
    assert np.abs(found - expected).max() <= 1.0


def test_blur_of_a_picture_smaller_than_its_kernel():
    assert Variation(sigma=2.9).picture(IMAGE[:6, :7]).size == (7, 6)


def test_jpeg_is_jpeg():
    smooth = np.asarray(Image.fromarray(IMAGE[::8, ::8]).resize((60, 40), Image.Resampling.BICUBIC))
    rough, fine = (np.asarray(Variation(quality=quality).picture(smooth)).astype(int) for quality in (30, 100))
    assert np.abs(rough - smooth).mean() > 3 * np.abs(fine - smooth).mean() > 0


def test_random_crop_reaches_every_place_and_the_processor_leaves_it_alone():
    processor = verdict_processor(40).image_processor
    shapes = {each.picture(IMAGE, 40).size for each in draws(30, random_crop=True)}
    assert shapes == {(40, 40)}
    corners = {
        next(x for x in range(21) if np.array_equal(np.asarray(each.picture(IMAGE, 40)), IMAGE[:, x : x + 40]))
        for each in draws(400, random_crop=True)
    }
    assert corners == set(range(21))
    crop = Variation(crop=(0.0, 1.0)).picture(IMAGE, 40)
    bare = processor(crop, do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(bare.transpose(1, 2, 0), np.asarray(crop))


def test_one_frame_of_every_video_per_pass():
    videos = ["a"] * 5 + ["b"] * 3 + ["c"]
    sampler, seen = VideoSampler(videos, seed=1), set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert sorted(videos[draw.row] for draw in drawn) == ["a", "b", "c"]
        assert [draw.number for draw in drawn] == [3 * epoch, 3 * epoch + 1, 3 * epoch + 2]
        seen |= {draw.row for draw in drawn}
    assert len(sampler) == 3
    assert seen == set(range(9))  # the last frame too, which the official reader can never pick


def test_validation_frames_are_spread():
    assert spread_over_videos(["a"] * 9 + ["b"] * 2, 3) == [1, 4, 7, 9, 10]
    assert spread_over_videos(["a"] * 9 + ["b"], 1) == [4, 9]


class TestMasks:
    def test_side(self):
        assert mask_side(lvlm_dfd()) == SIZE
        assert mask_side(m2f2_det()) is None

    def test_mask_moves_and_is_squashed_like_the_picture(self):
        """A white rectangle in picture and mask stays in the same place."""
        image = np.zeros((80, 120, 3), np.uint8)
        image[10:40, 20:50] = 255
        mask = image[..., 0].astype(np.float32) / 255
        processor = lvlm_image_processor()
        for variation in (Variation(), Variation(flip=True), Variation(down=8, right=-8)):
            seen = processor(variation.picture(image), do_normalize=False, return_tensors="np")["pixel_values"][0, 0]
            label = MaskShaper(processor, SIZE)(mask, variation)
            assert label.shape == (SIZE, SIZE)
            assert label.dtype == np.float32
            assert np.abs(label - seen).mean() < 0.01

    def test_column(self, tmp_path):
        root = tmp_path / "set"
        for name in ("real/a.png", "fake/b.png", "fake/c.png"):
            save(root / name, (60, 60))
        for name in ("b", "c"):
            white = np.zeros((60, 60), np.uint8)
            white[:30] = 255
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(white).save(root / "masks" / f"{name}.png")
        rows = load_split("image_folder", "train", root, "real_fake", {"masks": "masks"})
        processor = lvlm_image_processor()
        masks = ColumnMasks(rows, "mask", MaskShaper(processor, SIZE))
        by_label = {label: masks.label(row, Variation()) for row, label in enumerate(rows["label"])}
        assert (by_label[0] == 0).all()
        assert by_label[1][:26].min() > 0.95
        assert by_label[1][30:].max() < 0.05
        arguments = DataArguments(mask_column="mask", mirror=True)
        dataset = training_pictures(rows, processor, SIZE, arguments, seed=0)
        assert dataset[Draw(0, 0)]["mask_labels"].shape == (SIZE, SIZE)
        with pytest.raises(ValueError, match="mask_column is 'masc'"):
            training_pictures(rows, processor, SIZE, DataArguments(mask_column="masc"), seed=0)

    def test_twin_masks_as_large_as_the_picture(self, tree):
        rows = load_split("ddvqa", "train", tree)
        dataset = training_pictures(rows, lvlm_image_processor(), SIZE, DataArguments(twin_masks=True), seed=0)
        index = rows["manipulation"][:].index("Deepfakes")
        mask = dataset[index]["mask_labels"].numpy()
        quarter = SIZE // 4
        assert mask.shape == (SIZE, SIZE)
        assert mask[quarter + 8 : -quarter - 8, quarter + 8 : -quarter - 8].min() > 0.6
        assert mask[:4].max() < 0.4
        assert np.abs(np.diff(mask, axis=0)).max() < 0.3  # smooth, not in steps of four


class TestSelfBlendedTraining:
    def pictures(self, tree, **options):
        train, validation = load_train_and_validation(
            DataArguments(data_dir=str(tree), validation_fraction=0.3, **options)
        )
        arguments = DataArguments(**options)
        return train, validation, training_pictures(train, lvlm_image_processor(), SIZE, arguments, seed=0)

    def test_only_reals_make_both_classes_and_validation_stays(self, tree):
        train, validation, dataset = self.pictures(tree, only_reals=True, self_blend=0.5)
        assert set(train["label"]) == {0}
        assert set(validation["label"]) == {0, 1}
        items = [dataset[Draw(number % len(train), number)] for number in range(60)]
        labels = [int(item["labels"]) for item in items]
        assert 18 <= sum(labels) <= 42
        for item, label in zip(items, labels, strict=True):
            assert (item["mask_labels"].max() > 0.5) == bool(label)
            assert item["mask_labels"].min() >= 0

    def test_fakes_of_the_data_set_are_unknown_to_the_mask_losses(self, tree):
        train, _, dataset = self.pictures(tree, self_blend=0.5)
        fake = train["label"][:].index(1)
        assert (dataset[Draw(fake, 0)]["mask_labels"] == -1).all()
        assert int(dataset[Draw(fake, 0)]["labels"]) == 1

    def test_draw_repeats(self, tree):
        train, _, dataset = self.pictures(tree, self_blend=1.0)
        real = train["label"][:].index(0)
        first, again = (dataset[Draw(real, 5)]["pixel_values"].numpy() for _ in range(2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, dataset[Draw(real, 6)]["pixel_values"].numpy())

    def test_pictures_to_validate_on_are_never_blended(self, tree):
        _, validation, _ = self.pictures(tree, self_blend=0.9)
        dataset = PictureDataset(validation, lvlm_image_processor())
        assert [int(dataset[index]["labels"]) for index in range(len(dataset))] == validation["label"][:]


def test_rows_without_a_group_stand_for_themselves(tree):
    rows = load_split("ddvqa", "train", tree)
    bare = rows.remove_columns("group_id").add_column("group_id", [None] * len(rows))
    train, validation = set_validation_aside(bare, DataArguments(validation_fraction=0.4))
    assert len(train) + len(validation) == len(rows)
    assert not set(train["id"]) & set(validation["id"])


def test_every_stage_holds_out_the_same_groups(tree):
    """However many questions are asked about each picture."""
    pictures = load_split("ddvqa", "train", tree)
    groups = sorted(set(pictures["group_id"]))
    asked = [1 + 6 * groups.index(group) for group in pictures["group_id"]]
    repeated = [row for row, times in enumerate(asked) for _ in range(times)]
    questions = pictures.select(repeated).remove_columns("id")
    questions = questions.add_column("id", [f"question {number}" for number in range(len(repeated))])
    for seed in range(5):
        arguments = DataArguments(validation_fraction=0.3, validation_seed=seed)
        expected, found = (
            [set(part["group_id"]) for part in set_validation_aside(rows, arguments)] for rows in (pictures, questions)
        )
        assert found == expected


def test_validation_split_of_the_data_set(tree):
    arguments = DataArguments(data_dir=str(tree), validation_split="test", validation_frames=1)
    train, validation = load_train_and_validation(arguments)
    assert len(train) == 18
    assert {name.split("/")[2] for name in validation["id"]} == {"test"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": 1.5}, r"blur is 1.5, expected a probability"),
        ({"self_blend": -0.1}, "self_blend is -0.1"),
        ({"only_reals": True}, "only_reals needs self_blend between 0 and 1"),
        ({"only_reals": True, "self_blend": 0.5, "balanced_sampling": True}, "balanced_sampling and only_reals"),
        ({"one_frame_per_video": True, "balanced_sampling": True}, "balanced_sampling and one_frame_per_video"),
        ({"twin_masks": True, "mask_column": "mask"}, "twin_masks and mask_column"),
        ({"twin_masks": True, "random_crop": True}, "random_crop and twin_masks cannot be set together"),
        ({"validation_frames": 0}, "validation_frames is 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**options)


def test_masks_for_a_model_without_a_mask_head(tree):
    rows = load_split("ddvqa", "train", tree)
    processor = verdict_processor().image_processor
    with pytest.raises(ValueError, match="twin_masks"):
        training_pictures(rows, processor, None, DataArguments(twin_masks=True), seed=0)
    with pytest.raises(ValueError, match="self_blend_landmarks is 'points'"):
        training_pictures(rows, processor, None, DataArguments(self_blend=0.5, self_blend_landmarks="points"), seed=0)
    assert training_pictures(rows, processor, None, DataArguments(self_blend=0.5), seed=0).masks is None
    assert isinstance(training_sampler(rows, DataArguments(one_frame_per_video=True), 0), VideoSampler)
