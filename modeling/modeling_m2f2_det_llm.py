"""M2F2-Det with its language model: the cosine detector passes its findings to LLaVA, which explains them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache, CLIPVisionModel, DynamicCache, GenerationMixin
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from .configuration_m2f2_det import M2F2DetConfig
from .conversation import Conversation, require_one_picture
from .conversation_turns import Histories, History, turns_per_picture
from .detection import DeepfakeExplanationOutput
from .generation_cache import cache_keyword, cache_of, generate_from_shared_prefix, one_cache
from .modeling_m2f2_det import (
    M2F2DetDetectionOutput,
    M2F2Detector,
    M2F2DetOutput,
    M2F2DetPreTrainedModel,
    run_vision_tower,
)
from .verdict_parsing import parse_verdict

__all__ = ["M2F2DetCausalLMOutput", "M2F2DetForConditionalGeneration", "M2F2DetModel"]

DEEPFAKE_PROJECTOR_STD = 0.1  # initial value in the official stage 2
PICTURE_INPUTS = ("pixel_values", "detector_pixel_values", "image_embeds", "detector_logits", "class_labels")


@dataclass
class M2F2DetModelOutput(BaseModelOutputWithPast):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, length, hidden)`): aligned with `input_ids`.
        detector_logits (`torch.FloatTensor` of shape `(images, 2)`, *optional*): raw, `[real, fake]`.
    """

    detector_logits: torch.FloatTensor | None = None


@dataclass
class M2F2DetCausalLMOutput(CausalLMOutputWithPast):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): next-token cross-entropy over the supervised tokens.
        logits (`torch.FloatTensor` of shape `(batch, length, vocabulary)`): the two placeholders are excluded.
        cache (`Cache`, *optional*): keys and values of the tokens so far; `past_key_values` before transformers 5.24.
        hidden_states, attentions: of the language model, if requested.
        detector_logits (`torch.FloatTensor` of shape `(images, 2)`, *optional*): raw, `[real, fake]`.
    """

    detector_logits: torch.FloatTensor | None = None


class M2F2DetDeepfakeProjector(nn.Module):
    """Projects the detector's two probabilities to one token of the language model."""

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(len(config.id2label), width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(width, width)

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Project (images, 2), in the order real, fake, to (images, hidden)."""
        return self.linear_2(self.act(self.linear_1(probabilities)))


class M2F2DetLanguagePreTrainedModel(M2F2DetPreTrainedModel):
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _no_split_modules = [*M2F2DetPreTrainedModel._no_split_modules, "LlamaDecoderLayer"]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, M2F2DetDeepfakeProjector):
            init.normal_(module.linear_1.weight, std=DEEPFAKE_PROJECTOR_STD)
            init.normal_(module.linear_2.weight, std=DEEPFAKE_PROJECTOR_STD)


class M2F2DetModel(M2F2DetLanguagePreTrainedModel):
    """Backbone without `lm_head`: one CLIP tower serves both detector and language model."""

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__(config)
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.detector = M2F2Detector(config)
        self.multi_modal_projector = LlavaMultiModalProjector(config)
        self.deepfake_projector = M2F2DetDeepfakeProjector(config)
        self.language_model = AutoModel.from_config(config.text_config, trust_remote_code=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def encode_pictures(
        self, pixel_values: torch.Tensor, detector_pixel_values: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, M2F2DetOutput]:
        """Run the tower once for both halves.

        Args:
            pixel_values: (images, 3, image_size, image_size), CLIP-normalised, for the tower.
            detector_pixel_values: the same images for the CNN, if they differ (padded instead of cropped).

        Returns:
            (images, patches, hidden) for the language model, and the detector's raw output.
        """
        index = self.config.vision_feature_index
        if self.config.vision_pixel_dtype == "float16":
            tower_pixels = pixel_values.to(torch.float16).to(pixel_values.dtype)
        else:
            tower_pixels = pixel_values
        states = run_vision_tower(self.vision_tower, tower_pixels, self.detector.vision_layers)
        output = self.detector(pixel_values if detector_pixel_values is None else detector_pixel_values, states)
        return self.multi_modal_projector(states[index][:, 1:]), output

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        detector_pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        detector_logits: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> M2F2DetModelOutput:
        """
        Args:
            input_ids: (batch, length) with `image_token_id` once per patch and `deepfake_token_id` once per image.
            pixel_values, detector_pixel_values: see `encode_pictures`; images in the order of their placeholders.
            image_embeds, detector_logits: output of `encode_pictures`, used instead of the images.
            class_labels: (images,) 0 = real, 1 = fake; used in training if `conditional_deepfake_prob` is set.
            cache, past_key_values: keys and values of the tokens so far, under either name.
            The other arguments are those of all transformers decoders.

        Raises:
            ValueError: if the numbers of placeholders and images differ; the message has both.
        """
        cache = one_cache(cache, past_key_values)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if pixel_values is not None:
            image_embeds, output = self.encode_pictures(pixel_values, detector_pixel_values)
            detector_logits = output.logits
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        elif image_embeds is not None:
            raise ValueError("Images need input_ids, because placeholders are found by id.")
        if image_embeds is not None:
            probabilities = self._token_probabilities(detector_logits, class_labels)
            tokens = self.deepfake_projector(probabilities.to(self.deepfake_projector.linear_1.weight.dtype))
            inputs_embeds = self._place(inputs_embeds, input_ids, self.config.image_token_id, image_embeds, "image")
            inputs_embeds = self._place(
                inputs_embeds, input_ids, self.config.deepfake_token_id, tokens[:, None], "deepfake"
            )
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **cache_keyword(cache),
            **kwargs,
        )
        return M2F2DetModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            **cache_keyword(cache_of(outputs)),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            detector_logits=detector_logits,
        )

    def _token_probabilities(self, logits: torch.Tensor, class_labels: torch.Tensor | None) -> torch.Tensor:
        # Not calibrated: the projector was trained on the detector's own probabilities.
        probabilities = logits.softmax(dim=-1)
        share = self.config.conditional_deepfake_prob
        if not self.training or class_labels is None or share == 0.0:
            return probabilities
        fake = 0.5 * torch.rand_like(probabilities[:, 0]) + 0.5 * class_labels
        chosen = torch.rand_like(fake) < share
        return torch.where(chosen[:, None], torch.stack([1 - fake, fake], dim=-1), probabilities)

    @staticmethod
    def _place(
        inputs_embeds: torch.Tensor, input_ids: torch.Tensor, token_id: int, features: torch.Tensor, what: str
    ) -> torch.Tensor:
        """Replace the embeddings of `token_id` by `features` (images, tokens, hidden)."""
        places = input_ids == token_id
        found, needed = int(places.sum()), features.shape[0] * features.shape[1]
        if found != needed:
            raise ValueError(
                f"The prompts contain {found} {what} placeholder tokens, but {features.shape[0]} images need {needed} "
                f"({features.shape[1]} each)."
            )
        return inputs_embeds.masked_scatter(places.unsqueeze(-1), features.to(inputs_embeds.dtype))


class M2F2DetForConditionalGeneration(M2F2DetLanguagePreTrainedModel, GenerationMixin):
    """Verdict from the detector and text from the language model, with one pass of the CLIP tower."""

    can_explain = True
    can_converse = True
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: M2F2DetConfig) -> None:
        if config.text_config is None:
            raise ValueError(
                "This config has no text_config and therefore no language model: use M2F2DetForDeepfakeDetection."
            )
        super().__init__(config)
        self.model = M2F2DetModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        detector_pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        detector_logits: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> M2F2DetCausalLMOutput:
        """Predict tokens; arguments that are not described here are those of `M2F2DetModel.forward`.

        Args:
            labels: (batch, length) token ids, -100 where not supervised; placeholders are never supervised.
            logits_to_keep: as in transformers: compute logits only for this many last positions.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            detector_pixel_values=detector_pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            image_embeds=image_embeds,
            detector_logits=detector_logits,
            class_labels=class_labels,
            cache=one_cache(cache, past_key_values),
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        # Rows that only transformers needs: the official vocabulary does not have them, so they must not get
        # probability.
        placeholders = torch.tensor([self.config.image_token_id, self.config.deepfake_token_id], device=logits.device)
        logits = logits.index_fill(-1, placeholders, torch.finfo(logits.dtype).min)
        loss = None
        if labels is not None:
            # Trainers for whole texts copy input_ids as labels; placeholders must not be learned.
            labels = labels.masked_fill(torch.isin(labels, placeholders), -100)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return M2F2DetCausalLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            detector_logits=outputs.detector_logits,
            **cache_keyword(cache_of(outputs)),
        )

    def prepare_inputs_for_generation(
        self, input_ids: torch.LongTensor, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs = {name: value for name, value in inputs.items() if name not in PICTURE_INPUTS}
        return inputs

    @torch.no_grad()
    def detect(
        self, pixel_values: torch.Tensor, detector_pixel_values: torch.Tensor | None = None
    ) -> M2F2DetDetectionOutput:
        """Score a batch with the detector only, without running the language model.

        Args:
            pixel_values, detector_pixel_values: see `M2F2DetModel.encode_pictures`.
        """
        return self._detection(self.model.encode_pictures(pixel_values, detector_pixel_values)[1])

    def _detection(self, output: M2F2DetOutput) -> M2F2DetDetectionOutput:
        return M2F2DetDetectionOutput(logits=self.calibrate(output.logits), patch_scores=output.patch_scores)

    @torch.no_grad()
    def explain(
        self,
        processor: Any,
        pixel_values: torch.Tensor,
        detector_pixel_values: torch.Tensor | None = None,
        question: str | Sequence[str | None] | None = None,
        threshold: float = 0.5,
        history: Histories | None = None,
        **generation: Any,
    ) -> DeepfakeExplanationOutput:
        """Return verdicts and explanations for a batch, encoding its images once.

        Args:
            processor: the `M2F2DetProcessor` of this checkpoint.
            pixel_values, detector_pixel_values: see `M2F2DetModel.encode_pictures`.
            question: the question for every image, or a list with one per image; by default the processor's own,
                which names the detector's verdict.
            threshold: P(fake) at or above which that question calls the image fake.
            history: earlier questions and answers, oldest first, for every image; or a list of such lists, one per
                image.
            generation: arguments of `generate`; by default greedy with up to 512 new tokens.

        Returns:
            `DeepfakeExplanationOutput`. The texts equal those of `generate` on the same prompts.

        Raises:
            ValueError: see `conversation_turns.turns_per_picture`, or for a marker in a text.
        """
        turns = turns_per_picture(question, history, len(pixel_values))
        image_embeds, output = self.model.encode_pictures(pixel_values, detector_pixel_values)
        detection = self._detection(output)
        names = [self.config.id2label[int(fake)] for fake in detection.fake_probability >= threshold]
        prompts = [
            processor.explanation_prompt(asked, name, earlier)
            for (asked, earlier), name in zip(turns, names, strict=True)
        ]
        text = processor.tokenize(prompts).to(self.input_device)
        new_ids = self.generate(
            **text, image_embeds=image_embeds, detector_logits=output.logits, **{**GENERATION_DEFAULTS, **generation}
        )[:, text["input_ids"].shape[1] :]
        explanations = processor.decode_answers(new_ids)
        return DeepfakeExplanationOutput(
            logits=detection.logits,
            explanations=explanations,
            explanation_verdicts=[parse_verdict(text, "word") for text in explanations],
        )

    @torch.no_grad()
    def converse(
        self, processor: Any, pixel_values: torch.Tensor, detector_pixel_values: torch.Tensor | None = None
    ) -> Conversation:
        """Start a conversation about one image.

        Args:
            processor: the `M2F2DetProcessor` of this checkpoint.
            pixel_values, detector_pixel_values: (1, 3, image_size, image_size).

        Returns:
            A `Conversation`; its answers equal those of `explain` with the same question and history.

        Raises:
            ValueError: for more than one image.
        """
        require_one_picture(pixel_values)
        image_embeds, output = self.model.encode_pictures(pixel_values, detector_pixel_values)
        ids = processor.token_ids(processor.explanation_prompt(""))
        opening = ids[: ids.index(self.config.deepfake_token_id) + 1]
        cache = DynamicCache(config=self.config.get_text_config())
        self.model(
            input_ids=torch.tensor([opening], device=self.input_device),
            image_embeds=image_embeds,
            detector_logits=output.logits,
            use_cache=True,
            **cache_keyword(cache),
        )

        def prompt_ids(question: str, history: History) -> list[int]:
            return processor.token_ids(processor.explanation_prompt(question, history=history))

        return Conversation(self, processor, self._detection(output), opening, cache, prompt_ids, GENERATION_DEFAULTS)

    def answer_questions(
        self, processor: Any, questions: Sequence[str], pixel_values: torch.Tensor, **options: Any
    ) -> list[str]:
        """Answer several questions about one image; `answer_prompts` does the same for complete prompts.

        Args:
            processor: the `M2F2DetProcessor` of this checkpoint.
            questions: at least one question, without markers.
            pixel_values: (1, 3, image_size, image_size).
            options: the other arguments of `answer_prompts`.
        """
        prompts = [processor.explanation_prompt(question) for question in questions]
        return self.answer_prompts(processor, prompts, pixel_values, **options)

    @torch.no_grad()
    def answer_prompts(
        self,
        processor: Any,
        prompts: Sequence[str],
        pixel_values: torch.Tensor,
        detector_pixel_values: torch.Tensor | None = None,
        skip_special_tokens: bool = True,
        **generation: Any,
    ) -> list[str]:
        """Answer several prompts about one image; their common part is encoded and prefilled once.

        Args:
            processor: the `M2F2DetProcessor` of this checkpoint.
            prompts: at least one prompt, each with one `<image>` and one `<deepfake>` in the same place.
            pixel_values, detector_pixel_values: (1, 3, image_size, image_size).
            skip_special_tokens: `False` keeps `<s>` and `</s>`, as the official prediction files have them.
            generation: arguments of `generate`; by default greedy with up to 512 new tokens.

        Returns:
            One answer per prompt, equal to the answer without sharing.

        Raises:
            ValueError: without prompts, for more than one image, or for prompts that differ before the end of the
                image.
        """
        if len(pixel_values) != 1:
            raise ValueError(f"Questions with a shared prefill must be about one image, got {len(pixel_values)}.")
        if not prompts:
            raise ValueError("Pass at least one question.")
        image_embeds, output = self.model.encode_pictures(pixel_values, detector_pixel_values)
        new_ids = generate_from_shared_prefix(
            self,
            [processor.token_ids(prompt) for prompt in prompts],
            {"image_embeds": image_embeds, "detector_logits": output.logits},
            pad_token_id=processor.tokenizer.pad_token_id,
            **{**GENERATION_DEFAULTS, **generation},
        )
        return processor.decode_answers(new_ids, skip_special_tokens)


# Official command line: greedy, one beam, at most 512 new tokens, with a cache.
GENERATION_DEFAULTS = {"do_sample": False, "num_beams": 1, "max_new_tokens": 512, "use_cache": True}
