"""Judge images with known labels, print the decisions next to the labels, and draw all images on one sheet.

Needs: `pip install deepfake-detectors`, no network. About a CPU second an image. Whole images go to the head
"picture" of the built-in checkpoint, crops of faces to its head "face".

    python examples/demo.py --output outputs/demo.png

With the environment variable DEEPFAKE_DATA, a folder that contains `demo_pictures/` and `ddvqa/`, their images are
also judged (`--repository-only` skips them). They are only shown on the sheet and not copied anywhere else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from transformers import pipeline
from transformers.utils import logging

import deepfake_detectors  # noqa: F401  (registers the task)
from deepfake_detectors.modeling.image_loading import load_image

PICTURES = Path(__file__).parent / "pictures"
FAKES = {"0": "Deepfakes", "1": "Face2Face", "3": "FaceSwap", "6": "NeuralTextures"}  # file name: type_target[_source]
REAL = "5"
RIGHT = {"likely real": "real", "likely fake": "fake"}
NO_BAND = "no decision band"
COLOURS = {"right": "#2b7a3d", "wrong": "#c0392b", "open": "#7a7a7a"}
TILE, GAP, CAPTION, COLUMNS = 190, 14, 58, 6
MEANING = (
    "P(fake) is a score of small linear heads, not proof. A decision is only given outside the checkpoint's band, "
    "and its measured error rates hold for images like those it was fitted on; on professional photographs against "
    "current generators the head for whole images is no better than chance."
)


class Case(NamedTuple):
    """An image with its label: `group` is the heading on the sheet, `head` the head that judges it."""

    group: str
    name: str
    truth: str
    head: str
    image: Image.Image


def cases(data: Path | None, per_class: int) -> Iterator[Case]:
    """All images, in the order of the sheet."""
    for path in sorted(PICTURES.glob("*.jpg"), reverse=True):
        yield Case("Whole images of this repository", path.stem, path.stem.split("_")[0], "picture", load_image(path))
    for name, box in json.loads((PICTURES / "faces.json").read_text(encoding="utf-8")).items():
        crop = load_image(PICTURES / name).crop(box)
        yield Case("Faces of this repository", Path(name).stem, name.split("_")[0], "face", crop)
    if data is None:
        return
    whole = data / "demo_pictures"
    for path in sorted(whole.rglob("*.jpg"), reverse=True) if whole.is_dir() else ():
        yield Case("demo_pictures", path.stem, path.relative_to(whole).parts[0], "picture", load_image(path))
    faces = data / "ddvqa" / "images_c40" / "test"
    if faces.is_dir():
        for path, truth in choose_faces(faces, per_class):
            yield Case("FaceForensics++ faces, compression c40", path.stem, truth, "face", load_image(path))


def choose_faces(folder: Path, per_class: int) -> list[tuple[Path, str]]:
    """The first real faces in name order, and as many fakes, taking the manipulations in turn."""
    by_type = {kind: sorted(folder.glob(f"{kind}_*.jpg")) for kind in [REAL, *FAKES]}
    if not all(by_type.values()):
        empty = ", ".join(kind for kind, found in by_type.items() if not found)
        raise ValueError(f"{folder} lacks images of type {empty}; DEEPFAKE_DATA must be the folder above ddvqa/.")
    turns = [by_type[kind][turn] for turn in range(per_class) for kind in FAKES if turn < len(by_type[kind])]
    return [(path, "real") for path in by_type[REAL][:per_class]] + [(path, "fake") for path in turns[:per_class]]


def outcome(case: Case, row: dict[str, Any]) -> str:
    """`right`, `wrong`, or `open` if nothing was decided."""
    said = RIGHT.get(row["decision"])
    return "open" if said is None else "right" if said == case.truth else "wrong"


def draw_sheet(judged: list[tuple[Case, dict[str, Any]]]) -> Image.Image:
    """Every image with its label, decision and P(fake), under the heading of its group."""
    groups: dict[str, list[tuple[Case, dict[str, Any]]]] = {}
    for case, row in judged:
        groups.setdefault(case.group, []).append((case, row))
    lines = sum(-(-len(group) // COLUMNS) for group in groups.values())
    width = COLUMNS * (TILE + GAP) + GAP
    words = wrapped(MEANING, ImageFont.load_default(15), width - 2 * GAP)
    height = lines * (TILE + CAPTION + GAP) + len(groups) * 34 + GAP * 2 + 20 * len(words)
    sheet = Image.new("RGB", (width, height), "white")
    pen, small, heading = ImageDraw.Draw(sheet), ImageFont.load_default(13), ImageFont.load_default(18)
    top = GAP
    for name, group in groups.items():
        pen.text((GAP, top), name, fill="black", font=heading)
        top += 34
        for place, (case, row) in enumerate(group):
            left = GAP + place % COLUMNS * (TILE + GAP)
            if place and place % COLUMNS == 0:
                top += TILE + CAPTION + GAP
            colour = COLOURS[outcome(case, row)]
            picture = case.image.copy()
            picture.thumbnail((TILE - 8, TILE - 8))
            pen.rectangle((left, top, left + TILE, top + TILE), outline=colour, width=4)
            sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
            pen.text((left, top + TILE + 3), shortened(case.name, small), fill="black", font=small)
            pen.text((left, top + TILE + 19), f"truth: {case.truth}", fill="black", font=small)
            said = row["decision"] or NO_BAND
            pen.text((left, top + TILE + 35), f"{said}, P = {row['fake_probability']:.2f}", fill=colour, font=small)
        top += TILE + CAPTION + GAP
    for line in words:
        pen.text((GAP, top), line, fill="black", font=ImageFont.load_default(15))
        top += 20
    return sheet


def shortened(text: str, font: Any) -> str:
    while font.getlength(text) > TILE:
        text = f"{text[:-2].rstrip('.')}."
    return text


def wrapped(text: str, font: Any, width: int) -> list[str]:
    """The text split into lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def show(judged: list[tuple[Case, dict[str, Any]]]) -> None:
    """Print a table, and the number of correct decisions."""
    table = Table("picture", "truth", "head", "P(fake)", "decision", title="Decisions and true labels")
    for case, row in judged:
        found = outcome(case, row)
        said = f"{row['decision'] or NO_BAND}{' (wrong)' if found == 'wrong' else ''}"
        table.add_row(case.name, case.truth, case.head, f"{row['fake_probability']:.2f}", said)
    console = Console()
    console.print(table)
    for name in dict.fromkeys(case.group for case, _ in judged):
        found = [outcome(case, row) for case, row in judged if case.group == name]
        decided = len(found) - found.count("open")
        console.print(
            f"{name}: {decided} decided, {found.count('right')} of them correct; {len(found) - decided} open."
        )
    console.print(MEANING, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo.png"), help="sheet to write (PNG)")
    parser.add_argument("--per-class", type=int, default=6, help="real and fake faces of FaceForensics++ (default: 6)")
    parser.add_argument("--repository-only", action="store_true", help="skip the images of DEEPFAKE_DATA")
    arguments = parser.parse_args()
    root = None if arguments.repository_only else os.environ.get("DEEPFAKE_DATA")
    logging.disable_progress_bar()
    detector = pipeline("deepfake-detection")
    judged = [
        (case, detector(case.image, head=case.head))
        for case in cases(Path(root) if root else None, arguments.per_class)
    ]
    show(judged)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(judged).quantize(256).save(arguments.output, optimize=True)
    Console().print(f"Sheet with all images: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
