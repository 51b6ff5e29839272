"""`score()`: verdicts for any number of images as Parquet files, exactly one each, even if the run is interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, cached_file

from deepfake_detectors.examination.judging import files_digest, public_name
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.files import read_json_object
from deepfake_detectors.modeling.image_loading import DECODING
from deepfake_detectors.outputs import folder_lock, refuse_inputs, write_json
from deepfake_detectors.pipelines import load_config
from deepfake_detectors.scale.cascade import Cascade, as_cascade
from deepfake_detectors.scale.deduplication import Deduplication, Reader
from deepfake_detectors.scale.judging import Judgement, Question
from deepfake_detectors.scale.passes import Engine, Passes, Progress
from deepfake_detectors.scale.sources import find_stretches
from deepfake_detectors.scale.units import UnitFolder, cut_units

__all__ = ["ENGINES", "RUN_FILE", "ScoreRun", "score"]

ENGINES = ("local", "ray")
RUN_FILE = "run.json"
SETTINGS = (CONFIG_NAME, PROCESSOR_NAME, IMAGE_PROCESSOR_NAME)


@dataclass
class ScoreRun:
    """The result of a run.

    Attributes:
        folder: where the verdicts are.
        rows: total number of images.
        errors: images that could not be read.
        repeated: images judged now that have the same content as another image, and its verdict.
        units: in all.
        computed: units that this call judged; the others were already finished.
        seconds: that this call took.
        cascade: of a run in two passes: `cut` (P(fake) of the first pass), `chosen` (images for the second pass),
            `judged_twice`, `explained`, `failed`, and what this call spent, `judged_now` and `seconds_now`.
        files: of the units, in the order of the source.
    """

    folder: Path
    rows: int = 0
    errors: int = 0
    repeated: int = 0
    units: int = 0
    computed: int = 0
    seconds: float = 0.0
    cascade: dict[str, Any] | None = None
    files: list[Path] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable summary."""
        return {name: value for name, value in asdict(self).items() if name not in ("folder", "files")}

    def read(self) -> Any:
        """Return all verdicts as a `pyarrow.Table`, in the order of the source."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pa.concat_tables([pq.read_table(file) for file in self.files])


def score(
    source: Any,
    output: str | Path,
    engine: str = "local",
    model: str | Path | None = None,
    *,
    family: str | None = None,
    head: str | None = None,
    threshold: float | str | None = None,
    explain: bool = False,
    localize: bool = False,
    question: str | None = None,
    max_new_tokens: int | None = None,
    cascade: Cascade | Mapping[str, Any] | str | None = None,
    explain_top: float | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
    unit_rows: int = 1000,
    image_column: str | None = None,
    decoding: str = "full",
    deduplicate: bool = False,
    gpus_per_worker: float | None = None,
    device: str | None = None,
    dtype: str = "auto",
    progress: Progress | None = None,
) -> ScoreRun:
    """Score any number of images for manipulation.

    The work is split into units. Each is written to its own file `unit-….parquet`, completely or not at all; running
    it again with the same arguments only processes the missing units. Columns are `id`, `source`, `sha256` (of the
    image's file), `fake_probability`, `decision`, `label`, `error` (why the image could not be read; the rest is null
    then), and `explanation`, `explanation_verdict`, `mask` (path in `output`), `head`, `first_probability`,
    `second_probability` if requested. `manifest.parquet` lists the units, `run.json` contains what they depend on.

    Args:
        source: a folder, which is searched recursively for images, Parquet files and WebDataset tars; such a file; a
            glob; a URL that fsspec opens (`s3://`, `hf://`, `https://` …); several of these; or a `datasets.Dataset`.
        output: folder for the verdicts. It must be local; copy it to an object store afterwards.
        engine: `"local"` (this machine), or `"ray"` (Ray Data; the cluster of `RAY_ADDRESS`, else this machine).
        model: folder, Hub id or name of a built-in checkpoint; the built-in default if `None`.
        family: for a stock folder that contains a family's weights in the layout of a library class.
        head, threshold, explain, localize, question, max_new_tokens: as in the pipeline.
        cascade: a second detector for the images that look most like fakes to the first: its name, or a `Cascade`
            (or its fields) with a `share` or `threshold`. `fake_probability`, `decision` and `label` of these images
            are those of the second detector; both probabilities are there.
        explain_top: explain this share of the images, those with the highest P(fake), in a second pass by `model`.
        batch_size: images per forward pass.
        num_workers: see `engine_local.judge_local`, `engine_ray.judge_ray`.
        unit_rows: images in a unit. An interrupted unit is done again.
        image_column: of Parquet files and datasets, if it has an unusual name.
        decoding: `"full"`, or `"draft"`, which changes pixels, and so scores a little, as in the pipeline; `run.json`
            says so.
        deduplicate: score content once even if it occurs in several units. Everything that is missing is read twice
            for it, first only to be hashed. Within a unit, repeated content is always scored once.
        gpus_per_worker: for Ray, GPUs (or a fraction) of each process that judges; 1 where there are GPUs, if `None`.
        device, dtype: as in `pipelines.load_detector`.
        progress: called with the number of finished images and the total.

    Returns:
        `ScoreRun`.

    Raises:
        ValueError: for an argument out of range, a source without images, an output of another run, or an `output`
            that another process is writing.
        DetectorFailed: a `RuntimeError`, if the detector fails on readable images.
        OSError, ImportError: for missing files and libraries.
    """
    _check(engine, batch_size, num_workers, unit_rows)
    if decoding not in DECODING:
        raise ValueError(f"decoding is {decoding!r}, expected one of {', '.join(map(repr, DECODING))}.")
    if explain_top is not None and explain:
        raise ValueError("explain=True explains every image; leave out `explain_top`, or `explain`.")
    if (question is not None or max_new_tokens is not None) and not explain and explain_top is None:
        raise ValueError("question and max_new_tokens only affect explanations: add explain=True or explain_top.")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`output` {output} is a file; choose a folder.")
    if isinstance(source, (str, Path)):
        refuse_inputs([folder], [source])
    begun = time.monotonic()
    steps = as_cascade(cascade, explain_top, question, max_new_tokens)
    first = Question(
        None if model is None else str(model),
        family,
        device,
        dtype,
        head,
        threshold,
        explain,
        localize,
        question,
        max_new_tokens,
        decoding,
    )
    if explain_top is not None:  # the words are for the second pass
        first = replace(first, question=None, max_new_tokens=None)
    second = None if steps is None else steps.asked(first)
    run: dict[str, Any] = {
        "package": package_version("deepfake-detectors"),
        "model": _describe(first),
        "options": first.answer_options(),
        "unit_rows": unit_rows,
        "image_column": image_column,
        "cascade": None,
    }
    if steps is not None and second is not None:
        run["cascade"] = {**asdict(steps), "model": _describe(second), "options": second.answer_options()}
    stretches = find_stretches(source, unit_rows, image_column, folder)
    text = json.dumps(run, sort_keys=True)
    units = cut_units(stretches, text)
    final = units
    if steps is not None:
        # The top share depends on all images: if one changes, so does the second pass of every unit.
        whole = "" if steps.share is None else " ".join(unit.key for unit in units)
        final = cut_units(stretches, f"second pass {whole} {text}")
    with folder_lock(folder):
        _claim(folder, run)
        store = UnitFolder(folder)
        store.sweep()
        judge, read = _engine(engine, batch_size, num_workers, gpus_per_worker)
        passes = Passes(store, units, judge, first, final, steps, second, progress)
        if deduplicate:
            passes.deduplication = Deduplication(store, read)
        passes.run()
        result = ScoreRun(
            folder,
            rows=sum(unit.stretch.size for unit in units),
            errors=passes.errors,
            repeated=passes.repeated,
            units=len(units),
            computed=passes.computed,
            cascade=passes.report(),
            files=passes.files,
        )
        result.seconds = round(time.monotonic() - begun, 3)
        write_json(folder / RUN_FILE, {**run, "last": result.to_dict()})
    return result


def _check(engine: str, batch_size: int, num_workers: int, unit_rows: int) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}.")
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_workers", num_workers, 0),
        ("unit_rows", unit_rows, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}.")


def _describe(question: Question) -> dict[str, Any]:
    """Return what identifies a detector, and check that its class can do what is requested."""
    source, config = load_config(question.model, question.family)
    architectures = set(config.architectures or ())
    classes = [cls for cls in FAMILIES[config.model_type].model_classes if cls.__name__ in architectures]
    for ability, asked in (("explain", question.explain), ("localize", question.localize)):
        if asked and classes and not any(getattr(cls, f"can_{ability}") for cls in classes):
            raise ValueError(
                f"{public_name(source)} ({classes[0].__name__}) returns a verdict but cannot {ability} "
                f"({ability}=True)."
            )
    if question.head is not None and not hasattr(config, "require_head"):
        raise ValueError(f"head is {question.head!r}, but {public_name(source)} has no named heads.")
    head = config.require_head(question.head) if hasattr(config, "require_head") else None
    known = config.operating_points if head is None else config.of_head(head, "operating_points")
    limit = question.threshold
    if isinstance(limit, str) and limit not in known:
        raise ValueError(
            f"threshold {limit!r} is not an operating point; known ones are: {', '.join(known) or 'none'}."
        )
    if not isinstance(limit, str) and limit is not None and not 0 <= limit <= 1:
        raise ValueError(f"threshold is {limit!r}, expected a number in [0, 1] or the name of an operating point.")
    return {
        "name": public_name(source),
        "family": config.model_type,
        "sha256": files_digest(source),
        "settings": _settings_digest(source),
    }


def _settings_digest(source: str) -> str:
    """Return the SHA-256 of what is said beside the weights: calibration, bands, and how images are prepared."""
    digest = sha256()
    for name in SETTINGS:
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        digest.update(name.encode() + b"\n" + (b"" if path is None else Path(path).read_bytes()))
    return digest.hexdigest()


def _engine(engine: str, batch_size: int, num_workers: int, gpus_per_worker: float | None) -> tuple[Engine, Reader]:
    """What judges units, and what reads their contents."""
    if engine == "ray":
        from deepfake_detectors.scale.engine_ray import judge_ray, read_ray

        return (
            lambda units, asked, places: judge_ray(units, asked, batch_size, num_workers, gpus_per_worker, places),
            read_ray,
        )
    from deepfake_detectors.scale.engine_local import judge_local, read_local

    if gpus_per_worker is not None:
        raise ValueError("gpus_per_worker is for engine='ray'; use `device` with the local engine.")
    return (
        lambda units, asked, places: judge_local(units, Judgement(asked), batch_size, num_workers, places),
        lambda units: read_local(units, num_workers),
    )


def _claim(folder: Path, run: Mapping[str, Any]) -> None:
    """Note what is being scored, or check that it is what was begun here.

    Raises:
        ValueError: for verdicts of another run, or files that are not of a run.
    """
    file = folder / RUN_FILE
    if file.is_file():
        begun = {name: value for name, value in read_json_object(file).items() if name in run}
        differing = [name for name in run if begun.get(name) != run[name]]
        if differing and any(folder.glob("unit-*.parquet")):
            raise ValueError(
                f"{folder} contains verdicts of another run (different {', '.join(differing)}). Choose another "
                "`output`, or "
                "remove this folder."
            )
        if not differing:
            return
    elif strangers := [path.name for path in folder.iterdir() if not path.name.startswith(".")]:
        raise ValueError(f"{folder} contains {strangers[0]} but no {RUN_FILE}; choose a new or empty folder.")
    write_json(file, dict(run))
