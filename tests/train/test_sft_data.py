"""Which conversations are learnt: rows, their words in each family's form, and what is set aside."""

import pickle
import re

import pytest
import torch

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.modeling.verdict_parsing import parse_answer, parse_fakevlm_verdict, parse_verdict
from deepfake_detectors.train.arguments import SftDataArguments
from deepfake_detectors.train.sft_data import ConversationCollator, load_conversations
from support.ddvqa_tree import stems, write_tree
from support.pictures import random_pictures
from support.tiny_models import SENTENCES, chat_vlm, fakevlm_processor, lvlm_dfd_processor, m2f2_det_processor

PROCESSORS = {
    "fakevlm": lambda: fakevlm_processor(prompt_style="hf_chat"),
    "m2f2_det": m2f2_det_processor,
    "lvlm_dfd": lvlm_dfd_processor,
    "chat_vlm": lambda: chat_vlm(**SENTENCES)[1],
}
QUESTION, ANSWER = "Does the skin look fake?", "It is smooth."
GENERATING = [name for name, row in FAMILIES.items() if row.sft]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


def arguments(data, **changes):
    options = {"data_dir": str(data), "dataset_configs": ["c40_judge", "c40_explain"], "validation_fraction": 0.3}
    return SftDataArguments(**{**options, **changes})


def row(label, **columns):
    return {"image": random_pictures(1)[0], "label": label, **columns}


def hooks(family):
    found = FAMILIES[family].load("sft")
    # What is asked is in a chat model's checkpoint.
    return found.asked_by(chat_vlm(**SENTENCES)[0]) if family == "chat_vlm" else found


def said(family, conversation, *rows):
    """What is supervised of each row, as text."""
    processor = PROCESSORS[family]()
    batch = ConversationCollator(hooks(family), processor, conversation, None)(rows)
    return [
        processor.tokenizer.decode([token for token in labels.tolist() if token >= 0]) for labels in batch["labels"]
    ]


def test_validation_is_apart_and_has_each_picture_once(data):
    train, validation = load_conversations(arguments(data))
    everything = load_split("ddvqa", "train", data, "c40")
    assert "group_id" not in train.features  # only what a batch is made of
    pixels = [
        tuple(load_image(part["image"][index]).tobytes() for index in range(len(part))) for part in (train, validation)
    ]
    assert len(set(pixels[1])) == len(pixels[1])
    assert not set(pixels[0]) & set(pixels[1])
    assert len(set(pixels[0])) + len(pixels[1]) == len(everything)
    assert len(train) > len(set(pixels[0]))  # every conversation of a picture, of both configs


def test_same_seed_same_validation(data):
    chosen = [load_conversations(arguments(data, validation_seed=seed))[1]["messages"] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    limited = load_conversations(arguments(data, validation_pictures=4))[1]
    assert limited["messages"] == chosen[0][:4]


MESSAGES = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]


@pytest.mark.parametrize("family", GENERATING)
def test_words_of_the_data_set(family):
    (text,) = said(family, "dataset", row(1, question=QUESTION, answer=ANSWER, messages=MESSAGES))
    assert re.sub(r"</s>|\n###|<\|im_end\|>", "", text).strip() == ANSWER


READERS = {
    "fakevlm": parse_fakevlm_verdict,
    "m2f2_det": lambda text: parse_verdict(text, "word"),
    "lvlm_dfd": parse_answer,
    "chat_vlm": lambda text: parse_verdict(text, "word"),
}


@pytest.mark.parametrize("with_answer", [False, True])
@pytest.mark.parametrize("family", GENERATING)
def test_verdict_sentence_is_what_the_family_reads_as_that_verdict(family, with_answer):
    """Each family's own rule for written answers understands what it is taught to write."""
    columns = {"question": QUESTION, "answer": ANSWER, "messages": MESSAGES} if with_answer else {}
    for label, text in enumerate(said(family, "verdict", row(0, **columns), row(1, **columns))):
        assert READERS[family](text) == ("real", "fake")[label], text
        assert (ANSWER in text) == with_answer


def test_lvlm_dfd_asks_the_rows_question_after_its_own():
    pairs = FAMILIES["lvlm_dfd"].load("sft").verdict_pairs(row(1, question=QUESTION, answer=ANSWER))
    assert pairs[1] == (QUESTION, ANSWER)
    assert len(pairs) == 2


@pytest.mark.parametrize("family", GENERATING)
def test_collator_travels_to_worker_processes(family):
    """Where loaders start their workers anew, what they call is pickled."""
    collator = ConversationCollator(hooks(family), PROCESSORS[family](), "verdict", None)
    rows = [row(0), row(1)]
    there, here = pickle.loads(pickle.dumps(collator))(rows), collator(rows)
    assert all(torch.equal(there[name], here[name]) for name in here)
