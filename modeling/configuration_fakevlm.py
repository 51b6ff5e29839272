"""FakeVLM configuration (Wen et al., arXiv 2503.14905): LLaVA-1.5, and the question that asks it for a verdict."""

from typing import Any, Literal

from transformers import LlavaConfig

from .configuration_detection import check_detection_fields
from .prompting_fakevlm import PROMPT_STYLES, QUESTION, build_prompt, verdict_prefix_of
from .verdict_parsing import VERDICT_RULES

__all__ = ["IMAGE_ASPECTS", "SCORES", "FakeVLMConfig"]

IMAGE_ASPECTS = ("crop", "pad")
SCORES = ("prefix", "continuation", "generate")


class FakeVLMConfig(LlavaConfig):
    """
    A `LlavaConfig` (defaults: the released sizes, LLaVA-1.5-7B with CLIP ViT-L/14-336) and these fields.

    Args:
        prompt_style: `"raw"` (official evaluation, for the released weights), `"hf_chat"` (newer official training) or
            `"vicuna_v1"` (first official code).
        image_aspect: `"crop"` (resize the shortest edge, centre crop; for the released weights) or `"pad"` (to a
            square with the mean colour; first official code). Applied by the processor and only recorded here.
        question: the question for a verdict.
        verdict_prefix: beginning that the answer is forced to have; `None` is the prefix for `prompt_style`.
        score: how `detect` scores by default: `"prefix"`, `"continuation"` or `"generate"`, see there.
        verdict_rule: how a written answer is parsed, `"official"` or `"strict"`, see `parse_fakevlm_verdict`.
        verdict_tokens: ids of prompt, prefix and candidates in the checkpoint's own tokenizer, computed when a folder
            is converted or loaded; see `prompting_fakevlm.verdict_tokens`.
        base_vocab_size: number of rows of the language model that are real tokens. The rows after them (`<image>`,
            `<pad>`, filling) were added for transformers, so `score="continuation"` leaves them out of its
            probabilities. By default `image_token_index`, the first of these.
        calibration: `{"scale", "bias"}` on the logit difference fake - real; the identity if `None`.
        operating_points: name -> threshold on P(fake).
        decision_band: see `configuration_detection`; `None` if none was fitted.

    Raises:
        ValueError: for a value outside its allowed set, or sizes that do not fit together.
    """

    model_type = "fakevlm"
    keys_to_ignore_at_inference = ["cache", "past_key_values", "image_outputs", "image_hidden_states"]

    prompt_style: Literal["raw", "hf_chat", "vicuna_v1"] = "raw"
    image_aspect: Literal["crop", "pad"] = "crop"
    question: str = QUESTION
    verdict_prefix: str | None = None
    score: Literal["prefix", "continuation", "generate"] = "prefix"
    verdict_rule: Literal["official", "strict"] = "official"
    verdict_tokens: dict[str, Any] | None = None
    base_vocab_size: int | None = None
    calibration: dict[str, float] | None = None
    operating_points: dict[str, float] | None = None
    decision_band: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architectures is None:  # AutoModel.from_config chooses the class by this name
            self.architectures = ["FakeVLMForDeepfakeDetection"]
        allowed = {
            "prompt_style": PROMPT_STYLES,
            "image_aspect": IMAGE_ASPECTS,
            "score": SCORES,
            "verdict_rule": VERDICT_RULES,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}, allowed are {', '.join(map(repr, values))}.")
        build_prompt(self.question, self.prompt_style)  # this refuses a question about two images
        if self.vision_config.image_size % self.vision_config.patch_size:
            raise ValueError(
                f"image_size {self.vision_config.image_size} is not a multiple of patch_size "
                f"{self.vision_config.patch_size}."
            )
        # Old folders have the default of another size here.
        self.image_seq_length = self.num_image_tokens
        if not 0 <= self.image_token_index < self.text_config.vocab_size:
            raise ValueError(
                f"image_token_index is {self.image_token_index}, but the language model has "
                f"{self.text_config.vocab_size} rows; text_config.vocab_size must include it."
            )
        if self.base_vocab_size is None:
            self.base_vocab_size = self.image_token_index
        if not 0 < self.base_vocab_size <= self.text_config.vocab_size:
            raise ValueError(
                f"base_vocab_size is {self.base_vocab_size}, expected 1 to {self.text_config.vocab_size}, the rows of "
                "the language model."
            )
        check_detection_fields(self)

    @property
    def num_image_tokens(self) -> int:
        """Number of tokens per image in the language model: its patches, and CLS if the strategy keeps it."""
        patches = (self.vision_config.image_size // self.vision_config.patch_size) ** 2
        return patches + (self.vision_feature_select_strategy == "full")

    @property
    def verdict_prompt(self) -> str:
        """The prompt for a verdict, with `<image>` once and without the begin token."""
        return build_prompt(self.question, self.prompt_style)

    @property
    def forced_prefix(self) -> str:
        """`verdict_prefix`, or the default for `prompt_style`."""
        return verdict_prefix_of(self.prompt_style) if self.verdict_prefix is None else self.verdict_prefix

    @property
    def lacks_verdict_tokens(self) -> bool:
        """Whether `verdict_tokens` are missing or were made for another prompt."""
        return self.verdict_tokens is None or self.verdict_tokens["text"] != self.verdict_prompt + self.forced_prefix
