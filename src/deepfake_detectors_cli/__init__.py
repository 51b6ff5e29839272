"""The `deepfake-detectors` command."""

from deepfake_detectors_cli.app import app, main

__all__ = ["app", "main"]
