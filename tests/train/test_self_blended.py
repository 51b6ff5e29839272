"""Self-blended fakes: what is blended, where the mask says it was, and that every draw can be repeated."""

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from deepfake_detectors.train.self_blended import RATIOS, REGIONS, SelfBlending, region_mask
from support.real_data import needs_real_data, real_data

SIZE = 96


def face(seed=0, size=SIZE):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(40, 220, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).copy()


def rows(count=6, fakes=(1, 4)):
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["real", "fake"]),
            "landmarks": [[datasets.Value("float32")]],
        }
    )
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([SIZE / 2 + 20 * np.cos(angles), SIZE / 2 + 20 * np.sin(angles)], 1)
    return datasets.Dataset.from_list(
        [
            {
                "id": f"row{i}",
                "image": Image.fromarray(face(i)),
                "label": int(i in fakes),
                "landmarks": circle.tolist(),
            }
            for i in range(count)
        ],
        features=features,
    )


@pytest.mark.parametrize("name", REGIONS)
def test_region_lies_where_its_name_says(name):
    mask = region_mask(name, 200, 160, np.random.default_rng(0))
    assert mask.shape == (200, 160)
    assert set(np.unique(mask)) == {0.0, 1.0}
    down, right = (axis.mean() / length for axis, length in zip(np.nonzero(mask), mask.shape, strict=True))
    assert right == pytest.approx(0.5, abs=0.06)
    expected = {"eyes": (0.3, 0.5), "upper_face": (0.28, 0.46), "mouth": (0.66, 0.82), "lower_face": (0.62, 0.82)}
    low, high = expected.get(name, (0.45, 0.62))
    assert low < down < high
    assert 0.01 < mask.mean() < 0.7


def test_regions_of_landmarks_are_hulls():
    """68 points on two rows: brows and eyes above, mouth below."""
    points = np.zeros((68, 2))
    points[:, 0] = np.linspace(20, 76, 68)
    points[:, 1] = 50
    points[17:27, 1], points[36:48, 1], points[27:36, 1], points[48:, 1] = 20, 30, 45, 80
    points[50, 1] = 70
    points[30, 1] = 60
    points[8, 1] = 90
    generator = np.random.default_rng(0)
    eyes, mouth = (region_mask(name, SIZE, SIZE, generator, points) for name in ("eyes", "mouth"))
    assert np.nonzero(eyes)[0].min() >= 19
    assert np.nonzero(eyes)[0].max() <= 31
    assert np.nonzero(mouth)[0].min() >= 69
    whole = region_mask("face", SIZE, SIZE, generator, points)
    assert (whole >= eyes).all()
    assert (whole >= mouth).all()


@pytest.mark.parametrize(
    ("name", "landmarks", "message"),
    [
        ("chin", None, "Region 'chin' is unknown, allowed are face"),
        ("mouth", np.eye(3, 2), "needs dlib's 68 or 81 landmarks, got 3"),
        ("face", np.zeros((2, 2)), "at least three points"),
        ("face", np.full((5, 2), np.nan), "at least three points"),
        ("face", np.stack([np.arange(5.0)] * 2, 1), "'face'.*2\\.0, 2\\.0"),
    ],
)
def test_wrong_regions(name, landmarks, message):
    with pytest.raises(ValueError, match=message):
        region_mask(name, SIZE, SIZE, np.random.default_rng(0), landmarks)


class TestBlend:
    @pytest.mark.parametrize("seed", range(12))
    def test_mask_is_soft_and_somewhere(self, seed):
        blended = SelfBlending().blend(face(), np.random.default_rng(seed))
        assert blended.image.shape == (SIZE, SIZE, 3)
        assert blended.image.dtype == np.uint8
        assert blended.mask.shape == (SIZE, SIZE)
        assert blended.mask.dtype == np.float32
        assert blended.mask.min() >= 0.0
        assert blended.mask.max() == pytest.approx(1.0)
        assert 0.001 < blended.mask.mean() < 0.7
        assert ((blended.mask > 0.05) & (blended.mask < 0.95)).any()
        assert blended.regions[0] in REGIONS
        assert not np.array_equal(blended.image, face())

    def test_outside_the_mask_is_one_picture_and_inside_another(self):
        """Where only the inner copy was changed, not a pixel beside the mask differs from the real picture."""
        real, changed_inside = face(), 0
        for seed in range(40):
            blended = SelfBlending().blend(real, np.random.default_rng(seed))
            difference = np.abs(blended.image.astype(int) - real).max(axis=2)
            if (difference[blended.mask == 0] == 0).all():
                changed_inside += 1
                assert difference[blended.mask > 0.9].max() > 0
        assert 8 < changed_inside < 32  # the coin decides which of the two copies is changed

    def test_draw_repeats_and_next_differs(self):
        first, again, other = (SelfBlending().blend(face(), np.random.default_rng(seed)) for seed in (3, 3, 4))
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.mask, again.mask)
        assert not np.array_equal(first.image, other.image)

    def test_only_the_regions_asked_for(self):
        blending = SelfBlending(regions=["mouth", "nose"])
        found = {blending.blend(face(), np.random.default_rng(seed)).regions[0] for seed in range(20)}
        assert found == {"mouth", "nose"}

    def test_landmarks_place_the_mask(self):
        corner = np.array([[5, 5], [35, 5], [35, 35], [5, 35]])
        blended = SelfBlending(regions=["face"]).blend(face(), np.random.default_rng(0), corner)
        assert blended.mask[:50, :50].sum() > 0.95 * blended.mask.sum()

    def test_half_of_the_blends_are_full(self):
        assert sorted(RATIOS) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    @pytest.mark.parametrize("image", [face().astype(np.float32), face()[..., 0]])
    def test_wrong_pixels(self, image):
        with pytest.raises(ValueError, match=str(image.dtype)):
            SelfBlending().blend(image, np.random.default_rng(0))


class TestTransform:
    def test_reals_become_fakes_with_masks_and_fakes_stay(self):
        plain = rows()
        found = plain.with_transform(SelfBlending(seed=1))
        for index, row in enumerate(found):
            assert row["label"] == 1
            if plain[index]["label"] == 1:
                assert row["mask"] is None
                assert row["regions"] == []
                assert np.array_equal(np.asarray(row["image"]), np.asarray(plain[index]["image"]))
            else:
                assert row["mask"].mode == "L"
                assert row["mask"].size == row["image"].size
                assert np.asarray(row["mask"]).max() == 255
                assert len(row["regions"]) == 1

    def test_share_of_reals(self):
        found = rows(200, fakes=()).with_transform(SelfBlending(probability=0.25, seed=1))
        labels = [row["label"] for row in found]
        assert 30 <= sum(labels) <= 70
        untouched = next(row for row in found if row["label"] == 0)
        assert np.asarray(untouched["mask"]).max() == 0

    def test_row_gets_the_same_whatever_the_order_or_number_of_workers(self):
        found = rows().with_transform(SelfBlending(seed=1))
        forwards = [np.asarray(found[index]["image"]) for index in range(6)]
        backwards = [np.asarray(found[index]["image"]) for index in reversed(range(6))][::-1]
        together = [np.asarray(image) for image in found[:]["image"]]
        loaded = [
            np.asarray(row[0]["image"]) for row in DataLoader(found, batch_size=1, num_workers=2, collate_fn=list)
        ]
        for one, *others in zip(forwards, backwards, together, loaded, strict=True):
            assert all(np.array_equal(one, other) for other in others)

    def test_next_epoch_and_other_seed_differ(self):
        transform = SelfBlending(seed=1)
        found = rows().with_transform(transform)
        first = np.asarray(found[0]["image"])
        transform.set_epoch(1)
        assert not np.array_equal(np.asarray(found[0]["image"]), first)
        transform.set_epoch(0)
        assert np.array_equal(np.asarray(found[0]["image"]), first)
        other = rows().with_transform(SelfBlending(seed=2))
        assert not np.array_equal(np.asarray(other[0]["image"]), first)

    def test_map(self):
        transform = SelfBlending(seed=1, landmarks="landmarks", regions=["face"])
        mapped = rows(4, fakes=()).map(transform, batched=True, batch_size=2)
        assert mapped["label"][:] == [1] * 4
        again = rows(4, fakes=()).with_transform(transform)
        assert np.array_equal(np.asarray(mapped[2]["mask"]), np.asarray(again[2]["mask"]))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"probability": 1.5}, r"probability is 1.5, expected a share in \[0, 1\]"),
            ({"regions": ["chin"]}, "regions are .*chin.*, allowed are face"),
            ({"regions": []}, "allowed are face"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            SelfBlending(**options)


@needs_real_data
def test_blends_of_real_faces_stay_faces():
    """On photographs: the change is local or slight, and a blend is closer to its own picture than to any other."""
    pictures = sorted((real_data("ddvqa") / "images_c40" / "train").glob("5_*.jpg"))[:6]
    faces = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in pictures]).astype(np.float32)
    for number, real in enumerate(faces):
        for seed in range(4):
            image = SelfBlending().blend(real.astype(np.uint8), np.random.default_rng([number, seed])).image
            distances = np.abs(faces - image).mean(axis=(1, 2, 3))
            assert distances.argmin() == number
            assert distances[number] < 40
            assert (np.abs(real - image).max(axis=2) > 2).mean() > 0.001
