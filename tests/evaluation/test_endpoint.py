"""`evaluate(endpoint=...)`: answers of an OpenAI-compatible server, in words and as probabilities."""

import json
import math
import time

import pytest
import torch
from PIL import Image
from transformers.utils.import_utils import is_serve_available
from typer.testing import CliRunner

from deepfake_detectors import evaluate
from deepfake_detectors.evaluation.scoring import DetectorError
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION
from deepfake_detectors_cli import app
from support.pictures import random_pictures
from support.serving import asked, chat_server, completion, free_port, transformers_serve
from support.tiny_models import chat_vlm

QUICK = {"resamples": 0, "batch_size": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three real and three fake pictures; their left upper pixel says which."""
    root = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(random_pictures(6)):
        folder = root / ("real" if index < 3 else "fake")
        folder.mkdir(exist_ok=True)
        picture.putpixel((0, 0), (0, 0, 0) if index < 3 else (255, 255, 255))
        picture.save(folder / f"{index}.png")
    return {"real_dir": root / "real", "fake_dir": root / "fake"}


def is_fake(request):
    return asked(request)[0].getpixel((0, 0)) == (255, 255, 255)


def served(address, folders, **options):
    return evaluate(endpoint=address, model_name="m", **{**folders, **QUICK, **options})


def test_words_are_read_by_the_rule_of_the_family(folders):
    requests = []

    def answer(request):
        requests.append(request)
        # Of both words: undetermined by whole words, "real" by FakeVLM's own rule.
        return 200, completion("This is a fake image." if is_fake(request) else "A real image, not a fake.")

    with chat_server(answer) as address:
        fakevlm = served(f"{address}/v1/", folders, family="fakevlm")
        chat = served(address, folders)
    assert {request["path"] for request in requests} == {"/v1/chat/completions"}
    assert {request["model"] for request in requests} == {"m"}
    assert [asked(request)[1] for request in requests[:6]] == [QUESTION] * 6
    assert asked(requests[6])[1] != QUESTION
    assert (fakevlm.content["parser"], chat.content["parser"]) == ("fakevlm", "chat_vlm")
    assert fakevlm.metrics["accuracy"]["value"] == 1.0
    assert chat.metrics["accuracy"]["value"] == 0.5
    assert chat.content["confusion"]["undetermined_real"] == 3
    assert [row.score for row in fakevlm.predictions] == [None] * 6


def test_the_published_protocol_reads_a_server(folders):
    with chat_server(lambda request: (200, completion("This is a fake image."))) as address:
        results = served(address, folders, protocol="paper:fakevlm", family="fakevlm")
    assert (results.metrics["accuracy_real"]["value"], results.metrics["accuracy_fake"]["value"]) == (0.0, 1.0)


def test_probabilities_at_the_token_that_says_the_verdict(folders):
    def answer(request):
        fake = is_fake(request)
        word, other = (" fake", " real") if fake else (" real", " fake")
        tokens = [
            ("This", {"This": math.log(0.9), "Real": math.log(0.1)}),
            (" is a", {" is a": 0.0}),
            (word, {word: math.log(0.6), other: math.log(0.1), other.title(): math.log(0.1), "x": math.log(0.01)}),
        ]
        return 200, completion(f"This is a{word} image.", tokens)

    with chat_server(answer) as address:
        results = served(address, folders, family="fakevlm")
    assert [row.score for row in results.predictions] == pytest.approx([0.25] * 3 + [0.75] * 3)
    assert results.metrics["auc"]["value"] == 1.0


def test_a_word_that_is_not_listed_gets_the_smallest_probability_listed(folders):
    def answer(request):
        return 200, completion("Fake.", [("Fake", {"Fake": math.log(0.9), "x": math.log(0.06), "y": math.log(0.04)})])

    with chat_server(answer) as address:
        results = served(address, folders)
    assert [row.score for row in results.predictions] == pytest.approx([0.9 / 0.94] * 6)


def test_an_answer_without_a_verdict_counts_as_wrong(folders, tmp_path):
    def answer(request):
        if is_fake(request):
            return 200, completion("Fake", [("Fake", {"Fake": math.log(0.9), "Real": math.log(0.1)})])
        return 200, completion("Hm", [("Hm", {"Hm": math.log(0.9), "Real": math.log(0.1)})])

    with chat_server(answer) as address:
        results = served(address, folders, output=tmp_path)
    assert results.metrics["accuracy"]["value"] == 0.5
    assert any("3 of 6" in remark for remark in results.remarks)
    stored = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row.get("score") for row in stored] == pytest.approx([None] * 3 + [0.9] * 3)


def test_the_probabilities_are_those_of_the_model(folders, tmp_path):
    """A server that, as a guided choice does, says the most probable answer and lists the others."""
    model, processor = chat_vlm("qwen2_5_vl")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    words = [text for texts in model.config.answers.values() for text in texts]

    def answer(request):
        picture, question = asked(request)
        assert question == model.config.question
        batch = processor(images=[picture])
        with torch.no_grad():
            logits = model.detect(**batch).logits[0].log_softmax(-1)
        real, fake = (float(value) - math.log(2) for value in logits)
        alternatives = {"Real": real, "real": real, "Fake": fake, "fake": fake}
        chosen = "Real" if real >= fake else "Fake"
        return 200, completion(chosen, [(chosen, alternatives)])

    assert sorted(words) == ["Fake", "Real", "fake", "real"]
    with chat_server(answer) as address:
        asked_there = served(address, folders)
    here = evaluate(tmp_path / "model", **folders, **QUICK)
    scores = [[row.score for row in results.predictions] for results in (asked_there, here)]
    assert len(set(scores[1])) == 6
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_goes_on_after_an_interruption(folders, tmp_path):
    count, healthy = [], False

    def answer(request):
        count.append(1)
        if len(count) > 4 and not healthy:
            return 503, {"error": "overloaded"}
        return 200, completion("Fake")

    with chat_server(answer) as address:
        with pytest.raises(DetectorError, match=r"503.*overloaded"):
            served(address, folders, output=tmp_path)
        assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 4
        healthy, before = True, len(count)
        assert served(address, folders, output=tmp_path).content["num_fake"] == 3
        assert len(count) - before == 2
        with pytest.raises(ValueError, match="another run"):
            served(address, folders, output=tmp_path, family="fakevlm")


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (404, {"error": {"message": "no such model"}}, "404.*'m'.*no such model"),
        (200, {"choices": []}, "choices"),
        (200, {"object": "list"}, "choices"),
        (200, {"choices": [{"message": {"content": None}}]}, "choices"),
        (200, b"<html>", "JSON"),
        (200, b"[1]", "choices"),
        (307, b"", "307"),
    ],
)
def test_bad_answers_are_the_fault_of_the_server(status, said, message, folders):
    with chat_server(lambda request: (status, said)) as address, pytest.raises(DetectorError, match=message):
        served(address, folders)


def test_no_server(folders):
    with pytest.raises(DetectorError, match=r"http://127\.0\.0\.1"):
        served(f"http://127.0.0.1:{free_port()}", folders)


def test_a_clock_runs_over_each_request(folders):
    def answer(request):
        time.sleep(2)
        return 200, completion("Fake")

    with chat_server(answer) as address, pytest.raises(DetectorError, match=r"0\.3 seconds"):
        served(address, folders, request_timeout=0.3)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "ftp://127.0.0.1/v1", "model_name": "m"},
        {"endpoint": "localhost:8000", "model_name": "m"},
        {"endpoint": "http://127.0.0.1:1"},
        {"model_name": "m"},
        {"endpoint": "http://127.0.0.1:1", "model_name": "m", "family": "clip_probe"},
        {"endpoint": "http://127.0.0.1:1", "model_name": "m", "request_timeout": 0},
        {"endpoint": "http://127.0.0.1:1", "model_name": "m", "model": "clip-probe-mini"},
        {"endpoint": "http://127.0.0.1:1", "model_name": "m", "robustness": "light"},
        {"endpoint": "http://127.0.0.1:1", "model_name": "m", "device": "cpu"},
    ],
)
def test_parameters_that_do_not_go_together(options, folders):
    with pytest.raises(ValueError):
        evaluate(**options, **folders, **QUICK)


def test_command(folders, tmp_path):
    def run(address, place):
        places = ["--real-dir", folders["real_dir"], "--fake-dir", folders["fake_dir"], "--output", tmp_path / place]
        options = ["--endpoint", address, "--model-name", "m", "--family", "fakevlm", "--resamples", "0"]
        return CliRunner().invoke(app, ["evaluate", *map(str, [*options, *places])])

    with chat_server(lambda request: (200, completion("This is a fake image."))) as address:
        assert run(address, "good").exit_code == 0
    assert json.loads((tmp_path / "good" / "results.json").read_text())["parser"] == "fakevlm"
    assert run(f"http://127.0.0.1:{free_port()}", "none").exit_code == 1
    wrong = run("ftp://127.0.0.1", "wrong")
    assert (wrong.exit_code, "--endpoint" in wrong.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(not is_serve_available(), reason="needs transformers[serving]")
def test_transformers_serve(folders, tmp_path):
    folder = tmp_path / "served"
    model, processor = chat_vlm("qwen2_5_vl")
    with torch.no_grad():  # markers are shown by the server and left out here; untrained, this model would write them
        model.get_output_embeddings().weight[processor.tokenizer.convert_tokens_to_ids("<|endoftext|>") :] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    options = {**folders, **QUICK, "family": "fakevlm", "max_new_tokens": 8}
    with transformers_serve(folder) as address:
        results = evaluate(endpoint=address, model_name=str(folder), **options)
        with pytest.raises(DetectorError, match="no-such-model"):
            evaluate(endpoint=address, model_name="no-such-model", **options)
    files = [folders[f"{name}_dir"] / f"{index}.png" for index, name in enumerate(["real"] * 3 + ["fake"] * 3)]
    own = []
    for file in files:
        batch = processor(images=[Image.open(file).convert("RGB")])
        own += model.explain(processor, question=QUESTION, max_new_tokens=8, **batch).explanations
    assert [row.text for row in results.predictions] == own
    assert [row.score for row in results.predictions] == [None] * 6  # it ignores `logprobs`
