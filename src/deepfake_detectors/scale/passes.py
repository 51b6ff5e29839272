"""The passes of a run over its units: judge what is missing, then judge the most likely fakes again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepfake_detectors.outputs import opened_whole
from deepfake_detectors.scale.cascade import (
    FIRST,
    SECOND,
    Cascade,
    cascade_counts,
    find_cut,
    first_scores,
    settled_row,
)
from deepfake_detectors.scale.judging import Question
from deepfake_detectors.scale.units import Unit, UnitFolder

__all__ = ["Engine", "Passes", "Progress"]

MASKS = "masks"

Progress = Callable[[int, int], None]
Engine = Callable[
    [Sequence[Unit], Question, Mapping[int, Sequence[int]] | None], Iterator[tuple[Unit, list[dict[str, Any]]]]
]


@dataclass
class Passes:
    """One call of `score`.

    Attributes:
        store: the output; its lock is held.
        units: of the only, or the first, pass.
        engine: judges units.
        first: what is asked.
        final: units of the second pass, at the same places; `units` if there is none.
        cascade, second: the second pass and what it asks.
        progress: called with the number of images finished in the first pass, and the total.
        computed: units that the first pass judged in this call.
        judged: images that each pass judged in this call.
        repeated: of those of the first pass, with the content of an earlier image of their unit.
        spent: seconds of each pass.
        errors: images of the finished run that could not be read.
    """

    store: UnitFolder
    units: Sequence[Unit]
    engine: Engine
    first: Question
    final: Sequence[Unit]
    cascade: Cascade | None = None
    second: Question | None = None
    progress: Progress | None = None
    computed: int = 0
    judged: list[int] = field(default_factory=lambda: [0, 0])
    repeated: int = 0
    spent: list[float] = field(default_factory=lambda: [0.0, 0.0])
    errors: int = 0

    @property
    def files(self) -> list[Path]:
        """Where the verdicts of a finished run are, in order."""
        return [self.store.folder / unit.file for unit in self.final]

    def run(self) -> None:
        """Process the missing units."""
        ready = self.store.finished(self.final)
        waiting = [unit for unit, last in zip(self.units, self.final, strict=True) if last.key not in ready]
        known = self.store.finished(waiting) if self.cascade is not None else {}
        self._judge([unit for unit in waiting if unit.key not in known])
        if self.cascade is not None and self.second is not None:
            self._judge_again(waiting, self.cascade, self.second)
        self.store.prune(self.final)
        self._prune_masks()
        facts = [self._facts(unit) for unit in self.final]
        self.errors = sum(row["errors"] for row in facts)
        self.store.write_manifest(facts)

    def report(self) -> dict[str, Any] | None:
        """Return what the second pass did; `None` if there is none."""
        if self.cascade is None:
            return None
        names = ("first", "second")
        return {
            **cascade_counts(self.files, find_cut(self.files, self.cascade)),
            "judged_now": dict(zip(names, self.judged, strict=True)),
            "seconds_now": {name: round(value, 3) for name, value in zip(names, self.spent, strict=True)},
        }

    def _judge(self, missing: Sequence[Unit]) -> None:
        begun = time.monotonic()
        total = sum(unit.stretch.size for unit in self.units)
        done = total - sum(unit.stretch.size for unit in missing)
        if self.progress is not None:
            self.progress(done, total)
        for unit, rows in self.engine(missing, self.first, None) if missing else ():
            self._keep_masks(unit, range(len(rows)), rows)
            self.store.commit(unit, rows, self.first.extra)
            self.computed += 1
            self.judged[0] += len(rows)
            self.repeated += _repeated(rows)
            done += len(rows)
            if self.progress is not None:
                self.progress(done, total)
        self.spent[0] = time.monotonic() - begun

    def _judge_again(self, waiting: Sequence[Unit], cascade: Cascade, second: Question) -> None:
        """The second pass. The file of a unit takes the place of that of the first pass."""
        begun = time.monotonic()
        left = {unit.index for unit in waiting}
        last = {unit.index: unit for unit in self.final}
        cut = find_cut(
            [self.store.folder / (u if u.index in left else last[u.index]).file for u in self.units], cascade
        )
        extra = tuple(dict.fromkeys((*self.first.extra, *second.extra, FIRST, SECOND)))
        chosen = {}
        for unit in waiting:
            scores = first_scores(self.store.folder / unit.file)
            places = [place for place, score in enumerate(scores) if score is not None and score >= cut]
            if places:
                chosen[unit.index] = places
            else:
                self._replace(unit, last[unit.index], {}, extra)
        again = [unit for unit in waiting if unit.index in chosen]
        for unit, rows in self.engine(again, second, chosen) if again else ():
            places = chosen[unit.index]
            self._keep_masks(last[unit.index], places, rows)
            self._replace(unit, last[unit.index], dict(zip(places, rows, strict=True)), extra)
            self.judged[1] += len(rows)
        self.spent[1] = time.monotonic() - begun

    def _replace(self, unit: Unit, last: Unit, rows: Mapping[int, Mapping[str, Any]], extra: Sequence[str]) -> None:
        import pyarrow.parquet as pq

        before = self.store.folder / unit.file
        merged = [settled_row(row, rows.get(place)) for place, row in enumerate(pq.read_table(before).to_pylist())]
        self.store.commit(last, merged, extra)
        before.unlink()

    def _keep_masks(self, unit: Unit, places: Iterable[int], rows: Sequence[dict[str, Any]]) -> None:
        """Write the masks of a unit before its file, which names them."""
        for place, row in zip(places, rows, strict=True):
            picture = row.pop("mask_png", None)
            if picture is not None:
                row["mask"] = f"{MASKS}/{unit.key}/{place:06d}.png"
                path = self.store.folder / row["mask"]
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened_whole(path, "wb") as file:
                    file.write(picture)

    def _prune_masks(self) -> None:
        kept = {unit.key for unit in (*self.units, *self.final)}
        folder = self.store.folder / MASKS
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in kept:
                shutil.rmtree(path)

    def _facts(self, unit: Unit) -> dict[str, Any]:
        import pyarrow.parquet as pq

        errors = pq.read_table(self.store.folder / unit.file, columns=["error"])["error"]
        return {
            "unit": unit.index,
            "key": unit.key,
            "file": unit.file,
            "rows": len(errors),
            "errors": len(errors) - errors.null_count,
        }


def _repeated(rows: Sequence[Mapping[str, Any]]) -> int:
    contents = [row["sha256"] for row in rows if row["sha256"] is not None]
    return len(contents) - len(set(contents))
