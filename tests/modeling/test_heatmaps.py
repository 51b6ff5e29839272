"""Heat maps: patch attention of M2F2-Det, relevance of AntifakePrompt, and where they lie on the picture."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deepfake_detectors.modeling.heatmaps import map_to_picture, patch_map
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors_cli import app
from support.pictures import random_pictures
from support.tiny_models import (
    antifakeprompt,
    antifakeprompt_processor,
    m2f2_det,
    tiny_lvlm_dfd,
    tiny_m2f2_det,
    verdict_processor,
)


def test_patches_become_a_square_between_0_and_1():
    values = torch.tensor([[0.0, 1.0, 2.0, 4.0], [3.0, 3.0, 3.0, 3.0]])
    assert patch_map(values).tolist() == [[[0.0, 0.25], [0.5, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert patch_map(values, from_zero=True)[1].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="5 patches"):
        patch_map(torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("size", "options", "seen"),
    [
        ((200, 100), {"resized": 56, "cropped": 56}, (50, 0, 150, 100)),  # the ends of long pictures are cut off
        ((100, 200), {"resized": 56, "cropped": 28}, (25, 75, 75, 125)),
        ((200, 100), {"resized": 56, "cropped": 56, "padded": True}, (0, 0, 200, 100)),
    ],
)
def test_the_map_lies_where_the_model_looked(size, options, seen):
    drawn = map_to_picture(torch.ones(2, 2), size, **options)
    assert (drawn.mode, drawn.size, drawn.getbbox()) == ("L", size, seen)


def test_left_stays_left():
    drawn = np.asarray(map_to_picture(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), (64, 64), 32, 32))
    assert drawn[:, :16].min() == 255 and drawn[:, -16:].max() == 0


def test_m2f2_det_shows_its_patch_scores():
    model, processor = m2f2_det(), verdict_processor()
    pixels = processor(images=random_pictures(3), return_tensors="pt")["pixel_values"]
    maps, scores = model.heatmap(pixels), model.detect(pixels).patch_scores
    assert maps.shape[0] == 3 and maps[0].numel() == scores.shape[1]
    assert torch.equal(maps.flatten(1).argmax(1), scores.argmax(1))
    torch.testing.assert_close(model.heatmap(pixels[1:2])[0], maps[1], atol=1e-4, rtol=0)


def test_a_bridge_detector_has_none():
    model = m2f2_det(variant="bridge")
    pixels = verdict_processor()(images=random_pictures(1), return_tensors="pt")["pixel_values"]
    with pytest.raises(ValueError, match="variant='bridge'"):
        model.heatmap(pixels)


def test_antifakeprompt_shows_what_moves_its_verdict():
    model = antifakeprompt()
    processor = antifakeprompt_processor()
    pixels = processor(images=random_pictures(2))["pixel_values"]
    with torch.no_grad():  # as inside the pipeline
        maps = model.heatmap(pixels)
    assert maps.min() >= 0 and maps.flatten(1).max(1).values.tolist() == [1.0, 1.0]
    torch.testing.assert_close(model.heatmap(pixels[1:])[0], maps[1], atol=1e-3, rtol=0)
    assert all(weight.grad is None for weight in model.parameters())
    # Independent of autograd's route: moving a patch's state along itself changes the score by its relevance.
    states = model.encode_pictures(pixels[:1]).detach()

    def score(changed):
        logits = model._judge(*model._prefix(None, changed, {})).logits.double()
        return (logits[:, 1] - logits[:, 0]).item()

    place = int(maps[0].argmax())
    with torch.no_grad():
        step = 1e-2
        up, down = states.clone(), states.clone()
        up[:, 1 + place] *= 1 + step
        down[:, 1 + place] *= 1 - step
        slope = (score(up) - score(down)) / (2 * step)
        assert np.sign(slope) == np.sign(score(states))  # it speaks for the verdict


def test_the_pipeline_gives_pictures_of_the_same_size():
    detector = DeepfakeDetectionPipeline(m2f2_det(), processor=verdict_processor())
    pictures = [Image.new("RGB", (70, 50)), *random_pictures(1)]
    rows = detector(pictures, localize="heatmap", batch_size=2)
    for picture, row in zip(pictures, rows, strict=True):
        assert (row["heatmap"].mode, row["heatmap"].size, row["mask"]) == ("L", picture.size, None)
    assert "heatmap" not in detector(pictures[0])
    (broken, fine) = detector([b"no picture", pictures[1]], localize="heatmap", batch_size=2, on_error="record")
    assert "error" in broken and np.array_equal(fine["heatmap"], rows[1]["heatmap"])
    with pytest.raises(ValueError, match="localize is 'mask', expected True, False or 'heatmap'"):
        detector(pictures[0], localize="mask")


def test_command(tmp_path):
    folder = tiny_m2f2_det(tmp_path / "m2f2")
    random_pictures(1)[0].save(tmp_path / "face.png")
    command = ["detect", str(tmp_path / "face.png"), "--format", "json", "--heatmap", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--model", str(folder)])
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout.splitlines()[0])
    size = Image.open(tmp_path / "face.png").size
    assert Image.open(row["heatmap"]).size == Image.open(row["heatmap_overlay"]).size == size
    other = tiny_lvlm_dfd(tmp_path / "lvlm")
    refused = CliRunner().invoke(app, [*command, "--model", str(other)])
    assert refused.exit_code == 2 and "m2f2_det (M2F2DetForDeepfakeDetection)" in refused.stderr
