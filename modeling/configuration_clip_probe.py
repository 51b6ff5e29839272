"""Configuration of linear probes on frozen CLIP layers (idea: Ojha et al., CVPR 2023, arXiv 2302.10174)."""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal

from transformers import CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_detection import check_detection_fields

__all__ = ["ENCODER_STORAGES", "FEATURES", "SUBJECTS", "ClipProbeConfig"]

FEATURES = ("class_token", "patch_mean", "projection")
SUBJECTS = ("any picture", "faces")
ENCODER_STORAGES = ("float", "int8")
HEAD_DEFAULTS: dict[str, Any] = {"features": ["class_token", "patch_mean"], "clip": 6.0, "subject": "any picture"}
# Fields of a head that users see. For the default head they are at the top level of the config, as in other families.
REPORTED = ("calibration", "operating_points", "decision_band", "license_notice")


class ClipProbeConfig(PreTrainedConfig):
    """
    Configuration of a CLIP image tower, cut off after the last layer in use, with named linear heads.

    Args:
        vision_config: `CLIPVisionConfig` or its fields. `num_hidden_layers` counts only the layers that are kept: 8 by
            default, the first 8 of ViT-B/16's 12.
        heads: name -> settings of a head. A name is lower-case letters, digits and underscores. The settings are

            - `features`: the inputs of the head, concatenated in this order: `"class_token"` and `"patch_mean"` of
              hidden states, `"projection"` (CLIP's own image embedding: final layer norm and projection of the class
              token);
            - `layers`: hidden states 0 to `num_hidden_layers`, of which the head reads the mean; by default only the
              last one;
            - `clip`: limit to which standardised features are clipped on both sides; `None` for no limit;
            - `subject`: `"any picture"` or `"faces"`;
            - `calibration`, `operating_points`, `decision_band`, `license_notice`: as below, only for heads other than
              the default one.
        default_head: the head used if none is named; `None` means the first one.
        encoder_storage: how `save_pretrained` stores the linear layers of the tower: `"float"`, or `"int8"`, integers
            with one scale per output channel (`weight`, `weight_scale`). In memory they are always floats.
        calibration, operating_points, decision_band: those of the default head, explained in
            `configuration_detection`.
        license_notice: terms of the weights; of the default head if heads differ.
        initializer_range: standard deviation of new heads.

    Raises:
        ValueError: for a value outside its allowed set, or a head that reads a layer that does not exist.
    """

    model_type = "clip_probe"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=CLIPVisionConfig, init_kwargs={"patch_size": 16, "num_hidden_layers": 8}
        )
    }

    vision_config: dict | PreTrainedConfig | None = None
    heads: dict[str, Any] | None = None
    default_head: str | None = None
    encoder_storage: Literal["float", "int8"] = "float"
    initializer_range: float = 0.02
    calibration: dict[str, float] | None = None
    operating_points: dict[str, float] | None = None
    decision_band: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architectures is None:  # AutoModel.from_config chooses the class by this name
            self.architectures = ["ClipProbeForDeepfakeDetection"]
        if self.encoder_storage not in ENCODER_STORAGES:
            raise ValueError(
                f"encoder_storage is {self.encoder_storage!r}, allowed are {', '.join(map(repr, ENCODER_STORAGES))}."
            )
        if self.heads is None:
            self.heads = {"picture": {}}
        if not isinstance(self.heads, Mapping) or not self.heads:
            raise ValueError(f"heads is {self.heads!r}, expected at least one name with its settings.")
        if self.default_head is None:
            self.default_head = next(iter(self.heads))
        # Sorted as in the file, so that a loaded model has its parts in the same order as the saved one.
        self.heads = {name: self._checked_head(name, self.heads[name]) for name in sorted(self.heads)}
        self.require_head(self.default_head)
        check_detection_fields(self)
        for name, settings in self.heads.items():
            given = [field for field in REPORTED if field in settings]
            if name == self.default_head and given:
                raise ValueError(
                    f"The default head {name!r} has {', '.join(given)} among its settings; set them at the top "
                    "level, next to `heads`."
                )
            if name != self.default_head:
                fields = {field: settings.get(field) for field in REPORTED}
                own = SimpleNamespace(id2label=self.id2label, **fields)
                check_detection_fields(own)
                settings |= {field: getattr(own, field) for field in REPORTED}

    def _checked_head(self, name: str, settings: Any) -> dict[str, Any]:
        states = self.vision_config.num_hidden_layers + 1
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"{name!r} is not a valid name for a head: use lower-case letters, digits and underscores."
            )
        known = {*HEAD_DEFAULTS, "layers", *REPORTED}
        if not isinstance(settings, Mapping) or set(settings) - known:
            raise ValueError(f"Head {name!r} has the settings {settings!r}, known are {', '.join(sorted(known))}.")
        settings = {**HEAD_DEFAULTS, "layers": [states - 1], **settings}
        for field, allowed in (("features", FEATURES), ("layers", range(states))):
            values = settings[field]
            if not isinstance(values, list) or not values or any(value not in allowed for value in values):
                raise ValueError(
                    f"{field} of head {name!r} is {values!r}, expected a list of {', '.join(map(repr, allowed))}."
                )
        if "projection" in settings["features"] and settings["layers"] != [states - 1]:
            raise ValueError(f"Head {name!r} reads 'projection', which is computed from the last hidden state only.")
        if settings["clip"] is not None and not settings["clip"] > 0:
            raise ValueError(f"clip of head {name!r} is {settings['clip']!r}, expected a positive number or None.")
        if settings["subject"] not in SUBJECTS:
            raise ValueError(
                f"subject of head {name!r} is {settings['subject']!r}, allowed are {', '.join(map(repr, SUBJECTS))}."
            )
        return settings

    def require_head(self, head: str | None) -> str:
        """Return the name of the head to use; `None` means the default one.

        Raises:
            ValueError: if there is no such head; the message lists the existing ones.
        """
        if head is None:
            return self.default_head
        if head not in self.heads:
            raise ValueError(f"head is {head!r}, this checkpoint has {', '.join(map(repr, self.heads))}.")
        return head

    def of_head(self, head: str | None, field: str) -> Any:
        """Return `calibration`, `operating_points`, `decision_band`, `license_notice` or `subject` of one head.

        Raises:
            ValueError: if there is no such head.
        """
        name = self.require_head(head)
        if name == self.default_head and field in REPORTED:
            return getattr(self, field, None)
        return self.heads[name][field]

    def feature_size(self, head: str) -> int:
        """Return the number of features that a head reads per image."""
        vision = self.vision_config
        widths = dict.fromkeys(FEATURES, vision.hidden_size) | {"projection": vision.projection_dim}
        return sum(widths[name] for name in self.heads[head]["features"])

    @property
    def has_projection(self) -> bool:
        """Whether a head reads CLIP's image embedding, which needs the final norm and the projection."""
        return any("projection" in settings["features"] for settings in self.heads.values())
