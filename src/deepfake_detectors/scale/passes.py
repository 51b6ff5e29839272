"""The passes of a run over its units: judge what is missing, then judge the most likely fakes again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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
from deepfake_detectors.scale.contents import ContentFolder, Repeats
from deepfake_detectors.scale.deduplication import Copies, Deduplication
from deepfake_detectors.scale.judging import Question
from deepfake_detectors.scale.units import MASK_FOLDER, Unit, UnitFolder, mask_name

__all__ = ["Engine", "Passes", "Progress"]

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
        deduplication: judges content once that occurs in several units.
        computed: units that the first pass judged in this call.
        judged: images that each pass judged in this call.
        repeated: images of the first pass in this call that have the verdict of another one with the same content.
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
    deduplication: Deduplication | None = None
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
        missing = [unit for unit in waiting if unit.key not in known]
        repeats = None
        if self.deduplication is not None and missing:
            # The final verdicts of a cascade are not those of its first pass.
            members, done = (self.units, ready) if self.cascade is None else (waiting, known)
            files = {unit.index: done[unit.key] for unit in members if unit.key in done}
            repeats = self.deduplication.look(members, files, missing)
        self._judge(missing, repeats)
        if self.cascade is not None and self.second is not None:
            self._judge_again(waiting, self.cascade, self.second)
        ContentFolder(self.store.folder).remove()  # also what an interrupted run with deduplication left
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

    def _judge(self, missing: Sequence[Unit], repeats: Repeats | None) -> None:
        begun = time.monotonic()
        total = sum(unit.stretch.size for unit in self.units)
        done = total - sum(unit.stretch.size for unit in missing)
        if self.progress is not None:
            self.progress(done, total)
        drafts = self._drafts(missing, None, repeats)
        for unit, rows in self._answers(missing, self.first, None, drafts):
            self._keep_masks(unit, rows)
            if unit.index in drafts and self.deduplication is not None:
                known = dict(enumerate(self.deduplication.contents.rows(unit))) | rows
                self.store.commit(drafts[unit.index][0], _in_order(known), self.first.extra)
            else:
                self.store.commit(unit, _in_order(rows), self.first.extra)
                self.computed += 1
            self.judged[0] += len(rows)
            self.repeated += _repeated(list(rows.values()))
            done += len(rows)
            if self.progress is not None:
                self.progress(done, total)
        for unit in missing:
            if unit.index in drafts:
                self._fill(unit, unit, drafts, self.first.extra)
                self.computed += 1
                self.repeated += len(drafts[unit.index][1])
        if self.progress is not None:
            self.progress(total, total)
        self.spent[0] = time.monotonic() - begun

    def _judge_again(self, waiting: Sequence[Unit], cascade: Cascade, second: Question) -> None:
        """The second pass. The file of a unit takes the place of that of the first pass."""
        begun = time.monotonic()
        left = {unit.index for unit in waiting}
        last = {unit.index: unit for unit in self.final}
        files = {u.index: self.store.folder / (u if u.index in left else last[u.index]).file for u in self.units}
        cut = find_cut(list(files.values()), cascade)
        extra = tuple(dict.fromkeys((*self.first.extra, *second.extra, FIRST, SECOND)))

        @lru_cache(maxsize=256)
        def chosen_places(index: int) -> tuple[int, ...]:
            scores = first_scores(files[index])
            return tuple(place for place, score in enumerate(scores) if score is not None and score >= cut)

        chosen = {unit.index: chosen_places(unit.index) for unit in waiting}
        repeats = None
        if self.deduplication is not None and waiting:
            repeats = self.deduplication.look(self.units, files, waiting)
        drafts = self._drafts(waiting, chosen_places, repeats)
        for unit in waiting:
            if not chosen[unit.index]:
                self.store.commit(last[unit.index], self._settled(unit, {}), extra)
                files[unit.index].unlink()
        again = [unit for unit in waiting if chosen[unit.index]]
        for unit, rows in self._answers(again, second, chosen, drafts):
            self._keep_masks(last[unit.index], rows)
            self.judged[1] += len(rows)
            merged = self._settled(unit, rows)
            if unit.index in drafts:
                self.store.commit(drafts[unit.index][0], merged, extra)
            else:
                self.store.commit(last[unit.index], merged, extra)
                files[unit.index].unlink()
        for unit in again:
            if unit.index in drafts:
                self._fill(unit, last[unit.index], drafts, extra)
                files[unit.index].unlink()
        self.spent[1] = time.monotonic() - begun

    def _settled(self, unit: Unit, rows: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """All rows of a unit, from its file of the first pass and from the second pass."""
        import pyarrow.parquet as pq

        before = pq.read_table(self.store.folder / unit.file).to_pylist()
        return [settled_row(row, rows.get(place)) for place, row in enumerate(before)]

    # ---- repeats ----------------------------------------------------------------------------------------------------

    def _drafts(
        self, units: Sequence[Unit], chosen: Callable[[int], Sequence[int]] | None, repeats: Repeats | None
    ) -> dict[int, tuple[Unit, Copies]]:
        """Index -> draft, and what is copied into it, of the units that have repeats among their `chosen` images."""
        if repeats is None or self.deduplication is None:
            return {}
        drafts: dict[int, tuple[Unit, Copies]] = {}
        for unit in units:
            # The engines see to what is repeated inside a unit.
            copies = {place: judged for place, judged in repeats.of(unit).items() if judged[0] != unit.index}
            if chosen is not None and copies:
                own = set(chosen(unit.index))
                copies = {
                    place: (index, first)
                    for place, (index, first) in copies.items()
                    if place in own and first in chosen(index)
                }
            if copies:
                last = unit if chosen is None else self.final[unit.index]
                drafts[unit.index] = (self.deduplication.draft(last, copies), copies)
        return drafts

    def _answers(
        self,
        units: Sequence[Unit],
        question: Question,
        chosen: Mapping[int, Sequence[int]] | None,
        drafts: Mapping[int, tuple[Unit, Copies]],
    ) -> Iterator[tuple[Unit, dict[int, dict[str, Any]]]]:
        """Yield each unit, but those whose draft is written, with the rows of its images that are judged, by place."""
        written = self.store.finished([draft for draft, _ in drafts.values()])
        left = [unit for unit in units if unit.index not in drafts or drafts[unit.index][0].key not in written]
        places = chosen
        if drafts:
            places = {}
            for unit in left:
                every = range(unit.stretch.size) if chosen is None else chosen[unit.index]
                copies = drafts[unit.index][1] if unit.index in drafts else {}
                places[unit.index] = [place for place in every if place not in copies] if copies else every
            yield from ((unit, {}) for unit in left if not places[unit.index])
            left = [unit for unit in left if places[unit.index]]
        for unit, rows in self.engine(left, question, places) if left else ():
            yield unit, dict(zip(range(len(rows)) if places is None else places[unit.index], rows, strict=True))

    def _fill(self, unit: Unit, last: Unit, drafts: Mapping[int, tuple[Unit, Copies]], extra: Sequence[str]) -> None:
        """Copy the verdicts of repeats into the draft of a unit, which becomes the file of `last`."""
        if self.deduplication is None:
            raise RuntimeError("There are drafts in a run without deduplication.")
        targets = self.units if unit is last else self.final

        def where(index: int) -> Path:
            path = self.store.folder / targets[index].file
            return path if path.is_file() else self.store.folder / drafts[index][0].file

        draft, copies = drafts[unit.index]
        self.deduplication.fill(last, draft, copies, where, extra)

    # ---- what lies beside the verdicts ------------------------------------------------------------------------------

    def _keep_masks(self, unit: Unit, rows: Mapping[int, dict[str, Any]]) -> None:
        """Write the masks of a unit before its file, which names them."""
        for place, row in rows.items():
            picture = row.pop("mask_png", None)
            if picture is not None:
                row["mask"] = mask_name(unit, place)
                path = self.store.folder / row["mask"]
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened_whole(path, "wb") as file:
                    file.write(picture)

    def _prune_masks(self) -> None:
        kept = {unit.key for unit in (*self.units, *self.final)}
        folder = self.store.folder / MASK_FOLDER
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


def _in_order(rows: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[place] for place in sorted(rows)]


def _repeated(rows: Sequence[Mapping[str, Any]]) -> int:
    contents = [row["sha256"] for row in rows if row["sha256"] is not None]
    return len(contents) - len(set(contents))
