"""Verdicts by ONNX Runtime, in float32 and int8, against PyTorch on one thread; and what int8 costs in AUC.

    python benchmarks/export.py                              # mid-size M2F2-Det and clip-probe-mini, noise
    python benchmarks/export.py --ddvqa DATA/ddvqa           # and the AUC of the built-in checkpoints

All sides of a row run in turn in one process, on the same tensors; their differences are in the table. M2F2-Det has
the widths of CLIP ViT-B/16 (12 layers of 768, 224 pixels) and random weights; its CNN is the released DenseNet-121.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import hardware, seconds

import deepfake_detectors as dfd
from deepfake_detectors.evaluation.metrics import auc
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.runtime.onnx_detector import OnnxDetector, load_onnx_detector

BUILT_IN = {"m2f2-det-mini": None, "clip-probe-mini": "face"}  # name -> head for faces
REAL = "5_"  # begins the names of DD-VQA's real images
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}
SIDES = ("float32", "int8")


def mid_size_m2f2_det(folder: Path) -> Path:
    torch.manual_seed(0)
    config = M2F2DetConfig(
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 16,
        },
        # Read once: the learned prompt is a constant of the graph, and kept by PyTorch.
        prompt_text_config={"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, **NO_TOKENS},
    )
    M2F2DetForDeepfakeDetection(config).save_pretrained(folder)
    image_processor = M2F2DetImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    VerdictProcessor(image_processor).save_pretrained(folder)
    return folder


def speed_rows(name: str, model: str | Path, head: str | None, batches: list[int], repeats: int, work: Path) -> None:
    pipe = dfd.pipeline(model=str(model), device="cpu", dtype=torch.float32)
    exported = {
        side: OnnxDetector(dfd.export(model, work / side, int8=side == "int8", head=head), 1) for side in SIDES
    }
    size = pipe.model.config.vision_config.image_size
    options: dict[str, Any] = {} if head is None else {"head": head}
    for batch in batches:
        pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))

        def judged(detector: Any, pixels: torch.Tensor = pixels) -> np.ndarray:
            return torch.softmax(detector.detect(pixel_values=pixels, **options).logits, dim=-1)[:, 1].numpy()

        sides: dict[str, Callable[[], np.ndarray]] = {
            name: lambda detector=detector: judged(detector)
            for name, detector in {"torch": pipe.model, **exported}.items()
        }
        first = {side: run() for side, run in sides.items()}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, run in sides.items():
                start = seconds()
                run()
                times[side].append((seconds() - start) / batch)
        cells = [f"{1000 * statistics.median(times['torch']):.1f} ms"]
        for side in SIDES:
            ratios = [slow / fast for slow, fast in zip(times["torch"], times[side], strict=True)]
            cells.append(
                f"{1000 * statistics.median(times[side]):.1f} ms, {statistics.median(ratios):.2f}x "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
        cells += [f"{np.abs(first[side] - first['torch']).max():.0e}" for side in SIDES]
        print(f"| {name}, batch {batch} | {' | '.join(cells)} |", flush=True)


def auc_row(name: str, head: str | None, ddvqa: Path, work: Path) -> None:
    files = sorted((ddvqa / "images_c40/test").glob("*.jpg"))
    fake = [not file.name.startswith(REAL) for file in files]
    scores = {}
    for side in SIDES:
        pipe = load_onnx_detector(dfd.export(name, work / side, int8=side == "int8", head=head), 1)
        rows = pipe([str(file) for file in files], batch_size=8)
        scores[side] = np.array([row["fake_probability"] for row in rows])
    areas = {side: auc(fake, scores[side]) for side in SIDES}
    off = np.abs(scores["int8"] - scores["float32"])
    print(
        f"| {name}{f', head {head}' if head else ''} | {len(files)} | {areas['float32']:.4f} | {areas['int8']:.4f} "
        f"| {off.max():.3f} | {off.mean():.4f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="images per call")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each side; medians are printed")
    parser.add_argument("--ddvqa", type=Path, help="folder with images_c40/test, for the AUC")
    parser.add_argument("--skip-speed", action="store_true", help="the AUC alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{hardware()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if not options.skip_speed:
            print("| detector | PyTorch | ONNX float32 | ONNX int8 | off by, float32 | off by, int8 |")
            print("| --- " * 6 + "|")
            sizes = options.batches, options.repeats
            source = mid_size_m2f2_det(work / "m2f2")
            speed_rows("M2F2-Det, ViT-B/16 widths", source, None, *sizes, work / "m2f2-onnx")
            speed_rows("`clip-probe-mini`", "clip-probe-mini", "face", *sizes, work / "clip-onnx")
            print()
        if options.ddvqa is not None:
            print("| checkpoint, DD-VQA test c40 | images | AUC float32 | AUC int8 | largest difference | mean |")
            print("| --- " * 6 + "|")
            for name, head in BUILT_IN.items():
                auc_row(name, head, options.ddvqa, work / name)


if __name__ == "__main__":
    main()
