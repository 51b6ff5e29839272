"""AntifakePrompt: a frozen InstructBLIP is asked whether a photo is real, with one learned word in the question."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    InstructBlipForConditionalGeneration,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
)

from .configuration_antifakeprompt import AntifakePromptConfig
from .conversation_turns import turns_per_picture
from .detection import DeepfakeDetectionMixin, DeepfakeDetectionOutput, DeepfakeExplanationOutput, own_weights
from .generation_cache import candidate_nll, next_token_logits
from .heatmaps import patch_map
from .modeling_antifakeprompt_adapter import SoftWordAdapterMixin, SoftWordEmbedding
from .verdict_parsing import parse_verdict

__all__ = ["AntifakePromptForDeepfakeDetection"]

# The official `generate`.
GENERATION_DEFAULTS = {
    "do_sample": False,
    "num_beams": 5,
    "max_new_tokens": 256,
    "min_new_tokens": 1,
    "repetition_penalty": 1.5,
    "length_penalty": 1.0,
}
TEXT_INPUTS = ("qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")


class AntifakePromptForDeepfakeDetection(
    SoftWordAdapterMixin, DeepfakeDetectionMixin, InstructBlipForConditionalGeneration
):
    """Detector that compares the answers "yes" (real) and "no" (fake) in one pass, without generating text.

    Only the learned word belongs to the detector; everything else is InstructBLIP, with its own key names. `generate`
    and `explain` come from InstructBLIP as well: it was never trained to write about forgeries, so its text is not
    evidence. Only the verdict is.
    """

    can_explain = True
    can_heatmap = True
    subject = "picture"
    config: AntifakePromptConfig
    _keep_in_fp32_modules_strict = {"soft_word"}

    def __init__(self, config: AntifakePromptConfig) -> None:
        super().__init__(config)
        self.loss_type = "ForCausalLM"
        self.vision_model.post_layernorm.eps = config.ln_vision_eps
        if config.soft_word_sides in ("both", "qformer"):
            table = self.qformer.get_input_embeddings()
            self.qformer.set_input_embeddings(SoftWordEmbedding(table, config.qformer_soft_word_id))
        pad = config.llm_pad_token_id
        placeholders = [config.image_token_index, *([] if pad is None else [pad])]
        # Needed even without a learned word: the table must accept the placeholders.
        word = config.llm_soft_word_id if config.soft_word_sides in ("both", "llm") else None
        table = self.language_model.get_input_embeddings()
        self.language_model.set_input_embeddings(SoftWordEmbedding(table, word, placeholders))

    def soft_words(self) -> dict[str, nn.Parameter]:
        """Return the learned vectors by their names in the adapter file, each (1, width of its side)."""
        tables = {
            "qformer_soft_word": self.qformer.get_input_embeddings(),
            "llm_soft_word": self.language_model.get_input_embeddings(),
        }
        return {
            name: table.soft_word for name, table in tables.items() if getattr(table, "soft_word", None) is not None
        }

    def freeze_all_but_soft_words(self) -> None:
        """Freeze everything but the learned vectors, as in the official training."""
        self.requires_grad_(False)
        for word in self.soft_words().values():
            word.requires_grad_(True)

    def encode_pictures(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode (images, 3, size, size) to (images, patches + 1, vision width), independent of the question."""
        return self.vision_model(pixel_values=pixel_values).last_hidden_state

    def _prefix(
        self,
        pixel_values: torch.Tensor | None,
        image_embeds: torch.Tensor | None,
        text: dict[str, torch.Tensor | None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs of the language model, (batch, length, hidden), and their mask (batch, length)."""
        if (pixel_values is None) == (image_embeds is None):
            raise ValueError("Give exactly one of pixel_values and image_embeds.")
        if image_embeds is None:
            image_embeds = self.encode_pictures(pixel_values)
        text = self._text_or_prompt(text, image_embeds.shape[0])
        with own_weights(self):
            queries = self.query_tokens.expand(image_embeds.shape[0], -1, -1)
        seen = torch.ones(queries.shape[:2], dtype=torch.long, device=text["qformer_attention_mask"].device)
        states = self.qformer(
            input_ids=text["qformer_input_ids"],
            attention_mask=torch.cat([seen, text["qformer_attention_mask"]], dim=1),
            query_embeds=queries,
            encoder_hidden_states=image_embeds,
        ).last_hidden_state
        features = self.language_projection(states[:, : queries.shape[1]])
        embeds = self.language_model.get_input_embeddings()(text["input_ids"])
        places = (text["input_ids"] == self.config.image_token_index).unsqueeze(-1).to(embeds.device)
        return embeds.masked_scatter(places, features.to(embeds.device, embeds.dtype)), text["attention_mask"]

    def _text_or_prompt(self, text: dict[str, torch.Tensor | None], pictures: int) -> dict[str, torch.Tensor]:
        """Return complete text inputs: those given, or by default the checkpoint's own prompt for every image."""
        config = self.config
        ids, question = text.get("input_ids"), text.get("qformer_input_ids")
        if (ids is None) != (question is None):
            raise ValueError(
                "input_ids and qformer_input_ids belong together: pass both, or neither for the "
                "checkpoint's own prompt."
            )
        if ids is None:
            if config.llm_prompt_ids is None or config.qformer_prompt_ids is None:
                raise ValueError(
                    "The config does not have prompt ids, so images cannot be scored without text. Set the fields "
                    "from "
                    "AntifakePromptProcessor.prompt_fields(), or pass input_ids and qformer_input_ids."
                )
            lead = [config.image_token_index] * config.num_query_tokens
            ids = torch.tensor([[*lead, *config.llm_prompt_ids]], device=self.input_device).expand(pictures, -1)
            question = torch.tensor([config.qformer_prompt_ids], device=self.input_device).expand(pictures, -1)
        else:
            self._check_questions(ids, question, pictures)
        mask, question_mask = text.get("attention_mask"), text.get("qformer_attention_mask")
        return {
            "input_ids": ids,
            "qformer_input_ids": question,
            "attention_mask": torch.ones_like(ids) if mask is None else mask,
            "qformer_attention_mask": torch.ones_like(question) if question_mask is None else question_mask,
        }

    def _check_questions(self, ids: torch.Tensor, question: torch.Tensor, pictures: int) -> None:
        if not len(ids) == len(question) == pictures:
            raise ValueError(f"{len(ids)} questions but {pictures} pictures were given; each question is about one.")
        placeholders = (ids == self.config.image_token_index).sum(dim=-1)
        if (placeholders != self.config.num_query_tokens).any():
            raise ValueError(
                f"The questions hold {placeholders.tolist()} picture placeholders, but each needs "
                f"{self.config.num_query_tokens} (num_query_tokens)."
            )

    def forward(
        self,
        pixel_values: torch.Tensor,
        qformer_input_ids: torch.LongTensor | None = None,
        qformer_attention_mask: torch.LongTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run InstructBLIP's forward; the default question is the checkpoint's own prompt.

        Args:
            pixel_values: (batch, 3, size, size).
            qformer_input_ids, qformer_attention_mask, input_ids, attention_mask: text tensors from the processor.
            labels: (batch, length) token ids, -100 where not supervised; see the processor's `encode_answers`.

        Raises:
            ValueError: if questions, placeholders and images do not agree in number.
        """
        given = (qformer_input_ids, qformer_attention_mask, input_ids, attention_mask)
        text = self._text_or_prompt(dict(zip(TEXT_INPUTS, given, strict=True)), pixel_values.shape[0])
        return super().forward(pixel_values=pixel_values, labels=labels, **text, **kwargs)

    @torch.no_grad()
    def detect(self, pixel_values: torch.Tensor, **text: torch.Tensor) -> DeepfakeDetectionOutput:
        """Score a batch in one pass that computes only the last position's logits.

        Args:
            pixel_values: (batch, 3, size, size).
            text: `qformer_input_ids`, `qformer_attention_mask`, `input_ids`, `attention_mask`, to replace the
                checkpoint's own prompt.

        Returns:
            Logits before calibration: those of the two answers, or their summed log-likelihoods if either has several
            tokens. In both cases their difference is the official score.
        """
        return self._judge(*self._prefix(pixel_values, None, text))

    def heatmap(self, pixel_values: torch.Tensor) -> torch.FloatTensor:
        """Return the relevance of each patch for the verdict: gradient times activation after the vision tower.

        As in Grad-CAM, only evidence for the given verdict is kept. How much of the verdict the map explains is
        unknown.

        Args:
            pixel_values: (batch, 3, size, size).

        Returns:
            (batch, rows, columns) in [0, 1], with 1 for each image's most relevant patch.
        """
        states = self.encode_pictures(pixel_values).detach()
        with torch.enable_grad():
            states.requires_grad_(True)
            logits = self._judge(*self._prefix(None, states, {})).logits
            score = logits[:, 1] - logits[:, 0]
            towards = torch.where(score >= 0, score, -score).sum()
            (gradient,) = torch.autograd.grad(towards, states)
        relevance = (gradient * states.detach()).float().sum(dim=-1)[:, 1:].clamp(min=0)
        return patch_map(relevance, from_zero=True)

    def _judge(self, embeds: torch.Tensor, mask: torch.Tensor) -> DeepfakeDetectionOutput:
        candidates = self.config.candidate_ids
        if candidates is None:
            raise ValueError("The config does not have candidate_ids: see AntifakePromptProcessor.prompt_fields().")
        if all(len(ids) == 1 for ids in candidates):
            logits = next_token_logits(self.language_model, embeds, mask)[:, [ids[0] for ids in candidates]]
        else:
            logits = -candidate_nll(self.language_model, embeds, mask, [candidates])
        return DeepfakeDetectionOutput(logits=self.calibrate(logits))

    @torch.no_grad()
    def score_candidates(
        self, pixel_values: torch.Tensor, candidates: Sequence[Any], **text: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed negative log-likelihood of each answer; the official code chooses the smallest.

        Args:
            pixel_values, text: see `detect`.
            candidates: token ids of each answer, the same for all images or one such list per image.

        Returns:
            (batch, answers), float32. The official loss is this divided by the number of positions it averages over.

        Raises:
            ValueError: for an empty answer, or lists of different length.
        """
        shared = bool(candidates) and bool(candidates[0]) and isinstance(candidates[0][0], int)
        rows = [candidates] * len(pixel_values) if shared else candidates
        if len(rows) != len(pixel_values) or len({len(row) for row in rows}) != 1:
            raise ValueError(
                f"candidates has {len(rows)} lists for {len(pixel_values)} images; expected one list of answers for "
                "all, or one list per image, each with the same number of answers."
            )
        if not all(ids for row in rows for ids in row):
            raise ValueError("Every answer needs at least one token.")
        return candidate_nll(self.language_model, *self._prefix(pixel_values, None, text), rows)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        qformer_input_ids: torch.LongTensor | None = None,
        qformer_attention_mask: torch.LongTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        **generation: Any,
    ) -> torch.LongTensor:
        """Generate like InstructBLIP, but return only the new tokens.

        As in the official code, the repetition penalty applies only to generated tokens; InstructBLIP in transformers
        also penalises the words of the question.

        Args:
            pixel_values: (batch, 3, size, size).
            image_embeds: output of `encode_pictures`, used instead of the images.
            qformer_input_ids, qformer_attention_mask, input_ids, attention_mask: the question, left-padded.
            generation: arguments of `generate`.

        Returns:
            (batch, new tokens).
        """
        if hasattr(self, "hf_device_map"):
            self._preprocess_accelerate()
        given = (qformer_input_ids, qformer_attention_mask, input_ids, attention_mask)
        embeds, mask = self._prefix(pixel_values, image_embeds, dict(zip(TEXT_INPUTS, given, strict=True)))
        generation.setdefault("pad_token_id", self.config.llm_pad_token_id)
        settings = generation.get("generation_config") or self.language_model.generation_config
        penalty = generation.pop("repetition_penalty", settings.repetition_penalty)
        if penalty not in (None, 1.0):
            # Not passed as a setting: in padded rows transformers would exempt as many generated tokens as there is
            # padding.
            penalise = RepetitionPenaltyLogitsProcessor(penalty)
            generation["logits_processor"] = LogitsProcessorList([penalise, *generation.get("logits_processor", ())])
        generation["repetition_penalty"] = 1.0
        return self.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **generation)

    @torch.no_grad()
    def explain(
        self,
        processor: Any,
        pixel_values: torch.Tensor,
        question: str | Sequence[str | None] | None = None,
        threshold: float = 0.5,
        **generation: Any,
    ) -> DeepfakeExplanationOutput:
        """Return verdicts, and InstructBLIP's answers to a question, encoding the images once.

        The Q-Former also reads the question, so only the encoding can be shared.

        Args:
            processor: the `AntifakePromptProcessor` of this checkpoint.
            pixel_values: (batch, 3, size, size).
            question: the question for every image, or a list with one per image; by default the processor's own,
                which names the verdict.
            threshold: P(fake) at or above which that question calls the image fake.
            generation: arguments of `generate`; by default the official ones (five beams).

        Returns:
            `DeepfakeExplanationOutput`. The texts equal those of `generate` on the same questions.

        Raises:
            ValueError: if there are more or fewer questions than pictures.
        """
        questions = [asked for asked, _ in turns_per_picture(question, None, len(pixel_values))]
        image_embeds = self.encode_pictures(pixel_values)
        detection = self._judge(*self._prefix(None, image_embeds, {}))
        names = [self.config.id2label[int(fake)] for fake in detection.fake_probability >= threshold]
        text = processor.tokenize(
            [processor.explanation_prompt(asked, verdict=name) for asked, name in zip(questions, names, strict=True)]
        )
        new_ids = self.generate(
            image_embeds=image_embeds, **text.to(self.input_device), **{**GENERATION_DEFAULTS, **generation}
        )
        explanations = processor.decode_answers(new_ids)
        return DeepfakeExplanationOutput(
            logits=detection.logits,
            explanations=explanations,
            explanation_verdicts=[parse_verdict(text, "word") for text in explanations],
        )
