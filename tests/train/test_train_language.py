"""A language model on a data set's own words, and M2F2-Det's base on top of it."""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from support.ddvqa_tree import stems, write_tree
from support.pictures import random_pictures
from support.tiny_models import m2f2_det, tiny_m2f2_det

pytest.importorskip("trl")
pytest.importorskip("datasets")

from deepfake_detectors.modeling.prompting_m2f2_det import VICUNA_SYSTEM, inference_prompt
from deepfake_detectors.train import mini_base, train_language
from deepfake_detectors.train.train_language import CLI_SHARE, HINT_SHARE, MAX_TURNS, conversation_texts

ROWS = [
    {
        "video_id": video,
        "label": label,
        "question": f"Question {number}?",
        "answers": [f"Answer {number}a.", f"Answer {number}b."],
    }
    for video, label in (("v1", 0), ("v2", 1))
    for number in range(5)
]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_texts_ask_every_question_of_every_picture_once_a_pass():
    texts = list(conversation_texts([*ROWS, *ROWS], passes=3, seed=0))
    for number in range(5):
        assert sum(text.count(f"Question {number}?") for text in texts) == 2 * 3
    answered = "".join(texts)
    assert all(f"Answer {number}{letter}.</s>" in answered for number in range(5) for letter in "ab")
    assert max(text.count("</s>") for text in texts) == MAX_TURNS
    assert texts == list(conversation_texts(ROWS, passes=3, seed=0))
    assert texts != list(conversation_texts(ROWS, passes=3, seed=1))


def test_hints_name_the_label_where_the_picture_will_stand():
    texts = list(conversation_texts(ROWS, passes=60, seed=0))
    assert not any("<image>" in text or "<deepfake>" in text for text in texts)
    first = VICUNA_SYSTEM + " USER: "
    hints = [text.removeprefix(first).split("\n\n\n")[0] for text in texts if text.startswith(first) and "\n" in text]
    assert set(hints) == {"The image is real.", "The image is fake."}
    evaluation = [text for text in texts if not text.startswith(first)]
    assert abs(len(evaluation) / len(texts) - CLI_SHARE) < 0.05
    said = sum("The image is " in text for text in texts)
    assert abs(said / len(texts) - HINT_SHARE) < 0.1
    head, tail = inference_prompt("Question 3?").split("<image>\n<deepfake>")
    assert any(text == f"{head}The image is fake.{tail} Answer 3b.</s>" for text in evaluation)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("ddvqa"), stems(range(6)), stems(range(10, 11)))


def train(data, output, *options):
    train_language.main(
        ["--output_dir", str(output), "--data_dir", str(data), "--validation_fraction", "0.3", "--passes", "4",
         "--vocabulary", "600", "--model_config", json.dumps(SIZES), "--num_train_epochs", "6",
         "--per_device_train_batch_size", "8", "--use_cpu",
         "--learning_rate", "1e-2", "--report_to", "none", "--save_strategy", "no", "--logging_steps", "1", *options]
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def language(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("language") / "model")


@pytest.mark.slow
def test_it_learns_to_write_what_the_data_say(language):
    report = json.loads((language / "validation.json").read_text())
    assert report["metrics"]["perplexity"] < 3
    tokenizer, model = AutoTokenizer.from_pretrained(language), AutoModelForCausalLM.from_pretrained(language)
    prompt = f"{VICUNA_SYSTEM} USER: The image is fake.\n\n\nDo the image looks real or fake? ASSISTANT:"
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    new = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True).strip() == "The image looks fake."


def test_nothing_it_leaves_or_would_publish_is_a_pickle(language, data, tmp_path):
    assert {path.suffix for path in language.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".jinja"}
    with pytest.raises(ValueError, match=r"'every_save'.*'end'"):
        train(data, tmp_path / "pushed", "--push_to_hub", "--hub_strategy", "every_save")
    assert not (tmp_path / "pushed").exists()


def test_base_holds_the_language_model_and_the_detector(language, tmp_path):
    source = tiny_m2f2_det(tmp_path / "detector")
    mini_base.main(
        ["m2f2_det", "--output", str(tmp_path / "base"), "--detector", str(source), "--language_model", str(language)]
    )
    whole = AutoModel.from_pretrained(tmp_path / "base").eval()
    assert str(language) not in (tmp_path / "base" / "config.json").read_text(), "a folder of this machine"
    assert whole.generation_config.use_cache, "every token would cost a pass over the whole prompt"
    processor = AutoProcessor.from_pretrained(tmp_path / "base")
    alone, tokenizer = AutoModelForCausalLM.from_pretrained(language).eval(), AutoTokenizer.from_pretrained(language)
    text = "The skin looks fake.\nIs it?"
    ids = torch.tensor([tokenizer(text).input_ids])
    assert processor.token_ids(text) == ids[0].tolist()
    expected = alone(input_ids=ids).logits
    found = whole.lm_head(whole.model.language_model(input_ids=ids).last_hidden_state)
    assert torch.allclose(found[..., : len(tokenizer)], expected, atol=1e-5)
    pixels = processor(images=random_pictures(2))["pixel_values"]
    assert torch.allclose(whole.detect(pixels).logits, m2f2_det().detect(pixels).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset_configs", "c40"], "ddvqa c40 "),
        (["--passes", "0"], "passes is 0"),
        (["--dataset_config", "c40_judge"], "'c40_judge'.*dataset_configs"),
        (["--dataset_options", '{"questions": "sung"}'], "questions is 'sung'"),
    ],
)
def test_wrong_settings_are_named(data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train(data, tmp_path / "model", *options)
    assert not (tmp_path / "model").exists()
