"""`score`: its overhead over a bare loop, what it does when it is killed, and what a second worker brings.

    python benchmarks/score.py cpu                       # CPU per image: bare loop, local, Ray
    python benchmarks/score.py kills                     # 20,000 images in 20 shards; a worker and two drivers killed
    python benchmarks/score.py workers                   # seconds with one worker and with two; needs two idle cores

Every run is a process of its own, forked from one that has imported everything, with one thread for each process that
judges. Images are made here (noise enlarged to photographs' smoothness, JPEG) and lie in WebDataset tars. What a run
costs once (loading the model, starting Ray) is excluded: two sizes are measured, and their difference is divided by
the difference of their images. CPU seconds are those of the process and all its descendants. Needs psutil; Linux.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image
from timing import hardware

ENGINES = ("local", "ray")
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["deepfake_detectors", "deepfake_detectors.scale.score", "transformers.pipelines", "pyarrow.parquet"]
SAMPLING = 0.1  # seconds between two looks at the processes of a run


class Setting(NamedTuple):
    model: str
    batch_size: int
    unit_rows: int


class Cost(NamedTuple):
    cpu: float
    wall: float


# ---- images ---------------------------------------------------------------------------------------------------------


def make_shards(folder: Path, images: int, shards: int, side: int) -> Path:
    """Write different JPEG images into tars of equal length."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(images)
    for shard, numbers in enumerate(np.array_split(np.arange(images), shards)):
        with tarfile.open(folder / f"shard-{shard:05d}.tar", "w") as tar:
            for number in numbers:
                small = Image.fromarray(generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
                file = BytesIO()
                small.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{number:07d}.jpg")
                member.size = file.tell()
                file.seek(0)
                tar.addfile(member, file)
    return folder


# ---- what runs in a process of its own ------------------------------------------------------------------------------


def bare_loop(source: Path, setting: Setting, result: Path) -> None:
    """What cannot be left out: read, decode, prepare, judge, in batches."""
    import torch

    import deepfake_detectors as dfd
    from deepfake_detectors.modeling.image_loading import load_image

    torch.set_num_threads(1)
    begun = time.monotonic()
    pipe = dfd.pipeline(model=setting.model, device="cpu")
    model, processor = pipe.model, pipe.processor
    scores: list[float] = []

    def batches() -> Iterator[list[Image.Image]]:
        images = []
        for shard in sorted(source.glob("*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    images.append(load_image({"bytes": tar.extractfile(member).read(), "path": member.name}))
                    if len(images) == setting.batch_size:
                        yield images
                        images = []
        if images:
            yield images

    for images in batches():
        logits = model.detect(**processor(images=images, return_tensors="pt")).logits
        scores += torch.softmax(logits, dim=-1)[:, 1].tolist()
    result.write_text(json.dumps({"rows": len(scores), "seconds": time.monotonic() - begun}))


def run_score(source: Path, setting: Setting, result: Path, output: Path, engine: str, workers: int) -> None:
    import torch

    import deepfake_detectors as dfd

    torch.set_num_threads(1)
    run = dfd.score(
        str(source / "*.tar"),
        output,
        engine,
        setting.model,
        batch_size=setting.batch_size,
        unit_rows=setting.unit_rows,
        num_workers=workers,
    )
    result.write_text(json.dumps(run.to_dict()))


# ---- measuring ------------------------------------------------------------------------------------------------------


def begin(target: Callable[..., None], *arguments: Any) -> Any:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def descendants(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure(target: Callable[..., None], source: Path, setting: Setting, work: Path, *rest: Any) -> Cost:
    """Run to the end; processes are looked at while they live, so that none that ends is missed."""
    result = work / "result.json"
    process = begin(target, source, setting, result, *rest)
    used: dict[tuple[int, float], float] = {}
    while process.is_alive():
        for each in descendants(process.pid):
            try:
                times = each.cpu_times()
                used[each.pid, each.create_time()] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        time.sleep(SAMPLING)
    process.join()
    if process.exitcode:
        raise SystemExit(f"A run ended with {process.exitcode}.")
    return Cost(sum(used.values()), json.loads(result.read_text())["seconds"])


def per_image(kind: str, workers: int, sources: dict[int, Path], setting: Setting) -> Cost:
    """Return CPU and wall seconds of one more image, from a short and a long run."""
    costs = {}
    for images, source in sources.items():
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            target, rest = (bare_loop, ()) if kind == "bare loop" else (run_score, (work / "out", kind, workers))
            costs[images] = measure(target, source, setting, work, *rest)
    (few, short), (many, long) = sorted(costs.items())
    return Cost((long.cpu - short.cpu) / (many - few), (long.wall - short.wall) / (many - few))


def cpu_part(options: argparse.Namespace, setting: Setting, sources: dict[int, Path]) -> None:
    kinds = ["bare loop", *options.engines]
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.repeats):
        for kind in kinds:
            # The local engine without workers does everything in its process, as the loop does.
            costs[kind].append(per_image(kind, int(kind == "ray"), sources, setting).cpu)
    print("| CPU per image | median | against the bare loop, run by run |\n| --- | --- | --- |")
    for kind, found in costs.items():
        ratios = [cost / bare for cost, bare in zip(found, costs["bare loop"], strict=True)]
        print(
            f"| {kind} | {1000 * statistics.median(found):.2f} ms | {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}) |"
        )


def workers_part(options: argparse.Namespace, setting: Setting, sources: dict[int, Path]) -> None:
    print("| engine | one worker | two workers | ratio, run by run |\n| --- | --- | --- | --- |")
    for engine in options.engines:
        pairs = [
            [per_image(engine, workers, sources, setting).wall for workers in (1, 2)] for _ in range(options.repeats)
        ]
        ratios = [one / two for one, two in pairs]
        one, two = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"| {engine} | {one:.2f} ms | {two:.2f} ms | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


# ---- kills ----------------------------------------------------------------------------------------------------------


def finished(output: Path) -> dict[str, int]:
    """Return name -> time of the finished units."""
    return {path.name: path.stat().st_mtime_ns for path in output.glob("unit-*.parquet")}


def kill_worker(driver: int, engine: str) -> bool:
    """End one process that judges."""
    for each in reversed(descendants(driver)[1:]):
        try:
            words = " ".join(each.cmdline())
            if engine == "ray":
                judges = words.startswith("ray::") and "MapWorker" in words
            else:
                judges = each.ppid() == driver and "resource_tracker" not in words
            if judges:
                each.kill()
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def killed_run(engine: str, source: Path, setting: Setting, work: Path, workers: int, shards: int) -> list[str]:
    """Kill a worker, then the driver twice, then let it end; return what was not as it should be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(folder: Path) -> pa.Table:
        return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("unit-*.parquet"))])

    whole, output, result = work / "whole", work / engine, work / "result.json"
    if not whole.exists():
        measure(run_score, source, setting, work, whole, "local", workers)
    result.unlink(missing_ok=True)
    wrong, kept = [], {}
    for share in (1 / 3, 2 / 3):
        process = begin(run_score, source, setting, result, output, engine, workers)
        worker_killed = share > 0.5
        while process.is_alive() and len(finished(output)) < share * shards:
            if not worker_killed and finished(output):
                worker_killed = kill_worker(process.pid, engine)
            time.sleep(0.02)
        if not process.is_alive():
            wrong.append("the run ended before it could be killed")
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if not worker_killed:
            wrong.append("no worker could be killed")
        time.sleep(1)  # what it started ends with it
        now = finished(output)
        wrong += [f"{name} was done again" for name, when in kept.items() if now.get(name) != when]
        kept = now
    measure(run_score, source, setting, work, output, engine, workers)
    last = json.loads(result.read_text())
    now = finished(output)
    wrong += [f"{name} was done again" for name, when in kept.items() if now.get(name) != when]
    if last["computed"] != shards - len(kept):
        wrong.append(f"{last['computed']} units were done last, {shards - len(kept)} were missing")
    wrong += [f"{path.name} is left" for path in output.rglob("*.part")]
    expected, found = table(whole), table(output)
    if found["id"].to_pylist() != expected["id"].to_pylist() or len(set(found["id"].to_pylist())) != len(found):
        wrong.append("the ids differ")
    else:
        scores = (np.array(each["fake_probability"].to_pylist(), float) for each in (expected, found))
        off = float(np.abs(np.subtract(*scores)).max())
        print(f"| {engine} | {len(found)} | {shards} | {len(kept)} kept, {last['computed']} last | {off:.0e} |")
        if not off <= 1e-6:
            wrong.append(f"scores differ by {off}")
    return [f"{engine}: {each}" for each in wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("cpu", "kills", "workers"))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--model", default="m2f2-det-mini")
    parser.add_argument("--images", type=int, help="in all (kills: 20000), or of the longer run (else: 2500)")
    parser.add_argument("--shards", type=int, default=20, help="kills: tars, and units")
    parser.add_argument("--workers", type=int, default=2, help="kills: processes that judge")
    parser.add_argument("--side", type=int, default=256, help="pixels of an image's side")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3, help="cpu, workers: runs of each side")
    options = parser.parse_args()
    images = options.images or (20000 if options.part == "kills" else 2500)
    PROCESSES.set_forkserver_preload(PRELOADED)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    print(
        f"{hardware()}; {options.model}, batches of {options.batch_size}, JPEG of {options.side} pixels\n", flush=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if options.part == "kills":
            setting = Setting(options.model, options.batch_size, -(-images // options.shards))
            source = make_shards(work / "images", images, options.shards, options.side)
            print("| engine | images | units | after the second kill | largest difference |\n" + "| --- " * 5 + "|")
            rows = [
                killed_run(engine, source, setting, work, options.workers, options.shards)
                for engine in options.engines
            ]
            wrong = [each for row in rows for each in row]
            print("\n" + ("\n".join(wrong) or "Every id once, the missing units alone redone, no part left."))
            return int(bool(wrong))
        # Eight units in the longer run, two in the shorter one.
        setting = Setting(options.model, options.batch_size, -(-images // 8))
        sources = {
            count: make_shards(work / str(count), count, units, options.side)
            for count, units in ((images // 4, 2), (images, 8))
        }
        (cpu_part if options.part == "cpu" else workers_part)(options, setting, sources)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
