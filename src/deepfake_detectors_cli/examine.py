"""`deepfake-detectors examine` and `replay`: decide about an image or video, and repeat a recorded examination."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfake_detectors_cli.console import (
    OutputFormat,
    WorkFailed,
    fail,
    hide_loading_bars,
    make_room_for_workers,
    progress_bars,
    say,
    track,
    wants_table,
    work,
)
from deepfake_detectors_cli.options import (
    BatchSize,
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
from deepfake_detectors_cli.rendering import print_records, write_json_lines

if TYPE_CHECKING:
    from deepfake_detectors.examination.examine import Examination
    from deepfake_detectors.examination.judging import Judge

__all__ = ["examine", "replay"]

MOST_DIFFERENCES = 20  # shown in the table; the JSON output has all of them


def examine(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Images, videos, folders, or quoted globs.")],
    model: Model = None,
    family: Family = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write; each file gets DIR/NAME with examination.json, sheet.html and images.",
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use only this head, if the detector has several.")
    ] = None,
    finder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Face finder: centerface or dlib. [default: centerface]")
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Recipe for crops of faces, such as sbi. [default: the detector's own]"),
    ] = None,
    pooling: Annotated[
        str,
        typer.Option(
            metavar="RULE", help="How the scores of a face's frames are combined: trimmed, mean, max or top-k."
        ),
    ] = "trimmed",
    frames: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of evenly spaced frames to take from a video.")
    ] = 32,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time between frames, instead of --frames.")
    ] = None,
    start: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where to start in a video.")] = None,
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where to stop in a video.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="P(fake) at or above which the label is fake, or the name of an operating point. [default: 0.5]",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Explain the most suspicious frames, if the detector can.")
    ] = False,
    localize: Annotated[
        bool,
        typer.Option(
            "--localize", help="Mark the manipulated area in the most suspicious frames, if the detector can."
        ),
    ] = False,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask this about the most suspicious frames; implies --explain.")
    ] = None,
    checks: Annotated[
        bool, typer.Option("--checks/--no-checks", help="Refuse blank or tiny images, drawings and documents.")
    ] = True,
    stability: Annotated[
        bool,
        typer.Option(
            "--stability",
            help="Also score re-encoded copies; the decision is inconclusive if one of them changes the verdict.",
        ),
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search folders recursively.")] = False,
    format: Format = OutputFormat.auto,
    batch_size: BatchSize = 4,
    num_workers: NumWorkers = 0,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
) -> None:
    """Examine images and videos: find faces, score them, and decide as far as the evidence allows.

    \b
    Examples:
      deepfake-detectors examine clip.mp4 --output examinations
      deepfake-detectors examine photo.jpg --model m2f2-llm --explain --output examinations
      deepfake-detectors examine inbox/ --recursive > decisions.jsonl

    Detectors for faces see the faces that are found, other detectors the whole image. The decision is "likely fake",
    "likely real", "inconclusive", "not applicable", or "uncalibrated" if the detector has no decision band. A file
    that cannot be read gets a row with its error; the others are still examined. The exit code is 0 if every file was
    examined, 1 if one could not be read or the model failed, and 2 if the command was wrong.
    """
    if output is not None and output.exists() and not output.is_dir():
        fail(f"--output {output} is a file; it must be a folder.")

    make_room_for_workers(num_workers)
    from deepfake_detectors.examination.crops import crop_recipe
    from deepfake_detectors.examination.judging import Judge
    from deepfake_detectors.examination.tracks import POOLING
    from deepfake_detectors.examination.video import VIDEO_SUFFIXES
    from deepfake_detectors.files import PICTURE_SUFFIXES, expand_inputs

    hide_loading_bars()
    if pooling not in POOLING:
        fail(f"--pooling is {pooling!r}, expected one of {', '.join(POOLING)}.")
    if crop is not None:
        crop_recipe(crop)
    found = expand_inputs(files, recursive, suffixes=PICTURE_SUFFIXES | VIDEO_SUFFIXES)
    judge = Judge(model, device, dtype.value, batch_size, family)
    options = {
        "head": head,
        "finder": finder,
        "crop": crop,
        "pooling": pooling,
        "frames": frames,
        "every": every,
        "start": start,
        "end": end,
        "threshold": _number_or_name(threshold),
        "explain": explain or question is not None,
        "localize": localize,
        "question": question,
        "checks": checks,
        "stability": stability,
    }
    if max_pixels is not None:
        options["max_pixels"] = max_pixels
    judge.require(bool(options["explain"]), localize)
    judge.readings(head, options["threshold"])
    failures: list[str] = []
    rows = _examined(judge, found.pictures, found.faults, options, num_workers, output, failures, quiet)
    with work():
        if wants_table(format):
            listed = list(rows)
            print_records(map(_in_words, listed), ("input", "decision", "P(fake)", *(("sheet",) if output else ())))
            for row in listed:
                if note := row.get("error") or row.get("reason"):
                    say(f"{row['input']}: {note}" if note == row.get("reason") else str(note))
        else:
            write_json_lines(rows)
    if not quiet:
        if found.skipped:
            say(f"Skipped {found.skipped} files that are neither images nor videos.")
        say("P(fake) is the detector's estimate, from 0 (real) to 1 (fake). This is an indication, not proof.")
    if failures:
        fail(f"{len(failures)} of {len(found.pictures) + len(found.faults)} files could not be examined.", code=1)


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    if "error" in row:
        return {**row, "decision": "error"}
    probability = row["fake_probability"]
    return {
        **row,
        "decision": row["decision"] or "uncalibrated",
        "P(fake)": "" if probability is None else f"{probability:.3f}",
    }


def _number_or_name(threshold: str | None) -> float | str | None:
    try:
        return None if threshold is None else float(threshold)
    except ValueError:
        return threshold


def _examined(
    judge: Judge,
    paths: list[str],
    faults: dict[str, str],
    options: dict[str, Any],
    num_workers: int,
    output: Path | None,
    failures: list[str],
    quiet: bool,
) -> Iterator[dict[str, Any]]:
    """Examine the files and yield a row for each; files that cannot be read are added to `failures`."""
    from deepfake_detectors.masks import free_name
    from deepfake_detectors.outputs import refuse_inputs

    taken: set[str] = set()
    results = _results(judge, paths, options, num_workers, quiet)
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, ValueError):
            failures.append(path)
            yield {"input": path, "error": str(result)}
            continue
        row = {
            "input": path,
            "decision": result.record["decision"],
            "fake_probability": result.fake_probability,
            "reason": result.reason,
            **{name: result.record[name] for name in ("kind", "source", "deciding", "readings", "pooling")},
        }
        if output is not None:
            target = output / free_name(path, taken)
            refuse_inputs([target], paths, inside=True)
            folder = result.save(target)
            row["sheet"] = str(folder / "sheet.html")
        yield row
    for name, fault in faults.items():
        failures.append(name)
        yield {"input": name, "error": fault.replace("`recursive`", "--recursive")}


def _results(
    judge: Judge, paths: list[str], options: dict[str, Any], num_workers: int, quiet: bool
) -> Iterator[Examination | ValueError]:
    """Yield what is found in each file, or why it cannot be examined.

    Workers look at several files or, of a single one, at several frames. The bar goes over files or frames as well.
    """
    from deepfake_detectors.examination.examine import examine_files

    if num_workers and len(paths) > 1:
        results = examine_files(paths, judge, files_at_once=num_workers, **options)
        yield from results if quiet else track(results, "Examining", len(paths))
        return
    for place, path in enumerate(paths, start=1):
        with _Progress(f"{Path(path).name} ({place} of {len(paths)})", quiet) as progress:
            (result,) = examine_files([path], judge, **options, num_workers=num_workers, progress=progress)
        yield result


class _Progress:
    """Progress bar over the frames of one file, if stderr is a terminal; called by `examine`."""

    def __init__(self, description: str, quiet: bool) -> None:
        self.description = description
        self.bars = None if quiet or not sys.stderr.isatty() else progress_bars()
        self.task: Any = None

    def __enter__(self) -> Callable[[int, int | None], None]:
        if self.bars is not None:
            self.bars.start()
            self.task = self.bars.add_task(self.description, total=None)
        return self._show

    def _show(self, done: int, total: int | None) -> None:
        if self.bars is not None:
            self.bars.update(self.task, completed=done, total=total)

    def __exit__(self, *reason: object) -> None:
        if self.bars is not None:
            self.bars.stop()


def replay(
    record: Annotated[
        Path, typer.Argument(metavar="RECORD", help="examination.json, or the folder that contains it.")
    ],
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The examined file. [default: a file next to the record]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The detector: folder, Hub id or built-in name. [default: the recorded name]",
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Family of the model in a stock folder. [default: the recorded family]"),
    ] = None,
    device: Device = None,
    format: Format = OutputFormat.auto,
    quiet: Quiet = False,
) -> None:
    """Repeat an examination and compare every number.

    \b
    Examples:
      deepfake-detectors replay examinations/clip/examination.json --file clip.mp4
      deepfake-detectors replay examinations/clip --file clip.mp4 --model checkpoints/mine

    Logits and probabilities must agree to 0.0001, boxes to half a pixel. The exit code is 0 if the file, the weights
    and all numbers match, 1 if anything differs or cannot be read, and 2 if the command was wrong.
    """
    from deepfake_detectors.examination.record import read_record
    from deepfake_detectors.examination.replay import replay as run_again

    hide_loading_bars()
    read_record(record)
    with work(), _Progress("Replaying", quiet) as progress:
        result = run_again(record, file, model=model, family=family, device=device, progress=progress)
    if not wants_table(format):
        write_json_lines([result.to_dict()])
    elif result.equal:
        typer.echo("Equal: the file, the weights and all numbers match.")
    else:
        shown = [vars(difference) for difference in result.differences[:MOST_DIFFERENCES]]
        print_records(shown, ("field", "recorded", "now"))
        if hidden := len(result.differences) - len(shown):
            typer.echo(f"... and {hidden} more; --format json lists all of them.")
    if wants_table(format) or not result.equal:
        for cause in result.causes:
            say(f"{cause[:1].upper()}{cause[1:]}.")
    if not result.equal:
        raise WorkFailed(ValueError(f"{len(result.differences)} values differ from the record."))
