"""A conversation about one image, which is encoded once; what was read stays in the cache between turns."""

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

from .detection import DeepfakeDetectionOutput
from .generation_cache import cache_keyword, common_prefix_length

__all__ = ["Conversation", "History", "require_one_picture"]

# Earlier questions with their answers, the oldest first.
History = Sequence[tuple[str, str]]


def require_one_picture(pixel_values: torch.Tensor) -> None:
    """Raise a `ValueError` if there is not exactly one image to talk about."""
    if len(pixel_values) != 1:
        raise ValueError(f"A conversation is about one image, got {len(pixel_values)}; begin one for each.")


class Conversation:
    """Questions on one image, each with the history it follows.

    The history comes with every question, so that an answer can be asked for again, or an earlier turn be edited.
    Whatever an earlier call has read already is not read again; the answer is the same as without it. Calls from
    several threads wait for each other. `model.converse(processor, **inputs)` makes one.

    ```python
    conversation = model.converse(processor, **processor(images=image))
    answer = conversation.ask("Is it fake?")
    conversation.ask("What about the eyes?", [("Is it fake?", answer)])
    ```

    Args:
        model: a generator.
        processor: of the same checkpoint; `decode_answers` turns new ids into texts.
        detection: the verdict on the image, shapes `(1, ...)`.
        opening: ids of the beginning of every prompt, the image's places among them.
        cache: what the language model keeps of `opening`, length by length.
        prompt_ids: ids of the whole prompt for a question and a history; begins with `opening`.
        generation: arguments of `generate` where a call says nothing.
        generate: transformers' `generate`, where the model's own is another.

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
        # Layers that forget what lies behind their window cannot be cut back; those begin again behind the opening.
        exact = all(type(layer) is DynamicLayer for layer in cache.layers)
        self._beginning = None if exact else copy.deepcopy(cache)
        self._read = list(opening)  # ids that the cache holds
        self._lock = threading.Lock()

    def ask(self, question: str, history: History = (), **generation: Any) -> str:
        """Return the answer to a question.

        Args:
            question: free text without the markers of images.
            history: earlier questions with their answers.
            generation: arguments of `generate`; greedy, and as long as the family's `explain`, unless told.

        Raises:
            ValueError: for an empty question, one that holds a marker, a conversation that no longer fits into the
                language model, or several beams or answers.
        """
        with self._lock:
            return self._answer(self._checked_ids(question, history), generation)

    def stream(self, question: str, history: History = (), **generation: Any) -> Iterator[str]:
        """Yield the answer as it grows, each time from its beginning; closing the iterator stops the writing.

        Args:
            question, history, generation: as in `ask`, which returns what is yielded last.

        Raises:
            ValueError: as `ask`.
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
            raise ValueError("question is empty; ask something.")
        ids = self._prompt_ids(question, history)
        if ids[: len(self._opening)] != self._opening:
            raise ValueError(f"The question or the history holds the marker of an image: {question!r}.")
        return ids

    def _answer(self, ids: list[int], generation: dict[str, Any], criteria: StoppingCriteriaList | None = None) -> str:
        options = {**self._generation, **generation}
        for name in ("num_beams", "num_return_sequences"):
            if options.get(name, 1) > 1:
                raise ValueError(f"{name} is {options[name]}, but a conversation goes on with one answer: use 1.")
        room = self._room() - len(ids)
        if room < 1:
            raise ValueError(
                f"The conversation has {len(ids)} tokens, and the language model reads at most {self._room()}: begin "
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
            if not complete:  # nobody knows how far it came
                self._read = [*self._read, *[-1] * (self._cache.get_seq_length() - len(self._read))]
        self._read = sequences[0].tolist()[: self._cache.get_seq_length()]
        return self._decode(sequences[0, len(ids) :].tolist())

    def _decode(self, new_ids: list[int]) -> str:
        return self.processor.decode_answers(torch.tensor([new_ids], dtype=torch.long))[0]

    def _forget_behind(self, length: int) -> None:
        """Keep what was read of so many tokens, and of the opening, which every prompt has."""
        length = max(length, len(self._opening))
        if surplus := self._cache.get_seq_length() - length:
            if self._beginning is None:
                self._cache.crop(-surplus)  # so many tokens off the end
            else:
                self._cache, length = copy.deepcopy(self._beginning), len(self._opening)
        self._read = self._read[:length]

    def _room(self) -> int:
        """Tokens that the language model was made for."""
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
    """Hands the ids of an answer from the thread that writes to the one that reads."""

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
        pass  # `finish` says the last word

    def finish(self, result: str | BaseException) -> None:
        self._queue.put(result)

    def items(self) -> Iterator[list[int] | str | BaseException]:
        while True:
            item = self._queue.get()
            yield item
            if not isinstance(item, list):
                return
