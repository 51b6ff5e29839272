"""The code blocks of README and docs, and a folder that holds what they name."""

from __future__ import annotations

import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import datasets
from typer.testing import CliRunner

from deepfake_detectors_cli import app
from support import ddvqa_tree, tiny_models
from support.clips import write_clip
from support.pictures import random_pictures
from support.source_tree import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
MARK = re.compile(r"<!-- not run: (.+) -->")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PICTURES = ROOT / "examples/pictures"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, line, language, text, and why it is not run, if it is not."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        before = text[: found.start()].rstrip("\n").rpartition("\n")[2]
        mark = MARK.fullmatch(before.strip())
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[2], found[3], mark and mark[1])


def _pictures(folder: Path, seed: int, count: int = 12) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(random_pictures(count, seed)):
        picture.resize((96, 96)).save(folder / f"{number:02d}.png")


def _masks(folder: Path) -> None:
    folder.mkdir()
    for number, picture in enumerate(random_pictures(12, 7)):
        picture.convert("L").point(lambda level: 255 * (level > 128)).resize((96, 96)).save(
            folder / f"{number:02d}.png"
        )


def _texts(path: Path) -> None:
    names = [f"{kind}/{number:02d}.png" for kind in ("real", "fake") for number in range(12)]
    path.write_text("".join(json.dumps({name: {"answer": ["The image is fake."]}}) + "\n" for name in names))


def _shards(folder: Path) -> None:
    folder.mkdir()
    for shard in range(2):
        rows = datasets.Dataset.from_dict({"image": list(random_pictures(3, shard))})
        rows.cast_column("image", datasets.Image()).to_parquet(folder / f"{shard}.parquet")


def _training(folder: Path) -> None:
    for number, kind in enumerate(("real", "fake")):
        _pictures(folder / kind, number)


# What the pages name -> what makes it.
THINGS: dict[str, Callable[[Path], object]] = {
    "photo.jpg": lambda path: shutil.copy(PICTURES / "real_astronaut_whole.jpg", path),
    "face.jpg": lambda path: shutil.copy(PICTURES / "fake_astronaut_face_swap.jpg", path),
    "clip.mp4": lambda path: write_clip(path, 12, (320, 240)),
    "photos": lambda path: _pictures(path, 1),  # these two by the way in which the random `m2f2` ranks them
    "forgeries": lambda path: _pictures(path, 0),
    "pictures": lambda path: _pictures(path, 2, 4),
    "training": _training,
    "masks": _masks,
    "texts.jsonl": _texts,
    "shards": _shards,
    "ddvqa": lambda path: ddvqa_tree.write_tree(path, ddvqa_tree.stems(range(8)), ddvqa_tree.stems(range(8, 14))),
    "m2f2": tiny_models.tiny_m2f2_det,
    "m2f2-llm": tiny_models.tiny_m2f2_det_llm,
    "fakevlm": tiny_models.tiny_fakevlm,
    "antifakeprompt": tiny_models.tiny_antifakeprompt,
    "lvlm-dfd": tiny_models.tiny_lvlm_dfd_llm,
    "chat-base": lambda path: tiny_models.tiny_chat_vlm(path, **tiny_models.SENTENCES),
}


def make_what_is_named(folder: Path, code: str) -> None:
    """Make in `folder` each of `THINGS` that `code` names, and links to the recipes."""
    (folder / "train").symlink_to(ROOT / "train")
    for name, make in THINGS.items():
        if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", code):
            make(folder / name)


class Session:
    """Runs the blocks of one page in order, in the current folder."""

    LANGUAGES = ("python", "bash", "yaml")

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__name__": "__page__"}

    def run(self, block: Block) -> None:
        getattr(self, f"_{block.language}")(block)

    def _python(self, block: Block) -> None:
        exec(compile(block.text, str(block), "exec"), self.names)

    def _yaml(self, block: Block) -> None:
        """Write the file whose name is the comment in the first line."""
        first, _, rest = block.text.partition("\n")
        Path(first.removeprefix("# ")).write_text(rest, encoding="utf-8")

    def _bash(self, block: Block) -> None:
        """Run commands of this package in this process, for its imports take seconds, and others in bash."""
        for line in block.text.replace("\\\n", " ").splitlines():
            line = re.sub(r"\s#\s.*$|^#.*$", "", line).strip()
            source, _, last = line.rpartition(" | ")
            if words := shlex.split(last):
                asked = subprocess.check_output(["bash", "-c", source], text=True) if source else None
                run_command(words, asked, f"{block}: {line}")


def run_command(words: list[str], asked: str | None, name: str) -> None:
    if words[0] == "deepfake-detectors":
        done = CliRunner().invoke(app, words[1:], input=asked)
        assert done.exit_code == 0, f"{name}\n{done.output}\n{done.exception!r}"
    elif words[:2] == ["python", "-m"]:
        run_module(words[2], words[3:], name)
    elif words[:2] == ["accelerate", "launch"]:
        launched = [sys.executable, "-m", "accelerate.commands.launch", *words[2:]]
        there = subprocess.run(launched, text=True, capture_output=True)
        assert there.returncode == 0, f"{name}\n{there.stdout}\n{there.stderr}"
    else:
        raise AssertionError(f"{name}: no test runs {words[0]!r}; say why it is not run, or teach this function")


def run_module(module: str, words: list[str], name: str) -> None:
    before = sys.argv
    sys.argv = [module, *words]
    try:
        with redirect_stdout(io.StringIO()):
            runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        assert not end.code, name
    finally:
        sys.argv = before
