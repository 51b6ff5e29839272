"""Vicuna's conversations: their system prompt, and training turns in the two formats that datasets use."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["VICUNA_SYSTEM", "read_turns"]

# Beginning of LLaVA's `vicuna_v1` conversation.
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
ROLES = {"human": "USER", "user": "USER", "gpt": "ASSISTANT", "assistant": "ASSISTANT"}


def read_turns(conversation: Sequence[Mapping[str, Any]]) -> Iterator[tuple[bool, str]]:
    """Return for each turn whether the assistant speaks, and the text.

    Args:
        conversation: turns `{"from": "human"|"gpt", "value": text}` or `{"role": "user"|"assistant", "content":
            text}`, alternating, the human first.

    Raises:
        ValueError: for an unknown role, turns out of order, or a conversation without an answer.
    """
    for index, turn in enumerate(conversation):
        speaker = turn.get("from", turn.get("role"))
        if speaker not in ROLES:
            raise ValueError(f"Turn {index} is by {speaker!r}, allowed are {', '.join(map(repr, ROLES))}.")
        if ROLES[speaker] != ("USER", "ASSISTANT")[index % 2]:
            raise ValueError(f"Turn {index} is by {speaker!r}; human and assistant must alternate, the human first.")
        yield ROLES[speaker] == "ASSISTANT", turn.get("value", turn.get("content"))
    if len(conversation) < 2:
        raise ValueError("The conversation does not contain an answer to train on.")
