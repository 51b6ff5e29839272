"""What chat models are fed: prompts of their own templates, batches of any sizes, and what is learnt of them."""

import copy
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

from deepfake_detectors.modeling.processing_chat_vlm import IGNORED, ChatVlmProcessor
from deepfake_detectors.modeling.prompting_chat_vlm import answered
from support.pictures import random_pictures
from support.tiny_models import chat_vlm

ARCHITECTURES = ["qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision", "gemma3", "idefics3"]
if find_spec("num2words") is not None:  # which SmolVLM's processor needs
    ARCHITECTURES.append("smolvlm")
ENDS = {"gemma3": "<end_of_turn>", "idefics3": "<end_of_utterance>", "smolvlm": "<end_of_utterance>"}
CONVERSATION = [
    {"from": "human", "value": "Is it real?"},
    {"from": "gpt", "value": "The image is fake."},
    {"from": "human", "value": "Why?"},
    {"from": "gpt", "value": "The eyes look odd."},
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    return request.param, chat_vlm(request.param)[1]


@pytest.fixture(scope="module")
def processor():
    return chat_vlm("qwen3_vl")[1]


def test_loss_is_on_the_answers_and_their_ends_alone(architecture):
    name, processor = architecture
    batch = processor.encode_conversations([CONVERSATION, CONVERSATION[:2]], random_pictures(2))
    end = ENDS.get(name, "<|im_end|>")
    answers = [turn["value"] for turn in CONVERSATION[1::2]]
    for labels, said in zip(batch["labels"], (answers, answers[:1]), strict=True):
        text = "".join(processor.tokenizer.decode(labels[labels != IGNORED]).split())
        assert text == "".join("".join(f"{answer}{end}".split()) for answer in said)
    known = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][known], batch["input_ids"][known])
    assert batch["attention_mask"][known].all()


def test_training_text_begins_as_the_question_is_asked(architecture):
    """Else a model would be asked in another way than it learnt."""
    name, processor = architecture
    picture = random_pictures(1)
    row = processor.encode_conversations([CONVERSATION[:2]], picture)
    asked = processor(images=picture, text="Is it real?")["input_ids"][0]
    if name == "llava_onevision":  # whose own template has one blank more
        asked = asked[:-2]
    assert torch.equal(row["input_ids"][0, : len(asked)], asked)


def test_max_length_cuts_answers_but_no_picture(processor):
    whole = processor.encode_conversations([CONVERSATION], random_pictures(1))
    length = whole["input_ids"].shape[1]
    cut = processor.encode_conversations([CONVERSATION], random_pictures(1), max_length=length - 3)
    assert torch.equal(cut["labels"], whole["labels"][:, : length - 3])
    with pytest.raises(ValueError, match="max_length=4"):
        processor.encode_conversations([CONVERSATION], random_pictures(1), max_length=4)


@pytest.mark.parametrize(
    ("name", "text"), [("idefics3", "Assistant: Real"), ("qwen3_vl", "<|im_start|>assistant\nReal")]
)
def test_answers_stand_where_the_template_puts_them(name, text):
    _, processor = chat_vlm(name)
    assert answered(processor.stock, processor.messages(), "Real").endswith(text)


def test_own_question_and_history_are_in_the_prompt(processor):
    history = [("First?", "Yes.")]
    text = processor.prompt("And now?", history)
    assert text.index("First?") < text.index("Yes.") < text.index("And now?")
    assert text.count(processor.stock.image_token) == 1
    ids = processor(images=random_pictures(1), text="And now?", history=history)["input_ids"][0]
    assert processor.tokenizer.decode(ids).count("Yes.") == 1


def test_questions_and_pictures_must_agree_in_number(processor):
    with pytest.raises(ValueError, match="for 3 pictures, but there are 2"):
        processor(images=random_pictures(2), text=["a", "b", "c"])
    with pytest.raises(ValueError, match="image"):
        processor(text="a")
    with pytest.raises(ValueError, match="do_resize"):
        processor(images=random_pictures(1), do_resize=False)


def test_batch_pads_on_the_side_that_is_asked_for(processor):
    pictures = [Image.new("RGB", (64, 64)), Image.new("RGB", (120, 56))]
    left, right = (processor(images=pictures, padding_side=side) for side in ("left", "right"))
    assert left["input_ids"].shape == right["input_ids"].shape
    assert left["attention_mask"].sum(1).unique().numel() == 2
    assert left["attention_mask"][:, -1].all()
    assert right["attention_mask"][:, 0].all()
    for index in range(2):
        rows = [part["input_ids"][index][part["attention_mask"][index].bool()] for part in (left, right)]
        assert torch.equal(*rows)


def test_no_chat_template_is_an_error(processor):
    stock = copy.deepcopy(processor.stock)
    stock.chat_template = stock.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="chat template"):
        ChatVlmProcessor(stock)


def test_no_image_token_is_an_error(processor):
    stock = copy.deepcopy(processor.stock)
    stock.image_token = stock.image_token_id = None
    with pytest.raises(ValueError, match="image token"):
        ChatVlmProcessor(stock)


@pytest.mark.parametrize("part", ["tokenizer", "image_processor"])
def test_half_a_processor_is_an_error(processor, part):
    stock = copy.copy(processor.stock)
    setattr(stock, part, None)
    with pytest.raises(ValueError, match=part):
        ChatVlmProcessor(stock)


def test_a_template_that_leaves_out_the_picture_is_an_error(processor):
    stock = copy.deepcopy(processor.stock)
    whole = stock.chat_template
    stock.chat_template = whole.replace(stock.image_token, "")
    with pytest.raises(ValueError, match="image"):
        ChatVlmProcessor(stock)
    stock.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}{{ part['text'] }}"
        "{% endfor %}\n{% endfor %}"
    )
    with pytest.raises(ValueError, match="image"):
        ChatVlmProcessor(stock)


def test_a_template_that_trains_otherwise_than_it_asks_is_an_error(processor):
    stock = copy.deepcopy(processor.stock)
    stock.chat_template += "{% if add_generation_prompt %}{{ 'thoughts:' }}{% endif %}"
    with pytest.raises(ValueError, match="thoughts:"):
        ChatVlmProcessor(stock).encode_conversations([CONVERSATION], random_pictures(1))


def test_a_folder_without_pictures_is_an_error(processor, tmp_path):
    processor.tokenizer.save_pretrained(tmp_path)
    with pytest.raises((ValueError, OSError)):
        ChatVlmProcessor.from_pretrained(tmp_path)
