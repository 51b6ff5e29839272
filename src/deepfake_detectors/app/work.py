"""What the app does with a request, from the page or from a program: check, examine, answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfake_detectors.app.limits import Limits, RefusedUpload, check_upload
from deepfake_detectors.app.models import Conversations, Models, converse_about
from deepfake_detectors.app.views import Subject, subject_of
from deepfake_detectors.examination.examine import examine
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.record import source_facts
from deepfake_detectors.modeling.conversation import Conversation
from deepfake_detectors.modeling.conversation_turns import History
from deepfake_detectors.modeling.detection import require_ability
from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["Examined", "Worker"]


@dataclass(frozen=True)
class Examined:
    """An examination that is kept for the page.

    Attributes:
        record: of the examination.
        folder: `examination.json`, `sheet.html` and the images.
        source: the uploaded file.
        model: name of the detector.
        subject: the subject of a conversation; `None` if nothing was judged.
    """

    record: dict[str, Any]
    folder: Path
    source: Path
    model: str
    subject: Subject | None


class Worker:
    """Does the work of one app.

    Args:
        models: the detectors.
        limits: of the app.
        folder: the workspace, where results are kept.
    """

    def __init__(self, models: Models, limits: Limits, folder: Path) -> None:
        self.models, self.limits, self.folder = models, limits, folder
        self._conversations = Conversations(limits.conversations)
        self._last: dict[tuple[str, str], Examined] = {}  # by detector and content

    def detect(self, path: str | Path, model: str | None = None) -> dict[str, Any]:
        """Return the pipeline's row for one whole image, without cropping faces.

        Raises:
            ValueError: for a file that is refused or cannot be read, and for an unknown detector.
        """
        judge = self.models.judge(model)
        if check_upload(path, self.limits) == "video":
            raise RefusedUpload("This is a video; use the examination instead of detection on a single image.")
        row = judge.pipeline(load_image(path))
        return {name: value for name, value in row.items() if name != "mask"}

    def examine(
        self,
        path: str | Path,
        model: str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        again: bool = True,
    ) -> Examined:
        """Examine an upload with `examine()`, and keep the result in the workspace.

        Args:
            path: the upload.
            model: name of a detector; `None` for the first.
            progress: as in `examine`.
            again: also examine one of the latest files again.

        Raises:
            ValueError: for a file that is refused or cannot be read, and for an unknown detector.
        """
        judge = self.models.judge(model)
        check_upload(path, self.limits)
        name = self.models.names[0] if model is None else model
        key = (name, source_facts(Path(path))["sha256"])
        known = self._last.get(key)
        if not again and known is not None and known.folder.is_dir():
            return known
        deadline = time.monotonic() + self.limits.job_seconds

        def watch(done: int, total: int | None) -> None:
            if time.monotonic() > deadline:
                raise RefusedUpload(f"This took longer than {self.limits.job_seconds:.0f} seconds and was stopped.")
            if progress is not None:
                progress(done, total)

        localize = judge.pipeline.model.can_localize
        found = examine(path, judge, frames=self.limits.frames, localize=localize, progress=watch)
        folder = found.save(self.folder / "results" / secrets.token_urlsafe(16))
        subject = None
        if found.record["kind"] == "picture":
            subject = subject_of(found.record, folder, Path(path), judge)
        self._last[key] = examined = Examined(found.record, folder, Path(path), name, subject)
        while len(self._last) > self.limits.conversations:
            self._last.pop(next(iter(self._last)))
        return examined

    def suggestions(self, examined: Examined | None) -> list[str]:
        """Return questions that the detector was trained on; empty if it cannot converse."""
        if examined is None or examined.subject is None:
            return []
        judge = self.models.judge(examined.model)
        if not judge.pipeline.model.can_converse:
            return []
        return judge.pipeline.processor.suggested_questions(examined.subject.label)

    def conversation(self, examined: Examined) -> Conversation:
        """Return the conversation about an examined image; it is started once, and kept for a while.

        Raises:
            ValueError: if the detector cannot converse, or if nothing was judged.
        """
        judge = self.models.judge(examined.model)
        require_ability(judge.pipeline.model, "converse")
        subject = examined.subject
        if subject is None:
            raise RefusedUpload(f"No conversation is possible: {examined.record['reason'] or 'this is a video'}.")
        return self._conversation(judge, examined, subject)

    def _conversation(self, judge: Judge, examined: Examined, subject: Subject) -> Conversation:
        key = (examined.model, examined.record["source"]["sha256"])
        return self._conversations.get(key, lambda: converse_about(judge, load_image(subject.image), subject.reading))

    def answer(
        self,
        examined: Examined,
        question: str,
        history: History = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int = 256,
    ) -> Iterator[str]:
        """Yield the answer to a question as it grows.

        Args:
            examined: the image.
            question: free text.
            history: earlier questions with their answers, the oldest first.
            temperature: 0 always chooses the most likely words; at most 2.
            top_p: share of the most likely words to sample from, in (0, 1].
            max_tokens: length of the answer.

        Raises:
            ValueError: for numbers out of range, a question that is too long, and as `Conversation.ask`.
        """
        turns = self._checked(question, history)
        if not 0 <= temperature <= 2:
            raise ValueError(f"temperature is {temperature!r}, expected a number from 0 to 2.")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p!r}, expected a number above 0 and up to 1.")
        if not 1 <= max_tokens <= self.limits.answer_tokens:
            raise ValueError(f"max_tokens is {max_tokens!r}, expected 1 to {self.limits.answer_tokens}.")
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": float(temperature), "top_p": float(top_p)}
        settings = {"max_new_tokens": int(max_tokens), "max_time": self.limits.job_seconds, **sampling}
        yield from self.conversation(examined).stream(question, turns, **settings)

    def _checked(self, question: str, history: Sequence[Any]) -> list[tuple[str, str]]:
        turns = []
        for turn in history:
            pair = isinstance(turn, (list, tuple)) and len(turn) == 2
            if not pair or not all(isinstance(part, str) for part in turn):
                raise ValueError("history should be a list of [question, answer] pairs.")
            turns.append((turn[0], turn[1]))
        if len(turns) >= self.limits.turns:
            raise RefusedUpload(f"A conversation has at most {self.limits.turns} questions. Clear it to continue.")
        longest = max(map(len, (question, *(part for turn in turns for part in turn))))
        if longest > max(self.limits.question, 8 * self.limits.answer_tokens) or len(question) > self.limits.question:
            raise RefusedUpload(f"A question may have at most {self.limits.question} characters.")
        return turns
