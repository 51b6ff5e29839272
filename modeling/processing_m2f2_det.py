"""Images and texts for M2F2-Det with its language model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .detection import DetectorProcessorMixin
from .prompting_m2f2_det import (
    DEEPFAKE_MARKER,
    EXPLANATION_QUESTION,
    IMAGE_MARKER,
    JUDGEMENT_QUESTION,
    NAMED_QUESTIONS,
    TRAINING_JUDGEMENT_QUESTION,
    VICUNA_CHAT_TEMPLATE,
    inference_prompt,
    judgement_prompt,
    training_prompt,
)

__all__ = ["M2F2DetProcessor"]

MARKERS = re.compile(f"({re.escape(IMAGE_MARKER)}|{re.escape(DEEPFAKE_MARKER)})")
IGNORED = -100


class M2F2DetProcessor(DetectorProcessorMixin, ProcessorMixin):
    """
    Args:
        image_processor: an `M2F2DetImageProcessor`; with `do_pad` the language model sees the padded square and the
            detector's CNN the crop (`detector_pixel_values`).
        tokenizer: tokenizer of the language model, with `<image>` and `<deepfake>` as added tokens.
        chat_template: by default the training template.
        image_seq_length: placeholder tokens per image, equal to the tower's number of patches.
        prompt_style: `"official_cli"` or `"vicuna_v1"`, the style of questions.
        newline_compat: see `inference_prompt`.
        explanation_question: the default question; `{verdict}` is replaced by the detector's verdict.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_seq_length: int = 576,
        prompt_style: str = "official_cli",
        newline_compat: bool = True,
        explanation_question: str = EXPLANATION_QUESTION,
    ) -> None:
        for marker in (IMAGE_MARKER, DEEPFAKE_MARKER):
            if tokenizer is not None and marker not in tokenizer.get_vocab():
                raise ValueError(
                    f"The tokenizer does not have the token {marker}; add it with "
                    f"tokenizer.add_tokens([{IMAGE_MARKER!r}, "
                    f"{DEEPFAKE_MARKER!r}], special_tokens=True)"
                )
        self.image_seq_length = image_seq_length
        self.prompt_style = prompt_style
        self.newline_compat = newline_compat
        self.explanation_question = explanation_question
        inference_prompt("", prompt_style)  # refuse an unknown style now, not at the first question
        super().__init__(image_processor, tokenizer, chat_template=chat_template or VICUNA_CHAT_TEMPLATE)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        padding_side: str = "left",
        padding: bool | str = True,
        truncation: bool | None = None,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        return_tensors: str | None = "pt",
        **image_options: Any,
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list, in the order of their markers; enough for a verdict without `text`.
            text: prompts, each with one `<image>` and one `<deepfake>` per image it is about.
            videos, audio: refused, because this family does not support them.
            padding_side: `"left"` to generate, `"right"` to train.
            padding: rows are always padded to the longest; `"max_length"` is refused.
            truncation, max_length: refused, because a cut prompt could lose a placeholder.
            add_special_tokens: start with `<s>`.
            return_tensors: type of the image tensors; token ids are always torch tensors.
            image_options: options of the image processor.

        Returns:
            `pixel_values` (images, 3, size, size), `detector_pixel_values` of the same shape if the image processor
            pads, and `input_ids`, `attention_mask` (prompts, length).

        Raises:
            ValueError: if the numbers of markers and images differ; the message has both numbers.
        """
        if images is None and text is None:
            raise ValueError("M2F2DetProcessor needs images, text or both.")
        if videos is not None or audio is not None:
            raise ValueError("M2F2-Det takes only images; leave out videos and audio.")
        if truncation or max_length is not None or padding == "max_length":
            raise ValueError(
                "Prompts cannot be truncated or padded to a fixed length: leave out truncation and max_length."
            )
        data: dict[str, Any] = {}
        if images is not None:
            data |= self._pictures(images, return_tensors, image_options)
        if text is not None:
            prompts = [text] if isinstance(text, str) else list(text)
            self._check_markers(prompts, len(data["pixel_values"]) if data else 0)
            data |= self.tokenize(prompts, padding_side, add_special_tokens)
        return BatchFeature(data)

    def _pictures(self, images: Any, return_tensors: str | None, options: dict[str, Any]) -> dict[str, Any]:
        return dict(self.image_processor(images, return_tensors=return_tensors, **options))

    @staticmethod
    def _check_markers(prompts: Sequence[str], pictures: int) -> None:
        for prompt in prompts:
            found = {marker: prompt.count(marker) for marker in (IMAGE_MARKER, DEEPFAKE_MARKER)}
            if found[IMAGE_MARKER] != found[DEEPFAKE_MARKER]:
                raise ValueError(
                    f"A prompt contains {found[IMAGE_MARKER]} {IMAGE_MARKER} and {found[DEEPFAKE_MARKER]} "
                    f"{DEEPFAKE_MARKER} markers; each image needs one of each: {prompt[:120]!r}"
                )
        markers = sum(prompt.count(IMAGE_MARKER) for prompt in prompts)
        if markers != pictures:
            raise ValueError(
                f"The prompts contain {markers} {IMAGE_MARKER} markers, but {pictures} images were given; each image "
                "needs one marker."
            )

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of one prompt, with `<image>` repeated `image_seq_length` times."""
        return self._encode(text)[0]

    def tokenize(
        self, prompts: Sequence[str], padding_side: str = "left", add_special_tokens: bool = True
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask`, int64 of shape (prompts, length)."""
        rows = [self._encode(prompt, add_special_tokens)[0] for prompt in prompts]
        return self._padded(rows, padding_side)

    def _encode(self, text: str, add_special_tokens: bool = True) -> tuple[list[int], list[int]]:
        """Return the ids, and the first character of each.

        The text is split only at the markers, as in the official code; every piece is tokenised separately, and only
        the first gets the begin token.
        """
        ids: list[int] = []
        starts: list[int] = []
        opening = self.tokenizer("").input_ids
        if add_special_tokens and opening and opening[0] == self.tokenizer.bos_token_id:
            ids, starts = [opening[0]], [0]
        position = 0
        for piece in MARKERS.split(text):
            if piece in (IMAGE_MARKER, DEEPFAKE_MARKER):
                count = self.image_seq_length if piece == IMAGE_MARKER else 1
                ids += [self.tokenizer.convert_tokens_to_ids(piece)] * count
                starts += [position] * count
            elif piece:
                encoded = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
                ids += encoded["input_ids"]
                starts += [position + start for start, _ in encoded["offset_mapping"]]
            position += len(piece)
        return ids, starts

    def _padded(self, rows: Sequence[Sequence[int]], side: str, **more: Sequence[Sequence[int]]) -> BatchFeature:
        if side not in ("left", "right"):
            raise ValueError(f"padding_side is {side!r}, allowed are 'left', 'right'.")
        length = max(len(row) for row in rows)

        def fill(row: Sequence[int], value: int) -> list[int]:
            padding = [value] * (length - len(row))
            return [*padding, *row] if side == "left" else [*row, *padding]

        data = {
            "input_ids": [fill(row, self.tokenizer.pad_token_id) for row in rows],
            "attention_mask": [fill([1] * len(row), 0) for row in rows],
            **{name: [fill(row, IGNORED) for row in values] for name, values in more.items()},
        }
        return BatchFeature({name: torch.tensor(values) for name, values in data.items()})

    def judgement_prompt(self) -> str:
        """Return the "real or fake" prompt in this processor's style."""
        return judgement_prompt(self.prompt_style, self.newline_compat)

    def explanation_prompt(
        self, question: str | None = None, verdict: str | None = None, history: Sequence[tuple[str, str]] = ()
    ) -> str:
        """Return a prompt for one image.

        Args:
            question: free text without markers, or a name of `NAMED_QUESTIONS`, such as `"demo"`; `None` uses
                `explanation_question`.
            verdict: `"real"` or `"fake"`, which that question mentions.
            history: earlier questions and answers, oldest first.

        Raises:
            ValueError: if the question or the history contains a marker, or without both question and verdict.
        """
        if question is None:
            if verdict is None:
                raise ValueError("explanation_prompt needs a question, or the verdict to ask about.")
            question = self.explanation_question.format(verdict=verdict)
        question = NAMED_QUESTIONS.get(question, question)
        for text in (question, *(part for turn in history for part in turn)):
            if found := MARKERS.search(text):
                raise ValueError(
                    f"The question contains the marker {found[0]}, which is reserved for the prompt: {text!r}"
                    if text == question
                    else f"The history contains the marker {found[0]}, which is reserved for the prompt: {text!r}"
                )
        return inference_prompt(question, self.prompt_style, self.newline_compat, history)

    def suggested_questions(self, verdict: str) -> list[str]:
        """Return the questions the weights were trained on, the best one first, and the one of the official page.

        Args:
            verdict: `"real"` or `"fake"`, which the first one mentions.
        """
        judgement = JUDGEMENT_QUESTION if self.prompt_style == "official_cli" else TRAINING_JUDGEMENT_QUESTION
        return [self.explanation_question.format(verdict=verdict), judgement, NAMED_QUESTIONS["demo"]]

    def decode_answers(self, new_ids: torch.Tensor, skip_special_tokens: bool = True) -> list[str]:
        """Decode generated ids (prompts, new tokens) to texts, without prompt and padding.

        Args:
            new_ids: output of `generate` after the prompts.
            skip_special_tokens: `False` keeps the raw form of the official prediction files, `<s> ... </s>`.
        """
        if skip_special_tokens:
            return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in new_ids]
        end = self.tokenizer.eos_token_id
        texts = []
        for row in new_ids.tolist():
            length = row.index(end) + 1 if end in row else len(row)
            texts.append(self.tokenizer.decode([self.tokenizer.bos_token_id, *row[:length]]))
        return texts

    def encode_conversations(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        images: Any,
        max_length: int | None = None,
        **image_options: Any,
    ) -> BatchFeature:
        """Build a training batch: right-padded, with loss only on the assistant's words and `</s>`.

        Args:
            conversations: see `training_prompt`; markers as in DD-VQA's files, one pair per image.
            images: the images in the order of their markers.
            max_length: truncate rows to this many tokens; the official limit is 2048. `None` does not truncate.
            image_options: options of the image processor.

        Returns:
            As `__call__`, and `labels` (conversations, length), -100 where not supervised.

        Raises:
            ValueError: if the numbers of markers and images differ, or if `max_length` cuts an image's placeholders.
        """
        prompts, rows, labels = [], [], []
        for conversation in conversations:
            text, spans = training_prompt(conversation, self.newline_compat)
            ids, starts = self._encode(text)
            supervised = [any(first <= start < last for first, last in spans) for start in starts]
            prompts.append(text)
            rows.append(ids)
            labels.append([token if learn else IGNORED for token, learn in zip(ids, supervised, strict=True)])
        data = self._pictures(images, "pt", image_options)
        self._check_markers(prompts, len(data["pixel_values"]))
        if max_length is not None:
            placeholders = {self.tokenizer.convert_tokens_to_ids(marker) for marker in (IMAGE_MARKER, DEEPFAKE_MARKER)}
            if any(placeholders.intersection(row[max_length:]) for row in rows):
                raise ValueError(f"max_length={max_length} cuts off an image's placeholders; use a larger one.")
            rows, labels = [row[:max_length] for row in rows], [row[:max_length] for row in labels]
        return BatchFeature({**self._padded(rows, "right", labels=labels), **data})
