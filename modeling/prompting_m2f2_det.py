"""The exact prompts of M2F2-Det: those of the official command line, and the training template."""

from collections.abc import Mapping, Sequence
from typing import Any

from .prompting_vicuna import VICUNA_SYSTEM, read_turns

__all__ = [
    "DEEPFAKE_MARKER",
    "EXPLANATION_QUESTION",
    "IMAGE_MARKER",
    "JUDGEMENT_QUESTION",
    "NAMED_QUESTIONS",
    "PROMPT_STYLES",
    "TRAINING_JUDGEMENT_QUESTION",
    "VICUNA_CHAT_TEMPLATE",
    "inference_prompt",
    "judgement_prompt",
    "training_prompt",
]

IMAGE_MARKER = "<image>"
DEEPFAKE_MARKER = "<deepfake>"
PROMPT_STYLES = ("official_cli", "vicuna_v1")

# Official command line, evaluation of both tasks.
CLI_HEAD = (
    "Assistant: A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions.###Human: "
)
JUDGEMENT_QUESTION = "Determine the authenticity. Is the image real or fake?"
TRAINING_JUDGEMENT_QUESTION = "Do the image looks real or fake?"  # from the official training file
# The wording of DD-VQA's general questions, with the verdict, which the official data takes from the label.
EXPLANATION_QUESTION = (
    "This image is {verdict}. Describe the authenticity of the image based on skin, eyebrows, eyes, nose, mouth."
)

# Questions with a name, such as `question="demo"`: those of the evaluation and of the training, and the first turn of
# the official demo page ("Gradio Demo").
NAMED_QUESTIONS = {
    "judgement": JUDGEMENT_QUESTION,
    "training": TRAINING_JUDGEMENT_QUESTION,
    "demo": "Determine the authenticity of this image",
}

# Official training (LLaVA's vicuna_v1 conversation).
END = "</s>"

# The same for `apply_chat_template`; the generation tags let trainers find the assistant's tokens.
VICUNA_CHAT_TEMPLATE = (
    "{{ '" + VICUNA_SYSTEM.replace("'", "\\'") + " ' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ 'USER: ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<image>\n<deepfake>\n\n\n' }}{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ ' ASSISTANT:' }}"
    "{% else %}"
    "{% generation %}{{ ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}{{ item['text'] }}{% endfor %}{% endif %}"
    "{{ '</s>' }}{% endgeneration %}"
    "{% endif %}"
    "{% endfor %}"
)


def judgement_prompt(style: str = "official_cli", newline_compat: bool = True) -> str:
    """Return the prompt for "real or fake".

    Args:
        style: `"official_cli"` as in the released evaluation (note the spaces after both line breaks), `"vicuna_v1"`
            as in training, with other words.
        newline_compat: see `inference_prompt`.
    """
    if style != "official_cli":
        return inference_prompt(TRAINING_JUDGEMENT_QUESTION, style, newline_compat)
    return f"{CLI_HEAD}{IMAGE_MARKER}\n {DEEPFAKE_MARKER}\n {JUDGEMENT_QUESTION} ###Assistant:"


def inference_prompt(
    question: str,
    style: str = "official_cli",
    newline_compat: bool = True,
    history: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the prompt for a question about one image, up to the answer.

    Args:
        question: without markers; stripped.
        style: `"official_cli"` as in the released evaluation, `"vicuna_v1"` as in training.
        newline_compat: three line breaks before a `vicuna_v1` question instead of one, as in the official code by
            accident.
        history: earlier questions and answers, oldest first; the image is in the first turn. Turns of `vicuna_v1` are
            those of the training. The official command line asks only once, so later turns of `official_cli` follow
            the LLaVA conversation that its prompt comes from.
    """
    _check_style(style)
    first, *later = [asked.strip() for asked, _ in history] + [question.strip()]
    answers = [answered.strip() for _, answered in history]
    if style == "official_cli":
        turns = "".join(f" {said}###Human: {asked} ###Assistant:" for said, asked in zip(answers, later, strict=True))
        return f"{CLI_HEAD}{IMAGE_MARKER}\n{DEEPFAKE_MARKER}\n{first} ###Assistant:{turns}"
    turns = "".join(f" {said}{END}USER: {asked} ASSISTANT:" for said, asked in zip(answers, later, strict=True))
    opening = _normalised(f"{IMAGE_MARKER}\n{DEEPFAKE_MARKER}\n{first}", newline_compat)
    return f"{VICUNA_SYSTEM} USER: {opening} ASSISTANT:{turns}"


def training_prompt(
    conversation: Sequence[Mapping[str, Any]], newline_compat: bool = True
) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation in the training template.

    Args:
        conversation: turns `{"from": "human"|"gpt", "value": text}` or `{"role": "user"|"assistant", "content":
            text}`, alternating, human first.
        newline_compat: see `inference_prompt`.

    Returns:
        The text, and the spans [start, end) of its characters that are supervised (answers with their `</s>`).

    Raises:
        ValueError: for an unknown role, or turns out of order.
    """
    text, spans = VICUNA_SYSTEM + " ", []
    for by_assistant, content in read_turns(conversation):
        if not by_assistant:
            text += f"USER: {_normalised(content, newline_compat)} ASSISTANT:"
        else:
            start = len(text)
            text += f" {content}{END}"
            spans.append((start, len(text)))
    return text, spans


def _normalised(turn: str, newline_compat: bool) -> str:
    """Move the markers to the front one by one, as the official placeholder normaliser does."""
    for marker in (IMAGE_MARKER, DEEPFAKE_MARKER):
        if turn.count(marker) > 1:
            raise ValueError(
                f"A turn contains {turn.count(marker)} {marker} markers; an image needs exactly one: {turn!r}"
            )
    if not newline_compat:
        marked = [marker for marker in (IMAGE_MARKER, DEEPFAKE_MARKER) if marker in turn]
        for marker in marked:
            turn = turn.replace(marker, "")
        return "\n".join([*marked, turn.strip()])
    for marker in (DEEPFAKE_MARKER, IMAGE_MARKER):
        if marker in turn:
            turn = f"{marker}\n{turn.replace(marker, '').strip()}".strip()
    return turn


def _check_style(style: str) -> None:
    if style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style is {style!r}, allowed are {', '.join(map(repr, PROMPT_STYLES))}.")
