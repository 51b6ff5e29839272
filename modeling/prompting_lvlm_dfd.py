"""The exact words that LVLM-DFD puts around picture, score and question."""

from collections.abc import Sequence

__all__ = ["ANSWER_END", "OPENING", "QUESTION", "SCORE_SOURCES", "dialogue_prompt", "score_sentence", "training_turns"]

QUESTION = (
    "This is a facial image designed for deepfake detection, and it should not exhibit any localized color "
    "discrepancies or evident signs of splicing. Is this a deepfake image?"
)
OPENING = "### Human: <Img>"
REPLY = "\n### Assistant:"
ANSWER_END = "\n###"
SCORE_SOURCES = ("deepfake", "KFD", "by_batch")


def score_sentence(percent: int, source: str = "deepfake") -> str:
    """What stands between the picture's token and the forgery prompts; the space at the end belongs to it."""
    return f"</Img> According to {source} prediction, the forgery score is {percent}%. "


def dialogue_prompt(question: str, history: Sequence[tuple[str, str]] = ()) -> str:
    """What stands behind the picture, ready to be answered.

    Args:
        question: the newest question.
        history: earlier questions with their answers. The published code writes "### c:" in front of later answers,
            a slip that is not repeated.
    """
    turns = "".join(f"{asked}{REPLY} {answered}{ANSWER_END} Human: " for asked, answered in history)
    return f"{turns}{question}{REPLY}"


def training_turns(conversation: Sequence[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Texts of a conversation in the order in which they are tokenised, each by itself, and which are answers.

    Args:
        conversation: questions with their answers.
    """
    turns = []
    for index, (question, answer) in enumerate(conversation):
        turns.append((f"{'Human: ' if index else ''}{question}{REPLY}", False))
        turns.append((f"{answer}{ANSWER_END}", True))
    return turns
