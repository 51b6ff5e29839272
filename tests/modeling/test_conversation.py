"""Conversations about one picture: what is read once, and that nothing of it changes an answer."""

import pytest
import torch
from transformers import pipeline

from deepfake_detectors.modeling.conversation_turns import turns_per_picture
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_fakevlm import PROMPT_STYLES, training_text
from deepfake_detectors.modeling.prompting_m2f2_det import inference_prompt, training_prompt
from support.pictures import random_pictures
from support.tiny_models import (
    antifakeprompt,
    antifakeprompt_processor,
    fakevlm,
    fakevlm_processor,
    lvlm_dfd_llm,
    lvlm_dfd_processor,
    m2f2_det_llm,
    m2f2_det_processor,
)

TOKENS = {"max_new_tokens": 10}
QUESTIONS = ["Is it real?", "What about the eyes?", "Nose?"]
FAMILIES = {
    "m2f2_det": (m2f2_det_llm, m2f2_det_processor, "model.vision_tower.embeddings"),
    "fakevlm": (fakevlm, fakevlm_processor, "model.vision_tower.embeddings"),
    "lvlm_dfd": (lvlm_dfd_llm, lvlm_dfd_processor, "detector.imagebind.vision_model"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    make_model, make_processor, tower = FAMILIES[request.param]
    model = make_model()
    return model, make_processor(), model.get_submodule(tower)


def talk(conversation, questions=QUESTIONS):
    history = []
    for question in questions:
        history.append((question, conversation.ask(question, history, **TOKENS)))
    return history


class Calls:
    """Counts calls of a module, and positions that a language model reads."""

    def __init__(self, module):
        self.count, self.positions = 0, 0
        self.handle = module.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs, output):
        self.count += 1
        given = kwargs.get("inputs_embeds")
        given = kwargs.get("input_ids") if given is None else given
        self.positions += 0 if given is None else given.shape[1]

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.handle.remove()


def test_a_picture_is_encoded_once(family):
    model, processor, tower = family
    with Calls(tower) as encodings:
        history = talk(model.converse(processor, **processor(images=random_pictures(1))))
    assert encodings.count == 1
    assert len({answer for _, answer in history}) > 1, "equal answers could not show a forgotten history"


def test_answers_equal_those_of_a_fresh_conversation_and_of_explain(family):
    model, processor, _ = family
    inputs = processor(images=random_pictures(1))
    history = talk(model.converse(processor, **inputs))
    for turn in range(len(QUESTIONS)):
        earlier = history[:turn]
        fresh = model.converse(processor, **inputs).ask(QUESTIONS[turn], earlier, **TOKENS)
        explained = model.explain(processor, question=QUESTIONS[turn], history=earlier, **inputs, **TOKENS)
        assert history[turn][1] == fresh == explained.explanations[0]


def test_the_verdict_is_that_of_detect(family):
    model, processor, _ = family
    inputs = processor(images=random_pictures(1))
    detection = model.converse(processor, **inputs).detection
    assert torch.allclose(detection.logits, model.detect(**inputs).logits, atol=1e-5)
    assert (detection.mask is None) == (not model.can_localize)


def test_only_what_is_new_is_read(family):
    model, processor, _ = family
    language = model.language_model.get_decoder() if hasattr(model, "language_model") else model.model.language_model
    conversation = model.converse(processor, **processor(images=random_pictures(1)))
    history = talk(conversation)
    opening = len(conversation._opening)
    with Calls(language) as again:
        assert conversation.ask(QUESTIONS[-1], history[:-1], max_new_tokens=1) is not None
    assert again.positions == 1, "asked again, the whole prompt but its last token is known"
    with Calls(language) as edited:
        conversation.ask("And the mouth?", history[:1], max_new_tokens=1)
    whole = len(conversation._prompt_ids("And the mouth?", history[:1]))
    assert 0 < edited.positions < whole - opening


def test_again_and_edited_earlier_turns(family):
    model, processor, _ = family
    inputs = processor(images=random_pictures(1))
    conversation = model.converse(processor, **inputs)
    history = talk(conversation)
    assert [conversation.ask(QUESTIONS[2], history[:2], **TOKENS) for _ in range(2)] == [history[2][1]] * 2
    changed = [(QUESTIONS[0], "The nose lacks detail.")]
    fresh = model.converse(processor, **inputs).ask(QUESTIONS[1], changed, **TOKENS)
    assert conversation.ask(QUESTIONS[1], changed, **TOKENS) == fresh
    assert conversation.ask(QUESTIONS[0], **TOKENS) == history[0][1]


def test_a_stream_ends_with_the_answer_and_can_be_left(family):
    model, processor, _ = family
    conversation = model.converse(processor, **processor(images=random_pictures(1)))
    answer = conversation.ask(QUESTIONS[0], **TOKENS)
    shown = list(conversation.stream(QUESTIONS[0], **TOKENS))
    assert shown[-1] == answer and len(shown) > 1 and len(shown[0]) < len(answer)
    stream = conversation.stream(QUESTIONS[0], **TOKENS)
    next(stream)
    stream.close()
    assert conversation.ask(QUESTIONS[0], **TOKENS) == answer


def test_a_failure_leaves_a_conversation_that_goes_on(family):
    model, processor, _ = family
    conversation = model.converse(processor, **processor(images=random_pictures(1)))
    answer = conversation.ask(QUESTIONS[0], **TOKENS)

    def fail(ids, scores):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(conversation.stream(QUESTIONS[1], stopping_criteria=[fail], **TOKENS))
    assert conversation.ask(QUESTIONS[0], **TOKENS) == answer


def test_batch_of_one_equals_batch_of_n(family):
    model, processor, _ = family
    pictures = random_pictures(3)
    options = {"question": QUESTIONS[1], "history": [(QUESTIONS[0], "The eyes look odd.")], **TOKENS}
    together = model.explain(processor, **processor(images=pictures), **options).explanations
    alone = [model.explain(processor, **processor(images=[p]), **options).explanations[0] for p in pictures]
    assert together == alone


# Token counts of question and history differ from picture to picture; the second has its family's own question.
OWN_QUESTIONS = ["Nose?", None, "What about the eyes? The eyes look odd. The nose lacks detail."]
OWN_HISTORIES = [
    [("Is it real?", "no"), ("Is this photo real? yes no not sure.", "The image is fake.")],
    [],
    [("What about the eyes?", "The skin is overly smooth. The eyes look unnaturally asymmetric.")],
]


@pytest.mark.parametrize(
    "given",
    [
        {"question": OWN_QUESTIONS, "history": OWN_HISTORIES},
        {"question": "Nose?", "history": OWN_HISTORIES},
        {"question": OWN_QUESTIONS, "history": OWN_HISTORIES[0]},
    ],
    ids=["both", "histories", "questions"],
)
@pytest.mark.parametrize("beams", [1, 2])
def test_a_conversation_for_each_picture(family, given, beams):
    """Question and history of each picture, of different lengths in one batch."""
    model, processor, _ = family
    pictures, options = random_pictures(3), {**TOKENS, "num_beams": beams}
    turns = turns_per_picture(given["question"], given["history"], 3)
    together = model.explain(processor, **processor(images=pictures), **given, **options)
    for number, (question, history) in enumerate(turns):
        alone = model.explain(
            processor, **processor(images=[pictures[number]]), question=question, history=history, **options
        )
        assert together.explanations[number] == alone.explanations[0]
        assert torch.allclose(together.logits[number], alone.logits[0], atol=1e-4)
    assert len(set(together.explanations)) == 3, "equal answers could not show a swapped history"


def test_three_turns_in_a_batch_equal_three_calls(family):
    """Three pictures go through three turns together, their answers and so their histories of different lengths."""
    model, processor, _ = family
    pictures = random_pictures(3)
    inputs = processor(images=pictures)
    questions = [QUESTIONS, QUESTIONS[::-1], ["Nose?", "What about the eyes? The eyes look odd.", "Is it fake?"]]
    histories = [[], [], []]
    for turn in range(3):
        asked = [own[turn] for own in questions]
        together = model.explain(processor, question=asked, history=histories, **inputs, **TOKENS).explanations
        for number, picture in enumerate(pictures):
            conversation = model.converse(processor, **processor(images=[picture]))
            assert together[number] == conversation.ask(asked[number], histories[number], **TOKENS)
        histories = [
            [*own, (question, answer)] for own, question, answer in zip(histories, asked, together, strict=True)
        ]


def test_questions_and_histories_that_do_not_fit_the_pictures(family):
    model, processor, _ = family
    inputs = processor(images=random_pictures(2))
    for given, named in (
        ({"question": ["Nose?"]}, "question is given for 1 pictures, but there are 2"),
        ({"question": ["Nose?", 3]}, "question holds 3"),
        ({"history": OWN_HISTORIES}, "history is given for 3 pictures, but there are 2"),
        ({"history": [("Is it real?",)]}, r"history holds \('Is it real\?',\)"),
        ({"history": [[("Is it real?", "no")], ["Is it real?"]]}, "history holds 'Is it real"),
        ({"history": ["Is it real?", "no"]}, "history holds 'Is it real"),
    ):
        with pytest.raises(ValueError, match=named):
            model.explain(processor, **inputs, **{"question": "Nose?", **given}, **TOKENS)


def test_what_cannot_be_asked(family):
    model, processor, _ = family
    conversation = model.converse(processor, **processor(images=random_pictures(1)))
    with pytest.raises(ValueError, match="question is empty"):
        conversation.ask(" ")
    with pytest.raises(ValueError, match="num_beams is 2"):
        conversation.ask(QUESTIONS[0], num_beams=2)
    with pytest.raises(ValueError, match=r"has \d+ tokens"):
        conversation.ask("eyes " * conversation._room())
    with pytest.raises(ValueError, match="got 2"):
        model.converse(processor, **processor(images=random_pictures(2)))


@pytest.mark.parametrize("name", ["m2f2_det", "fakevlm"])
def test_a_marker_in_a_question_is_refused(name):
    make_model, make_processor, _ = FAMILIES[name]
    model, processor = make_model(), make_processor()
    conversation = model.converse(processor, **processor(images=random_pictures(1)))
    for question, history in (
        ("Look: <image> so", []),
        ("Nose?", [("Eyes? <image>", "Odd.")]),
        ("a<image><image>", []),
    ):
        with pytest.raises(ValueError, match=r"<image>|marker"):
            conversation.ask(question, history)


# the words


@pytest.mark.parametrize("newlines", [True, False])
def test_later_turns_of_m2f2_det_are_those_of_its_training(newlines):
    turns = [("Is it real?", "The image is fake."), ("Eyes?", "Odd."), ("Nose?", "Flat.")]
    conversation = []
    for number, (question, answer) in enumerate(turns):
        marked = question if number else f"<image>\n<deepfake>\n{question}"
        conversation += [{"from": "human", "value": marked}, {"from": "gpt", "value": answer}]
    text, spans = training_prompt(conversation, newlines)
    assert inference_prompt("Nose?", "vicuna_v1", newlines, turns[:2]) == text[: spans[-1][0]]


def test_later_turns_of_the_official_command_line():
    prompt = inference_prompt("Eyes?", history=[("Is it real?", "No.")])
    assert prompt == f"{inference_prompt('Is it real?')} No.###Human: Eyes? ###Assistant:"


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_later_turns_of_fakevlm_are_those_of_its_training(style):
    processor = fakevlm_processor(prompt_style=style)
    prompt = processor.explanation_prompt("Nose?", [("Is it real?", "A."), ("Eyes?", "B.")])
    if style == "raw":
        assert prompt == "<image>Is it real?\nA. </s>USER: Eyes? ASSISTANT: B. </s>USER: Nose? ASSISTANT:"
        return
    turns = ["<image>\nIs it real?", "A.", "Eyes?", "B.", "Nose?", "C."]
    conversation = [{"from": ("human", "gpt")[n % 2], "value": turn} for n, turn in enumerate(turns)]
    text, spans = training_text(conversation, style)
    assert prompt == text[: spans[-1][0]]


def test_suggested_questions_can_be_asked(family):
    model, processor, _ = family
    conversation = model.converse(processor, **processor(images=random_pictures(1)))
    suggested = processor.suggested_questions("fake")
    assert suggested and all(isinstance(conversation.ask(each, **TOKENS), str) for each in suggested)
    if isinstance(processor, M2F2DetProcessor):
        assert "fake" in suggested[0] and "{" not in suggested[0]


# the pipeline


def test_the_pipeline_takes_a_history(family):
    model, processor, _ = family
    judge = pipeline("deepfake-detection", model=model, processor=processor)
    picture = random_pictures(1)[0]
    options = {"question": QUESTIONS[1], "history": [(QUESTIONS[0], "The eyes look odd.")]}
    row = judge(picture, explain=True, **options, generate_kwargs=TOKENS)
    direct = model.explain(processor, **processor(images=picture), **options, **TOKENS)
    assert row["explanation"] == direct.explanations[0]
    with pytest.raises(ValueError, match="explain=True"):
        judge(picture, history=options["history"])


class Stored:
    """As a dataset: rows by number."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"image": self.rows[index]}


@pytest.mark.parametrize("given", [list, tuple, Stored], ids=["list", "tuple", "dataset"])
def test_the_pipeline_takes_a_history_for_each_picture(family, given, tmp_path):
    """The picture that cannot be read, in the middle of the batch, shifts nobody's question."""
    model, processor, _ = family
    judge = pipeline("deepfake-detection", model=model, processor=processor)
    pictures = random_pictures(3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    questions, histories = ([*own[:1], own[0], *own[1:]] for own in (OWN_QUESTIONS, OWN_HISTORIES))
    options = {"explain": True, "generate_kwargs": TOKENS, "on_error": "record"}
    rows = list(
        judge(
            given([pictures[0], str(broken), *pictures[1:]]),
            question=questions,
            history=histories,
            batch_size=4 if given is not tuple else 1,
            **options,
        )
    )
    assert "error" in rows.pop(1)
    for row, picture, question, history in zip(rows, pictures, OWN_QUESTIONS, OWN_HISTORIES, strict=True):
        assert row["explanation"] == judge(picture, question=question, history=history, **options)["explanation"]
    mixed = judge(pictures, question="Nose?", history=OWN_HISTORIES, **options, batch_size=3)
    alone = [judge(p, question="Nose?", history=h, **options) for p, h in zip(pictures, OWN_HISTORIES, strict=True)]
    assert [row["explanation"] for row in mixed] == [row["explanation"] for row in alone]


def test_what_the_pipeline_says_of_questions_for_each_picture():
    judge = pipeline("deepfake-detection", model=fakevlm(), processor=fakevlm_processor())
    pictures = random_pictures(2)
    for inputs, given, named in (
        (pictures, {"question": ["Nose?"], "explain": True}, "question is given for 1 pictures, but there are 2"),
        (pictures, {"history": OWN_HISTORIES, "explain": True}, "history is given for 3 pictures, but there are 2"),
        (pictures, {"history": [[("Nose?",)], []], "explain": True}, r"history holds \('Nose\?',\)"),
        (pictures[0], {"question": ["Nose?"], "explain": True}, "needs a list of pictures"),
        (iter(pictures), {"history": OWN_HISTORIES[:2], "explain": True}, "needs a list of pictures"),
        (pictures, {"question": ["Nose?", "Eyes?"]}, "explain=True"),
    ):
        with pytest.raises(ValueError, match=named):
            judge(inputs, **given)
    with pytest.raises(ValueError, match="belong to the call"):
        pipeline("deepfake-detection", model=judge.model, processor=judge.processor, explain=True, question=["Nose?"])


def test_a_family_without_conversations_takes_a_question_for_each_picture():
    judge = pipeline("deepfake-detection", model=antifakeprompt(), processor=antifakeprompt_processor())
    pictures, options = random_pictures(3), {"explain": True, "generate_kwargs": {"max_new_tokens": 4, "num_beams": 1}}
    rows = judge(pictures, question=OWN_QUESTIONS, history=[[], [], []], batch_size=3, **options)
    alone = [judge(p, question=q, **options) for p, q in zip(pictures, OWN_QUESTIONS, strict=True)]
    assert [row["explanation"] for row in rows] == [row["explanation"] for row in alone]
    with pytest.raises(ValueError, match="M2F2DetForConditionalGeneration"):
        judge(pictures, question="Nose?", history=OWN_HISTORIES, **options)


def test_a_family_without_conversations_says_who_can():
    judge = pipeline("deepfake-detection", model=antifakeprompt(), processor=antifakeprompt_processor())
    with pytest.raises(ValueError, match="M2F2DetForConditionalGeneration"):
        judge(random_pictures(1)[0], explain=True, question="Why?", history=[("Is it real?", "No.")])
