"""Conversations about one picture in a chat model's own template, and the tokens of its answers.

Every text is rendered whole by the template and tokenised whole; nothing is glued together from tokens, because a
tokenizer may merge the end of a prompt with the beginning of an answer.
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
    """Messages for a chat template; the picture stands in front of the first question.

    Args:
        turns: (question, answer); the last answer is `None` where it is to be written.
        system_prompt: said first, unless `None`.
        image: the picture; `None` only marks its place.
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
    """Text of a conversation by the processor's chat template, the picture's placeholder once.

    Args:
        processor: a stock processor with a chat template.
        messages: see `messages_for`.
        answer_follows: end with what introduces an answer.
    """
    return processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer_follows)


def text_ids(tokenizer: Any, text: str, offsets: bool = False) -> Any:
    """Ids of a rendered text, or its whole encoding with `offset_mapping` where `offsets`.

    As in `ProcessorMixin.apply_chat_template`, a template that writes the begin token keeps the tokenizer from it.
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
    """Text of a conversation up to the end of an answer to its last question.

    What the chat template puts between its generation prompt and an answer (a blank, empty thoughts) stays in. Some
    templates introduce answers that are given in another way than those that follow; there it follows at once, which
    is how the model is asked to write.
    """
    prompt = render(processor, messages, answer_follows=True)
    whole = render(processor, [*messages, _message("assistant", answer)], answer_follows=False)
    place = whole.find(answer.strip(), len(prompt)) if whole.startswith(prompt) else -1
    return prompt + answer if place < 0 else whole[:place] + answer.strip()


def answer_tokens(processor: Any, messages: Sequence[Mapping[str, Any]], answers: Any, rows: int) -> dict[str, Any]:
    """Everything that a verdict needs of the tokenizer.

    Args:
        processor: the checkpoint's own stock processor.
        messages: the question, see `messages_for`.
        answers: `{"real": [...], "fake": [...]}`.
        rows: of the model's table of tokens.

    Returns:
        `text` (the prompt), `answers` (as given), and ids: `cut` (how many of the prompt's last tokens are tokenised
        anew with an answer behind them; mostly 0), `prefix` (what stands behind the prompt without those, and all
        answers have in common), `real`, `fake` (lists of what follows it).

    Raises:
        ValueError: if the two classes cannot be told apart by tokens, or the tokenizer does not fit the model.
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
                raise ValueError(f"The answer {text!r} ({name}) has no tokens of its own behind the question.")
            unknown = tokenizer.unk_token_id
            if unknown is not None and unknown in ids[shared:]:
                raise ValueError(f"The tokenizer does not know the answer {text!r} ({name}); choose other answers.")
    _refuse_overlap(tokenizer, tails)
    highest = max(max(ids) for ids in every)
    if highest >= rows:
        raise ValueError(f"The tokenizer gives id {highest}, but the model has {rows} rows: they do not fit.")
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
                    f"The answers {' (real) and '.join(texts)} (fake) are equal after tokenising, or one begins with "
                    f"the other ({real} and {fake}), so they cannot be compared; choose other answers."
                )


def answer_spans(processor: Any, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
    """A whole conversation, and where in it the answers are, each with the marker that ends it.

    Args:
        processor: a stock processor with a chat template.
        messages: see `messages_for`; the last one an answer.

    Returns:
        The text, and spans [start, end) of its characters.

    Raises:
        ValueError: if the template does not write an answer behind what introduces one, as it must where a model is
            asked as it was trained.
    """
    text = render(processor, messages, answer_follows=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(processor, messages[:index], answer_follows=True)
        turn = render(processor, messages[: index + 1], answer_follows=False).rstrip()
        answer = "".join(part["text"] for part in message["content"]).strip()
        # Blanks and line breaks may differ: LLaVA-OneVision's own template has one more in front of given answers.
        start = len(before) if text.startswith(before) else text.find(answer, len(before.rstrip()))
        if (
            start < 0
            or not text.startswith(turn)
            or not text.startswith(before.rstrip())
            or text[len(before.rstrip()) : start].strip()
            or not text[start:].lstrip().startswith(answer)
        ):
            raise ValueError(
                f"The chat template does not write turn {index} behind its own generation prompt {before[-40:]!r}: "
                f"it writes {text[max(len(before) - 40, 0) : len(before) + 40]!r}. Loss on the answer alone is not "
                "possible; set processor.chat_template to a template that does."
            )
        spans.append((start, len(turn)))
    return text, spans
