import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from deepfake_detectors.evaluation.bootstrap import mean_interval
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.texts import (
    SentenceEncoder,
    explanation_metrics,
    rouge_l_f,
    score_texts,
    sentence_similarities,
)
from support.tiny_models import tiny_tokenizer

TEXTS = {
    "a": "the nose looks blurred and the skin is smooth",
    "b": "the eyes look natural",
    "c": "there is a dark line along the jaw of the person",
    "d": "the mouth",
}
REFERENCES = {
    "a": ["the nose is blurred and the skin overly smooth", "a blurred nose"],
    "b": ["the eyes look very natural", "natural eyes and a natural mouth"],
    "c": ["a dark line runs along the jaw"],
    "d": ["the mouth lacks detail"],
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = tiny_tokenizer(markers=False)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, max_position_embeddings=64, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def test_intervals_are_those_of_the_library_on_the_texts_drawn(monkeypatch):
    """Each resample by itself, written out as a file of its own, has the BLEU that the weights give."""
    draws = np.array([[1.0, 1, 1, 1], [2, 0, 1, 1], [0, 3, 0, 1], [4, 0, 0, 0]])
    from deepfake_detectors.evaluation import texts

    kept = []
    monkeypatch.setattr(texts, "draw_weights", lambda *arguments: [draws])
    monkeypatch.setattr(texts, "percentile_interval", kept.append)
    explanation_metrics(TEXTS, REFERENCES, resamples=4)
    names = ["Bleu", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    for row, weights in enumerate(draws.astype(int)):
        keys = [(key, copy) for key, count in zip(TEXTS, weights, strict=True) for copy in range(count)]
        alone = explanation_metrics(
            {f"{key}{copy}": TEXTS[key] for key, copy in keys}, {f"{key}{copy}": REFERENCES[key] for key, copy in keys}
        )
        for place, name in enumerate(names[:6]):  # CIDEr keeps the document frequencies of the whole file
            assert kept[place][row] == pytest.approx(alone.value(name), abs=1e-9), name
    whole = explanation_metrics(TEXTS, REFERENCES)
    assert [kept[place][0] for place in range(7)] == pytest.approx([whole.value(name) for name in names])


def test_texts_on_one_source_are_drawn_together():
    texts = {f"{key}{copy}": text for key, text in TEXTS.items() for copy in range(5)}
    references = {f"{key}{copy}": REFERENCES[key] for key in TEXTS for copy in range(5)}
    widths = []
    for groups in (None, [key[0] for key in texts]):
        entry = explanation_metrics(texts, references, groups, resamples=200).metrics["ROUGE_L"]
        assert entry["low"] <= entry["value"] <= entry["high"]
        widths.append(entry["high"] - entry["low"])
    assert widths[1] > 1.5 * widths[0]


def test_interval_of_a_mean_matches_the_normal_approximation():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = mean_interval(values, resamples=2000)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)
    assert mean_interval(values, resamples=0) is None


def test_similarity_is_one_for_equal_texts_whatever_their_neighbours(encoder):
    loaded = SentenceEncoder(encoder)
    texts = list(TEXTS.values())
    same = sentence_similarities(loaded, texts, [[text, "something else"] for text in texts])
    np.testing.assert_allclose(same, 1.0, atol=1e-6)
    vectors = loaded.encode(texts)
    np.testing.assert_allclose(vectors[3], loaded.encode(texts[3:])[0], atol=1e-5)  # padding counts for nothing
    assert np.isfinite(loaded.encode(["very long " * 200, ""])).all()  # beyond the 64 positions of the model
    expected = (loaded.encode(REFERENCES["b"]) @ vectors[1]).max()
    found = sentence_similarities(loaded, texts, list(REFERENCES.values()))
    assert found[1] == pytest.approx(expected, abs=1e-6) and found.max() < 1.0


def test_similarity_beside_the_other_metrics(encoder):
    raw, words = score_texts(TEXTS, REFERENCES, None, Settings(resamples=20, encoder=encoder))
    for result in (raw, words):
        entry = result.metrics["similarity"]
        assert entry["low"] <= entry["value"] <= entry["high"] and set(result.undefined) == {"SPICE"}
    assert "Bleu" in raw.metrics and "Bleu_mean" in words.metrics


def test_encoder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"sentence encoder 'nobody/none' could not be loaded.*hf download"):
        SentenceEncoder("nobody/none")
    with pytest.raises(ValueError, match="could not be loaded"):
        SentenceEncoder(str(tmp_path))


def test_spice_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no `java` on the PATH"):
        score_texts(TEXTS, REFERENCES, None, Settings(resamples=0, spice=True))
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    from deepfake_detectors.evaluation import texts

    monkeypatch.setattr(texts, "SPICE_MODELS", "never.jar")
    with pytest.raises(ValueError, match=r"get_stanford_models"):
        score_texts(TEXTS, REFERENCES, None, Settings(resamples=0, spice=True))


def test_rouge_of_the_fakevlm_protocol():
    found = rouge_l_f(
        {"a": "The skin is smooth."}, {"a": ["the skin, smooth", "nothing"]}, None, Settings(resamples=0)
    )
    assert found.value("rouge_l_f") == pytest.approx(2 * 0.75 * 1.0 / 1.75)  # 3 of 4 words, 3 of 3
