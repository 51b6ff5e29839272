"""M2F2-Det detectors: the common checks on both variants, and what only they do."""

import copy

import pytest
import torch
from transformers import pipeline

from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from support.detector_tests import DetectorTests
from support.pictures import random_pictures
from support.tiny_models import m2f2_det, m2f2_det_config, verdict_processor


class TestCosine(DetectorTests):
    make_model = staticmethod(m2f2_det)
    make_processor = staticmethod(verdict_processor)


class TestBridge(DetectorTests):
    make_model = staticmethod(lambda: m2f2_det("bridge"))
    make_processor = staticmethod(verdict_processor)


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_patch_scores_are_cosines(pixels):
    scores = m2f2_det().detect(pixels).patch_scores
    assert scores.shape == (3, 16)
    assert scores.abs().max() <= 1
    assert m2f2_det("bridge").detect(pixels).patch_scores is None


def test_stock_image_classification_pipeline(tmp_path, pixels):
    model = m2f2_det()
    model.save_pretrained(tmp_path)
    verdict_processor().save_pretrained(tmp_path)
    picture = random_pictures(1)[0]
    rows = pipeline("image-classification", model=str(tmp_path))(picture)
    inputs = verdict_processor()(images=picture, return_tensors="pt")
    expected = model.detect(**inputs).fake_probability.item()
    assert {row["label"]: row["score"] for row in rows}["fake"] == pytest.approx(expected, abs=1e-6)


# the prompt feature


def stale_free(model, pixels):
    """Logits with the kept text feature equal logits computed with gradients on, where nothing is kept."""
    with torch.enable_grad():
        fresh = model(pixels).logits.detach().float()
    return torch.equal(model.detect(pixels).logits, fresh)


@pytest.fixture
def kept(pixels):
    model = m2f2_det()
    model.detect(pixels)
    assert model.detector.prompt_encoder._kept is not None
    return model


def test_prompt_feature_is_computed_once(kept, pixels):
    calls = []
    kept.detector.prompt_encoder.text_tower.encoder.register_forward_hook(lambda *_: calls.append(1))
    kept.detect(pixels)
    assert calls == []
    with torch.enable_grad():
        kept(pixels)
    assert calls == [1]


def test_prompt_feature_follows_load_state_dict(kept, pixels):
    before = kept.detect(pixels).logits
    kept.load_state_dict(m2f2_det(seed=1).state_dict())
    assert not torch.equal(kept.detect(pixels).logits, before)
    assert stale_free(kept, pixels)


OPTIMIZERS = {
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01),
    "fused_adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01, fused=True),  # does not count its writes
    "fused_sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, fused=True),
    "foreach_adam": lambda weights: torch.optim.Adam(weights, lr=0.01, foreach=True),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_prompt_feature_follows_a_training_step(kept, pixels, mode, optimizer):
    getattr(kept, mode)()
    before = kept.detector.prompt_encoder.prompt_tokens.detach().clone()
    step = OPTIMIZERS[optimizer](kept.parameters())
    kept(pixels, labels=torch.tensor([0, 1, 1])).loss.backward()
    step.step()
    step.zero_grad()
    if mode == "train":
        kept.eval()
    assert not torch.equal(kept.detector.prompt_encoder.prompt_tokens, before)
    assert stale_free(kept, pixels)


def test_prompt_feature_follows_uncounted_writes(kept, pixels):
    """Weight averaging and hand-written code write through `.data`."""
    other = m2f2_det(seed=1)
    for mine, average in zip(kept.state_dict().values(), other.state_dict().values(), strict=True):
        mine.data.copy_(average)
    assert torch.allclose(kept.detect(pixels).logits, other.detect(pixels).logits, atol=1e-6)
    kept.detector.prompt_encoder.prompt_tokens.data.normal_()
    assert stale_free(kept, pixels)


def test_prompt_feature_is_not_kept_under_autocast(pixels):
    model = m2f2_det()
    with torch.autocast("cpu", torch.bfloat16):
        model.detect(pixels)
    assert stale_free(model, pixels)


def test_prompt_feature_follows_adapters_being_switched(pixels):
    from peft import LoraConfig, get_peft_model

    model = m2f2_det()
    plain = model.detect(pixels).logits
    adapted = get_peft_model(model, LoraConfig(target_modules=r".*text_tower.*q_proj", init_lora_weights=False)).eval()
    with torch.no_grad():
        changed = adapted(pixel_values=pixels).logits
        with adapted.disable_adapter():
            off = adapted(pixel_values=pixels).logits
    assert not torch.allclose(changed, plain, atol=1e-4)
    assert torch.allclose(off, plain, atol=1e-6)


def test_prompt_feature_follows_a_single_written_weight(kept, pixels):
    with torch.no_grad():
        kept.detector.prompt_encoder.text_tower.encoder.layers[0].mlp.fc1.bias.add_(1.0)
    assert stale_free(kept, pixels)


def test_nothing_is_read_back_where_nothing_changed(kept, pixels, monkeypatch):
    """Reading a number off a device waits for it; the check of the weights must not."""

    def read(*_):
        raise AssertionError("a number was read")

    expected = kept.detect(pixels).logits
    for name in ("tolist", "item", "__bool__", "__float__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, read)
    logits = kept.detect(pixels).logits
    monkeypatch.undo()
    assert torch.equal(logits, expected)


def test_weights_are_looked_at_before_other_work_is_queued(kept, pixels, monkeypatch):
    order = []
    watch = type(kept.detector.prompt_encoder).watch
    monkeypatch.setattr(
        type(kept.detector.prompt_encoder), "watch", lambda self: (order.append("watched"), watch(self))[1]
    )
    kept.detector.encoder.register_forward_hook(lambda *_: order.append("CNN"))
    kept.detector.prompt_encoder.register_forward_hook(lambda *_: order.append("prompt"))
    kept.detect(pixels)
    assert order == ["watched", "CNN", "prompt"]


def test_a_state_that_was_watched_is_compared_and_not_the_one_of_now(kept, pixels):
    """Of the moment of `watch`, whatever is asked first."""
    encoder = kept.detector.prompt_encoder
    with torch.no_grad():
        before = encoder(watched=encoder.watch()).clone()
        encoder.prompt_tokens.data.normal_()
        after = encoder(watched=encoder.watch())
        assert not torch.allclose(before, after, atol=1e-4)
        assert encoder() is after and encoder(watched=encoder.watch()) is after


def test_prompt_feature_follows_a_small_uncounted_write(kept, pixels):
    encoder = kept.detector.prompt_encoder
    for weight in (encoder.prompt_tokens, *encoder.proj.parameters()):
        weight.data.view(-1)[0] += 1e-3
        assert stale_free(kept, pixels)


def test_prompt_feature_follows_a_replaced_weight(kept, pixels):
    encoder = kept.detector.prompt_encoder
    encoder.proj[0].weight = torch.nn.Parameter(encoder.proj[0].weight.detach() * 2)
    assert stale_free(kept, pixels)
    encoder.proj[0].weight.data = encoder.proj[0].weight.data * 2
    assert stale_free(kept, pixels)


def test_weights_that_are_not_numbers_are_never_taken_for_unchanged(kept, pixels):
    encoder = kept.detector.prompt_encoder
    encoder.prompt_tokens.data.fill_(float("nan"))
    assert kept.detect(pixels).logits.isnan().all()
    encoder.prompt_tokens.data.normal_()
    assert stale_free(kept, pixels) and not kept.detect(pixels).logits.isnan().any()


def test_prompt_feature_follows_a_cast(kept, pixels):
    kept.to(torch.float64)
    assert kept.detector.prompt_encoder._kept is None
    assert stale_free(kept, pixels.double())


# the bridge


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("clip_tokens", ["drop_last", "drop_cls"])
def test_working_bridge_sees_the_picture(pixels, norm, clip_tokens):
    flags = {"bridge_norm": norm, "bridge_attention_axis": "tokens", "bridge_clip_tokens": clip_tokens}
    model = m2f2_det("bridge", **flags)
    assert model.detector.runs_bridge
    seen = []
    model.detector.bridge.register_forward_hook(lambda module, args, output: seen.append(output))
    together = model.detect(pixels).logits
    assert (seen[0][0] - seen[0][1]).abs().max() > 1e-4
    alone = torch.cat([model.detect(row[None]).logits for row in pixels])
    assert torch.allclose(together, alone, atol=1e-5)


def test_official_bridge_is_constant_and_fast_path_exact(pixels):
    model = m2f2_det("bridge")
    fast = model.detect(pixels).logits
    slow_model = copy.deepcopy(model)
    slow_model.config.bridge_fast_path = False
    seen = []
    slow_model.detector.bridge.register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.allclose(slow_model.detect(pixels).logits, fast, atol=1e-6)
    assert torch.allclose(seen[0], model.detector.bridge.constant(seen[0].device).expand_as(seen[0]), atol=1e-6)


def test_bridge_dropout_is_off_in_eval(pixels):
    model = m2f2_det("bridge", bridge_norm="layer", bridge_attention_axis="tokens", bridge_dropout=0.5)
    assert torch.equal(model.detect(pixels).logits, model.detect(pixels).logits)


def test_bridge_blocks_are_saved_and_moved():
    model = m2f2_det("bridge").to(torch.float64)
    assert {w.dtype for w in model.detector.bridge.blocks.parameters()} == {torch.float64}
    assert any(".bridge.blocks." in name for name in model.state_dict())


def test_prompt_scores_can_join_the_bridge(pixels):
    model = m2f2_det("bridge", use_prompt_scores=True)
    assert model.detect(pixels).patch_scores.shape == (3, 16)


def test_axis_follows_the_norm():
    """Attention across the batch is harmless only where its result is thrown away."""
    assert m2f2_det_config("bridge").bridge_attention_axis == "batch"
    assert m2f2_det_config("bridge", bridge_norm="layer").bridge_attention_axis == "tokens"


# the tower and the CNN


def test_no_tower_layer_behind_the_last_one_read(pixels):
    model = m2f2_det()
    ran = []
    for index, layer in enumerate(model.vision_tower.encoder.layers):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    model.detect(pixels)
    assert ran == [0, 1, 2, 3]  # of 5; hidden state -2


def test_tap_behind_the_feature_layer_is_still_computed(pixels):
    flags = {"bridge_vision_layers": [1, 2, 5], "bridge_norm": "layer", "bridge_attention_axis": "tokens"}
    assert m2f2_det("bridge", **flags).detect(pixels).logits.isfinite().all()


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_050", "densenet121"])
def test_any_timm_network(name, pixels):
    model = m2f2_det(encoder_config={"type": "timm", "name": name})
    assert model.detect(pixels).logits.shape == (3, 2)


def test_timm_densenet_map_is_not_rectified(pixels):
    model = m2f2_det(encoder_config={"type": "timm", "name": "densenet121"})
    assert (model.detector.encoder(pixels).feature_map < 0).any()


def test_bridge_widths_follow_the_network(pixels):
    layers = ["blocks.2", "blocks.3", "blocks.4"]
    model = m2f2_det(
        "bridge", encoder_config={"type": "timm", "name": "mobilenetv3_small_050"}, bridge_encoder_layers=layers
    )
    model.config.bridge_fast_path = False
    assert model.detect(pixels).logits.isfinite().all()


def test_freeze_clip_leaves_the_prompt_free():
    model = m2f2_det()
    model.freeze_clip()
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert "detector.prompt_encoder.prompt_tokens" in free
    assert not any(name.startswith("vision_tower.") or ".text_tower." in name for name in free)


@pytest.mark.parametrize(
    ("variant", "flags"), [("cosine", {}), ("bridge", {}), ("bridge", {"bridge_fast_path": False})]
)
@pytest.mark.parametrize("freeze", ["freeze_clip", "freeze_unused"])
def test_every_free_weight_gets_a_gradient(variant, flags, freeze, pixels):
    """What data-parallel training asks for."""
    model = m2f2_det(variant, **flags)
    getattr(model, freeze)()
    model(pixels, labels=torch.tensor([0, 1, 1])).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []
    assert any(weight.requires_grad for weight in model.parameters())


# losses and errors


def test_mask_loss_counts_known_cells_only(pixels):
    encoder = {"type": "residual_energy", "image_size": 56, "grid_size": 14, "widths": [4, 8, 8], "mask_head": True}
    model = m2f2_det(encoder_config=encoder, mask_loss_weight=0.5)
    mask_logits = model(pixels).mask_logits
    labels = torch.tensor([0, 1, 1])
    targets = torch.full_like(mask_logits, -1.0)
    plain = model(pixels, labels=labels).loss
    assert torch.allclose(model(pixels, labels=labels, mask_labels=targets).loss, plain)
    targets[0] = 0.0
    expected = plain + 0.5 * torch.nn.functional.softplus(mask_logits[0]).mean()
    assert torch.allclose(model(pixels, labels=labels, mask_labels=targets).loss, expected, atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        model(pixels, labels=labels, mask_labels=targets[:, 1:])
    with pytest.raises(ValueError, match="no mask head"):
        m2f2_det()(pixels, labels=labels, mask_labels=targets)


def test_tuple_output(pixels):
    model = m2f2_det()
    loss, logits, scores = model(pixels, labels=torch.tensor([0, 1, 1]), return_dict=False)
    assert loss.shape == () and logits.shape == (3, 2) and scores.shape == (3, 16)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"bridge_norm": "batch"}, "'official', 'layer', 'none'"),
        ({"encoder_config": {"type": "vit"}}, "timm, efficientnet, densenet, residual_energy"),
        ({"vision_feature_layer": 9}, "hidden state 9 does not exist"),
        ({"prompt_token_num": 99}, "99"),
        ({"use_prompt_scores": False}, "cosine"),
        ({"calibration": {"scale": -1.0, "bias": 0.0}}, "positive"),
        ({"operating_points": {"eer": 2.0}}, "eer"),
        ({"id2label": {0: "fake", 1: "real"}}, "re-order"),
    ],
)
def test_config_errors_name_value_and_allowed(overrides, message):
    with pytest.raises(ValueError, match=message):
        m2f2_det_config(**overrides)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"type": "timm", "name": "efficientnet_b99"}, "efficientnet_b99"),
        ({"type": "densenet", "growth_rate": 4}, "does not fit type 'densenet'"),
    ],
)
def test_encoder_errors(encoder, message, pixels):
    with pytest.raises(ValueError, match=message):
        M2F2DetForDeepfakeDetection(m2f2_det_config(encoder_config=encoder)).detect(pixels)


def test_network_without_maps_is_refused():
    vision = {**m2f2_det_config().vision_config.to_dict(), "image_size": 224}
    model = m2f2_det(encoder_config={"type": "timm", "name": "vit_tiny_patch16_224"}, vision_config=vision)
    with pytest.raises(ValueError, match="convolutional"):
        model.detect(torch.zeros(1, 3, 224, 224))


def test_unknown_bridge_layer_lists_the_known():
    config = m2f2_det_config("bridge", bridge_encoder_layers=["blocks.1", "blocks.2", "features.9"])
    with pytest.raises(ValueError, match=r"no layer features\.9; its first layers are: .*blocks\.1"):
        M2F2DetForDeepfakeDetection(config)


def test_unknown_variant_names_the_known():
    with pytest.raises(ValueError, match="'bridge', 'cosine'"):
        M2F2DetConfig(variant="both")


def test_default_config_is_the_released_size():
    config = M2F2DetConfig(variant="bridge")
    assert config.encoder_config == {"type": "timm", "name": "efficientnet_b4"}
    assert (config.num_patches, config.hidden_size, config.bridge_dim) == (576, 1792, 64)
