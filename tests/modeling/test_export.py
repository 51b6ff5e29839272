"""Every class that gives a verdict can be exported by PyTorch with a batch of any size."""

import pytest
import torch
from torch.export import Dim

from deepfake_detectors.families import FAMILIES
from deepfake_detectors.runtime.export import VerdictGraph
from support.tiny_clip_probe import clip_probe
from support.tiny_models import SIZE, antifakeprompt, fakevlm, lvlm_dfd, lvlm_dfd_llm, m2f2_det, m2f2_det_llm


def antifakeprompt_with(*candidates: list[int]):
    model = antifakeprompt()
    model.config.candidate_ids = list(candidates)
    return model


MODELS = {
    "m2f2_det-cosine": lambda: m2f2_det("cosine"),
    "m2f2_det-bridge": lambda: m2f2_det("bridge"),
    "m2f2_det-bridge-computed": lambda: m2f2_det("bridge", bridge_fast_path=False, bridge_norm="layer"),
    "m2f2_det-llm": m2f2_det_llm,
    "lvlm_dfd": lvlm_dfd,
    "lvlm_dfd-llm": lvlm_dfd_llm,
    "clip_probe": clip_probe,
    "fakevlm-prefix": lambda: fakevlm(score="prefix"),
    "fakevlm-continuation": lambda: fakevlm(score="continuation"),
    "antifakeprompt": lambda: antifakeprompt_with([5], [9]),
    "antifakeprompt-words-of-several-tokens": lambda: antifakeprompt_with([5, 7], [9, 4, 6]),
}


SLOW = ("antifakeprompt-words-of-several-tokens", "fakevlm-continuation", "m2f2_det-bridge-computed")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]
)
def test_export_with_a_dynamic_batch(name):
    graph = VerdictGraph(MODELS[name]().eval())
    torch.manual_seed(0)
    pictures = torch.randn(8, 3, SIZE, SIZE)
    with torch.no_grad():
        program = torch.export.export(
            graph, (), {"pixel_values": pictures[:2]}, dynamic_shapes={"pixel_values": {0: Dim("batch", min=1)}}
        )
        exported = program.module()
        outputs = {}
        for count in (1, 3, 8):
            found, expected = exported(pixel_values=pictures[:count]), graph(pixel_values=pictures[:count])
            assert found[0].shape == (count, 2)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
            outputs[count] = found[0]
    torch.testing.assert_close(outputs[8][:3], outputs[3], atol=1e-4, rtol=1e-4)
    assert len(outputs[8].unique(dim=0)) == 8  # the pictures are told apart


def test_a_graph_as_the_trainer_calls_it():
    model = m2f2_det("cosine")
    pictures = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        program = torch.export.export(
            model, (), {"pixel_values": pictures[:2]}, dynamic_shapes={"pixel_values": {0: Dim("batch", min=1)}}
        )
        logits = program.module()(pixel_values=pictures).logits
        torch.testing.assert_close(logits, model(pixel_values=pictures).logits, atol=1e-5, rtol=1e-5)


def test_no_family_is_left_out():
    """Chat models are read by a processor of any library, whose prompts depend on each picture."""
    assert {name.split("-")[0] for name in MODELS} == set(FAMILIES) - {"chat_vlm"}
