"""Fine-tuning hooks for each family: how a row becomes text, and which parts of the model are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from deepfake_detectors.dataset_scripts._builder import CLASS_NAMES
from deepfake_detectors.modeling.image_loading import load_mask
from deepfake_detectors.modeling.processing_lvlm_dfd import QUESTION as LVLM_DFD_QUESTION
from deepfake_detectors.modeling.prompting_fakevlm import IMAGE_MARKER
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION as FAKEVLM_QUESTION
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, TRAINING_JUDGEMENT_QUESTION
from deepfake_detectors.modeling.regions_lvlm_dfd import (
    SCORE_QUESTION,
    regions_of_mask,
    score_answer,
    verdict_answer,
)
from deepfake_detectors.train.families import SftFamily

__all__ = ["CHAT_VLM", "FAKEVLM", "LVLM_DFD", "M2F2_DET"]

# DD-VQA's judgement rows.
M2F2_DET_VERDICTS = ("The image looks real.", "The image looks fake.")
# Of the released answers.
FAKEVLM_VERDICTS = ("This is a real image.", "This is a fake image.")

Pairs = list[tuple[str, str]]


def _turns(marker: str, pairs: Pairs) -> list[Any]:
    """Return turns with the image placeholder before the first question."""
    turns = []
    for index, (question, answer) in enumerate(pairs):
        turns.append({"role": "user", "content": question if index else f"{marker}{question}"})
        turns.append({"role": "assistant", "content": answer})
    return turns


def _one_turn(question: str, verdicts: tuple[str, str], row: Mapping[str, Any]) -> Pairs:
    """Return the family's question with its verdict sentence, followed by the row's own answer."""
    return [(question, " ".join(filter(None, [verdicts[row["label"]], row.get("answer")])))]


def _lvlm_dfd_pairs(row: Mapping[str, Any]) -> Pairs:
    """Return the verdict in the words of the published dialogues, then the row's own question or that about the score.

    For a fake with a mask, the answer names the regions of the mask. The score is that of the label, because the
    detector's score for this image is not known here.
    """
    fake = row["label"] == 1
    mask = row.get("mask") if fake else None
    regions = [] if mask is None else regions_of_mask(np.asarray(load_mask(mask), dtype=np.float32) / 255)
    first = (LVLM_DFD_QUESTION, verdict_answer(fake, regions))
    if row.get("question"):
        return [first, (row["question"], row["answer"])]
    return [first, (SCORE_QUESTION, score_answer(100 if fake else 0, regions))]


def _chat_pairs(config: Any, row: Mapping[str, Any]) -> Pairs:
    """Return the checkpoint's own question with its first answer for the class, followed by the row's own answer."""
    verdicts = tuple(f"{config.answers[name][0].rstrip('.')}." for name in CLASS_NAMES)
    return _one_turn(config.question, verdicts, row)


def _asked_by_the_checkpoint(row: Mapping[str, Any]) -> Pairs:
    raise ValueError("A chat model's question is in its checkpoint: use SftFamily.asked_by(model).")


M2F2_DET = SftFamily(
    converse=partial(_turns, f"{IMAGE_MARKER}\n{DEEPFAKE_MARKER}\n"),
    verdict_pairs=partial(_one_turn, TRAINING_JUDGEMENT_QUESTION, M2F2_DET_VERDICTS),
    takes_classes=True,  # for `conditional_deepfake_prob`
    own_loss=True,  # the two placeholders' rows of lm_head are masked in `forward` only
    vision_tower="model.vision_tower",
    detector="model.detector",
)
FAKEVLM = SftFamily(
    converse=partial(_turns, IMAGE_MARKER),
    verdict_pairs=partial(_one_turn, FAKEVLM_QUESTION, FAKEVLM_VERDICTS),
    takes_classes=False,
    own_loss=False,
    vision_tower="model.vision_tower",
    detector=None,
)
LVLM_DFD = SftFamily(
    converse=list,
    verdict_pairs=_lvlm_dfd_pairs,
    takes_classes=False,  # losses of the frozen detector
    own_loss=True,  # its prompt is longer than input_ids
    vision_tower="detector.imagebind.vision_model",
    detector="detector",
)
CHAT_VLM = SftFamily(
    converse=partial(_turns, ""),
    verdict_pairs=_asked_by_the_checkpoint,
    own_verdict_pairs=_chat_pairs,
    takes_classes=False,
    own_loss=True,  # every architecture has its own masks and positions, which only its `forward` computes
    vision_tower=None,
    detector=None,
)
