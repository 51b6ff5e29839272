"""M2F2-Det configuration (Guo et al., CVPR 2025, arXiv 2503.20188)."""

from typing import Any, Literal

from transformers import AutoConfig, CLIPTextConfig, CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_detection import check_detection_fields

__all__ = ["ENCODER_TYPES", "M2F2DetConfig"]

ENCODER_TYPES = ("timm", "efficientnet", "densenet", "residual_energy")

# The CNNs of the two released detectors, both built by timm.
DEFAULT_ENCODERS = {
    "bridge": {"type": "timm", "name": "efficientnet_b4"},
    "cosine": {"type": "timm", "name": "densenet121"},
}
DEFAULT_HIDDEN_SIZES = {"bridge": 1792, "cosine": 1024}


class M2F2DetConfig(PreTrainedConfig):
    """
    Configuration of both M2F2-Det detectors. The defaults are the released sizes (CLIP ViT-L/14-336).

    Args:
        variant: `"bridge"` is the stage-1 detector (EfficientNet-B4, bridge adapter), `"cosine"` the one used with the
            language model (DenseNet-121, one cosine score per image patch). Their weights are not interchangeable.
            Either works with a language model; the released one was trained with `"cosine"`.
        vision_config: `CLIPVisionConfig` or its fields; the frozen image tower.
        prompt_text_config: `CLIPTextConfig` or its fields; the tower that encodes the learned prompt.
        encoder_config: the CNN. `{"type": "timm", "name": ...}` for any registered timm network;
            `{"type": "efficientnet", "blocks": [[expand, kernel, stride, in, out, layers], ...], "stem_size": ...,
            "num_features": ...}` or `{"type": "densenet", "growth_rate": ..., "block_config": [...],
            "num_init_features": ..., "bn_size": ...}` for an architecture table; `{"type": "residual_energy", ...}`
            for the small fixed-filter encoder of the embedded default.
        hidden_size: width H of the projections before the head (released: 1792 for bridge, 1024 for cosine).
        prompt_token_num: number of learned prompt vectors.
        vision_feature_layer: index into the tower's hidden states whose tokens are projected; negative counts from
            the end (-2 of 24 layers leaves the last layer unused).
        use_prompt_scores: feed the patch-text cosine scores to the head. Always on in `"cosine"`; off in the released
            `"bridge"`, which computes its text prompt and discards it.
        bridge_vision_layers: hidden states of the tower read by the three bridge levels.
        bridge_encoder_layers: names of the CNN modules whose outputs are read by the three bridge levels.
        bridge_dim: width of a bridge token; `None` is 1/16 of the tower's width.
        bridge_adapter_dim: width of the bridge vector that goes to the head.
        bridge_num_heads, bridge_intermediate_size, bridge_dropout: settings of the three transformer blocks.
        bridge_norm: `"official"` normalises each token's single score with LayerNorm(1), which always returns its
            bias, for any image; `"layer"` normalises over all tokens; `"none"` leaves the scores unchanged.
        bridge_attention_axis: `"batch"` as released (attention runs across the images of a batch) or `"tokens"`.
            By default `"batch"` with `bridge_norm="official"`, which discards the result, otherwise `"tokens"`, so
            that a verdict never depends on the other images of its batch.
        bridge_attention_dtype: `"float32"`, or `"bfloat16"` as the released code runs it.
        bridge_clip_tokens: `"drop_last"` as released (drops the last patch, keeps CLS) or `"drop_cls"`.
        bridge_fast_path: skip the layers whose output `bridge_norm="official"` discards (the taps and the three
            blocks); the result is the same.
        vision_alpha_init, text_alpha_init: initial values of the two learned scalars.
        text_config: config of the language model, or `None` in a folder for verdicts only. Its vocabulary includes the
            two placeholders.
        image_token_id, deepfake_token_id: ids of the placeholders `<image>` (repeated once per patch) and
            `<deepfake>` (one); by default the last two of the vocabulary.
        projector_hidden_act, multimodal_projector_bias: settings of the projector from the tower to the language
            model.
        vision_pixel_dtype: `"float16"` first rounds the tower's pixels to half precision, as the released code does
            with the language model (not in the detectors); `"native"` does not.
        conditional_deepfake_prob: in training, the share of images whose `<deepfake>` token is made from a random
            probability on the correct side instead of the detector's own.
        mask_loss_weight: weight of the encoder's auxiliary mask loss when `mask_labels` are given.
        initializer_range: standard deviation of the new projections.
        calibration: `{"scale", "bias"}` on the logit difference fake - real; the identity if `None`.
        operating_points: name -> threshold on P(fake).
        decision_band: see `configuration_detection`; `None` if none was fitted.

    Raises:
        ValueError: for a value outside its allowed set, or sizes that do not fit together.
    """

    model_type = "m2f2_det"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=CLIPVisionConfig,
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 768,
            },
        ),
        "prompt_text_config": SubConfigSpec(
            config_class=CLIPTextConfig,
            init_kwargs={
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "projection_dim": 768,
            },
        ),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama", optional=True),
    }
    keys_to_ignore_at_inference = ["cache", "past_key_values", "patch_scores", "mask_logits", "detector_logits"]

    variant: Literal["bridge", "cosine"] = "cosine"
    vision_config: dict | PreTrainedConfig | None = None
    prompt_text_config: dict | PreTrainedConfig | None = None
    encoder_config: dict[str, Any] | None = None
    hidden_size: int | None = None
    prompt_token_num: int = 7
    vision_feature_layer: int = -2
    use_prompt_scores: bool | None = None
    bridge_vision_layers: list[int] | None = None
    bridge_encoder_layers: list[str] | None = None
    bridge_dim: int | None = None
    bridge_adapter_dim: int = 128
    bridge_num_heads: int = 4
    bridge_intermediate_size: int = 32
    bridge_dropout: float = 0.1
    bridge_norm: Literal["official", "layer", "none"] = "official"
    bridge_attention_axis: Literal["batch", "tokens"] | None = None
    bridge_attention_dtype: Literal["float32", "bfloat16"] = "float32"
    bridge_clip_tokens: Literal["drop_last", "drop_cls"] = "drop_last"
    bridge_fast_path: bool = True
    vision_alpha_init: float = 0.5
    text_alpha_init: float = 4.0
    text_config: dict | PreTrainedConfig | None = None
    image_token_id: int | None = None
    deepfake_token_id: int | None = None
    projector_hidden_act: str = "gelu"
    multimodal_projector_bias: bool = True
    tie_word_embeddings: bool = False
    vision_pixel_dtype: Literal["native", "float16"] = "native"
    conditional_deepfake_prob: float = 0.0
    mask_loss_weight: float = 0.0
    initializer_range: float = 0.01
    calibration: dict[str, float] | None = None
    operating_points: dict[str, float] | None = None
    decision_band: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architectures is None:  # AutoModel.from_config chooses the class by this name
            explains = self.text_config is not None
            self.architectures = ["M2F2DetForConditionalGeneration" if explains else "M2F2DetForDeepfakeDetection"]
        if self.bridge_attention_axis is None:
            self.bridge_attention_axis = "batch" if self.bridge_norm == "official" else "tokens"
        _check_choices(self)
        if self.encoder_config is None:
            self.encoder_config = dict(DEFAULT_ENCODERS[self.variant])
        if self.encoder_config.get("type") not in ENCODER_TYPES:
            raise ValueError(
                f"encoder_config type is {self.encoder_config.get('type')!r}, allowed are {', '.join(ENCODER_TYPES)}."
            )
        if self.hidden_size is None:
            self.hidden_size = DEFAULT_HIDDEN_SIZES[self.variant]
        if self.use_prompt_scores is None:
            self.use_prompt_scores = self.variant == "cosine"
        if self.variant == "cosine" and not self.use_prompt_scores:
            raise ValueError(
                "use_prompt_scores=False removes the scores that the cosine variant is based on; use 'bridge'."
            )
        if self.bridge_vision_layers is None:
            self.bridge_vision_layers = [6, 10, 14]
        if self.bridge_encoder_layers is None:
            self.bridge_encoder_layers = ["blocks.3", "blocks.4", "blocks.5"]
        if self.bridge_dim is None:
            self.bridge_dim = self.vision_config.hidden_size // 16
        if self.text_config is not None:
            _check_language_model(self)
        _check_sizes(self)
        check_detection_fields(self)

    @property
    def num_patches(self) -> int:
        """Number P of image patches of the vision tower."""
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2

    @property
    def vision_feature_index(self) -> int:
        """`vision_feature_layer` as a non-negative index into the `num_hidden_layers + 1` hidden states."""
        count = self.vision_config.num_hidden_layers + 1
        return self.vision_feature_layer % count


def _check_choices(config: M2F2DetConfig) -> None:
    allowed = {
        "variant": ("bridge", "cosine"),
        "bridge_norm": ("official", "layer", "none"),
        "bridge_attention_axis": ("batch", "tokens"),
        "bridge_attention_dtype": ("float32", "bfloat16"),
        "bridge_clip_tokens": ("drop_last", "drop_cls"),
        "vision_pixel_dtype": ("native", "float16"),
    }
    for name, values in allowed.items():
        if getattr(config, name) not in values:
            raise ValueError(f"{name} is {getattr(config, name)!r}, allowed are {', '.join(map(repr, values))}.")


def _check_language_model(config: M2F2DetConfig) -> None:
    vocabulary = config.text_config.vocab_size
    if config.image_token_id is None:
        config.image_token_id = vocabulary - 2
    if config.deepfake_token_id is None:
        config.deepfake_token_id = vocabulary - 1
    for name in ("image_token_id", "deepfake_token_id"):
        if not 0 <= getattr(config, name) < vocabulary:
            raise ValueError(
                f"{name} is {getattr(config, name)}, but the language model has {vocabulary} rows; its vocab_size "
                "must include both placeholders."
            )
    if config.image_token_id == config.deepfake_token_id:
        raise ValueError(f"image_token_id and deepfake_token_id are both {config.image_token_id}.")
    if not 0.0 <= config.conditional_deepfake_prob <= 1.0:
        raise ValueError(f"conditional_deepfake_prob is {config.conditional_deepfake_prob}, expected 0 to 1.")


def _check_sizes(config: M2F2DetConfig) -> None:
    vision, text = config.vision_config, config.prompt_text_config
    if vision.image_size % vision.patch_size:
        raise ValueError(f"image_size {vision.image_size} is not a multiple of patch_size {vision.patch_size}.")
    states = vision.num_hidden_layers + 1
    layers = [config.vision_feature_layer, *(config.bridge_vision_layers if config.variant == "bridge" else [])]
    for layer in layers:
        if not -states <= layer < states:
            raise ValueError(
                f"hidden state {layer} does not exist: the vision tower has {states} (0 to {states - 1})."
            )
    if not 1 <= config.prompt_token_num <= text.max_position_embeddings:
        raise ValueError(
            f"prompt_token_num is {config.prompt_token_num}, but the text tower has {text.max_position_embeddings} "
            "positions and at least one prompt token is needed."
        )
    if config.variant == "bridge":
        if len(config.bridge_vision_layers) != len(config.bridge_encoder_layers):
            raise ValueError(
                f"{len(config.bridge_vision_layers)} bridge_vision_layers but {len(config.bridge_encoder_layers)} "
                "bridge_encoder_layers: each bridge level needs one of each."
            )
        if config.bridge_dim % config.bridge_num_heads:
            raise ValueError(f"bridge_dim {config.bridge_dim} is not a multiple of {config.bridge_num_heads} heads.")
