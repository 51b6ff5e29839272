"""Every recipe to the pixel, on boxes and landmarks whose crops are worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.examination.crops import CROP_RECIPES, CropRecipe, crop_face, crop_recipe, recipe_of
from deepfake_detectors.examination.faces import Face

WIDTH, HEIGHT = 200, 120


def coordinates():
    """A picture whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 7)], axis=-1).astype(np.uint8))


def face(*box, landmarks=None):
    return Face(tuple(float(edge) for edge in box), landmarks, 1.0)


def cut(recipe, *box, **changes):
    changed = crop_recipe({"name": recipe, **changes} if isinstance(recipe, str) else recipe)
    return crop_face(coordinates(), face(*box), changed)


def corners(crop):
    """Column and row of the picture at the first and the last pixel."""
    pixels = np.asarray(crop.image)
    return tuple(map(int, (*pixels[0, 0, :2], *pixels[-1, -1, :2])))


# FaceForensics: side int(max(40, 30) * 1.3) = 52, centre (80, 55), left 80 - 26 = 54, top 55 - 26 = 29.
def test_faceforensics():
    crop = cut("faceforensics", 60, 40, 100, 70, size=None)
    assert crop.box == (54, 29, 106, 81)
    assert crop.image.size == (52, 52)
    assert corners(crop) == (54, 29, 105, 80)
    assert cut("faceforensics", 60, 40, 100, 70).image.size == (299, 299)


# At a corner: left max(20 - 26, 0) = 0, top max(25 - 26, 0) = 0; the square keeps its 52. At the far corner, left 174
# and top 84 stand, and the side is what is left, min(52, 200 - 174, 120 - 84) = 26.
@pytest.mark.parametrize(
    ("box", "region"), [((0, 10, 40, 40), (0, 0, 52, 52)), ((180, 95, 220, 125), (174, 84, 200, 110))]
)
def test_faceforensics_at_the_border(box, region):
    crop = cut("faceforensics", *box, size=None)
    assert crop.box == region
    assert corners(crop) == (region[0], region[1], region[2] - 1, region[3] - 1)


# SBI: an eighth of 40 and of 32 on each edge, 5 and 4; int() and one more at the far side.
def test_sbi():
    crop = cut("sbi", 60, 40, 100, 72, size=None)
    assert crop.box == (55, 36, 106, 77)
    assert corners(crop) == (55, 36, 105, 76)
    assert cut("sbi", 60, 40, 100, 72).image.size == (380, 380)  # stretched, as the official code does


def test_sbi_clips_at_the_border():
    assert cut("sbi", 2, 3, 42, 35, size=None).box == (0, 0, 48, 40)
    assert cut("sbi", 170, 100, 198, 119, size=None).box == (166, 97, 200, 120)


# "tight": side int(50 * 1.12) = 56, centre (85, 55); at the border the square moves inward and keeps its side.
@pytest.mark.parametrize(
    ("box", "region"),
    [
        ((65, 30, 105, 80), (57, 27, 113, 83)),
        ((0, 0, 40, 50), (0, 0, 56, 56)),
        ((170, 75, 200, 125), (144, 64, 200, 120)),
        ((0, -100, 200, 220), (0, 0, 120, 120)),
    ],
)
def test_tight_moves_inward(box, region):
    crop = cut("tight", *box)
    assert crop.box == region
    assert crop.image.size == (region[2] - region[0], region[3] - region[1])
    assert corners(crop) == (region[0], region[1], region[2] - 1, region[3] - 1)


def test_wide_is_a_wider_tight():
    assert cut("wide", 65, 30, 105, 80).box == (45, 15, 125, 95)


# A square of 40 around (20, 10) reaches 0 left of the picture and 10 above it.
@pytest.mark.parametrize(("padding", "above"), [("edge", (5, 0, 7)), ("black", (0, 0, 0))])
def test_padding(padding, above):
    crop = cut(CropRecipe("mine", margin=0.0, padding=padding), 0, -10, 40, 30)
    assert crop.box == (0, -10, 40, 30)
    pixels = np.asarray(crop.image)
    assert pixels.shape == (40, 40, 3)
    assert tuple(map(int, pixels[3, 5])) == above
    assert tuple(map(int, pixels[10, 5])) == (5, 0, 7)
    assert tuple(map(int, pixels[39, 39])) == (39, 29, 7)


def test_padding_beyond_the_far_corner():
    pixels = np.asarray(cut(CropRecipe("mine", margin=0.0, padding="edge"), 190, 110, 210, 130).image)
    assert tuple(map(int, pixels[19, 19])) == (199, 119, 7)
    assert tuple(map(int, pixels[2, 19])) == (199, 112, 7)


def test_the_transform_takes_pixels_of_the_picture_to_those_of_the_crop():
    crop = cut("tight", 65, 30, 105, 80, size=112)  # 56 pixels doubled: pixel 60 covers 6 and 7, centre 6.5
    assert crop.transform @ [60, 31, 1] == pytest.approx([6.5, 8.5])


# ArcFace's template of 112 pixels (+8 in x), scale 1.3, 256 pixels: every point goes to (p * 256/112 + 38.4) / 1.3.
TEMPLATE = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
AIM = np.array([[(x * 256 / 112 + 38.4) / 1.3, (y * 256 / 112 + 38.4) / 1.3] for x, y in TEMPLATE])


def test_deepfakebench_puts_landmarks_where_the_template_has_them():
    # A face that is the template turned by 90 degrees and halved: (x, y) -> (150 - y/2, 10 + x/2).
    turned = tuple((150 - y / 2, 10 + x / 2) for x, y in AIM)
    crop = crop_face(coordinates(), face(80, 20, 140, 90, landmarks=turned), CROP_RECIPES["deepfakebench"])
    assert crop.image.size == (256, 256)
    assert crop.transform == pytest.approx(np.array([[0, 2, -20], [-2, 0, 300]]), abs=1e-6)
    # The crop's pixel (100, 80) is the picture's (150 - 40, 10 + 50).
    assert crop.image.getpixel((100, 80)) == (110, 60, 7)
    # Its box: rows 0..256 of the crop are columns 150..22, its columns rows 10..138; edges lie half a pixel further.
    assert crop.box == pytest.approx((22.75, 10.25, 150.75, 138.25))
    # Beyond row 119 of the picture is black.
    assert crop.image.getpixel((230, 80)) == (0, 0, 0)


def test_landmarks_that_fit_no_turn_are_brought_closest():
    noise = np.array([[2, 0], [-2, 0], [0, 3], [0, -3], [0, 0]])
    marks = AIM / 2 + noise
    crop = crop_face(
        coordinates(), face(0, 0, 9, 9, landmarks=tuple(map(tuple, marks))), CROP_RECIPES["deepfakebench"]
    )
    linear = crop.transform[:, :2]
    assert linear[0, 0] == pytest.approx(linear[1, 1])
    assert linear[0, 1] == pytest.approx(-linear[1, 0])

    def error(transform):
        return ((np.column_stack([marks, np.ones(5)]) @ transform.T - AIM) ** 2).sum()

    random = np.random.default_rng(0)
    for _ in range(20):  # no similarity close by does better
        scale, angle, *shift = random.normal(0, [0.01, 0.01, 0.3, 0.3])
        turn = (1 + scale) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert error(np.column_stack([turn @ linear, crop.transform[:, 2] + shift])) > error(crop.transform)


def test_aligned_pixels_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    marks = tuple((90 + 0.3 * x - 0.05 * y, 10 + 0.3 * y + 0.05 * x) for x, y in TEMPLATE)
    crop = crop_face(Image.fromarray(picture), face(0, 0, 9, 9, landmarks=marks), CROP_RECIPES["deepfakebench"])
    expected = cv2.warpAffine(picture, crop.transform, (256, 256))
    difference = np.abs(np.asarray(crop.image).astype(int) - expected)
    assert difference.mean() < 0.01 or np.percentile(difference, 99) <= 8  # OpenCV 4 rounds places to 1/32 pixel


def test_edges_are_repeated_around_an_aligned_crop():
    marks = tuple((x / 2, y / 2 - 30) for x, y in AIM)
    crop = crop_face(
        coordinates(), face(0, 0, 9, 9, landmarks=marks), crop_recipe({"name": "deepfakebench", "padding": "edge"})
    )
    assert crop.image.getpixel((128, 5)) == (64, 0, 7)
    assert crop.image.getpixel((128, 200)) == (64, 70, 7)


def test_alignment_without_landmarks_is_refused():
    with pytest.raises(ValueError, match="centerface"):
        cut("deepfakebench", 10, 10, 50, 50)


def test_a_box_outside_the_picture_is_refused():
    with pytest.raises(ValueError, match="200x120"):
        cut(CropRecipe("mine", margin=0.0, padding="black"), 300, 10, 340, 50)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("unknown", "unknown"),
        ({"name": "x", "paddings": "edge"}, "paddings"),
        ({"padding": "wrap"}, "wrap"),
        ({"alignment": "eyes"}, "eyes"),
        ({"margin": "0.3"}, "0.3"),
        ({"size": 0}, "0"),
        ({"alignment": "five-point"}, "five-point"),
        (7, "int"),
    ],
)
def test_recipes_that_cannot_be(spec, value):
    with pytest.raises(ValueError, match=value):
        crop_recipe(spec)


def test_a_recipe_is_a_name_or_fields():
    assert crop_recipe("sbi") is CROP_RECIPES["sbi"]
    assert crop_recipe({"name": "sbi", "size": 224}).margin == 0.25
    assert crop_recipe({"margin": 0.5}).name == "custom"
    assert crop_recipe(None).name == "tight"


def test_the_config_of_a_processor_names_its_recipe(tmp_path):
    from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
    from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor

    assert recipe_of(M2F2DetImageProcessor()).name == "tight"
    assert recipe_of(LvlmDfdImageProcessor()).name == "wide"
    assert recipe_of(object()).name == "tight"
    for cls in (M2F2DetImageProcessor, LvlmDfdImageProcessor):
        processor = cls(face_crop={"name": "sbi", "size": 224})
        processor.save_pretrained(tmp_path)
        loaded = cls.from_pretrained(tmp_path)
        assert recipe_of(loaded) == crop_recipe({"name": "sbi", "size": 224})
        same = [part(coordinates(), return_tensors="pt")["pixel_values"] for part in (loaded, cls())]
        assert (same[0] == same[1]).all()
