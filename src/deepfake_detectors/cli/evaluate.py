"""`deepfake-detectors evaluate`: from a model or cached predictions to numbers, a report and plots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfake_detectors.cli.console import fail, say
from deepfake_detectors.cli.options import BatchSize, Device, Dtype, DtypeName, Model

if TYPE_CHECKING:
    from deepfake_detectors.evaluation.picture_sets import PictureSet
    from deepfake_detectors.evaluation.predictions import Prediction
    from deepfake_detectors.evaluation.protocols import Protocol

__all__ = ["evaluate"]

INPUT_ERRORS = (ValueError, OSError, ImportError)


def evaluate(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.json, report.md and the plots.")],
    model: Model = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Data set to score, such as ddvqa.")] = None,
    dataset_config: Annotated[str | None, typer.Option(metavar="NAME", help="Config of the data set.")] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the data set.")] = "test",
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Raw files of the data set. [default: $DEEPFAKE_DATA/NAME]")
    ] = None,
    real_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of real pictures.")] = None,
    fake_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of fake pictures.")] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Score these cached predictions instead of a model; may be repeated."),
    ] = None,
    references: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Reference explanations for --predictions.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="corrected, or paper:FAMILY as published, defects included.")
    ] = "corrected",
    threshold: Annotated[
        float, typer.Option(metavar="T", min=0.0, max=1.0, help="A picture counts as fake from this P(fake) on.")
    ] = 0.5,
    resamples: Annotated[
        int, typer.Option(metavar="N", min=0, help="Bootstrap resamples of the 95 % intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap, and of a protocol's coin.")] = 0,
    batch_size: BatchSize = 8,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
) -> None:
    """Measure how often a detector is right.

    \b
    Examples:
      deepfake-detectors evaluate --dataset ddvqa --data-dir ddvqa --output runs/default
      deepfake-detectors evaluate --model m2f2 --real-dir photos --fake-dir forgeries --output runs/mine
      deepfake-detectors evaluate --protocol paper:m2f2_det --predictions DDVQA_det_c40.jsonl --output runs/judgement
      deepfake-detectors evaluate --protocol paper:m2f2_det --predictions DDVQA_exp_c40.jsonl \\
          --references test_explanation.jsonl --output runs/explanation

    With a model, predictions are written to DIR/predictions.jsonl as they come; after an interruption the same
    command scores only what is missing. A prediction is one JSON object a line: id, label (real or fake), score
    (P(fake)) and/or text, and if known manipulation, category, video_id and group_id. Polarity is always explicit:
    fake pictures are the positive class unless a protocol says otherwise, which the report then states.

    The exit code is 0 on success, 1 if a picture could not be read or the model failed, 2 if the command or a file
    it was given was wrong.
    """
    if output.exists() and not output.is_dir():
        fail(f"--output {output} is a file; name a folder.")
    if predictions and model is not None:
        fail("--predictions are scored without a model: leave out --model or --predictions.")
    if references is not None and not predictions:
        fail("--references belong to --predictions.")
    if not predictions and dataset is None and real_dir is None and fake_dir is None:
        fail("nothing to evaluate: give --predictions, --dataset, or --real-dir and/or --fake-dir.")
    if dataset is not None and (real_dir is not None or fake_dir is not None):
        fail("give --dataset or folders, not both.")
    if dataset is None and (data_dir is not None or dataset_config is not None):
        fail("--data-dir and --dataset-config belong to --dataset.")

    from deepfake_detectors.evaluation.protocols import Settings, get_protocol
    from deepfake_detectors.evaluation.run_evaluation import evaluate_files, evaluate_rows, write_evaluation

    settings = Settings(threshold, resamples, seed)
    failures: dict[str, str] = {}
    try:
        rules = get_protocol(protocol)
        pictures = _pictures(dataset, dataset_config, split, data_dir, real_dir, fake_dir)
        if predictions:
            expected = pictures.ids if pictures else None
            results, rows = evaluate_files(predictions, references, rules, settings, expected)
            inputs: dict[str, Any] = {"predictions": [path.name for path in predictions]}
            if references is not None:
                inputs["references"] = references.name
        else:
            assert pictures is not None
            rows = _score(pictures, rules, model, output, batch_size, device, dtype, failures)
            inputs = {"model": model or "the demonstration detector in this package", "dtype": dtype.value}
            results = evaluate_rows(rows, rules, settings)
        if pictures is not None:
            inputs |= {"set": pictures.name, "pictures": len(pictures.rows), "unreadable": len(failures)}
        files = write_evaluation(results, rows, rules, settings, inputs, output)
    except INPUT_ERRORS as error:
        for name, message in list(failures.items())[:5]:
            say(f"{name}: {message}")
        fail(error)

    _summarise(results)
    say(f"Wrote {', '.join(path.name for path in files)} to {output}.")
    if failures:
        for name, message in list(failures.items())[:5]:
            say(f"{name}: {message}")
        fail(f"{len(failures)} pictures could not be read and are not in these numbers.", code=1)


def _pictures(
    dataset: str | None,
    config: str | None,
    split: str,
    data_dir: Path | None,
    real_dir: Path | None,
    fake_dir: Path | None,
) -> PictureSet | None:
    from deepfake_detectors.evaluation.picture_sets import data_set, folder_set

    if dataset is not None:
        import datasets

        datasets.disable_progress_bars()
        return data_set(dataset, config, split, data_dir)
    if real_dir is not None or fake_dir is not None:
        return folder_set(real_dir, fake_dir)
    return None


def _score(
    pictures: PictureSet,
    protocol: Protocol,
    model: str | None,
    output: Path,
    batch_size: int,
    device: str | None,
    dtype: DtypeName,
    failures: dict[str, str],
) -> list[Prediction]:
    from deepfake_detectors.cli.loading import load_pipeline
    from deepfake_detectors.evaluation.resumable import (
        PREDICTIONS_FILE,
        claim_folder,
        describe_model,
        describe_set,
        read_progress,
        score_missing,
    )
    from deepfake_detectors.modeling.detection import require_ability
    from deepfake_detectors.pipelines import resolve_model

    # What the numbers of a picture depend on. Rules and settings may change between runs.
    explain = protocol.needs == "text"
    run = {
        "model": describe_model(resolve_model(model)),
        "set": describe_set(pictures),
        "dtype": dtype.value,
        "explain": explain,
    }
    claim_folder(output, run)
    file = output / PREDICTIONS_FILE
    done = read_progress(file)
    missing = len(pictures.rows) - len(done)
    if done:
        say(f"{len(done)} of {len(pictures.rows)} pictures were scored before; {max(missing, 0)} are left.")
    if missing <= 0:
        return list(score_missing(_nothing_to_judge, pictures, file, done, batch_size, failures))
    detector = load_pipeline(model, device, dtype)
    if explain:
        require_ability(detector.model, "explain")

    def judge(images: list[Any]) -> list[dict[str, Any]]:
        try:
            options = {"explain": True} if explain else {}
            return detector(images, batch_size=batch_size, on_error="record", **options)
        except ValueError as error:  # unreadable pictures became rows: this is the model's own failure
            fail(error, code=1)

    rows = score_missing(judge, pictures, file, done, batch_size, failures)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        return list(track(rows, "Judging", len(pictures.rows), console=Console(stderr=True), transient=True))
    return list(rows)


def _nothing_to_judge(images: list[Any]) -> list[dict[str, Any]]:
    raise ValueError("The predictions do not cover the set, though as many. Choose another --output.")


def _summarise(results: dict[str, Any]) -> None:
    """The numbers on stdout, published and corrected side by side."""
    parts = [results[name] for name in ("judgement", "explanation") if name in results] or [results]
    for part in parts:
        corrected = part.get("corrected", {}).get("metrics", {})
        names = dict.fromkeys([*part["metrics"], *corrected])
        if corrected:
            typer.echo(f"{'':<26}{'published':>12}{'corrected':>12}")
        for name in names:
            columns = [part["metrics"].get(name), corrected.get(name)] if corrected else [part["metrics"].get(name)]
            typer.echo(f"{name:<26}" + "".join(f"{_number(entry):>12}" for entry in columns))
        for name, reason in {**part.get("corrected", {}).get("undefined", {}), **part["undefined"]}.items():
            say(f"{name} is undefined: {reason}.")
    for name, text in results.get("defects", {}).items():
        say(f"Defect of the published scorer, reproduced: {name}: {text}.")


def _number(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    return "undefined" if entry["value"] is None else f"{entry['value']:.6f}"
