"""`score` killed again and again: the rerun does what is missing, and all verdicts are those of one quiet run."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.killing import Killer, run_command
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    before = dict(os.environ)
    yield Killer({"HF_HUB_OFFLINE": "1"}, seed=KILLS)
    os.environ.clear()
    os.environ.update(before)


def verdicts(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("unit-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_score_after_kills(killer, tmp_path, workers) -> None:
    tiny_m2f2_det(tmp_path / "tiny")
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(random_pictures(10)):
        picture.save(tmp_path / "in" / f"{number}.png")
        for copy in range(1, 6):  # other bytes, so that nothing is the same
            (tmp_path / "in" / f"{number}-{copy}.png").write_bytes(
                (tmp_path / "in" / f"{number}.png").read_bytes() + b"\0" * copy
            )
    given = [str(tmp_path / "in"), "--model", str(tmp_path / "tiny"), "--unit-rows", "4", "--batch-size", "2"]
    given += ["--num-workers", str(workers), "--device", "cpu"]
    log = str(tmp_path / "log")
    seconds = killer.whole(run_command, ["score", *given[:1], str(tmp_path / "whole"), *given[1:]], log)
    out, states = tmp_path / "out", []
    words = ["score", given[0], str(out), *given[1:]]
    for _ in range(KILLS):
        killer.killed(1.2 * seconds, run_command, words, log)
        kept = {path.name: path.stat().st_mtime_ns for path in out.glob("unit-*.parquet")} if out.is_dir() else {}
        states.append(kept)
        assert {name: kept[name] for name in states[0]} == states[0]  # what was finished is not done again
    killer.whole(run_command, words, log)
    last = {path.name: path.stat().st_mtime_ns for path in out.glob("unit-*.parquet")}
    assert all(last[name] == time for name, time in states[-1].items()) and len(last) == 15
    assert verdicts(out) == verdicts(tmp_path / "whole") and len({row["id"] for row in verdicts(out)}) == 60
    assert not list(out.glob(".*"))
