"""How many faces does each finder find, how often does it find one where there is none, and when do the checks fire?

    python benchmarks/faces.py --data DEEPFAKE_DATA                 # both tables
    python benchmarks/faces.py --data DEEPFAKE_DATA --only finders --faces 20

Portraits of `faces_stylegan2/real/ffhq` are pasted into faceless pictures. FFHQ is aligned, so where the face lies is
known without a finder; "px" is its width, 0.6 of the portrait. Found: a box that shares 0.4 of the area (of a turned
face, of the upright box around it).
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from deepfake_detectors.examination.checks import check_image
from deepfake_detectors.examination.faces import FACE_FINDERS, FaceFinder, face_finder, overlap
from deepfake_detectors.files import walk_folder
from deepfake_detectors.modeling.image_loading import load_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.drawn_pages import drawn_page

Box = tuple[float, float, float, float]

SCENE = (800, 600)
FACE = (0.2, 0.18, 0.8, 0.92)  # left, top, right, bottom of the face in an FFHQ portrait
SHARED = 0.4
SIZES = (24, 32, 48, 64, 80, 120, 200, 300)
TURNS = (15, 30, 45, 90, 180)
HIDDEN = ("mouth", "eyes", "one half")
# Pictures of scenes_text2image that show people; looked through by eye.
WITH_FACES = frozenset(
    "diffusion1_4 diffusion1_8 diffusion2_1 diffusion2_2 diffusion2_8 diffusion3_8 diffusion4_3 diffusion4_8 "
    "gan_1 gan_4 gan_10 city_1".split()
)
PHOTOGRAPHS = (
    "photos_imagenet_sample",
    "photos_professional",
    "copymove_noso",
    "scenes_text2image",
    "photos_flux_imagen",
    "faces_stylegan2",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DEEPFAKE_DATA"), required="DEEPFAKE_DATA" not in os.environ
    )
    parser.add_argument("--faces", type=int, default=40, help="portraits per row of the table (default 40)")
    parser.add_argument("--only", choices=("finders", "checks"))
    parser.add_argument("--finders", nargs="+", choices=list(FACE_FINDERS), default=list(FACE_FINDERS))
    arguments = parser.parse_args()
    if arguments.only != "checks":
        finders = [face_finder(name) for name in arguments.finders]
        compare_finders(finders, Path(arguments.data), arguments.faces)
    if arguments.only != "finders":
        measure_checks(Path(arguments.data))
    return 0


def compare_finders(finders: Sequence[FaceFinder], data: Path, faces: int) -> None:
    portraits = [load_image(path) for path in pictures(data / "faces_stylegan2/real")[:faces]]
    faceless = [
        path
        for folder in ("scenes_text2image", "copymove_noso")
        for kind in ("real", "fake")
        for path in pictures(data / folder / kind)
        if path.stem not in WITH_FACES and path.parent.name != "people"
    ]
    empty = [load_image(path) for path in faceless]
    alone = {finder.name: [bool(finder.find(picture)) for picture in empty] for finder in finders}
    # Scenes that set off no finder, so that a find belongs to the pasted face.
    hosts = [empty[place] for place in range(len(empty)) if not any(found[place] for found in alone.values())]
    print(f"| pasted faces | {' | '.join(finder.name for finder in finders)} |")
    print("| --- |" + " --- |" * len(finders))
    seconds = dict.fromkeys((finder.name for finder in finders), 0.0)
    looked = 0
    for title, pasted in rows(portraits, hosts):
        hits = dict.fromkeys(seconds, 0)
        faces_in_row = 0
        for picture, boxes in pasted:
            faces_in_row += len(boxes)
            looked += 1
            for finder in finders:
                start = time.perf_counter()
                found = finder.find(picture)
                seconds[finder.name] += time.perf_counter() - start
                hits[finder.name] += sum(any(overlap(box, face.box) >= SHARED for face in found) for box in boxes)
        print(
            f"| {title} ({faces_in_row}) | " + " | ".join(f"{hit / faces_in_row:.3f}" for hit in hits.values()) + " |",
            flush=True,
        )
    shares = [f"{sum(found)} of {len(found)}" for found in alone.values()]
    print(f"| faceless pictures with a find | {' | '.join(shares)} |")
    times = [f"{1000 * seconds[finder.name] / looked:.0f} ms" for finder in finders]
    print(f"| time for {SCENE[0]}x{SCENE[1]} pixels | {' | '.join(times)} |")


def rows(
    portraits: Sequence[Image.Image], hosts: Sequence[Image.Image]
) -> Iterator[tuple[str, Iterator[tuple[Image.Image, list[Box]]]]]:
    """Of every row of the table, its title and its pictures with the boxes of their faces."""
    random = np.random.default_rng(0)

    def one_each(size: int, turn: int = 0, hidden: str = "") -> Iterator[tuple[Image.Image, list[Box]]]:
        for number, portrait in enumerate(portraits):
            host = scene(hosts[number % len(hosts)])
            yield host, [paste(host, covered(portrait, hidden), size, random, turn=turn)]

    def several() -> Iterator[tuple[Image.Image, list[Box]]]:
        for number in range(0, len(portraits) - 4, 5):
            host = scene(hosts[number % len(hosts)])
            boxes = [
                paste(host, portrait, int(random.integers(80, 130)), random, column=place % 3, row=place // 3)
                for place, portrait in enumerate(portraits[number : number + 5])
            ]
            yield host, boxes

    for size in SIZES:
        yield f"upright, {size} px", one_each(size)
    for turn in TURNS:
        yield f"turned by {turn} degrees, 120 px", one_each(120, turn=turn)
    for part in HIDDEN:
        yield f"{part} hidden, 120 px", one_each(120, hidden=part)
    yield "five in a picture, 80 to 130 px", several()


def scene(host: Image.Image) -> Image.Image:
    zoom = max(SCENE[0] / host.width, SCENE[1] / host.height)
    large = host.resize((math.ceil(host.width * zoom), math.ceil(host.height * zoom)), Image.Resampling.BICUBIC)
    return large.crop((0, 0, *SCENE))


def covered(portrait: Image.Image, part: str) -> Image.Image:
    """A portrait with a grey block over a part of the face."""
    blocks = {"mouth": (0.2, 0.62, 0.8, 0.95), "eyes": (0.2, 0.4, 0.8, 0.54), "one half": (0.5, 0.1, 0.85, 0.95)}
    if not part:
        return portrait
    portrait = portrait.copy()
    block = [edge * portrait.width for edge in blocks[part]]
    ImageDraw.Draw(portrait).rectangle(block, fill=(90, 90, 95))
    return portrait


def paste(
    host: Image.Image,
    portrait: Image.Image,
    size: int,
    random: np.random.Generator,
    turn: int = 0,
    column: int | None = None,
    row: int = 0,
) -> Box:
    """Put a portrait somewhere, or into a cell of three columns and two rows; return the box of its face."""
    side = round(size / (FACE[2] - FACE[0]))
    layer = portrait.resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    face = [edge * side for edge in FACE]
    if turn:
        layer = layer.rotate(turn, Image.Resampling.BICUBIC, expand=True)
        angle = math.radians(-turn)
        corners = np.array([(x - side / 2, y - side / 2) for x in face[::2] for y in face[1::2]])
        spin = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corners = corners @ spin.T + np.array(layer.size) / 2
        face = [*corners.min(axis=0), *corners.max(axis=0)]
    room = (host.width - layer.width, host.height - layer.height)
    place = [int(random.integers(0, max(1, space))) for space in room]
    if column is not None:
        place = [column * host.width // 3, row * host.height // 2]
    host.paste(layer, tuple(place), layer)
    left, top, right, bottom = (float(edge + place[axis % 2]) for axis, edge in enumerate(face))
    return left, top, right, bottom


def measure_checks(data: Path) -> None:
    print("\n| pictures | checks fire | which |\n| --- | --- | --- |")
    for kind in ("blank", "text", "drawing"):
        report(f"{kind} pages, made", [drawn_page(kind, seed) for seed in range(1000, 1100)])
    total = fired = 0
    for name in PHOTOGRAPHS:
        loaded = (load_image(path) for path in pictures(data / name / "real"))
        hits, count = report(f"photographs, {name}", loaded)
        total, fired = total + count, fired + hits
    print(f"| photographs, all | {fired} of {total} ({fired / total:.1%}) | |")


def report(title: str, images: Iterator[Image.Image] | list[Image.Image]) -> tuple[int, int]:
    names = [check.name if (check := check_image(image)) else "" for image in images]
    kinds = ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names)) if name)
    hits = sum(map(bool, names))
    print(f"| {title} | {hits} of {len(names)} ({hits / len(names):.1%}) | {kinds} |", flush=True)
    return hits, len(names)


def pictures(folder: Path) -> list[Path]:
    return walk_folder(folder, recursive=True).files


if __name__ == "__main__":
    raise SystemExit(main())
