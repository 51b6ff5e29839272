"""The exact prompts of FakeVLM, and the tokens that decide its verdict."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from .prompting_vicuna import VICUNA_SYSTEM, read_turns

__all__ = [
    "CHAT_TEMPLATES",
    "IMAGE_MARKER",
    "PROMPT_STYLES",
    "QUESTION",
    "build_prompt",
    "candidate_tokens",
    "own_candidate_tokens",
    "text_ids",
    "training_text",
    "verdict_prefix_of",
    "verdict_tokens",
]

IMAGE_MARKER = "<image>"
# The dataset's wording with its grammar mistake, which the weights were trained on.
QUESTION = "Does the image looks real/fake?"
# `raw` is used by both official evaluations, `hf_chat` by the newer training, `vicuna_v1` by the older one.
PROMPT_STYLES = ("raw", "hf_chat", "vicuna_v1")
SYSTEM = {"raw": "", "hf_chat": "", "vicuna_v1": VICUNA_SYSTEM + " "}
# Between an answer and its end token; the newer training supervises this space, the older one does not have it.
ANSWER_END = {"raw": " ", "hf_chat": " ", "vicuna_v1": ""}
# Beginning of an answer. After the raw prompt the released weights start a new line.
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


# `raw` is never used in training: its weights come from `hf_chat` training.
CHAT_TEMPLATES = {
    "raw": _chat_template("hf_chat"),
    "hf_chat": _chat_template("hf_chat"),
    "vicuna_v1": _chat_template("vicuna_v1"),
}


def build_prompt(
    question: str = QUESTION, style: str = "raw", history: Sequence[tuple[str, str]] = (), end: str = "</s>"
) -> str:
    """Return the prompt for a question about one image, up to the answer.

    Args:
        question: with or without one `<image>`. `raw` does not change a question that has one; the other styles move
            it to the front, followed by a line break.
        style: one of `PROMPT_STYLES`.
        history: earlier questions and answers, oldest first; the image is in the first turn. Later turns are those of
            the training; for `raw`, which asks only once, those of `hf_chat`.
        end: the end token, added after earlier answers.

    Raises:
        ValueError: for an unknown style, more than one `<image>`, or an `<image>` after the first question.
    """
    _check_style(style)
    if history:
        first, *later = [asked for asked, _ in history] + [question]
        if any(IMAGE_MARKER in text for text in (*later, *(answered for _, answered in history))):
            raise ValueError(f"Only the first question of a conversation may contain {IMAGE_MARKER}.")
        text, begin = build_prompt(first, style), PREFIXES[style][0]
        for (_, answered), asked in zip(history, later, strict=True):
            text += f"{begin}{answered.strip()}{ANSWER_END[style]}{end}USER: {asked.strip()} ASSISTANT:"
            begin = " "
        return text
    count = question.count(IMAGE_MARKER)
    if count > 1:
        raise ValueError(f"The question contains {IMAGE_MARKER} {count} times, but FakeVLM takes one image.")
    if style == "raw":
        return question if count else f"{IMAGE_MARKER}{question}"
    return f"{SYSTEM[style]}USER: {IMAGE_MARKER}\n{question.replace(IMAGE_MARKER, '').strip()} ASSISTANT:"


def verdict_prefix_of(style: str) -> str:
    """Return the text to append to a prompt of this style, so that the next token is "real" or "fake"."""
    _check_style(style)
    return PREFIXES[style]


def training_text(
    conversation: Sequence[Mapping[str, Any]], style: str, end: str = "</s>"
) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation as in the official training, without the begin token.

    Args:
        conversation: turns `{"from": "human"|"gpt", "value": text}` or `{"role": "user"|"assistant", "content":
            text}`, alternating, human first; with `<image>` in the first.
        style: `"hf_chat"` or `"vicuna_v1"`; `"raw"` trains as `"hf_chat"`.
        end: the end token.

    Returns:
        The text, and the spans [start, end) of its characters that are supervised (answers with their end).

    Raises:
        ValueError: for an unknown style or role, turns out of order, or a conversation without an answer.
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
    """Return ids with the begin token, without an end token that the tokenizer may append."""
    ids = list(tokenizer(text).input_ids)
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def verdict_tokens(tokenizer: Any, prompt: str, prefix: str, image_token_id: int, vocab_size: int) -> dict[str, Any]:
    """Return everything that a verdict needs from the tokenizer.

    Args:
        tokenizer: the checkpoint's own tokenizer; the same words have other ids in others.
        prompt: with one `<image>`.
        prefix: the forced beginning of the answer.
        image_token_id, vocab_size: values of the model, to detect a tokenizer that belongs to another one.

    Returns:
        `text` (prompt and prefix), `prompt` (its ids, with one image id), and the output of `candidate_tokens`.

    Raises:
        ValueError: if the tokenizer does not belong to the model; also see `candidate_tokens`.
    """
    prompt_ids = text_ids(tokenizer, prompt)
    if prompt_ids.count(image_token_id) != 1:
        raise ValueError(
            f"The tokenizer does not belong to the model: it has no {IMAGE_MARKER} with id {image_token_id} "
            f"({prompt!r} became {prompt_ids})."
        )
    tokens: dict[str, Any] = {"text": prompt + prefix, "prompt": prompt_ids}
    tokens |= candidate_tokens(partial(text_ids, tokenizer), tokenizer, prompt, prefix)
    highest = max(max(prompt_ids), max(tokens["real_sentence"]), max(tokens["fake_sentence"]))
    if highest >= vocab_size:
        raise ValueError(
            f"The tokenizer returns the id {highest}, but the model has only {vocab_size} rows: they do "
            "not belong together."
        )
    return tokens


def candidate_tokens(encode: Callable[[str], list[int]], tokenizer: Any, prompt: str, prefix: str) -> dict[str, Any]:
    """Return the ids that follow a prompt if prompt, prefix and candidate are tokenised as one text.

    A tokenizer splits a text differently than its parts: after an image SentencePiece starts with a space token, and
    it merges spaces at the end of a prompt with those of the prefix. So the ids of parts are never concatenated.

    Args:
        encode: returns the ids of a text.
        tokenizer: to show tokens in messages.
        prompt: the text before the answer.
        prefix: the forced beginning of the answer.

    Returns:
        `kept`: how many of the prompt's own ids do not change, and the ids after them: `prefix`, `real`, `fake`
        (the next token, an int), `real_sentence`, `fake_sentence` (whole answers, from the prefix on).

    Raises:
        ValueError: if "real" or "fake" is not exactly one token after the prefix.
    """
    forced = encode(prompt + prefix)
    words = {}
    for word in ("real", "fake"):
        ids = encode(f"{prompt}{prefix} {word}")
        if ids[: len(forced)] != forced:
            raise ValueError(
                f"The tokenizer merges the end of {prompt + prefix!r} with {word!r}; set another verdict_prefix."
            )
        if len(ids) != len(forced) + 1:
            pieces = tokenizer.convert_ids_to_tokens(ids[len(forced) :])
            raise ValueError(
                f"After {prompt + prefix!r}, {word!r} is {len(pieces)} tokens ({', '.join(pieces)}), but prefix "
                "scoring compares single tokens. Set another verdict_prefix."
            )
        words[word] = ids[-1]
    if words["real"] == words["fake"]:
        raise ValueError(f"'real' and 'fake' are the same token ({words['real']}): the tokenizer has neither.")
    whole = {f"{word}_sentence": encode(f"{prompt}{prefix} {word} image.") for word in words}
    columns = zip(encode(prompt), forced, *whole.values(), strict=False)
    kept = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    behind = {name: ids[kept:] for name, ids in {"prefix": forced, **whole}.items()}
    return {"kept": kept, **behind, **words}


def own_candidate_tokens(tokenizer: Any, ids: Sequence[int], prefix: str) -> dict[str, Any]:
    """Return `candidate_tokens` for a prompt given as ids.

    Only the words after the last placeholder or special token matter, because such a token separates the text. They
    are decoded from their ids, and checked to give the same ids again.

    Args:
        tokenizer: the tokenizer that made the ids.
        ids: one prompt, without padding.
        prefix: the forced beginning of the answer.

    Raises:
        ValueError: if the words cannot be decoded; also see `candidate_tokens`.
    """
    borders = set(tokenizer.get_added_vocab().values()) - {tokenizer.unk_token_id}
    last = max((place for place, token in enumerate(ids) if token in borders), default=-1)
    tail = list(ids[last + 1 :])
    border = [] if last < 0 or ids[last] == tokenizer.bos_token_id else [ids[last]]
    lead = "".join(tokenizer.convert_ids_to_tokens(border))

    def encode(text: str) -> list[int]:
        found = list(tokenizer(lead + text, add_special_tokens=False).input_ids)
        return found[len(border) :] if found[: len(border)] == border else found

    words = _words_of(tokenizer, tail, encode)
    tokens = candidate_tokens(encode, tokenizer, words, prefix)
    return {**tokens, "kept": tokens["kept"] + last + 1}


def _words_of(tokenizer: Any, ids: list[int], encode: Callable[[str], list[int]]) -> str:
    """Return the text that `encode` turns into these ids."""
    pieces = tokenizer.convert_ids_to_tokens(ids)
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    # Decoders drop the space that tokenizers prepend, and some drop a real one.
    readings = (decoded, f" {decoded}", decoded.removeprefix(" "), tokenizer.convert_tokens_to_string(pieces))
    for text in readings:
        if encode(text) == ids:
            return text
    raise ValueError(
        f"The prompt's last words {decoded!r} have other ids in the model's own tokenizer. Create input_ids with the "
        "processor of this checkpoint, and leave out words that it cannot represent."
    )


def _check_style(style: str) -> None:
    if style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style is {style!r}, allowed are {', '.join(map(repr, PROMPT_STYLES))}.")
