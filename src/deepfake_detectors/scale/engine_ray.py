"""Units on Ray Data: a stage of CPU tasks that decode, then a pool of actors that hold the detector.

The driver alone writes, so that one lock guards the output, and a killed worker leaves nothing behind.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.pipelines import resolve_model
from deepfake_detectors.scale.contents import read_contents
from deepfake_detectors.scale.judging import DetectorFailed, Judgement, Question, assembled
from deepfake_detectors.scale.preparing import prepared_batches
from deepfake_detectors.scale.units import Unit

__all__ = ["judge_ray", "read_ray"]

# Read when ray is imported, here and by its workers: no usage reports.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# Without a GPU, decoding and judging share the cores, and both must fit.
CPUS_OF_A_PROCESS = 0.5


def judge_ray(
    units: Sequence[Unit],
    question: Question,
    batch_size: int,
    num_workers: int = 0,
    gpus_per_worker: float | None = None,
    places: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[tuple[Unit, list[dict[str, Any]]]]:
    """Judge units on the cluster of `RAY_ADDRESS`, else on this machine; yield each with its rows when it is done.

    Ray restarts killed tasks and actors.

    Args:
        units: to be judged; every machine must be able to read their files and the model.
        question: the task of the detector.
        batch_size: images per forward pass.
        num_workers: actors that judge, 0 for the number of GPUs, or of CPUs without GPUs.
        gpus_per_worker: GPUs for each of them, or a fraction; `None` for 1 if there are GPUs.
        places: index of a unit -> only these of its images.

    Raises:
        ImportError: if Ray is not installed.
        DetectorFailed: if the detector fails.
    """
    ray, ours = _started()
    gpus = ray.cluster_resources().get("GPU", 0)
    share = gpus_per_worker if gpus_per_worker is not None else float(gpus > 0)
    cpus = ray.cluster_resources().get("CPU", 1)
    fitting = int(gpus / share) if share else int(cpus)
    most = fitting if share else int(cpus / CPUS_OF_A_PROCESS) - 1  # at least one process must decode
    actors = max(1, min(num_workers or fitting, most))
    known = {unit.index: unit for unit in units}
    tasks = [
        {"unit": unit.index, "work": pickle.dumps((unit, None if places is None else places[unit.index]))}
        for unit in units
    ]
    answers = (
        ray.data.from_items(tasks, override_num_blocks=len(tasks))
        .map_batches(
            _Decoder(question, batch_size),
            batch_size=1,
            batch_format="numpy",
            num_cpus=1 if share else CPUS_OF_A_PROCESS,
        )
        .map(
            _Actor,
            fn_constructor_args=(question,),
            compute=ray.data.ActorPoolStrategy(size=actors),
            **({"num_gpus": share} if share else {"num_cpus": CPUS_OF_A_PROCESS}),
        )
    )
    rows: dict[int, dict[int, dict[str, Any]]] = {}
    try:
        for answer in answers.iter_rows():
            index = int(answer["unit"])
            rows.setdefault(index, {}).update(pickle.loads(answer["rows"]))
            unit = known[index]
            wanted = range(unit.stretch.size) if places is None else places[index]
            if len(rows[index]) == len(wanted):
                yield unit, assembled(rows.pop(index), wanted)
    except (ray.exceptions.RayError, ray.data.exceptions.UserCodeException) as error:
        # The last line says what happened; before it are the traces of several processes.
        raise DetectorFailed(f"Ray failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        if ours:
            ray.shutdown()


def read_ray(units: Sequence[Unit]) -> Iterator[tuple[Unit, Any]]:
    """Read units in Ray's tasks, and yield each with its contents; see `read_contents`.

    Args:
        units: to be read, from every machine.

    Raises:
        ImportError: if Ray is not installed.
        OSError: if a task fails.
    """
    ray, ours = _started()
    known = {unit.index: unit for unit in units}
    tasks = [{"unit": unit.index, "work": pickle.dumps(unit)} for unit in units]
    answers = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(_read, num_cpus=CPUS_OF_A_PROCESS)
    try:
        for answer in answers.iter_rows():
            yield known[int(answer["unit"])], pickle.loads(answer["contents"])
    except (ray.exceptions.RayError, ray.data.exceptions.UserCodeException) as error:
        raise OSError(f"Ray could not read the source: {str(error).strip().splitlines()[-1]}") from error
    finally:
        if ours:
            ray.shutdown()


def _read(task: dict[str, Any]) -> dict[str, Any]:
    return {"unit": task["unit"], "contents": pickle.dumps(read_contents(pickle.loads(task["work"])))}


def _started() -> tuple[Any, bool]:
    """Return Ray, and whether it was started, or joined, here."""
    try:
        import ray
        import ray.data.exceptions
    except ImportError as error:
        raise ImportError(
            "The engine 'ray' needs Ray Data; install it with: pip install 'deepfake-detectors[scale]'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            log_to_driver=False,
            include_dashboard=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}},
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return ray, ours


class _Decoder:
    """The first stage: a unit to batches of tensors. Runs in Ray's tasks and only needs the detector's processor."""

    def __init__(self, question: Question, batch_size: int) -> None:
        self.question, self.batch_size = question, batch_size

    def __call__(self, tasks: dict[str, Any]) -> Iterator[dict[str, Any]]:
        processor = _processor(self.question.model, self.question.family)
        for work in tasks["work"]:
            unit, places = pickle.loads(work)
            head, decoding = self.question.head, self.question.decoding
            for batch in prepared_batches(unit, processor, self.batch_size, head, places=places, decoding=decoding):
                yield {"unit": [unit.index], "batch": [pickle.dumps(batch, protocol=5)]}


@cache
def _processor(model: str | None, family: str | None) -> Any:
    """The processor of a model, once in each process: Ray's tasks come one after the other to the same ones."""
    return open_checkpoint(resolve_model(model), family).load_processor()


class _Actor:
    """The second stage: a process that holds the detector and judges batches."""

    def __init__(self, question: Question) -> None:
        import torch

        torch.set_num_threads(1)
        self.judgement = Judgement(question)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        answered = self.judgement.rows(pickle.loads(row["batch"]))
        return {"unit": row["unit"], "rows": pickle.dumps(answered)}
