"""LVLM-DFD configuration (Yu et al., ICML 2025, arXiv 2503.14853)."""

from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_detection import check_detection_fields
from .configuration_imagebind import ImageBindConfig

__all__ = ["LvlmDfdConfig"]

# In CLIP's tokenizer the 26 letters, each as its own word, have consecutive ids.
FIRST_LETTER_ID = 320


class LvlmDfdConfig(PreTrainedConfig):
    """
    Configuration of both LVLM-DFD classes. The defaults are the released sizes.

    Args:
        imagebind_config: `ImageBindConfig` or its fields.
        text_config: config of the language model, or `None` in a folder for verdict and mask only.
        tap_layers: zero-based indices of the image blocks whose outputs are compared with the class texts, giving one
            map each.
        num_ctx_tokens: number of learned vectors that are averaged with the sentences of each class.
        class_names: words for real and fake, in this order.
        split_letters: split each class name into letters, as the released code does by accident.
        class_token_ids: per class a list of sentences, each a list of ids of CLIP's tokenizer with begin and end
            token; derived from `class_names` if `None`, which needs `split_letters`.
        ctx_missing: what a conversion does if the checkpoint does not contain `ctx` (the released code never saves
            it): `"zeros"`, `"random"` (as released: drawn with deviation 0.02) or `"error"`.
        map_scale: factor on the cosine between patch and class text.
        locator_width: channels per map of the localiser.
        classifier_widths, classifier_hidden_size: channels of the classifier's blocks, and width of its hidden layer.
        prompt_widths: channels of the forgery prompt learner's blocks, with pooling by 2 in between.
        prompt_kernel_size: kernel size of the convolution at the end of its networks.
        num_prompt_tokens: number of learned vectors before its output, and of tokens that it returns.
        prob_token_mode: `"interleaved"` (released inference) is one token with p_real, p_fake, p_real, ...;
            `"two_rows"` (released training) is one token with p_real and one with p_fake.
        legacy_truncate_middle: cut the score sentences of a training batch to the shortest of them.
        verdict_mode: how an answer is parsed: `"robust"` or `"legacy"`, see `parse_verdict`.
        stop_token_id: id that ends an answer (`##`); with `None` only the end token does.
        mask_threshold: in the focal loss, ground-truth mask values above this share count as manipulated; `None`
            rounds values below 1 down to 0, as the released code does.
        lm_loss_weight, class_loss_weight, focal_loss_weight, dice_loss_weight: weights of the four losses.
        initializer_range: standard deviation of the learned vectors.
        calibration: `{"scale", "bias"}` on the logit difference fake - real; the identity if `None`.
        operating_points: name -> threshold on P(fake).
        decision_band: see `configuration_detection`; `None` if none was fitted.

    Raises:
        ValueError: for a value outside its allowed set, or sizes that do not fit together.
    """

    model_type = "lvlm_dfd"
    sub_configs_defaults = {
        "imagebind_config": SubConfigSpec(config_class=ImageBindConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama", optional=True),
    }
    keys_to_ignore_at_inference = [
        "cache",
        "past_key_values",
        "mask",
        "class_logits",
        "class_loss",
        "focal_loss",
        "dice_loss",
        "lm_loss",
    ]

    imagebind_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    tap_layers: list[int] | None = None
    num_ctx_tokens: int = 16
    class_names: list[str] | None = None
    split_letters: bool = True
    class_token_ids: list[list[list[int]]] | None = None
    ctx_missing: Literal["zeros", "random", "error"] = "zeros"
    map_scale: float = 100.0
    locator_width: int = 128
    classifier_widths: list[int] | None = None
    classifier_hidden_size: int = 128
    prompt_widths: list[int] | None = None
    prompt_kernel_size: int = 5
    num_prompt_tokens: int = 9
    prob_token_mode: Literal["interleaved", "two_rows"] = "interleaved"
    legacy_truncate_middle: bool = False
    verdict_mode: Literal["robust", "legacy"] = "robust"
    stop_token_id: int | None = 2277
    mask_threshold: float | None = 0.3
    lm_loss_weight: float = 1.0
    class_loss_weight: float = 1.0
    focal_loss_weight: float = 1.0
    dice_loss_weight: float = 1.0
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    calibration: dict[str, float] | None = None
    operating_points: dict[str, float] | None = None
    decision_band: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architectures is None:  # AutoModel.from_config chooses the class by this name
            explains = self.text_config is not None
            self.architectures = ["LvlmDfdForConditionalGeneration" if explains else "LvlmDfdForDeepfakeDetection"]
        defaults = {
            "tap_layers": [15, 23, 31],
            "class_names": ["real", "fake"],
            "classifier_widths": [16, 64, 128, 256],
            "prompt_widths": [16, 32, 64, 128, 256, 512],
        }
        for name, value in defaults.items():
            setattr(self, name, list(value if getattr(self, name) is None else getattr(self, name)))
        _check_choices(self)
        if self.class_token_ids is None:
            self.class_token_ids = _letter_ids(self)
        _check_class_token_ids(self)
        _check_sizes(self)
        check_detection_fields(self)

    @property
    def image_size(self) -> int:
        """Side length of the images and the mask, in pixels."""
        return self.imagebind_config.vision_config.image_size

    @property
    def prompt_grid(self) -> int:
        """Side length of the token grid that each network of the forgery prompt learner returns."""
        return self.image_size // 2 ** (len(self.prompt_widths) - 1) - self.prompt_kernel_size + 1


def _check_choices(config: LvlmDfdConfig) -> None:
    allowed = {
        "ctx_missing": ("zeros", "random", "error"),
        "prob_token_mode": ("interleaved", "two_rows"),
        "verdict_mode": ("robust", "legacy"),
    }
    for name, values in allowed.items():
        if getattr(config, name) not in values:
            raise ValueError(f"{name} is {getattr(config, name)!r}, allowed are {', '.join(map(repr, values))}.")
    if config.mask_threshold is not None and not 0.0 <= config.mask_threshold < 1.0:
        raise ValueError(f"mask_threshold is {config.mask_threshold}, expected None or a share in [0, 1).")
    for name in ("lm_loss_weight", "class_loss_weight", "focal_loss_weight", "dice_loss_weight"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name} is {getattr(config, name)}, but it must not be negative.")


def _letter_ids(config: LvlmDfdConfig) -> list[list[list[int]]]:
    text = config.imagebind_config.text_config
    names = [name.lower() for name in config.class_names]  # as the tokenizer does
    if not config.split_letters or not all(name and name.isascii() and name.isalpha() for name in names):
        raise ValueError(
            f"class_names {config.class_names} with split_letters={config.split_letters} need class_token_ids: for "
            "each class a list of sentences, tokenised with CLIP's tokenizer. Only the single letters a to z work "
            "without it."
        )
    begin, end = text.bos_token_id, text.eos_token_id
    return [[[begin, FIRST_LETTER_ID + ord(letter) - ord("a"), end] for letter in name] for name in names]


def _check_class_token_ids(config: LvlmDfdConfig) -> None:
    text = config.imagebind_config.text_config
    ids = config.class_token_ids
    if len(config.class_names) != 2 or len(ids) != 2 or not all(ids):
        raise ValueError(
            f"There must be two class_names (real, fake) with at least one sentence each; got {config.class_names} "
            f"with {[len(sentences) for sentences in ids]} sentences."
        )
    for sentence in (sentence for sentences in ids for sentence in sentences):
        if not sentence or not all(0 <= token < text.vocab_size for token in sentence):
            raise ValueError(
                f"class_token_ids contain {sentence}, but the text trunk has ids 0 to {text.vocab_size - 1}."
            )
        if len(sentence) > text.max_position_embeddings:
            raise ValueError(
                f"class_token_ids contain a sentence of {len(sentence)} tokens, but the text trunk has "
                f"{text.max_position_embeddings} positions."
            )


def _check_sizes(config: LvlmDfdConfig) -> None:
    vision = config.imagebind_config.vision_config
    if not config.tap_layers or not all(0 <= tap < vision.num_hidden_layers for tap in config.tap_layers):
        raise ValueError(
            f"tap_layers are {config.tap_layers}, but the image trunk has blocks 0 to {vision.num_hidden_layers - 1}."
        )
    smallest = 2 ** len(config.classifier_widths)
    if vision.image_size < smallest:
        raise ValueError(
            f"image_size {vision.image_size} is too small for {len(config.classifier_widths)} classifier blocks, "
            f"each of which halves it; it must be at least {smallest}."
        )
    if config.text_config is None:
        return
    if config.prompt_grid < 1:
        raise ValueError(
            f"image_size {vision.image_size} is too small for {len(config.prompt_widths)} prompt_widths and "
            f"prompt_kernel_size {config.prompt_kernel_size}: no pixels are left after the poolings."
        )
    vocabulary = config.text_config.vocab_size
    if config.stop_token_id is not None and not 0 <= config.stop_token_id < vocabulary:
        raise ValueError(
            f"stop_token_id is {config.stop_token_id}, but the language model's vocabulary has {vocabulary} ids; use "
            "its id of '##', or None."
        )
