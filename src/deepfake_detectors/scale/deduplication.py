"""Content judged once in a whole run: which images are left out, and how they get the verdict of the one judged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepfake_detectors.outputs import opened_whole
from deepfake_detectors.scale.contents import ContentFolder, Repeats, find_repeats
from deepfake_detectors.scale.judging import repeated_row
from deepfake_detectors.scale.units import KEY_DIGITS, Unit, UnitFolder, mask_name

__all__ = ["Copies", "Deduplication", "Reader"]

Reader = Callable[[Sequence[Unit]], Iterator[tuple[Unit, Any]]]
Copies = Mapping[int, tuple[int, int]]  # place -> unit and place of the image that is judged in its stead


class Deduplication:
    """Finds repeated content and fills in its verdicts.

    A unit with repeats is first written as a draft, with the images that are judged; when those of all units are, the
    rest of its rows is copied and the draft becomes the unit.

    Args:
        store: the output; its lock is held.
        read: yields units with their contents.
    """

    def __init__(self, store: UnitFolder, read: Reader) -> None:
        self.store, self.read = store, read
        self.contents = ContentFolder(store.folder)

    def look(self, units: Sequence[Unit], files: Mapping[int, Path], waiting: Sequence[Unit]) -> Repeats:
        """Find repeated content.

        Args:
            units: all that count.
            files: index -> file of those that have rows, and so the hashes of their images.
            waiting: those that still have to be judged.
        """
        unread = [unit for unit in units if unit.index not in files and self.contents.lacks(unit)]
        for unit, table in self.read(unread) if unread else ():
            self.contents.keep(unit, table)
        still_open = {unit.index for unit in waiting}
        return find_repeats(
            ((unit, unit.index in still_open, self._digests(unit, files)) for unit in units),
            sum(unit.stretch.size for unit in units),
            self.contents.folder,
        )

    def _digests(self, unit: Unit, files: Mapping[int, Path]) -> list[bytes | None]:
        import pyarrow.parquet as pq

        if unit.index not in files:
            return self.contents.digests(unit)
        known = pq.read_table(files[unit.index], columns=["sha256"])["sha256"].to_pylist()
        return [None if digest is None else bytes.fromhex(digest) for digest in known]

    @staticmethod
    def draft(unit: Unit, copies: Copies) -> Unit:
        """Return the draft of a unit: another key, which says for which images a verdict is missing."""
        text = f"{unit.key} without {sorted(copies)}"
        return Unit(unit.index, sha256(text.encode()).hexdigest()[:KEY_DIGITS], unit.stretch)

    def fill(
        self, unit: Unit, draft: Unit, copies: Copies, where: Callable[[int], Path], extra: Sequence[str]
    ) -> None:
        """Make a draft its unit.

        Args:
            unit, draft, copies: as above.
            where: index of a unit -> the file with its rows, at least those that were judged.
            extra: as in `UnitFolder.commit`.
        """
        import pyarrow.parquet as pq

        path = self.store.folder / draft.file
        rows = pq.read_table(path).to_pylist()
        by_unit: dict[int, list[int]] = {}
        for place, (index, _) in copies.items():
            by_unit.setdefault(index, []).append(place)
        for index, places in by_unit.items():
            judged = pq.read_table(where(index)).take([copies[place][1] for place in places]).to_pylist()
            for place, first in zip(places, judged, strict=True):
                rows[place] = repeated_row(rows[place], first)
                if first.get("mask") is not None:
                    rows[place]["mask"] = self._copied_mask(first["mask"], mask_name(unit, place))
        self.store.commit(unit, rows, extra)
        path.unlink()

    def _copied_mask(self, source: str, name: str) -> str:
        """Copy a mask, which would go with the unit that it is of; return the name of the copy."""
        path = self.store.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with (self.store.folder / source).open("rb") as file, opened_whole(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
        return name
