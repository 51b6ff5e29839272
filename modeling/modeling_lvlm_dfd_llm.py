"""LVLM-DFD with its language model: the detector's findings become a prompt, and Vicuna explains them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Cache, DynamicCache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from .configuration_lvlm_dfd import LvlmDfdConfig
from .conversation import Conversation, require_one_picture
from .conversation_turns import Histories, History, turns_per_picture
from .detection import DeepfakeExplanationOutput
from .generation_cache import cache_keyword, cache_of, one_cache, roomy_cache
from .modeling_lvlm_dfd import LvlmDfdDetector, LvlmDfdEvidence, LvlmDfdPreTrainedModel
from .modeling_lvlm_dfd_heads import LvlmDfdPromptLearner
from .verdict_parsing import parse_answer

__all__ = [
    "GENERATION_DEFAULTS",
    "OFFICIAL_SAMPLING",
    "LvlmDfdCausalLMOutput",
    "LvlmDfdForConditionalGeneration",
    "LvlmDfdPictures",
]

IGNORED = -100
GENERATION_DEFAULTS = {"do_sample": False, "num_beams": 1, "max_new_tokens": 512}
# Settings of the released script, nearly greedy. Use as `generate(..., **OFFICIAL_SAMPLING)` after
# `torch.manual_seed(42)`.
OFFICIAL_SAMPLING = {"do_sample": True, "top_p": 0.1, "top_k": 50, "temperature": 1.0, "max_new_tokens": 512}


@dataclass
class LvlmDfdPictures(ModelOutput):
    """
    Args:
        evidence (`LvlmDfdEvidence`): output of the detector.
        image_tokens (`torch.FloatTensor` of shape `(images, 1, hidden)`): the images for the language model.
        prompt_tokens (`torch.FloatTensor` of shape `(images, num_prompt_tokens, hidden)`): the forgery prompts.
        score_tokens (`torch.FloatTensor` of shape `(images, 1 or 2, hidden)`): see `prob_token_mode`.
    """

    evidence: LvlmDfdEvidence | None = None
    image_tokens: torch.FloatTensor | None = None
    prompt_tokens: torch.FloatTensor | None = None
    score_tokens: torch.FloatTensor | None = None


@dataclass
class LvlmDfdCausalLMOutput(CausalLMOutputWithPast):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): weighted sum of the losses below.
        logits (`torch.FloatTensor` of shape `(batch, length, vocabulary)`): for the whole prompt, see `assemble`.
        cache (`Cache`, *optional*): keys and values of the tokens so far; `past_key_values` before transformers 5.24.
        hidden_states, attentions: of the language model, if requested.
        class_logits (`torch.FloatTensor` of shape `(batch, 2)`, *optional*): log-probabilities, real and fake.
        mask (`torch.FloatTensor` of shape `(batch, image_size, image_size)`, *optional*): manipulated area in [0, 1].
        lm_loss, class_loss, focal_loss, dice_loss (`torch.FloatTensor` of shape `()`, *optional*): not weighted.
    """

    class_logits: torch.FloatTensor | None = None
    mask: torch.FloatTensor | None = None
    lm_loss: torch.FloatTensor | None = None
    class_loss: torch.FloatTensor | None = None
    focal_loss: torch.FloatTensor | None = None
    dice_loss: torch.FloatTensor | None = None


class LvlmDfdForConditionalGeneration(LvlmDfdPreTrainedModel, GenerationMixin):
    """Verdict and mask from the detector and text from the language model, with one pass of the image trunk."""

    can_explain = True
    can_converse = True
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _no_split_modules = [*LvlmDfdPreTrainedModel._no_split_modules, "LlamaDecoderLayer"]

    def __init__(self, config: LvlmDfdConfig) -> None:
        if config.text_config is None:
            raise ValueError(
                "This config has no text_config and therefore no language model: use LvlmDfdForDeepfakeDetection."
            )
        super().__init__(config)
        self.detector = LvlmDfdDetector(config)
        self.prompt_learner = LvlmDfdPromptLearner(config)
        self.image_projection = nn.Linear(config.imagebind_config.projection_dim, config.text_config.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def encode_pictures(self, pixel_values: torch.Tensor) -> LvlmDfdPictures:
        """Return everything the language model needs about a batch (images, 3, image_size, image_size)."""
        evidence = self.detector(pixel_values)
        probabilities = evidence.probabilities
        hidden = self.config.text_config.hidden_size
        if self.config.prob_token_mode == "interleaved":
            scores = probabilities.repeat(1, hidden // probabilities.shape[1] + 1)[:, None, :hidden]
        else:
            scores = probabilities.unsqueeze(-1).expand(-1, -1, hidden)
        fake_mask = evidence.mask_logits.softmax(dim=1)[:, 1:]
        embeds = self.detector.imagebind.embed_picture_vector(evidence.pooler_output)
        return LvlmDfdPictures(
            evidence=evidence,
            image_tokens=self.image_projection(embeds).unsqueeze(1),
            prompt_tokens=self.prompt_learner(list(evidence.maps), fake_mask, probabilities),
            score_tokens=scores,
        )

    def assemble(
        self,
        pictures: LvlmDfdPictures,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None,
        prompt_start_ids: torch.LongTensor,
        score_prompt_ids: torch.LongTensor,
        labels: torch.LongTensor | None = None,
        padding_side: str = "left",
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Assemble the inputs, one row per image: opening, image, score sentence, forgery prompts, score tokens, text.

        Args:
            pictures: output of `encode_pictures`.
            input_ids, attention_mask: (images, length), the text after the image.
            prompt_start_ids: (opening,), the begin token and the text before the image.
            score_prompt_ids: (101, longest), the sentence for each percentage, padded with -1.
            labels: (images, length), -100 where not supervised.
            padding_side: `"left"` to generate, `"right"` to train.

        Returns:
            Embeddings (images, total, hidden), padded with zeros; mask and labels (images, total).

        Raises:
            ValueError: if the numbers of texts and images differ; the message has both.
        """
        count = len(pictures.image_tokens)
        if len(input_ids) != count:
            raise ValueError(f"{len(input_ids)} texts were given for {count} images; pass one text per image.")
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        labels = torch.full_like(input_ids, IGNORED) if labels is None else labels
        # Truncated, not rounded, as the official sentence is.
        percents = (100 * pictures.evidence.probabilities[:, 1].float()).long().clamp(0, 100)
        sentences = [row[row >= 0] for row in score_prompt_ids.to(input_ids.device)[percents.to(input_ids.device)]]
        if self.config.legacy_truncate_middle:
            shortest = min(len(sentence) for sentence in sentences)
            sentences = [sentence[:shortest] for sentence in sentences]
        embed = self.get_input_embeddings()
        opening = embed(prompt_start_ids.to(input_ids.device))
        rows, row_labels = [], []
        for index, sentence in enumerate(sentences):
            text = attention_mask[index].bool()
            parts = [
                opening,
                pictures.image_tokens[index],
                embed(sentence),
                pictures.prompt_tokens[index],
                pictures.score_tokens[index],
            ]
            prefix = sum(len(part) for part in parts)
            rows.append(torch.cat([*(part.to(opening.dtype) for part in parts), embed(input_ids[index][text])]))
            row_labels.append(torch.cat([labels.new_full((prefix,), IGNORED), labels[index][text]]))
        masks = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
        return (
            nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=padding_side),
            nn.utils.rnn.pad_sequence(masks, batch_first=True, padding_side=padding_side),
            nn.utils.rnn.pad_sequence(row_labels, True, IGNORED, padding_side),
        )

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_start_ids: torch.LongTensor | None = None,
        score_prompt_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        class_labels: torch.Tensor | None = None,
        mask_labels: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> LvlmDfdCausalLMOutput:
        """Run the whole system with `pixel_values`, or the language model alone without, as `generate` needs it.

        Arguments that are not described here are those of every decoder of transformers.

        Args:
            input_ids, attention_mask, prompt_start_ids, score_prompt_ids: see `assemble`; right-padded.
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            labels: (batch, length) token ids of `input_ids`, -100 where not supervised.
            class_labels: (batch,) int64, 0 = real, 1 = fake.
            mask_labels: (batch, image_size, image_size) float, manipulated share in [0, 1].
            cache, past_key_values: keys and values of the tokens so far, under either name.

        Raises:
            ValueError: if images come without text, or class and mask labels without images.
        """
        evidence, losses = None, {}
        if pixel_values is not None:
            _require_text(input_ids, prompt_start_ids, score_prompt_ids)
            pictures = self.encode_pictures(pixel_values)
            evidence = pictures.evidence
            losses = self.detector.losses(evidence, class_labels, mask_labels)
            inputs_embeds, attention_mask, labels_of_all = self.assemble(
                pictures, input_ids, attention_mask, prompt_start_ids, score_prompt_ids, labels, padding_side="right"
            )
            input_ids = None
            labels = None if labels is None else labels_of_all
        elif class_labels is not None or mask_labels is not None:
            raise ValueError("class_labels and mask_labels need pixel_values.")
        output = self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            **cache_keyword(one_cache(cache, past_key_values)),
            **kwargs,
        )
        if output.loss is not None:
            losses = {"lm_loss": output.loss, **losses}
        return LvlmDfdCausalLMOutput(
            loss=self.detector.weighted(losses),
            logits=output.logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            class_logits=None if evidence is None else evidence.logits,
            mask=None if evidence is None else evidence.mask,
            **cache_keyword(cache_of(output)),
            **losses,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_start_ids: torch.LongTensor | None = None,
        score_prompt_ids: torch.LongTensor | None = None,
        pictures: LvlmDfdPictures | None = None,
        **generation: Any,
    ) -> Any:
        """Answer one text per image; each row stops separately, at the end token or at `stop_token_id`.

        Args:
            input_ids, attention_mask, prompt_start_ids, score_prompt_ids: see `assemble`.
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            pictures: output of `encode_pictures`, used instead of `pixel_values`.
            generation: arguments of transformers' `generate`, such as `OFFICIAL_SAMPLING`; the defaults are in the
                folder's generation config (converted folders: greedy, 512 new tokens).

        Returns:
            New ids only, (batch, new tokens), right-padded; or a dict with `return_dict_in_generate`.

        Raises:
            ValueError: if images or text are missing, or differ in number.
        """
        if (pixel_values is None) == (pictures is None):
            raise ValueError("generate needs exactly one of pixel_values and pictures.")
        _require_text(input_ids, prompt_start_ids, score_prompt_ids)
        pictures = self.encode_pictures(pixel_values) if pictures is None else pictures
        embeds, mask, _ = self.assemble(pictures, input_ids, attention_mask, prompt_start_ids, score_prompt_ids)
        if ends := self._end_token_ids(generation):
            generation = {"pad_token_id": ends[0], **generation, "eos_token_id": ends}
        return super().generate(
            inputs_embeds=embeds, attention_mask=mask, **{**self._cache_for(generation), **generation}
        )

    def _cache_for(self, generation: dict[str, Any]) -> dict[str, Any]:
        """Return a cache that grows cheaply, unless the call or its settings choose another, or none."""
        settings = generation.get("generation_config") or self.generation_config
        chosen = {"past_key_values", "cache", "cache_implementation", "use_cache"} & set(generation)
        if chosen or settings.use_cache is False or settings.cache_implementation is not None:
            return {}
        return cache_keyword(roomy_cache(self.config.get_text_config()))

    def _end_token_ids(self, generation: dict[str, Any]) -> list[int]:
        """Return the requested end tokens and the one that the official code stops at."""
        settings = generation.get("generation_config") or self.generation_config
        candidates = (generation.get("eos_token_id"), settings.eos_token_id, self.config.text_config.eos_token_id)
        found: int | list[int] = next((ids for ids in candidates if ids is not None), [])
        ends: list[int] = [found] if isinstance(found, int) else list(found)
        stop = self.config.stop_token_id
        return ends if stop is None or stop in ends else [*ends, stop]

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
        """Return verdicts, masks and explanations for a batch, encoding its images once.

        Args:
            processor: the `LvlmDfdProcessor` of this checkpoint.
            pixel_values: (batch, 3, image_size, image_size), CLIP-normalised.
            question: asked of every picture, or a list with one per picture; the published one by default.
            threshold: not used; the prompt contains the score itself instead of a verdict.
            history: earlier questions and answers, oldest first, for every image; or a list of such lists, one per
                image.
            generation: arguments of `generate`; by default greedy with up to 512 new tokens.

        Returns:
            `DeepfakeExplanationOutput` with `mask`. The texts equal those of `generate` on the same inputs.

        Raises:
            ValueError: see `conversation_turns.turns_per_picture`.
        """
        turns = turns_per_picture(question, history, len(pixel_values))
        pictures = self.encode_pictures(pixel_values)
        text = processor.tokenize([processor.dialogue_prompt(*turn) for turn in turns]).to(self.input_device)
        answers = processor.decode_answers(
            self.generate(**text, pictures=pictures, **{**GENERATION_DEFAULTS, **generation})
        )
        detection = self._detection(pictures.evidence)
        return DeepfakeExplanationOutput(
            logits=detection.logits,
            mask=detection.mask,
            explanations=answers,
            explanation_verdicts=[parse_answer(answer, self.config.verdict_mode) for answer in answers],
        )

    @torch.no_grad()
    def converse(self, processor: Any, pixel_values: torch.Tensor) -> Conversation:
        """Start a conversation about one image.

        Args:
            processor: the `LvlmDfdProcessor` of this checkpoint.
            pixel_values: (1, 3, image_size, image_size), CLIP-normalised.

        Returns:
            A `Conversation`, whose verdict has a `mask`; its answers equal those of `explain` with the same question
            and history.

        Raises:
            ValueError: for more than one image.
        """
        require_one_picture(pixel_values)
        pictures = self.encode_pictures(pixel_values)
        text = processor.tokenize([""]).to(self.input_device)
        nothing = torch.empty(1, 0, dtype=torch.long, device=self.input_device)
        embeds, _, _ = self.assemble(pictures, nothing, None, text["prompt_start_ids"], text["score_prompt_ids"])
        cache = DynamicCache(config=self.config.get_text_config())
        self.language_model.get_decoder()(inputs_embeds=embeds, use_cache=True, **cache_keyword(cache))
        # The part before the text has no ids. It is in the cache, so these ids are never looked up.
        opening = [processor.tokenizer.eos_token_id] * embeds.shape[1]

        def prompt_ids(question: str, history: History) -> list[int]:
            return [*opening, *processor.token_ids(processor.dialogue_prompt(question, history))]

        settings = {**GENERATION_DEFAULTS, "eos_token_id": self._end_token_ids({})}
        return Conversation(
            self,
            processor,
            self._detection(pictures.evidence),
            opening,
            cache,
            prompt_ids,
            settings,
            super().generate,
        )


def _require_text(*inputs: torch.Tensor | None) -> None:
    if any(each is None for each in inputs):
        raise ValueError(
            "Images need input_ids, prompt_start_ids and score_prompt_ids; call the processor with text=... to get "
            "them."
        )
