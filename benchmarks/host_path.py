"""What the host does for a picture of 5 megapixels, against the least that must be done; and workers against none.

    python benchmarks/host_path.py

The pictures are made here: JPEG files of 2592 x 1944 pixels, quality 90, laid out of pieces of `examples/pictures` in
their own resolution, so that they have the detail of photos.

First table, CPU seconds (user and system) of this process, both sides in turn on the same files: what every reader of
pictures does, `Image.open`, `convert("RGB")` and `resize` to the model's size with the model's filter, against
`load_image` and the processor, which also crops and normalises. Of a processor that makes two inputs, the left side
resizes twice; `pad` stands for the size of the whole picture within the square. Of pictures that are RGB, `convert`
makes a copy; the last ratio leaves it out on the left side. Pixels are compared with those of the way through an array
of the whole picture.

Second table, seconds on the clock for the pipeline as `detect` calls it (without the start of the program, with
`OMP_WAIT_POLICY=PASSIVE`, which the command sets), with the rows compared; third, what drafts
(`decoding="draft"`) save and change: in grey levels against an average of the decoded picture, and in P(fake) of these
pictures and of the examples.
Quote ratios, and only of idle cores: the load average is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timing import hardware
from transformers.utils.logging import disable_progress_bar

import deepfake_detectors as dfd
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.image_loading import draft_side, load_draft, load_image
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor, M2F2DetImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.pipelines import resolve_model
from deepfake_detectors.train.mini import tiny_model

EXAMPLES = Path(__file__).parents[1] / "examples" / "pictures"
SIZE, PIECE = (2592, 1944), 216
WORKERS = (0, 1, 2)
Sizes = Sequence[tuple[int, int]]


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of `SIZE`, each of other pieces."""
    sources = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.jpg"))]
    sources = [image for image in sources if min(image.size) >= PIECE]
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        canvas = Image.new("RGB", SIZE)
        following = cycle(generator.permutation(len(sources)))
        for top in range(0, SIZE[1], PIECE):
            for left in range(0, SIZE[0], PIECE):
                image = sources[next(following)]
                x, y = (int(generator.integers(0, side - PIECE + 1)) for side in image.size)
                canvas.paste(image.crop((x, y, x + PIECE, y + PIECE)), (left, top))
        paths.append(folder / f"{number:03d}.jpg")
        canvas.save(paths[-1], quality=90)
    return paths


def built_in(name: str) -> Any:
    return open_checkpoint(resolve_model(name)).load_processor()


def processors() -> dict[str, tuple[Any, dict[str, Any], Sizes]]:
    """Name -> processor, its options, and width and height of what it resizes these pictures to."""

    def crop(side: int) -> Sizes:
        return [(int(side * SIZE[0] / SIZE[1]), side)]

    def pad(side: int) -> Sizes:
        return [(side, int(side * SIZE[1] / SIZE[0]))]

    return {
        "m2f2-det-mini": (built_in("m2f2-det-mini"), {}, crop(224)),
        "clip-probe-mini, picture": (built_in("clip-probe-mini"), {"head": "picture"}, crop(336)),
        "clip-probe-mini, face": (built_in("clip-probe-mini"), {"head": "face"}, crop(224)),
        "tiny M2F2-Det": (tiny_model("m2f2_det")[1], {}, crop(56)),
        "M2F2-Det": (M2F2DetImageProcessor(), {}, crop(336)),
        "M2F2-Det, crop and pad": (M2F2DetImageProcessor(do_pad=True), {}, [*crop(336), *pad(336)]),
        "FakeVLM, crop": (FakeVLMImageProcessor(), {}, crop(336)),
        "FakeVLM, pad": (FakeVLMImageProcessor(do_pad=True), {}, pad(336)),
        "AntifakePrompt": (AntifakePromptImageProcessor(), {}, crop(224)),
        "LVLM-DFD, squash": (LvlmDfdImageProcessor(), {}, [(224, 224)]),
        "LVLM-DFD, crop": (LvlmDfdImageProcessor(crop_mode="center_crop"), {}, crop(224)),
    }


def plain(path: Path, sizes: Sizes, copy: bool = True, turn: bool = False) -> list[Image.Image]:
    """The least that must be done."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image) if turn else image
        image = upright.convert("RGB") if copy else upright
        return [image.resize(size, Image.Resampling.BICUBIC) for size in sizes]


def cpu_seconds(work: Callable[[Path], object], paths: Sequence[Path]) -> float:
    start = time.process_time()
    for path in paths:
        work(path)
    return (time.process_time() - start) / len(paths)


def medians(works: Sequence[Callable[[Path], object]], paths: Sequence[Path], runs: int) -> list[float]:
    """CPU seconds per picture of each, the median of `runs` in which all take turns, after one that is not counted."""
    found: list[list[float]] = [[] for _ in works]
    for run in range(runs + 1):
        for seconds, work in zip(found, works, strict=True):
            spent = cpu_seconds(work, paths)
            if run:
                seconds.append(spent)
    return [statistics.median(seconds) for seconds in found]


def host_table(paths: Sequence[Path], runs: int) -> None:
    print("| processor | decode and resize | load and processor | ratio | without the copy | pixels differ by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (processor, options, sizes) in processors().items():

        def ours(path: Path, processor: Any = processor, options: Any = options) -> Any:
            return processor(images=load_image(path), return_tensors="pt", **options)

        def theirs(path: Path, sizes: Sizes = sizes) -> Any:
            return plain(path, sizes)

        def copyless(path: Path, sizes: Sizes = sizes) -> Any:
            return plain(path, sizes, copy=False)

        least, bare, own = medians([theirs, copyless, ours], paths, runs)
        worst = 0.0
        whole = np.asarray(load_image(paths[0]))
        images = getattr(processor, "image_processor", processor)
        through_array = images(whole, return_tensors="pt", input_data_format="channels_last", **options)
        for key, value in ours(paths[0]).items():
            if isinstance(value, torch.Tensor):
                worst = max(worst, float((value - through_array[key]).abs().max()))
        print(
            f"| {name} | {1000 * least:.1f} ms | {1000 * own:.1f} ms | {own / least:.2f} | {own / bare:.2f} "
            f"| {worst:.0e} |"
        )


def turned_line(folder: Path, paths: Sequence[Path], runs: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = []
    for path in paths:
        turned.append(folder / f"turned-{path.name}")
        Image.open(path).save(turned[-1], quality=90, exif=exif)
    processor = built_in("m2f2-det-mini")
    sizes = [(224, int(224 * SIZE[0] / SIZE[1]))]
    least, own = medians(
        [
            lambda path: plain(path, sizes, turn=True),
            lambda path: processor(images=load_image(path), return_tensors="pt"),
        ],
        turned,
        runs,
    )
    print(
        f"\nTurned by EXIF, m2f2-det-mini: {1000 * least:.1f} ms with `ImageOps.exif_transpose`, {1000 * own:.1f} ms "
        f"here, ratio {own / least:.2f}."
    )


def workers_table(paths: Sequence[Path], model: str, runs: int) -> None:
    detector = dfd.pipeline(model=model, device="cpu")
    many = [str(path) for path in paths] * 4

    def rows(num_workers: int) -> list[dict[str, Any]]:
        return list(detector(iter(many), batch_size=8, num_workers=num_workers, on_error="record"))

    expected = rows(0)
    clock: dict[int, list[float]] = {number: [] for number in WORKERS}
    spent: dict[int, list[float]] = {number: [] for number in WORKERS}
    same = dict.fromkeys(WORKERS, True)
    for _ in range(runs):
        for number in WORKERS:
            start, cpu = time.perf_counter(), time.process_time()
            same[number] &= rows(number) == expected
            clock[number].append((time.perf_counter() - start) / len(many))
            spent[number].append((time.process_time() - cpu) / len(many))
    print(f"\n| `detect --model {model} --num-workers` | a picture | CPU | as fast as 0 | rows |")
    print("| --- | --- | --- | --- | --- |")
    for number in WORKERS:
        ratios = [before / now for before, now in zip(clock[0], clock[number], strict=True)]
        print(
            f"| {number} | {1000 * statistics.median(clock[number]):.1f} ms "
            f"| {1000 * statistics.median(spent[number]):.1f} ms | {statistics.median(ratios):.2f} times "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {'the same' if same[number] else 'DIFFER'} |"
        )


def draft_table(paths: Sequence[Path], runs: int) -> None:
    print("\n| load and processor | full | draft | ratio | grey levels, mean | P(fake), most |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in ("m2f2-det-mini", "clip-probe-mini"):
        detector = dfd.pipeline(model=name, device="cpu")
        processor, side = detector.processor, draft_side("draft", detector.processor)
        assert side is not None

        def whole(path: Path, processor: Any = processor) -> Any:
            return processor(images=load_image(path), return_tensors="pt")

        def small(path: Path, processor: Any = processor, side: int = side) -> Any:
            return processor(images=load_draft(path, side)[0], return_tensors="pt")

        full, draft = medians([whole, small], paths, runs)
        levels = []
        for path in paths[:2]:
            found = load_draft(path, side)[0]
            averaged = load_image(path).resize(found.size, Image.Resampling.BOX)
            levels.append(np.abs(np.asarray(averaged, int) - np.asarray(found, int)).mean())
        files = [str(path) for path in (*paths, *sorted(EXAMPLES.glob("*.jpg")))]
        both = [detector(files, batch_size=8, decoding=decoding) for decoding in ("full", "draft")]
        moved = max(abs(a["fake_probability"] - b["fake_probability"]) for a, b in zip(*both, strict=True))
        print(
            f"| {name} | {1000 * full:.1f} ms | {1000 * draft:.1f} ms | {draft / full:.2f} | {np.mean(levels):.2f} "
            f"| {moved:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each side; medians are printed")
    parser.add_argument("--pictures", type=int, default=8, help="pictures of 5 megapixels")
    parser.add_argument("--model", default="m2f2-det-mini", help="detector of the table of workers")
    options = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # what the commands set for workers; read when torch is loaded
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    disable_progress_bar()
    before = os.getloadavg()
    print(
        f"{hardware()}, {os.cpu_count()} cores, load average before: {', '.join(f'{load:.2f}' for load in before)}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), options.pictures)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        host_table(paths, options.runs)
        turned_line(Path(folder), paths, options.runs)
        torch.set_num_threads(threads)
        workers_table(paths, options.model, options.runs)
        draft_table(paths, options.runs)
    print(f"\nLoad average after: {', '.join(f'{load:.2f}' for load in os.getloadavg())} (this benchmark included).")


if __name__ == "__main__":
    main()
