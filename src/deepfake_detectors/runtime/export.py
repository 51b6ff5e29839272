"""`export()`: export a detector as an ONNX graph with a dynamic batch size, in floats or int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoProcessor

from deepfake_detectors.examination.judging import files_digest, public_name
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.modeling.detection import VerdictProcessor, require_head
from deepfake_detectors.modeling.modeling_cached_feature import FeatureKeeper
from deepfake_detectors.outputs import write_json, written_whole
from deepfake_detectors.pipelines import load_config

__all__ = ["EXPORT_FILE", "FORMATS", "GRAPH_FILE", "VerdictGraph", "export", "fixed_features"]

FORMATS = ("onnx",)
GRAPH_FILE = "model.onnx"
EXPORT_FILE = "export.json"
# Smaller matrix products stay in float32: they are fast, and the last layers need the precision.
LEAST_INT8_WEIGHTS = 1 << 14
# Each block of this many inputs has a scale of its own, in the weights and in each row of activations. One scale for a
# whole tensor is twice as fast, but CLIP's outliers then cost every digit (P(fake) off by up to 0.28), a verdict
# depends on the other images of its batch, and sums saturate on processors without VNNI.
INT8_BLOCK = 64
INT8_PRODUCTS = 4  # ONNX Runtime's `accuracy_level`: activations become int8, too


class VerdictGraph(nn.Module):
    """A detector as a function of tensors, for export.

    Args:
        model: a detector that only needs images.
        head: head to use, for a detector with named heads.
    """

    def __init__(self, model: Any, head: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.options = {} if head is None else {"head": head}

    def forward(
        self, pixel_values: torch.Tensor, detector_pixel_values: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return calibrated logits `(batch, 2)` and, if the detector localizes, masks `(batch, height, width)`."""
        inputs = {"pixel_values": pixel_values, "detector_pixel_values": detector_pixel_values}
        given = {name: value for name, value in inputs.items() if value is not None}
        output = self.model.detect(**given, **self.options)
        return (output.logits,) if output.mask is None else (output.logits, output.mask)


def export(
    model: str | Path | None,
    output: str | Path,
    format: str = "onnx",
    int8: bool = False,
    head: str | None = None,
    family: str | None = None,
) -> Path:
    """Export the verdict of a detector for a runtime without PyTorch.

    The folder contains `model.onnx` (float32 inputs from the processor, any batch size; outputs calibrated `logits`,
    and `mask` if the detector localizes), config and processor of the detector, and `export.json`.
    `load_onnx_detector` reads it.

    Args:
        model: folder, Hub id or name of a built-in checkpoint; `None` means the built-in default. For a checkpoint
            with a language model, only the detector is exported.
        output: a new or empty folder.
        format: `"onnx"`.
        int8: store large matrices of linear layers in int8, in blocks with a scale each, and multiply in int8; other
            layers stay in float32.
        head: head to export, for a checkpoint with named heads; `None` means its default.
        family: family of a stock folder, as in `pipeline`.

    Returns:
        `output`.

    Raises:
        ValueError: for an unknown format or head, for a detector whose verdict needs a language model, and if `output`
            is in use.
        OSError: if the model does not exist.
        ImportError: if `onnx`, `onnxscript` or `onnxruntime` is not installed.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
    _require_packages(int8)
    source, config = load_config(model, family)
    cls = FAMILIES[config.model_type].load("verdict")
    if cls.can_explain:
        able = sorted(name for name, row in FAMILIES.items() if not row.load("verdict").can_explain)
        raise ValueError(
            f"The verdict of {config.model_type} ({cls.__name__}) comes from a language model, which cannot be "
            f"exported. Families that can be exported: {', '.join(able)}."
        )
    detector = cls.from_pretrained(source, dtype=torch.float32).eval()
    named = require_head(detector, head)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    images = VerdictProcessor(getattr(processor, "image_processor", processor))
    example = _example(images, named)
    names = ["logits", *(["mask"] if cls.can_localize else [])]
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    with written_whole(output) as folder, fixed_features(detector, example, named), torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            VerdictGraph(detector, named),
            (),
            kwargs=example,
            dynamo=True,
            dynamic_shapes={name: {0: batch} for name in example},
            input_names=list(example),
            output_names=names,
            verbose=False,
        )
        program.save(folder / GRAPH_FILE)
        if int8:
            _quantise(folder / GRAPH_FILE)
        detector.config.save_pretrained(folder)
        images.save_pretrained(folder)
        facts = {
            "format": format,
            "int8": int8,
            "head": named,
            "inputs": list(example),
            "outputs": names,
            "model": {"name": public_name(source), "sha256": files_digest(source)},
            "package": package_version("deepfake-detectors"),
        }
        write_json(folder / EXPORT_FILE, facts)
    return Path(output)


def _require_packages(int8: bool) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401

        if int8:
            import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Exporting to ONNX needs {error.name}, which is not installed: pip install 'deepfake-detectors[export]'"
        ) from error


def _example(processor: Any, head: str | None) -> dict[str, torch.Tensor]:
    """Return the processor's output for two images, for tracing."""
    generator = np.random.default_rng(0)
    noise = [Image.fromarray(generator.integers(0, 256, (320, 320, 3), dtype=np.uint8)) for _ in range(2)]
    found = processor(images=noise, return_tensors="pt", **({} if head is None else {"head": head}))
    return {name: value.float() for name, value in found.items() if isinstance(value, torch.Tensor)}


@contextmanager
def fixed_features(model: nn.Module, example: dict[str, torch.Tensor], head: str | None = None) -> Iterator[None]:
    """Make features that only depend on weights constants of the graph while the context is open."""
    keepers = [module for module in model.modules() if isinstance(module, FeatureKeeper)]
    with torch.no_grad():
        VerdictGraph(model, head)(**example)
    for keeper in keepers:
        keeper.fix()
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of the exporter about its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _quantise(path: Path) -> None:
    """Replace a float graph by one that computes large products in int8."""
    import onnx

    graph = onnx.load(path)
    beside = [file for file in path.parent.glob(f"{path.name}*") if file != path]
    sizes = {item.name: int(np.prod(item.dims)) for item in graph.graph.initializer}
    small = [
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul" and all(sizes.get(name, 0) < LEAST_INT8_WEIGHTS for name in node.input)
    ]
    with _logging_as_it_was():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        settings = DefaultWeightOnlyQuantConfig(
            bits=8, block_size=INT8_BLOCK, is_symmetric=True, accuracy_level=INT8_PRODUCTS
        )
        quantizer = MatMulNBitsQuantizer(graph, nodes_to_exclude=small, algo_config=settings)
        quantizer.process()
    for file in (path, *beside):
        file.unlink()
    # Large graphs keep their weights in a file beside them.
    onnx.save(quantizer.model.model, path, save_as_external_data=bool(beside), location=f"{path.name}.data")


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """The quantizer configures the root logger when it is imported, and then reports every node."""
    root, own = logging.getLogger(), logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    level, handlers, own_level = root.level, root.handlers[:], own.level
    own.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        own.setLevel(own_level)
