"""The chat about an image: several turns, with regenerate, edit and clear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepfake_detectors.app.parts import gr, plainly
from deepfake_detectors.app.work import Examined, Worker

__all__ = ["Chat"]

SUGGESTIONS = 3  # buttons
NOTE = "Answers are written by the detector's language model. They are based on its verdict and are not evidence."
Messages = list[dict[str, Any]]


class Chat:
    """Draws the chat into the open Blocks.

    Args:
        worker: handles the requests.
        examined: state of the tab with the image.

    Attributes:
        outputs: the components that `begin` returns values for.
    """

    def __init__(self, worker: Worker, examined: Any) -> None:
        self.worker = worker
        with gr.Group(visible=False, elem_id="chat") as self._whole:
            gr.Markdown(NOTE, container=True)
            self._messages = gr.Chatbot(
                label="Conversation about this image",
                elem_id="conversation",
                height=360,
                editable="user",
                render_markdown=False,
                feedback_options=None,
                buttons=["copy"],
            )
            with gr.Row():
                self._suggestions = [
                    gr.Button(visible=False, size="sm", elem_classes="dfd-suggestion") for _ in range(SUGGESTIONS)
                ]
            question = gr.Textbox(
                label="Question", placeholder="Ask about this image", elem_id="question", max_length=2000
            )
            with gr.Row():
                ask = gr.Button("Ask", variant="primary", elem_id="ask")
                stop = gr.Button("Stop", variant="stop", elem_id="stop")
                clear = gr.Button("Clear", elem_id="clear")
            with gr.Accordion("How answers are written", open=False):
                temperature = gr.Slider(
                    0, 2, 0, step=0.1, label="Temperature", info="0 always writes the most likely words."
                )
                top_p = gr.Slider(
                    0.05, 1, 1, step=0.05, label="Top-p", info="Share of the most likely words to sample from."
                )
                length = gr.Slider(
                    16, worker.limits.answer_tokens, 256, step=16, label="Maximum length", info="Limit in tokens."
                )
        settings = [temperature, top_p, length]
        self.outputs: list[Any] = [self._whole, self._messages, *self._suggestions]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        given = [examined, self._messages, *settings]
        running = [
            gr.on(
                [question.submit, ask.click],
                self._ask,
                [question, *given],
                [self._messages, question],
                concurrency_id="work",
                **quiet,
            ),
            self._messages.retry(self._again, given, self._messages, concurrency_id="work", **quiet),
            self._messages.edit(self._edited, given, self._messages, concurrency_id="work", **quiet),
            *(
                button.click(self._suggested, [button, *given], self._messages, concurrency_id="work", **quiet)
                for button in self._suggestions
            ),
        ]
        stop.click(None, None, None, cancels=running, api_visibility="private")
        self._messages.undo(self._undone, self._messages, [self._messages, question], **quiet)
        clear.click(lambda: [], None, self._messages, cancels=running, **quiet)

    def begin(self, examined: Examined | None) -> dict[Any, Any]:
        """Return the values of `outputs` for a new image: an empty conversation, or none."""
        suggestions = self.worker.suggestions(examined)
        return {
            self._whole: gr.update(visible=bool(suggestions)),
            self._messages: [],
            **{
                button: gr.update(
                    value=suggestions[place] if place < len(suggestions) else "", visible=place < len(suggestions)
                )
                for place, button in enumerate(self._suggestions)
            },
        }

    def _ask(
        self, question: str, examined: Examined | None, messages: Messages, *settings: float
    ) -> Iterator[tuple[Messages, str]]:
        for shown in self._answered(question, examined, messages, *settings):
            yield shown, ""

    def _suggested(
        self, question: str, examined: Examined | None, messages: Messages, *settings: float
    ) -> Iterator[Messages]:
        yield from self._answered(question, examined, messages, *settings)

    def _again(
        self, examined: Examined | None, messages: Messages, *rest: Any, event: gr.RetryData
    ) -> Iterator[Messages]:
        place = _question_at(messages, event.index)
        yield from self._answered(_text(messages[place]["content"]), examined, messages[:place], *rest)

    def _edited(
        self, examined: Examined | None, messages: Messages, *rest: Any, event: gr.EditData
    ) -> Iterator[Messages]:
        place = _question_at(messages, event.index)
        yield from self._answered(str(event.value), examined, messages[:place], *rest)

    def _undone(self, messages: Messages, event: gr.UndoData) -> tuple[Messages, str]:
        place = _question_at(messages, event.index)
        return messages[:place], _text(messages[place]["content"])

    def _answered(
        self,
        question: str,
        examined: Examined | None,
        messages: Messages,
        temperature: float,
        top_p: float,
        length: float,
    ) -> Iterator[Messages]:
        """Yield the conversation while the answer to another question grows."""
        if examined is None:
            raise gr.Error("Choose an image first.", print_exception=False)
        asked = [*messages, {"role": "user", "content": question}]
        with plainly():
            answers = self.worker.answer(examined, question, _turns(messages), temperature, top_p, int(length))
            for answer in answers:
                yield [*asked, {"role": "assistant", "content": answer}]


def _question_at(messages: Sequence[Mapping[str, Any]], index: Any) -> int:
    """Return the index of the question that a message belongs to."""
    place = index[0] if isinstance(index, (list, tuple)) else index
    place = min(max(0, int(place)), len(messages) - 1)
    while place > 0 and messages[place]["role"] != "user":
        place -= 1
    return place


def _text(content: Any) -> str:
    """Return the text of a message, which Gradio passes as a string or in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return str(content.get("text", ""))
    return "".join(map(_text, content))


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the questions and answers."""
    texts = [_text(message["content"]) for message in messages]
    return list(zip(texts[::2], texts[1::2], strict=False))
