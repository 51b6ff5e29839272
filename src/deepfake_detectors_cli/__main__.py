"""`python -m deepfake_detectors_cli`, the same as `deepfake-detectors`."""

from deepfake_detectors_cli.app import main

main()
