"""The LVLM-DFD detector: contract, mask, class texts and when they are computed anew, losses, config."""

import copy

import pytest
import torch
from transformers import AutoModel

from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.modeling_lvlm_dfd_heads import dice_loss, focal_loss
from support.detector_tests import DetectorTests
from support.pictures import random_pictures
from support.tiny_models import SIZE, lvlm_dfd, lvlm_dfd_config, lvlm_verdict_processor


class TestLvlmDfdDetector(DetectorTests):
    make_model = staticmethod(lvlm_dfd)
    make_processor = staticmethod(lvlm_verdict_processor)


@pytest.fixture(scope="module")
def model():
    return lvlm_dfd()


@pytest.fixture(scope="module")
def inputs():
    return lvlm_verdict_processor()(images=random_pictures(3), return_tensors="pt")


def test_mask_is_a_probability_per_pixel(model, inputs):
    mask = model.detect(**inputs).mask
    assert mask.shape == (3, SIZE, SIZE) and mask.dtype == torch.float32
    assert mask.min() >= 0 and mask.max() <= 1 and mask.std() > 0.01


def test_mask_of_one_equals_mask_of_many(model, inputs):
    together = model.detect(**inputs).mask
    alone = torch.cat([model.detect(inputs["pixel_values"][i : i + 1]).mask for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_normalisation_folded_into_the_last_convolution(model, monkeypatch):
    locator = copy.deepcopy(model.detector.locator)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in locator.batchnorm:
            for each in (norm.weight, norm.bias, norm.running_mean):
                each.copy_(torch.randn(each.shape, generator=generator))
            norm.running_var.uniform_(0.1, 3.0, generator=generator)
        maps = [torch.rand(2, 2, 9, 9, generator=generator) for _ in locator.conv]
        folded = locator(maps)
        monkeypatch.setattr(type(locator), "_can_fold", lambda self: False)
        assert folded.std() > 0.01 and torch.allclose(folded, locator(maps), atol=1e-5)


def test_normalisation_is_not_folded_in_training_nor_past_an_adapter(model):
    locator = copy.deepcopy(model.detector.locator)
    assert locator._can_fold()
    assert not locator.train()._can_fold()
    locator.eval().finalconv = torch.nn.Sequential(locator.finalconv)
    assert not locator._can_fold()


def test_logits_are_log_probabilities(model, inputs):
    output = model(**inputs)
    assert torch.allclose(output.logits.exp().sum(dim=1), torch.ones(3))


# class texts


def fresh(model):
    with torch.no_grad():
        return model.detector.class_texts.compute(model.detector.imagebind)


def kept(model):
    with torch.no_grad():
        return model.detector.class_texts(model.detector.imagebind)


@pytest.fixture
def own():
    return lvlm_dfd()


def test_class_texts_are_computed_once(own, inputs, monkeypatch):
    calls = []
    text_model = own.detector.imagebind.text_model
    text_model.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        own.detect(**inputs)
    assert len(calls) == 1


def step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, SIZE, SIZE), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()


def load_other_weights(model):
    model.load_state_dict(lvlm_dfd(seed=5).state_dict())


def write_to_ctx(model):
    with torch.no_grad():
        model.detector.class_texts.ctx.add_(1.0)


def replace_projection(model):
    projection = model.detector.imagebind.text_projection
    projection.weight = torch.nn.Parameter(2 * projection.weight.detach().flip(0))


def change_scale(model):
    with torch.no_grad():
        model.detector.imagebind.logit_scale.fill_(0.1)


def train_with_data(model):
    model.train()
    model.detector.imagebind.text_projection.weight.data.mul_(-1.0)
    model.eval()


def other_letters(model):
    model.config.class_token_ids = [[[398, 5, 399]], [[398, 9, 399], [398, 4, 399]]]


CHANGES = [step, load_other_weights, write_to_ctx, replace_projection, change_scale, train_with_data, other_letters]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_class_texts_follow_what_they_depend_on(own, change):
    before = kept(own).clone()
    change(own)
    assert not torch.allclose(kept(own), before, atol=1e-5)
    assert torch.equal(kept(own), fresh(own))


def test_class_texts_follow_the_dtype(own):
    assert kept(own).dtype == torch.float32
    own.to(torch.bfloat16)
    assert kept(own).dtype == torch.bfloat16 and torch.equal(kept(own), fresh(own))


def test_class_texts_follow_an_adapter_that_is_switched_off(own):
    from peft import LoraConfig, get_peft_model

    before = kept(own).clone()
    wrapped = get_peft_model(own, LoraConfig(r=2, target_modules=["text_projection"], init_lora_weights=False)).eval()
    changed = kept(own).clone()
    assert not torch.allclose(changed, before, atol=1e-4)
    with wrapped.disable_adapter():
        assert torch.allclose(kept(own), before, atol=1e-6)
    assert torch.allclose(kept(own), changed, atol=1e-6)


def test_class_texts_learn(own):
    own(torch.randn(2, 3, SIZE, SIZE), labels=torch.tensor([0, 1])).loss.backward()
    for name in ("class_texts.ctx", "imagebind.text_projection.weight", "imagebind.logit_scale"):
        assert own.detector.get_parameter(name).grad.abs().max() > 0, name


def test_padding_of_class_texts_changes_nothing(model):
    texts, imagebind = model.detector.class_texts, model.detector.imagebind
    ids = texts.token_ids(model.device)
    longer = torch.nn.functional.pad(ids, (0, 4))
    with torch.no_grad():
        assert torch.allclose(imagebind.get_text_features(ids), imagebind.get_text_features(longer), atol=1e-6)


# losses


def test_all_losses_are_weighted_and_reach_every_part():
    model = lvlm_dfd(class_loss_weight=2.0, focal_loss_weight=3.0, dice_loss_weight=0.5)
    masks = torch.zeros(2, SIZE, SIZE)
    masks[1, 10:30, 10:30] = 1.0
    output = model(torch.randn(2, 3, SIZE, SIZE), labels=torch.tensor([0, 1]), mask_labels=masks)
    parts = 2.0 * output.class_loss + 3.0 * output.focal_loss + 0.5 * output.dice_loss
    assert torch.allclose(output.loss, parts)
    output.loss.backward()
    skipped = {"detector.imagebind.visual_projection.weight"}  # for the language model
    skipped |= {f"detector.imagebind.vision_model.post_layernorm.{name}" for name in ("weight", "bias")}
    still = {name for name, p in model.named_parameters() if p.grad is None}
    assert still == skipped


def test_soft_masks_count_from_the_threshold_in_the_focal_loss():
    probabilities = torch.tensor([0.2, 0.8]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    soft, hard = torch.full((1, 4, 4), 0.5), torch.ones(1, 4, 4)
    assert torch.equal(focal_loss(probabilities, soft, 0.3), focal_loss(probabilities, hard, 0.3))
    assert torch.equal(focal_loss(probabilities, soft, None), focal_loss(probabilities, torch.zeros(1, 4, 4), None))
    assert focal_loss(probabilities, soft, 0.3) < focal_loss(probabilities, soft, None)


def test_dice_loss_of_perfect_and_opposite_masks():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1.0
    assert dice_loss(mask, mask) == 0
    assert dice_loss(1 - mask, mask) == pytest.approx(1 - 1 / 65)


def test_unknown_masks_are_left_out_of_the_mask_losses():
    model = lvlm_dfd()
    pixels, labels = torch.randn(3, 3, SIZE, SIZE), torch.tensor([1, 0, 1])
    masks = torch.zeros(3, SIZE, SIZE)
    masks[0, 5:20, 5:20], masks[2] = 1.0, -1.0
    mixed = model(pixels, labels=labels, mask_labels=masks)
    known = model(pixels[:2], labels=labels[:2], mask_labels=masks[:2])
    for name in ("focal_loss", "dice_loss"):
        torch.testing.assert_close(mixed[name], known[name], atol=1e-6, rtol=1e-5)
    nothing = model(pixels[2:], labels=labels[2:], mask_labels=masks[2:])
    assert nothing.focal_loss == nothing.dice_loss == 0
    nothing.loss.backward()
    assert model.detector.locator.finalconv.weight.grad is not None  # every worker has the same gradients to share


def test_masks_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match=r"\(2, 7, 7\).*\(2, 56, 56\)"):
        model(torch.randn(2, 3, SIZE, SIZE), mask_labels=torch.zeros(2, 7, 7))


def test_pictures_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"32x48.*56x56"):
        model.detect(torch.zeros(1, 3, 32, 48))


# config


def test_released_class_texts_are_letters():
    config = LvlmDfdConfig()
    letters = [[ids[1] for ids in sentences] for sentences in config.class_token_ids]
    assert [len(ids) for ids in letters] == [4, 4]
    assert letters[0][1] == letters[1][3] and letters[0][2] == letters[1][1]  # e and a occur in both
    assert all(ids[0] == 49406 and ids[2] == 49407 for sentences in config.class_token_ids for ids in sentences)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prob_token_mode": "rows"}, "prob_token_mode is 'rows'"),
        ({"ctx_missing": "ones"}, "ctx_missing is 'ones'"),
        ({"verdict_mode": "strict"}, "verdict_mode is 'strict'"),
        ({"tap_layers": [0, 3]}, r"\[0, 3\].*blocks 0 to 2"),
        ({"tap_layers": []}, "tap_layers"),
        ({"mask_threshold": 1.0}, "mask_threshold is 1.0"),
        ({"dice_loss_weight": -1.0}, "dice_loss_weight is -1.0"),
        ({"class_names": ["real", "fake"], "split_letters": False}, "class_token_ids"),
        ({"class_names": ["real"]}, "two class_names"),
        ({"class_names": ["real", "fäke"]}, "class_token_ids"),
        ({"class_token_ids": [[[398, 400, 399]], [[398, 3, 399]]]}, "400.*399"),
        ({"class_token_ids": [[[398, *range(7), 399]], [[398, 3, 399]]]}, "9 tokens"),
        ({"calibration": {"scale": 0.0, "bias": 0.0}}, "scale is 0"),
    ],
)
def test_wrong_configs_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        lvlm_dfd_config(**overrides)


def test_whole_words_are_possible_with_their_ids(inputs):
    words = [[[398, 7, 399]], [[398, 11, 12, 399]]]
    model = lvlm_dfd(split_letters=False, class_token_ids=words)
    letters = lvlm_dfd()
    letters.load_state_dict(copy.deepcopy(model.state_dict()))
    assert not torch.allclose(model.detect(**inputs).mask, letters.detect(**inputs).mask, atol=1e-4)


def test_settings_survive_saving(tmp_path, model):
    changed = copy.deepcopy(model)
    changed.config.mask_threshold = None
    changed.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).config.mask_threshold is None
