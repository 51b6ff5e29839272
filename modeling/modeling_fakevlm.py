"""FakeVLM (Wen et al., arXiv 2503.14905): a LLaVA that says whether an image is fake, and why."""

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
from .conversation import Conversation, require_one_picture
from .conversation_turns import Histories, History, turns_per_picture
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
    """The ids of one prompt with its `candidate_tokens`."""

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
        logits (`torch.FloatTensor` of shape `(batch, 2)`): the compared values, `[real, fake]`, calibrated: next-token
        logits, or with `score="continuation"` log-probabilities of whole sentences. NaN if the generated answer
        (`score="generate"`) says neither. generated_ids (`torch.LongTensor` of shape `(batch, new tokens)`,
        *optional*): the answers of `score="generate"`; `processor.read_verdicts` parses them by the official rule.
    """

    generated_ids: torch.LongTensor | None = None


class FakeVLMForDeepfakeDetection(DeepfakeDetectionMixin, LlavaForConditionalGeneration):
    """Verdict and explanation from one LLaVA; the keys on disk are those of stock `LlavaForConditionalGeneration`.

    `from_pretrained` loads folders of this class and stock Llava folders such as the released checkpoint. The verdict
    needs token ids of the checkpoint's own tokenizer: they are in the config, or computed at load time from the
    folder's tokenizer.
    """

    config: FakeVLMConfig
    can_explain = True
    can_converse = True
    subject = "picture"
    # The tokenizer of the prompts. Only custom prompts need it, so it is loaded with the first of them.
    _tokenizer: Any = None
    _tokenizer_source: tuple[Any, dict[str, Any]] | None = None

    def __init__(self, config: FakeVLMConfig) -> None:
        _rename_keys_like_llava()
        super().__init__(config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load folders of this family and stock Llava folders.

        Raises:
            UnconvertedCheckpointError: if the folder has the layout of the original LLaVA code.
            ValueError: if the folder contains another family, if weights are missing or unexpected, or if "real" or
                "fake" is not a single token of its tokenizer.
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
        """Return the config that `from_pretrained` uses for a stock Llava folder or Hub id."""
        return cls._own_config(source, {}, hub_kwargs)

    def adopt_processor(self, processor: Any) -> FakeVLMProcessor:
        """Return a `FakeVLMProcessor` built from a stock `LlavaProcessor`."""
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
        """Return the config to load with, taking it and its fields out of `kwargs`."""
        given = kwargs.pop("config", None)
        # Compared by model_type, because remote code from the Hub makes the config class another object.
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
        """Set the verdict tokens from `tokenizer`; only needed for models loaded without a tokenizer.

        Raises:
            ValueError: see `prompting_fakevlm.verdict_tokens`.
        """
        self.config.verdict_tokens = _tokens_for(self.config, tokenizer)
        self._tokenizer = tokenizer

    def _own_tokenizer(self) -> Any:
        if self._tokenizer is None:
            if self._tokenizer_source is None:
                raise ValueError(
                    "Custom prompts need the tokenizer of this model, but its folder does not have one: call "
                    "model.set_verdict_tokens(processor.tokenizer)."
                )
            source, hub_kwargs = self._tokenizer_source
            self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **hub_kwargs)
        return self._tokenizer

    @property
    def _verdict_tokens(self) -> dict[str, Any]:
        if self.config.lacks_verdict_tokens:
            raise ValueError(
                "This model does not have verdict tokens for "
                f"{self.config.verdict_prompt + self.config.forced_prefix!r}: load it from a folder with a "
                "tokenizer, or call model.set_verdict_tokens(processor.tokenizer)."
            )
        return self.config.verdict_tokens

    def _prompt_row(self) -> list[int]:
        """Return the verdict prompt with its image token repeated."""
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
        # In older folders without `kept`, all ids of the prompt are kept.
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
        """Score a batch of images.

        Args:
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            input_ids, attention_mask: (batch, length), custom prompts in the config's `prompt_style`, padded on the
                left; by default the config's question. The text that is appended is tokenised together with their last
                words, as if it were a single text.
            score: by default the config's. `"prefix"` appends the forced beginning of the answer ("This is a") to the
                prompt and compares the next-token logits of " real" and " fake": one prefill, no decoding.
                `"continuation"` compares the log-probabilities of the two whole sentences: one prefill and one pass
                over a few tokens. `"generate"` writes the answer (greedy, up to 256 tokens) and compares the two
                logits at the first of these tokens, which is the closest to the official evaluation.

        Raises:
            ValueError: for an unknown score, right-padded prompts, a model without verdict tokens, or custom prompts
                made with another tokenizer.
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
        return torch.tensor([ids], dtype=torch.long, device=self.input_device).expand(count, -1)

    def _left_padded(self, rows: Sequence[list[int]], count: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (rows, longest); a single row is repeated `count` times."""
        longest, filler = max(map(len, rows)), self._verdict_tokens["real"]  # any id but the picture's
        filled = [[filler] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        each = count if len(rows) == 1 else -1
        made = (torch.tensor(values, dtype=torch.long, device=self.input_device) for values in (filled, mask))
        ids, seen = (values.expand(each, -1) for values in made)
        return ids, seen

    def _own_score(self, count: int, picture: dict[str, Any], cache: Any) -> torch.Tensor:
        """Return raw logits (count, 2) for the config's prompt; only the score `"prefix"` fills `cache`."""
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
        """Return float logits (batch, vocabulary) after the last token; no other position is projected."""
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
        """Return raw logits (batch, 2) and the answers' ids (batch, new tokens)."""
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
        """Return the verdict prompt; refuse a processor of another model."""
        row = self._prompt_row()
        if processor.token_ids(self.config.verdict_prompt) != row:
            raise ValueError(
                "The processor does not belong to this model: it tokenises "
                f"{self.config.verdict_prompt!r} differently."
            )
        if processor.prompt_style != self.config.prompt_style:
            raise ValueError(
                f"The processor has prompt_style {processor.prompt_style!r}, but the model has "
                f"{self.config.prompt_style!r}; load both with the same one."
            )
        return row

    @torch.no_grad()
    def converse(self, processor: Any, pixel_values: torch.Tensor) -> Conversation:
        """Begin a conversation about one image; with `score="prefix"` the verdict does not need another prefill.

        Args:
            processor: the `FakeVLMProcessor` of this checkpoint.
            pixel_values: (1, 3, image_size, image_size), CLIP-normalised.

        Returns:
            A `Conversation`; its answers equal those of `explain` with the same question and history.

        Raises:
            ValueError: for more than one image, or if the processor's prompts do not belong to this model.
        """
        require_one_picture(pixel_values)
        row = self._checked_row(processor)
        image = self.config.image_token_index
        opening = row[: len(row) - row[::-1].index(image)]
        picture = {"mm_encoder_outputs": {"image": self.get_image_features(pixel_values, return_dict=True)}}
        cache = DynamicCache(config=self.config.get_text_config())
        logits = self._own_score(1, picture, cache)
        if cache.get_seq_length():
            cache.crop(len(opening) - cache.get_seq_length())  # negative: number of tokens to cut from the end
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
        question: str | Sequence[str | None] | None = None,
        threshold: float = 0.5,
        history: Histories | None = None,
        **generation: Any,
    ) -> DeepfakeExplanationOutput:
        """Return verdicts and explanations for a batch, encoding its images once.

        With `score="prefix"` the explanation continues from the verdict's prefill: the cache is cropped to the common
        part of both prompts, so the forced prefix does not influence the text.

        Args:
            processor: the `FakeVLMProcessor` of this checkpoint.
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            question: the question for every image, or a list with one per image; by default the question of the
                verdict.
            threshold: not used; FakeVLM's question does not name the verdict.
            history: earlier questions and answers, oldest first, for every image; or a list of such lists, one per
                image.
            generation: arguments of `generate`; by default greedy with up to 256 new tokens.

        Returns:
            `DeepfakeExplanationOutput`. The texts equal those of `generate` on the same prompts.

        Raises:
            ValueError: if the processor's prompts do not belong to this model; see also
                `conversation_turns.turns_per_picture`.
        """
        row = self._checked_row(processor)
        rows = [
            row if asked is None and not earlier else processor.token_ids(processor.explanation_prompt(asked, earlier))
            for asked, earlier in turns_per_picture(question, history, len(pixel_values))
        ]
        picture = {"mm_encoder_outputs": {"image": self.get_image_features(pixel_values, return_dict=True)}}
        options = {"pad_token_id": processor.tokenizer.pad_token_id, **GENERATION_DEFAULTS, **generation}
        cache = DynamicCache(config=self.config.get_text_config())
        logits = self._own_score(len(pixel_values), picture, cache)
        shared = 0
        if cache.get_seq_length():
            shared = common_prefix_length([self._prompts()[0].followed_by("prefix"), *rows])
        if rows[0][:shared].count(self.config.image_token_index) == self.config.num_image_tokens:
            cache.crop(shared - cache.get_seq_length())  # negative: so many tokens off the end
            if options["num_beams"] > 1:
                cache.batch_repeat_interleave(options["num_beams"])
            options |= cache_keyword(cache)
        else:  # no cache, or a question of its own before the image
            shared = 0
            options |= picture
        # Padding stands behind what is cached, whose keys keep their positions.
        tails, mask = self._left_padded([own[shared:] for own in rows])
        ids = torch.cat([self._rows(rows[0][:shared], len(rows)), tails], dim=1)
        mask = torch.cat([torch.ones_like(ids[:, :shared]), mask], dim=1)
        new_ids = self.generate(input_ids=ids, attention_mask=mask, **options)
        explanations = processor.decode_answers(new_ids[:, ids.shape[1] :])
        verdicts = [parse_fakevlm_verdict(text, self.config.verdict_rule) for text in explanations]
        return DeepfakeExplanationOutput(
            logits=self.calibrate(logits),
            explanations=explanations,
            explanation_verdicts=[None if verdict == UNDETERMINED else verdict for verdict in verdicts],
        )


def _rename_keys_like_llava() -> None:
    """Register the renaming of stock Llava keys, which a subclass does not inherit; or `lm_head` would be random.

    Registered by class name, because the released folder has the model_type `llava`; with `overwrite`, because the
    package and a copy of this file from the Hub may both register it. Not done at import, because transformers first
    compiles the patterns of all its models, which is slow.
    """
    register_checkpoint_conversion_mapping(
        FakeVLMForDeepfakeDetection.__name__, get_checkpoint_conversion_mapping("llava"), overwrite=True
    )


def _positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return position ids that skip padding."""
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
    """Return whether the source may have a tokenizer: a Hub id, or a local folder with tokenizer files."""
    path = Path(str(source))
    return not path.is_dir() or any((path / name).exists() for name in TOKENIZER_FILES)
