"""Linear heads on frozen layers of a CLIP image tower, after Ojha et al., "Towards Universal Fake Image Detectors that
Generalize Across Generative Models", CVPR 2023."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_clip_probe import ClipProbeConfig
from .detection import (
    DeepfakeDetectionMixin,
    DeepfakeDetectionOutput,
    named_after,
    refuse_foreign_checkpoint,
    require_complete,
)
from .modeling_clip_probe_storage import read_stored_weights, write_stored_weights
from .saving import finish_saving, saved_whole

__all__ = ["ClipProbeForDeepfakeDetection", "ClipProbeHead", "ClipProbeOutput", "probe_features"]


@dataclass
class ClipProbeOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): cross-entropy, if `labels` were given.
        logits (`torch.FloatTensor` of shape `(batch, 2)`): calibrated, float32, `[real, fake]`, of mean 0.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None


class ClipProbeHead(nn.Module):
    """Standardise, clip and weight features `(batch, width)` to the logit difference fake - real `(batch,)`.

    Args:
        width: number of features.
        clip: limit of the standardised features, or `None`.
    """

    def __init__(self, width: int, clip: float | None) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.classifier = nn.Linear(width, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        standard = (features.float() - self.mean.float()) / self.deviation.float()
        if self.clip is not None:
            standard = standard.clamp(-self.clip, self.clip)
        return self.classifier(standard.to(self.classifier.weight.dtype)).squeeze(-1).float()


def probe_features(
    states: dict[int, torch.Tensor], features: Sequence[str], layers: Sequence[int], embedding: torch.Tensor | None
) -> torch.Tensor:
    """Concatenate the features that a head reads.

    Args:
        states: hidden states `(batch, 1 + patches, width)` by index.
        features: see `ClipProbeConfig`.
        layers: the states to average.
        embedding: CLIP's image embedding `(batch, projection_dim)`, if `features` has `"projection"`.

    Returns:
        `(batch, feature size)`, float32.
    """
    parts = []
    for name in features:
        if name == "projection":
            parts.append(embedding.float())
        else:
            chosen = [states[layer].float() for layer in layers]
            read = [state[:, 0] if name == "class_token" else state[:, 1:].mean(dim=1) for state in chosen]
            parts.append(torch.stack(read).mean(dim=0))
    return torch.cat(parts, dim=-1)


class ClipProbePreTrainedModel(DeepfakeDetectionMixin, PreTrainedModel):
    config: ClipProbeConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "CLIPVisionEmbeddings"]
    # Differences of a few hundredths matter after standardisation.
    _keep_in_fp32_modules_strict = {"heads"}

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ClipProbeHead):
            init.zeros_(module.mean)
            init.ones_(module.deviation)
            init.normal_(module.classifier.weight, std=self.config.initializer_range)
            init.zeros_(module.classifier.bias)


class ClipProbeForDeepfakeDetection(ClipProbePreTrainedModel):
    """Detector with named heads on one shared tower; one head gives the verdict.

    It is also an image classifier for transformers: `forward` returns calibrated logits of the default head, so the
    stock `image-classification` pipeline shows the same probability, and takes `labels`, so the stock `Trainer` works
    (freeze the tower with `freeze_encoder()`). Images must be prepared for the head that scores them:
    `processor(images=..., head="face")` adds the head to its output.
    """

    # `forward` does not use num_items_in_batch; without this, Trainer doubles the loss on two processes.
    accepts_loss_kwargs = False

    def __init__(self, config: ClipProbeConfig) -> None:
        super().__init__(config)
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.visual_projection = None
        if config.has_projection:
            vision = config.vision_config
            self.visual_projection = nn.Linear(vision.hidden_size, vision.projection_dim, bias=False)
        else:
            self.vision_tower.post_layernorm = nn.Identity()  # applies after CLIP's last layer, which is not used
        self.heads = nn.ModuleDict(
            {
                name: ClipProbeHead(config.feature_size(name), settings["clip"])
                for name, settings in config.heads.items()
            }
        )
        self.post_init()

    def freeze_encoder(self) -> None:
        """Freeze everything but the heads."""
        self.requires_grad_(False)
        self.heads.requires_grad_(True)

    def freeze_unused(self) -> None:
        """Freeze the heads that `forward` does not use by default."""
        for name, head in self.heads.items():
            head.requires_grad_(name == self.config.default_head)

    def features(self, pixel_values: torch.Tensor, head: str | None = None) -> torch.Tensor:
        """Return the features that a head reads, before standardisation: `(batch, feature size)`, float32.

        Args:
            pixel_values: `(batch, 3, image_size, image_size)`, CLIP-normalised float, prepared for the head.
            head: name of the head; `None` means the default one.

        Raises:
            ValueError: for an unknown head, or images of another size.
        """
        settings = self.config.heads[self.config.require_head(head)]
        size = self.config.vision_config.image_size
        if pixel_values.shape[-2:] != (size, size):
            raise ValueError(
                f"pixel_values have shape {tuple(pixel_values.shape)}, expected (batch, 3, {size}, {size}); use the "
                "processor of this checkpoint."
            )
        tower, wanted = self.vision_tower, settings["layers"]
        state = tower.pre_layrnorm(tower.embeddings(pixel_values.to(self.dtype)))
        states = {0: state}
        for index, layer in enumerate(tower.encoder.layers[: max(wanted)], start=1):
            state = layer(state, None)
            if index in wanted:
                states[index] = state
        embedding = None
        if "projection" in settings["features"]:
            embedding = self.visual_projection(tower.post_layernorm(state[:, 0]))
        return probe_features(states, settings["features"], wanted, embedding)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        head: str | None = None,
        return_dict: bool | None = None,
    ) -> ClipProbeOutput | tuple[torch.Tensor, ...]:
        """
        Args:
            pixel_values: `(batch, 3, image_size, image_size)`, CLIP-normalised float, prepared for the head.
            labels: `(batch,)` int64, 0 = real, 1 = fake.
            head: name of the head; `None` means the default one.
            return_dict: return a tuple instead of `ClipProbeOutput` if `False`; `None` uses the config's
                `return_dict`.
        """
        name = self.config.require_head(head)
        calibration = self.config.of_head(name, "calibration")
        difference = self.heads[name](self.features(pixel_values, name))
        half = (calibration["scale"] * difference + calibration["bias"]) / 2
        logits = torch.stack([-half, half], dim=-1)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        output = ClipProbeOutput(loss=loss, logits=logits)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @torch.no_grad()
    def detect(self, pixel_values: torch.Tensor, head: str | None = None) -> DeepfakeDetectionOutput:
        """Score a batch of images; arguments as in `forward`. No mask, because this family cannot localise."""
        return DeepfakeDetectionOutput(logits=self(pixel_values, head=head, return_dict=True).logits)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load like the base class; linear layers stored in int8 become ordinary float layers."""
        finish_saving(pretrained_model_name_or_path)
        refuse_foreign_checkpoint(cls, pretrained_model_name_or_path, kwargs)
        stored = read_stored_weights(cls.config_class, pretrained_model_name_or_path, kwargs)
        if stored is None:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        config, weights = stored
        return_info = kwargs.pop("output_loading_info", False)
        # Without a folder, the base class would lose the adapter that `AutoModel` found.
        adapter = dict(kwargs.pop("adapter_kwargs", None) or {})
        adapter_path, adapter_name = adapter.pop("_adapter_model_path", None), kwargs.pop("adapter_name", "default")
        model, info = super(DeepfakeDetectionMixin, cls).from_pretrained(
            None, *model_args, **{**kwargs, "config": config, "state_dict": weights}, output_loading_info=True
        )
        require_complete(cls, pretrained_model_name_or_path, info)
        model.config.name_or_path = model.name_or_path = str(pretrained_model_name_or_path)
        if adapter_path is not None:
            model.load_adapter(adapter_path, adapter_name=adapter_name, adapter_kwargs=adapter)
        return (model, info) if return_info else model

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save like the base class; with `encoder_storage="int8"`, encoder and heads go into separate files.

        int8 is used only if it is lossless: a trained encoder is saved as floats, with a warning.
        """
        if not kwargs.get("is_main_process", True):
            super().save_pretrained(save_directory, **kwargs)
            return
        kwargs = named_after(save_directory, kwargs)
        with saved_whole(save_directory) as folder:
            if not write_stored_weights(self, folder, super().save_pretrained, kwargs):
                super().save_pretrained(folder, **kwargs)
