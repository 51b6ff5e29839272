"""LVLM-DFD without its language model (Yu et al., ICML 2025): verdict and mask of a face image."""

from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_lvlm_dfd import LvlmDfdConfig
from .detection import (
    DeepfakeDetectionMixin,
    DeepfakeDetectionOutput,
    MaskSupervision,
    given_mask_labels,
    own_weights,
    verdict_config,
)
from .modeling_imagebind import ImageBindModel
from .modeling_lvlm_dfd_heads import (
    LvlmDfdClassifier,
    LvlmDfdClassTexts,
    LvlmDfdImageDecoder,
    LvlmDfdLocator,
    LvlmDfdPromptLearner,
    dice_loss,
    focal_loss,
)

__all__ = ["LvlmDfdDetector", "LvlmDfdEvidence", "LvlmDfdForDeepfakeDetection", "LvlmDfdOutput"]

LANGUAGE_MODEL_KEYS = [r"^(language_model|prompt_learner|image_projection)\."]


@dataclass
class LvlmDfdEvidence(ModelOutput):
    """
    Args:
        logits (`torch.FloatTensor` of shape `(batch, 2)`): log-probabilities, real and fake, not calibrated.
        mask_logits (`torch.FloatTensor` of shape `(batch, 2, image_size, image_size)`): real and fake per pixel.
        maps (`tuple` of `torch.FloatTensor` of shape `(batch, 2, image_size, image_size)`): per tap, `map_scale`
            times the cosine of each pixel with the class texts.
        patch_maps (`tuple` of `torch.FloatTensor` of shape `(batch, 2, grid, grid)`): the same per patch.
        pooler_output (`torch.FloatTensor` of shape `(batch, vision width)`): the image's CLS token.
    """

    logits: torch.FloatTensor | None = None
    mask_logits: torch.FloatTensor | None = None
    maps: tuple[torch.FloatTensor, ...] | None = None
    patch_maps: tuple[torch.FloatTensor, ...] | None = None
    pooler_output: torch.FloatTensor | None = None

    @property
    def mask(self) -> torch.FloatTensor:
        """Manipulated area, (batch, image_size, image_size) float32 in [0, 1]."""
        return self.mask_logits.float().softmax(dim=1)[:, 1]

    @property
    def probabilities(self) -> torch.FloatTensor:
        """(batch, 2), real and fake, not calibrated."""
        return self.logits.exp()


@dataclass
class LvlmDfdOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): weighted sum of the losses below.
        logits (`torch.FloatTensor` of shape `(batch, 2)`): log-probabilities, real and fake, not calibrated.
        mask (`torch.FloatTensor` of shape `(batch, image_size, image_size)`): manipulated area in [0, 1].
        class_loss, focal_loss, dice_loss (`torch.FloatTensor` of shape `()`, *optional*): not weighted.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    mask: torch.FloatTensor | None = None
    class_loss: torch.FloatTensor | None = None
    focal_loss: torch.FloatTensor | None = None
    dice_loss: torch.FloatTensor | None = None


class LvlmDfdDetector(nn.Module):
    """The knowledge-guided forgery detector, which gives verdict and mask."""

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        self.config = config
        self.imagebind = ImageBindModel(config.imagebind_config)
        self.class_texts = LvlmDfdClassTexts(config)
        self.image_decoder = LvlmDfdImageDecoder(config)
        self.locator = LvlmDfdLocator(config)
        self.classifier = LvlmDfdClassifier(config)

    def forward(self, pixel_values: torch.Tensor) -> LvlmDfdEvidence:
        """(batch, 3, image_size, image_size), CLIP-normalised."""
        hooked = hasattr(self.class_texts, "_hf_hook")
        watched = None if hooked else self.class_texts.watch(self.imagebind)
        vision = self.imagebind.vision_model(pixel_values, block_outputs=self.config.tap_layers)
        texts = self._offloaded_texts() if hooked else self.class_texts(self.imagebind, watched=watched)
        dtype, grid = texts.dtype, self.config.imagebind_config.vision_config.grid_size
        patch_maps, maps = [], []
        for tokens in self.image_decoder(vision.block_outputs):
            cosine = (tokens / tokens.norm(dim=-1, keepdim=True)) @ texts.T
            patch_maps.append((self.config.map_scale * cosine).transpose(1, 2).unflatten(2, (grid, grid)))
            # Stretched in float32, as in the official code.
            side = self.config.image_size
            stretched = F.interpolate(patch_maps[-1].float(), size=(side, side), mode="bilinear", align_corners=True)
            maps.append(stretched.to(dtype))
        return LvlmDfdEvidence(
            logits=self.classifier(maps),
            mask_logits=self.locator(maps),
            maps=tuple(maps),
            patch_maps=tuple(patch_maps),
            pooler_output=vision.pooler_output,
        )

    def _offloaded_texts(self) -> torch.Tensor:
        # Accelerate's hook would move the model that is an argument of this call, though its weights are offloaded.
        with own_weights(self.class_texts), own_weights(self.imagebind):
            return type(self.class_texts).forward(self.class_texts, self.imagebind)

    def losses(
        self, evidence: LvlmDfdEvidence, class_labels: torch.Tensor | None, mask_labels: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Return the unweighted losses for the labels that are given.

        Args:
            evidence: output of `forward`.
            class_labels: (batch,) int64, 0 = real, 1 = fake.
            mask_labels: (batch, image_size, image_size), manipulated share in [0, 1]; all 0 for a real image. Negative
                if unknown: such images are left out of the mask losses.

        Raises:
            ValueError: for masks of the wrong shape.
        """
        found = {}
        if class_labels is not None:
            # Equals the official BCE over both columns, because these two probabilities sum to 1.
            found["class_loss"] = F.nll_loss(evidence.logits.float(), class_labels)
        if mask_labels is not None:
            if mask_labels.shape != evidence.mask.shape:
                raise ValueError(
                    f"mask_labels have shape {tuple(mask_labels.shape)}, but the model's masks have "
                    f"{tuple(evidence.mask.shape)}."
                )
            known = (mask_labels >= 0).flatten(1).all(dim=1)
            # Without any known mask both losses are 0 but still have a gradient, which distributed training needs.
            probabilities = evidence.mask_logits.float().softmax(dim=1)
            nothing = 0.0 * probabilities.sum()
            probabilities, mask_labels = probabilities[known], mask_labels[known]
            some = bool(known.any())
            focal = focal_loss(probabilities, mask_labels, self.config.mask_threshold) if some else nothing
            found["focal_loss"] = focal
            found["dice_loss"] = dice_loss(probabilities[:, 1], mask_labels) if some else nothing
        return found

    def weighted(self, losses: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the sum of `losses`, each times the config's `<name>_weight`; `None` without losses."""
        return sum(getattr(self.config, f"{name}_weight") * loss for name, loss in losses.items()) if losses else None


class LvlmDfdPreTrainedModel(DeepfakeDetectionMixin, PreTrainedModel):
    config: LvlmDfdConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    can_localize = True
    subject = "faces"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "ImageBindVisionEmbeddings", "ImageBindTextEmbeddings"]
    # `forward` does not use num_items_in_batch; without this, Trainer doubles the loss on two processes.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        # Convolutions and linear layers keep PyTorch's start values, as in the official code.
        if isinstance(module, LvlmDfdClassTexts):
            init.normal_(module.ctx, std=self.config.initializer_range)
        elif isinstance(module, LvlmDfdPromptLearner):
            init.normal_(module.base_prompts)

    def _detection(self, evidence: LvlmDfdEvidence) -> DeepfakeDetectionOutput:
        return DeepfakeDetectionOutput(logits=self.calibrate(evidence.logits), mask=evidence.mask)

    @torch.no_grad()
    def detect(self, pixel_values: torch.Tensor) -> DeepfakeDetectionOutput:
        """Return verdicts and masks for a batch, without running the language model.

        Args:
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised float.

        Returns:
            `DeepfakeDetectionOutput` with `mask` (batch, image_size, image_size).
        """
        return self._detection(self.detector(pixel_values))


class LvlmDfdForDeepfakeDetection(LvlmDfdPreTrainedModel):
    """Detector for verdict and mask; it also loads from a folder with a language model."""

    _keys_to_ignore_on_load_unexpected = LANGUAGE_MODEL_KEYS

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__(config)
        self.detector = LvlmDfdDetector(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.detector.imagebind.get_input_embeddings()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load like the base class; from `LvlmDfdForConditionalGeneration` only the detector is loaded."""
        config, _ = verdict_config(cls, pretrained_model_name_or_path, kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Unpack[MaskSupervision],
    ) -> LvlmDfdOutput | tuple[torch.Tensor, ...]:
        """
        Args:
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised float.
            labels: (batch,) int64, 0 = real, 1 = fake.
            return_dict: return a tuple instead of `LvlmDfdOutput` if `False`; `None` uses the config's `return_dict`.
            kwargs: `mask_labels`, (batch, image_size, image_size) float, manipulated share in [0, 1]; negative if
                unknown. See `MaskSupervision`.
        """
        evidence = self.detector(pixel_values)
        losses = self.detector.losses(evidence, labels, given_mask_labels(kwargs))
        output = LvlmDfdOutput(
            loss=self.detector.weighted(losses), logits=evidence.logits, mask=evidence.mask, **losses
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()
