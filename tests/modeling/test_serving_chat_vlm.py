"""The saved folder of a chat model runs in `transformers serve`, without this package and without code in it."""

import base64
import io
import json
import urllib.request

import pytest
import torch
from PIL import Image
from transformers.utils.import_utils import is_serve_available

from support.pictures import random_pictures
from support.serving import transformers_serve
from support.tiny_models import chat_vlm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason="needs transformers[serving]"),
]
QUESTIONS = ["Is this image real or fake? Explain.", "What about the eyes?"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    model, processor = chat_vlm("qwen2_5_vl")
    with torch.no_grad():  # markers are shown by the server and left out here; untrained, this model would write them
        model.get_output_embeddings().weight[processor.tokenizer.convert_tokens_to_ids("<|endoftext|>") :] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


@pytest.fixture(scope="module")
def server(detector):
    with transformers_serve(detector[0]) as address:
        yield address


def said(address, model, messages):
    """What the server answers, greedily."""
    body = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0, "stream": False}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["message"]["content"].strip()


def test_a_conversation_says_what_explain_says(detector, server):
    folder, model, processor = detector
    picture = random_pictures(1)[0]
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}"
    batch = processor(images=[Image.open(io.BytesIO(stored.getvalue())).convert("RGB")])
    messages, history = [], []
    for index, question in enumerate(QUESTIONS):
        (own,) = model.explain(processor, question=question, history=history, max_new_tokens=12, **batch).explanations
        shown = [] if index else [{"type": "image_url", "image_url": {"url": url}}]
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
        assert own
        assert said(server, str(folder), messages) == own
        messages.append({"role": "assistant", "content": [{"type": "text", "text": own}]})
        history.append((question, own))
    assert history[0][1] != history[1][1]
