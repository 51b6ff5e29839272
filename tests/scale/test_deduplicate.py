"""Content that occurs in several units is judged once, also where the run was stopped in between."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import deepfake_detectors as dfd
from deepfake_detectors.scale import contents
from deepfake_detectors.scale.contents import find_repeats
from deepfake_detectors.scale.judging import DetectorFailed, Judgement
from deepfake_detectors.scale.sources import find_stretches
from deepfake_detectors.scale.units import cut_units


@pytest.fixture
def repeated(photos: Path) -> Path:
    """19 files in order of their names, 10 different ones, one of which is not a picture; repeats lie far apart."""
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for name in names[:8]:
        (photos / f"z {name.replace('/', ' ')}").write_bytes((photos / name).read_bytes())
    return photos


@pytest.fixture
def judged(monkeypatch) -> list[str]:
    """SHA-256 of every image that a detector in this process sees."""
    seen: list[str] = []
    rows = Judgement.rows

    def noted(self, batch):
        seen.extend(batch.rows[place]["sha256"] for place in batch.places)
        return rows(self, batch)

    monkeypatch.setattr(Judgement, "rows", noted)
    return seen


def assert_same(run, expected) -> None:
    """Same rows in the same order; scores to 1e-6, for the batches differ."""
    found, wanted = run.read().to_pylist(), expected.read().to_pylist()
    for one, other in zip(found, wanted, strict=True):
        for name in ("fake_probability", "first_probability", "second_probability"):
            if other.get(name) is not None:
                assert one[name] == pytest.approx(other[name], abs=1e-6)
        assert one["id"] == other["id"] and one["source"] == other["source"] and one["sha256"] == other["sha256"]
        assert one["label"] == other["label"] and one["decision"] == other["decision"]
        assert (one["error"] is None) == (other["error"] is None)
    by_content: dict[str, set[float]] = {}
    for row in found:
        by_content.setdefault(row["sha256"], set()).add(row["fake_probability"])
    assert all(len(scores) == 1 for scores in by_content.values())  # bit by bit the verdict of the one judged


@pytest.mark.parametrize("workers", [0, 2])
def test_content_is_judged_once_in_a_run(repeated, detector, tmp_path, judged, workers) -> None:
    options = {"model": detector, "unit_rows": 3, "batch_size": 2}
    expected = dfd.score(repeated, tmp_path / "each", **options)
    judged.clear()
    run = dfd.score(repeated, tmp_path / "once", **options, deduplicate=True, num_workers=workers)
    assert_same(run, expected)
    files = [path.read_bytes() for path in repeated.rglob("*.png")]
    assert run.rows == len(files) == 19 and run.repeated == len(files) - len(set(files))
    if not workers:  # else in processes of their own
        readable = {hashlib.sha256(data).hexdigest() for data in files if data != b"not a picture"}
        assert sorted(judged) == sorted(readable)
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == sorted(
        [*(path.name for path in run.files), "manifest.parquet", "run.json"]
    )
    broken = [row for row in run.read().to_pylist() if row["error"]]
    assert len(broken) == 2 and all(row["id"] in row["error"] for row in broken)


def test_a_run_that_was_stopped_goes_on(repeated, detector, tmp_path, judged, monkeypatch) -> None:
    """Between judging and copying, and with an earlier run's units as the ones that are copied from."""
    options = {"model": detector, "unit_rows": 3, "batch_size": 2}
    out = tmp_path / "out"
    expected = dfd.score(repeated, tmp_path / "each", **options)
    judged.clear()
    rows, calls = Judgement.rows, []

    def failing(self, batch):
        calls.append(batch)
        if len(calls) == 4:
            raise DetectorFailed("stop")
        return rows(self, batch)

    monkeypatch.setattr(Judgement, "rows", failing)
    with pytest.raises(DetectorFailed, match="stop"):
        dfd.score(repeated, out, **options, deduplicate=True)
    monkeypatch.setattr(Judgement, "rows", rows)
    before = len(judged)
    finished = len(list(out.glob("unit-*")))
    assert 0 < finished < 7
    run = dfd.score(repeated, out, **options, deduplicate=True)
    assert_same(run, expected)
    assert before + len(set(judged[before:])) >= 9 and len(judged[before:]) == len(set(judged[before:]))

    # What is in finished units is not judged again for new ones.
    (repeated / "zz new.png").write_bytes((repeated / "0.png").read_bytes())
    judged.clear()
    run = dfd.score(repeated, out, **options, deduplicate=True)
    scores = {row["id"]: row["fake_probability"] for row in run.read().to_pylist()}
    assert run.computed == 1 and scores["zz new.png"] == scores["0.png"]
    assert hashlib.sha256((repeated / "0.png").read_bytes()).hexdigest() not in judged


def test_a_draft_of_another_state_of_the_source_is_not_used(repeated, detector, tmp_path, monkeypatch) -> None:
    from deepfake_detectors.scale.deduplication import Deduplication

    def stopped(*arguments):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Deduplication, "fill", stopped)
        with pytest.raises(KeyboardInterrupt):
            dfd.score(repeated, out, model=detector, unit_rows=3, deduplicate=True)
    # One of the three images of a draft that were to be copied is now the first with its content.
    (repeated / "1.png").write_bytes((repeated / "5.png").read_bytes())
    run = dfd.score(repeated, out, model=detector, unit_rows=3, deduplicate=True)
    assert_same(run, dfd.score(repeated, tmp_path / "each", model=detector, unit_rows=3))


def test_the_second_pass_judges_content_once_too(repeated, detector, second_detector, tmp_path, judged) -> None:
    options = {"model": detector, "unit_rows": 3, "cascade": {"model": str(second_detector), "share": 0.5}}
    expected = dfd.score(repeated, tmp_path / "each", **options)
    judged.clear()
    run = dfd.score(repeated, tmp_path / "once", **options, deduplicate=True)
    assert_same(run, expected)
    assert run.cascade["judged_twice"] == expected.cascade["judged_twice"]
    twice = [row["sha256"] for row in run.read().to_pylist() if row["second_probability"] is not None]
    assert len(twice) > len(set(twice))
    assert len(judged) == 9 + len(set(twice))


def test_buckets_find_every_repeat(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(contents, "BUCKET_BYTES", 2000)
    generator = np.random.default_rng(0)
    sizes = [4, 1, 7, 5, 3, 9, 2]
    names = [str(photos / "0.png")] * sum(sizes)
    (unit, *_) = cut_units(find_stretches(names[:1], 1), "run")
    units = [type(unit)(index, str(index), unit.stretch) for index in range(len(sizes))]
    pool = [bytes([number, *generator.integers(0, 256, 29).tolist(), 0, 0]) for number in range(12)]
    digests = [[pool[place] if place else None for place in generator.integers(0, 12, size)] for size in sizes]
    still_open = [True, True, False, True, True, False, True]
    total = 3000
    repeats = find_repeats(
        zip(units, still_open, digests, strict=True),
        total,
        tmp_path / "buckets",
    )
    assert len(list((tmp_path / "buckets").iterdir())) > 5
    places = [(index, place) for index, listed in enumerate(digests) for place in range(len(listed))]
    for unit, waiting in zip(units, still_open, strict=True):
        found = repeats.of(unit)
        for place, digest in enumerate(digests[unit.index]):
            alike = [at for at in places if digest is not None and digests[at[0]][at[1]] == digest]
            first = min(alike, key=lambda at: (still_open[at[0]], at), default=None)
            wanted = first if waiting and first != (unit.index, place) else None
            assert found.get(place) == wanted


@pytest.mark.slow
def test_a_killed_driver_leaves_a_run_that_goes_on(repeated, detector, tmp_path) -> None:
    out = tmp_path / "out"
    words = ["score", str(repeated), str(out), "--model", str(detector), "--unit-rows", "2", "--batch-size", "1"]
    command = [sys.executable, "-m", "deepfake_detectors_cli", *words, "--deduplicate", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("unit-*"))) < 2:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = dfd.score(repeated, out, model=detector, unit_rows=2, batch_size=1, deduplicate=True)
    assert_same(run, dfd.score(repeated, tmp_path / "each", model=detector, unit_rows=2, batch_size=1))
    assert not list(out.rglob("*.part")) and not (out / "contents").exists()
