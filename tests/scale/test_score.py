"""`score` on this machine: rows, units, resuming, what it refuses."""

import json
import math
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import deepfake_detectors as dfd
from deepfake_detectors.outputs import folder_lock
from deepfake_detectors.scale import engine_local
from deepfake_detectors.scale.judging import DetectorFailed, Judgement

FIXED = ["id", "source", "sha256", "fake_probability", "decision", "label", "error"]


def units(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("unit-*.parquet")}


def test_rows_are_those_of_the_pipeline(photos: Path, detector: Path, tmp_path: Path) -> None:
    run = dfd.score(photos, tmp_path / "out", model=detector, unit_rows=4, batch_size=3, threshold=0.4)
    rows = run.read().to_pylist()
    assert run.read().column_names == FIXED
    files = sorted(path for path in photos.rglob("*.png"))
    assert [row["id"] for row in rows] == [path.relative_to(photos).as_posix() for path in files]
    pipe = dfd.pipeline(model=str(detector), device="cpu")
    for row, path in zip(rows, files, strict=True):
        assert row["source"] == str(path) and row["sha256"] == sha256(path.read_bytes()).hexdigest()
        if path.name == "broken.png":
            assert row["fake_probability"] is None and row["label"] is None and "broken.png" in row["error"]
            continue
        expected = pipe(str(path), threshold=0.4)
        assert row["fake_probability"] == pytest.approx(expected["fake_probability"], abs=1e-5)
        assert row["label"] == expected["label"] and row["error"] is None
    assert (run.rows, run.errors, run.units, run.computed) == (11, 1, 3, 3)
    manifest = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert [row["rows"] for row in manifest] == [4, 4, 3] and sum(row["errors"] for row in manifest) == 1
    assert sorted(row["file"] for row in manifest) == sorted(units(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["unit_rows"] == 4
    assert not list((tmp_path / "out").glob(".*"))


def test_repeated_content_is_judged_once_per_unit(photos, detector, tmp_path, monkeypatch) -> None:
    judged = []
    forward = Judgement.rows
    monkeypatch.setattr(Judgement, "rows", lambda self, batch: judged.extend(batch.places) or forward(self, batch))
    run = dfd.score(photos, tmp_path / "out", model=detector, unit_rows=20)
    assert len(judged) == 9 and run.repeated == 1
    by_id = {row["id"]: row for row in run.read().to_pylist()}
    assert by_id["0.png"]["fake_probability"] == by_id["copy of 0.png"]["fake_probability"]
    assert by_id["copy of 0.png"]["source"].endswith("copy of 0.png")


def test_a_rerun_does_what_is_missing(photos, detector, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    dfd.score(photos, out, model=detector, unit_rows=4)
    before = units(out)
    lost, cut, *_ = sorted(before)
    (out / lost).unlink()
    (out / cut).write_bytes(before[cut][:100])
    (out / ".unit-000009-x.parquet.part").write_bytes(b"half")
    run = dfd.score(photos, out, model=detector, unit_rows=4)
    assert run.computed == 2 and units(out) == before and not list(out.glob(".*"))
    monkeypatch.setattr(Judgement, "__init__", None)  # nothing left: the detector is not even loaded
    assert dfd.score(photos, out, model=detector, unit_rows=4).computed == 0


def test_a_changed_picture_changes_its_unit_alone(photos, detector, tmp_path) -> None:
    out = tmp_path / "out"
    dfd.score(photos, out, model=detector, unit_rows=4)
    before = units(out)
    (photos / "broken.png").write_bytes((photos / "1.png").read_bytes())
    run = dfd.score(photos, out, model=detector, unit_rows=4)
    assert run.computed == 1 and run.errors == 0 and len(units(out)) == 3
    assert len(set(units(out)) & set(before)) == 2


def test_workers_give_the_same_rows(photos, detector, tmp_path) -> None:
    one = dfd.score(photos, tmp_path / "one", model=detector, unit_rows=3, batch_size=2)
    two = dfd.score(photos, tmp_path / "two", model=detector, unit_rows=3, batch_size=2, num_workers=2)
    for a, b in zip(one.read().to_pylist(), two.read().to_pylist(), strict=True):
        # With one thread and with several, sums are taken in another order.
        assert a["fake_probability"] == pytest.approx(b.pop("fake_probability"), abs=1e-6)
        assert {**a, "fake_probability": None} == {**b, "fake_probability": None}


def test_decoding_in_threads_gives_the_same_rows(photos, detector, tmp_path) -> None:
    from deepfake_detectors.scale.judging import Question
    from deepfake_detectors.scale.sources import find_stretches
    from deepfake_detectors.scale.units import cut_units

    (unit,) = cut_units(find_stretches(photos, 20), "run")
    judgement = Judgement(Question(str(detector), device="cpu"))
    assert engine_local._rows(unit, judgement, 2, 3, None) == engine_local._rows(unit, judgement, 2, 0, None)


def test_a_worker_that_dies_is_replaced(photos, detector, tmp_path, monkeypatch) -> None:
    work, note = engine_local._work, tmp_path / "died"

    def dying(unit, batch_size, places):
        if unit.index == 1 and not note.exists():
            note.touch()
            engine_local.os.kill(engine_local.os.getpid(), 9)
        return work(unit, batch_size, places)

    expected = dfd.score(photos, tmp_path / "whole", model=detector, unit_rows=3, num_workers=2)
    monkeypatch.setattr(engine_local, "_work", dying)
    # Pickled by name, so that the forked worker finds the one above.
    dying.__module__, dying.__qualname__ = engine_local.__name__, "_work"
    run = dfd.score(photos, tmp_path / "out", model=detector, unit_rows=3, num_workers=2)
    assert note.exists() and run.read().equals(expected.read())


def test_a_unit_that_always_kills_its_worker_ends_the_run(photos, detector, tmp_path, monkeypatch) -> None:
    def dying(unit, batch_size, places):
        engine_local.os.kill(engine_local.os.getpid(), 9)

    monkeypatch.setattr(engine_local, "_work", dying)
    dying.__module__, dying.__qualname__ = engine_local.__name__, "_work"
    with pytest.raises(DetectorFailed, match="Unit 0"):
        dfd.score(photos, tmp_path / "out", model=detector, unit_rows=30, num_workers=1)


def test_other_options_need_another_output(photos, detector, second_detector, tmp_path) -> None:
    out = tmp_path / "out"
    dfd.score(photos, out, model=detector)
    for options in ({"threshold": 0.9}, {"unit_rows": 2}, {"model": second_detector}):
        with pytest.raises(ValueError, match="another run"):
            dfd.score(photos, out, **{"model": detector, **options})


def test_a_second_writer_is_refused(photos, detector, tmp_path) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(ValueError, match="being written by process"):
        dfd.score(photos, tmp_path / "out", model=detector)


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "spark"},
        {"batch_size": 0},
        {"num_workers": -1},
        {"unit_rows": 0},
        {"explain": True},
        {"localize": True},
        {"head": "face"},
        {"threshold": 1.5},
        {"threshold": "strict"},
        {"question": "Why?"},
        {"cascade": {"share": 0.5}},
        {"cascade": {"model": "x", "share": 0.5, "threshold": 0.5}},
        {"cascade": {"model": "x", "top": 0.5}},
        {"cascade": {"model": "x", "share": 0}},
        {"cascade": "m2f2-det-mini", "explain_top": 0.1},
        {"gpus_per_worker": 1.0},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_written(photos, detector, tmp_path, options) -> None:
    with pytest.raises(ValueError):
        dfd.score(photos, tmp_path / "out", **{"model": detector, **options})
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_output_and_source_must_not_mix(photos, detector, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"verdicts .*photos"):
        dfd.score(photos, photos / "verdicts", model=detector)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="thesis"):
        dfd.score(photos, tmp_path / "full", model=detector)
    with pytest.raises(ValueError, match="empty"):
        (tmp_path / "empty").mkdir()
        dfd.score(tmp_path / "empty", tmp_path / "out", model=detector)


# ---- cascade --------------------------------------------------------------------------------------------------------


def test_cascade_judges_exactly_the_top_share(photos, detector, second_detector, tmp_path) -> None:
    first = dfd.score(photos, tmp_path / "first", model=detector, unit_rows=3).read().to_pylist()
    second = dfd.score(photos, tmp_path / "second", model=second_detector, unit_rows=3).read().to_pylist()
    cascade = {"model": str(second_detector), "share": 0.35}
    run = dfd.score(photos, tmp_path / "out", model=detector, unit_rows=3, cascade=cascade)
    ranked = sorted((row["fake_probability"] for row in first if row["error"] is None), reverse=True)
    cut = ranked[math.ceil(0.35 * len(ranked)) - 1]
    chosen = 0
    for row, a, b in zip(run.read().to_pylist(), first, second, strict=True):
        assert row["first_probability"] == a["fake_probability"]
        if a["error"] is None and a["fake_probability"] >= cut:
            chosen += 1
            assert row["second_probability"] == pytest.approx(b["fake_probability"], abs=1e-6)
            assert row["fake_probability"] == row["second_probability"] and row["label"] == b["label"]
        else:
            assert row["second_probability"] is None and row["fake_probability"] == a["fake_probability"]
    assert run.cascade["chosen"] == run.cascade["judged_twice"] == run.cascade["judged_now"]["second"] == chosen
    assert run.cascade["cut"] == cut and run.cascade["judged_now"]["first"] == run.rows == 11
    assert run.errors == 1 and len(units(tmp_path / "out")) == run.units == 4


def test_an_interrupted_cascade_goes_on(photos, detector, second_detector, tmp_path, monkeypatch) -> None:
    options = {"model": detector, "unit_rows": 3, "cascade": {"model": str(second_detector), "share": 0.5}}
    whole = dfd.score(photos, tmp_path / "whole", **options).read()
    commits = []
    commit = engine_local.judge_local

    def stopping(units, judgement, *rest):
        for number, done in enumerate(commit(units, judgement, *rest)):
            if judgement.question.model == str(second_detector) and number == 1:
                raise KeyboardInterrupt
            commits.append(number)
            yield done

    monkeypatch.setattr(engine_local, "judge_local", stopping)
    with pytest.raises(KeyboardInterrupt):
        dfd.score(photos, tmp_path / "out", **options)
    monkeypatch.setattr(engine_local, "judge_local", commit)
    run = dfd.score(photos, tmp_path / "out", **options)
    assert run.computed == 0 and run.cascade["judged_now"]["first"] == 0 and run.read().equals(whole)
    assert run.cascade["judged_twice"] > run.cascade["judged_now"]["second"] > 0


def test_threshold_of_a_cascade(photos, detector, second_detector, tmp_path) -> None:
    cascade = dfd.score(
        photos, tmp_path / "out", model=detector, cascade={"model": str(second_detector), "threshold": 1.0}
    ).cascade
    assert cascade["chosen"] == cascade["judged_now"]["second"] == 0 and cascade["cut"] == 1.0
