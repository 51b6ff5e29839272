"""Images and questions for AntifakePrompt, with two tokenizers that both have the learned word."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, cached_file

from .configuration_antifakeprompt import PROMPTS
from .detection import HUB_ARGUMENTS, DetectorProcessorMixin
from .image_processing_antifakeprompt import AntifakePromptImageProcessor

__all__ = ["AntifakePromptProcessor", "add_soft_word", "save_processor_settings"]

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "[PAD]"
END_TOKEN = "</s>"
QFORMER_START_TOKEN = "[DEC]"
IGNORED = -100
EXPLANATION_QUESTION = "Explain why this photo looks {verdict}."
SETTINGS = (
    "num_query_tokens",
    "soft_word",
    "soft_word_sides",
    "soft_word_strip",
    "prompt",
    "plain_prompt",
    "candidates",
    "start_token",
    "max_text_length",
    "explanation_question",
)


def add_soft_word(tokenizer: Any, qformer_tokenizer: Any, soft_word: str = "[*]") -> None:
    """Add the missing tokens to both tokenizers, as LAVIS does at startup; existing tokens keep their ids.

    The language model's tokenizer gets `[PAD]`, `<image>` and the word, the Q-Former's gets `[DEC]` and the word. In
    the language model's, the word absorbs the spaces around it (`soft_word_strip`).

    Args:
        tokenizer, qformer_tokenizer: fast tokenizers, changed in place.
        soft_word: text of the learned word.
    """
    known = tokenizer.get_vocab()
    if tokenizer.eos_token is None and END_TOKEN in known:  # for a bare tokenizer.json
        tokenizer.eos_token = END_TOKEN
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if qformer_tokenizer.pad_token is None and PAD_TOKEN in qformer_tokenizer.get_vocab():
        qformer_tokenizer.pad_token = PAD_TOKEN
    if IMAGE_TOKEN not in known:
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
    if soft_word not in known:
        word = AddedToken(soft_word, lstrip=True, rstrip=True, normalized=False, special=True)
        tokenizer.add_tokens([word], special_tokens=True)
    for token in (QFORMER_START_TOKEN, soft_word):
        if token not in qformer_tokenizer.get_vocab():
            qformer_tokenizer.add_tokens([AddedToken(token, normalized=False, special=True)], special_tokens=True)


def save_processor_settings(save_directory: str | Path, image_processor: Any, settings: dict[str, Any]) -> None:
    """Write the processor of an adapter folder, which uses the tokenizers of its base.

    Args:
        save_directory: folder to write; created if needed.
        image_processor: an `AntifakePromptImageProcessor` with the statistics of the checkpoint.
        settings: arguments of `AntifakePromptProcessor` that differ from their defaults.
    """
    content = {
        "processor_class": AntifakePromptProcessor.__name__,
        "image_processor": image_processor.to_dict(),
        **settings,
    }
    Path(save_directory).mkdir(parents=True, exist_ok=True)
    (Path(save_directory) / PROCESSOR_NAME).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


class AntifakePromptProcessor(DetectorProcessorMixin, ProcessorMixin):
    """
    Args:
        image_processor: an `AntifakePromptImageProcessor` with the statistics of the checkpoint.
        tokenizer: fast tokenizer of the language model, with `<image>` and the learned word (`add_soft_word`).
        qformer_tokenizer: BERT's tokenizer with the learned word.
        num_query_tokens: placeholders per image.
        soft_word, soft_word_sides, prompt, plain_prompt, candidates: as in `AntifakePromptConfig`.
        soft_word_strip: tokenise as in training: no space token next to the word, and a new prefix space after it.
            This is checked on the tokens; `False` skips the check.
        start_token: first token of the question in the language model; `</s>` in the official code.
        max_text_length: maximum length of either text; 128 in the official code, which truncates longer ones.
        explanation_question: the default question; `{verdict}` is replaced by the verdict.

    Raises:
        ValueError: if a tokenizer does not have the word, or splits the prompt differently than in training.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        qformer_tokenizer: Any = None,
        num_query_tokens: int = 32,
        soft_word: str = "[*]",
        soft_word_sides: str = "both",
        soft_word_strip: bool = True,
        prompt: str = PROMPTS["postfix"],
        plain_prompt: str = "Is this photo real?",
        candidates: Sequence[str] = ("yes", "no"),
        start_token: str = "</s>",
        max_text_length: int = 128,
        explanation_question: str = EXPLANATION_QUESTION,
        **kwargs: Any,
    ) -> None:
        self.num_query_tokens = num_query_tokens
        self.soft_word = soft_word
        self.soft_word_sides = soft_word_sides
        self.soft_word_strip = soft_word_strip
        self.prompt = prompt
        self.plain_prompt = plain_prompt
        self.candidates = list(candidates)
        self.start_token = start_token
        self.max_text_length = max_text_length
        self.explanation_question = explanation_question
        super().__init__(image_processor, tokenizer, qformer_tokenizer, **kwargs)
        self._check_tokenizers()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load like every processor; an adapter folder uses the tokenizers of its base."""
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        source = pretrained_model_name_or_path
        config = cached_file(source, CONFIG_NAME, _raise_exceptions_for_missing_entries=False, **hub)
        base = json.loads(Path(config).read_text()).get("base_model_name_or_path") if config else None
        if base is None:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        settings, _ = cls.get_processor_dict(pretrained_model_name_or_path, **hub)
        base_hub = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, **base_hub)
        qformer_tokenizer = AutoTokenizer.from_pretrained(
            base, subfolder="qformer_tokenizer", trust_remote_code=False, **base_hub
        )
        add_soft_word(tokenizer, qformer_tokenizer, settings.get("soft_word", "[*]"))
        own = {name: value for name, value in settings.items() if name in SETTINGS}
        return cls(AntifakePromptImageProcessor(**settings["image_processor"]), tokenizer, qformer_tokenizer, **own)

    def save_settings(self, save_directory: str | Path) -> None:
        """Save everything except the tokenizers, as the processor of an adapter folder."""
        save_processor_settings(save_directory, self.image_processor, {name: getattr(self, name) for name in SETTINGS})

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        padding_side: str = "left",
        require_soft_word: bool = True,
        return_tensors: str | None = "pt",
        **image_options: Any,
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list; enough by themselves for a verdict with the checkpoint's own prompt.
            text: one question per image, with the learned word once.
            padding_side: `"left"` to generate (between image and question), `"right"` to score and to train.
            require_soft_word: `False` also accepts questions without the word (plain InstructBLIP, zero-shot).
            return_tensors: type of the image tensors; token ids are always torch tensors.
            image_options: options of the image processor.

        Returns:
            `pixel_values` (images, 3, size, size), and for text also `qformer_input_ids`, `qformer_attention_mask`
            (questions, length), `input_ids`, `attention_mask` (questions, queries + length), int64.

        Raises:
            ValueError: if the numbers of questions and images differ, or if a question lacks the word.
        """
        if images is None and text is None:
            raise ValueError("AntifakePromptProcessor needs images, text or both.")
        data: dict[str, Any] = {}
        if images is not None:
            data["pixel_values"] = self.image_processor(images, return_tensors=return_tensors, **image_options)[
                "pixel_values"
            ]
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            if images is not None and len(data["pixel_values"]) != len(texts):
                raise ValueError(
                    f"{len(texts)} questions but {len(data['pixel_values'])} images were given; pass one question "
                    "per image."
                )
            if require_soft_word and self.soft_word_sides != "none":
                self._require_soft_word(texts)
            data |= self.tokenize(texts, padding_side)
        return BatchFeature(data)

    def tokenize(self, texts: Sequence[str], padding_side: str = "left") -> BatchFeature:
        """Tokenise the text for `__call__`."""
        return self._batch(texts, [self.llm_ids(text) for text in texts], padding_side)

    def encode_answers(
        self, texts: Sequence[str], answers: Sequence[str], images: Any = None, end: bool = True, **image_options: Any
    ) -> BatchFeature:
        """Build a training batch: each answer directly after its question, right-padded, with loss only on the answer.

        Args:
            texts: one question per row.
            answers: `"yes"` (real) or `"no"` (fake) in the official training; any text works.
            images: one image per row, or `None` for text only.
            end: append the end token to the answer, with loss on it, as in the official training but not in its
                scoring.
            image_options: options of the image processor.

        Returns:
            As `__call__`, and `labels` (rows, queries + length), -100 where not supervised.

        Raises:
            ValueError: if the numbers of questions, answers and images differ.
        """
        if len(texts) != len(answers):
            raise ValueError(f"{len(texts)} questions but {len(answers)} answers were given.")
        ends = [self.tokenizer.eos_token_id] if end else []
        prompts = [self.llm_ids(text) for text in texts]
        targets = [[*self.answer_ids(answer), *ends] for answer in answers]
        rows = [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)]
        batch = self._batch(texts, rows, "right")
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            start = self.num_query_tokens + len(prompt)
            labels[row, start : start + len(target)] = torch.tensor(target)
        batch["labels"] = labels
        if images is not None:
            pixels = self.image_processor(images, return_tensors="pt", **image_options)["pixel_values"]
            if len(pixels) != len(texts):
                raise ValueError(f"{len(texts)} questions but {len(pixels)} images were given.")
            batch["pixel_values"] = pixels
        return batch

    def qformer_ids(self, text: str) -> list[int]:
        """Return the ids of one question for the Q-Former, with `[CLS]` and `[SEP]`."""
        return self._limited(self.qformer_tokenizer(self._side_text(text, "qformer")).input_ids, text)

    def llm_ids(self, text: str) -> list[int]:
        """Return the ids of one question for the language model, with the start token, without the image."""
        start = self.tokenizer.convert_tokens_to_ids(self.start_token)
        ids = self.tokenizer(self._side_text(text, "llm"), add_special_tokens=False).input_ids
        return self._limited([start, *ids], text)

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer after a question, without start and end tokens."""
        ids = self.tokenizer(answer, add_special_tokens=False).input_ids
        if not ids:
            raise ValueError(f"The answer {answer!r} has no tokens.")
        return ids

    def prompt_fields(self) -> dict[str, Any]:
        """Return the `AntifakePromptConfig` fields that depend on the tokenizers."""
        convert = self.tokenizer.convert_tokens_to_ids
        return {
            "soft_word": self.soft_word,
            "soft_word_sides": self.soft_word_sides,
            "prompt_position": next((name for name, text in PROMPTS.items() if text == self.prompt), "custom"),
            "prompt": self.prompt,
            "plain_prompt": self.plain_prompt,
            "candidates": self.candidates,
            "image_token_index": convert(IMAGE_TOKEN),
            "llm_soft_word_id": convert(self.soft_word),
            "llm_pad_token_id": self.tokenizer.pad_token_id,
            "qformer_soft_word_id": self.qformer_tokenizer.convert_tokens_to_ids(self.soft_word),
            "qformer_prompt_ids": self.qformer_ids(self.prompt),
            "llm_prompt_ids": self.llm_ids(self.prompt),
            "candidate_ids": [self.answer_ids(candidate) for candidate in self.candidates],
        }

    def explanation_prompt(self, question: str | None = None, verdict: str | None = None) -> str:
        """Return the question for one image: `question`, or the processor's own with the verdict filled in.

        Raises:
            ValueError: if both are missing.
        """
        if question is not None:
            return question
        if verdict is None:
            raise ValueError("explanation_prompt needs a question, or the verdict to ask about.")
        return self.explanation_question.format(verdict=verdict)

    def decode_answers(self, new_ids: torch.Tensor) -> list[str]:
        """Decode generated ids (rows, new tokens) to texts without special tokens; an empty list for no rows."""
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in new_ids]

    def _side_text(self, text: str, side: str) -> str:
        if self.soft_word_sides in ("both", side) or self.soft_word not in text:
            return text
        if text == self.prompt:
            return self.plain_prompt
        raise ValueError(
            f"soft_word_sides={self.soft_word_sides!r}: {text!r} has no version without the learned word for the "
            f"other text input. Only the prompt {self.prompt!r} has one; leave {self.soft_word!r} out of other "
            "questions."
        )

    def _limited(self, ids: list[int], text: str) -> list[int]:
        if len(ids) > self.max_text_length:
            raise ValueError(
                f"The text has {len(ids)} tokens, more than max_text_length={self.max_text_length}: {text[:80]!r}..."
            )
        return ids

    def _require_soft_word(self, texts: Sequence[str]) -> None:
        for text in texts:
            if text.count(self.soft_word) != 1:
                raise ValueError(
                    f"The question {text!r} contains the learned word {self.soft_word!r} "
                    f"{text.count(self.soft_word)} times instead of once, as in {self.prompt!r}. To ask plain "
                    "InstructBLIP, pass require_soft_word=False."
                )

    def _batch(self, texts: Sequence[str], llm_rows: list[list[int]], padding_side: str) -> BatchFeature:
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {padding_side!r}, allowed are 'left', 'right'.")
        pictures = [self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)] * self.num_query_tokens
        questions = [self.qformer_ids(text) for text in texts]
        ids, mask = _padded(llm_rows, self.tokenizer.pad_token_id, padding_side)
        qformer_ids, qformer_mask = _padded(questions, self.qformer_tokenizer.pad_token_id or 0, "right")
        # The images come first even with padding on the left, as in the official code.
        lead = torch.tensor([pictures] * len(texts))
        return BatchFeature(
            {
                "qformer_input_ids": qformer_ids,
                "qformer_attention_mask": qformer_mask,
                "input_ids": torch.cat([lead, ids], dim=1),
                "attention_mask": torch.cat([torch.ones_like(lead), mask], dim=1),
            }
        )

    def _check_tokenizers(self) -> None:
        for name in ("tokenizer", "qformer_tokenizer"):
            if self.soft_word not in getattr(self, name).get_vocab():
                raise ValueError(f"The {name} does not have the token {self.soft_word}; see add_soft_word.")
        for token in (IMAGE_TOKEN, self.start_token):
            if token not in self.tokenizer.get_vocab():
                raise ValueError(f"The tokenizer does not have the token {token}; see add_soft_word.")
        if not self.soft_word_strip:
            return
        before, after = (part.strip() for part in self.prompt.split(self.soft_word))
        whole = self.tokenizer.convert_ids_to_tokens(
            self.tokenizer(f"{before} {self.soft_word}{after}".strip(), add_special_tokens=False).input_ids
        )
        parts = [
            self.tokenizer.convert_ids_to_tokens(self.tokenizer(part, add_special_tokens=False).input_ids)
            if part
            else []
            for part in (before, after)
        ]
        expected = [*parts[0], self.soft_word, *parts[1]]
        if whole != expected or not all(part[0].startswith("▁") for part in parts if part):
            raise ValueError(
                f"The tokenizer splits the prompt into {whole}, but the words were trained with each part around "
                f"{self.soft_word} tokenised separately, with its own prefix space ({expected}). Use a "
                "tokenizer.json whose normalizer prepends the space (Llama's legacy form) with the word from "
                "add_soft_word, or pass soft_word_strip=False if your words were trained like that."
            )


def _padded(rows: Sequence[Sequence[int]], pad_id: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        padding, ones = [pad_id] * (length - len(row)), [1] * len(row)
        zeros = [0] * len(padding)
        ids.append([*padding, *row] if side == "left" else [*row, *padding])
        mask.append([*zeros, *ones] if side == "left" else [*ones, *zeros])
    return torch.tensor(ids), torch.tensor(mask)
