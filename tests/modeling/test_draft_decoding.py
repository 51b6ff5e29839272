"""Large JPEG files decoded in a smaller size: what changes, what does not, where it is refused, and who says so."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from typer.testing import CliRunner

import deepfake_detectors as dfd
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.modeling.image_loading import draft_side, load_draft, load_image
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors_cli import app
from support.tiny_models import tiny_lvlm_dfd, tiny_m2f2_det

SIZE = (1200, 800)


def jpeg(size: tuple[int, int] = SIZE, form: str = "JPEG", **options) -> bytes:
    """A smooth picture with noise, so that an average of pixels shows."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    smooth = np.stack([rows * 200 // size[1], columns * 200 // size[0], (rows + columns) % 200], axis=-1)
    noise = np.random.default_rng(0).integers(0, 50, smooth.shape)
    file = BytesIO()
    Image.fromarray((smooth + noise).astype(np.uint8)).save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_m2f2_det(tmp_path_factory.mktemp("draft") / "m2f2_det")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "large.jpg"
    path.write_bytes(jpeg())
    return path


@pytest.mark.parametrize(
    ("side", "expected"),
    [(801, SIZE), (401, SIZE), (400, (600, 400)), (250, (600, 400)), (112, (300, 200)), (56, (150, 100))],
)
def test_the_smallest_size_that_is_large_enough(side, expected) -> None:
    found, full = load_draft(jpeg(), side)
    assert found.mode == "RGB" and found.size == expected and full == SIZE
    if found.size == SIZE:
        assert np.array_equal(np.asarray(found), np.asarray(load_image(jpeg())))
    else:
        whole = np.asarray(load_image(jpeg()).resize(found.size, Image.Resampling.BOX), dtype=int)
        assert 0 < np.abs(whole - np.asarray(found, dtype=int)).mean() < 4


def test_a_turned_picture_has_its_turned_size() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    found, full = load_draft(jpeg(exif=exif), 200)
    assert found.size == (200, 300) and full == (800, 1200) == load_image(jpeg(exif=exif)).size


def test_only_jpeg_files_change() -> None:
    for source in (jpeg(form="PNG"), jpeg(form="WEBP"), load_image(jpeg()), np.asarray(load_image(jpeg()))):
        found, full = load_draft(source, 100)
        assert found.size == full == SIZE
        assert np.array_equal(np.asarray(found), np.asarray(load_image(source)))
    grey = BytesIO()
    load_image(jpeg()).convert("L").save(grey, "JPEG")
    assert load_draft(grey.getvalue(), 200)[0].size == (300, 200)
    without_end = jpeg()[:-2]
    assert load_draft(without_end, 200)[0].size == (300, 200)
    with pytest.raises(ValueError, match="damaged or incomplete"):
        load_draft(jpeg()[:-5000], 200)
    with pytest.raises(ValueError, match="max_pixels"):
        load_draft(jpeg(), 200, max_pixels=1000)


def test_the_side_follows_the_processor() -> None:
    size, crop = {"shortest_edge": 56}, {"height": 56, "width": 56}
    assert draft_side("full", None) is None
    assert draft_side("draft", FakeVLMImageProcessor(size=size, crop_size=crop)) == 112
    assert draft_side("draft", LvlmDfdImageProcessor(size=crop)) == 112
    heads = {"picture": {"shrink_to": 80}, "face": {}, "cut": {"do_resize": False}}
    probe = ClipProbeImageProcessor(size=size, crop_size=crop, heads=heads, default_head="picture")
    assert [draft_side("draft", probe, head) for head in (None, "picture", "face")] == [160, 160, 112]
    for processor, head in ((probe, "cut"), (FakeVLMImageProcessor(do_resize=False), None), (object(), None)):
        with pytest.raises(ValueError, match="one size"):
            draft_side("draft", processor, head)
    with pytest.raises(ValueError, match="'full', 'draft'"):
        draft_side("quick", probe)


def test_rows_say_it_and_scores_hardly_move(folder, file) -> None:
    detector = dfd.pipeline(model=str(folder), device="cpu")
    (full,) = detector([str(file)])
    for num_workers in (0, 2):
        (draft,) = detector([str(file)], decoding="draft", num_workers=num_workers)
        assert "decoding" not in full and draft["decoding"] == "draft"
        assert draft["fake_probability"] != full["fake_probability"]
        assert draft["fake_probability"] == pytest.approx(full["fake_probability"], abs=0.05)
    assert "decoding" not in detector([str(file)], decoding="full")[0]
    with pytest.raises(ValueError, match="decoding is 'quick'"):
        detector([str(file)], decoding="quick")


def test_a_mask_has_the_size_of_the_file(tmp_path, file) -> None:
    detector = dfd.pipeline(model=str(tiny_lvlm_dfd(tmp_path / "lvlm_dfd")), device="cpu", decoding="draft")
    assert detector.decoding == "draft"
    row = detector(str(file), localize=True)
    assert row["decoding"] == "draft" and row["mask"].size == SIZE


def test_evidence_is_decoded_in_full(folder, file) -> None:
    detector = dfd.pipeline(model=str(folder), device="cpu", decoding="draft")
    with pytest.raises(ValueError, match="evidence"):
        Judge(detector)
    result = CliRunner().invoke(app, ["examine", str(file), "-m", str(folder), "--decoding", "draft"])
    assert result.exit_code == 2


def test_files_of_a_run_say_it(folder, file, tmp_path) -> None:
    rows = {}
    for decoding in ("full", "draft"):
        run = dfd.score(file.parent, tmp_path / decoding, model=folder, decoding=decoding)
        rows[decoding] = run.read().column("fake_probability").to_pylist()
        stated = json.loads((tmp_path / decoding / "run.json").read_text())["options"].get("decoding")
        assert stated == (None if decoding == "full" else "draft")
    assert rows["full"] != rows["draft"] and rows["full"] == pytest.approx(rows["draft"], abs=0.05)
    (judged,) = dfd.pipeline(model=str(folder), device="cpu")([str(file)], decoding="draft")
    assert judged["fake_probability"] == pytest.approx(rows["draft"][0], abs=1e-6)
    with pytest.raises(ValueError, match="another run"):
        dfd.score(file.parent, tmp_path / "full", model=folder, decoding="draft")
    with pytest.raises(ValueError, match="decoding is 'quick'"):
        dfd.score(file.parent, tmp_path / "new", model=folder, decoding="quick")


def test_the_commands_have_it(folder, file, tmp_path) -> None:
    detect = CliRunner().invoke(app, ["detect", str(file), "-m", str(folder), "--decoding", "draft"])
    assert json.loads(detect.stdout)["decoding"] == "draft"
    common = ["-m", str(folder), "--decoding", "draft"]
    scored = CliRunner().invoke(app, ["score", str(file.parent), str(tmp_path / "scored"), *common])
    assert scored.exit_code == 0, scored.stderr
    measured = ["evaluate", "--real-dir", str(file.parent), "--output", str(tmp_path / "out"), "--resamples", "0"]
    assert CliRunner().invoke(app, [*measured, *common]).exit_code == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["decoding"] == "draft"
    assert json.loads((tmp_path / "out" / "results.json").read_text())["inputs"]["decoding"] == "draft"
    # A folder of full pictures is not taken up.
    assert CliRunner().invoke(app, [*measured, "-m", str(folder)]).exit_code == 2


@pytest.mark.parametrize(
    "options", [{"fit": "keep"}, {"fit_band": True}, {"robustness": "light"}, {"crop": "tight"}, {"decoding": "quick"}]
)
def test_what_is_kept_or_compared_is_decoded_in_full(folder, file, options) -> None:
    with pytest.raises(ValueError, match="decoding"):
        evaluate(folder, real_dir=file.parent, **{"decoding": "draft", **options})


def test_tensors_of_a_draft_are_those_of_the_smaller_picture(folder, file) -> None:
    detector = dfd.pipeline(model=str(folder), device="cpu")
    prepared = detector.preprocess(str(file), draft_side=112)
    small = detector.preprocess(load_draft(str(file), 112)[0])
    assert torch.equal(prepared["pixel_values"], small["pixel_values"]) and prepared["picture_size"] == SIZE
