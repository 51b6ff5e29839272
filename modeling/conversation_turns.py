"""What is asked of each picture of a batch: a question, and the turns of the conversation before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Histories", "History", "checked_turns", "has_one_per_picture", "turns_per_picture"]

# Earlier questions with their answers, the oldest first.
History = Sequence[tuple[str, str]]
# One for every picture of a batch, or one per picture.
Histories = History | Sequence[History]


def has_one_per_picture(history: Histories | None) -> bool:
    """Return whether these are histories of several pictures, not the turns of one that holds for all."""
    return any(isinstance(item, (list, tuple)) and not (item and isinstance(item[0], str)) for item in history or ())


def turns_per_picture(
    question: str | Sequence[str | None] | None, history: Histories | None, pictures: int
) -> list[tuple[str | None, list[tuple[str, str]]]]:
    """Lay out what is asked of each picture of a batch.

    Args:
        question: one for every picture, or a list with one per picture; `None` is the family's own.
        history: earlier questions with their answers, the oldest first, `[(question, answer), ...]` for every picture;
            or a list of such lists, one per picture, empty where nothing was said before.
        pictures: their number.

    Returns:
        Question and history of each picture.

    Raises:
        ValueError: if there are more or fewer questions or histories than pictures, or if a turn is not a pair of
            texts.
    """
    questions = [question] * pictures if question is None or isinstance(question, str) else list(question)
    histories = [history or ()] * pictures if not has_one_per_picture(history) else list(history or ())
    for name, given in (("question", questions), ("history", histories)):
        if len(given) != pictures:
            raise ValueError(
                f"{name} is given for {len(given)} pictures, but there are {pictures}: give one per picture, or one "
                "for all of them."
            )
    for asked in questions:
        if asked is not None and not isinstance(asked, str):
            raise ValueError(f"question holds {asked!r}, expected a text, or None for the family's own question.")
    return [(asked, checked_turns(turns)) for asked, turns in zip(questions, histories, strict=True)]


def checked_turns(history: Any) -> list[tuple[str, str]]:
    """Return the turns of one history.

    Raises:
        ValueError: for one that is not a pair of texts.
    """
    turns = list(history) if isinstance(history, (list, tuple)) else [history]
    for turn in turns:
        if not (isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise ValueError(
                f"history holds {turn!r}, expected (question, answer), both texts: [(question, answer), ...] for all "
                "pictures, or a list of such lists, one per picture."
            )
    return [(asked, answered) for asked, answered in turns]
