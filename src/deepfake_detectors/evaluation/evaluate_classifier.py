"""Score a verdict model on a labelled split and write `results.json`.

    python -m deepfake_detectors.evaluation.evaluate_classifier --model FOLDER --dataset ddvqa --dataset_config c40 \
        --split test --output results.json
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformers import AutoProcessor

from deepfake_detectors import AutoModelForDeepfakeDetection, __version__
from deepfake_detectors.data.registry import load_split
from deepfake_detectors.evaluation.bootstrap import Metric, bootstrap_interval
from deepfake_detectors.evaluation.metrics import (
    accuracy,
    auc,
    detection_metrics,
    equal_error_rate,
    manipulation_table,
)
from deepfake_detectors.module_command import run_command

if TYPE_CHECKING:
    import datasets

__all__ = ["EvaluationArguments", "evaluate_classifier", "fake_probabilities", "summarize"]

logger = logging.getLogger("deepfake_detectors.evaluation")


@dataclass
class EvaluationArguments:
    """What to evaluate, on what."""

    model: str = field(metadata={"help": "Checkpoint folder or Hub id of a verdict model."})
    dataset: str = field(default="ddvqa", metadata={"help": "Name of a builder of this package."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the builder."})
    split: str = field(default="test", metadata={"help": "Split to score."})
    data_dir: str | None = field(default=None, metadata={"help": "Raw files; if unset, $DEEPFAKE_DATA/<dataset>."})
    head: str | None = field(default=None, metadata={"help": "Head of the model, where it has several."})
    output: str = field(default="results.json", metadata={"help": "File to write."})
    threshold: float = field(default=0.5, metadata={"help": "P(fake) from which a picture counts as fake."})
    batch_size: int = field(default=32, metadata={"help": "Pictures per forward pass."})
    resamples: int = field(default=2000, metadata={"help": "Bootstrap resamples."})
    seed: int = field(default=0, metadata={"help": "Of the bootstrap."})


def fake_probabilities(
    model: Any, processor: Any, rows: datasets.Dataset, batch_size: int = 32, head: str | None = None
) -> np.ndarray:
    """Calibrated P(fake) of every row, float64 `(n,)` in [0, 1].

    Args:
        model: a verdict model in eval mode.
        processor: its processor.
        rows: with a column `image`.
        batch_size: pictures per forward pass.
        head: of the model, where it has several.
    """
    scores, options = [], {} if head is None else {"head": head}
    for start in range(0, len(rows), batch_size):
        images = [image.convert("RGB") for image in rows[start : start + batch_size]["image"]]
        inputs = processor(images=images, return_tensors="pt", **options).to(model.device)
        scores.append(model.detect(**inputs).fake_probability.double().cpu())
    return torch.cat(scores).numpy()


def summarize(
    labels: list[int],
    scores: np.ndarray,
    manipulations: list[str],
    groups: list[str],
    threshold: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics of one set with 95 % intervals, JSON-serialisable.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, P(fake).
        manipulations: `(n,)`.
        groups: `(n,)`; whole groups are resampled, since their pictures share source videos.
        threshold: P(fake) from which a picture counts as fake.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        `metrics` (name -> `value`, `low`, `high`), `per_manipulation`, `undefined` (name -> reason) and `bootstrap`.
    """
    result = detection_metrics(labels, scores, threshold)
    functions: dict[str, Metric] = {
        "accuracy": lambda truth, values: accuracy(truth, values, threshold),
        "auc": auc,
        "eer": _rate_only,
    }
    metrics = {}
    for name, function in functions.items():
        interval = bootstrap_interval(function, labels, scores, groups, resamples=resamples, seed=seed)
        metrics[name] = {"value": getattr(result, name), **_ends(interval)}
    truth, methods = np.asarray(labels), np.asarray(manipulations, dtype=object)
    table = manipulation_table(labels, scores, manipulations, threshold)
    for method, row in table.items():
        if row["auc"] is None:
            continue
        chosen = np.flatnonzero((truth == 0) | (methods == method))
        interval = bootstrap_interval(
            auc, truth[chosen], scores[chosen], [groups[i] for i in chosen], resamples=resamples, seed=seed
        )
        row["auc_interval"] = _ends(interval)
    return {
        "num_real": result.num_real,
        "num_fake": result.num_fake,
        "threshold": threshold,
        "metrics": metrics,
        "per_manipulation": table,
        "undefined": result.undefined,
        "bootstrap": {"level": 0.95, "resamples": resamples, "seed": seed, "by": "group of source videos"},
    }


def evaluate_classifier(arguments: EvaluationArguments) -> dict[str, Any]:
    """Score, summarise and write; returns what was written.

    Raises:
        ValueError: as `load_split` and `check_scores`.
        FileNotFoundError: for missing data.
    """
    rows = load_split(arguments.dataset, arguments.split, arguments.data_dir, arguments.dataset_config)
    model = AutoModelForDeepfakeDetection.from_pretrained(arguments.model).eval()
    processor = AutoProcessor.from_pretrained(arguments.model)
    scores = fake_probabilities(model, processor, rows, arguments.batch_size, arguments.head)
    results = {
        "model_type": model.config.model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dataset": arguments.dataset,
        "dataset_config": arguments.dataset_config,
        "split": arguments.split,
        **({} if arguments.head is None else {"head": arguments.head}),
        **summarize(
            rows["label"][:],
            scores,
            rows["manipulation"][:],
            rows["group_id"][:],
            arguments.threshold,
            arguments.resamples,
            arguments.seed,
        ),
        "versions": {
            "deepfake_detectors": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    path = Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    logger.info("wrote %s", path)
    return results


def _rate_only(truth: np.ndarray, values: np.ndarray) -> float | None:
    balance = equal_error_rate(truth, values)
    return balance[0] if balance else None


def _ends(interval: Any) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}


def main(arguments: list[str] | None = None) -> None:
    """Command line entry."""
    run_command(evaluate_classifier, EvaluationArguments, arguments)


if __name__ == "__main__":
    main()
