"""FakeVLM's processor: prompts, counting, training batches, TRL, and pictures as users have them."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPImageProcessor, pipeline

from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.prompting_fakevlm import CHAT_TEMPLATES, PROMPT_STYLES, build_prompt, training_text
from support.fakevlm_folders import convert_fakevlm
from support.golden_files import golden_folder
from support.pictures import random_pictures
from support.tiny_models import fakevlm, fakevlm_processor, fakevlm_tokenizer, tiny_fakevlm

FOLDER = golden_folder("fakevlm")
RECORDS = json.loads((FOLDER / "records.json").read_text())["records"]


@pytest.fixture(scope="module")
def processor():
    return fakevlm_processor()


@pytest.fixture(scope="module")
def pictures():
    return random_pictures(3)


# prompts


def test_raw_leaves_a_record_unchanged():
    assert build_prompt("<image>\nReal?", "raw") == "<image>\nReal?"
    assert build_prompt("Real?", "raw") == "<image>Real?"


@pytest.mark.parametrize("style", ["hf_chat", "vicuna_v1"])
@pytest.mark.parametrize("question", ["<image>Real?", "Real? <image>", "<image>\nReal?", "Real?"])
def test_chat_styles_move_the_picture_to_the_front(style, question):
    assert build_prompt(question, style).endswith("USER: <image>\nReal? ASSISTANT:")


def test_prompt_errors():
    with pytest.raises(ValueError, match="'chat', allowed are 'raw', 'hf_chat', 'vicuna_v1'"):
        build_prompt("Real?", "chat")
    with pytest.raises(ValueError, match="<image> 2 times"):
        build_prompt("<image><image>", "raw")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([("system", "x")], "'system', allowed are 'human'"),
        ([("gpt", "x")], "the human first"),
        ([("human", "x"), ("human", "y")], "must alternate"),
        ([("human", "x")], "answer"),
    ],
)
def test_conversation_errors(turns, message):
    with pytest.raises(ValueError, match=message):
        training_text([{"from": who, "value": value} for who, value in turns], "hf_chat")


# counting


def test_pictures_alone_need_no_text(processor, pictures):
    data = processor(images=pictures)
    assert set(data) == {"pixel_values"} and data["pixel_values"].shape == (3, 3, 56, 56)
    assert processor(images=pictures[0])["pixel_values"].shape == (1, 3, 56, 56)


def test_prompts_are_padded_on_the_left(processor, pictures):
    data = processor(images=pictures[:2], text=["<image>Real?", "<image>Is it real or is it fake?"])
    assert data["attention_mask"][:, -1].tolist() == [1, 1]
    assert data["input_ids"][0, 0] == processor.tokenizer.pad_token_id
    assert ((data["input_ids"] == processor.image_token_id).sum(1) == processor.num_image_tokens).all()


@pytest.mark.parametrize(
    ("texts", "count", "message"),
    [
        (["Real?"], 1, r"\b0 <image>.*\b1 "),
        (["<image><image>Real?"], 1, r"\b2 <image>.*\b1 "),
        (["<image>Real?"], 2, r"\b1 <image>.*\b2 "),
        (["<image><image>Real?"], 2, r"\b2 <image>.*'<image><image>Real"),
        (["<image>Real?"], 0, r"\b1 <image>.*\b0 "),
    ],
)
def test_zero_or_two_pictures_for_one_prompt(processor, texts, count, message):
    with pytest.raises(ValueError, match=message):
        processor(images=random_pictures(count) or None, text=texts)


def test_nothing_at_all(processor):
    with pytest.raises(ValueError, match="images, text or both"):
        processor()


def test_text_without_pictures(processor):
    assert processor(text="Real?")["input_ids"].shape[0] == 1


# construction and folders


def test_a_wrong_count_in_the_folder_is_put_right(processor, tmp_path, pictures):
    """transformers writes num_additional_image_tokens=0 into folders whose CLIP has a CLS token."""
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_additional_image_tokens": 0}))
    loaded = AutoProcessor.from_pretrained(tmp_path)
    ids = loaded(images=pictures[0], text="<image>")["input_ids"][0].tolist()
    assert ids.count(loaded.image_token_id) == 16


@pytest.mark.parametrize("aspect", ["crop", "pad"])
def test_save_equals_load(aspect, tmp_path, pictures):
    own = fakevlm_processor(image_aspect=aspect, prompt_style="vicuna_v1", question="Real?")
    own.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert (loaded.image_aspect, loaded.prompt_style, loaded.question) == (aspect, "vicuna_v1", "Real?")
    assert loaded.explanation_prompt() == own.explanation_prompt()
    assert loaded.chat_template == own.chat_template == CHAT_TEMPLATES["vicuna_v1"]
    assert torch.equal(loaded(images=pictures)["pixel_values"], own(images=pictures)["pixel_values"])


def test_both_routes_differ_on_long_pictures_only(pictures):
    crop, pad = fakevlm_processor(image_aspect="crop"), fakevlm_processor(image_aspect="pad")
    square = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8))
    assert torch.equal(crop(images=square)["pixel_values"], pad(images=square)["pixel_values"])
    assert not torch.allclose(crop(images=pictures)["pixel_values"], pad(images=pictures)["pixel_values"])


def test_mixed_shapes_in_one_batch(processor):
    shapes = [(20, 200), (200, 20), (56, 56), (1, 1)]
    pictures = [Image.new("RGB", shape, "red") for shape in shapes]
    together = processor(images=pictures)["pixel_values"]
    alone = torch.cat([processor(images=picture)["pixel_values"] for picture in pictures])
    assert torch.equal(together, alone)


def test_another_image_processor_gives_its_settings(pictures):
    side = {"height": 28, "width": 28}
    clip = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=side, image_mean=[0.5] * 3)
    processor = FakeVLMProcessor(clip, fakevlm_tokenizer())
    assert type(processor.image_processor) is FakeVLMImageProcessor
    assert processor.image_processor.image_mean == (0.5, 0.5, 0.5)
    pixels = processor(images=pictures)["pixel_values"]
    assert pixels.shape[-1] == 28
    assert torch.allclose(pixels, clip(pictures, return_tensors="pt")["pixel_values"], atol=0.05)


def test_construction_errors():
    image_processor = fakevlm_processor().image_processor
    bare = fakevlm_tokenizer()
    bare._tokenizer = type(bare._tokenizer).from_str(
        json.dumps({**json.loads(bare._tokenizer.to_str()), "added_tokens": []})
    )
    with pytest.raises(ValueError, match=r"add_tokens\(\['<image>'\]"):
        FakeVLMProcessor(image_processor, bare)
    with pytest.raises(ValueError, match="'square', allowed are 'crop', 'pad'"):
        fakevlm_processor(image_aspect="square")
    with pytest.raises(ValueError, match="allowed are 'raw'"):
        fakevlm_processor(prompt_style="chat")


# training


def test_max_length_may_not_cut_what_training_needs(processor, pictures):
    turns = [{"from": "human", "value": "<image>Real?"}, {"from": "gpt", "value": "This is a real image."}]
    whole = processor.encode_conversations([turns], pictures[:1])["input_ids"].shape[1]
    assert (
        processor.encode_conversations([turns], pictures[:1], max_length=whole - 3)["input_ids"].shape[1] == whole - 3
    )
    for limit in (10, whole - 12):
        with pytest.raises(ValueError, match=f"max_length={limit} "):
            processor.encode_conversations([turns], pictures[:1], max_length=limit)
    with pytest.raises(ValueError, match="needs a max_length"):
        processor.encode_conversations([turns], pictures[:1], pad_to_max_length=True)


def test_padding_to_the_longest_has_the_same_loss(processor, pictures):
    model = fakevlm()
    conversations = [record["conversations"] for record in RECORDS]
    short = processor.encode_conversations(conversations, pictures)
    long = processor.encode_conversations(conversations, pictures, max_length=250, pad_to_max_length=True)
    assert short["input_ids"].shape[1] < long["input_ids"].shape[1] == 250
    with torch.no_grad():
        assert torch.allclose(model(**short).loss, model(**long).loss, atol=1e-5)


def conversations_for_trl(record):
    question, answer = (turn["value"] for turn in record["conversations"])
    question = question.replace("<image>", "").strip()
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_trl_collator_makes_the_official_batch(style, tmp_path):
    """Assistant-only loss on the chat template: the ids and labels of the official collators."""
    collators = pytest.importorskip("trl.trainer.sft_trainer")
    folder = convert_fakevlm(FOLDER, tmp_path / "converted", prompt_style=style)
    processor = AutoProcessor.from_pretrained(folder)
    raw = load_file(FOLDER / "preprocess.safetensors")
    pictures = [Image.fromarray(raw[record["image"]].numpy()) for record in RECORDS]
    collate = collators.DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    rows = [
        {"images": [picture], "messages": conversations_for_trl(record)}
        for picture, record in zip(pictures, RECORDS, strict=True)
    ]
    batch = collate(rows)
    ours = processor.encode_conversations([record["conversations"] for record in RECORDS], pictures)
    for name in ("input_ids", "attention_mask", "labels", "pixel_values"):
        assert torch.equal(batch[name], ours[name]), name
    if style != "vicuna_v1":
        golden = load_file(FOLDER / "collator.safetensors")
        length = min(batch["input_ids"].shape[1], golden["collator.input_ids"].shape[1])
        for name in ("input_ids", "labels"):
            assert torch.equal(batch[name][:, :length], golden[f"collator.{name}"][:, :length])


def test_generation_prompt_of_the_template_is_the_chat_prompt():
    processor = fakevlm_processor(prompt_style="hf_chat")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Real?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text == f"<s>{build_prompt('Real?', 'hf_chat')}"


# pictures as users have them


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return pipeline("deepfake-detection", model=str(tiny_fakevlm(tmp_path_factory.mktemp("fakevlm"))))


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_odd_pictures_are_judged(judge, pictures):
    first = pictures[0]
    plain = judge(first)["fake_probability"]
    turned = first.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    deep = Image.fromarray((np.asarray(first.convert("L")).astype(np.uint16)) * 257)
    animated = encoded(
        first.quantize(), "GIF", save_all=True, append_images=[pictures[1].resize(first.size).quantize()]
    )
    assert judge(encoded(turned, "PNG", exif=exif))["fake_probability"] == pytest.approx(plain, abs=1e-6)
    assert judge(encoded(deep, "PNG")) == judge(encoded(first.convert("L"), "PNG"))
    assert judge(animated) == judge(encoded(first.quantize(), "GIF"))
    assert judge(encoded(first.convert("CMYK"), "TIFF"))["label"] in ("real", "fake")
    assert judge(Image.new("RGB", (1, 1), "red"))["label"] in ("real", "fake")
