"""What is trained is float32, also from a folder in half precision; a frozen base keeps its own."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import InstructBlipForConditionalGeneration

from deepfake_detectors.train.arguments import ModelArguments
from deepfake_detectors.train.families import build_model
from deepfake_detectors.train.train_classifier import train_classifier
from support.classifier_runs import parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import recipe
from support.tiny_models import SIZE, tiny_antifakeprompt, tiny_instructblip

HALVES = [torch.float16, torch.bfloat16]


def dtypes(weights):
    return {weight.dtype for weight in weights if weight.is_floating_point()}


@pytest.mark.parametrize("dtype", HALVES)
def test_verdict_model_is_trained_in_float32(dtype, tmp_path):
    fields = recipe("m2f2_det_stage1_cosine_mini")
    model, processor, _ = build_model(
        ModelArguments("m2f2_det", fields["model_config"], None, fields["image_processor"])
    )
    model.to(dtype).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert dtypes(load_file(tmp_path / "model.safetensors").values()) == {dtype}
    start, _, _ = build_model(ModelArguments(model_name_or_path=str(tmp_path)))
    assert dtypes(start.state_dict().values()) == {torch.float32}


def half_base(kind, folder, dtype):
    if kind == "stock":
        tiny_instructblip(folder)
        InstructBlipForConditionalGeneration.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    else:
        model, _, _ = build_model(ModelArguments(model_name_or_path=str(tiny_antifakeprompt(folder))))
        model.to(dtype).save_pretrained(folder)
    assert dtype in dtypes(load_file(folder / "model.safetensors").values())
    return folder


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["stock", "with words"])
def test_words_are_float32_above_a_half_precision_base(kind, dtype, tmp_path):
    model, _, _ = build_model(ModelArguments(model_name_or_path=str(half_base(kind, tmp_path / "base", dtype))))
    words = model.soft_words().values()
    assert dtypes(words) == {torch.float32}
    # Not the whole base: InstructBLIP itself keeps its Q-Former in float32 where float16 is asked for.
    frozen = [weight for name, weight in model.language_model.named_parameters() if not name.endswith("soft_word")]
    assert dtypes(frozen) == {dtype}


def test_small_steps_of_the_words_are_not_lost(tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)))
    base = half_base("stock", tmp_path / "base", torch.bfloat16)
    settings = {"max_steps": 3, "learning_rate": 1e-5, "save_strategy": "steps", "save_steps": 1}
    settings |= {"lr_schedule": None, "lr_scheduler_type": "constant", "lr_scheduler_kwargs": None, "warmup_steps": 0}
    settings |= {"model_name_or_path": str(base), "save_total_limit": None}
    size = {"height": SIZE, "width": SIZE}
    settings |= {"image_processor": {"size": {"shortest_edge": SIZE}, "crop_size": size}}
    out = train_classifier(*parsed(tmp_path, small_fields("antifakeprompt", data, tmp_path / "out", **settings)))
    before, after = (load_file(out / f"checkpoint-{step}" / "soft_words.safetensors") for step in (1, 3))
    for name, word in before.items():
        moved = (after[name] - word).abs()
        assert moved.max() < 1e-4, name  # far below bfloat16's spacing around most of these values
        assert (moved > 0).float().mean() > 0.9, name
