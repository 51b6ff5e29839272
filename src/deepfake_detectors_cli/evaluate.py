"""`deepfake-detectors evaluate`: measure a detector, print the metrics and write the report."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfake_detectors_cli.console import WorkFailed, fail, make_room_for_workers, say, show, work
from deepfake_detectors_cli.options import (
    BatchSize,
    Decoding,
    DecodingName,
    Device,
    Dtype,
    DtypeName,
    Family,
    MaxPixels,
    Model,
    NumWorkers,
    parse_option,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from deepfake_detectors.evaluation.report import Results

__all__ = ["evaluate"]

TOLD = 5  # number of unreadable images that are listed by name
FLAGS = {"dataset_options": "--option"}  # flags that are not named after their parameter
PARAMETERS = frozenset(
    "model endpoint model_name family request_timeout "
    "dataset dataset_config dataset_options split data_dir real_dir fake_dir mask_dir twin_masks frames crop "
    "finder predictions labels references explain max_new_tokens similarity spice protocol threshold fit fit_split "
    "fit_predictions save_to fit_band false_alarm_rate head robustness cover_regions resamples seed batch_size "
    "num_workers decoding max_pixels device dtype output".split()
)


def evaluate(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.json, report.md and the plots.")],
    model: Model = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask this OpenAI-compatible server instead of a local model, such as http://localhost:8000/v1.",
        ),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model on the server given by --endpoint.")
    ] = None,
    family: Family = None,
    request_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Timeout for one answer of the server.")
    ] = 120.0,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Dataset, such as ddvqa; a built folder; or a CSV file with img_path,label."
        ),
    ] = None,
    dataset_config: Annotated[str | None, typer.Option(metavar="NAME", help="Config of the dataset.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A field of the config, such as masks=masks; repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the dataset.")] = "test",
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the raw files of the dataset. [default: $DEEPFAKE_DATA/NAME]"),
    ] = None,
    real_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of real images.")] = None,
    fake_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of fake images.")] = None,
    mask_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of masks for the fakes, white where manipulated, with the same path or stem."
        ),
    ] = None,
    twin_masks: Annotated[
        bool,
        typer.Option(
            "--twin-masks",
            help="Derive masks from the difference between each fake and its real counterpart in the dataset.",
        ),
    ] = False,
    frames: Annotated[
        int, typer.Option(metavar="N", min=1, help="Frames to take from each video in the folders.")
    ] = 32,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Crop the largest face of every image and frame; none for no cropping. [default: for videos, the "
            "checkpoint's own]",
        ),
    ] = None,
    finder: Annotated[str, typer.Option(metavar="NAME", help="Face finder: centerface or dlib.")] = "centerface",
    predictions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Score these cached predictions instead of a model; repeatable."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels for predictions without any, such as FakeClue's test.json."),
    ] = None,
    references: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Reference explanations to compare with.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write explanations, and compare them with the references.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest explanation. [default: the detector's own]")
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="Also compare explanations by meaning, with this sentence encoder."),
    ] = None,
    spice: Annotated[bool, typer.Option("--spice", help="Also score explanations with SPICE; needs Java.")] = False,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="corrected, or paper:FAMILY to score as published, including known defects."
        ),
    ] = "corrected",
    threshold: Annotated[
        str,
        typer.Option(
            metavar="T",
            help="P(fake) at or above which an image is called fake: a number in [0, 1], or "
            "the name of an operating point.",
        ),
    ] = "0.5",
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="Calibration to fit: platt, temperature, or keep (operating points only)."
        ),
    ] = None,
    fit_split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split to fit on. [default: the evaluated pictures]")
    ] = None,
    fit_predictions: Annotated[Path | None, typer.Option(metavar="FILE", help="Cached predictions to fit on.")] = None,
    save_to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Save the model with the fit: in a new folder, or in the model's own."),
    ] = None,
    fit_band: Annotated[
        bool, typer.Option("--fit-band", help="Fit the limits of likely fake and likely real.")
    ] = False,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Share of real images that the band may call likely fake. [default: 0.05]"),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Head to measure, if the checkpoint has several.")
    ] = None,
    robustness: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Also score altered images: light, full, fakevlm-table7, or names such as jpeg-70,messenger.",
        ),
    ] = None,
    cover_regions: Annotated[
        bool,
        typer.Option(
            "--cover-regions", help="With --explain: score each image again with the regions it names covered."
        ),
    ] = False,
    resamples: Annotated[
        int, typer.Option(metavar="N", min=0, help="Bootstrap resamples of the 95 % intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Seed of the bootstrap, of a protocol's random choices, and of noise added to images."
        ),
    ] = 0,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 0,
    decoding: Decoding = DecodingName.full,
    max_pixels: MaxPixels = None,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
) -> None:
    """Measure the accuracy of a detector.

    \b
    Examples:
      deepfake-detectors evaluate --dataset ddvqa --data-dir ddvqa --output runs/default
      deepfake-detectors evaluate --model m2f2 --real-dir photos --fake-dir forgeries --output runs/mine
      deepfake-detectors evaluate --model lvlm-dfd --real-dir real --fake-dir fake --mask-dir masks --output runs/masks
      deepfake-detectors evaluate --model m2f2 --dataset faceforensics --data-dir FaceForensics --fit platt \\
          --fit-split validation --save-to m2f2-calibrated --threshold fpr@1% --output runs/calibrated
      deepfake-detectors evaluate --model m2f2 --real-dir photos --fake-dir forgeries --fit-band \\
          --false-alarm-rate 0.05 --save-to m2f2-band --output runs/band
      deepfake-detectors evaluate --real-dir photos --fake-dir forgeries --robustness light --output runs/robust
      deepfake-detectors evaluate --endpoint http://localhost:8000/v1 --model-name fakevlm --family fakevlm \\
          --real-dir photos --fake-dir forgeries --output runs/served
      deepfake-detectors evaluate --protocol paper:m2f2_det --predictions DDVQA_det_c40.jsonl --output runs/judgement
      deepfake-detectors evaluate --protocol paper:fakevlm --predictions out.json --labels test.json --output runs/f
      deepfake-detectors evaluate --protocol paper:m2f2_det --predictions DDVQA_exp_c40.jsonl \\
          --references test_explanation.jsonl --output runs/explanation

    With a model, predictions are written to DIR/predictions.jsonl as they are made; after an interruption the same
    command scores only what is missing. Each line is one JSON object: id, label (real or fake), score (P(fake)) and/or
    text, and if known manipulation, category, video_id, group_id and set. Fake images are the positive class unless a
    protocol says otherwise; the report then states it. References are JSON lines {"<id>": {"answer": ["...", ...]}}.

    --fit calibrates the scores and computes operating points: eer, fpr@1% (needs 100 real images), fpr@0.1% (needs
    1000). --save-to stores both with the model, so that pipeline(..., threshold="fpr@1%") works.

    The exit code is 0 on success, 1 if an image could not be read or the model failed, and 2 if the command or one of
    its input files was wrong.
    """
    from importlib.util import find_spec

    make_room_for_workers(num_workers)
    from transformers.utils import logging as transformers_logging

    from deepfake_detectors.evaluation.evaluate import evaluate
    from deepfake_detectors.evaluation.scoring import DetectorError

    if find_spec("datasets") is not None:
        import datasets

        datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    options = dict(parse_option(text) for text in option or [])
    with _Judging() as judging:
        try:
            results = evaluate(
                model,
                endpoint=endpoint,
                model_name=model_name,
                family=family,
                request_timeout=request_timeout,
                dataset=dataset,
                dataset_config=dataset_config,
                dataset_options=options,
                split=split,
                data_dir=data_dir,
                real_dir=real_dir,
                fake_dir=fake_dir,
                mask_dir=mask_dir,
                twin_masks=twin_masks,
                frames=frames,
                crop=crop,
                finder=finder,
                predictions=predictions,
                labels=labels,
                references=references,
                explain=explain,
                max_new_tokens=max_new_tokens,
                similarity=similarity,
                spice=spice,
                protocol=protocol,
                threshold=_number_or_name(threshold),
                fit=fit,
                fit_split=fit_split,
                fit_predictions=fit_predictions,
                save_to=save_to,
                fit_band=fit_band,
                false_alarm_rate=false_alarm_rate,
                head=head,
                robustness=robustness,
                cover_regions=cover_regions,
                resamples=resamples,
                seed=seed,
                batch_size=batch_size,
                num_workers=num_workers,
                decoding=decoding.value,
                max_pixels=max_pixels,
                device=device,
                dtype=dtype.value,
                output=output,
                progress=judging,
            )
        except DetectorError as error:
            raise WorkFailed(error) from error
    with work():
        files = results.save(output)
    _print(results)
    for sentence in results.in_words:
        say(sentence)
    say(f"Wrote {', '.join(path.name for path in files)} to {output}.")
    if save_to is not None:
        say(f"Saved the model with the fit to {save_to}.")
    if results.failures:
        for name, message in list(results.failures.items())[:TOLD]:
            say(f"{name}: {message}")
        if len(results.failures) > TOLD:
            say(f"... and {len(results.failures) - TOLD} more images that could not be read.")
        fail(f"{len(results.failures)} images could not be read and are not in these numbers.", code=1)


class _Judging:
    """Progress of `evaluate`: reports how many images were already scored, and shows a bar on a terminal."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._task: Any = None
        self._done, self._total = 0, -1

    def __enter__(self) -> _Judging:
        if sys.stderr.isatty():
            from deepfake_detectors_cli.console import progress_bars

            self._bars = progress_bars()
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, done: int, total: int) -> None:
        begins = total != self._total or done <= self._done  # a second set follows if the fit uses another split
        self._done, self._total = done, total
        if begins and done:
            say(f"{done} of {total} images were already scored; {total - done} are left.")
        if self._bars is not None:
            if begins:
                self._task = self._bars.add_task("Judging", total=total)
            self._bars.update(self._task, completed=done)


def _number_or_name(threshold: str) -> float | str:
    try:
        return float(threshold)
    except ValueError:
        return threshold


def _in_flags(message: object) -> str:
    """Return the message on one line, with flags in place of parameters in backticks."""

    def flag(found: re.Match[str]) -> str:
        name = found[1]
        return FLAGS.get(name, f"--{name.replace('_', '-')}") if name in PARAMETERS else found[0]

    return re.sub(r"`(\w+)`", flag, " ".join(str(message).split()))


def _print(results: Results) -> None:
    """Print values to stdout, published and corrected side by side; undefined metrics go to stderr with reasons."""
    rows = results.summary()
    sections = list(dict.fromkeys(row["section"] for row in rows))
    for section in sections:
        inside = [row for row in rows if row["section"] == section]
        if len(sections) > 1:
            show(f"{section}:")
        both = any("corrected" in row for row in inside)
        if both:
            show(f"{'':<26}{'published':>12}{'corrected':>12}")
        for row in inside:
            columns = ("value", "corrected") if both else ("value",)
            show(f"{row['metric']:<26}" + "".join(f"{_cell(row, column):>12}" for column in columns))
        for row in inside:
            if "reason" in row:
                say(f"{row['metric']} is undefined: {_in_flags(row['reason'])}.")
    if calibration := results.content.get("calibration"):
        _print_calibration(calibration)
    for name, text in results.content.get("defects", {}).items():
        say(f"Defect of the published scorer, reproduced: {name}: {text}.")
    for remark in results.remarks:
        say(_in_flags(remark))


def _print_calibration(found: Mapping[str, Any]) -> None:
    show(f"calibration: {found['method']}, scale {found['scale']:.6g}, bias {found['bias']:.6g}")
    for name, point in found["operating_points"].items():
        rates = ", ".join(f"{rate} {_cell(point[rate], 'value')}" for rate in ("fpr", "tpr"))
        show(f"{name:<26}{_cell(point['threshold'], 'value'):>12}  ({rates} on {found['measured_on']})")
    for name, reason in found["unavailable"].items():
        say(f"{name} was not fitted: {reason}.")
    for remark in found["remarks"]:
        say(f"Note: {_in_flags(remark)}.")


def _cell(entry: Mapping[str, Any], name: str) -> str:
    if name not in entry:
        return "-"
    return "undefined" if entry[name] is None else f"{entry[name]:.6f}"
