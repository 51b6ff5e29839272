"""Conversations about one image in a chat model's own template, and the tokens of its answers.

Every text is rendered and tokenised as a whole and never assembled from tokens, because a tokenizer may merge the end
of a prompt with the beginning of an answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .candidate_scoring import prefix_free
from .configuration_chat_vlm import CLASSES

__all__ = ["answer_spans", "answer_tokens", "answered", "messages_for", "render", "text_ids"]

IMAGE_MESSAGE = {"type": "image"}


def messages_for(
    turns: Sequence[tuple[str, str | None]], system_prompt: str | None = None, image: Any = None
) -> list[dict[str, Any]]:
    """Return messages for a chat template, with the image before the first question.

    Args:
        turns: (question, answer) pairs; the last answer is `None` if the model should write it.
        system_prompt: first message, unless `None`.
        image: the image; `None` only marks its place.
    """
    picture = dict(IMAGE_MESSAGE) if image is None else {**IMAGE_MESSAGE, "image": image}
    messages = [] if system_prompt is None else [_message("system", system_prompt)]
    for index, (question, answer) in enumerate(turns):
        messages.append(_message("user", question))
        if index == 0:
            messages[-1]["content"].insert(0, picture)
        if answer is not None:
            messages.append(_message("assistant", answer))
    return messages


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def render(processor: Any, messages: Sequence[Mapping[str, Any]], answer_follows: bool) -> str:
    """Render a conversation with the processor's chat template, with the image placeholder once.

    Args:
        processor: a stock processor with a chat template.
        messages: see `messages_for`.
        answer_follows: end with the generation prompt for an answer.
    """
    return processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer_follows)


def text_ids(tokenizer: Any, text: str, offsets: bool = False) -> Any:
    """Return the ids of a rendered text, or with `offsets` its full encoding with `offset_mapping`.

    As in `ProcessorMixin.apply_chat_template`, the tokenizer does not add the begin token if the template already has.
    """
    bos = tokenizer.bos_token
    special = not (bos is not None and text.startswith(bos))
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=offsets)
    if offsets:
        return encoded
    ids = list(encoded["input_ids"])
    # A tokenizer may append an end token that the prompt does not have.
    return (
        ids[:-1]
        if special and ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token or "\0")
        else ids
    )


def answered(processor: Any, messages: Sequence[Mapping[str, Any]], answer: str) -> str:
    """Return the text of a conversation up to the end of an answer to its last question.

    Text that the chat template puts between its generation prompt and an answer (a space, empty thoughts) is kept.
    Some templates introduce given answers differently from answers to be written; then the answer comes directly after
    the generation prompt, as when the model writes it.
    """
    prompt = render(processor, messages, answer_follows=True)
    whole = render(processor, [*messages, _message("assistant", answer)], answer_follows=False)
    place = whole.find(answer.strip(), len(prompt)) if whole.startswith(prompt) else -1
    return prompt + answer if place < 0 else whole[:place] + answer.strip()


def answer_tokens(processor: Any, messages: Sequence[Mapping[str, Any]], answers: Any, rows: int) -> dict[str, Any]:
    """Return everything that a verdict needs from the tokenizer.

    Args:
        processor: the checkpoint's own stock processor.
        messages: the question, see `messages_for`.
        answers: `{"real": [...], "fake": [...]}`.
        rows: number of rows of the model's embedding table.

    Returns:
        `text` (the prompt), `answers` (as given), and ids: `cut` (how many of the prompt's last tokens change when an
        answer follows; mostly 0), `prefix` (ids after the prompt without those, which all answers share), `real`,
        `fake` (lists of the ids after it).

    Raises:
        ValueError: if the tokens of the two classes cannot be distinguished, or if the tokenizer does not belong to
            the model.
    """
    tokenizer, prompt = processor.tokenizer, render(processor, messages, answer_follows=True)
    head = text_ids(tokenizer, prompt)
    whole = {
        name: [text_ids(tokenizer, answered(processor, messages, text)) for text in answers[name]] for name in CLASSES
    }
    every = [ids for name in CLASSES for ids in whole[name]]
    shared = _common_length([head, *every])
    tails = {name: prefix_free([ids[shared:] for ids in whole[name]]) for name in CLASSES}
    for name in CLASSES:
        for text, ids in zip(answers[name], whole[name], strict=True):
            if len(ids) <= shared:
                raise ValueError(f"The answer {text!r} ({name}) has no tokens of its own after the question.")
            unknown = tokenizer.unk_token_id
            if unknown is not None and unknown in ids[shared:]:
                raise ValueError(f"The tokenizer cannot represent the answer {text!r} ({name}); choose other answers.")
    _refuse_overlap(tokenizer, tails)
    highest = max(max(ids) for ids in every)
    if highest >= rows:
        raise ValueError(
            f"The tokenizer returns the id {highest}, but the model has only {rows} rows: they do not belong together."
        )
    flat = [ids for name in CLASSES for ids in tails[name]]
    common = _common_length(flat)
    common = min(common, min(map(len, flat)) - 1)
    return {
        "text": prompt,
        "answers": {name: list(answers[name]) for name in CLASSES},
        "cut": len(head) - shared,
        "prefix": flat[0][:common],
        **{name: prefix_free([ids[common:] for ids in tails[name]]) for name in CLASSES},
    }


def _common_length(rows: Sequence[Sequence[int]]) -> int:
    length = min(map(len, rows))
    for position in range(length):
        if any(row[position] != rows[0][position] for row in rows):
            return position
    return length


def _refuse_overlap(tokenizer: Any, tails: Mapping[str, list[list[int]]]) -> None:
    for real in tails["real"]:
        for fake in tails["fake"]:
            length = min(len(real), len(fake))
            if real[:length] == fake[:length]:
                texts = [repr(tokenizer.decode(ids)) for ids in (real, fake)]
                raise ValueError(
                    f"The answers {' (real) and '.join(texts)} (fake) are equal after tokenisation, or one begins "
                    f"with the other ({real} and {fake}), so they cannot be compared; choose other answers."
                )


def answer_spans(processor: Any, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation and locate its answers, each with the marker that ends it.

    Args:
        processor: a stock processor with a chat template.
        messages: see `messages_for`; the last one must be an answer.

    Returns:
        The text, and the spans [start, end) of the answers in characters.

    Raises:
        ValueError: if the template does not write an answer after its generation prompt, which training needs to match
            inference.
    """
    text = render(processor, messages, answer_follows=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(processor, messages[:index], answer_follows=True)
        turn = render(processor, messages[: index + 1], answer_follows=False).rstrip()
        answer = "".join(part["text"] for part in message["content"]).strip()
        # Whitespace may differ: LLaVA-OneVision's own template has one more space before given answers.
        start = len(before) if text.startswith(before) else text.find(answer, len(before.rstrip()))
        if (
            start < 0
            or not text.startswith(turn)
            or not text.startswith(before.rstrip())
            or text[len(before.rstrip()) : start].strip()
            or not text[start:].lstrip().startswith(answer)
        ):
            raise ValueError(
                f"The chat template does not write turn {index} after its own generation prompt {before[-40:]!r}: "
                f"it writes {text[max(len(before) - 40, 0) : len(before) + 40]!r}. Loss on only the answer is not "
                "possible; set processor.chat_template to a template that does."
            )
        spans.append((start, len(turn)))
    return text, spans
