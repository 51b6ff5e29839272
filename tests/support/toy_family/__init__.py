"""A package of somebody else that adds two families; the entry points in its metadata name these mappings."""

_SHARED = {
    "judges": "any picture",
    "processor": "toy_family.modeling:ToyProcessor",
    "image_processor": "toy_family.modeling:ToyImageProcessor",
    "facts": "toy_family:facts.yaml",
}

TOY = {
    "title": "Toy",
    "config": "toy_family.modeling:ToyConfig",
    "verdict": "toy_family.modeling:ToyForDeepfakeDetection",
    **_SHARED,
}

TOY_MASK = {
    "title": "Toy with a mask",
    "config": "toy_family.modeling:ToyMaskConfig",
    "verdict": "toy_family.modeling:ToyMaskForDeepfakeDetection",
    **_SHARED,
}

import deepfake_detectors  # noqa: E402, F401 - so that the families are registered whichever module comes first
