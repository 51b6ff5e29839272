"""M2F2-Det's processor: markers, prompts, labels and pictures."""

import pytest
import torch
from transformers import AutoProcessor

from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_m2f2_det import training_prompt
from support.pictures import random_pictures
from support.tiny_models import m2f2_det_processor, tiny_tokenizer, verdict_processor

PROMPT = "Look: <image>\n<deepfake>\nIs it real?"


@pytest.fixture(scope="module")
def processor():
    return m2f2_det_processor()


def test_one_marker_becomes_one_token_per_patch(processor):
    ids = processor.token_ids(PROMPT)
    image, deepfake = processor.tokenizer.convert_tokens_to_ids(["<image>", "<deepfake>"])
    assert ids.count(image) == processor.image_seq_length == 16
    assert ids.count(deepfake) == 1
    assert ids[0] == processor.tokenizer.bos_token_id


def test_pieces_are_tokenised_as_if_alone(processor):
    before, between, after = "Look: ", "\n", "\nIs it real?"
    pieces = [processor.tokenizer(piece, add_special_tokens=False).input_ids for piece in (before, between, after)]
    image, deepfake = processor.tokenizer.convert_tokens_to_ids(["<image>", "<deepfake>"])
    bos = processor.tokenizer.bos_token_id
    assert processor.token_ids(PROMPT) == [bos, *pieces[0], *[image] * 16, *pieces[1], deepfake, *pieces[2]]


def test_the_plain_word_deepfake_is_only_a_word(processor):
    prompt = processor.explanation_prompt("Is this a deepfake image?")
    assert processor.token_ids(prompt).count(processor.tokenizer.convert_tokens_to_ids("<deepfake>")) == 1
    assert processor(images=random_pictures(1), text=prompt)["input_ids"].shape[0] == 1


@pytest.mark.parametrize(
    ("prompts", "pictures", "message"),
    [
        (["Is it real?"], 1, r"\b0 <image>.*\b1 "),
        (["<image> Is it real?"], 1, "1 <image> and 0 <deepfake>"),
        (["<image><image><deepfake> Is it real?"], 1, "2 <image> and 1 <deepfake>"),
        (["<image><image><deepfake><deepfake> Is it real?"], 1, r"\b2 <image>.*\b1 "),
        ([PROMPT], 2, r"\b1 <image>.*\b2 "),
        ([PROMPT, PROMPT], 1, r"\b2 <image>.*\b1 "),
        ([PROMPT], 0, r"\b1 <image>.*\b0 "),
    ],
)
def test_markers_and_pictures_must_agree(processor, prompts, pictures, message):
    with pytest.raises(ValueError, match=message):
        processor(images=random_pictures(pictures) or None, text=prompts)


def test_a_question_may_not_hold_markers(processor):
    with pytest.raises(ValueError, match="<image>"):
        processor.explanation_prompt("What is <image>?")
    with pytest.raises(ValueError, match="verdict"):
        processor.explanation_prompt()
    with pytest.raises(ValueError, match="images, text or both"):
        processor()


def test_called_as_every_processor_of_transformers(processor):
    prompt = processor.explanation_prompt("Is it real?")
    batch = processor(text=[prompt], images=random_pictures(1), padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], processor(images=random_pictures(1), text=prompt)["input_ids"])
    bare = processor(text=[prompt], images=random_pictures(1), add_special_tokens=False)
    assert torch.equal(bare["input_ids"], batch["input_ids"][:, 1:])
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": random_pictures(1)[0]}, {"type": "text", "text": "Q?"}],
        }
    ]
    chat = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    assert chat["pixel_values"].shape[0] == 1 and chat["input_ids"].shape[0] == 1
    for refused in ({"videos": [1]}, {"truncation": True}, {"max_length": 4}, {"padding": "max_length"}):
        with pytest.raises(ValueError, match="leave"):
            processor(text=[prompt], images=random_pictures(1), **refused)


def test_text_only(processor):
    assert set(processor(text="Hello")) == {"input_ids", "attention_mask"}


def test_padding_sides(processor):
    left, right = (
        processor(text=["Hello", "Hello, this is longer"], padding_side=side)["attention_mask"]
        for side in ("left", "right")
    )
    assert left[0, 0] == 0 and left[0, -1] == 1
    assert right[0, 0] == 1 and right[0, -1] == 0
    with pytest.raises(ValueError, match="'left', 'right'"):
        processor(text="Hello", padding_side="up")


def test_pad_mode_gives_the_cnn_the_crop():
    image_processor = verdict_processor().image_processor
    image_processor.do_pad = True
    processor = M2F2DetProcessor(image_processor, tiny_tokenizer(), image_seq_length=16)
    wide, square = random_pictures(2)[0].resize((90, 50)), random_pictures(2)[0].resize((60, 60))
    data = processor(images=[wide, square])
    assert data["pixel_values"].shape == data["detector_pixel_values"].shape == (2, 3, 56, 56)
    assert not torch.equal(data["pixel_values"][0], data["detector_pixel_values"][0])
    assert torch.equal(data["pixel_values"][1], data["detector_pixel_values"][1])
    plain = verdict_processor()(images=[wide], return_tensors="pt")["pixel_values"]
    assert torch.equal(data["detector_pixel_values"][:1], plain)


def test_prompt_styles(processor, tmp_path):
    vicuna = m2f2_det_processor(prompt_style="vicuna_v1", newline_compat=False)
    assert "USER: <image>\n<deepfake>\nQ? ASSISTANT:" in vicuna.explanation_prompt("Q?")
    assert "###Human: <image>\n<deepfake>\nQ? ###Assistant:" in processor.explanation_prompt(" Q? ")
    assert "fake" in processor.explanation_prompt(verdict="fake")
    vicuna.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").exists()
    M2F2DetConfig(text_config={"vocab_size": 400}).save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.explanation_prompt("Q?") == vicuna.explanation_prompt("Q?")
    with pytest.raises(ValueError, match="'official_cli', 'vicuna_v1'"):
        m2f2_det_processor(prompt_style="llama")


def test_tokenizer_without_markers_is_refused():
    with pytest.raises(ValueError, match=r"<image>.*tokenizer\.add_tokens"):
        M2F2DetProcessor(verdict_processor().image_processor, tiny_tokenizer(markers=False))


def test_chat_template_is_the_training_template(processor):
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it real?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "The image is fake."}]},
    ]
    official = [
        {"from": "human", "value": "<image>\n<deepfake>\nIs it real?"},
        {"from": "gpt", "value": "The image is fake."},
    ]
    assert processor.apply_chat_template(conversation) == training_prompt(official)[0]


TWO_TURNS = [
    {"from": "human", "value": "<image>\n<deepfake>\nSkin?"},
    {"from": "gpt", "value": "It is smooth."},
    {"from": "human", "value": "Is it real?"},
    {"from": "gpt", "value": "It is fake."},
]


def test_only_answers_are_supervised(processor):
    batch = processor.encode_conversations([TWO_TURNS], random_pictures(1))
    learned = batch["labels"][0][batch["labels"][0] != -100]
    assert processor.tokenizer.decode(learned).replace(" ", "") == "Itissmooth.</s>Itisfake.</s>"
    assert torch.equal(learned, batch["input_ids"][0][batch["labels"][0] != -100])


def test_max_length(processor):
    whole = processor.encode_conversations([TWO_TURNS], random_pictures(1))["input_ids"].shape[1]
    batch = processor.encode_conversations([TWO_TURNS], random_pictures(1), max_length=whole - 3)
    assert {batch[name].shape[1] for name in ("input_ids", "labels", "attention_mask")} == {whole - 3}
    with pytest.raises(ValueError, match="max_length=20 cuts off"):
        processor.encode_conversations([TWO_TURNS], random_pictures(1), max_length=20)


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([{"from": "system", "value": "x"}], "'system'"),
        ([{"from": "gpt", "value": "x"}], "alternate"),
        ([{"from": "human", "value": "x"}], "answer"),
        ([{"from": "human", "value": "<image><image><deepfake> x"}], "2 <image> markers"),
        ([{"from": "human", "value": "<image><deepfake><deepfake> x"}], "2 <deepfake> markers"),
    ],
)
def test_bad_conversations(conversation, message):
    with pytest.raises(ValueError, match=message):
        training_prompt(conversation)


def test_named_questions(processor):
    demo = processor.explanation_prompt("demo")
    assert demo == processor.explanation_prompt("Determine the authenticity of this image")
    assert processor.explanation_prompt("training") == processor.explanation_prompt("Do the image looks real or fake?")
