"""Good files of every kind that is decoded, and what decodes them."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, features
from safetensors.torch import save_file

from deepfake_detectors.conversion.checkpoint_files import read_tensors
from deepfake_detectors.dataset_scripts._archives import list_members, read_picture
from deepfake_detectors.dataset_scripts._files import open_image, read_csv
from deepfake_detectors.evaluation.predictions import read_frame_scores, read_json_lines, read_rows
from deepfake_detectors.examination.examine import examine
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.record import RECORD_FILE
from deepfake_detectors.examination.replay import replay
from deepfake_detectors.examination.video import probe, sample_frames
from deepfake_detectors.files import read_yaml
from deepfake_detectors.modeling.image_loading import load_image, read_image_facts
from deepfake_detectors.pipelines import load_config
from support.clips import write_clip
from support.pictures import random_pictures
from support.tiny_models import tiny_fakevlm, tiny_m2f2_det


@dataclass(frozen=True)
class Kind:
    """What is decoded alike.

    Attributes:
        seeds: good files, whole.
        decode: reads one file; anything but an error that names the file is a fault.
        share: of all mutations; slow kinds get fewer.
        one_object: each seed is one JSON object, of which single values are changed, too.
        named: the file to write, where the decoder wants a name; the suffix of the seed otherwise.
    """

    seeds: tuple[Path, ...]
    decode: Callable[[Path], Any]
    share: int
    named: Path | None = None
    one_object: bool = False


def _pictures(folder: Path) -> Iterator[Path]:
    picture = random_pictures(1)[0].resize((40, 30))
    forms: dict[str, dict[str, Any]] = {
        "a.jpg": {},
        "progressive.jpg": {"progressive": True},
        "a.png": {},
        "interlaced.png": {"interlace": 1},
        "a.webp": {},
        "lossless.webp": {"lossless": True},
        "a.gif": {},
        "a.bmp": {},
        "a.tif": {},
        "lzw.tif": {"compression": "tiff_lzw"},
        "jpeg.tif": {"compression": "jpeg"},
        "a.ppm": {},
    }
    if features.check("jpg_2000"):
        forms["a.jp2"] = {}
    if features.check("avif"):
        forms["a.avif"] = {}
    for name, options in forms.items():
        picture.save(folder / name, **options)
        yield folder / name
    exif = Image.Exif()
    exif[0x0112] = 6
    modes = {
        "p.png": "P",
        "la.png": "LA",
        "rgba.png": "RGBA",
        "one.png": "1",
        "sixteen.png": "I;16",
        "cmyk.jpg": "CMYK",
    }
    for name, mode in modes.items():
        # Sixteen bits over their whole range: a dark picture could be one of fewer bits, and is refused.
        source = picture.convert("L").convert("I").point(lambda grey: grey * 257) if mode == "I;16" else picture
        source.convert(mode).save(folder / name, exif=exif)
        yield folder / name
    frames = [picture, picture.rotate(90)]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=100)
        yield folder / name


def _clips(folder: Path) -> Iterator[Path]:
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx")):
        yield write_clip(folder / name, 8, size=(64, 48), codec=codec)


def _archives(folder: Path, picture: bytes) -> Iterator[Path]:
    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            archive.writestr("real/a.png", picture)
            archive.writestr("fake/b.png", picture)
        yield folder / name
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.bz2", "w:bz2")):
        with tarfile.open(folder / name, mode) as tar:
            info = tarfile.TarInfo("real/a.png")
            info.size = len(picture)
            tar.addfile(info, io.BytesIO(picture))
        yield folder / name
    (folder / "two.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes()) + gzip.compress(b""))
    yield folder / "two.tar.gz"


def _written(folder: Path, contents: dict[str, str | bytes]) -> tuple[Path, ...]:
    for name, content in contents.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return tuple(folder / name for name in contents)


TABLE = 'image_id,ground_truth,prediction\n0_1,1,0.5\n"0_ä",0,0.25\n'
ROWS = '{"id": "a", "label": "real", "score": 0.5}\n{"id": "b", "label": "fake", "score": 0.75, "text": "ä"}\n'
RECIPE = (
    "encoder: a/b\noutput_dir: out\nheads:\n  picture: {parts: {a: {data: [x, y], share: 0.5}}}\nwhen: 2026-01-02\n"
)


def build_corpus(folder: Path) -> dict[str, Kind]:
    """Write the good files below `folder`; decoders of models come with tiny ones."""
    for name in ("pictures", "clips", "archives", "texts", "weights"):
        (folder / name).mkdir()
    pictures = tuple(_pictures(folder / "pictures"))
    save_file({"a": torch.ones(3, 4), "b": torch.zeros(2)}, folder / "weights" / "a.safetensors", {"format": "pt"})
    torch.save({"a": torch.ones(3, 4), "b": torch.zeros(2)}, folder / "weights" / "a.pth")
    model, detector = tiny_m2f2_det(folder / "model"), tiny_fakevlm(folder / "detector")
    judge = Judge(str(detector))
    examined = folder / "pictures" / "a.png"
    examine(examined, judge, checks=False).save(folder / "examined")
    record = folder / "examined" / RECORD_FILE
    tables = _written(
        folder / "texts", {"a.csv": TABLE, "bom.csv": "\ufeff" + TABLE, "wide.csv": TABLE.encode("utf-16")}
    )
    lines = _written(folder / "texts", {"a.jsonl": ROWS, "wide.jsonl": ROWS.encode("utf-16")})
    recipes = _written(folder / "texts", {"a.yaml": RECIPE})

    def members(path: Path) -> None:
        for name in list_members(path):
            read_picture(path, name)

    def clip(path: Path) -> None:
        probe(path)
        for _ in sample_frames(path, 4):
            pass

    def table(path: Path) -> None:
        read_csv(path)
        read_frame_scores(path)

    def predictions(path: Path) -> None:
        list(read_json_lines(path, "predictions"))
        read_rows([path])

    def config(path: Path) -> None:
        load_config(path.parent)

    return {
        "picture": Kind(pictures, load_image, 30),
        "picture of a data set": Kind(pictures, open_image, 20),
        "facts of a picture": Kind(pictures, read_image_facts, 5),
        "clip": Kind(tuple(_clips(folder / "clips")), clip, 8),
        "archive": Kind(tuple(_archives(folder / "archives", pictures[2].read_bytes())), members, 15),
        "table": Kind(tables, table, 10),
        "lines": Kind(lines, predictions, 10),
        "yaml": Kind(recipes, read_yaml, 8),
        "weights": Kind(tuple(sorted((folder / "weights").iterdir())), read_tensors, 10),
        "config": Kind((_copy(model / "config.json"),), config, 6, model / "config.json", one_object=True),
        "record": Kind((record,), lambda path: replay(path, examined, model=judge), 3, one_object=True),
    }


def _copy(path: Path) -> Path:
    copy = path.with_name(f"good-{path.name}.txt")
    copy.write_bytes(json.dumps(json.loads(path.read_text())).encode())
    return copy
