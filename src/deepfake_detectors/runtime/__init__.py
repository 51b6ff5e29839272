"""Detectors without PyTorch's eager mode: export to ONNX, and verdicts by ONNX Runtime."""
