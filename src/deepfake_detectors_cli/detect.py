"""`deepfake-detectors detect`: one verdict per picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfake_detectors_cli.console import OutputFormat, fail, say, wants_table
from deepfake_detectors_cli.options import BatchSize, Device, Dtype, DtypeName, Format, Model

if TYPE_CHECKING:
    from deepfake_detectors.files import Inputs
    from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline

__all__ = ["detect"]

PROGRESS_FROM = 20  # pictures; below that the answer is there before a bar could be read


def detect(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS...", help="Files, folders, quoted globs, http(s) URLs.")
    ],
    model: Model = None,
    threshold: Annotated[
        str,
        typer.Option(metavar="T", help="Label fake from this P(fake) on: a number in [0, 1], or an operating point."),
    ] = "0.5",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write why, where the detector has a language model.")
    ] = False,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask this of every picture; implies --explain.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest explanation. [default: the detector's own]")
    ] = None,
    save_masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the detector localises: write each picture's mask, and it laid over the picture.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into folders of folders.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows to this file instead, replacing it.")
    ] = None,
    format: Format = OutputFormat.auto,
    batch_size: BatchSize = 8,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
) -> None:
    """Say of each picture how probable it is that it is a fake.

    \b
    Examples:
      deepfake-detectors detect face.jpg
      deepfake-detectors detect photos/ "more/**/*.png" --threshold 0.8
      deepfake-detectors detect photos/ --recursive --output verdicts.jsonl
      deepfake-detectors detect face.jpg --model m2f2-llm --explain
      deepfake-detectors detect photos/ --model lvlm-dfd --save-masks masks/

    A picture that cannot be read gets a row with its error, and the others are judged all the same. The exit code
    is 0 if every input was judged, 1 if one could not be read, and 2 if the command itself was wrong.
    """
    from deepfake_detectors.files import expand_inputs

    found = expand_inputs(inputs, recursive)
    if output is not None:
        _check_output(output)
    table = wants_table(format) if output is None else format is OutputFormat.table

    from deepfake_detectors_cli.loading import load_pipeline
    from deepfake_detectors_cli.rendering import print_table, write_json_lines

    detector = load_pipeline(model, device, dtype)
    limit = _parse_threshold(detector, threshold)
    extras = _explanation_options(detector, explain, question, max_new_tokens)
    if save_masks is not None:
        extras |= _localising_options(detector, save_masks)
    failures: list[str] = []
    rows = _watch(_judge(detector, found, limit, batch_size, extras, save_masks), failures)
    if len(found.pictures) >= PROGRESS_FROM and sys.stderr.isatty():
        rows = _with_progress(rows, len(found.pictures) + len(found.faults))
    with nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8") as file:
        try:
            (print_table if table else write_json_lines)(rows, file)
        except ValueError as error:  # the model's own failure; what is wrong with an input became a row
            fail(error, code=1)

    if found.skipped:
        say(f"Skipped in folders, having no picture's name: {found.skipped}.")
    say(
        "P(fake) is this detector's estimate, from 0 (surely real) to 1 (surely fake), that a picture is a forgery; "
        f"from {limit:g} on it is labelled fake. It is a clue, not a proof."
    )
    if failures:
        say(f"Could not be read: {len(failures)} of {len(found.pictures) + len(found.faults)}.")
        raise typer.Exit(1)


def _check_output(output: Path) -> None:
    if output.is_dir():
        fail(f"--output {output} is a folder; name a file.")
    if not output.absolute().parent.is_dir():
        fail(f"--output {output}: there is no folder {output.absolute().parent}.")


def _parse_threshold(detector: DeepfakeDetectionPipeline, threshold: str) -> float:
    try:
        value: float | str = float(threshold)
    except ValueError:
        value = threshold
    try:
        return detector.resolve_threshold(value)
    except ValueError as error:
        fail(f"--threshold: {error}")


def _explanation_options(
    detector: DeepfakeDetectionPipeline, explain: bool, question: str | None, max_new_tokens: int | None
) -> dict[str, Any]:
    if not (explain or question is not None):
        if max_new_tokens is not None:
            fail("--max-new-tokens is the length of an explanation: give --explain with it.")
        return {}
    from deepfake_detectors.modeling.detection import require_ability

    try:
        require_ability(detector.model, "explain")
    except ValueError as error:
        fail(error)
    options: dict[str, Any] = {"explain": True}
    if question is not None:
        options["question"] = question
    if max_new_tokens is not None:
        options["generate_kwargs"] = {"max_new_tokens": max_new_tokens}
    return options


def _localising_options(detector: DeepfakeDetectionPipeline, folder: Path) -> dict[str, Any]:
    from deepfake_detectors.modeling.detection import require_ability

    if folder.exists() and not folder.is_dir():
        fail(f"--save-masks {folder} is a file; name a folder.")
    try:
        require_ability(detector.model, "localize")
    except ValueError as error:
        fail(error)
    return {"localize": True}


def _judge(
    detector: DeepfakeDetectionPipeline,
    found: Inputs,
    threshold: float,
    batch_size: int,
    extras: dict[str, Any],
    masks: Path | None,
) -> Iterator[dict[str, Any]]:
    verdicts = detector(
        (picture for picture in found.pictures),
        batch_size=batch_size,
        threshold=threshold,
        on_error="record",
        **extras,
    )
    rows: Iterator[dict[str, Any]] = (
        {"input": picture, **{key: value for key, value in verdict.items() if key != "input"}}
        for picture, verdict in zip(found.pictures, verdicts, strict=True)
    )
    if masks is not None:
        from deepfake_detectors_cli.masks import save_masks

        rows = save_masks(rows, masks)
    for row in rows:
        # A mask is a picture, which a row of text cannot hold; a path to it is none.
        yield {key: value for key, value in row.items() if key != "mask" or isinstance(value, str)}
    for name, fault in found.faults.items():
        yield {"input": name, "error": fault}


def _watch(rows: Iterator[dict[str, Any]], failures: list[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if "error" in row:
            failures.append(row["input"])
        yield row


def _with_progress(rows: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import track

    return iter(track(rows, "Judging", total=total, console=Console(stderr=True), transient=True))
