"""Results in a model card, from `results.json`: entries of the `model-index`, and tables."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult

from deepfake_detectors.data.registry import DATASETS
from deepfake_detectors.evaluation.protocols import get_protocol

__all__ = ["METRIC_NAMES", "better", "dataset_of", "metric_name", "model_index", "result_parts"]

# name in results.json -> name for readers; other names are used unchanged.
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "auc": "AUC",
    "eer": "Equal error rate",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "f1_fake": "F1 (positive: fake)",
    "f1_real": "F1 (positive: real)",
    "f1_macro": "F1 (mean of both classes)",
    "precision": "Precision",
    "precision_fake": "Precision (positive: fake)",
    "precision_real": "Precision (positive: real)",
    "recall": "Recall",
    "recall_fake": "Recall (positive: fake)",
    "recall_real": "Recall (positive: real)",
    "accuracy_real": "Accuracy on real images",
    "accuracy_fake": "Accuracy on fake images",
    "text_accuracy": "Accuracy of the written verdicts",
    "best_threshold_accuracy": "Accuracy at the best threshold for this test set",
    "average": "Mean accuracy of the sets",
    "ap": "Average precision",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "tpr@fpr1%": "TPR at 1 % FPR",
    "tpr@fpr0.1%": "TPR at 0.1 % FPR",
    "Bleu": "BLEU (mean of 1 to 4)",
    "Bleu_mean": "BLEU (mean of 1 to 4)",
    "Bleu_1": "BLEU-1",
    "Bleu_2": "BLEU-2",
    "Bleu_3": "BLEU-3",
    "Bleu_4": "BLEU-4",
    "ROUGE_L": "ROUGE-L",
    "rouge_l_f": "ROUGE-L (rouge_score)",
    "similarity": "Sentence similarity",
    "pixel_auc": "Pixel AUC, mean over images",
    "pixel_f1": "Pixel F1, mean over images",
    "iou": "IoU, mean over images",
    "pixel_auc_pooled": "Pixel AUC, all pixels together",
    "pixel_f1_pooled": "Pixel F1, all pixels together",
    "iou_pooled": "IoU, all pixels together",
    "marked_on_real": "Share of real images marked as manipulated",
    "bytes_per_pixel_auc": "AUC of bytes per pixel alone",
    "bytes_per_pixel_correlation": "Rank correlation of scores and bytes per pixel within the classes",
    "auc_above_bytes_per_pixel": "AUC minus that of bytes per pixel alone",
}
TABLES = {"per_manipulation": "made with", "per_category": "category", "per_set": "set"}
ROBUSTNESS_COLUMNS = ("auc", "accuracy", "false_alarm_rate", "flip_rate")
CORRECTED = "corrected"
# How much the files alone reveal, and how generic explanations are: baselines, not results of the model.
CONTROLS = ("control", "explanation_checks", "covering")
NO_SUBJECT = (CORRECTED, "protocol")  # also have metrics, but are not another kind of answers


def metric_name(name: str) -> str:
    """Return the name of the metric for readers."""
    return METRIC_NAMES.get(name, name)


def better(name: str, results: dict[str, Any]) -> str:
    """Return `"higher"` or `"lower"` according to the protocol; empty if none defines it."""
    directions = {**get_protocol(CORRECTED).metrics, **results["protocol"]["metrics"]}
    return directions.get(name, "")


def dataset_of(results: dict[str, Any], facts: dict[str, Any]) -> dict[str, str | None]:
    """Return `type`, `name`, `config` and `split` of the evaluated images, for the `model-index`.

    The publisher's folder paths are left out as private.
    """
    name, *rest = str(results["inputs"].get("set", "")).split("/")
    if name in DATASETS and rest:
        config = "/".join(rest[:-1]) or None
        return {"type": name, "name": facts.get("dataset_name", name), "config": config, "split": rest[-1]}
    kind = "predictions" if "predictions" in results["inputs"] else "pictures"
    label = facts.get("dataset_name", f"{kind} of the publisher")
    return {"type": facts.get("dataset_type", "custom"), "name": label, "config": None, "split": None}


def model_index(results: dict[str, Any], facts: dict[str, Any]) -> list[EvalResult]:
    """Return every metric with a value; those of a published protocol include its name."""
    dataset = dataset_of(results, facts)
    protocol = results["protocol"]["name"]
    entries = []
    for part in result_parts(results):
        if part["subject"] in CONTROLS:
            continue
        rules = CORRECTED if part["corrected"] else protocol
        for name, entry in part["metrics"].items():
            if entry["value"] is None:  # undefined metrics are left out of the index
                continue
            marks = [mark for mark in (part["subject"], rules if rules != CORRECTED else None) if mark]
            entries.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Deepfake detection",
                    dataset_type=str(dataset["type"]),
                    dataset_name=str(dataset["name"]),
                    dataset_config=dataset["config"],
                    dataset_split=dataset["split"],
                    metric_type=name,
                    metric_name=metric_name(name) + (f" ({', '.join(marks)})" if marks else ""),
                    metric_value=entry["value"],
                )
            )
    return entries


def result_parts(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results in reading order.

    Returns:
        Per part `title`, `subject` (`"judgement"`, `"explanation"`, ..., or `None`), `corrected` (whether these are
        the corrected numbers next to published ones), `counts`, `metrics`, `undefined`, `remarks` and `tables`
        (heading -> `columns` and `rows` of texts).
    """
    protocol = results["protocol"]["name"]
    subjects = [
        name
        for name, part in results.items()
        if isinstance(part, dict) and "metrics" in part and name not in NO_SUBJECT
    ]
    inside = {name for subject in subjects for name in results[subject]["metrics"]}
    # If several kinds of answers were scored, the top level repeats the metrics of all.
    whole = [] if subjects and set(results["metrics"]) <= inside else [(None, results)]
    parts = []
    for subject, part in [*whole, *((name, results[name]) for name in subjects)]:
        parts.append(_part(subject, part, protocol, False))
        if part is results and "robustness" in results:
            parts[-1]["tables"]["after"] = _table(_robustness(results["robustness"]))
        if protocol != CORRECTED and CORRECTED in part:
            parts.append(_part(subject, part[CORRECTED], CORRECTED, True))
    return [part for part in parts if part["metrics"]]


def _part(subject: str | None, part: dict[str, Any], rules: str, corrected: bool) -> dict[str, Any]:
    counts = part.get("counts") or {key: part[key] for key in ("num_real", "num_fake") if key in part}
    heading = "Corrected" if rules == CORRECTED else f"As published, {rules}"
    return {
        "title": f"{subject.capitalize()}: {heading.lower()}" if subject else heading,
        "subject": subject,
        "corrected": corrected,
        "counts": ", ".join(f"{name.removeprefix('num_').replace('_', ' ')}: {n}" for name, n in counts.items()),
        "metrics": part.get("metrics", {}),
        "undefined": part.get("undefined", {}),
        "remarks": part.get("remarks", []),
        "tables": {TABLES[key]: _table(part[key]) for key in TABLES if key in part},
    }


def _table(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    return {
        "columns": [column.replace("_", " ") for column in columns],
        "rows": [[name, *(_cell(row.get(key)) for key in columns)] for name, row in rows.items()],
    }


def _robustness(swept: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a row per altered image set, at the threshold of the unaltered set."""
    return {
        name: {
            **{key: entry["metrics"][key]["value"] for key in ROBUSTNESS_COLUMNS},
            "auc interval": {end: entry["metrics"]["auc"][end] for end in ("low", "high")},
            "what was done": entry["steps"],
        }
        for name, entry in swept["variants"].items()
        if "metrics" in entry
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "" if value["low"] is None else f"{value['low']:.3f} to {value['high']:.3f}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
