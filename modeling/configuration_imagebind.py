"""ImageBind configuration (Girdhar et al., CVPR 2023, arXiv 2305.05665): its image and text trunks."""

import math
from typing import Any

from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

__all__ = ["ImageBindConfig", "ImageBindTextConfig", "ImageBindVisionConfig"]


class ImageBindVisionConfig(PreTrainedConfig):
    """
    Sizes of the image trunk; the defaults are ImageBind-Huge.

    Args:
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: sizes of the pre-norm transformer.
        image_size, patch_size: in pixels; the first must be a multiple of the second.
        num_channels: colour channels of an image.
        hidden_act, layer_norm_eps, attention_dropout, initializer_range: as usual in transformers.

    Raises:
        ValueError: for sizes that do not fit together.
    """

    model_type = "imagebind_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_heads(self)
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}.")

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


class ImageBindTextConfig(PreTrainedConfig):
    """
    Sizes of the text trunk; the defaults are ImageBind-Huge, with CLIP's vocabulary.

    Args:
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: sizes of the pre-norm transformer.
        max_position_embeddings: maximum length of a text, including begin and end token.
        bos_token_id, eos_token_id, pad_token_id: ids in CLIP's tokenizer. The end token must be the largest id.
        vocab_size, hidden_act, layer_norm_eps, attention_dropout, initializer_range: as usual in transformers.

    Raises:
        ValueError: for sizes that do not fit together.
    """

    model_type = "imagebind_text_model"
    base_config_key = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 77
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    bos_token_id: int | None = 49406
    eos_token_id: int | None = 49407
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_heads(self)


class ImageBindConfig(PreTrainedConfig):
    """
    Configuration of `ImageBindModel`, without the other four modalities of the published model.

    Args:
        vision_config: `ImageBindVisionConfig` or its fields.
        text_config: `ImageBindTextConfig` or its fields.
        projection_dim: width of the joint embedding.
        logit_scale_init_value: natural logarithm of the factor on text embeddings.
        max_logit_scale: upper limit of that factor.
        initializer_range: standard deviation of new weights.

    Raises:
        ValueError: if `max_logit_scale` is not positive.
    """

    model_type = "imagebind"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=ImageBindVisionConfig),
        "text_config": SubConfigSpec(config_class=ImageBindTextConfig),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 1024
    logit_scale_init_value: float = math.log(1 / 0.07)
    max_logit_scale: float = 100.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architectures is None:
            self.architectures = ["ImageBindModel"]
        if self.max_logit_scale <= 0:
            raise ValueError(f"max_logit_scale is {self.max_logit_scale}, but it must be positive.")


def _check_heads(config: ImageBindVisionConfig | ImageBindTextConfig) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size {config.hidden_size} is not a multiple of {config.num_attention_heads} attention heads."
        )
