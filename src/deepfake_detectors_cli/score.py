"""`deepfake-detectors score`: verdicts on any number of images, in Parquet files that survive being killed."""

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
from deepfake_detectors_cli.options import BatchSize, Device, Dtype, DtypeName, Family, Format, Model, Quiet
from deepfake_detectors_cli.rendering import print_facts, write_json_lines

__all__ = ["score"]


def score(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, quoted glob, Parquet file, WebDataset tar, or URL.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder for the verdicts; an interrupted run goes on.")
    ],
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local (this machine), or ray (a cluster, or this machine).")
    ] = "local",
    model: Model = None,
    family: Family = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Judge with this head, where the detector has several.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(metavar="T", help="P(fake) from which the label is fake, or an operating point. [default: 0.5]"),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also explain every verdict.")] = False,
    localize: Annotated[
        bool, typer.Option("--localize", help="Also write masks, where the detector localizes.")
    ] = False,
    explain_top: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Explain this share of the images, the most likely fakes.")
    ] = None,
    cascade: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Let this second detector judge the most likely fakes again.")
    ] = None,
    cascade_share: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of images for the second detector. [default: 0.05]")
    ] = None,
    cascade_threshold: Annotated[
        float | None, typer.Option(metavar="P", help="Instead of a share, P(fake) from which on it judges.")
    ] = None,
    cascade_explain: Annotated[
        bool, typer.Option("--cascade-explain", help="Let the second detector also explain.")
    ] = False,
    question: Annotated[str | None, typer.Option(metavar="TEXT", help="Ask this for the explanations.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest explanation. [default: the detector's own]")
    ] = None,
    unit_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Images in a unit of work, which is one file of verdicts.")
    ] = 1000,
    batch_size: BatchSize = 16,
    num_workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Processes on the CPU, or threads that decode beside an accelerator. 0: none."
        ),
    ] = 0,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(metavar="X", help="With --engine ray: GPUs, or a fraction, of each judging process."),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of Parquet files that holds images or their paths.")
    ] = None,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Judge content once that occurs in several units; reads it twice.")
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

    Verdicts are Parquet files, one for each unit of images, with a manifest. A run that was interrupted is repeated
    with the same command: what is finished is not done again. An image that cannot be read gets a row with its error.
    The exit code is 0 if every image was scored, 1 if one could not be read or the detector failed, and 2 if the
    command was wrong.
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
        fail(f"{result.errors} of {result.rows} images could not be read; see the column error.", code=1)


def _number_or_name(threshold: str | None) -> float | str | None:
    try:
        return None if threshold is None else float(threshold)
    except ValueError:
        return threshold
