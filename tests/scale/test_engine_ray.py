"""Ray gives the rows of the local engine, also where its processes are killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import deepfake_detectors as dfd
from deepfake_detectors.scale.judging import DetectorFailed

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # The actors import this package from the environment, not from here.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def kill_an_actor(stop: threading.Event, killed: list[int]) -> None:
    """Wait for a process of the pool, and end it."""
    while not stop.is_set():
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = status.read_bytes()
                if b"ray::MapWorker" in words and int(status.parent.name) not in killed:
                    time.sleep(0.5)
                    os.kill(int(status.parent.name), signal.SIGKILL)
                    killed.append(int(status.parent.name))
                    return
            except (OSError, ProcessLookupError):
                continue
        time.sleep(0.1)


def test_ray_equals_local_and_survives_a_killed_worker(cluster, photos, detector, tmp_path) -> None:
    expected = dfd.score(photos, tmp_path / "local", model=detector, unit_rows=3, batch_size=2).read().to_pylist()
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=kill_an_actor, args=(stop, killed))
    thread.start()
    try:
        run = dfd.score(photos, tmp_path / "ray", "ray", detector, unit_rows=3, batch_size=2, num_workers=1)
    finally:
        stop.set()
        thread.join()
    assert killed and run.computed == 4 and run.errors == 1 and not list((tmp_path / "ray").glob(".*"))
    for found, row in zip(run.read().to_pylist(), expected, strict=True):
        assert found["fake_probability"] == pytest.approx(row.pop("fake_probability"), abs=1e-6)
        assert {**row, "fake_probability": None} == {**found, "fake_probability": None}
    # Both engines write the same units: one goes on where the other was stopped.
    lost = sorted((tmp_path / "ray").glob("unit-*"))[1]
    lost.unlink()
    again = dfd.score(photos, tmp_path / "ray", "local", detector, unit_rows=3, batch_size=2)
    assert again.computed == 1 and lost.is_file()


def test_content_is_judged_once_in_a_run(cluster, photos, detector, tmp_path) -> None:
    (photos / "z again.png").write_bytes((photos / "1.png").read_bytes())
    options = {"unit_rows": 2, "batch_size": 2, "deduplicate": True}
    run = dfd.score(photos, tmp_path / "ray", "ray", detector, num_workers=1, **options)
    expected = dfd.score(photos, tmp_path / "local", "local", detector, **options)
    assert run.repeated == expected.repeated == 2 and run.computed == 6
    scores = {row["id"]: row["fake_probability"] for row in run.read().to_pylist()}
    assert scores["z again.png"] == scores["1.png"] and scores["copy of 0.png"] == scores["0.png"]
    for row in expected.read().to_pylist():
        assert scores[row["id"]] == pytest.approx(row["fake_probability"], abs=1e-6)
    assert not (tmp_path / "ray" / "contents").exists()


def test_a_detector_that_fails_ends_the_run(cluster, photos, detector, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in detector.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = load_file(detector / "model.safetensors")
    for value in weights.values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DetectorFailed):
        dfd.score(photos, tmp_path / "out", "ray", broken, num_workers=1)
