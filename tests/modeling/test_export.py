"""Verdict classes without a language model can be exported with a batch of any size."""

import pytest
import torch
from torch.export import Dim

from support.tiny_models import SIZE, lvlm_dfd, m2f2_det

MODELS = {
    "m2f2_det-cosine": lambda: m2f2_det("cosine"),
    "m2f2_det-bridge": lambda: m2f2_det("bridge"),
    "m2f2_det-bridge-computed": lambda: m2f2_det("bridge", bridge_fast_path=False, bridge_norm="layer"),
    "lvlm_dfd": lvlm_dfd,
}


@pytest.mark.parametrize("name", MODELS)
def test_export_with_a_dynamic_batch(name):
    model = MODELS[name]()
    torch.manual_seed(0)
    pictures = torch.randn(4, 3, SIZE, SIZE)
    with torch.no_grad():
        program = torch.export.export(
            model, (), {"pixel_values": pictures[:2]}, dynamic_shapes={"pixel_values": {0: Dim("batch", min=1)}}
        )
        exported = program.module()
        for count in (1, 3):
            logits = exported(pixel_values=pictures[:count]).logits
            assert logits.shape == (count, 2)
            torch.testing.assert_close(logits, model(pixel_values=pictures[:count]).logits, atol=1e-5, rtol=1e-5)
