"""The smallest whole tree of a data set in its official layout, and what can be wrong with it.

Imports nothing of the package, so that the loading scripts can be tried where it is not installed.
"""

import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import NamedTuple

from support.folder_tree import save

DEFECTS = ("missing", "extra", "truncated", "wrong_label", "duplicate", "non_ascii", "link_out", "archive_up")


class Expect(NamedTuple):
    """What must be said of a defect.

    Args:
        text: pattern of the message, which names the file.
        level: `"refused"`: nothing is built and `check` gives the same error; `"error"`, `"warning"`: a finding of
            that level, and the rest is built; `"read"`: nothing is wrong, and `text` is the id of a row.
        lost: rows fewer than before, for what is built.
    """

    text: str
    level: str = "refused"
    lost: int = 0


def frames(folder: Path, *videos: str, count: int = 2) -> None:
    """Folders of small frames."""
    for video in videos:
        for number in range(count):
            save(folder / video / f"{number:03d}.png", (6, 4))


def edit_json(path: Path, change) -> None:
    """Apply `change` to what a JSON file holds."""
    content = json.loads(path.read_text(encoding="utf-8"))
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")


def cut(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def decomposed(name: str) -> str:
    """As file systems of Apple store accents; ids must be composed all the same."""
    return unicodedata.normalize("NFD", name)


class Tree:
    """Base. A subclass writes the tree and says what is expected of each defect.

    Attributes:
        dataset: key of `DATASETS`.
        config: name of the config.
        options: fields of the config.
        picture: a file with pixels that every good copy has; its name is what messages must give.
        fakes: names of fake rows (parts of ids), for the polarity.
    """

    dataset: str
    config: str | None = None
    options: dict = {}
    picture: str
    fakes: tuple[str, ...]

    def write(self, root: Path) -> None:
        raise NotImplementedError

    def missing(self, root: Path) -> Expect:
        (root / self.picture).unlink()
        return Expect(Path(self.picture).name)

    def extra(self, root: Path) -> Expect:
        raise NotImplementedError

    def truncated(self, root: Path) -> Expect:
        cut(root / self.picture)
        return Expect(rf"{Path(self.picture).name}.* (cannot be (decoded|read))")

    def wrong_label(self, root: Path) -> Expect:
        raise NotImplementedError

    def duplicate(self, root: Path) -> Expect:
        raise NotImplementedError

    def non_ascii(self, root: Path) -> Expect:
        raise NotImplementedError

    def link_out(self, root: Path) -> Expect:
        path = root / self.picture
        outside = root.parent / "outside" / path.name
        outside.parent.mkdir()
        shutil.move(path, outside)
        path.symlink_to(outside)
        return Expect(re.escape(path.name))

    archive_up = None  # only where archives are read


class Videos(Tree):
    """Base of the trees of frames: `picture` is a frame of a video that is listed or paired."""

    prefix: str  # id of the video of `picture`

    @property
    def video(self) -> Path:
        return Path(self.picture).parent

    def missing(self, root: Path) -> Expect:
        shutil.rmtree(root / self.video)
        return Expect(self.video.name)

    def duplicate(self, root: Path) -> Expect:
        shutil.copy(root / self.picture, root / self.video / "0.png")
        return Expect(rf"{self.video.name}.*1\.png")

    def non_ascii(self, root: Path) -> Expect:
        save(root / self.video / f"{decomposed('é')}.png", (6, 4))
        return Expect(f"{self.prefix}/é", "read", lost=-1)
