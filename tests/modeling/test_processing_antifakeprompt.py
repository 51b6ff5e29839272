"""AntifakePrompt's processor: the learned word in both tokenizers, padding, answers, and pictures of every kind."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoProcessor, pipeline

from deepfake_detectors.modeling.configuration_antifakeprompt import PROMPTS
from deepfake_detectors.modeling.image_processing_antifakeprompt import IMAGE_STATISTICS, AntifakePromptImageProcessor
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor, add_soft_word
from support.pictures import random_pictures
from support.tiny_models import (
    QUERIES,
    SIZE,
    antifakeprompt_processor,
    llm_tokenizer,
    qformer_tokenizer,
    tiny_antifakeprompt,
)


@pytest.fixture(scope="module")
def processor():
    return antifakeprompt_processor()


def pieces(processor, text):
    return processor.tokenizer.convert_ids_to_tokens(processor.llm_ids(text))


# the learned word


@pytest.mark.parametrize(
    ("position", "llm", "qformer"),
    [
        ("postfix", "▁Is ▁this ▁photo ▁real [*] ▁ ?", "is this photo real [*] ?"),
        ("prefix", "[*] ▁Is ▁this ▁photo ▁real ?", "[*] is this photo real ?"),
        ("replace", "▁Is ▁this ▁photo [*] ▁ ?", "is this photo [*] ?"),
    ],
)
def test_pieces_of_the_training(processor, position, llm, qformer):
    text = PROMPTS[position]
    assert pieces(processor, text) == ["</s>", *llm.split()]
    found = processor.qformer_tokenizer.convert_ids_to_tokens(processor.qformer_ids(text))
    assert found == ["[CLS]", *qformer.split(), "[SEP]"]


def test_blanks_beside_the_word_change_nothing(processor):
    assert len({tuple(processor.llm_ids(t)) for t in ("real [*]?", "real[*]?", "real  [*] ?")}) == 1


def test_a_word_that_keeps_its_blanks_is_refused():
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    tokenizer.add_tokens([AddedToken("[*]", normalized=False, special=True)], special_tokens=True)
    add_soft_word(tokenizer, question)
    with pytest.raises(ValueError, match=r"'▁', '\[\*\]'.*soft_word_strip=False"):
        AntifakePromptProcessor(AntifakePromptImageProcessor(), tokenizer, question)
    loose = AntifakePromptProcessor(AntifakePromptImageProcessor(), tokenizer, question, soft_word_strip=False)
    assert "▁" in pieces(loose, PROMPTS["postfix"])


def test_llamas_newer_tokenization_is_refused():
    tokenizer, question = llm_tokenizer(legacy=False), qformer_tokenizer()
    add_soft_word(tokenizer, question)
    with pytest.raises(ValueError, match="legacy"):
        AntifakePromptProcessor(AntifakePromptImageProcessor(), tokenizer, question)


def test_a_tokenizer_without_the_word_is_refused():
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    with pytest.raises(ValueError, match="add_soft_word"):
        AntifakePromptProcessor(AntifakePromptImageProcessor(), tokenizer, question)


def test_known_tokens_keep_their_ids():
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    before = tokenizer.convert_tokens_to_ids("<image>")
    add_soft_word(tokenizer, question)
    assert tokenizer.convert_tokens_to_ids("<image>") == before
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "[PAD]", "[*]")]
    assert len(set(ids)) == 3


# batches


def test_picture_alone_and_with_text(processor):
    alone = processor(images=random_pictures(2))
    assert set(alone) == {"pixel_values"} and alone["pixel_values"].shape == (2, 3, SIZE, SIZE)
    both = processor(images=random_pictures(2), text=[PROMPTS["postfix"], PROMPTS["replace"]])
    assert both["input_ids"].shape == both["attention_mask"].shape
    assert both["qformer_input_ids"].shape == both["qformer_attention_mask"].shape
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (both["input_ids"][:, :QUERIES] == image).all() and (both["input_ids"] == image).sum() == 2 * QUERIES


def test_padding_stands_between_pictures_and_text(processor):
    texts = [PROMPTS["postfix"], PROMPTS["replace"]]
    left, right = processor.tokenize(texts, "left"), processor.tokenize(texts, "right")
    assert left["attention_mask"][1, QUERIES] == 0 and left["attention_mask"][1, :QUERIES].all()
    assert right["attention_mask"][1, -1] == 0
    assert torch.equal(
        left["input_ids"][1][left["attention_mask"][1].bool()],
        right["input_ids"][1][right["attention_mask"][1].bool()],
    )
    with pytest.raises(ValueError, match="'left', 'right'"):
        processor.tokenize(texts, "middle")


@pytest.mark.parametrize(("count", "message"), [(0, r"^1 .*\b0 "), (2, r"^1 .*\b2 ")])
def test_zero_or_two_pictures_for_one_question(processor, count, message):
    with pytest.raises(ValueError, match=message):
        processor(images=random_pictures(count), text=PROMPTS["postfix"])


def test_nothing_is_refused(processor):
    with pytest.raises(ValueError, match="images, text or both"):
        processor()


@pytest.mark.parametrize("text", ["Is this photo real?", "[*] Is this [*]?"])
def test_a_question_without_the_word_is_refused(processor, text):
    with pytest.raises(ValueError, match="require_soft_word=False"):
        processor(text=text)
    assert processor(text=text, require_soft_word=False)["input_ids"].shape[0] == 1


def test_a_long_question_is_refused(processor):
    with pytest.raises(ValueError, match="max_text_length=128"):
        processor.tokenize(["Is this photo real " * 50])


def test_answers_stand_behind_their_questions(processor):
    batch = processor.encode_answers([PROMPTS["postfix"], PROMPTS["replace"]], ["no", "not sure"])
    for row, (text, answer) in enumerate(
        zip((PROMPTS["postfix"], PROMPTS["replace"]), ("no", "not sure"), strict=True)
    ):
        start = QUERIES + len(processor.llm_ids(text))
        expected = [*processor.answer_ids(answer), processor.tokenizer.eos_token_id]
        assert batch["input_ids"][row, start : start + len(expected)].tolist() == expected
        assert batch["labels"][row][batch["labels"][row] != -100].tolist() == expected
        assert (batch["labels"][row, :start] == -100).all()
    with pytest.raises(ValueError, match="1 questions but 2 answers"):
        processor.encode_answers([PROMPTS["postfix"]], ["yes", "no"])
    with pytest.raises(ValueError, match=r"^1 .*\b2 "):
        processor.encode_answers([PROMPTS["postfix"]], ["yes"], images=random_pictures(2))
    with pytest.raises(ValueError, match="no tokens"):
        processor.answer_ids("")


def test_the_verdict_stands_in_the_own_question(processor):
    assert "fake" in processor.explanation_prompt(verdict="fake")
    assert processor.explanation_prompt("Why?", verdict="fake") == "Why?"
    with pytest.raises(ValueError, match="verdict"):
        processor.explanation_prompt()


def test_one_sided_words_have_no_other_questions():
    processor = antifakeprompt_processor(soft_word_sides="llm")
    assert processor.soft_word not in processor.qformer_tokenizer.decode(processor.qformer_ids(processor.prompt))
    with pytest.raises(ValueError, match=r"soft_word_sides='llm'.*What about the eyes"):
        processor.qformer_ids("What about the eyes [*]?")


def test_save_equals_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)  # no config.json beside it
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is AntifakePromptProcessor
    assert loaded.prompt_fields() == processor.prompt_fields()
    picture = random_pictures(1)
    assert torch.equal(loaded(images=picture)["pixel_values"], processor(images=picture)["pixel_values"])


# pictures


def test_statistics_follow_the_checkpoint(tmp_path):
    for name, (mean, std) in IMAGE_STATISTICS.items():
        AntifakePromptImageProcessor(image_mean=mean, image_std=std).save_pretrained(tmp_path / name)
        loaded = AntifakePromptImageProcessor.from_pretrained(tmp_path / name)
        black = loaded(Image.new("RGB", (300, 260)), return_tensors="np")["pixel_values"][0, :, 0, 0]
        assert black == pytest.approx(-np.array(mean) / np.array(std), abs=1e-5)


def test_wrong_crops_are_refused():
    with pytest.raises(ValueError, match="'half_even', 'floor'"):
        AntifakePromptImageProcessor(crop_rounding="up")
    small = AntifakePromptImageProcessor(size={"shortest_edge": 10})
    with pytest.raises(ValueError, match=r"224x224.*10x15"):
        small(random_pictures(1), return_tensors="pt")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return pipeline("deepfake-detection", model=str(tiny_antifakeprompt(tmp_path_factory.mktemp("judge"))))


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_odd_pictures_are_judged(judge):
    """As a user would expect: the same as the RGB picture that they show."""
    picture = random_pictures(1)[0]
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by a quarter
    frames = [picture.convert("P"), Image.new("P", picture.size)]
    wide = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    cases = {
        "gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), frames[0].convert("RGB")),
        "exif": (
            encoded(picture, "PNG", exif=turned.tobytes()),
            picture.transpose(Image.Transpose.ROTATE_270),
        ),
        "16 bit": (encoded(Image.fromarray(wide), "PNG"), picture.convert("L").convert("RGB")),
        "1x1": (encoded(Image.new("RGB", (1, 1), "red"), "PNG"), Image.new("RGB", (80, 80), "red")),
    }
    for name, (data, shown) in cases.items():
        assert judge(data)["fake_probability"] == pytest.approx(judge(shown)["fake_probability"], abs=1e-5), name
    cmyk = encoded(picture.convert("CMYK"), "JPEG")
    decoded = Image.open(io.BytesIO(cmyk)).convert("RGB")
    assert judge(cmyk)["fake_probability"] == pytest.approx(judge(decoded)["fake_probability"], abs=1e-5)


def test_pipeline_batches_mixed_aspect_ratios_and_explains(judge):
    pictures = [Image.new("RGB", size, color) for size, color in (((90, 60), "red"), ((40, 120), "blue"))]
    pictures += random_pictures(2)
    options = {"explain": True, "generate_kwargs": {"max_new_tokens": 5, "num_beams": 2}}
    rows = judge(pictures, batch_size=4, **options)
    alone = [judge(picture, **options) for picture in pictures]
    assert [row["explanation"] for row in rows] == [row["explanation"] for row in alone]
    assert [row["fake_probability"] for row in rows] == pytest.approx([r["fake_probability"] for r in alone], abs=1e-4)
    asked = judge(pictures[0], **{**options, "question": "What about the eyes?"})
    assert isinstance(asked["explanation"], str)


def test_pipeline_in_half_precision(tmp_path):
    judge = pipeline("deepfake-detection", model=str(tiny_antifakeprompt(tmp_path)), dtype=torch.bfloat16)
    assert judge.model.dtype == torch.bfloat16
    assert 0 <= judge(random_pictures(1)[0])["fake_probability"] <= 1
