"""Chat models of several architectures as detectors: scores, texts, batches, folders, and what they cost."""

import copy
import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GitConfig, LlamaConfig

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.detection import UnconvertedCheckpointError
from deepfake_detectors.modeling.modeling_chat_vlm import ChatVlmForDeepfakeDetection
from deepfake_detectors.modeling.processing_chat_vlm import ChatVlmProcessor
from deepfake_detectors.modeling.prompting_chat_vlm import messages_for
from support.tiny_models import SENTENCES, chat_vlm, tiny_chat_vlm

ARCHITECTURES = ["qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision", "gemma3", "idefics3"]
if find_spec("num2words") is not None:  # which SmolVLM's processor needs
    ARCHITECTURES.append("smolvlm")
# One token, several, and both with tokens in common: every branch of the comparison.
ANSWERS = [
    {"real": ["Real", "real"], "fake": ["Fake", "fake"]},
    {"real": ["This is a real image", "Real"], "fake": ["This is a fake image", "Fake", "fake or so"]},
    {"real": ["This is a real"], "fake": ["This is a fake"]},
]
HISTORY = [("What is it?", "The image is fake.")]
TOLERANCE = 1e-4  # design contract, fp32


def pictures():
    """Of different size and shape."""
    generator = torch.Generator().manual_seed(0)
    noise = [
        torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        for height, width in ((64, 64), (56, 120), (150, 40))
    ]
    return [Image.fromarray(pixels.numpy()) for pixels in noise]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tiny(request):
    model, processor = chat_vlm(request.param)
    return SimpleNamespace(model=model, processor=processor, batch=processor(images=pictures()))


@pytest.fixture(scope="module")
def qwen():
    model, processor = chat_vlm("qwen3_vl")
    return SimpleNamespace(model=model, processor=processor, batch=processor(images=pictures()))


def asked_for(tiny, answers):
    """The same weights with other answers."""
    model, processor = copy.copy(tiny.model), copy.copy(tiny.processor)
    model.config = copy.deepcopy(tiny.model.config)
    processor.answers = answers
    model.set_answers(processor)
    return model, processor


def plain_loop(model, processor, picture, answers):
    """Log-probability of each class, answer by answer, over the unpadded text that the chat template gives."""
    masses = []
    prompt = processor.prompt()
    row = processor.encode(messages_for([(processor.question, None)], processor.system_prompt, picture))
    plain = len(processor.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    for texts in answers.values():
        each = []
        for text in texts:
            messages = [*processor.messages(), {"role": "assistant", "content": [{"type": "text", "text": text}]}]
            whole = processor.stock.apply_chat_template(messages, tokenize=False)
            # LLaVA-OneVision introduces given answers otherwise than those it is to write.
            whole = whole[: whole.rindex(text) + len(text)] if whole.startswith(prompt) else prompt + text
            ids = processor.tokenizer(whole, add_special_tokens=False)["input_ids"][plain:]
            more = torch.tensor([ids])
            inputs = {
                name: torch.cat([value, torch.zeros_like(more)], 1) if value.shape == row["input_ids"].shape else value
                for name, value in row.items()
            }
            inputs["input_ids"] = torch.cat([row["input_ids"], more], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            with torch.no_grad():
                found = model.vlm(**inputs).logits[0].log_softmax(-1)
            each.append(sum(found[position - len(ids) - 1, token] for position, token in enumerate(ids)))
        masses.append(torch.stack(each).logsumexp(0))
    return torch.stack(masses)


@pytest.mark.parametrize("answers", ANSWERS, ids=["one token", "several", "shared"])
def test_scores_are_those_of_a_plain_loop(tiny, answers):
    model, processor = asked_for(tiny, answers)
    assert model.config.answer_tokens["cut"] == 0
    expected = torch.stack([plain_loop(model, processor, picture, answers) for picture in pictures()])
    logits = model.detect(**processor(images=pictures())).logits
    assert torch.allclose(logits.softmax(-1), expected.softmax(-1), atol=1e-5)
    difference = (logits[:, 1] - logits[:, 0]) - (expected[:, 1] - expected[:, 0])
    assert difference.abs().max() < TOLERANCE
    if not model.config.answer_tokens["prefix"]:  # else on condition of what the answers begin with
        assert torch.allclose(logits, expected, atol=TOLERANCE)


def test_verdicts_differ_between_pictures(tiny):
    logits = tiny.model.detect(**tiny.batch).logits
    assert (logits - logits[0]).abs().max() > 10 * TOLERANCE


def test_a_batch_of_mixed_sizes_equals_single_pictures(tiny):
    together = tiny.model.detect(**tiny.batch).logits
    alone = torch.cat([tiny.model.detect(**tiny.processor(images=[picture])).logits for picture in pictures()])
    assert torch.allclose(together, alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("question", [None, "Why?"])
@pytest.mark.parametrize("history", [None, HISTORY])
def test_explanation_behind_the_verdict_is_plain_generation(tiny, question, history):
    model, processor = tiny.model, tiny.processor
    output = model.explain(processor, question=question, history=history, max_new_tokens=8, **tiny.batch)
    assert torch.allclose(output.logits, model.detect(**tiny.batch).logits, atol=TOLERANCE, rtol=0)
    asked = processor.explanation_question if question is None else question
    for picture, text in zip(pictures(), output.explanations, strict=True):
        inputs = processor(images=[picture], text=asked, history=history)
        ids = model.vlm.generate(**inputs, max_new_tokens=8, do_sample=False)
        assert processor.decode_answers(ids[:, inputs["input_ids"].shape[1] :]) == [text]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_conversation_for_each_picture(tiny, beams):
    """Of different lengths in one batch; the second with the model's own question."""
    model, processor = tiny.model, tiny.processor
    questions = ["Why?", None, "What about the eyes? The image is fake."]
    histories = [[*HISTORY, ("Is it real?", "The image is real.")], [], HISTORY]
    options = {"max_new_tokens": 6, "num_beams": beams}
    together = model.explain(processor, question=questions, history=histories, **tiny.batch, **options)
    for number, picture in enumerate(pictures()):
        own = {"question": questions[number], "history": histories[number]}
        alone = model.explain(processor, **own, **processor(images=[picture]), **options)
        assert together.explanations[number] == alone.explanations[0]
        assert torch.allclose(together.logits[number], alone.logits[0], atol=TOLERANCE, rtol=0)
    asked = [processor.explanation_question if question is None else question for question in questions]
    batch = processor(images=pictures(), text=asked, history=histories)
    ids = model.vlm.generate(**batch, do_sample=False, **options)
    assert together.explanations == processor.decode_answers(ids[:, batch["input_ids"].shape[1] :])
    with pytest.raises(ValueError, match="history is given for 3 pictures, but there are 2"):
        processor(images=pictures()[:2], history=histories)


def test_three_turns_equal_three_calls(tiny):
    """And what is read of another picture in between changes nothing."""
    model, processor = tiny.model, tiny.processor
    picture, tokens = pictures()[1], {"max_new_tokens": 6}
    inputs = processor(images=[picture])
    conversation = model.converse(processor, **inputs)
    assert torch.allclose(conversation.detection.logits, model.detect(**inputs).logits, atol=TOLERANCE, rtol=0)
    questions, history = ["Is it real?", "Why?", "What about the eyes?"], []
    for question in questions:
        model.detect(**processor(images=[pictures()[2]]))
        expected = model.explain(processor, question=question, history=history, **inputs, **tokens).explanations[0]
        model.detect(**processor(images=[pictures()[2]]))
        assert conversation.ask(question, history, **tokens) == expected
        history.append((question, expected))
    changed = [(questions[0], "The image is real.")]
    fresh = model.explain(processor, question=questions[1], history=changed, **inputs, **tokens).explanations[0]
    assert conversation.ask(questions[1], changed, **tokens) == fresh
    assert [*conversation.stream(questions[1], history[:1], **tokens)][-1] == history[1][1]


def test_a_conversation_reads_the_picture_once(tiny):
    model, processor = tiny.model, tiny.processor
    seen = []
    hook = model.get_submodule(model.vision_tower).register_forward_hook(lambda *_: seen.append(1))
    conversation = model.converse(processor, **processor(images=pictures()[:1]))
    with Counted(model) as lengths:
        conversation.ask("Why?", max_new_tokens=2)
    hook.remove()
    assert len(seen) == 1
    whole = processor(images=pictures()[:1], text="Why?")["input_ids"].shape[1]
    assert lengths[0][1] == whole - len(conversation._opening)


def test_what_cannot_be_talked_about(qwen):
    model, processor = qwen.model, qwen.processor
    with pytest.raises(ValueError, match="got 3"):
        model.converse(processor, **qwen.batch)
    with pytest.raises(ValueError, match="input_ids"):
        model.converse(processor, **processor(images=pictures()[:1], text="Why?"))
    conversation = model.converse(processor, **processor(images=pictures()[:1]))
    for question, history in ((f"Eyes {processor.stock.image_token}", ()), ("Nose?", [("x", "<|image_pad|>")])):
        with pytest.raises(ValueError, match="marker"):
            conversation.ask(question, history)


def test_several_beams_equal_plain_generation(tiny):
    model, processor = tiny.model, tiny.processor
    inputs = processor(images=pictures(), text=processor.explanation_question)
    ids = model.vlm.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=2)
    output = model.explain(processor, max_new_tokens=6, num_beams=2, **tiny.batch)
    assert output.explanations == processor.decode_answers(ids[:, inputs["input_ids"].shape[1] :])


def test_saved_folder_is_stock_and_loads_as_a_detector(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    for loader in (ChatVlmForDeepfakeDetection, AutoModelForDeepfakeDetection):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is ChatVlmForDeepfakeDetection
        processor = ChatVlmProcessor.from_pretrained(tmp_path)
        inputs = processor(images=pictures())
        # Before torchvision 0.27 the library loads another backend than the builder made, which resizes otherwise.
        if type(processor.stock.image_processor) is type(tiny.processor.stock.image_processor):
            assert torch.equal(inputs["pixel_values"], tiny.batch["pixel_values"])
        assert torch.equal(loaded.detect(**inputs).logits, tiny.model.detect(**inputs).logits)
    stock, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(stock) is type(tiny.model.vlm)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is type(tiny.processor.stock)


class Counted:
    """Forward passes of the language part, and the positions of each."""

    def __init__(self, model):
        self.lengths = []
        self.hook = model.vlm.get_decoder().register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module, args, kwargs):
        found = kwargs.get("inputs_embeds")
        self.lengths.append((found if found is not None else kwargs["input_ids"]).shape[:2])

    def __enter__(self):
        return self.lengths

    def __exit__(self, *_):
        self.hook.remove()


def test_a_verdict_is_one_prefill(tiny):
    model, processor = asked_for(tiny, ANSWERS[2])
    tokens = model.config.answer_tokens
    assert [len(ids) for name in ("real", "fake") for ids in tokens[name]] == [1, 1]
    batch = processor(images=pictures())
    with Counted(model) as lengths:
        model.detect(**batch)
    rows, length = batch["input_ids"].shape
    assert lengths == [(rows, length + len(tokens["prefix"]))]


def test_longer_answers_take_one_short_pass_more(tiny):
    model, processor = asked_for(tiny, ANSWERS[1])
    tokens = model.config.answer_tokens
    answers = [*tokens["real"], *tokens["fake"]]
    batch = processor(images=pictures())
    with Counted(model) as lengths:
        model.detect(**batch)
    rows, length = batch["input_ids"].shape
    assert lengths == [(rows, length + len(tokens["prefix"])), (rows * len(answers), max(map(len, answers)) - 1)]


def test_verdict_and_explanation_read_the_picture_once(tiny):
    model, processor = tiny.model, tiny.processor
    tower = model.get_submodule(model.vision_tower)
    with Counted(model) as generated:
        model.generate(**processor(images=pictures(), text=processor.explanation_question), max_new_tokens=2)
    seen = []
    hook = tower.register_forward_hook(lambda *_: seen.append(1))
    with Counted(model) as lengths:
        model.explain(processor, max_new_tokens=2, **tiny.batch)
    hook.remove()
    assert len(seen) == 1
    # Both questions share the picture, and what stands in front of it.
    rows, whole = tiny.batch["input_ids"].shape
    assert sum(length for count, length in lengths if count == rows) < sum(n for _, n in generated) + whole


def test_forward_trains_every_part(tiny):
    model = copy.deepcopy(tiny.model)
    batch = tiny.processor.encode_conversations(
        [
            [{"from": "human", "value": tiny.processor.question}, {"from": "gpt", "value": f"It looks {word}."}]
            for word in ("real", "fake", "fake")
        ],
        pictures(),
    )
    model.train()
    loss = model(**batch).loss
    loss.backward()
    tower = model.get_submodule(model.vision_tower)
    assert torch.isfinite(loss)
    assert any(weight.grad is not None and weight.grad.abs().max() > 0 for weight in tower.parameters())


def test_padding_on_the_right_is_refused(qwen):
    with pytest.raises(ValueError, match="left"):
        qwen.model.detect(**qwen.processor(images=pictures(), padding_side="right"))


def test_settings_are_saved_and_follow_the_caller(qwen, tmp_path):
    model, processor = chat_vlm(**SENTENCES, system_prompt="system", operating_points={"eer": 0.25})
    model.config.calibration = {"scale": 2.0, "bias": -0.5}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, again = ChatVlmForDeepfakeDetection.from_pretrained(tmp_path), ChatVlmProcessor.from_pretrained(tmp_path)
    for name, value in {**SENTENCES, "system_prompt": "system"}.items():
        assert getattr(loaded.config, name) == getattr(again, name) == value
    assert loaded.config.operating_points == {"eer": 0.25}
    assert loaded.config.calibration == {"scale": 2.0, "bias": -0.5}
    assert torch.equal(
        loaded.detect(**again(images=pictures())).logits, model.detect(**processor(images=pictures())).logits
    )
    # What stock code reads of it has the same fields.
    assert AutoConfig.from_pretrained(tmp_path).id2label == {0: "real", 1: "fake"}
    other = ChatVlmForDeepfakeDetection.from_pretrained(tmp_path, question="Real or fake?")
    assert other.config.answer_tokens["asked"] == ["system", "Real or fake?"]


def test_bfloat16_runs_and_stays_close(qwen, tmp_path):
    copy.deepcopy(qwen.model).to(torch.bfloat16).save_pretrained(tmp_path)
    qwen.processor.save_pretrained(tmp_path)
    half = ChatVlmForDeepfakeDetection.from_pretrained(tmp_path)
    assert half.dtype == torch.bfloat16
    inputs = {name: value.bfloat16() if value.is_floating_point() else value for name, value in qwen.batch.items()}
    logits = half.detect(**inputs).logits
    assert logits.dtype == torch.float32
    assert torch.allclose(logits.softmax(-1), qwen.model.detect(**qwen.batch).logits.softmax(-1), atol=0.1)


def test_missing_and_unexpected_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_chat_vlm(tmp_path)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    gone = min(tensors)
    save_file({k: v for k, v in tensors.items() if k != gone}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing_keys") as caught:
        AutoModelForDeepfakeDetection.from_pretrained(folder)
    assert gone in str(caught.value)
    save_file({**tensors, "stranger.weight": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"stranger\.weight"):
        AutoModelForDeepfakeDetection.from_pretrained(folder)


def test_a_text_model_is_refused(tmp_path):
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'llama'"):
        ChatVlmForDeepfakeDetection.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'llama'"):
        AutoModelForDeepfakeDetection.from_pretrained(tmp_path)


def test_official_files_are_refused(tmp_path):
    torch.save({}, tmp_path / "official.pth")
    for source in (tmp_path, tmp_path / "official.pth"):
        with pytest.raises(UnconvertedCheckpointError):
            ChatVlmForDeepfakeDetection.from_pretrained(source)


def test_a_model_without_an_image_token_is_refused(tmp_path):
    GitConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="image_token_id"):
        ChatVlmForDeepfakeDetection.from_pretrained(tmp_path)


def test_a_processor_of_another_model_is_refused(qwen):
    _, other = chat_vlm("gemma3")
    with pytest.raises(ValueError, match=str(other.image_token_id)):
        qwen.model.set_answers(other)
    processor = copy.copy(qwen.processor)
    processor.question = "Something else?"
    with pytest.raises(ValueError, match="Something else"):
        qwen.model.explain(processor, **qwen.batch)


@pytest.mark.parametrize(
    "answers",
    [
        {"real": ["yes"], "fake": ["yes"]},
        {"real": ["real"], "fake": ["real thing"]},
        {"real": [], "fake": ["fake"]},
        {"real": ["real"]},
        {"real": "real", "fake": "fake"},
    ],
)
def test_answers_that_cannot_be_compared_are_refused(answers):
    with pytest.raises(ValueError, match="answer"):
        chat_vlm(answers=answers)


def test_answers_equal_after_tokenising_are_refused(qwen):
    processor = copy.copy(qwen.processor)
    processor.stock = copy.deepcopy(qwen.processor.stock)
    processor.tokenizer = processor.stock.tokenizer
    backend = processor.tokenizer.backend_tokenizer
    from tokenizers import normalizers

    backend.normalizer = normalizers.Lowercase()
    processor.answers = {"real": ["OK"], "fake": ["ok"]}
    with pytest.raises(ValueError, match="'ok'"):
        copy.copy(qwen.model).set_answers(processor)


def test_config_json_names_the_stock_class(tmp_path):
    fields = json.loads((tiny_chat_vlm(tmp_path) / "config.json").read_text())
    assert (fields["model_type"], fields["detector_family"]) == ("qwen3_vl", "chat_vlm")
    assert fields["architectures"] == ["Qwen3VLForConditionalGeneration"]
    assert fields["trained"] is False
