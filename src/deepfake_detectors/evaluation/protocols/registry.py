"""The rules by which predictions become numbers: the sound default, and the four published ones with their defects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepfake_detectors.evaluation.localisation import MARKED_ON_REAL, PER_PICTURE
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols import scoring as protocol_scoring
from deepfake_detectors.evaluation.protocols.m2f2_det_ddvqa import EXPLANATION_DEFECTS, JUDGEMENT_DEFECTS
from deepfake_detectors.evaluation.score_metrics import FALSE_POSITIVE_RATES, LOWER_IS_BETTER
from deepfake_detectors.evaluation.settings import Settings
from deepfake_detectors.evaluation.video_metrics import VIDEO_DEFECTS

__all__ = ["DEFAULT_PROTOCOL", "PROTOCOLS", "Protocol", "Settings", "get_protocol"]

DEFAULT_PROTOCOL = "corrected"
OPTIONAL_TEXT_METRICS = ("METEOR", "SPICE", "similarity")
FAKE_IS_ONE = {0: "real", 1: "fake"}
REAL_IS_ONE = {0: "fake", 1: "real"}


@dataclass(frozen=True)
class Protocol:
    """One set of rules.

    Attributes:
        name: as in `--protocol`.
        summary: one sentence.
        source: where the rules are published.
        positive_class: of F1, precision and recall.
        needs: what a prediction must hold: `"score"`, `"text"`, or `"either"`.
        metrics: name -> `"higher"` or `"lower"`, whichever is better.
        defects: what the published scorer does wrong and this one reproduces, name -> sentence.
        integer_labels: what the labels 0 and 1 of its files mean; `None`: labels must be words.
        score: computes the results of predictions.
        official_answers: whether it also scores M2F2-Det's published answer files.
    """

    name: str
    summary: str
    source: str
    positive_class: str
    needs: str
    metrics: Mapping[str, str]
    score: Callable[[Sequence[Prediction], Settings], dict[str, Any]]
    defects: Mapping[str, str] = field(default_factory=dict)
    integer_labels: Mapping[int, str] | None = None
    official_answers: bool = False

    def describe(self) -> dict[str, Any]:
        """What of this goes into `results.json`."""
        keys = ("name", "summary", "source", "positive_class", "metrics", "defects")
        found = {key: getattr(self, key) for key in keys}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ValueError: for an unknown one.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol is {name!r}, known are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def _higher(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "higher")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="corrected",
            summary="Every picture counts once, undetermined answers are wrong, thresholds are not chosen on the set.",
            source="this package",
            positive_class="fake",
            needs="either",
            metrics={
                **_higher("accuracy", "balanced_accuracy", "auc", "ap", *FALSE_POSITIVE_RATES),
                **_higher(*(f"{name}_{side}" for name in ("f1", "precision", "recall") for side in ("fake", "real"))),
                **_higher("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "Bleu_mean", "ROUGE_L", "CIDEr"),
                **_higher(*OPTIONAL_TEXT_METRICS),
                **_higher("rouge_l_f", *PER_PICTURE, *(f"{name}_pooled" for name in PER_PICTURE)),
                **dict.fromkeys((*sorted(LOWER_IS_BETTER), MARKED_ON_REAL), "lower"),
            },
            score=protocol_scoring.score_corrected,
            official_answers=True,
        ),
        Protocol(
            name="paper:m2f2_det",
            summary="DD-VQA judgements and explanations from answer files, or AUC over videos from frame scores.",
            source="Guo et al., Rethinking Vision-Language Model in Face Forensics (CVPR 2025), published scripts",
            positive_class="fake (judgement), real (videos)",
            needs="score",
            metrics=_higher(
                *("accuracy", "f1", "precision", "recall", "Bleu", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"),
                *("ROUGE_L", "CIDEr", *OPTIONAL_TEXT_METRICS, "auc", "best_threshold_accuracy"),
            ),
            score=protocol_scoring.score_m2f2_det_videos,
            defects={**JUDGEMENT_DEFECTS, **EXPLANATION_DEFECTS, **VIDEO_DEFECTS},
            official_answers=True,
        ),
        Protocol(
            name="paper:fakevlm",
            summary="Accuracy of verdicts read from texts, in all, per class and per category.",
            source="FakeVLM (FakeClue), published scripts; they hold no F1: the paper's follows with real as positive",
            positive_class="real",
            needs="text",
            metrics=_higher("accuracy", "accuracy_real", "accuracy_fake", "f1", "f1_fake", "f1_macro"),
            score=protocol_scoring.score_fakevlm,
            defects={
                "coin": "an answer without a verdict gets a random one; published without a seed, here with one",
                "substring": 'a sentence that contains "real" is read as real: "not real" and "unrealistic" too',
                "label_polarity": "the label 1 means real in its files, the opposite of most others",
            },
            integer_labels=REAL_IS_ONE,
        ),
        Protocol(
            name="paper:antifakeprompt",
            summary="Accuracy per set of one class at P(fake) = 0.5, and the plain mean over the sets.",
            source="AntifakePrompt (arXiv 2310.17419), published scripts and result tables",
            positive_class="none: every set holds one class",
            needs="score",
            metrics=_higher("average"),
            score=protocol_scoring.score_antifakeprompt,
            defects={
                "sets_weigh_alike": "the average is over sets whatever their size; two real sets stand against many "
                "fake ones, so calling everything fake scores high",
                "held_in_sets": "sets that were trained on are part of the average",
            },
            integer_labels=FAKE_IS_ONE,
        ),
        Protocol(
            name="paper:lvlm_dfd",
            summary="AUC of the classifier's P(fake); verdicts of texts by the published searches.",
            source="LVLM-DFD (ICML 2025), published inference script; whether its AUC is over frames or videos is not "
            "published, so both are given",
            positive_class="fake",
            needs="either",
            metrics=_higher("auc", "text_accuracy"),
            score=protocol_scoring.score_lvlm_dfd,
            defects={
                "substring": '"not" is found inside "another" and "notable", "No" inside "Nose" and "Not"',
                "previous_verdict": "an answer without a hit gets the verdict of the picture before it",
            },
            integer_labels=FAKE_IS_ONE,
        ),
    )
}
