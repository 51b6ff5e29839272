"""FakeVLM (Wen et al., arXiv 2503.14905): a LLaVA that says whether a picture is fake, and why."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, DynamicCache, LlavaForConditionalGeneration, PreTrainedConfig
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import CONFIG_NAME

from .candidate_scoring import candidate_log_probabilities
from .configuration_fakevlm import SCORES, FakeVLMConfig
from .conversation import Conversation, History, require_one_picture
from .detection import (
    HUB_ARGUMENTS,
    DeepfakeDetectionMixin,
    DeepfakeDetectionOutput,
    DeepfakeExplanationOutput,
    refuse_foreign_checkpoint,
)
from .generation_cache import cache_keyword, common_prefix_length
from .processing_fakevlm import FakeVLMProcessor
from .prompting_fakevlm import own_candidate_tokens, verdict_tokens
from .verdict_parsing import UNDETERMINED, parse_fakevlm_verdict

__all__ = ["FakeVLMDetectionOutput", "FakeVLMForDeepfakeDetection"]

# Official script: greedy, at most 256 new tokens.
GENERATION_DEFAULTS = {"do_sample": False, "num_beams": 1, "max_new_tokens": 256}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


class _Prompt(NamedTuple):
    """The ids of one prompt, and its `candidate_tokens`."""

    ids: list[int]
    tokens: dict[str, Any]

    @property
    def kept(self) -> list[int]:
        return self.ids[: self.tokens["kept"]]

    def followed_by(self, name: str) -> list[int]:
        return [*self.kept, *self.tokens[name]]


@dataclass
class FakeVLMDetectionOutput(DeepfakeDetectionOutput):
    """
    Args:
        logits (`torch.FloatTensor` of shape `(batch, 2)`): what is compared, `[real, fake]`, calibrated: next-token
            logits, or for `score="continuation"` log-probabilities of whole sentences. NaN for a picture whose
            generated answer (`score="generate"`) names neither.
        generated_ids (`torch.LongTensor` of shape `(batch, new tokens)`, *optional*): the answers of
            `score="generate"`; `processor.read_verdicts` says what they mean by the official rule.
    """

    generated_ids: torch.LongTensor | None = None


class FakeVLMForDeepfakeDetection(DeepfakeDetectionMixin, LlavaForConditionalGeneration):
    """Verdict and explanation by one LLaVA; the folder's keys are those of stock `LlavaForConditionalGeneration`.

    `from_pretrained` takes folders of this class and stock Llava folders such as the released checkpoint. The verdict
    needs ids of the checkpoint's own tokenizer: they are in the config, or made at load from the folder's tokenizer.
    """

    config: FakeVLMConfig
    can_explain = True
    can_converse = True
    subject = "picture"
    # What made the ids of prompts. Only prompts of the caller's own need it, so it is loaded when the first one comes.
    _tokenizer: Any = None
    _tokenizer_source: tuple[Any, dict[str, Any]] | None = None

    def __init__(self, config: FakeVLMConfig) -> None:
        _rename_keys_like_llava()
        super().__init__(config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """As the base class, for folders of this family and stock Llava folders.

        Raises:
            UnconvertedCheckpointError: if the folder is in the layout of the original LLaVA code.
            ValueError: if the folder holds another family, if weights are missing or unexpected, or if "real" or
                "fake" is not one token of its tokenizer.
        """
        source = pretrained_model_name_or_path
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        config = cls._own_config(source, kwargs, hub_kwargs)
        if config.lacks_verdict_tokens and _may_hold_tokenizer(source):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **hub_kwargs)
            config.verdict_tokens = _tokens_for(config, tokenizer)
        loaded = super().from_pretrained(source, *model_args, config=config, **kwargs)
        if _may_hold_tokenizer(source):
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model._tokenizer_source = (source, hub_kwargs)
        return loaded

    @classmethod
    def config_of_stock(cls, source: Any, **hub_kwargs: Any) -> FakeVLMConfig:
        """Return the config with which `from_pretrained` reads a stock Llava folder or Hub id."""
        return cls._own_config(source, {}, hub_kwargs)

    def adopt_processor(self, processor: Any) -> FakeVLMProcessor:
        """Return a `FakeVLMProcessor` with the parts of a stock `LlavaProcessor`."""
        if type(processor).__name__ == FakeVLMProcessor.__name__:
            return processor
        return FakeVLMProcessor(
            processor.image_processor,
            processor.tokenizer,
            patch_size=self.config.vision_config.patch_size,
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
            prompt_style=self.config.prompt_style,
            image_aspect=self.config.image_aspect,
            question=self.config.question,
        )

    @classmethod
    def _own_config(cls, source: Any, kwargs: dict[str, Any], hub_kwargs: dict[str, Any]) -> FakeVLMConfig:
        """The config to load with; takes it, and fields of it, out of `kwargs`."""
        given = kwargs.pop("config", None)
        # By model_type, not by class: as Hub code the config is another class object.
        if getattr(given, "model_type", None) == FakeVLMConfig.model_type:
            return copy.deepcopy(given)
        if isinstance(given, PreTrainedConfig):
            fields = given.to_dict()
        elif given is None and Path(str(source)).exists() and not (Path(str(source)) / CONFIG_NAME).is_file():
            fields = {}
        else:
            fields = PreTrainedConfig.get_config_dict(source if given is None else given, **hub_kwargs)[0]
        if fields.get("model_type") not in ("llava", FakeVLMConfig.model_type) or "text_config" not in fields:
            refuse_foreign_checkpoint(cls, source, hub_kwargs if given is None else {**hub_kwargs, "config": given})
        fields |= {name: kwargs.pop(name) for name in list(kwargs) if name in FakeVLMConfig.__annotations__}
        if fields.get("model_type") == "llava":
            fields |= {"model_type": FakeVLMConfig.model_type, "architectures": [cls.__name__]}
        return FakeVLMConfig.from_dict(fields)

    def set_verdict_tokens(self, tokenizer: Any) -> None:
        """Take over what a verdict needs of `tokenizer`; only for models that were not loaded with theirs.

        Raises:
            ValueError: see `prompting_fakevlm.verdict_tokens`.
        """
        self.config.verdict_tokens = _tokens_for(self.config, tokenizer)
        self._tokenizer = tokenizer

    def _own_tokenizer(self) -> Any:
        if self._tokenizer is None:
            if self._tokenizer_source is None:
                raise ValueError(
                    "Prompts of your own need the tokenizer of this model, which its folder does not hold: call "
                    "model.set_verdict_tokens(processor.tokenizer)."
                )
            source, hub_kwargs = self._tokenizer_source
            self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **hub_kwargs)
        return self._tokenizer

    @property
    def _verdict_tokens(self) -> dict[str, Any]:
        if self.config.lacks_verdict_tokens:
            raise ValueError(
                "This model does not know its verdict tokens for "
                f"{self.config.verdict_prompt + self.config.forced_prefix!r}: load it from a folder with its "
                "tokenizer, or call model.set_verdict_tokens(processor.tokenizer)."
            )
        return self.config.verdict_tokens

    def _prompt_row(self) -> list[int]:
        """The verdict prompt with its image token repeated."""
        return self._expanded(self._verdict_tokens["prompt"])

    def _expanded(self, ids: list[int]) -> list[int]:
        image, count = self.config.image_token_index, self.config.num_image_tokens
        return [copy for token in ids for copy in [token] * (count if token == image else 1)]

    def _prompts(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> list[_Prompt]:
        """The config's own, which serves every picture, or those given, one per picture; each with its candidates."""
        tokens = self._verdict_tokens
        own = self._prompt_row()
        # Folders from before `kept` was written hold prompts whose ids are all kept.
        kept = len(self._expanded(tokens["prompt"][: tokens.get("kept", len(tokens["prompt"]))]))
        known = {tuple(own): _Prompt(own, {**tokens, "kept": kept})}
        if input_ids is None:
            return [known[tuple(own)]]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [tuple(row[seen.bool()].tolist()) for row, seen in zip(input_ids, mask, strict=True)]
        for row in rows:
            if row not in known:
                candidates = own_candidate_tokens(self._own_tokenizer(), row, self.config.forced_prefix)
                known[row] = _Prompt(list(row), candidates)
        return [known[row] for row in rows]

    @torch.no_grad()
    def detect(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        score: str | None = None,
    ) -> FakeVLMDetectionOutput:
        """Judge a batch of pictures.

        Args:
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            input_ids, attention_mask: (batch, length), prompts of your own in the config's `prompt_style`, padded on
                the left; by default the config's question. What is put behind them is tokenised together with their
                last words, as if the whole had been one text.
            score: the config's unless told. `"prefix"`: puts the forced beginning of the answer ("This is a") behind
                the prompt and compares the next-token logits of " real" and " fake"; one prefill, no decoding.
                `"continuation"`: compares the log-probabilities of the two whole sentences; one prefill and one pass
                over a few tokens. `"generate"`: writes the answer (greedy, up to 256 tokens) and compares the two
                logits at the first token that is one of them, as close to the official evaluation as a score can be.

        Raises:
            ValueError: for another score, right-padded prompts, a model without verdict tokens, or prompts of your
                own that the model's tokenizer did not make.
        """
        score = self.config.score if score is None else score
        if score not in SCORES:
            raise ValueError(f"score is {score!r}, allowed are {', '.join(map(repr, SCORES))}.")
        if attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError("The prompts are padded on the right; detect needs padding_side='left'.")
        count, new_ids = pixel_values.shape[0], None
        if score == "generate":
            rows = input_ids if input_ids is not None else self._rows(self._prompt_row(), count)
            mask = torch.ones_like(rows) if attention_mask is None else attention_mask
            logits, new_ids = self._score_generated(rows, mask, {"pixel_values": pixel_values})
        else:
            prompts = self._prompts(input_ids, attention_mask)
            picture = {"mm_encoder_outputs": {"image": self._encoded(pixel_values)}}
            logits = (self._score_prefix if score == "prefix" else self._score_continuation)(prompts, count, picture)
        return FakeVLMDetectionOutput(logits=self.calibrate(logits), generated_ids=new_ids)

    def _encoded(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """What the language model reads of pictures, as `get_image_features` gives it, but in one piece.

        The library cuts it into a list of pictures, whose length an exported graph takes for a constant.
        """
        tower = self.model.vision_tower(pixel_values, output_hidden_states=True, return_dict=True)
        layers = self.config.vision_feature_layer
        states = [tower.hidden_states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        if self.config.vision_feature_select_strategy == "default":  # without the CLS token
            states = [state[:, 1:] for state in states]
        features = self.model.multi_modal_projector(torch.cat(states, dim=-1))
        return BaseModelOutputWithPooling(pooler_output=(features.flatten(0, 1),))

    def _rows(self, ids: list[int], count: int) -> torch.LongTensor:
        return torch.tensor([ids], device=self.input_device).expand(count, -1)

    def _left_padded(self, rows: Sequence[list[int]], count: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask (rows, longest); of a single row, `count` times."""
        longest, filler = max(map(len, rows)), self._verdict_tokens["real"]  # any id but the picture's
        filled = [[filler] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        each = count if len(rows) == 1 else -1
        ids, seen = (torch.tensor(values, device=self.input_device).expand(each, -1) for values in (filled, mask))
        return ids, seen

    def _own_score(self, count: int, picture: dict[str, Any], cache: Any) -> torch.Tensor:
        """Raw logits (count, 2) of the own prompt; only the score `"prefix"` leaves in `cache` what it read."""
        if self.config.score == "generate":
            rows = self._rows(self._prompt_row(), count)
            return self._score_generated(rows, torch.ones_like(rows), picture)[0]
        prompts = self._prompts()
        if self.config.score == "prefix":
            return self._score_prefix(prompts, count, picture, cache)
        return self._score_continuation(prompts, count, picture)

    def _score_prefix(
        self, prompts: Sequence[_Prompt], count: int, picture: dict[str, Any], cache: Any = None
    ) -> torch.Tensor:
        """Raw logits (count, 2) of prompts, one or `count` of them; fills `cache` where one is given."""
        input_ids, attention_mask = self._left_padded([prompt.followed_by("prefix") for prompt in prompts], count)
        logits = self._last_logits(input_ids, attention_mask, cache, **picture)
        pairs = torch.tensor([[prompt.tokens["real"], prompt.tokens["fake"]] for prompt in prompts])
        return logits.gather(1, pairs.to(logits.device).expand(count, -1))

    def _last_logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, cache: Any = None, **picture: Any
    ) -> torch.Tensor:
        """Float logits (batch, vocabulary) behind the last token; no other position meets the vocabulary."""
        output = self(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=_positions(attention_mask),
            use_cache=cache is not None,
            logits_to_keep=1,
            **cache_keyword(cache),
            **picture,
        )
        return output.logits[:, -1].float()

    def _score_continuation(self, prompts: Sequence[_Prompt], count: int, picture: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (count, 2) of the two sentences, over the words of the vocabulary."""
        names = ("real_sentence", "fake_sentence")
        cache = DynamicCache(config=self.config.get_text_config())
        heads, head_mask = self._left_padded([prompt.kept for prompt in prompts], count)
        first = self._last_logits(heads, head_mask, cache, **picture)

        def read_on(ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
            cache.batch_repeat_interleave(len(names))
            mask = torch.cat([head_mask.repeat_interleave(len(names), 0), real], dim=1)
            positions = _positions(mask)[:, -ids.shape[1] :]
            return self(input_ids=ids, attention_mask=mask, position_ids=positions, **cache_keyword(cache)).logits

        sentences = [[prompt.tokens[name] for name in names] for prompt in prompts]
        return candidate_log_probabilities(first, sentences, read_on, words=self.config.base_vocab_size)

    def _score_generated(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, picture: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw logits (batch, 2) and the answers' ids (batch, new tokens)."""
        tokens = self._verdict_tokens
        pair = [tokens["real"], tokens["fake"]]
        output = self.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_logits=True,
            return_dict_in_generate=True,
            **picture,
            **GENERATION_DEFAULTS,
        )
        new_ids = output.sequences[:, input_ids.shape[1] :]
        steps = torch.stack([logits[:, pair].float() for logits in output.logits], dim=1)
        named = torch.isin(new_ids, torch.tensor(pair, device=new_ids.device))
        at_first = steps[torch.arange(steps.shape[0], device=steps.device), named.int().argmax(dim=1)]
        return at_first.masked_fill(~named.any(dim=1, keepdim=True), torch.nan), new_ids

    def _checked_row(self, processor: Any) -> list[int]:
        """The verdict prompt; refuses a processor of another model."""
        row = self._prompt_row()
        if processor.token_ids(self.config.verdict_prompt) != row:
            raise ValueError(
                "The processor does not belong to this model: it tokenises "
                f"{self.config.verdict_prompt!r} differently."
            )
        if processor.prompt_style != self.config.prompt_style:
            raise ValueError(
                f"The processor has prompt_style {processor.prompt_style!r}, the model {self.config.prompt_style!r}; "
                "load both with the same."
            )
        return row

    @torch.no_grad()
    def converse(self, processor: Any, pixel_values: torch.Tensor) -> Conversation:
        """Begin a conversation about one picture; with `score="prefix"` its verdict costs no further prefill.

        Args:
            processor: the `FakeVLMProcessor` of this checkpoint.
            pixel_values: (1, 3, image_size, image_size), CLIP-normalised.

        Returns:
            A `Conversation`; its answers equal those of `explain` with the same question and history.

        Raises:
            ValueError: for more than one picture, or if the processor's prompts are not those of this model.
        """
        require_one_picture(pixel_values)
        row = self._checked_row(processor)
        image = self.config.image_token_index
        opening = row[: len(row) - row[::-1].index(image)]
        picture = {"mm_encoder_outputs": {"image": self.get_image_features(pixel_values, return_dict=True)}}
        cache = DynamicCache(config=self.config.get_text_config())
        logits = self._own_score(1, picture, cache)
        if cache.get_seq_length():
            cache.crop(len(opening) - cache.get_seq_length())  # negative: so many tokens off the end
        else:
            ids = self._rows(opening, 1)
            self._last_logits(ids, torch.ones_like(ids), cache, **picture)

        def prompt_ids(question: str, history: History) -> list[int]:
            return processor.token_ids(processor.explanation_prompt(question, history))

        detection = FakeVLMDetectionOutput(logits=self.calibrate(logits))
        return Conversation(self, processor, detection, opening, cache, prompt_ids, GENERATION_DEFAULTS)

    @torch.no_grad()
    def explain(
        self,
        processor: Any,
        pixel_values: torch.Tensor,
        question: str | None = None,
        threshold: float = 0.5,
        history: Sequence[tuple[str, str]] = (),
        **generation: Any,
    ) -> DeepfakeExplanationOutput:
        """Verdict and explanation of a batch from one encoding of its pictures.

        With `score="prefix"` the explanation goes on from the verdict's prefill: the cache is cut to what both
        prompts have in common, so the forced prefix leaves no trace in the text.

        Args:
            processor: the `FakeVLMProcessor` of this checkpoint.
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            question: asked of every picture; by default the question of the verdict.
            threshold: not used; FakeVLM's question does not name the verdict.
            history: earlier questions with their answers, the oldest first, the same for every picture.
            generation: arguments of `generate`; greedy and 256 new tokens unless told.

        Returns:
            `DeepfakeExplanationOutput`. The texts equal those of `generate` on the same prompts.

        Raises:
            ValueError: if the processor's prompts are not those of this model.
        """
        row = self._checked_row(processor)
        plain = question is None and not history
        own_row = row if plain else processor.token_ids(processor.explanation_prompt(question, history))
        own_ids = self._rows(own_row, len(pixel_values))
        picture = {"mm_encoder_outputs": {"image": self.get_image_features(pixel_values, return_dict=True)}}
        options = {"pad_token_id": processor.tokenizer.pad_token_id, **GENERATION_DEFAULTS, **generation}
        cache = DynamicCache(config=self.config.get_text_config())
        logits = self._own_score(len(pixel_values), picture, cache)
        shared = 0
        if cache.get_seq_length():
            shared = common_prefix_length([self._prompts()[0].followed_by("prefix"), own_row])
        if own_row[:shared].count(self.config.image_token_index) == self.config.num_image_tokens:
            cache.crop(shared - cache.get_seq_length())  # negative: so many tokens off the end
            if options["num_beams"] > 1:
                cache.batch_repeat_interleave(options["num_beams"])
            options |= cache_keyword(cache)
        else:  # no cache, or a question of its own in front of the picture
            options |= picture
        new_ids = self.generate(input_ids=own_ids, attention_mask=torch.ones_like(own_ids), **options)
        explanations = processor.decode_answers(new_ids[:, len(own_row) :])
        verdicts = [parse_fakevlm_verdict(text, self.config.verdict_rule) for text in explanations]
        return DeepfakeExplanationOutput(
            logits=self.calibrate(logits),
            explanations=explanations,
            explanation_verdicts=[None if verdict == UNDETERMINED else verdict for verdict in verdicts],
        )


def _rename_keys_like_llava() -> None:
    """Register the renaming of stock Llava keys, which a subclass does not inherit: `lm_head` would start at random.

    By class name, because the released folder's own model_type is `llava`; `overwrite`, because the package and a copy
    of this file from the Hub may both come here. Not at import, where it would cost more than everything else here:
    transformers compiles the patterns of all its models first.
    """
    register_checkpoint_conversion_mapping(
        FakeVLMForDeepfakeDetection.__name__, get_checkpoint_conversion_mapping("llava"), overwrite=True
    )


def _positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions that do not count padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _tokens_for(config: FakeVLMConfig, tokenizer: Any) -> dict[str, Any]:
    return verdict_tokens(
        tokenizer,
        config.verdict_prompt,
        config.forced_prefix,
        config.image_token_index,
        config.text_config.vocab_size,
    )


def _may_hold_tokenizer(source: Any) -> bool:
    """A local folder without tokenizer files holds none; a Hub id is asked."""
    path = Path(str(source))
    return not path.is_dir() or any((path / name).exists() for name in TOKENIZER_FILES)
