"""`deepfake-detectors detect`: one verdict per image."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfake_detectors_cli.console import (
    OutputFormat,
    fail,
    hide_loading_bars,
    make_room_for_workers,
    say,
    track,
    wants_table,
    work,
)
from deepfake_detectors_cli.options import (
    AllowPrivateHosts,
    BatchSize,
    Decoding,
    DecodingName,
    Device,
    Dtype,
    DtypeName,
    Family,
    Format,
    MaxPixels,
    Model,
    NumWorkers,
    Quiet,
)
from deepfake_detectors_cli.rendering import print_verdicts, write_json_lines

if TYPE_CHECKING:
    from deepfake_detectors.files import Inputs
    from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline

__all__ = ["detect"]

PROGRESS_FROM = 20  # images; with fewer, the answer appears before a progress bar could be read
STANDARD_INPUT = "-"
BACKENDS = ("torch", "onnxruntime")
MAPS = ("mask", "heatmap")  # images in the rows of the pipeline
FLAGS = {
    "`recursive`": "--recursive",
    "`max_pixels`": "--max-pixels",
    "`allow_private_hosts=True`": "--allow-private-hosts",
}


def detect(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS...",
            help="Files, folders, quoted globs, http(s) URLs, CSV tables (img_path); - is an image on standard input.",
        ),
    ],
    model: Model = None,
    family: Family = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="T",
            help="P(fake) at or above which an image is labelled fake: a number in [0, 1], or "
            "the name of an operating point.",
        ),
    ] = "0.5",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also explain the verdict, if the detector has a language model.")
    ] = False,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask this about every image; implies --explain.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Earlier turns as a JSON list of [question, answer]; the question comes after them."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest explanation. [default: the detector's own]")
    ] = None,
    save_masks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the mask and an overlay, if the detector localizes."),
    ] = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a heat map of what the verdict is based on, if the detector has one."),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search folders recursively.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the rows to this file instead of stdout; an existing file is replaced."
        ),
    ] = None,
    format: Format = OutputFormat.auto,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 0,
    decoding: Decoding = DecodingName.full,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="torch, or onnxruntime for a folder written by `export`.")
    ] = "torch",
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
    max_pixels: MaxPixels = None,
    allow_private_hosts: AllowPrivateHosts = False,
    quiet: Quiet = False,
) -> None:
    """Score images for manipulation.

    \b
    Examples:
      deepfake-detectors detect face.jpg
      deepfake-detectors detect photos/ "more/**/*.png" --threshold 0.8
      deepfake-detectors detect photos/ --recursive --output verdicts.jsonl
      deepfake-detectors detect face.jpg --model m2f2-llm --explain
      deepfake-detectors detect face.jpg --model m2f2-llm --question "And the eyes?" --history turns.json
      deepfake-detectors detect photos/ --model lvlm-dfd --save-masks masks/
      deepfake-detectors detect photos/ --model m2f2-det-mini --heatmap attention/

    --save-masks shows where the image was manipulated; --heatmap only shows which areas the verdict relied on most.

    An image that cannot be read gets a row with its error; the others are still scored. The exit code is 0 if every
    input was scored, 1 if one could not be read or the model failed, and 2 if the command was wrong.
    """
    explain = explain or question is not None
    if max_new_tokens is not None and not explain:
        fail("--max-new-tokens limits an explanation; add --explain.")
    if history is not None and not explain:
        fail("--history needs a question that follows it; add --question or --explain.")
    for flag, place in (("--save-masks", save_masks), ("--heatmap", heatmap)):
        if place is not None and place.exists() and not place.is_dir():
            fail(f"{flag} {place} is a file; it must be a folder.")
    if save_masks is not None and heatmap is not None:
        fail("--save-masks and --heatmap cannot be combined: a detector that localizes does not need a heat map.")
    if output is not None:
        _check_output(output)
    if backend not in BACKENDS:
        fail(f"--backend is {backend!r}, expected one of {', '.join(BACKENDS)}.")
    if backend == "onnxruntime" and (model is None or device is not None or dtype is not DtypeName.auto):
        fail(
            "--backend onnxruntime needs --model with a folder written by `export`; leave out --device and --dtype, "
            "which the graph fixes."
        )
    table = wants_table(format) if output is None else format is OutputFormat.table

    make_room_for_workers(num_workers)
    from deepfake_detectors.files import expand_inputs, read_turns
    from deepfake_detectors.outputs import lock_beside, opened_whole, refuse_inputs
    from deepfake_detectors.pipelines import load_detector

    hide_loading_bars()
    turns = None if history is None else read_turns(history)
    found = expand_inputs(inputs, recursive)
    if output is not None:
        refuse_inputs([output], [*found.pictures, *([] if history is None else [history])])
    if backend == "onnxruntime" and model is not None:
        from deepfake_detectors.runtime.onnx_detector import load_onnx_detector

        detector = load_onnx_detector(model)
    else:
        detector = load_detector(model, device, dtype.value, family)
    limit = detector.resolve_threshold(_number_or_name(threshold))
    options = {
        "threshold": limit,
        "explain": explain or None,
        "question": question,
        "history": turns or None,
        "generate_kwargs": None if max_new_tokens is None else {"max_new_tokens": max_new_tokens},
        "localize": "heatmap" if heatmap is not None else save_masks is not None or None,
        "decoding": None if decoding is DecodingName.full else decoding.value,
        "max_pixels": max_pixels,
        "allow_private_hosts": allow_private_hosts or None,
    }
    given = {**options, "batch_size": batch_size, "num_workers": num_workers}
    rows = _score(detector, found, given, save_masks or heatmap)
    total = len(found.pictures) + len(found.faults)
    if total >= PROGRESS_FROM and not quiet:
        rows = track(rows, "Scoring", total)
    failures: list[str] = []
    write = print_verdicts if table else write_json_lines
    if output is None:
        with work():
            write(_note_failures(rows, failures))
    else:
        with lock_beside(output), work(), opened_whole(output) as file:
            write(_note_failures(rows, failures), file)

    if not quiet:
        if found.skipped:
            say(f"Skipped {found.skipped} files that are not images.")
        say(
            "P(fake) is the detector's estimate that an image was manipulated, from 0 (real) to 1 (fake). The label "
            f"is fake at {limit:g} or above. This is an indication, not proof."
        )
    if failures:
        fail(f"{len(failures)} of {total} inputs could not be read.", code=1)


def _check_output(output: Path) -> None:
    if output.is_dir():
        fail(f"--output {output} is a folder; it must be a file.")
    if not output.absolute().parent.is_dir():
        fail(f"--output {output}: the folder {output.absolute().parent} does not exist.")


def _number_or_name(threshold: str) -> float | str:
    try:
        return float(threshold)
    except ValueError:
        return threshold


def _score(
    detector: DeepfakeDetectionPipeline, found: Inputs, options: dict[str, Any], masks: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all inputs; asking for something the detector cannot do is an error right away."""
    sources: list[Any] = list(found.pictures)
    if STANDARD_INPUT in sources:
        content = sys.stdin.buffer.read()
        sources = [content if source == STANDARD_INPUT else source for source in sources]
    # Not a list, for which the pipeline would wait until all are done.
    verdicts = detector(iter(sources), on_error="record", **options)
    rows: Iterator[dict[str, Any]] = (
        {"input": name, **{key: value for key, value in verdict.items() if key != "input"}}
        for name, verdict in zip(found.pictures, verdicts, strict=True)
    )
    if masks is not None:
        from deepfake_detectors.masks import save_masks

        loading = {name: options[name] for name in ("max_pixels", "allow_private_hosts") if options[name]}
        kind = "heatmap" if options["localize"] == "heatmap" else "mask"
        rows = save_masks(rows, sources, masks, kind, **loading)
    return _with_faults(rows, found.faults)


def _with_faults(rows: Iterator[dict[str, Any]], faults: dict[str, str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        # A mask is an image and cannot be written as text, so the row has its path.
        row = {key: value for key, value in row.items() if key not in MAPS or isinstance(value, str)}
        if "error" in row:
            row["error"] = _with_flags(row["error"])
        yield row
    for name, fault in faults.items():
        yield {"input": name, "error": _with_flags(fault)}


def _with_flags(error: str) -> str:
    """Replace the library's parameters by this command's flags."""
    for parameter, flag in FLAGS.items():
        error = error.replace(parameter, flag)
    return error


def _note_failures(rows: Iterator[dict[str, Any]], failures: list[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if "error" in row:
            failures.append(row["input"])
        yield row
