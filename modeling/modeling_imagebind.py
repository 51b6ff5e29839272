"""ImageBind's image and text trunks (Girdhar et al., CVPR 2023) as ordinary transformers models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.utils import ModelOutput

from .configuration_imagebind import ImageBindConfig, ImageBindTextConfig, ImageBindVisionConfig
from .detection import refuse_official_files
from .generation_cache import cache_keyword

__all__ = [
    "ImageBindModel",
    "ImageBindOutput",
    "ImageBindPreTrainedModel",
    "ImageBindTextModel",
    "ImageBindTrunkOutput",
    "ImageBindVisionModel",
]

LOADING_FAULTS = ("missing_keys", "unexpected_keys", "mismatched_keys")


@dataclass
class ImageBindTrunkOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, length, width)`): output of the last block.
        pooler_output (`torch.FloatTensor` of shape `(batch, width)`): the CLS or end token after the last LayerNorm.
        block_outputs (`tuple` of `torch.FloatTensor` of shape `(batch, length, width)`, *optional*): raw outputs of
        the requested blocks, in the requested order.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    block_outputs: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class ImageBindOutput(ModelOutput):
    """
    Args:
        image_embeds (`torch.FloatTensor` of shape `(images, projection_dim)`): of length 1.
        text_embeds (`torch.FloatTensor` of shape `(texts, projection_dim)`): of length `logit_scale`, at most
            `max_logit_scale`, as in the published model.
        logits_per_image (`torch.FloatTensor` of shape `(images, texts)`): their products.
    """

    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    logits_per_image: torch.FloatTensor | None = None


class ImageBindVisionEmbeddings(nn.Module):
    """Convert images to tokens, CLS first.

    The published stem is a 3-d convolution over two copies of the image; summing its kernel over both frames gives
    this 2-d one.
    """

    def __init__(self, config: ImageBindVisionConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.class_embedding = nn.Parameter(torch.randn(config.hidden_size))
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size, bias=False
        )
        self.position_embedding = nn.Embedding(config.grid_size**2 + 1, config.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, image_size, image_size) to (batch, 1 + patches, width)."""
        if pixel_values.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"pixel_values have {pixel_values.shape[-2]}x{pixel_values.shape[-1]} pixels, but the model takes "
                f"{self.image_size}x{self.image_size}; use its processor."
            )
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(patches.shape[0], 1, -1), patches], dim=1)
        # Called instead of read, because accelerate loads offloaded weights only for a call.
        return tokens + self.position_embedding(torch.arange(tokens.shape[1], device=tokens.device))


class ImageBindTextEmbeddings(nn.Module):
    def __init__(self, config: ImageBindTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: torch.LongTensor) -> torch.Tensor:
        """(batch, length) to (batch, length, width)."""
        length, longest = input_ids.shape[-1], self.position_embedding.num_embeddings
        if length > longest:
            raise ValueError(f"input_ids have {length} tokens, but the text trunk has only {longest} positions.")
        return self.token_embedding(input_ids) + self.position_embedding(torch.arange(length, device=input_ids.device))


class ImageBindPreTrainedModel(PreTrainedModel):
    config: ImageBindConfig
    base_model_prefix = "imagebind"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "ImageBindVisionEmbeddings", "ImageBindTextEmbeddings"]
    # Name of a trunk inside the whole model.
    own_prefix: ClassVar[str | None] = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a model like `PreTrainedModel.from_pretrained`, but require every weight.

        Raises:
            UnconvertedCheckpointError: for an official file, or a folder of them.
            ValueError: if weights are missing, unexpected or of the wrong shape. The message lists them.
        """
        refuse_official_files(ImageBindConfig.model_type, pretrained_model_name_or_path)
        return_info = kwargs.pop("output_loading_info", False)
        if cls.own_prefix is not None:
            kwargs.setdefault("key_mapping", {rf"^{cls.own_prefix}\.": ""})
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        faults = [f"{kind}: {', '.join(sorted(map(str, info[kind]))[:8])}" for kind in LOADING_FAULTS if info[kind]]
        if faults:
            raise ValueError(
                f"{pretrained_model_name_or_path} does not contain a complete {cls.__name__}: {'; '.join(faults)}. "
                "Convert official files with deepfake_detectors.convert('imagebind', sources, output)."
            )
        # Otherwise `save_pretrained` would save a separate trunk with its names inside the whole model.
        model._weight_conversions = None
        return (model, info) if return_info else model

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ImageBindVisionEmbeddings):
            init.normal_(module.class_embedding, std=self.config.initializer_range)
        elif isinstance(module, ImageBindModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)


class ImageBindVisionModel(ImageBindPreTrainedModel):
    """The image trunk without its projection."""

    config: ImageBindVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    own_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = [r"^(text_model|visual_projection|text_projection|logit_scale)\b"]

    def __init__(self, config: ImageBindVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = ImageBindVisionEmbeddings(config)
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    def forward(
        self, pixel_values: torch.Tensor, block_outputs: Sequence[int] = (), **kwargs: Any
    ) -> ImageBindTrunkOutput:
        """
        Args:
            pixel_values: (batch, channels, image_size, image_size), CLIP-normalised float.
            block_outputs: zero-based indices of the blocks whose raw outputs to return, in this order.
            kwargs: arguments of the attention function.
        """
        state = self.pre_layernorm(self.embeddings(pixel_values))
        kept = {}
        for index, layer in enumerate(self.layers):
            state = layer(state, None, **kwargs)
            if index in block_outputs:
                kept[index] = state
        return ImageBindTrunkOutput(
            last_hidden_state=state,
            pooler_output=self.post_layernorm(state[:, 0]),
            block_outputs=tuple(kept[index] for index in block_outputs),
        )


class ImageBindTextModel(ImageBindPreTrainedModel):
    """The text trunk without its projection."""

    config: ImageBindTextConfig
    main_input_name = "input_ids"
    input_modalities = ("text",)
    own_prefix = "text_model"
    _keys_to_ignore_on_load_unexpected = [r"^(vision_model|visual_projection|text_projection|logit_scale)\b"]

    def __init__(self, config: ImageBindTextConfig) -> None:
        super().__init__(config)
        self.embeddings = ImageBindTextEmbeddings(config)
        self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.token_embedding = value

    def forward(self, input_ids: torch.LongTensor, **kwargs: Any) -> ImageBindTrunkOutput:
        """
        Args:
            input_ids: (batch, length) from CLIP's tokenizer, padded on the right with any id below the end token.
                Attention is causal, so the padding (and its amount) does not change the result.
            kwargs: arguments of the attention function.
        """
        state = self.embeddings(input_ids)
        mask = create_causal_mask(config=self.config, inputs_embeds=state, attention_mask=None, **cache_keyword(None))
        kwargs["is_causal"] = True
        for layer in self.layers:
            state = layer(state, mask, **kwargs)
        # The end token is the largest id.
        end = state[torch.arange(state.shape[0], device=state.device), input_ids.argmax(dim=-1)]
        return ImageBindTrunkOutput(last_hidden_state=state, pooler_output=self.final_layer_norm(end))


class ImageBindModel(ImageBindPreTrainedModel):
    """Both trunks with their projections into the joint embedding."""

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__(config)
        self.vision_model = ImageBindVisionModel(config.vision_config)
        self.text_model = ImageBindTextModel(config.text_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def embed_picture_vector(self, pooled: torch.Tensor) -> torch.Tensor:
        """Project the image trunk's `pooler_output` (batch, vision width) to (batch, projection_dim) of length 1."""
        return F.normalize(self.visual_projection(pooled), dim=-1)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed (images, channels, image_size, image_size) as (images, projection_dim) of length 1."""
        return self.embed_picture_vector(self.vision_model(pixel_values).pooler_output)

    def get_text_features(self, input_ids: torch.LongTensor) -> torch.Tensor:
        """Embed (texts, length) as (texts, projection_dim) of length `logit_scale`, at most `max_logit_scale`."""
        embeds = F.normalize(self.text_projection(self.text_model(input_ids).pooler_output), dim=-1)
        return embeds * self.logit_scale.exp().clamp(max=self.config.max_logit_scale)

    def forward(
        self, pixel_values: torch.Tensor | None = None, input_ids: torch.LongTensor | None = None
    ) -> ImageBindOutput:
        """
        Args:
            pixel_values: (images, channels, image_size, image_size), CLIP-normalised float.
            input_ids: (texts, length), see `ImageBindTextModel`.

        Raises:
            ValueError: if both are missing.
        """
        if pixel_values is None and input_ids is None:
            raise ValueError("ImageBindModel needs pixel_values, input_ids or both.")
        images = None if pixel_values is None else self.get_image_features(pixel_values)
        texts = None if input_ids is None else self.get_text_features(input_ids)
        products = None if images is None or texts is None else images @ texts.T
        return ImageBindOutput(image_embeds=images, text_embeds=texts, logits_per_image=products)
