"""Four published vision-language deepfake detectors, the Hugging Face way."""

from deepfake_detectors.registration import AutoModelForDeepfakeDetection, register_families

__all__ = ["AutoModelForDeepfakeDetection", "__version__"]

__version__ = "0.1.0"

register_families()
