"""AntifakePrompt configuration (Chang et al., arXiv 2310.17419)."""

from typing import Any, Literal

from transformers import AutoConfig, InstructBlipConfig, InstructBlipQFormerConfig, InstructBlipVisionConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_detection import check_detection_fields

__all__ = ["DEFAULT_BASE", "PROMPTS", "AntifakePromptConfig"]

# The released question and those of the position ablation, with `[*]` as the learned word.
PROMPTS = {
    "postfix": "Is this photo real [*]?",
    "prefix": "[*] Is this photo real?",
    "replace": "Is this photo [*]?",
}
DEFAULT_BASE = "Salesforce/instructblip-vicuna-7b"


class AntifakePromptConfig(InstructBlipConfig):
    """
    Configuration of a frozen InstructBLIP with one learned word in its question. The defaults are the released sizes.

    Args:
        vision_config, qformer_config, text_config, num_query_tokens: as in `InstructBlipConfig`; the language model
            must be a decoder (Vicuna-7B v1.3 in the release).
        image_token_index: id of the placeholder `<image>`; by default the first id after the language model's table.
        soft_word: text of the learned word.
        soft_word_sides: which of the two text inputs contain the word: `"both"` (release), `"qformer"` or `"llm"`
            (ablations; the other side then gets `plain_prompt`), or `"none"`: plain InstructBLIP, asked the official
            question without a learned word (the paper's zero-shot baseline).
        qformer_soft_word_id, llm_soft_word_id: ids of the word in each tokenizer. They can be beyond the embedding
            tables, which are never changed. By default the first id after the Q-Former's table, and the one after
            `image_token_index`.
        llm_pad_token_id: id of the padding token, which can also be beyond the table.
        prompt_position: `"postfix"` (release), `"prefix"`, `"replace"`, or `"custom"` with a `prompt` of your own.
        prompt: the question, with the learned word once; derived from `prompt_position` if `None`.
        plain_prompt: the question for a text input without the word.
        candidates: the two answers to compare, in the order real, fake.
        qformer_prompt_ids, llm_prompt_ids, candidate_ids: token ids of `prompt` and `candidates` from
            `AntifakePromptProcessor.prompt_fields`, so that `detect` needs only an image.
        ln_vision_eps: epsilon of the layer norm after the vision tower: 1e-5 in the official code, 1e-6 (the value of
            `vision_config`) in transformers.
        llm_base: the language model that the words were trained with; for information.
        variant: which released checkpoint, see `IMAGE_STATISTICS` of the image processor; for information.
        base_model_name_or_path: for an adapter folder, the InstructBLIP it belongs to; `None` in a full folder.
        calibration: `{"scale", "bias"}` on the logit difference fake - real; the identity if `None`.
        operating_points: name -> threshold on P(fake).
        decision_band: see `configuration_detection`; `None` if none was fitted.

    Raises:
        ValueError: for a value outside its allowed set, a prompt without the word, or ids that collide.
    """

    model_type = "antifakeprompt"
    keys_to_ignore_at_inference = [
        "cache",
        "past_key_values",
        "vision_outputs",
        "qformer_outputs",
        "language_model_outputs",
    ]
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=InstructBlipVisionConfig),
        "qformer_config": SubConfigSpec(config_class=InstructBlipQFormerConfig, init_kwargs={"vocab_size": 30523}),
        "text_config": SubConfigSpec(
            config_class=AutoConfig, model_type="llama", init_kwargs={"vocab_size": 32001, "pad_token_id": 32000}
        ),
    }

    soft_word: str = "[*]"
    soft_word_sides: Literal["both", "qformer", "llm", "none"] = "both"
    qformer_soft_word_id: int | None = None
    llm_soft_word_id: int | None = None
    llm_pad_token_id: int | None = None
    prompt_position: Literal["postfix", "prefix", "replace", "custom"] = "postfix"
    prompt: str | None = None
    plain_prompt: str = "Is this photo real?"
    candidates: list[str] | None = None
    qformer_prompt_ids: list[int] | None = None
    llm_prompt_ids: list[int] | None = None
    candidate_ids: list[list[int]] | None = None
    ln_vision_eps: float = 1e-5
    llm_base: str | None = "lmsys/vicuna-7b-v1.3"
    variant: str | None = None
    base_model_name_or_path: str | None = None
    calibration: dict[str, float] | None = None
    operating_points: dict[str, float] | None = None
    decision_band: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architectures is None:  # AutoModel.from_config chooses the class by this name
            self.architectures = ["AntifakePromptForDeepfakeDetection"]
        if not self.use_decoder_only_language_model:
            raise ValueError(
                f"text_config is a {self.text_config.model_type!r}, but the answers are scored by a decoder such as "
                "'llama'."
            )
        if self.image_token_index is None:
            self.image_token_index = self.text_config.vocab_size
        if self.qformer_soft_word_id is None:
            self.qformer_soft_word_id = self.qformer_config.vocab_size
        if self.llm_soft_word_id is None:
            self.llm_soft_word_id = self.image_token_index + 1
        if self.llm_pad_token_id is None:
            self.llm_pad_token_id = self.text_config.pad_token_id
        if self.candidates is None:
            self.candidates = ["yes", "no"]
        _check_words(self)
        _check_ids(self)
        check_detection_fields(self)

    @property
    def qformer_prompt(self) -> str:
        """The prompt for the Q-Former."""
        return self.prompt if self.soft_word_sides in ("both", "qformer") else self.plain_prompt

    @property
    def llm_prompt(self) -> str:
        """The prompt for the language model."""
        return self.prompt if self.soft_word_sides in ("both", "llm") else self.plain_prompt


def _check_words(config: AntifakePromptConfig) -> None:
    allowed = {"soft_word_sides": ("both", "qformer", "llm", "none"), "prompt_position": (*PROMPTS, "custom")}
    for name, values in allowed.items():
        if getattr(config, name) not in values:
            raise ValueError(f"{name} is {getattr(config, name)!r}, allowed are {', '.join(map(repr, values))}.")
    named = PROMPTS.get(config.prompt_position)
    if named is not None:
        named = named.replace("[*]", config.soft_word)
    if config.prompt is None:
        if named is None:
            raise ValueError("prompt_position='custom' needs a prompt.")
        config.prompt = named
    if named is not None and config.prompt != named:
        raise ValueError(
            f"prompt is {config.prompt!r}, but prompt_position={config.prompt_position!r} means {named!r}; "
            "give prompt_position='custom' with a prompt of your own."
        )
    for name, count in (("prompt", 1), ("plain_prompt", 0)):
        text = getattr(config, name)
        if text.count(config.soft_word) != count:
            raise ValueError(
                f"{name} is {text!r}: it must contain the learned word {config.soft_word!r} "
                f"{'exactly once' if count else 'not at all'}."
            )
    if len(config.candidates) != 2 or len(set(config.candidates)) != 2:
        raise ValueError(
            f"candidates is {config.candidates}, expected two different answers, in the order real, fake."
        )


def _check_ids(config: AntifakePromptConfig) -> None:
    if config.llm_soft_word_id == config.image_token_index:
        raise ValueError(
            f"llm_soft_word_id and image_token_index are both {config.image_token_index}. The official id collides "
            "with transformers' <image>: give the learned word another id."
        )
    for side, id_name in (("qformer", "qformer_soft_word_id"), ("llm", "llm_soft_word_id")):
        ids, word = getattr(config, f"{side}_prompt_ids"), getattr(config, id_name)
        expected = int(config.soft_word_sides in ("both", side))
        if ids is not None and ids.count(word) != expected:
            raise ValueError(
                f"{side}_prompt_ids is {ids}, which contains {id_name} {word} {ids.count(word)} times instead of "
                f"{expected} (soft_word_sides={config.soft_word_sides!r})."
            )
    if config.candidate_ids is not None and (len(config.candidate_ids) != 2 or not all(config.candidate_ids)):
        raise ValueError(f"candidate_ids is {config.candidate_ids}, expected two lists of at least one id.")
