"""Export of detectors to ONNX, and verdicts with ONNX Runtime."""
