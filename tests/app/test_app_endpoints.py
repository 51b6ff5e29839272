"""The app's endpoints against the library, its worker and its limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors import examine, pipeline
from deepfake_detectors.app.limits import Limits, RefusedUpload, check_upload, in_plain_words
from deepfake_detectors.modeling.image_loading import InputImageError, load_image
from support.app_page import MODEL, PICTURES, PORTRAIT, portrait_clip, served
from support.source_tree import ROOT
from support.tiny_models import tiny_fakevlm, tiny_lvlm_dfd_llm

pytest.importorskip("gradio", reason="the app needs the extra [app]")

SWAP = PICTURES / "fake_astronaut_face_swap.jpg"
QUESTIONS = ["Is it fake?", "What about the eyes?"]


@pytest.fixture(scope="module")
def url():
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    from deepfake_detectors.app.models import Models
    from deepfake_detectors.app.work import Worker

    return Worker(Models([MODEL]), Limits(), tmp_path_factory.mktemp("work"))


def sent(path):
    from gradio_client import handle_file

    return handle_file(str(path))


# numbers


@pytest.mark.parametrize("model", [MODEL, "clip-probe-mini"])
def test_examine_gives_the_record_of_the_library(client, model):
    found = client.predict(sent(SWAP), model, api_name="/examine")
    direct = json.loads(json.dumps(examine(SWAP, model).record))
    for name in ("decision", "fake_probability", "readings", "tracks", "frames", "model", "container"):
        assert found[name] == direct[name], name
    assert found["source"]["sha256"] == direct["source"]["sha256"]


def test_examine_takes_a_video(client, tmp_path):
    clip = portrait_clip(tmp_path / "clip.mp4", 8)
    found = client.predict(sent(clip), MODEL, api_name="/examine")
    direct = examine(clip, MODEL)
    assert (found["kind"], found["fake_probability"]) == ("video", direct.fake_probability)
    assert len(found["frames"]) == len(direct.frames)


def test_detect_gives_the_row_of_the_pipeline(client):
    row = pipeline(model=MODEL)(str(SWAP))
    assert client.predict(sent(SWAP), MODEL, api_name="/detect") == {k: v for k, v in row.items() if k != "mask"}


def test_chat_answers_what_the_model_explains(client):
    judge = pipeline(model=MODEL)
    found = examine(SWAP, MODEL)
    crop = load_image(found.pictures / found.frames[0]["faces"][0]["verdicts"][0]["crop"])
    history: list[list[str]] = []
    for question in QUESTIONS:
        answer = client.predict(sent(SWAP), question, history, MODEL, 0, 1, 40, api_name="/chat")
        row = judge(
            crop,
            explain=True,
            question=question,
            history=[tuple(turn) for turn in history],
            generate_kwargs={"max_new_tokens": 40},
        )
        assert answer == row["explanation"]
        history.append([question, answer])


def test_the_calls_in_the_documentation_with_curl(url):
    """Upload, call, read: as docs/app.md has it."""
    uploaded = subprocess.run(
        ["curl", "-s", "-F", f"files=@{SWAP}", f"{url}/gradio_api/upload"], capture_output=True, check=True
    )
    (path,) = json.loads(uploaded.stdout)
    data = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, MODEL]})
    called = subprocess.run(
        ["curl", "-s", "-H", "Content-Type: application/json", "-d", data, f"{url}/gradio_api/call/detect"],
        capture_output=True,
        check=True,
    )
    event = json.loads(called.stdout)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/detect/{event}", timeout=60) as answer:
        last = answer.read().decode().split("event: complete\ndata: ")[-1].splitlines()[0]
    assert json.loads(last)[0]["fake_probability"] == pipeline(model=MODEL)(str(SWAP))["fake_probability"]


# conversations


def test_a_second_question_encodes_no_picture(worker):
    tower = worker.models.judge(MODEL).pipeline.model.model.vision_tower.embeddings
    examined = worker.examine(SWAP)
    calls = []
    handle = tower.register_forward_hook(lambda *_: calls.append(1))
    first = list(worker.answer(examined, QUESTIONS[0], max_tokens=30))[-1]
    assert len(calls) == 1
    second = list(worker.answer(examined, QUESTIONS[1], [(QUESTIONS[0], first)], max_tokens=30))[-1]
    assert len(calls) == 1
    worker._conversations._kept.clear()
    fresh = list(worker.answer(examined, QUESTIONS[1], [(QUESTIONS[0], first)], max_tokens=30))[-1]
    handle.remove()
    assert len(calls) == 2 and fresh == second


def test_a_temperature_draws(worker):
    examined = worker.examine(SWAP, again=False)
    drawn = {list(worker.answer(examined, QUESTIONS[0], temperature=2.0, max_tokens=20))[-1] for _ in range(4)}
    assert len(drawn) > 1


def test_only_some_conversations_are_kept():
    from deepfake_detectors.app.models import Conversations

    kept, begun = Conversations(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, lambda key=key: begun.append(key) or key)
    assert begun == ["a", "b", "c", "b"]


def test_a_detector_without_a_language_model_suggests_nothing(worker):
    examined = worker.examine(PORTRAIT, "clip-probe-mini")
    assert worker.suggestions(examined) == []
    with pytest.raises(ValueError, match="cannot converse"):
        list(worker.answer(examined, "Why?"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 3.0}, "temperature is 3.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_tokens": 100_000}, "max_tokens is 100000"),
        ({"history": ["no pair"]}, "pairs"),
        ({"history": [("a", "b")] * 20}, "at most 20"),
        ({"question": "why " * 600}, "at most 2000"),
        ({"question": " "}, "empty"),
    ],
)
def test_what_cannot_be_asked_is_said(worker, options, named):
    with pytest.raises(ValueError, match=named):
        list(worker.answer(worker.examine(SWAP, again=False), **{"question": "Why?", **options}))


def test_an_unknown_detector_is_named(worker):
    with pytest.raises(ValueError, match="'nobody'"):
        worker.examine(SWAP, "nobody")


# who may come in


def test_without_the_password_nothing_is_answered():
    import httpx

    with served(auth=("maria", "secret-word")) as url, httpx.Client(base_url=url, timeout=60) as person:
        content = {"files": ("a.jpg", PORTRAIT.read_bytes())}
        for wrong in (None, "wrong"):
            if wrong is not None:
                assert person.post("/login", data={"username": "maria", "password": wrong}).status_code == 400
            assert person.get("/config").status_code == 401
            assert person.get("/gradio_api/info").status_code == 401
            assert person.post("/gradio_api/upload", files=content).status_code == 401
            assert person.post("/gradio_api/call/detect", json={"data": []}).status_code == 401
        assert person.post("/login", data={"username": "maria", "password": "secret-word"}).status_code == 200
        (path,) = person.post("/gradio_api/upload", files=content).json()
        assert person.get(f"/gradio_api/file={path}").content == PORTRAIT.read_bytes()
        assert httpx.get(f"{url}/gradio_api/file={path}").status_code == 401


# other families


def test_a_mask_is_laid_over_the_crop_that_decides(tmp_path):
    from deepfake_detectors.app.models import Models
    from deepfake_detectors.app.views import blended, view_of
    from deepfake_detectors.app.work import Worker

    folder = tiny_lvlm_dfd_llm(tmp_path / "model")
    worker = Worker(Models([folder]), Limits(), tmp_path)
    examined = worker.examine(PORTRAIT)
    view = view_of(examined.record, examined.folder, examined.source)
    assert view.mask is not None and len(view.crops) == len(view.boxes) == 1
    crop = load_image(view.mask[1])
    assert np.array_equal(np.asarray(blended(view.mask, 0.0)), np.asarray(crop))
    assert not np.array_equal(np.asarray(blended(view.mask, 1.0)), np.asarray(crop))
    assert len(worker.suggestions(examined)) == 3
    assert isinstance(list(worker.answer(examined, "Where?", max_tokens=5))[-1], str)


def test_whole_pictures_can_be_talked_about(tmp_path):
    from deepfake_detectors.app.models import Models
    from deepfake_detectors.app.work import Worker

    folder = tiny_fakevlm(tmp_path / "model")
    worker = Worker(Models([folder]), Limits(), tmp_path)
    examined = worker.examine(PICTURES / "real_cat.jpg")
    assert examined.subject is not None and examined.subject.image == str(PICTURES / "real_cat.jpg")
    answer = list(worker.answer(examined, "Is it fake?", max_tokens=8))[-1]
    row = worker.models.judge().pipeline(
        str(PICTURES / "real_cat.jpg"), explain=True, question="Is it fake?", generate_kwargs={"max_new_tokens": 8}
    )
    assert answer == row["explanation"]


def test_a_picture_without_a_face_gives_a_decision_and_nothing_to_talk_about(worker):
    examined = worker.examine(PICTURES / "real_coffee.jpg")
    assert examined.record["decision"] == "not applicable" and worker.suggestions(examined) == []
    with pytest.raises(RefusedUpload, match="centerface"):
        list(worker.answer(examined, "Why?"))


# limits


def test_limits(tmp_path):
    small = Limits(file_bytes=60_000, picture_bytes=50_000, pixels=200_000, animation_pixels=200_000, video_seconds=1)
    Image.new("RGB", (500, 500)).save(tmp_path / "wide.png")
    with pytest.raises(RefusedUpload, match="500 x 500 pixels"):
        check_upload(tmp_path / "wide.png", small)
    noise = np.random.default_rng(0).integers(0, 255, (140, 140, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "heavy.png")
    with pytest.raises(RefusedUpload, match="image is too large"):
        check_upload(tmp_path / "heavy.png", small)
    with pytest.raises(RefusedUpload, match="file is too large"):
        check_upload(PORTRAIT, small)
    frames = [Image.new("RGB", (200, 200), (n, 0, 0)) for n in range(9)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(RefusedUpload, match="too many frames"):
        check_upload(tmp_path / "moving.gif", small)
    clip = portrait_clip(tmp_path / "clip.mp4", 20)
    with pytest.raises(RefusedUpload, match="0 minutes"):
        check_upload(clip, Limits(video_seconds=1))
    with pytest.raises(RefusedUpload, match="megapixels"):
        check_upload(clip, Limits(pixels=10_000))
    assert (check_upload(PORTRAIT, Limits()), check_upload(clip, Limits())) == ("picture", "video")


def test_an_examination_that_takes_too_long_is_stopped(worker, tmp_path):
    from deepfake_detectors.app.work import Worker

    impatient = Worker(worker.models, Limits(job_seconds=0.0), tmp_path)
    with pytest.raises(RefusedUpload, match="took longer"):
        impatient.examine(portrait_clip(tmp_path / "clip.mp4", 6))


def test_messages_name_no_folder_and_no_exception(tmp_path):
    broken = tmp_path / "holiday.jpg"
    broken.write_bytes(PORTRAIT.read_bytes()[:4000])
    with pytest.raises(InputImageError) as caught:
        load_image(broken)
    text = in_plain_words(caught.value, broken)
    assert text.startswith("This file") and str(tmp_path) not in text and "Error" not in text and "(" not in text


# files


def test_old_files_go_and_kept_ones_stay(tmp_path):
    from deepfake_detectors.app.guard import remove_old

    for name in ("a/old.png", "b/kept.png", "c/d/old.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    remove_old(tmp_path, 3600, set())
    assert len(list(tmp_path.rglob("*.*"))) == 3
    remove_old(tmp_path, -1, {str(tmp_path / "b/kept.png")})
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["b", "b/kept.png"]


def test_a_detector_that_cannot_be_loaded_names_no_folder(tmp_path, worker, caplog):
    import shutil

    from deepfake_detectors.app.models import Models
    from deepfake_detectors.app.work import Worker
    from deepfake_detectors.checkpoints import built_in_path

    broken = shutil.copytree(built_in_path(MODEL), tmp_path / "mine")
    (broken / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(RefusedUpload) as caught:
        Worker(Models([broken]), Limits(), tmp_path).examine(PORTRAIT)
    assert "mine" in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert str(broken) in caplog.text, "who runs the page is told"


def test_a_given_folder_keeps_what_others_put_there(tmp_path):
    script = (
        "import os, time; from pathlib import Path; from deepfake_detectors.app.guard import workspace\n"
        "folder = workspace(); assert folder == workspace() and oct(folder.stat().st_mode)[-3:] == '700'\n"
        "(folder / 'a').write_text('x'); print(folder)"
    )
    (tmp_path / "other").write_text("y")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_examples_are_those_of_the_repository():
    shipped = ROOT / "src" / "deepfake_detectors" / "app" / "pictures"
    names = [path.name for path in shipped.glob("*.jpg")]
    assert len(names) >= 2
    for name in names:
        assert (shipped / name).read_bytes() == (PICTURES / name).read_bytes()


START = """
import sys, time, urllib.request
import deepfake_detectors as dfd
from deepfake_detectors.app import build
assert sys.modules.get("torch")
wall, cpu = time.perf_counter(), time.process_time()
page = build("m2f2-det-mini")
_, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
with urllib.request.urlopen(url, timeout=20) as answer:
    assert answer.status == 200 and len(answer.read()) > 10_000
print(time.perf_counter() - wall, time.process_time() - cpu)
page.close(verbose=False)
"""


@pytest.mark.slow
def test_the_first_page_comes_within_three_seconds_of_the_imports():
    """CPU seconds, so that a busy machine does not count."""
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True, timeout=200)
    assert float(done.stdout.split()[-1]) < 3.0, done.stdout


def test_gradio_writes_nothing_beside_the_sources(url):
    assert list((ROOT / "src").rglob("*.pyi")) == []


def test_models_of_one_name_can_be_told_apart(tmp_path):
    import shutil

    from deepfake_detectors.app.models import Models
    from deepfake_detectors.checkpoints import built_in_path

    for place in ("a", "b"):
        shutil.copytree(built_in_path(MODEL), tmp_path / place / "mine")
    models = Models([tmp_path / "a" / "mine", tmp_path / "b" / "mine"])
    assert models.names == ["mine", "mine (2)", "clip-probe-mini", MODEL]
    assert MODEL in models.card(MODEL) and "Terms" in models.card(MODEL)
    with pytest.raises(OSError, match="nothing-here"):
        Models([Path("/nothing-here/at/all")])
