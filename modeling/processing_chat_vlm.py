"""Images and conversations for `chat_vlm`: a stock processor, the detector's question, and batches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, BatchFeature, PreTrainedConfig, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_utils import make_flat_list_of_images
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from .configuration_chat_vlm import ANSWERS, EXPLANATION_QUESTION, FAMILY_FIELD, QUESTION, ChatVlmConfig
from .conversation_turns import Histories, turns_per_picture
from .detection import HUB_ARGUMENTS, DetectorProcessorMixin
from .generation_cache import common_prefix_length
from .prompting_chat_vlm import answer_spans, messages_for, render, text_ids
from .prompting_vicuna import read_turns
from .verdict_parsing import parse_verdict

__all__ = ["ChatVlmProcessor", "behind_last"]

IGNORED = -100
BLANK = (64, 64)
SETTINGS = ("question", "answers", "system_prompt", "explanation_question")


class ChatVlmProcessor(DetectorProcessorMixin, ProcessorMixin):
    """
    Args:
        stock: the chat model's own processor, with tokenizer, image processor and chat template.
        question, answers, system_prompt, explanation_question: as in `ChatVlmConfig`; `from_pretrained` reads them
            from the config.json next to the processor.

    Raises:
        ValueError: if `stock` lacks a tokenizer, image processor, chat template or image token, or if its template
            leaves out the image.
    """

    def __init__(
        self,
        stock: Any = None,
        question: str = QUESTION,
        answers: Mapping[str, Sequence[str]] | None = None,
        system_prompt: str | None = None,
        explanation_question: str | None = EXPLANATION_QUESTION,
    ) -> None:
        # Does not call the base class, which would treat `stock` as a part to save under this name.
        self.stock = stock
        self.question, self.system_prompt = question, system_prompt
        self.answers = {name: list(texts) for name, texts in (answers or ANSWERS).items()}
        self.explanation_question = explanation_question
        name = type(stock).__name__
        for part in ("tokenizer", "image_processor"):
            if getattr(stock, part, None) is None:
                raise ValueError(
                    f"{name} has no {part}: a chat model for images needs both a tokenizer and an image processor in "
                    "its folder."
                )
        self.tokenizer, self.image_processor = stock.tokenizer, stock.image_processor
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._adopt_template()
        marker = getattr(stock, "image_token", None)
        if marker is None:
            raise ValueError(f"{name} has no image token, so it cannot be asked about an image.")
        if marker not in self.prompt():
            raise ValueError(
                f"The chat template of {name} leaves out the image of a message (no image token {marker} in "
                f"{self.prompt()!r}); set processor.chat_template to one that includes it."
            )

    def _adopt_template(self) -> None:
        template = getattr(self.stock, "chat_template", None) or self.tokenizer.chat_template
        if template is None:
            raise ValueError(
                f"{type(self.stock).__name__} has no chat template, so the format of its prompts is unknown: set "
                "processor.chat_template, or use the instruction-tuned checkpoint of this model."
            )
        self.stock.chat_template = template

    @property
    def chat_template(self) -> Any:
        """Chat template of the stock processor."""
        return self.stock.chat_template

    @chat_template.setter
    def chat_template(self, template: Any) -> None:
        self.stock.chat_template = template

    @property
    def model_input_names(self) -> list[str]:
        """Input names of the stock processor."""
        return self.stock.model_input_names

    @property
    def image_token_id(self) -> int:
        """Id of the image placeholder in this tokenizer."""
        # The tokenizer first, because Gemma 3's processor uses the name for the token before an image.
        for part in (self.tokenizer, self.stock):
            if (found := getattr(part, "image_token_id", None)) is not None:
                return found
        return self.tokenizer.convert_tokens_to_ids(self.stock.image_token)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> ChatVlmProcessor:
        """Load the stock processor of a folder or Hub id; the questions come from its config.json.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            kwargs: arguments of `AutoProcessor.from_pretrained` and of this class.

        Raises:
            ValueError: see the class; also if the folder does not have a processor of a chat model.
        """
        source = pretrained_model_name_or_path
        settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        fields: dict[str, Any] = {}
        if not Path(str(source)).is_dir() or (Path(str(source)) / CONFIG_NAME).is_file():
            found = PreTrainedConfig.get_config_dict(source, **hub_kwargs)[0]
            fields = ChatVlmConfig.own_fields(found) if found.get(FAMILY_FIELD) == ChatVlmConfig.model_type else {}
        # Never passed on, even if allowed for this class: the stock processor does not need code from the folder.
        stock = AutoProcessor.from_pretrained(source, **{**kwargs, "trust_remote_code": False})
        return cls(stock, **{**{name: fields[name] for name in SETTINGS if name in fields}, **settings})

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Save the stock processor, in files that every stock loader reads."""
        saved = self.stock.save_pretrained(save_directory, **kwargs)
        if self._auto_class is not None:
            custom_object_save(self, str(save_directory))
            path = Path(save_directory) / PROCESSOR_NAME
            fields = json.loads(path.read_text(encoding="utf-8"))
            reference = f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"
            fields["auto_map"] = {"AutoProcessor": reference}
            path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return saved

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Decode like the stock processor."""
        return self.stock.to_dict(*args, **kwargs)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in SETTINGS)
        return f"{type(self).__name__}({type(self.stock).__name__}, {settings})"

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        history: Histories | None = None,
        padding_side: str = "left",
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list, of any sizes.
            text: a question, or one per image; by default that of the verdict.
            history: earlier (question, answer) turns of every conversation, or a list of such lists, one per image.
            padding_side: `"left"` or `"right"`, for the prompts.
            kwargs: only `return_tensors="pt"`, which the pipeline passes.

        Returns:
            All inputs of the chat model: `input_ids`, `attention_mask` (images, length) and its own image inputs.

        Raises:
            ValueError: without images, or if the numbers of images, questions and histories differ.
        """
        pictures = [] if images is None else make_flat_list_of_images(images)
        if not pictures:
            raise ValueError("ChatVlmProcessor needs at least one image in `images`.")
        if (tensors := kwargs.pop("return_tensors", "pt")) != "pt" or kwargs:
            raise ValueError(
                f"return_tensors is {tensors!r} and the other arguments are {sorted(kwargs)}; only "
                "return_tensors='pt' is allowed, because image settings belong in the checkpoint's processor files."
            )
        turns = turns_per_picture(text, history, len(pictures))
        rows = [
            self.encode(messages_for([*earlier, (self._asked(question), None)], self.system_prompt, picture))
            for (question, earlier), picture in zip(turns, pictures, strict=True)
        ]
        return self.collate(rows, padding_side)

    def _asked(self, question: str | None) -> str:
        return self.question if question is None else question

    def messages(
        self, question: str | None = None, history: Sequence[tuple[str, str]] | None = None
    ) -> list[dict[str, Any]]:
        """Return messages that ask a question about an image, with a placeholder for the image."""
        return messages_for([*(history or ()), (self._asked(question), None)], self.system_prompt)

    def prompt(self, question: str | None = None, history: Sequence[tuple[str, str]] | None = None) -> str:
        """Return the prompt for one image, with its placeholder once."""
        return render(self.stock, self.messages(question, history), True)

    def encode(self, messages: Sequence[Mapping[str, Any]], answer_follows: bool = True) -> dict[str, torch.Tensor]:
        """Return the stock processor's output for one conversation about one image, with a batch axis of 1.

        Raises:
            ValueError: if the tokens do not include the image.
        """
        row = dict(
            self.stock.apply_chat_template(
                list(messages),
                add_generation_prompt=answer_follows,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )
        if not (row["input_ids"] == self.image_token_id).any():
            raise ValueError(
                f"The prompt of {type(self.stock).__name__} does not contain an image token (id "
                f"{self.image_token_id}); its chat template or tokenizer does not belong to a model for images."
            )
        return row

    def collate(self, rows: Sequence[Mapping[str, torch.Tensor]], padding_side: str = "left") -> BatchFeature:
        """Collate outputs of `encode`: tokens are padded, images get the layout of the stock model.

        Images of the same size are stacked and tiles are concatenated; if their number or size differs within a batch,
        they are padded with zeros, as in the stock processors.
        """
        batch: dict[str, torch.Tensor] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if all(value.shape == row["input_ids"].shape for value, row in zip(values, rows, strict=True)):
                fill = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}.get(name, 0)
                batch[name] = _padded_rows(values, fill, padding_side)
            else:
                batch[name] = _joined(values)
        return BatchFeature(batch)

    def own_suffixes(
        self, turns: Sequence[tuple[str | None, Sequence[tuple[str, str]]]], answer_tokens: Mapping[str, Any]
    ) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the verdict's prompt and of others from the point where they differ.

        Args:
            turns: question and history of each of the others; `None` asks `explanation_question`.
            answer_tokens: of the model; its forced prefix belongs to the verdict's prompt.

        The ids come from prompts about a blank image, because a processor may also add text around an image.
        """
        blank = Image.new("RGB", BLANK)

        def ids_of(said: list[tuple[str, str | None]]) -> list[int]:
            return self.encode(messages_for(said, self.system_prompt, blank))["input_ids"][0].tolist()

        verdict = ids_of([(self.question, None)])
        asked = [
            (*earlier, (self._asked(self.explanation_question if question is None else question), None))
            for question, earlier in turns
        ]
        known = {said: ids_of(list(said)) for said in dict.fromkeys(asked)}
        own = [known[said] for said in asked]
        verdict = verdict[: len(verdict) - answer_tokens["cut"]]
        # One token of each is left, to be read for its logits; but behind the verdict's prompt comes its prefix.
        shared = common_prefix_length([[*verdict, -1] if answer_tokens["prefix"] else verdict, *own])
        return verdict[shared:], [ids[shared:] for ids in own]

    def tail_behind_picture(
        self, question: str | None = None, history: Sequence[tuple[str, str]] | None = None
    ) -> list[int]:
        """Return the ids of a prompt after its image, which are the same for every image.

        Args:
            question: by default that of the verdict.
            history: earlier (question, answer) turns.

        Raises:
            ValueError: if a text contains an image marker, or if the chat template writes text before the image.
        """
        marker = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        for text in (self._asked(question), *(text for turn in history or () for text in turn)):
            if marker in text or self.stock.image_token in text:
                raise ValueError(
                    f"The question or the history contains an image marker, which is not allowed: {text!r}."
                )
        heads, tails = [], []
        for turns in ([(self.question, None)], [*(history or ()), (self._asked(question), None)]):
            ids = self.encode(messages_for(turns, self.system_prompt, Image.new("RGB", BLANK)))["input_ids"][
                0
            ].tolist()
            end = behind_last(ids, self.image_token_id)
            heads.append(ids[:end])
            tails.append(ids[end:])
        if heads[0] != heads[1]:
            raise ValueError(
                "The prompts of several questions cannot share the image, because the chat template writes the "
                "question before it. Use `generate`."
            )
        return tails[1]

    def suggested_questions(self, verdict: str) -> list[str]:
        """Return the questions the model was made for; they do not name the verdict."""
        return [self._asked(self.explanation_question)]

    def decode_answers(self, new_ids: torch.Tensor) -> list[str]:
        """Decode generated ids (prompts, new tokens) to stripped texts without special tokens."""
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in new_ids]

    def read_verdicts(self, new_ids: torch.Tensor) -> list[str | None]:
        """Return the verdict in each generated answer: `"real"`, `"fake"` or `None`."""
        return [parse_verdict(text, "word") for text in self.decode_answers(new_ids)]

    def encode_conversations(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], images: Any, max_length: int | None = None
    ) -> BatchFeature:
        """Build a training batch: right-padded, with loss on the answers and the marker that ends each.

        Args:
            conversations: see `prompting_vicuna.read_turns`; the image belongs to the first question.
            images: one image per conversation.
            max_length: truncate rows to this many tokens; `None` does not truncate.

        Returns:
            As `__call__`, and `labels` (conversations, length), -100 where not supervised.

        Raises:
            ValueError: if the chat template does not fit (`prompting_chat_vlm.answer_spans`), or if `max_length`
                removes an answer completely or cuts an image.
        """
        pictures = make_flat_list_of_images(images)
        if len(conversations) != len(pictures):
            raise ValueError(
                f"{len(conversations)} conversations but {len(pictures)} images were given; pass one "
                "image per conversation."
            )
        rows = []
        for conversation, picture in zip(conversations, pictures, strict=True):
            said = [text for _, text in read_turns(conversation)]
            messages = messages_for(list(zip(said[::2], said[1::2], strict=True)), self.system_prompt, picture)
            rows.append(self._supervised(messages, max_length))
        return self.collate(rows, padding_side="right")

    def _supervised(self, messages: list[dict[str, Any]], max_length: int | None) -> dict[str, torch.Tensor]:
        row = self.encode(messages, answer_follows=False)
        length = row["input_ids"].shape[1]
        text, spans = answer_spans(self.stock, messages)
        # Here the placeholder appears once, in the row many times; after it both are the same.
        plain = text_ids(self.tokenizer, text, offsets=True)
        ids, places = plain["input_ids"], plain["offset_mapping"]
        first = next(index for index, (start, _) in enumerate(places) if start >= spans[0][0])
        tail = row["input_ids"][0, length - (len(ids) - first) :].tolist()
        if tail != ids[first:]:
            raise ValueError(
                f"The processor tokenises the answers of {text[-120:]!r} differently with and without the image, so "
                "they cannot be found in the tokens."
            )
        learn = torch.zeros(length, dtype=torch.bool)
        for index in range(first, len(ids)):
            start = places[index][0]
            learn[length - len(ids) + index] = any(a <= start < b for a, b in spans)
        row["labels"] = row["input_ids"].masked_fill(~learn, IGNORED)
        if max_length is not None and length > max_length:
            kept = row["input_ids"][0, max_length:] == self.image_token_id
            if kept.any() or not learn[:max_length].any():
                raise ValueError(f"max_length={max_length} of {length} tokens removes the answer or cuts the image.")
            shape = row["input_ids"].shape
            row = {name: value[:, :max_length] if value.shape == shape else value for name, value in row.items()}
        return row


def behind_last(ids: Sequence[int], token: int) -> int:
    """Return the position after the last `token`."""
    return len(ids) - list(reversed(ids)).index(token)


def _padded_rows(values: Sequence[torch.Tensor], fill: int, side: str) -> torch.Tensor:
    longest = max(value.shape[1] for value in values)
    rows = []
    for value in values:
        room = value.new_full((1, longest - value.shape[1]), fill)
        rows.append(torch.cat([room, value] if side == "left" else [value, room], dim=1))
    return torch.cat(rows)


def _joined(values: Sequence[torch.Tensor]) -> torch.Tensor:
    if len({value.shape[1:] for value in values}) == 1:
        return torch.cat(list(values))
    largest = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    rows = []
    for value in values:
        room = value.new_zeros(value.shape[0], *largest)
        room[(slice(None), *(slice(0, size) for size in value.shape[1:]))] = value
        rows.append(room)
    return torch.cat(rows)
