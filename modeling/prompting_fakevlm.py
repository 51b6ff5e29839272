"""The exact prompts of FakeVLM, and the tokens that its verdict is read from."""

from collections.abc import Mapping, Sequence
from typing import Any

from .prompting_vicuna import VICUNA_SYSTEM, read_turns

__all__ = [
    "CHAT_TEMPLATES",
    "IMAGE_MARKER",
    "PROMPT_STYLES",
    "QUESTION",
    "build_prompt",
    "text_ids",
    "training_text",
    "verdict_prefix_of",
    "verdict_tokens",
]

IMAGE_MARKER = "<image>"
# The data set's wording, grammar slip included: the weights were trained on it.
QUESTION = "Does the image looks real/fake?"
# `raw` is what both official evaluations feed; `hf_chat` what the newer training feeds; `vicuna_v1` the older one.
PROMPT_STYLES = ("raw", "hf_chat", "vicuna_v1")
SYSTEM = {"raw": "", "hf_chat": "", "vicuna_v1": VICUNA_SYSTEM + " "}
# Between an answer and its end token; the newer training supervises this space, the older one has none.
ANSWER_END = {"raw": " ", "hf_chat": " ", "vicuna_v1": ""}
# How an answer begins. Behind the raw prompt the released weights start a new line.
PREFIXES = {"raw": "\nThis is a", "hf_chat": " This is a", "vicuna_v1": " This is a"}


def _chat_template(style: str) -> str:
    system = SYSTEM[style].replace("'", "\\'")
    return (
        "{{ bos_token }}{{ '" + system + "' }}"
        "{% for message in messages %}"
        "{% if message['role'] == 'user' %}"
        "{{ 'USER: ' }}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}"
        "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
        "{% for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}"
        "{% endif %}"
        "{{ ' ' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ 'ASSISTANT:' }}{% generation %}{{ ' ' }}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for item in message['content'] %}{{ item['text'] }}{% endfor %}{% endif %}"
        "{{ '" + ANSWER_END[style] + "' }}{{ eos_token }}{% endgeneration %}"
        "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


# Nobody trains on `raw`: its weights come from `hf_chat` training.
CHAT_TEMPLATES = {
    "raw": _chat_template("hf_chat"),
    "hf_chat": _chat_template("hf_chat"),
    "vicuna_v1": _chat_template("vicuna_v1"),
}


def build_prompt(question: str = QUESTION, style: str = "raw") -> str:
    """A question on one picture, ready to be answered.

    Args:
        question: with or without one `<image>`. `raw` leaves a question that has one exactly as it is; the other
            styles move it to the front, followed by a line break.
        style: one of `PROMPT_STYLES`.

    Raises:
        ValueError: for another style, or more than one `<image>`.
    """
    _check_style(style)
    count = question.count(IMAGE_MARKER)
    if count > 1:
        raise ValueError(f"The question holds {count} {IMAGE_MARKER}, but FakeVLM is asked about one picture.")
    if style == "raw":
        return question if count else f"{IMAGE_MARKER}{question}"
    return f"{SYSTEM[style]}USER: {IMAGE_MARKER}\n{question.replace(IMAGE_MARKER, '').strip()} ASSISTANT:"


def verdict_prefix_of(style: str) -> str:
    """What is put behind a prompt of this style, so that the next token is "real" or "fake"."""
    _check_style(style)
    return PREFIXES[style]


def training_text(
    conversation: Sequence[Mapping[str, Any]], style: str, end: str = "</s>"
) -> tuple[str, list[tuple[int, int]]]:
    """A whole conversation as the official training feeds it, without the begin token.

    Args:
        conversation: turns `{"from": "human"|"gpt", "value": text}` or `{"role": "user"|"assistant", "content":
            text}`, alternating, the human first; the picture's `<image>` in the first.
        style: `"hf_chat"` or `"vicuna_v1"`; `"raw"` trains as `"hf_chat"`.
        end: the end token.

    Returns:
        The text, and the spans [start, end) of its characters that are supervised (answers with what ends them).

    Raises:
        ValueError: for an unknown style or role, turns out of order, or no answer.
    """
    _check_style(style)
    style = "hf_chat" if style == "raw" else style
    text, spans = SYSTEM[style], []
    for by_assistant, content in read_turns(conversation):
        if not by_assistant:
            words = content.replace(IMAGE_MARKER, "").strip()
            marker = f"{IMAGE_MARKER}\n" if IMAGE_MARKER in content else ""
            text += f"USER: {marker}{words} ASSISTANT:"
        else:
            start = len(text)
            text += f" {content}{ANSWER_END[style]}{end}"
            spans.append((start, len(text)))
    return text, spans


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids with the begin token, without an end token that the tokenizer may append."""
    ids = list(tokenizer(text).input_ids)
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def verdict_tokens(tokenizer: Any, prompt: str, prefix: str, image_token_id: int, vocab_size: int) -> dict[str, Any]:
    """Everything that a verdict needs of the tokenizer.

    Args:
        tokenizer: the checkpoint's own; the same words have other ids elsewhere.
        prompt: with one `<image>`.
        prefix: the forced beginning of the answer.
        image_token_id, vocab_size: of the model, to recognise a tokenizer that belongs to another one.

    Returns:
        `text` (prompt and prefix), and ids: `prompt` (one image id), `prefix`, `real`, `fake` (the next token, an
        int), `real_sentence`, `fake_sentence` (whole answers, from the prefix on).

    Raises:
        ValueError: if the tokenizer does not fit the model, if prefix and prompt merge into one token, or if "real"
            or "fake" is not exactly one token behind the prefix.
    """
    prompt_ids = text_ids(tokenizer, prompt)
    if prompt_ids.count(image_token_id) != 1:
        raise ValueError(
            f"The tokenizer does not fit the model: it has no {IMAGE_MARKER} with id {image_token_id} "
            f"({prompt!r} became {prompt_ids})."
        )
    tokens: dict[str, Any] = {"text": prompt + prefix, "prompt": prompt_ids}
    tokens["prefix"] = _behind(tokenizer, prompt_ids, prompt, prefix)
    for word in ("real", "fake"):
        candidate = _behind(tokenizer, [*prompt_ids, *tokens["prefix"]], prompt + prefix, f" {word}")
        if len(candidate) != 1:
            pieces = tokenizer.convert_ids_to_tokens(candidate)
            raise ValueError(
                f"Behind {prompt + prefix!r}, {word!r} is {len(candidate)} tokens ({', '.join(pieces)}), but prefix "
                "scoring compares one with one. Set another verdict_prefix."
            )
        tokens[word] = candidate[0]
        tokens[f"{word}_sentence"] = _behind(tokenizer, prompt_ids, prompt, f"{prefix} {word} image.")
    if tokens["real"] == tokens["fake"]:
        raise ValueError(f"'real' and 'fake' are the same token ({tokens['real']}): the tokenizer knows neither.")
    highest = max(max(prompt_ids), max(tokens["real_sentence"]), max(tokens["fake_sentence"]))
    if highest >= vocab_size:
        raise ValueError(f"The tokenizer gives id {highest}, but the model has {vocab_size} rows: they do not fit.")
    return tokens


def _behind(tokenizer: Any, head: list[int], before: str, text: str) -> list[int]:
    """Ids of `text` where it follows `before`."""
    ids = text_ids(tokenizer, before + text)
    if ids[: len(head)] != head:
        raise ValueError(
            f"The tokenizer merges the end of {before!r} with {text!r}; give a verdict_prefix that starts a new token."
        )
    return ids[len(head) :]


def _check_style(style: str) -> None:
    if style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style is {style!r}, allowed are {', '.join(map(repr, PROMPT_STYLES))}.")
