"""A conversation about one image, which is encoded once and stays in the cache between turns."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import torch
from transformers import Cache, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer
from transformers.generation.streamers import BaseStreamer

from .conversation_turns import History, checked_turns
from .detection import DeepfakeDetectionOutput
from .generation_cache import cache_keyword, common_prefix_length

__all__ = ["Conversation", "require_one_picture"]


def require_one_picture(pixel_values: torch.Tensor) -> None:
    """Raise a `ValueError` unless there is exactly one image."""
    if len(pixel_values) != 1:
        raise ValueError(f"A conversation is about one image, got {len(pixel_values)}; start one for each.")


class Conversation:
    """Questions about one image, each with its own history.

    The history is passed with every question, so an answer can be regenerated and an earlier turn can be edited.
    Tokens that an earlier call has already read are reused from the cache, without changing the answer. Calls from
    several threads wait for each other. `model.converse(processor, **inputs)` creates one.

    ```python
    conversation = model.converse(processor, **processor(images=image))
    answer = conversation.ask("Is it fake?")
    conversation.ask("What about the eyes?", [("Is it fake?", answer)])
    ```

    Args:
        model: a generator.
        processor: the processor of the same checkpoint; its `decode_answers` turns new ids into text.
        detection: the verdict on the image, shapes `(1, ...)`.
        opening: ids at the beginning of every prompt, including the placeholders of the image.
        cache: the language model's cache for `opening`.
        prompt_ids: returns the ids of the whole prompt for a question and a history, starting with `opening`.
        generation: default arguments of `generate`.
        generate: transformers' `generate`, if the model overrides it.

    Attributes:
        detection: as given.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        detection: DeepfakeDetectionOutput,
        opening: Sequence[int],
        cache: Cache,
        prompt_ids: Callable[[str, History], list[int]],
        generation: dict[str, Any],
        generate: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        self.model, self.processor, self.detection = model, processor, detection
        self._opening, self._cache, self._prompt_ids = list(opening), cache, prompt_ids
        self._generation, self._generate = generation, generate or model.generate
        # Sliding-window layers drop old tokens and cannot be cropped; they restart after the opening.
        exact = all(type(layer) is DynamicLayer for layer in cache.layers)
        self._beginning = None if exact else copy.deepcopy(cache)
        self._read = list(opening)  # ids in the cache
        self._lock = threading.Lock()

    def ask(self, question: str, history: History = (), **generation: Any) -> str:
        """Return the answer to a question.

        Args:
            question: free text without image markers.
            history: earlier questions and answers.
            generation: arguments of `generate`; by default greedy, with the same length limit as the family's
                `explain`.

        Raises:
            ValueError: for an empty question, one that holds a marker, a history that does not consist of pairs,
                a conversation too long for the language model, or several beams or answers.
        """
        with self._lock:
            return self._answer(self._checked_ids(question, history), generation)

    def stream(self, question: str, history: History = (), **generation: Any) -> Iterator[str]:
        """Yield the text of the answer so far, again and again as it grows; closing the iterator stops generation.

        Args:
            question, history, generation: as in `ask`, which returns the last text.

        Raises:
            ValueError: as for `ask`.
        """
        ids = self._checked_ids(question, history)
        streamer, stopped = _Streamer(), _Stopped()
        given = generation.pop("stopping_criteria", None) or []
        criteria = StoppingCriteriaList([*given, stopped])

        def write() -> None:
            try:
                with self._lock:
                    streamer.finish(self._answer(ids, {**generation, "streamer": streamer}, criteria))
            except BaseException as error:  # noqa: BLE001  raised again by the reader, in its own thread
                streamer.finish(error)

        writer = threading.Thread(target=write, name="deepfake-detectors-answer", daemon=True)
        writer.start()
        shown = None
        try:
            for item in streamer.items():
                if isinstance(item, BaseException):
                    raise item
                text = item if isinstance(item, str) else self._decode(item)
                if text != shown:
                    yield text
                shown = text
        finally:
            stopped.now = True
            writer.join()

    def _checked_ids(self, question: str, history: History) -> list[int]:
        if not question.strip():
            raise ValueError("question is empty; enter a question.")
        ids = self._prompt_ids(question, checked_turns(history))
        if ids[: len(self._opening)] != self._opening:
            raise ValueError(
                f"The question or the history contains an image marker, which is not allowed: {question!r}."
            )
        return ids

    def _answer(self, ids: list[int], generation: dict[str, Any], criteria: StoppingCriteriaList | None = None) -> str:
        options = {**self._generation, **generation}
        for name in ("num_beams", "num_return_sequences"):
            if options.get(name, 1) > 1:
                raise ValueError(f"{name} is {options[name]}, but a conversation needs a single answer: use 1.")
        room = self._room() - len(ids)
        if room < 1:
            raise ValueError(
                f"The conversation has {len(ids)} tokens, but the language model reads at most {self._room()}: start "
                "a new one, or leave out its oldest turns."
            )
        options["max_new_tokens"] = min(options["max_new_tokens"], room)
        self._forget_behind(common_prefix_length([ids, [*self._read, -1]]))
        given = torch.tensor([ids], device=self.model.device)
        complete = False
        try:
            sequences = self._generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                pad_token_id=self.processor.tokenizer.pad_token_id,
                stopping_criteria=criteria,
                **cache_keyword(self._cache),
                **{**options, "use_cache": True},
            )
            complete = True
        finally:
            if not complete:  # the state of the cache is unknown
                self._read = [*self._read, *[-1] * (self._cache.get_seq_length() - len(self._read))]
        self._read = sequences[0].tolist()[: self._cache.get_seq_length()]
        return self._decode(sequences[0, len(ids) :].tolist())

    def _decode(self, new_ids: list[int]) -> str:
        return self.processor.decode_answers(torch.tensor([new_ids], dtype=torch.long))[0]

    def _forget_behind(self, length: int) -> None:
        """Crop the cache to this many tokens, but never below the opening, which every prompt shares."""
        length = max(length, len(self._opening))
        if surplus := self._cache.get_seq_length() - length:
            if self._beginning is None:
                self._cache.crop(-surplus)  # this many tokens off the end
            else:
                self._cache, length = copy.deepcopy(self._beginning), len(self._opening)
        self._read = self._read[:length]

    def _room(self) -> int:
        """Maximum number of tokens of the language model."""
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        stretched = float(rope.get("factor", 1.0)) if rope.get("rope_type") == "linear" else 1.0
        return int(config.max_position_embeddings * stretched)


class _Stopped(StoppingCriteria):
    def __init__(self) -> None:
        self.now = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.now, dtype=torch.bool, device=input_ids.device)


class _Streamer(BaseStreamer):
    """Passes the ids of an answer from the generating thread to the reading one."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[list[int] | str | BaseException] = SimpleQueue()
        self._ids: list[int] | None = None

    def put(self, value: torch.Tensor) -> None:
        if self._ids is None:  # the prompt comes first
            self._ids = []
            return
        self._ids += value.flatten().tolist()
        self._queue.put(list(self._ids))

    def end(self) -> None:
        pass  # `finish` marks the end

    def finish(self, result: str | BaseException) -> None:
        self._queue.put(result)

    def items(self) -> Iterator[list[int] | str | BaseException]:
        while True:
            item = self._queue.get()
            yield item
            if not isinstance(item, list):
                return
