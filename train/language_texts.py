"""A data set's conversations as plain texts, in the forms in which a detector's language model will be asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deepfake_detectors.dataset_scripts._builder import CLASS_NAMES
from deepfake_detectors.modeling.prompting_m2f2_det import (
    DEEPFAKE_MARKER,
    IMAGE_MARKER,
    inference_prompt,
    training_prompt,
)

__all__ = ["conversation_texts"]

MAX_TURNS = 3
HINT_SHARE = 0.5  # of the texts tell in front of the first question what the picture will tell later
CLI_SHARE = 0.25  # of the texts are in the form of the official evaluation, the others in that of the training

Turn = tuple[str, str]


def conversation_texts(rows: Sequence[Mapping[str, Any]], passes: int, seed: int) -> Iterator[str]:
    """Texts of up to three turns on one picture each; no text holds a picture's placeholder.

    Half of the texts have "The image is real." (or fake) where picture and detector will stand, so that the language
    model learns to read its answer from there. That sentence is all that later stages have to teach by pictures.

    Args:
        rows: with `video_id` (rows on one picture share it; `None` where `id` is that of a picture), `label` (0 real,
            1 fake), `question` and `answers`.
        passes: how often every question is asked, each time in another order and with another of its answers.
        seed: of the order.
    """
    pictures: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        known = pictures[row["video_id"] or row["id"]]
        if all((row["question"], row["answers"]) != (other["question"], other["answers"]) for other in known):
            known.append(row)  # once: DD-VQA repeats its judgements up to 18 times
    generator = np.random.default_rng(seed)
    for _ in range(passes):
        for video in sorted(pictures):
            asked = pictures[video]
            order = generator.permutation(len(asked))
            turns = [(asked[i]["question"], str(generator.choice(asked[i]["answers"]))) for i in order]
            while turns:
                count = int(generator.integers(1, MAX_TURNS + 1))
                hint = f"The image is {CLASS_NAMES[asked[0]['label']]}." if generator.random() < HINT_SHARE else ""
                if generator.random() < CLI_SHARE:
                    yield _evaluation_text(turns[0], hint)
                    turns = turns[1:]
                else:
                    yield _training_text(turns[:count], hint)
                    turns = turns[count:]


def _training_text(turns: Sequence[Turn], hint: str) -> str:
    conversation = []
    for index, (question, answer) in enumerate(turns):
        # The three line breaks that the official training has behind the placeholders.
        start = f"{hint}\n\n\n" if hint and index == 0 else ""
        conversation += [
            {"role": "user", "content": f"{start}{question}"},
            {"role": "assistant", "content": answer},
        ]
    return training_prompt(conversation)[0]


def _evaluation_text(turn: Turn, hint: str) -> str:
    question, answer = turn
    prompt = inference_prompt(question).replace(f"{IMAGE_MARKER}\n{DEEPFAKE_MARKER}", hint)
    return f"{prompt} {answer}</s>"
