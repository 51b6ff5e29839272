"""M2F2-Det detectors (Guo et al., CVPR 2025): CLIP and a CNN classify each face image as real or fake."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPVisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.utils import ModelOutput

from .configuration_m2f2_det import M2F2DetConfig
from .detection import (
    DeepfakeDetectionMixin,
    DeepfakeDetectionOutput,
    MaskSupervision,
    given_mask_labels,
    verdict_config,
)
from .generation_cache import cache_keyword
from .heatmaps import patch_map
from .modeling_cached_feature import FeatureKeeper, Sources
from .modeling_m2f2_det_bridge import M2F2DetBridge
from .modeling_m2f2_det_encoders import build_encoder, feature_shapes

__all__ = [
    "M2F2DetDetectionOutput",
    "M2F2DetForDeepfakeDetection",
    "M2F2DetOutput",
    "M2F2DetPreTrainedModel",
    "M2F2DetPromptEncoder",
    "M2F2Detector",
    "run_vision_tower",
]


# Weights that a verdict needs from a folder that also has a language model.
DETECTOR_KEYS = {r"^model\.(vision_tower|detector)\.": r"\1."}
LANGUAGE_MODEL_KEYS = [r"^model\.(language_model|multi_modal_projector|deepfake_projector)\.", r"^lm_head\."]


@dataclass
class M2F2DetOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): cross-entropy, plus the weighted mask loss if
        `mask_labels` were given. logits (`torch.FloatTensor` of shape `(batch, 2)`): raw logits, `[real, fake]`.
        patch_scores (`torch.FloatTensor` of shape `(batch, patches)`, *optional*): cosine in [-1, 1] of each image
            patch with the learned text prompt, row by row from the top left.
        mask_logits (`torch.FloatTensor` of shape `(batch, mask_height, mask_width)`, *optional*): from the encoder's
        auxiliary mask head, if it has one.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    patch_scores: torch.FloatTensor | None = None
    mask_logits: torch.FloatTensor | None = None


@dataclass
class M2F2DetDetectionOutput(DeepfakeDetectionOutput):
    """
    Args:
        patch_scores (`torch.FloatTensor` of shape `(batch, patches)`, *optional*): see `M2F2DetOutput`.
    """

    patch_scores: torch.FloatTensor | None = None


def run_vision_tower(tower: CLIPVisionModel, pixel_values: torch.Tensor, layers: Sequence[int]) -> dict[int, Any]:
    """Return hidden states of a CLIP tower without computing layers after the last requested one.

    Args:
        tower: the tower.
        pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
        layers: non-negative indices; 0 is the state after the pre-LayerNorm, i the output of layer i.

    Returns:
        index -> (batch, 1 + patches, width).
    """
    state = tower.pre_layrnorm(tower.embeddings(pixel_values))
    kept = {0: state}
    for index, layer in enumerate(tower.encoder.layers[: max(layers)], start=1):
        state = layer(state, None)
        if index in layers:
            kept[index] = state
    return {index: kept[index] for index in layers}


class M2F2DetPromptEncoder(FeatureKeeper):
    """Encodes seven learned vectors (without words, begin or end token) as one text feature of width `hidden_size`.

    The feature depends only on weights, so inference caches it until they change.
    """

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__()
        width = config.prompt_text_config.hidden_size
        self.prompt_tokens = nn.Parameter(torch.randn(1, config.prompt_token_num, width))
        self.text_tower = CLIPTextModel(config.prompt_text_config)
        self.proj = nn.Sequential(nn.Linear(width, config.hidden_size), nn.LayerNorm(config.hidden_size))

    def pooled(self) -> torch.Tensor:
        """Return (1, text width): the last prompt position after the final LayerNorm, without CLIP's projection."""
        tower = self.text_tower
        hidden_states = tower.embeddings(inputs_embeds=self.prompt_tokens)
        mask = create_causal_mask(
            config=tower.config, inputs_embeds=hidden_states, attention_mask=None, **cache_keyword(None)
        )
        hidden_states = tower.encoder(inputs_embeds=hidden_states, attention_mask=mask, is_causal=True)
        return tower.final_layer_norm(hidden_states.last_hidden_state)[:, -1]

    def compute(self) -> torch.Tensor:
        """(1, `hidden_size`)."""
        return self.proj(self.pooled())

    def sources(self) -> Sources:
        weights = [self.prompt_tokens, *self.proj.parameters()]
        return Sources([self.text_tower], weights, self.text_tower.config._attn_implementation)


class M2F2Detector(nn.Module):
    """The detector without its CLIP image tower, which a language model may share.

    The head is one linear layer over, in this order, the scaled cosine scores (P, if `use_prompt_scores`), the scaled
    CLS projection (H), the scaled bridge vector (bridge variant) and the projected CNN features (H).
    """

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.encoder = build_encoder(config.encoder_config)
        self.encoder_proj = nn.Sequential(nn.Linear(self.encoder.num_features, hidden), nn.LayerNorm(hidden))
        self.vision_proj = nn.Sequential(nn.Linear(config.vision_config.hidden_size, hidden), nn.LayerNorm(hidden))
        self.prompt_encoder = M2F2DetPromptEncoder(config)
        self.vision_alpha = nn.Parameter(torch.tensor(float(config.vision_alpha_init)))
        self.text_alpha = nn.Parameter(torch.tensor(float(config.text_alpha_init)))
        width = 2 * hidden + (config.num_patches if config.use_prompt_scores else 0)
        self.bridge = None
        if config.variant == "bridge":
            _, taps = feature_shapes(self.encoder, config.vision_config.image_size, config.bridge_encoder_layers)
            self.bridge = M2F2DetBridge(config, taps)
            width += config.bridge_adapter_dim
        self.classifier = nn.Linear(width, len(config.id2label))

    @property
    def runs_bridge(self) -> bool:
        """Whether the bridge must be computed per image; otherwise its constant is used."""
        return self.bridge is not None and not (self.config.bridge_fast_path and self.config.bridge_norm == "official")

    @property
    def vision_layers(self) -> list[int]:
        """Indices of the tower's hidden states that `forward` needs."""
        states = self.config.vision_config.num_hidden_layers + 1
        taps = [layer % states for layer in self.config.bridge_vision_layers] if self.runs_bridge else []
        return [*taps, self.config.vision_feature_index]

    def forward(self, pixel_values: torch.Tensor, vision_states: dict[int, torch.Tensor]) -> M2F2DetOutput:
        """
        Args:
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised; input of the CNN.
            vision_states: the tower's hidden states at `vision_layers`, each (batch, 1 + patches, width).

        Returns:
            `M2F2DetOutput` without loss.
        """
        # Before the CNN, behind which the prompt is needed.
        watched = self.prompt_encoder.watch() if self.config.use_prompt_scores else None
        if self.runs_bridge:
            features, maps = self.encoder.forward_with_taps(pixel_values, self.config.bridge_encoder_layers)
        else:
            features, maps = self.encoder(pixel_values), None
        vision = self.vision_proj(vision_states[self.config.vision_feature_index])
        parts, patch_scores = [], None
        if self.config.use_prompt_scores:
            prompt = self.prompt_encoder(watched=watched)
            patch_scores = F.cosine_similarity(vision[:, 1:], prompt.unsqueeze(1), dim=-1, eps=1e-8)
            parts.append(self.text_alpha * patch_scores)
        parts.append(self.vision_alpha * vision[:, 0])
        if maps is not None:
            parts.append(self.text_alpha * self.bridge(maps, [vision_states[i] for i in self.vision_layers[:-1]]))
        elif self.bridge is not None:
            constant = self.bridge.constant(pixel_values.device)
            parts.append(self.text_alpha * constant.expand(pixel_values.shape[0], -1))
        parts.append(self.encoder_proj(features.pooled))
        logits = self.classifier(torch.cat(parts, dim=-1))
        return M2F2DetOutput(logits=logits, patch_scores=patch_scores, mask_logits=features.mask_logits)


class M2F2DetPreTrainedModel(DeepfakeDetectionMixin, PreTrainedModel):
    config: M2F2DetConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    subject = "faces"
    can_heatmap = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "CnnEncoder", "ResidualEnergyEncoder", "M2F2DetBridgeBlock"]

    def _init_weights(self, module: nn.Module) -> None:
        # Only the parts that the official code initialises itself; everything else keeps its library's initial values.
        if isinstance(module, M2F2DetPromptEncoder):
            init.normal_(module.prompt_tokens)
            self._init_small(module.proj[0])
        elif isinstance(module, M2F2Detector):
            init.constant_(module.vision_alpha, self.config.vision_alpha_init)
            init.constant_(module.text_alpha, self.config.text_alpha_init)
            self._init_small(module.vision_proj[0])
            self._init_small(module.classifier)
        elif isinstance(module, M2F2DetBridge):
            self._init_small(module.reduction)

    @torch.no_grad()
    def heatmap(
        self, pixel_values: torch.Tensor, detector_pixel_values: torch.Tensor | None = None
    ) -> torch.FloatTensor:
        """Return the similarity of each image patch to the learned text prompt: attention of the detector, not a mask.

        Args:
            pixel_values, detector_pixel_values: as in `detect`.

        Returns:
            (batch, rows, columns) in [0, 1], with 0 for each image's least similar patch and 1 for its most similar.

        Raises:
            ValueError: for a bridge detector that does not use the prompt.
        """
        scores = self.detect(pixel_values=pixel_values, detector_pixel_values=detector_pixel_values).patch_scores
        if scores is None:
            raise ValueError(
                "This detector (variant='bridge') does not compare patches with its prompt, so it has no heat map; "
                "the cosine variant has one."
            )
        return patch_map(scores.float())

    def _init_small(self, linear: nn.Linear) -> None:
        init.normal_(linear.weight, std=self.config.initializer_range)
        init.zeros_(linear.bias)


class M2F2DetForDeepfakeDetection(M2F2DetPreTrainedModel):
    """M2F2-Det detector; `config.variant` chooses one of the two released architectures.

    It is also an image classifier for transformers (`logits`, `labels`), so the stock `image-classification` pipeline
    and `Trainer` work.
    """

    _keys_to_ignore_on_load_unexpected = LANGUAGE_MODEL_KEYS
    # `forward` does not use num_items_in_batch; without this, Trainer doubles the loss on two processes.
    accepts_loss_kwargs = False

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__(config)
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.detector = M2F2Detector(config)
        self.post_init()

    def freeze_clip(self) -> None:
        """Freeze both CLIP towers, as in all official training stages; the learned prompt stays trainable."""
        self.vision_tower.requires_grad_(False)
        self.detector.prompt_encoder.text_tower.requires_grad_(False)
        self.freeze_unused()

    def freeze_unused(self) -> None:
        """Freeze weights that `forward` does not use; data-parallel training would wait for their gradients."""
        last = max(self.detector.vision_layers)
        unused = [*self.vision_tower.encoder.layers[last:], self.vision_tower.post_layernorm]
        prompt = self.detector.prompt_encoder
        unused.append(prompt.text_tower.embeddings.token_embedding)
        if not self.config.use_prompt_scores:
            unused.append(prompt)
        bridge = self.detector.bridge
        if bridge is not None and not self.detector.runs_bridge:
            unused += [bridge.encoder_projs, bridge.vision_proj, bridge.blocks, bridge.score]
            bridge.score_norm.weight.requires_grad_(False)
        for module in unused:
            module.requires_grad_(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load like the base class; from `M2F2DetForConditionalGeneration` only detector and tower are loaded."""
        config, explains = verdict_config(cls, pretrained_model_name_or_path, kwargs)
        if not explains:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        result = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, key_mapping=DETECTOR_KEYS, **kwargs
        )
        model = result[0] if isinstance(result, tuple) else result
        # Otherwise `save_pretrained` would undo the renaming and use the names of a folder with a language model.
        model._weight_conversions = None
        return result

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        detector_pixel_values: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Unpack[MaskSupervision],
    ) -> M2F2DetOutput | tuple[torch.Tensor, ...]:
        """
        Args:
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised float.
            labels: (batch,) int64, 0 = real, 1 = fake.
            detector_pixel_values: images for the CNN if they differ from those for the tower (in a folder whose
                language model pads to a square); same shape.
            return_dict: return a tuple instead of `M2F2DetOutput` if `False`; `None` uses the config's `return_dict`.
            kwargs: `mask_labels`, float with the shape of `mask_logits`, share of manipulated area in [0, 1], negative
                if unknown; adds `mask_loss_weight` times a binary cross-entropy over the known cells. See
                `MaskSupervision`.
        """
        mask_labels = given_mask_labels(kwargs)
        states = run_vision_tower(self.vision_tower, pixel_values, self.detector.vision_layers)
        output = self.detector(pixel_values if detector_pixel_values is None else detector_pixel_values, states)
        if labels is not None:
            output.loss = F.cross_entropy(output.logits.float(), labels)
        if mask_labels is not None:
            mask_loss = self.config.mask_loss_weight * _mask_loss(output.mask_logits, mask_labels)
            output.loss = mask_loss if output.loss is None else output.loss + mask_loss
        # ModelOutput keeps the order in which fields are set; users read the loss from [0].
        output = M2F2DetOutput(**{name: output[name] for name in M2F2DetOutput.__annotations__ if name in output})
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @torch.no_grad()
    def detect(
        self, pixel_values: torch.Tensor, detector_pixel_values: torch.Tensor | None = None
    ) -> M2F2DetDetectionOutput:
        """Score a batch of images; arguments as in `forward`. No mask, because this family cannot localise."""
        output = self(pixel_values, detector_pixel_values=detector_pixel_values, return_dict=True)
        return M2F2DetDetectionOutput(logits=self.calibrate(output.logits), patch_scores=output.patch_scores)


def _mask_loss(mask_logits: torch.Tensor | None, mask_labels: torch.Tensor) -> torch.Tensor:
    if mask_logits is None:
        raise ValueError("mask_labels were given, but this encoder has no mask head; use one with mask_head=True.")
    if mask_logits.shape != mask_labels.shape:
        raise ValueError(
            f"mask_labels have shape {tuple(mask_labels.shape)}, but the mask head returns {tuple(mask_logits.shape)}."
        )
    known = mask_labels >= 0
    losses = F.binary_cross_entropy_with_logits(
        mask_logits.float(), mask_labels.float().clamp(min=0), reduction="none"
    )
    return (losses * known).sum() / known.sum().clamp(min=1)
