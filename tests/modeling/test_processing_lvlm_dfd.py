"""LVLM-DFD's processor: prompts, training rows, answers; pictures and masks."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from deepfake_detectors.modeling.processing_lvlm_dfd import QUESTION, LvlmDfdProcessor, score_sentence
from deepfake_detectors.modeling.verdict_parsing import parse_answer
from support.pictures import random_pictures
from support.tiny_models import SIZE, STOP, lvlm_dfd_processor, lvlm_image_processor


@pytest.fixture(scope="module")
def processor():
    return lvlm_dfd_processor()


# prompts


def test_parts_are_tokenised_alone(processor):
    inputs = processor.tokenize([processor.dialogue_prompt()])
    plain = processor.tokenizer
    start = [plain.bos_token_id, *plain("### Human: <Img>", add_special_tokens=False).input_ids]
    assert inputs["prompt_start_ids"].tolist() == start
    text = f"{QUESTION}\n### Assistant:"
    assert inputs["input_ids"][0].tolist() == plain(text, add_special_tokens=False).input_ids
    for percent in (0, 7, 56, 100):
        row = inputs["score_prompt_ids"][percent]
        sentence = f"</Img> According to deepfake prediction, the forgery score is {percent}%. "
        assert row[row >= 0].tolist() == plain(sentence, add_special_tokens=False).input_ids
    assert inputs["score_prompt_ids"].shape[0] == 101


@pytest.mark.parametrize(
    ("source", "texts", "word"), [("KFD", 1, "KFD"), ("by_batch", 1, "deepfake"), ("by_batch", 2, "KFD")]
)
def test_score_sources(source, texts, word):
    processor = lvlm_dfd_processor(score_source=source)
    row = processor.tokenize(["Fake?"] * texts)["score_prompt_ids"][42]
    assert row[row >= 0].tolist() == processor.token_ids(score_sentence(42, word))


def test_settings_survive_saving(tmp_path):
    processor = lvlm_dfd_processor(score_source="KFD", question="Fake?", legacy_trim=True)
    processor.tokenize(["Fake?"])  # fills the kept sentences, which are no setting
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is LvlmDfdProcessor
    assert (loaded.score_source, loaded.question, loaded.legacy_trim) == ("KFD", "Fake?", True)
    assert loaded.stop_token_id == STOP
    assert loaded.image_processor.size.height == SIZE
    assert "_score_ids" not in (tmp_path / "processor_config.json").read_text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p(), "needs images, text or both"),
        (lambda p: p(images=random_pictures(2), text=["Fake?"]), r"^1 .*\b2 "),
        (lambda p: p(text=["Fake?"], padding_side="middle"), "padding_side is 'middle'"),
        (lambda p: lvlm_dfd_processor(score_source="GAN"), "score_source is 'GAN'"),
        (lambda p: p.encode_conversations([[("Fake?", "Yes.")]], random_pictures(2)), "1 conversations"),
        (lambda p: p.encode_conversations([[("Fake?", "Yes.")]], random_pictures(1), max_length=4), "max_length=4"),
    ],
)
def test_wrong_calls_are_refused(processor, call, message):
    with pytest.raises(ValueError, match=message):
        call(processor)


# training rows


def test_only_answers_are_supervised(processor):
    conversation = [("Is it fake?", "Yes."), ("Where?", "The nose.")]
    batch = processor.encode_conversations([conversation, [("Fake?", "No.")]], random_pictures(2))
    turns = ["Is it fake?\n### Assistant:", "Yes.\n###", "Human: Where?\n### Assistant:", "The nose.\n###"]
    ids = [processor.token_ids(turn) for turn in turns]
    row = batch["attention_mask"][0].bool()
    assert batch["input_ids"][0][row].tolist() == [token for turn in ids for token in turn]
    expected = [-100] * len(ids[0]) + ids[1] + [-100] * len(ids[2]) + ids[3]
    assert batch["labels"][0][row].tolist() == expected
    padding = ~batch["attention_mask"][1].bool()
    assert padding.any() and not padding[0]  # on the right
    assert (batch["input_ids"][1][padding] == processor.tokenizer.eos_token_id).all()
    assert (batch["labels"][1][padding] == -100).all()


def test_rows_are_cut(processor):
    conversation = [("Is it fake?", "Yes. " * 50)]
    batch = processor.encode_conversations([conversation], random_pictures(1), max_length=60)
    assert batch["input_ids"].shape == (1, 60)


# answers


def test_answers_end_at_their_first_end(processor):
    words = processor.token_ids("Yes. The nose")
    newline = processor.token_ids("a\n")[-1]
    eos = processor.tokenizer.eos_token_id
    rows = [[*words, newline, STOP, *words], [*words, eos, eos, *words], [*words, *words]]
    length = max(map(len, rows))
    ids = torch.tensor([row + [eos] * (length - len(row)) for row in rows])
    text = processor.tokenizer.decode(words, skip_special_tokens=True).strip()
    answers = processor.decode_answers(ids)
    assert answers[:2] == [text, text]
    assert answers[2] == processor.tokenizer.decode(words + words, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes, this is a deepfake image.", "fake"),
        ("no, nothing is wrong", "real"),
        ("Yes, this is a deepfake image. No natural eye reflection is visible.", "fake"),
        ("Nose region looks manipulated in this deepfake.", "fake"),
        ("Another deepfake portrait.", "fake"),
        ("It is another pristine portrait.", "real"),
        ("It is notable that this deepfake has artifacts.", "fake"),
        ("The image is not pristine.", "fake"),
        ("This image is not a deepfake.", "real"),
        ("This isn't a deepfake.", "real"),
        ("The face looks fake.", "fake"),
        ("It is real, not a deepfake.", "real"),
        ("There is no sign of a deepfake.", "real"),
        ("It looks real but it is fake.", None),
        ("A surreal picture.", None),
        ("Nobody knows.", None),
        ("", None),
    ],
)
def test_robust_verdicts(text, verdict):
    assert parse_answer(text) == verdict


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode is 'strict'"):
        parse_answer("Yes.", "strict")


# pictures and masks


def test_float_arrays_equal_bytes():
    picture = np.asarray(random_pictures(1)[0])
    processor = lvlm_image_processor()
    as_bytes = processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor((picture / 255).astype(np.float32), return_tensors="pt")["pixel_values"], as_bytes)


@pytest.mark.parametrize("array", [np.full((9, 9, 3), 1.5), np.full((9, 9, 3), np.nan), np.full((9, 9, 3), 300)])
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="accepted are"):
        lvlm_image_processor()(array, return_tensors="pt")


def test_unknown_crop_mode_is_refused():
    with pytest.raises(ValueError, match="crop_mode is 'pad'"):
        lvlm_image_processor(crop_mode="pad")
    with pytest.raises(ValueError, match="crop_mode is 'pad'"):
        lvlm_image_processor()(random_pictures(1)[0], crop_mode="pad")


def mark(size, box):
    """A black picture with a white box."""
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), box)
    return picture


SIZES = [(120, 80), (80, 120), (61, 150), (33, 33), (56, 56), (223, 57)]


@pytest.mark.parametrize("mode", ["squash", "center_crop"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mask_goes_back_to_where_the_model_saw_it(mode, size):
    """What the processor shows the model, brought back as a mask, lies where it was."""
    processor = lvlm_image_processor(crop_mode=mode)
    width, height = size
    box = (int(0.4 * width), int(0.4 * height), int(0.6 * width), int(0.6 * height))
    picture = mark(size, box)
    seen = processor(picture, do_normalize=False, return_tensors="pt")["pixel_values"][0, 0]
    mask = processor.mask_to_picture(seen.clamp(0, 1), size)
    assert mask.mode == "L" and mask.size == size
    truth = np.asarray(picture.convert("L"), dtype=float) / 255
    found = np.asarray(mask, dtype=float) / 255
    rows, columns = np.indices(truth.shape)
    for axis, side in ((rows, height), (columns, width)):
        centre = [(axis * image).sum() / image.sum() for image in (truth, found)]
        assert abs(centre[0] - centre[1]) < 0.02 * side + 0.5
    assert found.sum() == pytest.approx(truth.sum(), rel=0.15)


def test_mask_is_zero_where_the_model_did_not_look():
    mask = lvlm_image_processor(crop_mode="center_crop").mask_to_picture(torch.ones(SIZE, SIZE), (200, 100))
    values = np.asarray(mask)
    assert (values[:, :50] == 0).all() and (values[:, 150:] == 0).all() and (values[:, 50:150] == 255).all()


def test_squashed_mask_covers_the_picture():
    mask = lvlm_image_processor().mask_to_picture(torch.ones(SIZE, SIZE), (200, 100))
    assert (np.asarray(mask) == 255).all()
