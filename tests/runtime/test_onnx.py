"""Exported detectors give the verdicts of PyTorch, at any batch size."""

import json
import logging

import numpy as np
import pytest
import torch

import deepfake_detectors as dfd
from deepfake_detectors.evaluation.metrics import auc
from deepfake_detectors.runtime.export import VerdictGraph, _logging_as_it_was, fixed_features
from deepfake_detectors.runtime.onnx_detector import OnnxDetector, load_onnx_detector
from support.pictures import random_pictures
from support.real_data import needs_real_data, real_data
from support.tiny_clip_probe import tiny_clip_probe
from support.tiny_models import m2f2_det, tiny_fakevlm, tiny_lvlm_dfd, tiny_m2f2_det, tiny_m2f2_det_llm

FOLDERS = {
    "m2f2_det-cosine": tiny_m2f2_det,
    "m2f2_det-bridge": lambda folder: tiny_m2f2_det(folder, "bridge"),
    "m2f2_det-bridge-whole": lambda folder: tiny_m2f2_det(
        folder, "bridge", bridge_fast_path=False, bridge_norm="layer"
    ),
    "m2f2_det-llm": tiny_m2f2_det_llm,
    "lvlm_dfd": tiny_lvlm_dfd,
    "clip_probe": tiny_clip_probe,
}


@pytest.fixture(scope="module", params=FOLDERS)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    source = FOLDERS[request.param](folder / "torch")
    return source, dfd.export(source, folder / "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 8])
def test_verdicts_are_those_of_torch(exported, count) -> None:
    source, folder = exported
    pictures = random_pictures(count)
    torch_rows = dfd.pipeline(model=str(source), device="cpu")(pictures, batch_size=count)
    onnx_rows = load_onnx_detector(folder)(pictures, batch_size=count)
    assert [row["fake_probability"] for row in onnx_rows] == pytest.approx(
        [row["fake_probability"] for row in torch_rows], abs=1e-4
    )
    assert [row["label"] for row in onnx_rows] == [row["label"] for row in torch_rows]


@pytest.mark.slow
def test_masks_and_names_of_the_folder(exported) -> None:
    source, folder = exported
    facts = json.loads((folder / "export.json").read_text())
    detector = OnnxDetector(folder)
    assert facts["outputs"] == (["logits", "mask"] if detector.can_localize else ["logits"])
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("model.onnx")) == [
        "config.json",
        "export.json",
        "processor_config.json",
    ]
    if detector.can_localize:
        picture = random_pictures(1)[0]
        expected = dfd.pipeline(model=str(source), device="cpu")(picture, localize=True)["mask"]
        found = load_onnx_detector(folder)(picture, localize=True)["mask"]
        assert np.abs(np.asarray(expected, int) - np.asarray(found, int)).max() <= 1
    with pytest.raises(ValueError, match="explain"):
        load_onnx_detector(folder)(random_pictures(1), explain=True)


@pytest.mark.slow
def test_int8_and_another_head(tmp_path) -> None:
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    from support.tiny_clip_probe import VISION

    source = tiny_clip_probe(tmp_path / "torch", vision_config={**VISION, **vision})
    whole = dfd.export(source, tmp_path / "onnx", head="face")
    small = dfd.export(source, tmp_path / "int8", head="face", int8=True)
    size = [(folder / "model.onnx").stat().st_size for folder in (whole, small)]
    assert size[1] < 0.5 * size[0] and not list(small.glob("float*"))
    pictures = random_pictures(3)
    expected = dfd.pipeline(model=str(source), device="cpu")(pictures, head="face")
    for folder, tolerance in ((whole, 1e-4), (small, 0.01)):
        judge = load_onnx_detector(folder)
        rows = judge(pictures)
        together = [row["fake_probability"] for row in judge(pictures, batch_size=3)]
        assert together == pytest.approx([row["fake_probability"] for row in rows], abs=1e-5)
        assert [row["head"] for row in rows] == ["face"] * 3
        assert [row["fake_probability"] for row in rows] == pytest.approx(
            [row["fake_probability"] for row in expected], abs=tolerance
        )
        with pytest.raises(ValueError, match="picture"):
            load_onnx_detector(folder)(pictures, head="picture")


@pytest.mark.slow
@needs_real_data
@pytest.mark.parametrize(("name", "head"), [("m2f2-det-mini", None), ("clip-probe-mini", "face")])
def test_int8_keeps_the_auc_on_real_faces(name, head, tmp_path) -> None:
    files = sorted((real_data("ddvqa") / "images_c40/test").glob("*.jpg"))
    fake = [not file.name.startswith("5_") for file in files]
    assert len(files) == 144 and sum(fake) == 72
    areas = {}
    for int8 in (False, True):
        folder = dfd.export(name, tmp_path / f"{int8}", int8=int8, head=head)
        judge = load_onnx_detector(folder, threads=1)
        rows = judge([str(file) for file in files], batch_size=8)
        areas[int8] = auc(fake, [row["fake_probability"] for row in rows])
    assert areas[False] > 0.7 and areas[True] == pytest.approx(areas[False], abs=0.01)


def test_quantising_leaves_the_logs_alone() -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    with _logging_as_it_was():
        root.addHandler(logging.NullHandler())
        root.setLevel(logging.INFO)
    assert (root.level, root.handlers) == before


def test_what_cannot_be_exported(tmp_path) -> None:
    with pytest.raises(ValueError, match="m2f2_det"):
        dfd.export(tiny_fakevlm(tmp_path / "fakevlm"), tmp_path / "out")
    model = tiny_m2f2_det(tmp_path / "m2f2")
    with pytest.raises(ValueError, match="tflite"):
        dfd.export(model, tmp_path / "out", format="tflite")
    with pytest.raises(ValueError, match="head"):
        dfd.export(model, tmp_path / "out", head="face")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"no model\.onnx"):
        load_onnx_detector(model)


def test_fixed_features_are_constants_and_come_loose_again() -> None:
    model = m2f2_det("cosine")
    example = {"pixel_values": torch.randn(2, 3, 56, 56)}
    graph = VerdictGraph(model)
    with torch.no_grad():
        before = graph(**example)[0]
        with fixed_features(model, example):
            model.detector.prompt_encoder.prompt_tokens.add_(1.0)
            assert torch.equal(graph(**example)[0], before)
        assert not torch.equal(graph(**example)[0], before)
