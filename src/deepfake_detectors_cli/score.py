"""`deepfake-detectors score`: score any number of images into Parquet files; a run can be resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import (
    OutputFormat,
    fail,
    hide_loading_bars,
    progress_bars,
    wants_table,
    work,
)
from deepfake_detectors_cli.options import (
    BatchSize,
    Decoding,
    DecodingName,
    Device,
    Dtype,
    DtypeName,
    Family,
    Format,
    Model,
    Quiet,
)
from deepfake_detectors_cli.rendering import print_facts, write_json_lines

__all__ = ["score"]


def score(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, quoted glob, Parquet file, WebDataset tar, or URL.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder for the verdicts; an interrupted run continues.")
    ],
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local (this machine) or ray (a cluster, or this machine).")
    ] = "local",
    model: Model = None,
    family: Family = None,
    head: Annotated[str | None, typer.Option(metavar="NAME", help="Head to use, if the detector has several.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="P(fake) at or above which the label is fake, or the name of an operating point. [default: 0.5]",
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also explain every verdict.")] = False,
    localize: Annotated[bool, typer.Option("--localize", help="Also write masks, if the detector localizes.")] = False,
    explain_top: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Explain only this share of the images, those with the highest P(fake)."),
    ] = None,
    cascade: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Score the images with the highest P(fake) again with this second detector."
        ),
    ] = None,
    cascade_share: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of images for the second detector. [default: 0.05]")
    ] = None,
    cascade_threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="P(fake) at or above which the second detector is used, instead of a share."),
    ] = None,
    cascade_explain: Annotated[
        bool, typer.Option("--cascade-explain", help="Also explain, with the second detector.")
    ] = False,
    question: Annotated[str | None, typer.Option(metavar="TEXT", help="Question for the explanations.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest explanation. [default: the detector's own]")
    ] = None,
    unit_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Images per unit of work; each unit is one file of verdicts.")
    ] = 1000,
    batch_size: BatchSize = 16,
    num_workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Worker processes on the CPU, or decoding threads with an accelerator. 0: none."
        ),
    ] = 0,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(metavar="X", help="With --engine ray: GPUs per scoring process, can be a fraction."),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the Parquet files with images or their paths.")
    ] = None,
    decoding: Decoding = DecodingName.full,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Score content once even across units; reads the images twice.")
    ] = False,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
    format: Format = OutputFormat.auto,
    quiet: Quiet = False,
) -> None:
    """Score any number of images for manipulation.

    \b
    Examples:
      deepfake-detectors score pictures/ verdicts/ --num-workers 4
      deepfake-detectors score "shards/*.parquet" verdicts/ --engine ray --unit-rows 5000
      deepfake-detectors score pictures/ verdicts/ --cascade m2f2-det-mini --cascade-share 0.05

    Verdicts are Parquet files, one per unit of images, with a manifest. To continue an interrupted run, repeat the
    command: finished units are not scored again. An image that cannot be read gets a row with its error. The exit code
    is 0 if every image was scored, 1 if one could not be read or the detector failed, and 2 if the command was wrong.
    """
    steps = {
        "model": cascade,
        "share": cascade_share,
        "threshold": cascade_threshold,
        "explain": cascade_explain or None,
    }
    given: dict[str, Any] = {name: value for name, value in steps.items() if value is not None}
    if given and cascade is None:
        fail("--cascade-share, --cascade-threshold and --cascade-explain need --cascade MODEL.")
    if cascade_explain:
        given |= {"question": question, "max_new_tokens": max_new_tokens}
        question = max_new_tokens = None

    from deepfake_detectors.scale.judging import DetectorFailed
    from deepfake_detectors.scale.score import score as run

    hide_loading_bars()
    bars = None if quiet or not sys.stderr.isatty() else progress_bars()
    task = None if bars is None else bars.add_task("Scoring", total=None)

    def show(done: int, total: int) -> None:
        if bars is not None and task is not None:
            bars.update(task, completed=done, total=total)

    if bars is not None:
        bars.start()
    try:
        result = run(
            source,
            output,
            engine,
            model,
            family=family,
            head=head,
            threshold=_number_or_name(threshold),
            explain=explain,
            localize=localize,
            question=question,
            max_new_tokens=max_new_tokens,
            cascade=given or None,
            explain_top=explain_top,
            batch_size=batch_size,
            num_workers=num_workers,
            unit_rows=unit_rows,
            image_column=image_column,
            decoding=decoding.value,
            deduplicate=deduplicate,
            gpus_per_worker=gpus_per_worker,
            device=device,
            dtype=dtype.value,
            progress=show,
        )
    except DetectorFailed as error:
        with work():
            raise error
    finally:
        if bars is not None:
            bars.stop()
    facts = {"output": str(output), **result.to_dict()}
    if wants_table(format):
        print_facts(facts)
    else:
        write_json_lines([facts])
    if result.errors:
        fail(f"{result.errors} of {result.rows} images could not be read; see the column `error`.", code=1)


def _number_or_name(threshold: str | None) -> float | str | None:
    try:
        return None if threshold is None else float(threshold)
    except ValueError:
        return threshold
