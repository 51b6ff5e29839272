"""`deepfake-detectors evaluate`: from a model or cached predictions to numbers, a report and plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfake_detectors_cli.console import fail, say
from deepfake_detectors_cli.options import BatchSize, Device, Dtype, DtypeName, Model, parse_option

if TYPE_CHECKING:
    from deepfake_detectors.evaluation.picture_sets import PictureSet
    from deepfake_detectors.evaluation.predictions import Prediction

__all__ = ["evaluate"]

INPUT_ERRORS = (ValueError, OSError, ImportError)
FIT_FOLDER = "fit"


def evaluate(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.json, report.md and the plots.")],
    model: Model = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Data set to score, such as ddvqa, or a built folder.")
    ] = None,
    dataset_config: Annotated[str | None, typer.Option(metavar="NAME", help="Config of the data set.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A field of that config, such as masks=masks; repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the data set.")] = "test",
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Raw files of the data set. [default: $DEEPFAKE_DATA/NAME]")
    ] = None,
    real_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of real pictures.")] = None,
    fake_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of fake pictures.")] = None,
    mask_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Masks of the fakes, white where changed; same path or stem.")
    ] = None,
    twin_masks: Annotated[
        bool, typer.Option("--twin-masks", help="Of a data set: masks from each fake's difference to its real twin.")
    ] = False,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Score these cached predictions instead of a model; may be repeated."),
    ] = None,
    references: Annotated[Path | None, typer.Option(metavar="FILE", help="Reference explanations.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write explanations, and compare them with the references.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest explanation. [default: the detector's own]")
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="Compare explanations in meaning too, by this sentence encoder."),
    ] = None,
    spice: Annotated[bool, typer.Option("--spice", help="Run SPICE on explanations too; needs Java.")] = False,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="corrected, or paper:FAMILY as published, defects included.")
    ] = "corrected",
    threshold: Annotated[
        str,
        typer.Option(metavar="T", help="Fake from this P(fake) on: a number in [0, 1], or an operating point."),
    ] = "0.5",
    fit: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Fit platt, temperature, or keep (operating points alone)."),
    ] = None,
    fit_split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split to fit on. [default: the evaluated pictures]")
    ] = None,
    fit_predictions: Annotated[Path | None, typer.Option(metavar="FILE", help="Cached predictions to fit on.")] = None,
    save_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Store the fit with the model: a new folder, or the model's.")
    ] = None,
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
      deepfake-detectors evaluate --model lvlm-dfd --real-dir real --fake-dir fake --mask-dir masks --output runs/masks
      deepfake-detectors evaluate --model m2f2 --dataset faceforensics --data-dir FaceForensics --fit platt \\
          --fit-split validation --save-to m2f2-calibrated --threshold fpr@1% --output runs/calibrated
      deepfake-detectors evaluate --protocol paper:m2f2_det --predictions DDVQA_det_c40.jsonl --output runs/judgement
      deepfake-detectors evaluate --protocol paper:m2f2_det --predictions DDVQA_exp_c40.jsonl \\
          --references test_explanation.jsonl --output runs/explanation

    With a model, predictions are written to DIR/predictions.jsonl as they come; after an interruption the same
    command scores only what is missing. A prediction is one JSON object a line: id, label (real or fake), score
    (P(fake)) and/or text, and if known manipulation, category, video_id, group_id and set. Polarity is explicit:
    fake pictures are the positive class unless a protocol says otherwise, which the report then states. References
    are JSON lines {"<id>": {"answer": ["...", ...]}}.

    --fit makes the scores probabilities and names thresholds: eer, fpr@1% (at least 100 real pictures), fpr@0.1%
    (at least 1000). --save-to stores both with the model, for which pipeline(..., threshold="fpr@1%") then works.

    The exit code is 0 on success, 1 if a picture could not be read or the model failed, 2 if the command or a file
    it was given was wrong.
    """
    folders = real_dir is not None or fake_dir is not None
    for wrong, message in (
        (output.exists() and not output.is_dir(), f"--output {output} is a file; name a folder."),
        (
            predictions and (model is not None or explain),
            "--predictions are scored without a model: leave out --model and --explain, or --predictions.",
        ),
        (
            not predictions and dataset is None and not folders,
            "nothing to evaluate: give --predictions, --dataset, or --real-dir and/or --fake-dir.",
        ),
        (dataset is not None and folders, "give --dataset or folders, not both."),
        (
            dataset is None and (data_dir is not None or dataset_config is not None or option or twin_masks),
            "--data-dir, --dataset-config, --option and --twin-masks belong to --dataset.",
        ),
        (
            (similarity is not None or spice) and not (references is not None or explain),
            "--similarity and --spice compare explanations: give --references or --explain.",
        ),
        (mask_dir is not None and fake_dir is None, "--mask-dir belongs to --fake-dir."),
        (
            fit is None and (fit_split, fit_predictions, save_to) != (None, None, None),
            "--fit-split, --fit-predictions and --save-to belong to --fit.",
        ),
        (
            fit is not None and protocol != "corrected",
            f"--fit belongs to the protocol corrected: {protocol} scores as published, uncalibrated.",
        ),
        (
            fit_split is not None and (dataset is None or fit_predictions is not None or bool(predictions)),
            "--fit-split is a split of --dataset to be scored; otherwise give --fit-predictions.",
        ),
        (fit_split is not None and fit_split == split, f"--fit-split {fit_split} is the split that is evaluated."),
        (
            save_to is not None and (predictions or fit_predictions),
            "--save-to needs scores of the model as it is: give --model and pictures, not cached predictions.",
        ),
    ):
        if wrong:
            fail(message)

    from deepfake_detectors.evaluation.protocols.registry import get_protocol
    from deepfake_detectors.evaluation.run_evaluation import (
        evaluate_answers,
        evaluate_rows,
        read_rows,
        write_evaluation,
    )
    from deepfake_detectors.evaluation.settings import Settings
    from deepfake_detectors_cli.evaluate_fitting import at_point, fit_on, fit_rows_of, parse_threshold
    from deepfake_detectors_cli.evaluate_scoring import Detector, tell_unreadable

    failures: dict[str, str] = {}
    files: list[Path] = []
    try:
        rules = get_protocol(protocol)
        explains = explain or rules.needs == "text"
        if references is not None and not predictions and not explains:
            raise ValueError("--references are compared with explanations: give --explain, or --predictions.")
        if max_new_tokens is not None and (predictions or not explains):
            raise ValueError("--max-new-tokens is the length of an explanation: give --explain with it.")
        if save_to is not None:
            from deepfake_detectors.evaluation.calibrated_folder import check_target

            check_target(model, save_to)
        options = dict(parse_option(text) for text in option or [])

        fit_pictures = None
        if dataset is None:
            pictures = _folder_set(real_dir, fake_dir, mask_dir)
        else:
            source = (dataset, dataset_config, data_dir, options)
            pictures = _data_set(*source, split, twin_masks)
            if fit_split is not None:
                fit_pictures = _data_set(*source, fit_split)
        detector = None if predictions else Detector(model, device, dtype, batch_size)
        points = {} if detector is None else dict(detector.config.operating_points)
        given = parse_threshold(threshold, points, fit)
        settings = Settings(0.5 if given is None else given, resamples, seed, similarity, spice)

        rows: list[Prediction] | None
        if detector is None:
            rows = read_rows(predictions or [], rules, pictures.rows if pictures else None)
            inputs: dict[str, Any] = {"predictions": [path.name for path in predictions or []]}
        else:
            assert pictures is not None
            rows = detector.score(pictures, output, explains, failures, max_new_tokens)
            inputs = {"model": model or "the demonstration detector in this package", "dtype": dtype.value}
        if references is not None:
            inputs["references"] = references.name

        calibration = None
        if rows is None:
            if fit is not None:
                raise ValueError("--fit needs predictions with scores, not answers in words.")
            expected = pictures.ids if pictures else None
            results = evaluate_answers(predictions or [], references, rules, settings, expected)
        else:
            judged = rows
            if fit is not None:
                fitted = None
                if fit_predictions is not None:
                    fitted = fit_rows_of(fit_predictions, rules), fit_predictions.name
                elif fit_pictures is not None and detector is not None:
                    unused: dict[str, str] = {}  # a picture that cannot be read is not fitted on
                    fitted = detector.score(fit_pictures, output / FIT_FOLDER, False, unused), fit_pictures.name
                    tell_unreadable(unused)
                calibration = fit_on(fit, rows, fitted, settings)
                judged = calibration.apply(rows)
                if given is None:
                    settings = at_point(settings, threshold, calibration)
            results = evaluate_rows(judged, rules, settings)
            if calibration is not None:
                results["calibration"] = calibration.describe(rows, settings)
            results |= _extras(rows, pictures, references, explains, failures, output, rules, settings, detector)
            rows = judged
        if pictures is not None:
            inputs |= {"set": pictures.name, "pictures": len(pictures.rows), "unreadable": len(failures)}
            if "localisation" in results:
                inputs["masks"] = pictures.mask_source
            if pictures.remarks:
                inputs["note"] = "; ".join(pictures.remarks)
        if detector is not None:  # `publish` asks whether the numbers are of the model it publishes
            from deepfake_detectors.files import weights_digest

            judge = {"model_type": detector.config.model_type, "weights": weights_digest(detector.source)}
            results = {**judge, **results}
        files = write_evaluation(results, rows or [], rules, settings, inputs, output)
        if save_to is not None and calibration is not None and detector is not None:
            from deepfake_detectors.evaluation.calibrated_folder import save_calibrated

            save_calibrated(detector.source, save_to, calibration, results["calibration"])
    except INPUT_ERRORS as error:
        tell_unreadable(failures)
        fail(error)

    from deepfake_detectors_cli.evaluate_summary import summarise

    summarise(results)
    say(f"Wrote {', '.join(path.name for path in files)} to {output}.")
    if save_to is not None:
        say(f"Stored calibration and operating points in {save_to}.")
    if failures:
        tell_unreadable(failures)
        fail(f"{len(failures)} pictures could not be read and are not in these numbers.", code=1)


def _data_set(
    dataset: str,
    config: str | None,
    data_dir: Path | None,
    options: dict[str, Any],
    split: str,
    twin_masks: bool = False,
) -> PictureSet:
    import datasets

    from deepfake_detectors.evaluation.picture_sets import data_set

    datasets.disable_progress_bars()
    return data_set(dataset, config, split, data_dir, options, twin_masks)


def _folder_set(real_dir: Path | None, fake_dir: Path | None, mask_dir: Path | None) -> PictureSet | None:
    from deepfake_detectors.evaluation.picture_sets import folder_set

    return None if real_dir is None and fake_dir is None else folder_set(real_dir, fake_dir, mask_dir)


def _extras(
    rows: list[Prediction],
    pictures: PictureSet | None,
    references: Path | None,
    explains: bool,
    failures: Mapping[str, str],
    output: Path,
    rules: Any,
    settings: Any,
    detector: Any,
) -> dict[str, Any]:
    """What a set allows besides verdicts: explanations, masks, and the control of its files."""
    found: dict[str, Any] = {}
    texts = None
    if references is not None:
        from deepfake_detectors.evaluation.answer_files import read_references

        texts = read_references(references)
    elif pictures is not None and explains:
        texts = pictures.references
    if texts is not None:
        from deepfake_detectors.evaluation.run_evaluation import explanation_results

        written = {name: several for name, several in texts.items() if name not in failures}
        found["explanation"] = explanation_results(rows, written, rules, settings)
    if pictures is not None:
        from deepfake_detectors.evaluation.shortcut_control import bytes_per_pixel_control

        found["control"] = bytes_per_pixel_control(pictures.rows, pictures.images, settings.resamples, settings.seed)
    if detector is None or pictures is None or pictures.masks is None:
        return found
    if not detector.localises:
        say("This detector cannot localize, so that the masks of the set are not used.")
    else:
        from deepfake_detectors.evaluation.localisation import LOCALISATION_FILE, score_localisation

        file = output / LOCALISATION_FILE
        found["localisation"] = score_localisation(file, rows, settings.resamples, settings.seed)
    return found
