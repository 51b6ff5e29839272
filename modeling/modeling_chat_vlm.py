"""Any vision-language chat model as a detector, by comparing the probabilities of its answers to one question."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import CONFIG_NAME

from .candidate_scoring import candidate_log_probabilities, class_log_probabilities
from .configuration_chat_vlm import CLASSES, ChatVlmConfig, is_chat_model
from .conversation import Conversation, require_one_picture
from .conversation_turns import Histories, History, turns_per_picture
from .detection import (
    HUB_ARGUMENTS,
    DeepfakeDetectionMixin,
    DeepfakeDetectionOutput,
    DeepfakeExplanationOutput,
    refuse_foreign_checkpoint,
    refuse_official_files,
    require_complete,
)
from .generation_cache import cache_keyword
from .processing_chat_vlm import ChatVlmProcessor, behind_last
from .prompting_chat_vlm import answer_tokens
from .verdict_parsing import parse_verdict

__all__ = ["ChatVlmForDeepfakeDetection"]

GENERATION_DEFAULTS = {"do_sample": False, "num_beams": 1, "max_new_tokens": 256}
# A single forward pass of `generate`, which handles the positions and masks of each architecture.
ONE_STEP = {"do_sample": False, "num_beams": 1, "max_new_tokens": 1, "min_new_tokens": 0}
WRAPPED = "vlm."


class ChatVlmForDeepfakeDetection(DeepfakeDetectionMixin, PreTrainedModel):
    """
    An adapter around the stock class of a chat model; it loads and saves stock folders.

    Args:
        config: `ChatVlmConfig`.
        vlm: a loaded chat model; `None` creates one with random weights.
    """

    can_explain = True
    can_converse = True
    subject = "picture"
    config: ChatVlmConfig
    base_model_prefix = "vlm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: ChatVlmConfig, vlm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if vlm is None:
            self.vlm = AutoModelForImageTextToText.from_config(config.vlm_config, trust_remote_code=False)
            self.post_init()
        else:
            self.vlm = vlm
            with init.no_init_weights():  # its weights are loaded already
                self.post_init()
        config.vlm_config = self.vlm.config
        self._no_split_modules = self.vlm._no_split_modules

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a folder of this family, or any stock folder or Hub id of a chat model.

        Args:
            pretrained_model_name_or_path: folder or Hub id. model_args: not used. kwargs: arguments of
                `AutoModelForImageTextToText.from_pretrained`, and fields of `ChatVlmConfig`.

        Raises:
            UnconvertedCheckpointError: for official files that must be converted.
            ValueError: if the folder does not have a complete chat model for images with a chat template, or if its
                tokenizer cannot tell the answers apart.
        """
        source = pretrained_model_name_or_path
        refuse_official_files(cls.config_class.model_type, source)
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        config = cls._config_for(source, kwargs, hub_kwargs)
        return_info = kwargs.pop("output_loading_info", False)
        # Never passed on, even if allowed for this class: the stock model does not need code from the folder.
        kwargs |= {"trust_remote_code": False, "config": config.vlm_config, "output_loading_info": True}
        for name in ("code_revision", "_from_auto", "_from_pipeline", "adapter_kwargs"):
            kwargs.pop(name, None)
        vlm, info = AutoModelForImageTextToText.from_pretrained(source, **kwargs)
        require_complete(cls, source, info)
        model = cls(config, vlm).eval()
        config._name_or_path = model.name_or_path = str(source)  # recorded as the base when an adapter is saved
        if model.lacks_answer_tokens:
            asked = {"question": config.question, "answers": config.answers, "system_prompt": config.system_prompt}
            model.set_answers(ChatVlmProcessor.from_pretrained(source, **asked, **hub_kwargs))
        return (model, info) if return_info else model

    @classmethod
    def config_of_stock(cls, source: Any, **hub_kwargs: Any) -> ChatVlmConfig:
        """Return the config that `from_pretrained` uses for a folder or Hub id."""
        return cls._config_for(source, {}, hub_kwargs)

    def adopt_processor(self, processor: Any) -> ChatVlmProcessor:
        """Return a `ChatVlmProcessor` around a stock processor, with this model's question and answers."""
        # Compared by name, because remote code from the Hub makes this class another object.
        if type(processor).__name__ == ChatVlmProcessor.__name__:
            return processor
        config = self.config
        return ChatVlmProcessor(
            processor, config.question, config.answers, config.system_prompt, config.explanation_question
        )

    @classmethod
    def _config_for(cls, source: Any, kwargs: dict[str, Any], hub_kwargs: dict[str, Any]) -> ChatVlmConfig:
        """Return the config to load with, taking it and its fields out of `kwargs`."""
        own = {name: kwargs.pop(name) for name in list(kwargs) if name in ChatVlmConfig.own_fields(kwargs)}
        given = kwargs.pop("config", None)
        if isinstance(given, PreTrainedConfig):
            fields = given.to_dict()
        else:
            fields = PreTrainedConfig.get_config_dict(source if given is None else given, **hub_kwargs)[0]
        if fields.get("model_type") != ChatVlmConfig.model_type and not is_chat_model(fields.get("model_type")):
            refuse_foreign_checkpoint(cls, source, {**hub_kwargs, **({} if given is None else {"config": given})})
        nested = ChatVlmConfig.nested(fields)
        if "base_model" not in nested and not Path(str(source)).exists():
            own.setdefault("base_model", str(source))
        return ChatVlmConfig(**{**nested, **own})

    @property
    def generation_config(self) -> Any:
        """As in the chat model."""
        return self.vlm.generation_config

    @generation_config.setter
    def generation_config(self, value: Any) -> None:
        if "vlm" in self._modules:
            self.vlm.generation_config = value

    @property
    def lacks_answer_tokens(self) -> bool:
        """Whether `answer_tokens` are missing or belong to other answers or another question."""
        tokens, config = self.config.answer_tokens, self.config
        return tokens is None or (tokens["asked"], tokens["answers"]) != (_asked(config), config.answers)

    def set_answers(self, processor: ChatVlmProcessor) -> None:
        """Take the question, the answers and their tokens from `processor`.

        Raises:
            ValueError: see `prompting_chat_vlm.answer_tokens`; or if its image token differs.
        """
        config = self.config
        if processor.image_token_id != config.image_token_id:
            raise ValueError(
                f"The processor's image token is {processor.image_token_id}, but the model's is "
                f"{config.image_token_id}: they do not belong together."
            )
        config.question, config.system_prompt = processor.question, processor.system_prompt
        config.answers = copy.deepcopy(processor.answers)
        config.explanation_question = processor.explanation_question
        rows = self.vlm.get_input_embeddings().weight.shape[0]
        tokens = answer_tokens(processor.stock, processor.messages(), config.answers, rows)
        config.answer_tokens = {"asked": _asked(config), **tokens}

    @property
    def _answer_tokens(self) -> dict[str, Any]:
        if self.lacks_answer_tokens:
            raise ValueError(
                f"This model does not have the tokens of its answers to {self.config.question!r}: load it from a "
                "folder with a tokenizer, or call model.set_answers(processor)."
            )
        return self.config.answer_tokens

    def get_input_embeddings(self) -> Any:
        """As in the chat model."""
        return self.vlm.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """As in the chat model."""
        return self.vlm.get_output_embeddings()

    @property
    def saved_model(self) -> PreTrainedModel:
        """Return the model that names the weights on disk."""
        return self.vlm

    @property
    def vision_tower(self) -> str:
        """Return the name of the chat model's vision module.

        Raises:
            ValueError: if none of the usual names is found.
        """
        for name in ("visual", "vision_tower", "vision_model"):
            for path, _ in self.vlm.named_modules():
                if path.rpartition(".")[2] == name:
                    return WRAPPED + path
        raise ValueError(
            f"{type(self.vlm).__name__} has no vision tower under a known name (visual, vision_tower, ...)."
        )

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the chat model's own forward; `labels` (batch, length) are token ids, -100 where not supervised."""
        return self.vlm(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **inputs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Run the chat model's own `generate`."""
        return self.vlm.generate(*args, **kwargs)

    @torch.no_grad()
    def detect(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **picture: Any
    ) -> DeepfakeDetectionOutput:
        """Score a batch of images by the answer that the chat model would give.

        Takes one prefill, whose last logits decide if the answers differ in a single token; longer answers need one
        more pass over their few tokens. Nothing is decoded.

        Args:
            input_ids, attention_mask: (batch, length), prompts up to the answer, padded on the left.
            picture: the other outputs of the processor, which are the chat model's own inputs.

        Returns:
            `logits`: before calibration, the log of the summed probabilities of each class's answers, given the
            beginning that all answers share.

        Raises:
            ValueError: for right-padded prompts, or if the model does not have the tokens of its answers.
        """
        tokens = self._answer_tokens
        ids, mask, picture = _left_padded(input_ids, attention_mask, picture)
        length = ids.shape[1]
        ids, mask, picture = _cut(ids, mask, picture, length - tokens["cut"])
        ids, mask, picture = _extended(ids, mask, picture, [tokens["prefix"]] * len(ids))
        cache = self._new_cache()
        first = self._prefill(ids, mask, cache, picture)
        return DeepfakeDetectionOutput(logits=self.calibrate(self._compare(first, mask, cache)))

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.config.get_text_config(decoder=True))

    def _prefill(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: Cache, picture: Mapping[str, Any]
    ) -> torch.Tensor:
        """Return logits (batch, vocabulary) after the prompts, and fill `cache`."""
        output = self.vlm.generate(
            input_ids=ids,
            attention_mask=mask,
            output_logits=True,
            return_dict_in_generate=True,
            use_cache=True,
            **self._padding(),
            **cache_keyword(cache),
            **picture,
            **ONE_STEP,
        )
        return output.logits[0]

    def _padding(self) -> dict[str, Any]:
        """Return the padding token, so that `generate` does not guess one and warn about it."""
        settings = self.vlm.generation_config
        ends = settings.eos_token_id
        end = ends[0] if isinstance(ends, (list, tuple)) else ends
        return {"pad_token_id": end if settings.pad_token_id is None else settings.pad_token_id}

    def _read(self, ids: torch.Tensor, mask: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return logits (rows, length, vocabulary) of text that continues the contents of `cache`.

        Args:
            ids: (rows, length), rows a multiple of the number of prompts in the cache.
            mask: (rows, all), for the cache and `ids`.
            cache: is extended.
        """
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        shift = getattr(self.vlm.base_model, "rope_deltas", None)
        if shift is not None:  # in these models an image has fewer positions than tokens
            shift = shift.to(positions.device).repeat_interleave(len(ids) // len(shift), dim=0)
            positions = (positions + shift)[None].expand(3, -1, -1)
        output = self.vlm(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **cache_keyword(cache)
        )
        return output.logits

    def _compare(self, first: torch.Tensor, mask: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return raw logits (batch, 2) from the logits after prompt and forced prefix; `cache` is used up."""
        tokens = self._answer_tokens
        answers = [ids for name in CLASSES for ids in tokens[name]]

        def read_on(ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
            cache.batch_repeat_interleave(len(answers))
            return self._read(ids, torch.cat([mask.repeat_interleave(len(answers), 0), real], dim=1), cache)

        found = candidate_log_probabilities(first, [answers], read_on)
        return class_log_probabilities(found, [len(tokens[name]) for name in CLASSES])

    @torch.no_grad()
    def explain(
        self,
        processor: ChatVlmProcessor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        question: str | Sequence[str | None] | None = None,
        history: Histories | None = None,
        threshold: float = 0.5,
        **inputs: Any,
    ) -> DeepfakeExplanationOutput:
        """Return verdicts and explanations for a batch, encoding its images once.

        The common part of the prompts for verdict and explanation, including the image, is read only once.

        Args:
            processor: the `ChatVlmProcessor` of this checkpoint.
            input_ids, attention_mask: (batch, length), prompts for the verdict from the processor.
            question: the question for every image, or a list with one per image; by default the config's
                `explanation_question`.
            history: earlier questions and answers, oldest first, for every image; or a list of such lists, one per
                image. Where what is asked differs in length, the pictures are read once more.
            threshold: not used; the question does not name the verdict.
            inputs: tensors are the other outputs of the processor; everything else is passed to `generate`, by default
                greedy with up to 256 new tokens.

        Returns:
            `DeepfakeExplanationOutput`. The texts equal those of `generate` on the same prompts.

        Raises:
            ValueError: if the processor's prompts do not belong to this model, or if its template writes the question
                before the image; see also `conversation_turns.turns_per_picture`.
        """
        tokens = self._answer_tokens
        self._require_own(processor)
        picture = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        options = {name: value for name, value in inputs.items() if name not in picture}
        options = {**self._padding(), **GENERATION_DEFAULTS, **options, "use_cache": True}
        turns = turns_per_picture(question, history, len(input_ids))
        verdict_tail, own_tails = processor.own_suffixes(turns, tokens)
        ids, mask, picture = _left_padded(input_ids, attention_mask, picture)
        end = ids.shape[1] - tokens["cut"]
        shared = end - len(verdict_tail)
        found = ids[:, shared:end]
        if (
            any(self.config.image_token_id in tail for tail in own_tails)
            or not (found == found.new_tensor(verdict_tail)).all()
        ):
            raise ValueError(
                "The prompts for verdict and explanation cannot share the image: either the chat template writes the "
                "question before it, or input_ids are not the prompts for the verdict. Use `generate`."
            )
        ids, mask, picture = _cut(ids, mask, picture, shared)
        cache = self._new_cache()
        self._prefill(ids, mask, cache, picture)
        logits = self._judge_behind(copy.deepcopy(cache), mask, [*verdict_tail, *tokens["prefix"]])
        ids, mask, picture = _extended(ids, mask, picture, own_tails)
        single = options["num_beams"] == 1 and options.get("num_return_sequences", 1) == 1
        if single and len({len(tail) for tail in own_tails}) == 1:
            # The picture is in the cache.
            types = {name: value for name, value in picture.items() if value.shape == ids.shape}
            new_ids = self.vlm.generate(input_ids=ids, attention_mask=mask, **types, **cache_keyword(cache), **options)
        else:
            new_ids = self.vlm.generate(input_ids=ids, attention_mask=mask, **picture, **options)
        explanations = processor.decode_answers(new_ids[:, ids.shape[1] :])
        return DeepfakeExplanationOutput(
            logits=self.calibrate(logits),
            explanations=explanations,
            explanation_verdicts=[parse_verdict(text, "word") for text in explanations],
        )

    @torch.no_grad()
    def converse(
        self,
        processor: ChatVlmProcessor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        **picture: Any,
    ) -> Conversation:
        """Begin a conversation about one image, which is read once.

        Args:
            processor: the `ChatVlmProcessor` of this checkpoint.
            input_ids, attention_mask: (1, length), the prompt for the verdict from the processor.
            picture: the other outputs of the processor, which are the chat model's own inputs.

        Returns:
            A `Conversation`; its answers equal those of `explain` with the same question and history.

        Raises:
            ValueError: for more than one image, a padded prompt, a processor whose prompts do not belong to this
                model, or a template that writes the question before the image.
        """
        require_one_picture(input_ids)
        tokens = self._answer_tokens
        self._require_own(processor)
        ids, mask, picture = _left_padded(input_ids, attention_mask, picture)
        end = ids.shape[1] - tokens["cut"]
        row = ids[0].tolist()
        length = behind_last(row, self.config.image_token_id)
        if not mask.all() or row[length:] != processor.tail_behind_picture():
            raise ValueError(
                "input_ids must be the prompt for the verdict, without padding; use those from the processor."
            )
        ids, mask, picture = _cut(ids, mask, picture, length)
        cache = self._new_cache()
        self._prefill(ids, mask, cache, picture)
        # The model stores this value for the last image it read, which may be another one by the time of a question.
        shift = getattr(self.vlm.base_model, "rope_deltas", None)
        logits = self._judge_behind(copy.deepcopy(cache), mask, [*row[length:end], *tokens["prefix"]])
        types = {name: value for name, value in picture.items() if getattr(value, "shape", None) == ids.shape}

        def prompt_ids(question: str, history: History) -> list[int]:
            return [*row[:length], *processor.tail_behind_picture(question, history)]

        def generate(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
            if shift is not None:
                self.vlm.base_model.rope_deltas = shift
            own = {
                name: torch.cat([value, value.new_zeros(1, input_ids.shape[1] - length)], dim=1)
                for name, value in types.items()
            }
            return self.vlm.generate(input_ids=input_ids, **own, **options)

        detection = DeepfakeDetectionOutput(logits=self.calibrate(logits))
        return Conversation(self, processor, detection, row[:length], cache, prompt_ids, GENERATION_DEFAULTS, generate)

    def _require_own(self, processor: ChatVlmProcessor) -> None:
        own = self._answer_tokens["text"]
        if processor.prompt() != own:
            raise ValueError(
                f"The processor does not belong to this model: its prompt is {processor.prompt()!r}, the model's is "
                f"{own!r}."
            )

    def _judge_behind(self, cache: Cache, mask: torch.Tensor, tail: list[int]) -> torch.Tensor:
        ids = torch.tensor([tail], device=mask.device).expand(len(mask), -1)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        return self._compare(self._read(ids, mask, cache)[:, -1].float(), mask, cache)

    def save_pretrained(self, save_directory: str | Path, state_dict: Any = None, **kwargs: Any) -> None:
        """Save the chat model like its stock class, with the detector's fields added to config.json.

        Args:
            save_directory: folder to write; created if needed.
            state_dict: weights to save instead, with the names of this class.
            kwargs: arguments of the stock class's `save_pretrained`, except `push_to_hub`.

        Raises:
            ValueError: for `push_to_hub`.
        """
        if kwargs.pop("push_to_hub", False):
            raise ValueError(
                "push_to_hub is not supported here; publish the saved folder with publish_model(folder, id)."
            )
        if state_dict is not None:
            state_dict = {name.removeprefix(WRAPPED): value for name, value in state_dict.items()}
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        if self._auto_class is not None:
            for part in (self, self.config):
                custom_object_save(part, str(save_directory), config=self.config)
        self.vlm.save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        if kwargs.get("is_main_process", True):
            self.config.add_to(Path(save_directory) / CONFIG_NAME)


def _asked(config: ChatVlmConfig) -> list[str | None]:
    return [config.system_prompt, config.question]


def _left_padded(
    ids: torch.Tensor, mask: torch.Tensor | None, picture: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    mask = torch.ones_like(ids) if mask is None else mask
    if not mask[:, -1].all():
        raise ValueError("The prompts are padded on the right; detect needs padding_side='left'.")
    return ids, mask, dict(picture)


def _cut(
    ids: torch.Tensor, mask: torch.Tensor, picture: Mapping[str, Any], length: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Crop the tokens, and every input with one value per token, to the first `length`."""
    return (
        ids[:, :length],
        mask[:, :length],
        {name: _per_token(value, ids, lambda row: row[:, :length]) for name, value in picture.items()},
    )


def _extended(
    ids: torch.Tensor, mask: torch.Tensor, picture: Mapping[str, Any], tails: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Append text to every row, padded on the left if lengths differ, with token type 0 for text."""

    def longer(rows: torch.Tensor, more: Sequence[Sequence[int]], fill: int = 0) -> torch.Tensor:
        whole = [torch.cat([row, row.new_tensor(list(tail))]) for row, tail in zip(rows, more, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(whole, True, fill, "left")

    return (
        longer(ids, tails, tails[0][-1] if tails[0] else 0),  # any id but a picture's
        longer(mask, [[1] * len(tail) for tail in tails]),
        {
            name: _per_token(value, ids, lambda row: longer(row, [[0] * len(tail) for tail in tails]))
            for name, value in picture.items()
        },
    )


def _per_token(value: Any, ids: torch.Tensor, change: Any) -> Any:
    return change(value) if isinstance(value, torch.Tensor) and value.shape == ids.shape else value
