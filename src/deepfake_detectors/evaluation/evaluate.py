"""`evaluate()`: from a model or cached predictions to metrics, with fits, comparisons and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepfake_detectors.corruptions import Corruption, corruption_set
from deepfake_detectors.evaluation.bands import DecisionBand
from deepfake_detectors.evaluation.bands import fit_band as fit_decision_band
from deepfake_detectors.evaluation.control import bytes_per_pixel_control
from deepfake_detectors.evaluation.covering import COVERING, covered_sets, covering_results
from deepfake_detectors.evaluation.endpoint import REQUEST_TIMEOUT, EndpointDetector, one_kind
from deepfake_detectors.evaluation.explanation_checks import check_explanations
from deepfake_detectors.evaluation.fitting import (
    Calibration,
    calibrate,
    check_target,
    save_calibrated,
    threshold_value,
)
from deepfake_detectors.evaluation.localisation import score_localisation
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction, read_references, read_rows
from deepfake_detectors.evaluation.predictors import Predictor, PredictorDetector
from deepfake_detectors.evaluation.protocols import DEFAULT_PROTOCOL, Protocol, evaluate_rows, get_protocol
from deepfake_detectors.evaluation.protocols.m2f2_det import evaluate_answers
from deepfake_detectors.evaluation.regions import score_regions
from deepfake_detectors.evaluation.report import CHECKS, WRITTEN_FILES, Results, results_content
from deepfake_detectors.evaluation.result_files import read_labels, read_result_array
from deepfake_detectors.evaluation.robustness import corrupted_set, robustness_results, variant_folder
from deepfake_detectors.evaluation.scoring import Detector, Progress, Scored
from deepfake_detectors.evaluation.sets import PictureSet, cut_faces, data_set, folder_set
from deepfake_detectors.evaluation.texts import explanation_results
from deepfake_detectors.examination.clips import ClipView
from deepfake_detectors.examination.crops import crop_recipe
from deepfake_detectors.examination.faces import DEFAULT_FINDER
from deepfake_detectors.modeling.image_loading import DECODING
from deepfake_detectors.outputs import refuse_inputs

__all__ = ["evaluate"]

FIT_FOLDER = "fit"
DEFAULT_FALSE_ALARM_RATE = 0.05
DEFAULT_BATCH_SIZE = 8
# How a detector judges where the call does not say it.
WAYS: dict[str, Any] = {
    "batch_size": DEFAULT_BATCH_SIZE,
    "num_workers": 0,
    "max_pixels": None,
    "decoding": "full",
    "device": None,
    "dtype": "auto",
}


def evaluate(
    model: str | Path | Predictor | Detector | None = None,
    *,
    endpoint: str | None = None,
    model_name: str | None = None,
    family: str | None = None,
    request_timeout: float = REQUEST_TIMEOUT,
    dataset: str | Path | None = None,
    dataset_config: str | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    split: str = "test",
    data_dir: str | Path | None = None,
    real_dir: str | Path | None = None,
    fake_dir: str | Path | None = None,
    mask_dir: str | Path | None = None,
    twin_masks: bool = False,
    frames: int = 32,
    crop: str | None = None,
    finder: str = DEFAULT_FINDER,
    predictions: str | Path | Sequence[str | Path] | None = None,
    labels: str | Path | None = None,
    references: str | Path | None = None,
    explain: bool = False,
    max_new_tokens: int | None = None,
    similarity: str | None = None,
    spice: bool = False,
    protocol: str = DEFAULT_PROTOCOL,
    threshold: float | str = 0.5,
    fit: str | None = None,
    fit_split: str | None = None,
    fit_predictions: str | Path | None = None,
    save_to: str | Path | None = None,
    fit_band: bool = False,
    false_alarm_rate: float | None = None,
    head: str | None = None,
    robustness: str | None = None,
    cover_regions: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH_SIZE,
    num_workers: int = 0,
    decoding: str = "full",
    max_pixels: int | None = None,
    device: str | None = None,
    dtype: str = "auto",
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Measure the accuracy of a detector.

    ```python
    evaluate("m2f2-det-mini", dataset="ddvqa", data_dir="ddvqa").save("report/")
    evaluate("m2f2", real_dir="photos", fake_dir="forgeries").metrics["auc"]["value"]
    ```

    Args:
        model: folder, Hub id or name of a built-in checkpoint; the default is the demonstration detector. Or an object
            with `predict(paths)` that returns P(fake) of each file. Or a `Detector`, which loads its weights once for
            all its calls; device, dtype, batch size, workers and `max_pixels` are its own, and those given here must
            agree.
        endpoint: address of a server that speaks OpenAI's chat completions, such as `"http://localhost:8000/v1"`: it
            answers in place of a model, see `evaluation.endpoint`. Hosts of an inner network are fine.
        model_name: what that server calls the model.
        family: of a stock folder, as in `pipeline`. With `endpoint`, whose question is asked there, and by whose rule
            its answers are read, such as `"fakevlm"`; by default that of the Hub id `model_name`, else `"chat_vlm"`.
        request_timeout: seconds for one answer of the server.
        dataset: name of a dataset, such as `"ddvqa"`; a built folder; or a CSV file `img_path,label`.
        dataset_config: config of the dataset.
        dataset_options: fields of that config, such as `{"masks": "masks"}`.
        split: split of the dataset.
        data_dir: raw files of the dataset; by default `$DEEPFAKE_DATA/NAME`.
        real_dir: folder of real images.
        fake_dir: folder of fake images; its subfolders name the manipulations.
        mask_dir: masks of the fakes, white where manipulated, with the same path or stem.
        twin_masks: derive masks from the differences between fakes of the dataset and their real twins.
        frames: number of evenly spaced frames per video in `real_dir` and `fake_dir`.
        crop: name of a crop recipe (`examination.crops.CROP_RECIPES`): crop the largest face of every image and frame;
            `"none"` for whole images. By default videos are cropped with the recipe of a checkpoint for faces, and
            images and datasets are not cropped.
        finder: name of the face finder.
        predictions: files of cached predictions to score instead of a model. JSON lines with `id`, `label` (`"real"`
            or `"fake"`), `score` (P(fake)) and/or `text`, and if known `manipulation`, `category`, `video_id`,
            `group_id` and `set`; or a table of frame scores; or M2F2-Det's published answers.
        labels: file with labels for `predictions` without any: FakeVLM's scripts write a JSON array of answers, whose
            labels are in FakeClue's `test.json`; its answers are then the references.
        references: file of reference explanations, JSON lines `{"<id>": {"answer": ["...", ...]}}`.
        explain: also write explanations, and compare them with the references.
        max_new_tokens: maximum length of explanations, or of a server's answers; by default the detector's own limit.
        similarity: sentence encoder (folder or Hub id) for also comparing explanations by meaning.
        spice: also score explanations with SPICE; needs Java.
        protocol: `"corrected"`, or `"paper:FAMILY"` to score as published, including known defects.
        threshold: P(fake) in [0, 1] at or above which an image counts as fake, or the name of an operating point.
        fit: calibration to fit, `"platt"` or `"temperature"`, or `"keep"` for operating points only.
        fit_split: split of the dataset to fit on; by default the evaluated images.
        fit_predictions: file of cached predictions to fit on.
        save_to: save the model with the fit, in a new folder or its own.
        fit_band: fit a decision band ("likely fake", "likely real", "inconclusive") on the evaluated images, with half
            of the groups set aside to measure it; `bands` explains the guarantee.
        false_alarm_rate: largest share of real images that may be called "likely fake", in (0, 0.5); 0.05 if `None`.
        head: head to measure, such as `"face"`, for a checkpoint with several.
        robustness: also measure re-encoded, resized and cropped images at the same threshold: `"light"`, `"full"`,
            `"fakevlm-table7"`, or names of corruptions such as `"jpeg-70,messenger"`; see
            `deepfake_detectors.corruptions`.
        cover_regions: also score images with the face regions named in their explanations covered, and with the same
            shape covered elsewhere, as a control; images must be crops of one face. Requires `explain`.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none.
        seed: seed of the bootstrap, of a protocol's random choices, and of noise added to images.
        batch_size: images per forward pass.
        num_workers: threads that load and prepare images while the model judges others; the numbers are the same.
        decoding: `"full"`, or `"draft"`: large JPEG files are decoded in a smaller size, which changes pixels, and so
            scores a little. The results say so. Not for what is stored with a model, published or compared at full
            size: `fit`, `fit_band`, other protocols, `crop`, `robustness` and `cover_regions`.
        max_pixels: width times height of an image that is decoded, by default 100 million.
        device: such as `"cuda:0"`; by default the first accelerator, or the CPU.
        dtype: `"auto"` (as saved), `"float32"`, `"bfloat16"` or `"float16"`.
        output: folder to which predictions are written immediately, so that after an interruption the same call scores
            only what is missing; `None` keeps them in memory. `Results.save` writes the rest.
        progress: called with the number of images done and the total, first before any image is scored.

    Returns:
        The results. Images that cannot be read are left out and listed in `failures`.

    Raises:
        ValueError: for contradictory or out-of-range parameters, broken files, a folder of another run, datasets that
            lack data for the protocol, and models that are not detectors.
        OSError: for a missing file, folder or model.
        ImportError: for a missing library, naming the extra.
        DetectorError: if the detector itself fails.
    """
    files = [predictions] if isinstance(predictions, (str, Path)) else list(predictions or [])
    cached = [Path(file) for file in files]
    real, fake, masks = (None if path is None else Path(path) for path in (real_dir, fake_dir, mask_dir))
    folder, target = (None if path is None else Path(path) for path in (output, save_to))
    loaded = model if isinstance(model, Detector) else None
    if loaded is not None:
        ways = {"batch_size": batch_size, "num_workers": num_workers, "max_pixels": max_pixels}
        _refuse_other_ways(loaded, {**ways, "decoding": decoding, "device": device, "dtype": dtype})
        model, dtype, max_pixels, decoding = loaded.model, loaded.dtype, loaded.max_pixels, loaded.decoding
    predictor = None if model is None or isinstance(model, (str, Path, Detector)) else model
    name = model if predictor is None and model is not None else None
    model = None if name is None else str(name)
    corruptions: tuple[Corruption, ...] = () if robustness is None else corruption_set(robustness)
    rules = get_protocol(protocol)
    explains = explain or rules.needs == "text"
    cuts = crop not in (None, "none")
    _refuse(
        (
            predictor is not None and not isinstance(predictor, Predictor),
            f"`model` is a {type(predictor).__name__}, expected a folder, a name, or an object with `predict(paths)`.",
        ),
        (
            predictor is not None and (explains or save_to is not None or head is not None),
            "`model` is an object with `predict`: leave out `explain`, `head` and `save_to`.",
        ),
        (
            robustness is not None and (bool(cached) or protocol != DEFAULT_PROTOCOL),
            f"`robustness` needs a model and images, and the protocol {DEFAULT_PROTOCOL}.",
        ),
        (
            folder is not None and folder.exists() and not folder.is_dir(),
            f"`output` {folder} is a file; it must be a folder.",
        ),
        (
            bool(cached) and (model is not None or loaded is not None or predictor is not None or explain),
            "`predictions` are scored without a model: leave out either `model` and `explain`, or `predictions`.",
        ),
        (
            family is not None and model is None and endpoint is None,
            "`family` only applies to a stock `model`: also pass `model`, a folder or Hub id.",
        ),
        (
            not cached and dataset is None and real is None and fake is None,
            "There is nothing to evaluate: pass `predictions`, `dataset`, or `real_dir` and/or `fake_dir`.",
        ),
        (dataset is not None and (real is not None or fake is not None), "Pass `dataset` or folders, not both."),
        (
            dataset is None and bool(data_dir or dataset_config or dataset_options or twin_masks),
            "`data_dir`, `dataset_config`, `dataset_options` and `twin_masks` require `dataset`.",
        ),
        (
            (similarity is not None or spice) and (references, labels) == (None, None) and not explain,
            "`similarity` and `spice` compare explanations: pass `references` or `explain`.",
        ),
        (
            references is not None and not cached and not explains,
            "`references` are compared with explanations: pass `explain` or `predictions`.",
        ),
        (
            max_new_tokens is not None and (bool(cached) or not (explains or endpoint is not None)),
            "`max_new_tokens` limits explanations: also pass `explain`.",
        ),
        (
            labels is not None and (len(cached) != 1 or dataset is not None or real is not None or fake is not None),
            "`labels` belong to a single file of `predictions`: pass only that file.",
        ),
        (
            cover_regions and (not explain or protocol != DEFAULT_PROTOCOL),
            f"`cover_regions` covers regions named in explanations: also pass `explain`, and use the protocol "
            f"{DEFAULT_PROTOCOL}.",
        ),
        (masks is not None and fake is None, "`mask_dir` requires `fake_dir`."),
        (
            endpoint is None and model_name is not None,
            "`model_name` requires `endpoint`.",
        ),
        (
            endpoint is not None and model_name is None,
            "`endpoint` needs `model_name`, the name of the model on its server.",
        ),
        (
            endpoint is not None and (model is not None or predictor is not None or bool(cached)),
            "The server of `endpoint` replaces a model: leave out `model` and `predictions`.",
        ),
        (
            endpoint is not None
            and ((head, robustness, save_to, device) != (None, None, None, None) or dtype != "auto"),
            "`head`, `robustness`, `save_to`, `device` and `dtype` only apply to a local model: leave them out with "
            "`endpoint`.",
        ),
    )
    _refuse_fit(fit, protocol, split, fit_split, fit_predictions, save_to, dataset is not None, bool(cached), fit_band)
    _refuse(
        (
            head is not None and bool(cached),
            "`head` applies to a model, but `predictions` are scored without one.",
        ),
        (false_alarm_rate is not None and not fit_band, "`false_alarm_rate` requires `fit_band`."),
        (
            fit_band and protocol != DEFAULT_PROTOCOL,
            f"`fit_band` requires the protocol {DEFAULT_PROTOCOL}: {protocol} scores as published.",
        ),
    )
    _refuse(
        (resamples < 0, f"`resamples` is {resamples}, expected 0 or more."),
        (max_pixels is not None and max_pixels < 1, f"`max_pixels` is {max_pixels}, expected 1 or more."),
        (batch_size < 1, f"`batch_size` is {batch_size}, expected 1 or more."),
        (num_workers < 0, f"`num_workers` is {num_workers}, expected 0 or more."),
        (
            num_workers > 0 and (predictor is not None or endpoint is not None or bool(cached)),
            "`num_workers` prepare images for a model of this package: leave it out.",
        ),
        (decoding not in DECODING, f"`decoding` is {decoding!r}, expected one of {', '.join(map(repr, DECODING))}."),
        (
            decoding != "full" and (predictor is not None or endpoint is not None or bool(cached)),
            "`decoding` is how a model of this package is given its images: leave it out.",
        ),
        (
            decoding != "full"
            and ((fit, robustness, protocol) != (None, None, DEFAULT_PROTOCOL) or fit_band or cover_regions or cuts),
            "`decoding` 'draft' changes pixels: leave it out with `fit`, `fit_band`, `crop`, `robustness`, "
            f"`cover_regions` and protocols other than {DEFAULT_PROTOCOL}.",
        ),
        (frames < 1, f"`frames` is {frames}, expected 1 or more."),
        (
            max_new_tokens is not None and max_new_tokens < 1,
            f"`max_new_tokens` is {max_new_tokens}, expected 1 or more.",
        ),
    )
    if folder is not None:
        files_read = [*cached, *(file for file in (references, labels, fit_predictions) if file is not None)]
        refuse_inputs([folder / name for name in WRITTEN_FILES], files_read)
        refuse_inputs([folder], [place for place in (real, fake, masks, data_dir, dataset) if place is not None])
    if target is not None:
        check_target(model, target)

    detector: Detector | PredictorDetector | EndpointDetector | None = None
    if endpoint is not None:
        detector = EndpointDetector(endpoint, str(model_name), family, batch_size, max_pixels, request_timeout)
    elif predictor is not None:
        detector = PredictorDetector(predictor, batch_size, max_pixels)
    elif not cached:
        detector = loaded or Detector(model, device, dtype, batch_size, max_pixels, family, num_workers, decoding)
    recipe = None if crop in (None, "none") else crop_recipe(crop)

    def view() -> ClipView:  # a named recipe crops everything, below
        own = detector.face_recipe(head) if crop is None and detector is not None else None
        return ClipView(frames, own, finder)

    pictures = fit_pictures = None
    if dataset is not None:
        source = (str(dataset), dataset_config, data_dir, dict(dataset_options or {}))
        pictures = data_set(*source, split=split, twin_masks=twin_masks)
        if fit_split is not None:
            fit_pictures = data_set(*source, split=fit_split)
    elif real is not None or fake is not None:
        pictures = folder_set(real, fake, masks, view)
    if recipe is not None:
        pictures, fit_pictures = (
            None if found is None else cut_faces(found, recipe, finder) for found in (pictures, fit_pictures)
        )
    given = threshold_value(threshold, {} if detector is None else detector.reported(head, "operating_points"), fit)
    settings = Settings(0.5 if given is None else given, resamples, seed, similarity, spice)

    inputs: dict[str, Any] = {"predictions": [file.name for file in cached]}
    scored: Scored | None = None
    if detector is not None and pictures is not None:
        named = model or "the demonstration detector in this package"
        own = isinstance(detector, Detector)
        inputs = {"model": named, "dtype": dtype} if own else {"model": detector.source}
        if head is not None:
            inputs["head"] = head
        if decoding != "full":
            inputs["decoding"] = decoding
        scored = detector.score(pictures, folder, explains, max_new_tokens, progress, head)
    known = None if pictures is None else pictures.rows
    listed = None if labels is None else read_labels(Path(labels), rules.integer_labels)
    rows: list[Prediction] | None
    if scored is not None:
        rows = scored.rows
    elif listed is not None:
        rows = read_result_array(cached[0], listed, Path(str(labels)))
        inputs["labels"] = Path(str(labels)).name
    else:
        rows = read_rows(cached, rules.integer_labels, rules.official_answers, known)
    failures = {} if scored is None else scored.failures
    if failures and not rows:
        name, message = next(iter(failures.items()))
        raise ValueError(f"None of {len(failures)} images could be read. The first error is {name}: {message}")
    if references is not None:
        inputs["references"] = Path(references).name

    remarks: list[str] = []
    if isinstance(detector, EndpointDetector) and rows:
        rows, told = one_kind(rows)
        remarks += told
        if rules.name == DEFAULT_PROTOCOL:
            settings = replace(settings, answers_of=detector.family)
    calibration: Calibration | None = None
    band: DecisionBand | None = None
    if rows is None:
        if fit is not None or fit_band:
            raise ValueError("`fit` and `fit_band` need predictions with scores, not answers in words.")
        texts = None if references is None else Path(references)
        results = evaluate_answers(cached, texts, rules, settings, None if pictures is None else pictures.ids)
        judged: list[Prediction] = []
    else:
        judged = rows
        if fit is not None:
            fitted: tuple[list[Prediction], str] | None = None
            if fit_predictions is not None:
                fitted = _fit_rows(Path(fit_predictions), rules), Path(fit_predictions).name
            elif fit_pictures is not None and detector is not None:
                inside = None if folder is None else folder / FIT_FOLDER
                of_fit = detector.score(fit_pictures, inside, progress=progress, head=head)
                fitted = of_fit.rows, fit_pictures.name
                remarks += [f"Not fitted on: {name}: {message}" for name, message in of_fit.failures.items()]
            # Without separate images, a fit is measured on its own images, which is reported.
            calibration = (
                calibrate(fit, rows, "the evaluated images", None, settings)
                if fitted is None
                else calibrate(fit, *fitted, rows, settings)
            )
            judged = calibration.apply(rows)
            if given is None:
                settings = replace(settings, threshold=_fitted_point(str(threshold), calibration))
        results = evaluate_rows(judged, rules, settings)
        if calibration is not None:
            results["calibration"] = calibration.describe(rows, settings)
        if fit_band:
            kind = "the given predictions" if pictures is None else pictures.name
            rate = DEFAULT_FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
            band = fit_decision_band(judged, rate, fitted_on=kind, seed=seed)
            results["decision_band"] = {**band.to_config(), "counts": band.counts, "curve": band.curve}
        of_list = None if listed is None else {row.id: row.references for row in listed if row.references}
        results |= _explanations(rows, pictures, references, of_list, explains, failures, rules, settings)
        if pictures is not None:
            bootstrap = (settings.resamples, settings.seed)
            results["control"] = bytes_per_pixel_control(*_with_files(judged, pictures), *bootstrap)
            if scored is not None and "masks" in scored.run:
                results["localisation"] = score_localisation(scored.pixel_counts(), rows, *bootstrap)
            elif scored is not None and pictures.masks is not None:
                remarks.append("This detector cannot localize, so the masks of the dataset are not used.")
            if pictures.masks is not None:
                masks_of = dict(zip(pictures.ids, range(len(pictures.ids)), strict=True))
                true_masks = pictures.masks
                found = score_regions(rows, lambda name: true_masks[masks_of[name]], *bootstrap)
                results |= {} if found is None else {"regions": found}
        if cover_regions and detector is not None and pictures is not None:
            covered = covered_sets(pictures, rows, seed, max_pixels)
            again: dict[str, list[Prediction]] = {}
            for kind, with_cover in covered.sets.items():
                inside = None if folder is None else folder / COVERING / kind
                of_kind = detector.score(with_cover, inside, progress=progress, head=head).rows
                again[kind] = of_kind if calibration is None else calibration.apply(of_kind)
            results[COVERING] = covering_results(judged, again, covered.counts, settings)
        if corruptions and detector is not None and pictures is not None:
            swept: dict[Corruption, list[Prediction]] = {}
            for corruption in corruptions:
                changed = corrupted_set(pictures, corruption, seed, max_pixels)
                place = variant_folder(folder, corruption)
                after = detector.score(changed, place, progress=progress, head=head).rows
                swept[corruption] = after if calibration is None else calibration.apply(after)
            results["robustness"] = robustness_results(str(robustness), judged, swept, settings, seed)
    if pictures is not None:
        inputs |= {"set": pictures.name, "pictures": len(pictures.rows), "unreadable": len(failures)}
        if "localisation" in results:
            inputs["masks"] = pictures.mask_source
        if pictures.remarks:
            inputs["note"] = "; ".join(pictures.remarks)
    if detector is not None:  # publishing checks that the numbers belong to the published model
        results = {**detector.facts, **results}
        if target is not None and isinstance(detector, Detector):
            save_calibrated(detector.source, target, calibration, results.get("calibration"), band, head, family)
    content = results_content(rules, inputs, results)
    return Results(content, judged, failures, remarks, settings.threshold, scored, band)


def _refuse(*cases: tuple[bool, str]) -> None:
    """Raise a `ValueError` for the first case that applies."""
    for wrong, message in cases:
        if wrong:
            raise ValueError(message)


def _refuse_other_ways(loaded: Detector, given: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where the call asks for another way of judging than the loaded detector's."""
    for name, value in given.items():
        own, default = getattr(loaded, name), WAYS[name]
        if value not in (own, default):
            raise ValueError(f"`{name}` is {value}, but `model` is a loaded detector with {own}: leave it out.")


def _refuse_fit(
    fit: str | None,
    protocol: str,
    split: str,
    fit_split: str | None,
    fit_predictions: str | Path | None,
    save_to: str | Path | None,
    of_dataset: bool,
    of_predictions: bool,
    fit_band: bool,
) -> None:
    """Raise a `ValueError` for contradictory parameters of a fit."""
    _refuse(
        (
            fit is None and (fit_split, fit_predictions) != (None, None),
            "`fit_split` and `fit_predictions` require `fit`.",
        ),
        (
            fit is None and not fit_band and save_to is not None,
            "`save_to` saves a fit: also pass `fit` or `fit_band`.",
        ),
        (
            fit is not None and protocol != DEFAULT_PROTOCOL,
            f"`fit` requires the protocol {DEFAULT_PROTOCOL}: {protocol} scores as published, uncalibrated.",
        ),
        (
            fit_split is not None and (not of_dataset or fit_predictions is not None or of_predictions),
            "`fit_split` is a split of `dataset` to score; otherwise pass `fit_predictions`.",
        ),
        (fit_split is not None and fit_split == split, f"`fit_split` {fit_split} is also the evaluated split."),
        (
            save_to is not None and (of_predictions or fit_predictions is not None),
            "`save_to` needs current scores of the model: pass `model` and images, not cached predictions.",
        ),
    )


def _fit_rows(file: Path, protocol: Protocol) -> list[Prediction]:
    """Read the predictions of `fit_predictions`."""
    rows = read_rows([file], protocol.integer_labels, protocol.official_answers)
    if rows is None:
        raise ValueError(f"`fit_predictions` {file} contains answers in words, but a fit needs scores.")
    return rows


def _fitted_point(name: str, calibration: Calibration) -> float:
    """Return the threshold of a fitted operating point."""
    if name in calibration.points.unavailable:
        raise ValueError(f"`threshold` {name} could not be fitted: {calibration.points.unavailable[name]}.")
    return calibration.points.values[name]


def _with_files(rows: list[Prediction], pictures: PictureSet) -> tuple[list[Prediction], list[Any]]:
    """Return the known data of every image, with available scores, and its location."""
    judged = {row.id: row for row in rows}
    pairs = [
        (judged[row.id], file) for row, file in zip(pictures.rows, pictures.files, strict=True) if row.id in judged
    ]
    return [row for row, _ in pairs], [file for _, file in pairs]


def _explanations(
    rows: list[Prediction],
    pictures: PictureSet | None,
    references: str | Path | None,
    of_list: dict[str, list[str]] | None,
    explains: bool,
    failures: Mapping[str, str],
    rules: Protocol,
    settings: Settings,
) -> dict[str, Any]:
    """Compare explanations with the given references, or else with those of the dataset."""
    texts = None
    if references is not None:
        texts = read_references(Path(references))
    elif of_list:
        texts = of_list
    elif pictures is not None and explains:
        texts = pictures.references
    written = None if texts is None else {name: few for name, few in texts.items() if name not in failures}
    found: dict[str, Any] = {}
    if written is not None:
        found["explanation"] = explanation_results(rows, written, settings, rules.rouge_score)
    if rules.name == DEFAULT_PROTOCOL and rows and (explains or written is not None):
        found[CHECKS] = check_explanations(rows, written, settings)
    return found
