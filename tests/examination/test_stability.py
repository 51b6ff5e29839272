"""Stability: a verdict that flips when the picture is re-encoded is inconclusive, with the numbers."""

from pathlib import Path
from typing import Any

import html5lib
import pytest
from PIL import Image, ImageFilter

from deepfake_detectors.corruptions import STABILITY_SET
from deepfake_detectors.examination.examine import examine
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.replay import replay
from support.tiny_clip_probe import tiny_clip_probe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tiny_clip_probe(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.effect_noise((320, 240), 60).convert("RGB").filter(ImageFilter.GaussianBlur(2)).save(file)
    return file


class ByRoughness:
    """Answers by how rough the picture is: re-encoding lowers it."""

    def __init__(self, judge: Judge, monkeypatch: Any, limit: float, band: dict[str, Any] | None) -> None:
        self.seen: list[float] = []
        monkeypatch.setattr(judge, "prepare", lambda image, reading: {"image": image})
        monkeypatch.setattr(judge, "logits", lambda items, _: [self.answer(item["image"], limit) for item in items])
        config = judge.pipeline.model.config
        monkeypatch.setattr(config, "of_head", self.with_band(config.of_head, band))

    def answer(self, image: Image.Image, limit: float) -> tuple[float, float]:
        edges = image.convert("L").filter(ImageFilter.FIND_EDGES)
        rough = sum(edges.histogram()[40:]) / (image.width * image.height)
        self.seen.append(rough)
        return 0.0, 200 * (rough - limit)

    @staticmethod
    def with_band(of_head: Any, band: dict[str, Any] | None) -> Any:
        return lambda head, field: band if field == "decision_band" else of_head(head, field)


BAND = {"low": 0.4, "high": 0.6, "fitted_on": "a test", "false_alarm_rate": 0.1, "miss_rate": 0.1, "coverage": 0.9}


@pytest.fixture
def rough(tmp_path: Path) -> Path:
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6)).save(tmp_path / "rough.png")
    return tmp_path / "rough.png"


def examined(judge: Judge, path: Path, **options: Any) -> Any:
    return examine(path, judge, head="picture", checks=False, **options)


@pytest.mark.parametrize("band", [BAND, None])
def test_a_flip_is_inconclusive(tiny, rough, monkeypatch, band) -> None:
    probe = ByRoughness(tiny, monkeypatch, 0.0, band)
    examined(tiny, rough, stability=True)
    clean, copies = probe.seen[0], probe.seen[1:]
    assert min(copies) < clean
    # Between the picture and the copy that it changed most: the verdict is fake and then is not.
    limit = (clean + min(copies)) / 2
    ByRoughness(tiny, monkeypatch, limit, band)
    plain = examined(tiny, rough)
    assert plain.decision == ("likely fake" if band else None) and plain.record["stability"] is None
    found = examined(tiny, rough, stability=True)
    assert found.decision == "inconclusive"
    assert found.record["fake_probability"] == plain.record["fake_probability"]
    flips = [item["name"] for item in found.record["stability"]["variants"] if item["readings"][0]["flipped"]]
    assert flips and found.record["stability"]["flips"] == len(flips)
    assert all(name in found.reason for name in flips)
    assert found.record["readings"][0]["decision"] == "inconclusive"


def test_a_stable_verdict_stays(tiny, rough, monkeypatch, tmp_path) -> None:
    ByRoughness(tiny, monkeypatch, -1.0, BAND)
    found = examined(tiny, rough, stability=True)
    assert found.decision == "likely fake" and found.record["stability"]["flips"] == 0
    assert [item["name"] for item in found.record["stability"]["variants"]] == list(STABILITY_SET)
    page = found.sheet()
    html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    assert "After re-encoding" in page and "messenger" in page
    folder = found.save(tmp_path / "out")
    assert not (folder / "copies").exists()


def test_replay_repeats_it(tiny, photo, tmp_path) -> None:
    folder = examined(tiny, photo, stability=True).save(tmp_path / "out")
    again = replay(folder, photo, model=tiny)
    assert again.differences == [] and again.record["stability"]["variants"]
    # A record of an earlier version has neither entry nor option.
    import json

    from deepfake_detectors.examination.record import record_digest

    record = json.loads((folder / "examination.json").read_text())
    plain = examined(tiny, photo).record
    old = {**record, **{key: plain[key] for key in ("decision", "reason", "readings")}}
    del old["stability"], old["options"]["stability"]
    old["record_sha256"] = record_digest(old)
    (folder / "examination.json").write_text(json.dumps(old))
    assert replay(folder, photo, model=tiny).equal
