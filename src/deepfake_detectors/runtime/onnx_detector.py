"""Verdicts with ONNX Runtime, using the same pipeline as with PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoProcessor

from deepfake_detectors.files import read_json_object
from deepfake_detectors.modeling.detection import DeepfakeDetectionOutput
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.pipelines import resolve_model
from deepfake_detectors.runtime.export import EXPORT_FILE, GRAPH_FILE

__all__ = ["OnnxDetector", "load_onnx_detector"]


class OnnxDetector(nn.Module):
    """A detector that runs in ONNX Runtime and follows the contract of the package.

    Args:
        folder: folder written by `export`.
        threads: threads of ONNX Runtime; `None` means as many as PyTorch.

    Raises:
        ValueError: for a folder without an exported detector.
        ImportError: if `onnxruntime` is not installed.
    """

    can_explain = False

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        super().__init__()
        folder = Path(folder)
        for name in (GRAPH_FILE, EXPORT_FILE):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder} is not an exported detector (no {name}). Export one first: "
                    f"deepfake_detectors.export({str(folder)!r}, output)"
                )
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "Using ONNX Runtime needs onnxruntime, which is not installed: "
                "pip install 'deepfake-detectors[export]'"
            ) from error
        self.facts = read_json_object(folder / EXPORT_FILE)
        self.config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self.can_localize = "mask" in self.facts["outputs"]
        self.name_or_path = str(folder)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        # Only its own parts may be read from the folder of the graph.
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(folder / GRAPH_FILE), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors do not have a common class
            raise ValueError(f"{folder / GRAPH_FILE} cannot be read by ONNX Runtime: {error}") from error

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def subject(self) -> str:
        """`"faces"` or `"picture"`, as for the exported detector."""
        of_head = getattr(self.config, "of_head", None)
        if of_head is not None:
            return str(of_head(self.facts["head"], "subject"))
        from deepfake_detectors.families import FAMILIES

        return str(FAMILIES[self.config.model_type].load("verdict").subject)

    def can_generate(self) -> bool:
        return False

    def detect(self, head: str | None = None, **inputs: torch.Tensor) -> DeepfakeDetectionOutput:
        """Score a batch.

        Args:
            head: must be the exported one, if the detector has named heads.
            inputs: tensors from the processor, `(batch, ...)` float32.

        Raises:
            ValueError: for another head, or inputs that differ from those of the graph.
        """
        if head is not None and head != self.facts["head"]:
            raise ValueError(f"head is {head!r}, but {self.name_or_path} only has the head {self.facts['head']!r}.")
        if sorted(inputs) != sorted(self.facts["inputs"]):
            raise ValueError(
                f"Got {', '.join(sorted(inputs))}, but the graph takes {', '.join(self.facts['inputs'])}."
            )
        arrays = {name: np.ascontiguousarray(value.float().numpy()) for name, value in inputs.items()}
        found: dict[str, Any] = dict(
            zip(self.facts["outputs"], self._session.run(self.facts["outputs"], arrays), strict=True)
        )
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in found.items()}
        return DeepfakeDetectionOutput(**tensors)


def load_onnx_detector(model: str | Path, threads: int | None = None) -> DeepfakeDetectionPipeline:
    """Return the pipeline of an exported detector; arguments and errors as for `OnnxDetector`."""
    folder = resolve_model(model)
    detector = OnnxDetector(folder, threads)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    head = detector.facts["head"]
    options = {} if head is None else {"head": head}
    return DeepfakeDetectionPipeline(model=detector, processor=processor, device="cpu", **options)
