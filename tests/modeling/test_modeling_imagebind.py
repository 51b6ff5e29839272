"""ImageBind on its own: saving, loading (whole or one trunk), attention, gradients."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from deepfake_detectors.modeling.configuration_imagebind import ImageBindConfig
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel, ImageBindTextModel, ImageBindVisionModel

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
IDS = torch.tensor([[48, 5, 49, 0], [48, 7, 9, 49]])


def config():
    return ImageBindConfig(
        vision_config={**SIZES, "image_size": 28, "patch_size": 7},
        text_config={**SIZES, "vocab_size": 50, "max_position_embeddings": 6},
        projection_dim=24,
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ImageBindModel(config()).eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagebind")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def run(model, pixels):
    return model(pixel_values=pixels, input_ids=IDS)


def test_output(model, pixels):
    output = run(model, pixels)
    assert output.logits_per_image.shape == (2, 2)
    assert torch.allclose(output.image_embeds.norm(dim=-1), torch.ones(2))
    assert torch.allclose(output.text_embeds.norm(dim=-1), torch.full((2,), 1 / 0.07))


def test_text_scale_is_capped(pixels):
    torch.manual_seed(0)
    model = ImageBindModel(config()).eval()
    torch.nn.init.constant_(model.logit_scale, 9.0)
    assert torch.allclose(run(model, pixels).text_embeds.norm(dim=-1), torch.full((2,), 100.0))


def test_save_equals_load(model, folder, pixels):
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is ImageBindModel
    assert torch.equal(run(loaded, pixels).logits_per_image, run(model, pixels).logits_per_image)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations_agree(folder, model, pixels, attention):
    other = AutoModel.from_pretrained(folder, attn_implementation=attention)
    assert torch.allclose(run(other, pixels).logits_per_image, run(model, pixels).logits_per_image, atol=1e-4)


@torch.no_grad()
def test_one_trunk_loads_from_the_whole_model_and_from_its_own_folder(model, folder, pixels, tmp_path):
    vision, text = ImageBindVisionModel.from_pretrained(folder), ImageBindTextModel.from_pretrained(folder)
    assert torch.equal(vision(pixels).pooler_output, model.vision_model(pixels).pooler_output)
    assert torch.equal(text(IDS).pooler_output, model.text_model(IDS).pooler_output)
    for trunk, inputs in ((vision, pixels), (text, IDS)):
        own = tmp_path / type(trunk).__name__
        trunk.save_pretrained(own)
        assert set(load_file(own / "model.safetensors")) == set(trunk.state_dict())
        assert torch.equal(type(trunk).from_pretrained(own)(inputs).pooler_output, trunk(inputs).pooler_output)


def test_missing_weights_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys: visual_projection\.weight"):
        ImageBindModel.from_pretrained(tmp_path)


@torch.no_grad()
def test_asked_blocks_come_in_order(model, pixels):
    output = model.vision_model(pixels, block_outputs=[2, 0])
    assert torch.equal(output.block_outputs[0], output.last_hidden_state)
    assert not torch.equal(output.block_outputs[1], output.last_hidden_state)


def test_gradient_checkpointing_changes_nothing(model, pixels):
    torch.manual_seed(0)
    plain, saving = ImageBindModel(config()).train(), ImageBindModel(config()).train()
    saving.load_state_dict(plain.state_dict())
    # transformers 5.23 renames the method and deprecates the old name.
    enable = "activation_checkpointing_enable"
    getattr(saving, enable if hasattr(saving, enable) else "gradient_checkpointing_enable")()
    for each in (plain, saving):
        each(pixel_values=pixels, input_ids=IDS).logits_per_image.sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5), name


def test_too_long_texts_are_refused(model):
    with pytest.raises(ValueError, match=r"\b7 tokens.*\b6 positions"):
        model.text_model(torch.zeros(1, 7, dtype=torch.long))


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="30 is not a multiple of 4"):
        ImageBindConfig(vision_config={"hidden_size": 30, "num_attention_heads": 4})
    with pytest.raises(ValueError, match="image_size 30 is not a multiple"):
        ImageBindConfig(vision_config={"image_size": 30})
