"""How an examination is shown: the text, the image with its boxes, crops, frames, mask and timeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from deepfake_detectors.examination.decision import decision_in_words
from deepfake_detectors.examination.judging import Judge, Reading
from deepfake_detectors.examination.sampling import frame_name
from deepfake_detectors.examination.sheet import TONES, headline, reading_in_words
from deepfake_detectors.examination.timeline import draw_timeline
from deepfake_detectors.masks import draw_overlay
from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["Subject", "View", "blended", "subject_of", "view_of"]

MOST_FACES = 12
SUMMARY = """\
<section class="dfd-summary dfd-{{ tone }}" aria-live="polite">
<p class="dfd-decision">{{ decision }}</p>
<p class="dfd-headline">{{ headline }}</p>
{% for said in readings %}
<p><strong>{{ said.title }}{% if said.decides %} (decides){% endif %}:</strong> {{ said.words }}
{%- if said.fake_probability is not none %}, P(fake) {{ "%.3f"|format(said.fake_probability) }}, threshold
{{ "%.3g"|format(said.threshold) }}{% endif %}.
{% if said.status %} {{ said.status }}{% endif %}</p>
{% for line in said.lines %}<p class="dfd-small">{{ line }}</p>{% endfor %}
{% if said.license_notice %}<p class="dfd-small">{{ said.license_notice }}</p>{% endif %}
{% endfor %}
<p class="dfd-small">P(fake) is an estimate from 0 (real) to 1 (fake). This is an indication, not proof.</p>
</section>"""


@dataclass(frozen=True)
class View:
    """Parts of a page.

    Attributes:
        summary: HTML: the decision in words, P(fake), threshold, measured error rates.
        picture: file of the image, or of the worst frame.
        boxes: of its faces, `(left, top, right, bottom)` in pixels of that file, with a label.
        crops: file and caption of each judged face.
        frames: file and caption of the worst frames of a video.
        timeline: SVG of a video; empty for an image.
        mask: files of the mask and of the image below it; `None` if there is no mask.
    """

    summary: str
    picture: str | None
    boxes: list[tuple[tuple[int, int, int, int], str]]
    crops: list[tuple[str, str]]
    frames: list[tuple[str, str]]
    timeline: str
    mask: tuple[str, str] | None


def view_of(record: Mapping[str, Any], folder: Path, source: Path) -> View:
    """Return the parts of an examination that are shown.

    Args:
        record: of the examination.
        folder: where it was saved.
        source: the examined file.
    """
    shown = {frame["index"]: folder / "frames" / f"{frame_name(frame['index'])}.jpg" for frame in record["frames"]}
    shown = {index: path for index, path in shown.items() if path.is_file()}
    worst = [index for said in record["readings"] for index in said["worst_frames"] if index in shown]
    order = list(dict.fromkeys([*worst, *shown]))
    frames = {frame["index"]: frame for frame in record["frames"]}
    first = frames[order[0]] if order else None
    faces = [] if first is None else [face for face in first["faces"] if face["verdicts"]][:MOST_FACES]
    return View(
        summary=_summary(record),
        picture=None if first is None else str(shown[first["index"]]),
        boxes=[] if first is None else [_box(face, first, shown[first["index"]]) for face in faces],
        crops=[(str(folder / _worst_verdict(face)["crop"]), _caption(face)) for face in faces],
        frames=[(str(shown[index]), _frame_caption(frames[index])) for index in order]
        if record["kind"] == "video"
        else [],
        timeline=draw_timeline(record) or "",
        mask=_mask(record, folder, source),
    )


def _summary(record: Mapping[str, Any]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(SUMMARY).render(
        tone=TONES[record["decision"]],
        decision=decision_in_words(record["decision"]),
        headline=headline(record),
        readings=[reading_in_words(record, said) for said in record["readings"]],
    )


def _worst_verdict(face: Mapping[str, Any]) -> dict[str, Any]:
    return max(face["verdicts"], key=lambda verdict: verdict["fake_probability"])


def _caption(face: Mapping[str, Any]) -> str:
    verdict = _worst_verdict(face)
    return f"Face {face['track']}: P(fake) {verdict['fake_probability']:.3f}, {decision_in_words(verdict['decision'])}"


def _frame_caption(frame: Mapping[str, Any]) -> str:
    verdicts = [*frame["verdicts"], *(verdict for face in frame["faces"] for verdict in face["verdicts"])]
    worst = max((verdict["fake_probability"] for verdict in verdicts), default=None)
    return f"At {frame['seconds']:.1f} s" + ("" if worst is None else f": highest P(fake) {worst:.3f}")


def _box(face: Mapping[str, Any], frame: Mapping[str, Any], path: Path) -> tuple[tuple[int, int, int, int], str]:
    width, height = load_image(path).size
    scale = (width / frame["width"], height / frame["height"])
    left, top, right, bottom = (round(edge * scale[n % 2]) for n, edge in enumerate(face["box"]))
    box = (max(0, left), max(0, top), min(width, right), min(height, bottom))
    return box, _caption(face)


def _mask(record: Mapping[str, Any], folder: Path, source: Path) -> tuple[str, str] | None:
    """Mask of the part that decides, and the image below it: a face crop, or the whole image."""
    for frame in record["frames"]:
        for face in frame["faces"]:
            if face["track"] == record["deciding"]["track"]:
                for verdict in face["verdicts"]:
                    if verdict.get("mask"):
                        return str(folder / verdict["mask"]), str(folder / verdict["crop"])
        for verdict in frame["verdicts"]:
            if verdict.get("mask") and record["kind"] == "picture":
                return str(folder / verdict["mask"]), str(source)
    return None


def blended(mask: tuple[str, str], strength: float) -> Image.Image:
    """Return the image with the mask drawn over it, with a `strength` in [0, 1]: 0 shows only the image."""
    image = load_image(mask[1])
    return Image.blend(image, draw_overlay(image, load_image(mask[0]).convert("L")), strength)


@dataclass(frozen=True)
class Subject:
    """What a conversation is about.

    Attributes:
        image: file of the face crop, or of the whole image.
        reading: the verdict on it.
        label: `"real"` or `"fake"`, by the threshold.
    """

    image: str
    reading: Reading
    label: str


def subject_of(record: Mapping[str, Any], folder: Path, source: Path, judge: Judge) -> Subject | None:
    """Return the subject of a conversation: the face or image that decides; `None` if nothing was judged."""
    deciding = record["deciding"]
    reading = next(each for each in judge.readings() if each.head == deciding["head"])
    said = next(each for each in record["readings"] if each["head"] == deciding["head"])
    if said["fake_probability"] is None:
        return None
    if reading.subject == "picture":
        return Subject(str(source), reading, said["label"])
    for frame in record["frames"]:
        for face in frame["faces"]:
            for verdict in face["verdicts"]:
                if face["track"] == deciding["track"] and verdict["head"] == reading.head:
                    return Subject(str(folder / verdict["crop"]), reading, said["label"])
    return None
