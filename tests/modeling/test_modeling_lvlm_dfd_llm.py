"""LVLM-DFD with its language model: batches, stopping, dialogue, modes, training."""

import pytest
import torch
from transformers import AutoModel

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import OFFICIAL_SAMPLING, LvlmDfdForConditionalGeneration
from support.detector_tests import DetectorTests
from support.pictures import random_pictures
from support.tiny_models import STOP, lvlm_dfd_llm, lvlm_dfd_processor

PICTURES = random_pictures(4)
NEW = {"max_new_tokens": 12}


class TestLvlmDfdExplainer(DetectorTests):
    make_model = staticmethod(lvlm_dfd_llm)
    make_processor = staticmethod(lvlm_dfd_processor)

    # `forward` takes token labels; the verdict class of the same folder is another class.
    def test_gradients_reach_the_head(self, model, processor):
        batch = processor.encode_conversations([[("Is it fake?", "Yes.")]] * 4, PICTURES)
        model.zero_grad()
        model(**batch, class_labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        for name in ("detector.classifier.fc2.weight", "prompt_learner.base_prompts", "image_projection.weight"):
            assert model.get_parameter(name).grad.abs().max() > 0, name

    def test_save_equals_load(self, model, folder, inputs):
        loaded = AutoModel.from_pretrained(folder)
        assert type(loaded) is type(model)
        assert all(torch.equal(t, model.state_dict()[name]) for name, t in loaded.state_dict().items())
        verdict = AutoModelForDeepfakeDetection.from_pretrained(folder)
        assert type(verdict) is LvlmDfdForDeepfakeDetection
        assert torch.allclose(verdict.detect(**inputs).logits, model.detect(**inputs).logits, atol=1e-6)


@pytest.fixture(scope="module")
def model():
    return lvlm_dfd_llm()


@pytest.fixture(scope="module")
def processor():
    return lvlm_dfd_processor()


def asked(processor, pictures, question=None, **options):
    return processor(images=pictures, text=[processor.dialogue_prompt(question)] * len(pictures), **options)


def spread_percentages(model, processor):
    """Make the tiny verdicts differ enough that percentages have one and two digits."""
    head = model.detector.classifier.fc2
    with torch.no_grad():
        logits = model.detector(processor(images=PICTURES)["pixel_values"]).logits
        difference = logits[:, 1] - logits[:, 0]
        factor = 8 / (difference.max() - difference.min())
        head.weight.mul_(factor)
        head.bias.mul_(factor)
        head.bias[1] -= factor * (difference.max() + difference.min()) / 2
    return model


# batches


def test_greedy_text_of_one_equals_text_of_many(processor):
    model = spread_percentages(lvlm_dfd_llm(), processor)
    inputs = asked(processor, PICTURES)
    percents = (100 * model.detector(inputs["pixel_values"]).probabilities[:, 1]).int().tolist()
    assert len({len(str(percent)) for percent in percents}) > 1, "prompts of equal length prove nothing"
    together = model.generate(**inputs, **NEW).tolist()
    for picture, row in zip(PICTURES, together, strict=True):
        alone = model.generate(**asked(processor, [picture]), **NEW)[0].tolist()
        assert row[: len(alone)] == alone and set(row[len(alone) :]) <= {processor.tokenizer.eos_token_id}


def test_texts_of_different_lengths_share_a_batch(model, processor):
    questions = ["Fake?", "Is this face real, or has somebody painted over its eyes and nose?"]
    prompts = [processor.dialogue_prompt(question) for question in questions]
    together = model.generate(**processor(images=PICTURES[:2], text=prompts), **NEW)
    for i in range(2):
        alone = model.generate(**processor(images=PICTURES[i], text=prompts[i]), **NEW)[0]
        assert together[i, : len(alone)].tolist() == alone.tolist()


def test_padding_side_of_the_texts_changes_nothing(model, processor):
    prompts = [processor.dialogue_prompt(question) for question in ("Fake?", "Is this face a fake one?")]
    left, right = (
        model.generate(**processor(images=PICTURES[:2], text=prompts, padding_side=side), **NEW)
        for side in ("left", "right")
    )
    assert torch.equal(left, right)


def test_every_row_stops_by_itself(model, processor):
    rows = model.generate(**asked(processor, PICTURES), **NEW)
    assert not (rows == STOP).any()
    stop = rows[1, 4].item()
    first = [row.tolist().index(stop) if stop in row else None for row in rows]
    model.config.stop_token_id = stop
    try:
        stopped = model.generate(**asked(processor, PICTURES), **NEW)
    finally:
        model.config.stop_token_id = STOP
    assert first[1] is not None
    for row, full, end in zip(stopped.tolist(), rows.tolist(), first, strict=True):
        kept = len(full) if end is None else end + 1
        assert row[:kept] == full[: min(kept, len(row))]
        assert set(row[kept:]) <= {processor.tokenizer.eos_token_id}


def test_forward_of_one_equals_forward_of_many(processor):
    model = spread_percentages(lvlm_dfd_llm(), processor)
    inputs = asked(processor, PICTURES, padding_side="right")
    _, mask, _ = model.assemble(
        model.encode_pictures(inputs["pixel_values"]),
        *(inputs[n] for n in ("input_ids", "attention_mask", "prompt_start_ids", "score_prompt_ids")),
        padding_side="right",
    )
    assert len(set(mask.sum(1).tolist())) > 1
    logits = model(**inputs).logits
    for i, picture in enumerate(PICTURES):
        alone = model(**asked(processor, [picture])).logits[0]
        assert torch.allclose(logits[i, : len(alone)], alone, atol=1e-4)


def test_more_pictures_than_texts_are_refused(model, processor):
    text = processor.tokenize([processor.dialogue_prompt()])
    pixels = processor(images=PICTURES[:3])["pixel_values"]
    with pytest.raises(ValueError, match=r"^1 .*\b3 "):
        model.generate(**text, pixel_values=pixels)


def test_generate_needs_pictures_and_text(model, processor):
    inputs = asked(processor, PICTURES[:1])
    with pytest.raises(ValueError, match="exactly one of pixel_values and pictures"):
        model.generate(**{name: value for name, value in inputs.items() if name != "pixel_values"})
    with pytest.raises(ValueError, match="text="):
        model.generate(pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="class_labels and mask_labels need pixel_values"):
        model(input_ids=inputs["input_ids"], class_labels=torch.tensor([1]))


def test_a_config_without_language_model_cannot_explain():
    from support.tiny_models import lvlm_dfd_config

    with pytest.raises(ValueError, match="use LvlmDfdForDeepfakeDetection"):
        LvlmDfdForConditionalGeneration(lvlm_dfd_config())


# explain


def test_explain_equals_generate_and_detect(model, processor):
    inputs = processor(images=PICTURES)
    output = model.explain(processor, **inputs, **NEW)
    assert output.explanations == processor.decode_answers(model.generate(**asked(processor, PICTURES), **NEW))
    detection = model.detect(**inputs)
    assert torch.equal(output.logits, detection.logits) and torch.equal(output.mask, detection.mask)
    assert len(output.explanation_verdicts) == 4


def test_explain_encodes_pictures_once(model, processor):
    calls = []
    handle = model.detector.imagebind.vision_model.register_forward_hook(lambda *_: calls.append(1))
    model.explain(processor, **processor(images=PICTURES), **NEW)
    handle.remove()
    assert len(calls) == 1


def test_dialogue_goes_on(model, processor):
    pixels = processor(images=PICTURES[:2])["pixel_values"]
    first = model.explain(processor, pixels, question="Is it fake?", **NEW).explanations[0]
    history = [("Is it fake?", first)]
    second = model.explain(processor, pixels, question="Where?", history=history, **NEW).explanations
    prompt = f"Is it fake?\n### Assistant: {first}\n### Human: Where?\n### Assistant:"
    assert processor.dialogue_prompt("Where?", history) == prompt
    by_hand = model.generate(**processor(images=PICTURES[:2], text=[prompt] * 2), **NEW)
    assert second == processor.decode_answers(by_hand)


@pytest.mark.parametrize("extra", [{"num_beams": 2}, {"max_length": 240}, OFFICIAL_SAMPLING, {"use_cache": False}])
def test_generation_options(model, processor, extra):
    torch.manual_seed(42)
    options = {**extra, **({} if "max_length" in extra else {"max_new_tokens": 5})}
    rows = model.generate(**asked(processor, PICTURES[:2]), **options)
    assert rows.shape[0] == 2 and rows.shape[1] >= 1
    if "max_length" not in extra:
        assert rows.shape[1] <= 5


def test_no_cache_gives_the_same_text(model, processor):
    inputs = asked(processor, PICTURES)
    assert torch.equal(model.generate(**inputs, **NEW), model.generate(**inputs, use_cache=False, **NEW))


# modes


def test_score_token_modes(model, processor):
    pixels = processor(images=PICTURES[:2])["pixel_values"]
    pictures = model.encode_pictures(pixels)
    p = pictures.evidence.probabilities
    assert pictures.score_tokens.shape == (2, 1, 32)
    assert torch.equal(pictures.score_tokens[:, 0, 0::2], p[:, :1].expand(2, 16))
    assert torch.equal(pictures.score_tokens[:, 0, 1::2], p[:, 1:].expand(2, 16))
    rows = lvlm_dfd_llm(prob_token_mode="two_rows").encode_pictures(pixels).score_tokens
    assert rows.shape == (2, 2, 32)
    assert torch.equal(rows[:, 0], p[:, :1].expand(2, 32)) and torch.equal(rows[:, 1], p[:, 1:].expand(2, 32))


def test_legacy_truncation_drops_the_longer_sentence_end(processor):
    model = spread_percentages(lvlm_dfd_llm(), processor)
    names = ("input_ids", "attention_mask", "prompt_start_ids", "score_prompt_ids")
    inputs = asked(processor, PICTURES, padding_side="right")
    pictures = model.encode_pictures(inputs["pixel_values"])
    lengths = [model.assemble(pictures, *(inputs[n] for n in names))[1].sum(1)]
    model.config.legacy_truncate_middle = True
    lengths.append(model.assemble(pictures, *(inputs[n] for n in names))[1].sum(1))
    assert lengths[0].min() < lengths[0].max()
    assert (lengths[1] == lengths[0].min()).all()


def test_percentages_are_truncated(model, processor):
    inputs = asked(processor, PICTURES[:1])
    pictures = model.encode_pictures(inputs["pixel_values"])
    sentence = inputs["score_prompt_ids"][int(100 * pictures.evidence.probabilities[0, 1])]
    start = len(inputs["prompt_start_ids"]) + 1
    names = ("input_ids", "attention_mask", "prompt_start_ids", "score_prompt_ids")
    embeds, _, _ = model.assemble(pictures, *(inputs[n] for n in names))
    sentence = sentence[sentence >= 0]
    assert torch.equal(embeds[0, start : start + len(sentence)], model.get_input_embeddings()(sentence))


# training


def batch_of(processor):
    conversation = [("Is it fake?", "Yes, the nose is fake."), ("Where?", "The nose.")]
    batch = processor.encode_conversations([conversation, [("Is it fake?", "No.")]], PICTURES[:2])
    masks = torch.zeros(2, 56, 56)
    masks[0, 5:20, 5:20] = 1
    return {**batch, "class_labels": torch.tensor([1, 0]), "mask_labels": masks}


def test_losses_are_the_weighted_sum(processor):
    model = lvlm_dfd_llm(lm_loss_weight=2.0, class_loss_weight=0.5, focal_loss_weight=3.0, dice_loss_weight=0.25)
    output = model(**batch_of(processor))
    parts = 2 * output.lm_loss + 0.5 * output.class_loss + 3 * output.focal_loss + 0.25 * output.dice_loss
    assert torch.allclose(output.loss, parts)


def test_every_parameter_learns(processor):
    model = lvlm_dfd_llm()
    model(**batch_of(processor)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_lm_loss_alone(model, processor):
    batch = processor.encode_conversations([[("Is it fake?", "Yes.")]], PICTURES[:1])
    output = model(**batch)
    assert torch.equal(output.loss, output.lm_loss) and output.class_loss is None and output.focal_loss is None


def test_training_lowers_the_loss(processor):
    model = lvlm_dfd_llm().train()
    batch = batch_of(processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
