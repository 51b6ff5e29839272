"""M2F2-Det with its language model: generation, sharing of work, and what may not happen."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoProcessor,
    pipeline,
)

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from support.pictures import random_pictures
from support.tiny_models import m2f2_det_config, m2f2_det_llm, m2f2_det_processor, tiny_m2f2_det, tiny_m2f2_det_llm

QUESTIONS = ["Is it real?", "What about the eyes in this picture? Tell me.", "Nose?"]
TOKENS = 10


@pytest.fixture(scope="module")
def model():
    return m2f2_det_llm()


@pytest.fixture(scope="module")
def processor():
    return m2f2_det_processor()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_m2f2_det_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def pictures():
    return random_pictures(3)


def answer(model, processor, pictures, questions, **options):
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in questions])
    options = {"do_sample": False, "max_new_tokens": TOKENS, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def words(processor, ids):
    return [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]


# generation


def test_generate_sees_what_forward_sees(model, processor, pictures):
    inputs = processor(images=pictures[0], text=processor.explanation_prompt(QUESTIONS[0]))
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=3, output_logits=True, return_dict_in_generate=True
    )
    with torch.no_grad():
        for step in range(3):
            ids = output.sequences[:, : inputs["input_ids"].shape[1] + step]
            whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            assert torch.allclose(output.logits[step], model(**whole).logits[:, -1], atol=1e-4)


def test_greedy_batch_of_one_equals_batch_of_n(model, processor, pictures):
    together = words(processor, answer(model, processor, pictures, QUESTIONS))
    alone = [words(processor, answer(model, processor, [p], [q]))[0] for p, q in zip(pictures, QUESTIONS, strict=True)]
    assert together == alone


def test_text_depends_on_picture_and_on_verdict(model, processor, pictures):
    same_question = answer(model, processor, pictures, [QUESTIONS[0]] * 3).tolist()
    assert len({tuple(row) for row in same_question}) > 1
    inputs = processor(images=pictures[0], text=processor.explanation_prompt(QUESTIONS[0]))
    with torch.no_grad():
        embeds, _ = model.model.encode_pictures(inputs["pixel_values"])
        text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        sure_real, sure_fake = (
            model(**text, image_embeds=embeds, detector_logits=torch.tensor([pair])).logits[:, -1]
            for pair in ([9.0, -9.0], [-9.0, 9.0])
        )
    assert (sure_real - sure_fake).abs().max() > 1e-2


def test_beams_and_sampling_run(model, processor, pictures):
    assert len(answer(model, processor, pictures, QUESTIONS, num_beams=2)) == 3
    assert len(answer(model, processor, pictures, QUESTIONS, do_sample=True)) == 3
    assert len(answer(model, processor, pictures, QUESTIONS, repetition_penalty=1.5)) == 3


def test_placeholders_are_never_generated(processor, pictures):
    model = m2f2_det_llm()
    placeholders = [model.config.image_token_id, model.config.deepfake_token_id]
    with torch.no_grad():
        model.lm_head.weight[placeholders] = 100 * model.lm_head.weight.abs().max()
    ids = answer(model, processor, pictures, QUESTIONS)
    assert not torch.isin(ids, torch.tensor(placeholders)).any()


def test_padding_side_does_not_change_the_loss(model, processor, pictures):
    conversations = [
        [{"from": "human", "value": f"<image>\n<deepfake>\n{q}"}, {"from": "gpt", "value": f"The image is {a}."}]
        for q, a in zip(QUESTIONS, ("fake", "real", "fake"), strict=True)
    ]
    together = processor.encode_conversations(conversations, pictures)
    singles = [processor.encode_conversations([c], [p]) for c, p in zip(conversations, pictures, strict=True)]
    with torch.no_grad():
        loss = model(**together).loss
        counts = torch.tensor([(s["labels"] != -100).sum() for s in singles])
        parts = torch.stack([model(**s).loss for s in singles])
    assert torch.allclose(loss, (parts * counts).sum() / counts.sum(), atol=1e-5)


def test_copied_ids_are_labels_too(model, processor, pictures):
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in QUESTIONS])
    copied = inputs["input_ids"].clone()
    masked = copied.clone()
    masked[torch.isin(copied, torch.tensor([model.config.image_token_id, model.config.deepfake_token_id]))] = -100
    with torch.no_grad():
        loss = model(**inputs, labels=copied).loss
        assert loss.isfinite() and torch.equal(loss, model(**inputs, labels=masked).loss)


def test_stock_image_text_to_text_pipeline(folder, pictures):
    content = [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "Is it real?"}]
    messages = [{"role": "user", "content": content}]
    rows = pipeline("image-text-to-text", model=str(folder))(text=messages, max_new_tokens=3)
    assert isinstance(rows[0]["generated_text"], list | str)


# verdict and explanation


def test_detect_does_not_run_the_language_model(processor, pictures):
    model = m2f2_det_llm()
    model.model.language_model.register_forward_hook(lambda *_: pytest.fail("the language model ran"))
    assert model.detect(**processor(images=pictures)).logits.shape == (3, 2)


def test_explain_equals_detect_and_generate(model, processor, pictures):
    pixels = processor(images=pictures)
    output = model.explain(processor, **pixels, max_new_tokens=TOKENS)
    verdict = model.detect(**pixels)
    assert torch.equal(output.logits, verdict.logits)
    names = [("real", "fake")[int(p >= 0.5)] for p in verdict.fake_probability]
    inputs = processor(images=pictures, text=[processor.explanation_prompt(verdict=name) for name in names])
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)[:, inputs["input_ids"].shape[1] :]
    assert output.explanations == words(processor, ids)


def test_explain_asks_about_the_verdict_at_the_threshold(model, processor, pictures):
    pixels = processor(images=pictures)
    asked = []
    spy = copy.copy(processor)
    spy.explanation_prompt = lambda question, verdict, history: (
        asked.append(verdict) or processor.explanation_prompt(question, verdict, history)
    )
    model.explain(spy, **pixels, threshold=0.0, max_new_tokens=1)
    model.explain(spy, **pixels, threshold=1.0, max_new_tokens=1)
    assert asked == ["fake"] * 3 + ["real"] * 3


def test_explain_encodes_the_pictures_once(processor, pictures):
    model = m2f2_det_llm()
    passes = []
    model.model.vision_tower.embeddings.register_forward_hook(lambda *_: passes.append(1))
    model.explain(processor, **processor(images=pictures), max_new_tokens=3)
    assert passes == [1]


def test_shared_prefill_equals_separate_answers(model, processor, pictures):
    pixels = processor(images=pictures[0])
    shared = model.answer_questions(processor, QUESTIONS, **pixels, max_new_tokens=TOKENS)
    separate = [words(processor, answer(model, processor, [pictures[0]], [q]))[0] for q in QUESTIONS]
    assert shared == separate
    assert model.answer_questions(processor, QUESTIONS[:1], **pixels, max_new_tokens=TOKENS) == separate[:1]


def test_shared_prefill_of_a_folder_that_trainer_wrote(model, processor, pictures):
    """Trainer leaves `use_cache=False` behind."""
    pixels = processor(images=pictures[:1])
    expected = model.answer_questions(processor, QUESTIONS, **pixels, max_new_tokens=TOKENS)
    trained = copy.deepcopy(model)
    trained.generation_config.use_cache = False
    assert trained.answer_questions(processor, QUESTIONS, **pixels, max_new_tokens=TOKENS) == expected


def test_shared_prefill_reads_the_picture_once(processor, pictures):
    model = m2f2_det_llm()
    lengths = []
    model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: lengths.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    model.answer_questions(processor, QUESTIONS, **processor(images=pictures[0]), max_new_tokens=2)
    prefix, questions, *steps = lengths
    assert prefix[0] == 1 and prefix[1] > processor.image_seq_length
    longest = max(len(processor.token_ids(processor.explanation_prompt(question))) for question in QUESTIONS)
    assert questions == (3, longest - prefix[1])
    assert all(step[1] == 1 for step in steps)


def test_answer_questions_refuses(model, processor, pictures):
    with pytest.raises(ValueError, match="got 3"):
        model.answer_questions(processor, QUESTIONS, **processor(images=pictures))
    with pytest.raises(ValueError, match="num_beams=2 cannot share"):
        model.answer_questions(processor, QUESTIONS, **processor(images=pictures[0]), num_beams=2)
    with pytest.raises(ValueError, match="at least one question"):
        model.answer_questions(processor, [], **processor(images=pictures[0]))


# folders


def test_save_equals_load(model, folder, processor, pictures):
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is M2F2DetForConditionalGeneration
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is M2F2DetForConditionalGeneration
    again = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in QUESTIONS])
    reloaded = again(images=pictures, text=[again.explanation_prompt(q) for q in QUESTIONS])
    assert all(torch.equal(inputs[name], reloaded[name]) for name in inputs)
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits, model(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize(
    "auto", [AutoModelForDeepfakeDetection, AutoModelForImageClassification, M2F2DetForDeepfakeDetection]
)
def test_folder_loads_as_verdict_class(auto, model, folder, processor, pictures):
    verdict, info = auto.from_pretrained(folder, output_loading_info=True)
    assert type(verdict) is M2F2DetForDeepfakeDetection
    assert not info["missing_keys"]
    pixels = processor(images=pictures)
    assert torch.allclose(verdict.detect(**pixels).logits, model.detect(**pixels).logits, atol=1e-6)


def test_verdict_class_saves_a_verdict_folder(folder, processor, pictures, tmp_path):
    verdict = AutoModelForDeepfakeDetection.from_pretrained(folder)
    verdict.save_pretrained(tmp_path)
    assert not any(name.startswith(("model.", "lm_head")) for name in load_file(tmp_path / "model.safetensors"))
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is M2F2DetForDeepfakeDetection and again.config.text_config is None
    pixels = processor(images=pictures)
    assert torch.allclose(again.detect(**pixels).logits, verdict.detect(**pixels).logits, atol=1e-6)


def test_folder_without_language_model_is_refused(tmp_path):
    tiny_m2f2_det(tmp_path)
    with pytest.raises(ValueError, match="no text_config"):
        M2F2DetForConditionalGeneration.from_pretrained(tmp_path)


def test_folder_without_detector_part_is_refused(folder, tmp_path):
    model = AutoModel.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    tensors = {n: t for n, t in load_file(tmp_path / "model.safetensors").items() if ".detector." not in n}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys: model\.detector\."):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(folder, processor, pictures, dtype):
    model = AutoModel.from_pretrained(folder, dtype=dtype)
    output = model.explain(
        processor, pixel_values=processor(images=pictures)["pixel_values"].to(dtype), max_new_tokens=3
    )
    assert output.logits.dtype == torch.float32 and len(output.explanations) == 3


# flags and training


def test_float16_pixels_are_a_flag(processor, pictures):
    rounded = m2f2_det_llm(vision_pixel_dtype="float16")
    plain = m2f2_det_llm()
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in QUESTIONS])
    halved = {**inputs, "pixel_values": inputs["pixel_values"].half().float()}
    with torch.no_grad():
        embeds = [m.model.encode_pictures(x["pixel_values"])[0] for m, x in ((rounded, inputs), (plain, halved))]
        assert torch.equal(*embeds)
        assert not torch.equal(embeds[0], plain.model.encode_pictures(inputs["pixel_values"])[0])


def test_conditional_probabilities_follow_the_label_in_training_only(processor, pictures):
    model = m2f2_det_llm(conditional_deepfake_prob=1.0)
    seen = []
    model.model.deepfake_projector.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in QUESTIONS])
    labels = torch.tensor([0, 1, 1])
    model.train()
    for _ in range(20):
        model(**inputs, class_labels=labels)
    fake = torch.stack(seen)[..., 1]
    assert (fake[:, 0] <= 0.5).all() and (fake[:, 1:] >= 0.5).all()
    assert torch.allclose(torch.stack(seen).sum(-1), torch.ones(20, 3))
    assert fake.std(0).min() > 0.05
    model.eval()
    model(**inputs, class_labels=labels)
    assert torch.allclose(seen[-1], model.detect(inputs["pixel_values"]).logits.softmax(-1), atol=1e-6)


def test_calibration_does_not_reach_the_language_model(processor, pictures):
    model = m2f2_det_llm()
    inputs = processor(images=pictures[0], text=processor.explanation_prompt(QUESTIONS[0]))
    with torch.no_grad():
        before = model(**inputs).logits
        model.config.calibration = {"scale": 3.0, "bias": 2.0}
        assert torch.equal(model(**inputs).logits, before)


def test_backbone_lines_up_with_input_ids(model, processor, pictures):
    """What TRL's fused head relies on: backbone times `lm_head` are the logits."""
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in QUESTIONS])
    with torch.no_grad():
        states = model.base_model(**inputs).last_hidden_state
        assert states.shape[:2] == inputs["input_ids"].shape
        ours = model(**inputs).logits[..., :-2]
        assert torch.allclose(model.get_output_embeddings()(states)[..., :-2], ours, atol=1e-5)


# bad input


def test_placeholder_counts_are_named(model, processor, pictures):
    inputs = processor(images=pictures, text=[processor.explanation_prompt(q) for q in QUESTIONS])
    with pytest.raises(ValueError, match=r"\b48 .*\b2 .*\b32\b"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:2]})


def test_pictures_without_ids_are_refused(model, processor, pictures):
    pixels = processor(images=pictures)["pixel_values"]
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(pixel_values=pixels)
    with pytest.raises(ValueError, match="placeholders are found by id"):
        model(inputs_embeds=torch.zeros(3, 4, 32), pixel_values=pixels)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_token_id": 64}, "must include both placeholders"),
        ({"image_token_id": 3, "deepfake_token_id": 3}, "both 3"),
        ({"conditional_deepfake_prob": 1.5}, "expected 0 to 1"),
        ({"vision_pixel_dtype": "bfloat16"}, "'native', 'float16'"),
    ],
)
def test_config_errors(overrides, message):
    with pytest.raises(ValueError, match=message):
        m2f2_det_config(**{"text_config": {"vocab_size": 64}, **overrides})
