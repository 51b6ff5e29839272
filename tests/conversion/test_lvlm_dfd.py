"""Conversion of the LVLM-DFD release: every form it can have, and every way to give the wrong one.

The official files here are the goldens' tiny weights, laid out as the release is.
"""

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.conversion import convert
from deepfake_detectors.conversion.merge import merge
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel
from support.golden_files import golden_folder
from support.lvlm_dfd_folders import (
    LLM_KEYS,
    convert_golden,
    imagebind_fields,
    lvlm_fields,
    official_tensors,
    read_config,
    write_release,
)
from support.pictures import random_pictures

GOLDENS = golden_folder("lvlm_dfd")
GOLDEN = read_config(GOLDENS)
FIELDS = lvlm_fields(GOLDEN)
ALPHA = GOLDEN["dims"]["lora_alpha"]
ENCODER = "visual_encoder."


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("lvlm")
    convert_golden(GOLDENS, workspace)
    return workspace


@pytest.fixture(scope="module")
def reference(workspace):
    return load_file(workspace / "converted" / "model.safetensors")


@pytest.fixture
def checkpoint(workspace):
    return torch.load(workspace / "release" / "ckpt.pth", weights_only=True)


def run(workspace, tmp_path, checkpoint=None, vicuna=True, more=(), **options):
    """Convert the release with another checkpoint."""
    sources = [workspace / "release" / "ckpt.pth"]
    if checkpoint is not None:
        sources = [tmp_path / "ckpt.pth"]
        torch.save(checkpoint, sources[0])
    sources += [workspace / "release" / "vicuna"] if vicuna else []
    fields = {**FIELDS, **options.pop("config", {})}
    options.setdefault("llm_lora_alpha", ALPHA)
    return convert("lvlm_dfd", [*sources, *more], tmp_path / "out", config=fields, **options)


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(found, expected, tolerance=0.0):
    assert found.keys() == expected.keys()
    worst = {n: (found[n].double() - expected[n].double()).abs().max().item() for n in expected}
    assert max(worst.values()) <= tolerance, max(worst, key=worst.get)


# forms of the release


@pytest.mark.parametrize("wrap", ["module.", "state_dict", "model"])
def test_wrapped_checkpoints(wrap, workspace, tmp_path, checkpoint, reference):
    wrapped = {f"module.{k}": v for k, v in checkpoint.items()} if wrap == "module." else {wrap: checkpoint}
    assert_equal(tensors_of(run(workspace, tmp_path, wrapped)), reference)


@pytest.mark.parametrize("newer_peft", [True, False])
def test_language_model_inside_the_checkpoint(newer_peft, workspace, tmp_path, reference):
    tensors = official_tensors(GOLDENS)
    if not newer_peft:
        tensors = {name.replace(".base_layer", ""): tensor for name, tensor in tensors.items()}
    assert any(".base_layer." in name for name in tensors) == newer_peft
    empty = tmp_path / "vicuna"
    shutil.copytree(workspace / "release" / "vicuna", empty, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(tensors, tmp_path / "ckpt.pth")
    sources = [tmp_path / "ckpt.pth", empty]
    output = convert("lvlm_dfd", sources, tmp_path / "out", config=FIELDS, llm_lora_alpha=ALPHA)
    assert_equal(tensors_of(output), reference)


def test_detector_alone_needs_no_language_model(workspace, tmp_path, checkpoint, reference):
    for name in [n for n in checkpoint if n.startswith(("llama", "prompt_learner."))]:
        del checkpoint[name]
    output = run(workspace, tmp_path, checkpoint, vicuna=False, variant="detector")
    assert_equal(tensors_of(output), {n: t for n, t in reference.items() if n.startswith("detector.")})
    processor, model = AutoProcessor.from_pretrained(output), AutoModel.from_pretrained(output)
    assert type(model).__name__ == "LvlmDfdForDeepfakeDetection"
    assert model.detect(**processor(images=random_pictures(1), return_tensors="pt")).mask is not None


def test_kept_lora_equals_folded(workspace, tmp_path):
    from peft import PeftModel

    output = run(workspace, tmp_path, lora="adapter")
    wrapped = PeftModel.from_pretrained(AutoModel.from_pretrained(output), output / "adapter").eval()
    folded, processor = AutoModel.from_pretrained(workspace / "converted"), AutoProcessor.from_pretrained(output)
    inputs = processor(images=random_pictures(2), text=[processor.dialogue_prompt()] * 2)
    with torch.no_grad():
        plain = wrapped.get_base_model()
        assert torch.allclose(wrapped(**inputs).logits, folded(**inputs).logits, atol=1e-3)
        assert torch.allclose(wrapped(**inputs).mask, folded(**inputs).mask, atol=1e-4)
        with wrapped.disable_adapter():
            assert not torch.allclose(plain(**inputs).mask, folded(**inputs).mask, atol=1e-3)
    assert_equal(wrapped.merge_and_unload().state_dict(), folded.state_dict(), 1e-4)
    # its ranks and alphas differ between the encoder and the language model
    merged = AutoModel.from_pretrained(merge(output, [output / "adapter"], tmp_path / "merged"))
    assert_equal(merged.state_dict(), folded.state_dict(), 1e-4)


def test_the_stem_is_summed_over_both_frames(checkpoint, reference):
    kernel = checkpoint[f"{ENCODER}modality_preprocessors.vision.rgbt_stem.proj.1.weight"]
    name = "detector.imagebind.vision_model.embeddings.patch_embedding.weight"
    assert torch.allclose(reference[name], kernel[:, :, 0] + kernel[:, :, 1], atol=1e-6)


# ctx


@pytest.mark.parametrize("mode", ["zeros", "random"])
def test_missing_ctx(mode, workspace, tmp_path, checkpoint, caplog):
    del checkpoint["ctx"]
    with caplog.at_level(logging.WARNING):
        output = run(workspace, tmp_path, checkpoint, config={"ctx_missing": mode})
    assert "ctx_missing" in caplog.text and mode in caplog.text
    ctx = tensors_of(output)["detector.class_texts.ctx"]
    assert (ctx == 0).all() if mode == "zeros" else 0.01 < ctx.std() < 0.03
    assert AutoModel.from_pretrained(output).config.ctx_missing == mode


def test_missing_ctx_may_be_an_error(workspace, tmp_path, checkpoint):
    del checkpoint["ctx"]
    with pytest.raises(ValueError, match="ctx_missing is 'error'"):
        run(workspace, tmp_path, checkpoint, config={"ctx_missing": "error"})


# is the LoRA in the weights already?


def merged(checkpoint):
    """As a file saved in evaluation mode."""
    checkpoint = dict(checkpoint)
    for name in [n for n in checkpoint if n.startswith(ENCODER) and n.endswith("lora_A")]:
        a, b = checkpoint[name], checkpoint[name.replace("lora_A", "lora_B")]
        key = name.replace("lora_A", "weight")
        checkpoint[key] = checkpoint[key] + b @ a / len(a)
    return checkpoint


def stock_file(checkpoint, tmp_path):
    names = {n.removeprefix(ENCODER): t for n, t in checkpoint.items() if n.startswith(ENCODER) and ".lora_" not in n}
    torch.save(names, tmp_path / "imagebind_huge.pth")
    return tmp_path / "imagebind_huge.pth"


def test_merged_checkpoint_is_found_by_comparison(workspace, tmp_path, checkpoint, reference):
    stock = stock_file(checkpoint, tmp_path)
    assert_equal(tensors_of(run(workspace, tmp_path, merged(checkpoint), more=[stock])), reference, 1e-6)


def test_unmerged_checkpoint_is_found_by_comparison(workspace, tmp_path, checkpoint, reference):
    stock = stock_file(checkpoint, tmp_path)
    assert_equal(tensors_of(run(workspace, tmp_path, checkpoint, more=[stock])), reference)


def test_merged_checkpoint_by_the_users_word(workspace, tmp_path, checkpoint, reference):
    output = run(workspace, tmp_path, merged(checkpoint), lora_already_merged=True)
    assert_equal(tensors_of(output), reference, 1e-6)


def test_wrong_word_is_contradicted_by_the_public_file(workspace, tmp_path, checkpoint):
    stock = stock_file(checkpoint, tmp_path)
    with pytest.raises(ValueError, match=r"lora_already_merged is True.* False"):
        run(workspace, tmp_path, checkpoint, more=[stock], lora_already_merged=True)


def test_another_imagebind_is_refused(workspace, tmp_path, checkpoint):
    stock = stock_file({n: t + 1 if t.ndim == 2 else t for n, t in checkpoint.items()}, tmp_path)
    with pytest.raises(ValueError, match="neither the public ImageBind weight nor"):
        run(workspace, tmp_path, checkpoint, more=[stock])


def test_public_file_fills_in_what_a_trainer_left_out(workspace, tmp_path, checkpoint, reference):
    stock = stock_file(checkpoint, tmp_path)
    small = {n: t for n, t in checkpoint.items() if not n.startswith(ENCODER) or ".lora_" in n}
    assert len(small) < len(checkpoint) / 2 + 200
    assert_equal(tensors_of(run(workspace, tmp_path, small, more=[stock])), reference)


# ImageBind on its own


@pytest.mark.parametrize("source", ["public", "checkpoint"])
def test_imagebind_alone(source, workspace, tmp_path, checkpoint, reference):
    if source == "public":
        checkpoint = merged(checkpoint)  # so that both sources hold the same weights
        file = stock_file(checkpoint, tmp_path)
    else:
        file = workspace / "release" / "ckpt.pth"
    output = convert("imagebind", [file], tmp_path / "out", config=imagebind_fields(GOLDEN))
    prefix = "detector.imagebind."
    expected = {n.removeprefix(prefix): t for n, t in reference.items() if n.startswith(prefix)}
    assert_equal(tensors_of(output), expected, 1e-6)
    model = AutoModel.from_pretrained(output)
    assert type(model) is ImageBindModel
    size = model.config.vision_config.image_size
    result = model(pixel_values=torch.randn(2, 3, size, size), input_ids=torch.tensor([[49406, 325, 49407]]))
    assert result.logits_per_image.shape == (2, 1)
    assert torch.allclose(result.image_embeds.norm(dim=-1), torch.ones(2))
    with pytest.raises(ValueError, match="pixel_values, input_ids or both"):
        model()


# wrong sources


@pytest.mark.parametrize(
    ("prefix", "group"),
    [
        ("image_decoder.", "image decoder"),
        ("locator.", "locator"),
        ("classifier.", "classifier"),
        ("prompt_learner.", "forgery prompt learner"),
        ("llama_proj.", "image projection"),
        (LLM_KEYS, "language model's LoRA"),
        (f"{ENCODER}modality_trunks.vision", "ImageBind trunks of vision"),
        (f"{ENCODER}modality_trunks.text", "ImageBind trunks of text"),
        (f"{ENCODER}modality_heads.vision", "ImageBind heads of vision"),
        (f"{ENCODER}modality_preprocessors.text", "ImageBind preprocessors of text"),
    ],
)
def test_missing_group_is_named(prefix, group, workspace, tmp_path, checkpoint):
    checkpoint = {name: tensor for name, tensor in checkpoint.items() if not name.startswith(prefix)}
    with pytest.raises(ValueError, match=group):
        run(workspace, tmp_path, checkpoint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["", "locator.", "classifier.", "prompt_learner."])
def test_missing_batchnorm_statistics_are_named(part, workspace, tmp_path, checkpoint):
    lost = [n for n in checkpoint if n.startswith(part) and ".running_" in n]
    assert lost
    for name in lost:
        del checkpoint[name]
    with pytest.raises(ValueError, match="BatchNorm statistics"):
        run(workspace, tmp_path, checkpoint)


def drop_one(checkpoint):
    del checkpoint["classifier.fc1.bias"]


def add_one(checkpoint):
    checkpoint["stranger.weight"] = torch.zeros(1)


def change_shape(checkpoint):
    checkpoint["classifier.fc1.bias"] = torch.zeros(7)


def half_a_pair(checkpoint):
    del checkpoint[f"{ENCODER}modality_trunks.text.blocks.0.mlp.fc1.lora_B"]


def flat_stem(checkpoint):
    name = f"{ENCODER}modality_preprocessors.vision.rgbt_stem.proj.1.weight"
    checkpoint[name] = checkpoint[name].sum(dim=2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_one, r"1 missing: detector\.classifier\.fc1\.bias"),
        (add_one, r"stranger\.weight"),
        (change_shape, r"classifier\.fc1\.bias \(7,\) instead of"),
        (half_a_pair, r"LoRA.*detector\.imagebind\.text_model\.layers\.0\.mlp\.fc1"),
        (flat_stem, "image stem has shape"),
    ],
)
def test_damaged_checkpoints_are_refused(damage, message, workspace, tmp_path, checkpoint):
    damage(checkpoint)
    with pytest.raises(ValueError, match=message):
        run(workspace, tmp_path, checkpoint)
    assert not (tmp_path / "out").exists()


def test_checkpoint_without_language_model_names_both_remedies(workspace, tmp_path):
    with pytest.raises(ValueError, match=r"vicuna-7b-v1\.5-16k.*variant=.detector."):
        run(workspace, tmp_path, vicuna=False)


def test_folder_without_tokenizer(workspace, tmp_path):
    folder = tmp_path / "vicuna"
    shutil.copytree(workspace / "release" / "vicuna", folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ValueError, match="No tokenizer"):
        run(workspace, tmp_path, vicuna=False, more=[folder])


def test_foreign_files(workspace, tmp_path):
    save_file({"vit.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors is neither.*vit\.weight"):
        convert("lvlm_dfd", [tmp_path / "other.safetensors"], tmp_path / "out")
    with pytest.raises(ValueError, match="no LVLM-DFD checkpoint"):
        convert("lvlm_dfd", [workspace / "release" / "vicuna"], tmp_path / "out")
    with pytest.raises(ValueError, match="vicuna"):
        run(workspace, tmp_path, more=[tmp_path])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "bridge"}, "variant is 'bridge', allowed are 'full', 'detector'"),
        ({"lora": "keep"}, "lora is 'keep'"),
    ],
)
def test_unknown_options(options, message, workspace, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(workspace, tmp_path, **options)


def test_released_sizes_are_told_apart_from_tiny_ones(workspace, tmp_path):
    sources = [workspace / "release" / "ckpt.pth"]
    with pytest.raises(ValueError, match="`config`"):
        convert("lvlm_dfd", sources, tmp_path / "out", variant="detector")


def test_release_is_written_as_a_user_has_it(tmp_path):
    checkpoint, vicuna = write_release(GOLDENS, tmp_path / "again")
    assert checkpoint.name == "ckpt.pth" and (vicuna / "config.json").exists()
