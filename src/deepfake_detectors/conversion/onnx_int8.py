"""Read float weights by module name from an ONNX export with dynamic int8 quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["read_int8_onnx"]

MATMUL_SUFFIX = "/MatMul_quant"  # name that `onnxruntime.quantization` uses for the product of a linear layer


def read_int8_onnx(path: Path) -> dict[str, torch.Tensor]:
    """Return all weights of an export by `onnxruntime.quantization.quantize_dynamic`, dequantised to float32.

    A linear layer is a node `MatMulInteger` whose name is the module's path; its matrix is
    `(values - zero_point) * scale`, with one scale per output channel or a single one, stored transposed. All other
    tensors are floats with their own names.

    Args:
        path: the ONNX file.

    Returns:
        Name in the exported model (`vision_model.encoder.layers.0.mlp.fc1.weight`) -> tensor.

    Raises:
        ImportError: if `onnx` is not installed.
        ValueError: if the file cannot be read, or has a quantised matrix that does not belong to a named linear layer.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError(
            "Reading ONNX files needs the package onnx, which is not installed: "
            "pip install 'deepfake-detectors[probe]'"
        ) from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise ValueError(f"{path} is not a readable ONNX file: {error}") from error
    stored = {item.name: item for item in graph.initializer}
    used: set[str] = set()
    weights: dict[str, torch.Tensor] = {}
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        matrix, zero_point = node.input[1], node.input[3] if len(node.input) > 3 else None
        scale = matrix.removesuffix("_quantized") + "_scale"
        if not node.name.endswith(MATMUL_SUFFIX) or matrix not in stored or scale not in stored:
            raise ValueError(f"{path}: node {node.name!r} is not the linear layer of a dynamically quantised export.")
        parts = [_array(stored, name) for name in (matrix, scale)]
        values = parts[0].astype(np.float32)
        if zero_point is not None:
            values = values - _array(stored, zero_point).astype(np.float32)
        module = node.name.removesuffix(MATMUL_SUFFIX).strip("/").replace("/", ".")
        weights[f"{module}.weight"] = torch.from_numpy(np.ascontiguousarray((values * parts[1]).T))
        used |= {matrix, scale, zero_point or ""}
    left = [name for name, item in stored.items() if name not in used and item.data_type == onnx.TensorProto.INT8]
    if left:
        raise ValueError(f"{path}: {len(left)} int8 tensors do not belong to a linear layer, such as {left[0]}.")
    floats = (name for name, item in stored.items() if name not in used and item.data_type == onnx.TensorProto.FLOAT)
    return weights | {name: torch.from_numpy(_array(stored, name).copy()) for name in floats}


def _array(stored: dict[str, Any], name: str) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(stored[name])
