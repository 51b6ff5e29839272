"""Images and texts for LVLM-DFD with its language model, with the exact words of the official code."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .detection import DetectorProcessorMixin

__all__ = [
    "ANSWER_END",
    "OPENING",
    "QUESTION",
    "SCORE_SOURCES",
    "LvlmDfdProcessor",
    "dialogue_prompt",
    "score_sentence",
    "training_turns",
]

IGNORED = -100
NO_TOKEN = -1
PERCENTAGES = 101

QUESTION = (
    "This is a facial image designed for deepfake detection, and it should not exhibit any localized color "
    "discrepancies or evident signs of splicing. Is this a deepfake image?"
)
# Questions in the screenshots on the authors' page.
PAGE_QUESTIONS = ("How much is the forgery score?", "What is the content of this image?")
OPENING = "### Human: <Img>"
REPLY = "\n### Assistant:"
ANSWER_END = "\n###"
SCORE_SOURCES = ("deepfake", "KFD", "by_batch")


def score_sentence(percent: int, source: str = "deepfake") -> str:
    """Return the text between the image token and the forgery prompts, including the space at the end."""
    return f"</Img> According to {source} prediction, the forgery score is {percent}%. "


def dialogue_prompt(question: str, history: Sequence[tuple[str, str]] = ()) -> str:
    """Return the text after the image, up to the answer.

    Args:
        question: the newest question.
        history: earlier questions and answers. The published code writes "### c:" before later answers, a mistake that
            is not repeated here.
    """
    turns = "".join(f"{asked}{REPLY} {answered}{ANSWER_END} Human: " for asked, answered in history)
    return f"{turns}{question}{REPLY}"


def training_turns(conversation: Sequence[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Return the texts of a conversation in the order in which they are separately tokenised, and which are answers.

    Args:
        conversation: questions and answers.
    """
    turns = []
    for index, (question, answer) in enumerate(conversation):
        turns.append((f"{'Human: ' if index else ''}{question}{REPLY}", False))
        turns.append((f"{answer}{ANSWER_END}", True))
    return turns


class LvlmDfdProcessor(DetectorProcessorMixin, ProcessorMixin):
    """
    Every part of the prompt is tokenised separately and without special tokens, as in the official code. The score
    sentence depends on the model's own verdict, so the model gets all 101 of them and chooses one.

    Args:
        image_processor: `LvlmDfdImageProcessor`.
        tokenizer: tokenizer of the language model; padded with its end token.
        question: the default question.
        score_source: name of the detector in the score sentence: `"deepfake"` (released inference), `"KFD"` (released
            training with two images), or `"by_batch"`: "deepfake" for one text, "KFD" for several.
        stop_token_id: id that ends an answer, the config's `stop_token_id`.
        legacy_trim: remove the last two ids of every answer, whatever they are, as the official code does.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        question: str = QUESTION,
        score_source: str = "deepfake",
        stop_token_id: int | None = 2277,
        legacy_trim: bool = False,
        **kwargs: Any,
    ) -> None:
        if score_source not in SCORE_SOURCES:
            raise ValueError(f"score_source is {score_source!r}, allowed are {', '.join(map(repr, SCORE_SOURCES))}.")
        for name in ("bos_token_id", "eos_token_id"):
            if tokenizer is not None and getattr(tokenizer, name) is None:
                raise ValueError(f"The tokenizer does not have {name}, which the prompts need.")
        self.question = question
        self.score_source = score_source
        self.stop_token_id = stop_token_id
        self.legacy_trim = legacy_trim
        self._score_ids: dict[str, torch.LongTensor] = {}
        super().__init__(image_processor, tokenizer, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if name != "_score_ids"}

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        padding_side: str = "left",
        return_tensors: str | None = "pt",
        **image_options: Any,
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list; enough for verdict and mask without `text`.
            text: one prompt per image, as returned by `dialogue_prompt`.
            padding_side: `"left"` or `"right"`, for the texts.
            return_tensors: type of the image tensors; token ids are always torch tensors.
            image_options: options of the image processor.

        Returns:
            `pixel_values` (images, 3, size, size) and the output of `tokenize`.

        Raises:
            ValueError: if the numbers of texts and images differ; the message has both numbers.
        """
        if images is None and text is None:
            raise ValueError("LvlmDfdProcessor needs images, text or both.")
        data: dict[str, Any] = {}
        if images is not None:
            data |= self.image_processor(images, return_tensors=return_tensors, **image_options)
        if text is not None:
            prompts = [text] if isinstance(text, str) else list(text)
            if images is not None and len(prompts) != len(data["pixel_values"]):
                raise ValueError(
                    f"{len(prompts)} texts were given for {len(data['pixel_values'])} images; pass one text per image."
                )
            data |= self.tokenize(prompts, padding_side)
        return BatchFeature(data)

    def dialogue_prompt(self, question: str | None = None, history: Sequence[tuple[str, str]] = ()) -> str:
        """Return the text after the image: earlier questions with their answers, then the newest question."""
        return dialogue_prompt(self.question if question is None else question, history)

    def suggested_questions(self, verdict: str) -> list[str]:
        """Return the questions of the released script and the authors' page; they do not name the verdict."""
        return [self.question, *PAGE_QUESTIONS]

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of one part of a prompt."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def tokenize(self, prompts: Sequence[str], padding_side: str = "left") -> BatchFeature:
        """Return int64 `input_ids`, `attention_mask` (prompts, length), `prompt_start_ids`, `score_prompt_ids`."""
        rows = [self.token_ids(prompt) for prompt in prompts]
        return self._padded(rows, padding_side)

    def _padded(self, rows: Sequence[Sequence[int]], side: str, **more: Sequence[Sequence[int]]) -> BatchFeature:
        if side not in ("left", "right"):
            raise ValueError(f"padding_side is {side!r}, allowed are 'left', 'right'.")

        def fill(values: Sequence[Sequence[int]], value: int) -> torch.Tensor:
            tensors = [torch.tensor(row, dtype=torch.long) for row in values]
            return torch.nn.utils.rnn.pad_sequence(tensors, True, value, side)

        source = self.score_source
        if source == "by_batch":
            source = "deepfake" if len(rows) == 1 else "KFD"
        return BatchFeature(
            {
                "input_ids": fill(rows, self.tokenizer.eos_token_id),
                "attention_mask": fill([[1] * len(row) for row in rows], 0),
                "prompt_start_ids": torch.tensor([self.tokenizer.bos_token_id, *self.token_ids(OPENING)]),
                "score_prompt_ids": self._score_prompt_ids(source),
                **{name: fill(values, IGNORED) for name, values in more.items()},
            }
        )

    def _score_prompt_ids(self, source: str) -> torch.LongTensor:
        if source not in self._score_ids:
            rows = [torch.tensor(self.token_ids(score_sentence(percent, source))) for percent in range(PERCENTAGES)]
            self._score_ids[source] = torch.nn.utils.rnn.pad_sequence(rows, True, NO_TOKEN)
        return self._score_ids[source]

    def decode_answers(self, new_ids: torch.Tensor) -> list[str]:
        """Decode generated ids (answers, new tokens), without end token, stop token and the line break before it.

        With `legacy_trim` the last two ids are removed instead, even if they are words.
        """
        ends = {self.tokenizer.eos_token_id, self.stop_token_id}
        texts = []
        for row in new_ids.tolist():
            end = next((index for index, token in enumerate(row) if token in ends), len(row))
            row = row[: end + 1][:-2] if self.legacy_trim else row[:end]
            text = self.tokenizer.decode(row, skip_special_tokens=True)
            texts.append(text if self.legacy_trim else text.strip())
        return texts

    def encode_conversations(
        self,
        conversations: Sequence[Sequence[tuple[str, str]]],
        images: Any,
        max_length: int | None = 128,
        **image_options: Any,
    ) -> BatchFeature:
        """Build a training batch: right-padded, with loss only on the answers.

        Args:
            conversations: questions and answers for each image.
            images: the images, in the same order.
            max_length: truncate the texts (but not the part before them) to this many tokens, as the official script
                does. `None` does not truncate.
            image_options: options of the image processor.

        Returns:
            As `__call__`, and `labels` (images, length), -100 where not supervised.

        Raises:
            ValueError: if the numbers of conversations and images differ, or if `max_length` removes an answer.
        """
        rows, labels = [], []
        for conversation in conversations:
            ids: list[int] = []
            targets: list[int] = []
            for text, is_answer in training_turns(conversation):
                turn = self.token_ids(text)
                ids += turn
                targets += turn if is_answer else [IGNORED] * len(turn)
            rows.append(ids[:max_length])
            labels.append(targets[:max_length])
        if any(all(label == IGNORED for label in row) for row in labels):
            raise ValueError(
                f"max_length={max_length} removes the whole answer, because the question is already longer."
            )
        pixel_values = self.image_processor(images, return_tensors="pt", **image_options)["pixel_values"]
        if len(pixel_values) != len(rows):
            raise ValueError(
                f"{len(rows)} conversations were given for {len(pixel_values)} images; pass one "
                "conversation per image."
            )
        return BatchFeature({**self._padded(rows, "right", labels=labels), "pixel_values": pixel_values})
