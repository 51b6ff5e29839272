import json
from pathlib import Path
from typing import Any

import pytest
import torch

import deepfake_detectors as dfd
from deepfake_detectors.examination.examine import Examination, examine
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.record import read_record
from deepfake_detectors.examination.replay import replay
from support.pictures import random_pictures
from support.real_data import needs_real_data
from support.tiny_models import tiny_fakevlm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny detector that judges whole pictures."""
    return tiny_fakevlm(tmp_path_factory.mktemp("detector") / "tiny-fakevlm")


@pytest.fixture(scope="module")
def tiny(model: Path) -> Judge:
    return Judge(str(model))


@pytest.fixture
def examined(tmp_path: Path, tiny: Judge) -> Path:
    """Folder of an examination; the examined file lies beside it."""
    random_pictures(1)[0].save(tmp_path / "photo.png")
    return examine(tmp_path / "photo.png", tiny, checks=False, threshold=0.25).save(tmp_path / "photo")


def edit(folder: Path, change: Any) -> None:
    file = folder / "examination.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    change(record)
    file.write_text(json.dumps(record), encoding="utf-8")


def test_untouched_record_is_equal(examined: Path, tiny: Judge, model: Path) -> None:
    result = replay(examined / "examination.json", model=str(model))
    assert (result.equal, result.differences, result.causes) == (True, [], [])
    assert dfd.replay(examined, examined.parent / "photo.png", model=tiny).equal
    assert result.record["readings"][0]["threshold"] == 0.25  # the options are repeated


def test_edited_number_is_named(examined: Path, tiny: Judge) -> None:
    recorded = read_record(examined)["fake_probability"]
    edit(examined, lambda record: record.update(fake_probability=1 - recorded))
    result = replay(examined, model=tiny)
    found = {difference.field: difference for difference in result.differences}
    assert found["fake_probability"].recorded == 1 - recorded
    assert found["fake_probability"].now == pytest.approx(recorded, abs=1e-5)
    assert any(cause.startswith("edited record") for cause in result.causes)


def test_other_file_is_named(examined: Path, tiny: Judge, tmp_path: Path) -> None:
    random_pictures(2)[1].save(tmp_path / "other.png")
    result = replay(examined, tmp_path / "other.png", model=tiny)
    fields = {difference.field for difference in result.differences}
    assert "source.sha256" in fields and any("logits" in field for field in fields)
    assert [cause.split(":")[0] for cause in result.causes] == ["other file"]


def test_other_weights_are_named(examined: Path, tmp_path: Path, model: Path) -> None:
    pipe = dfd.pipeline(model=str(model))
    with torch.no_grad():
        for parameter in pipe.model.parameters():
            parameter.mul_(1.5)
    pipe.save_pretrained(tmp_path / "changed")
    result = replay(examined, model=tmp_path / "changed")
    assert "model.weights.sha256" in {difference.field for difference in result.differences}
    assert [cause.split(":")[0] for cause in result.causes] == ["other weights"]


def test_other_versions_are_named(examined: Path, tiny: Judge) -> None:
    edit(examined, lambda record: record["versions"].update(torch="1.0"))
    result = replay(examined, model=tiny)
    versions = next(cause for cause in result.causes if cause.startswith("other versions"))
    assert torch.__version__.split("+")[0] in versions and "1.0" in versions


def test_what_is_missing(examined: Path, tiny: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.png").rename(tmp_path / "moved.png")
    with pytest.raises(FileNotFoundError, match=r"photo\.png"):
        replay(examined, model=tiny)
    assert replay(examined, tmp_path / "moved.png", model=tiny).equal  # the content counts, not the name
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((OSError, ValueError), match="tiny-fakevlm"):
        replay(examined, tmp_path / "moved.png")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(ValueError, match=r"empty\.json"):
        replay(tmp_path / "empty.json")


def test_name_in_a_record_leads_nowhere_else(examined: Path, tiny: Judge, tmp_path: Path) -> None:
    edit(examined, lambda record: record["source"].update(name="../photo.png"))
    with pytest.raises(FileNotFoundError):
        replay(examined, model=tiny)


@needs_real_data
def test_clip_replays(clip_examination: Examination, files: dict[str, Path], tmp_path: Path) -> None:
    folder = clip_examination.save(tmp_path / "clip")
    result = replay(folder, files["clip"])
    assert (result.equal, result.causes) == (True, [])
    edit(folder, lambda record: record["tracks"][0]["boxes"][2].__setitem__(0, 5.0))
    assert next(item.field for item in replay(folder, files["clip"]).differences) == "tracks[0].boxes[2][0]"
