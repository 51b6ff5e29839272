"""The `deepfake-detectors` command."""

from deepfake_detectors.cli.app import app, main

__all__ = ["app", "main"]
