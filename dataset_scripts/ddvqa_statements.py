"""DD-VQA's training questions in the words of its published test questions, which state the verdict and ask why.

The annotators were asked "Do the person's eyes look real/fake?". M2F2-Det's explanations are trained and tested on
"The eyes in the image are fake, tell me why. ..."; its training file is not published, so its questions are put
together here, from the wording of the test file's questions alone. No test answer is used.
"""

from __future__ import annotations

import re

__all__ = ["PARTS", "stated_answer", "stated_question"]

PARTS = ("skin", "eyebrows", "eyes", "nose", "mouth")  # in the order of the annotators' questionnaire
WHOLE_QUESTION = "Does the image looks real/fake?"
PART_QUESTION = re.compile(r"^Do(?:es)? the person's (\w+) looks? real/fake\?$")
VERDICT_SENTENCE = re.compile(r"^(?:The image|The person's \w+) looks? (?:real|fake)\.\s*")
REASON = re.compile(r"The person's \w+ looks? [\w ]*?(?:real|fake) because\s+(\w)")

# The questions about fakes give an example of an answer each.
FAKE_EXAMPLES = {
    "skin": "The skin is overly smooth and lacks of details, such as skin texture. ",
    "eyebrows": "The eyebrows look asymmetric. ",
    "eyes": "The eyes look unnaturally asymmetric. ",
    "nose": "The nose lacks of subtle details, such as pores, fine lines. ",
    "mouth": "The mouth is misaligned with other facial features. ",
}


def stated_question(question: str, label: str, answer: str) -> str:
    """The test file's form of a training question.

    Args:
        question: as the annotators were asked, about the whole image or one of `PARTS`.
        label: `"real"` or `"fake"`.
        answer: what they answered; a question about the whole image names the parts that its answer speaks of.

    Raises:
        ValueError: for a question in other words.
    """
    if question == WHOLE_QUESTION:
        named = sorted((answer.find(part), part) for part in PARTS if part in answer)
        parts = ", ".join(part for _, part in named) or ", ".join(PARTS)
        return f"This image is {label}. Describe the authenticity of the image based on {parts}."
    asked = PART_QUESTION.match(question)
    if asked is None or asked[1] not in PARTS:
        raise ValueError(
            f"{question!r} has no stated form; expected {WHOLE_QUESTION!r}, or the same about the person's "
            f"{', '.join(PARTS)}. Use questions='collected'."
        )
    part = asked[1]
    verb = "are" if part.startswith("eye") else "is"
    start = f"The {part} in the image {verb} {label}, tell me why. Answer in one sentence in the format"
    if label == "real":
        return f'{start}"The person has naturally …… {part}."'
    # The questions about eyes have "like" at another place.
    early, late = (" like", "") if part == "eyes" else ("", " like")
    return (
        f'{start}"The {part} ……"{early}. Instead of saying, "The {part} {verb} fake because" '
        f'directly answer why{late} "{FAKE_EXAMPLES[part]}"'
    )


def stated_answer(answer: str) -> str:
    """The answer without what the stated question has said already: the verdict, and that a reason follows."""
    words = VERDICT_SENTENCE.sub("", answer.strip())
    words = REASON.sub(lambda found: found[1].upper(), words).strip()
    return words or answer.strip()
