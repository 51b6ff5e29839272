"""FakeVLM's verdict behind prompts of the caller's own equals the verdict behind prompt and prefix as one text."""

import pytest
import torch
from PIL import Image

from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from support.tiny_models import fakevlm, fakevlm_processor, tiny_fakevlm

PROMPTS = [
    "Does the image looks real/fake?<image>",
    "<image>",
    "<image>\n",
    "Is it real?\n<image>\n\n",
    "<image>Is it real?  ",
    "<image> ",
    "<image>This is a",
    "USER: <image>\nIs it real? ASSISTANT:",
    "What is <image> of?\n",
    "é<image>日本 ",
]


@pytest.fixture(scope="module")
def processor():
    return fakevlm_processor()


@pytest.fixture(scope="module")
def model():
    return fakevlm()


@pytest.fixture(scope="module")
def pictures():
    return [Image.linear_gradient("L").convert("RGB").rotate(30 * number) for number in range(len(PROMPTS))]


def plain(model, processor, picture, prompt, answer):
    """Log-probabilities over the vocabulary behind `prompt` and at each piece of `answer`, tokenised as one text."""
    inputs = processor(images=picture, text=prompt + answer)
    with torch.no_grad():
        return inputs["input_ids"][0], model(**inputs).logits[0].float()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("prefix", [None, " This is a", "This is a"])
def test_the_forced_words_are_tokenised_with_the_prompt(prefix, prompt, model, processor, pictures):
    model = fakevlm(verdict_prefix=prefix) if prefix else model
    _, logits = plain(model, processor, pictures[0], prompt, model.config.forced_prefix)
    ids = [processor.token_ids(f"{prompt}{model.config.forced_prefix} {word}")[-1] for word in ("real", "fake")]
    found = model.detect(**processor(images=pictures[0], text=prompt)).logits[0]
    assert torch.allclose(found, logits[-1, ids], atol=1e-5)


def test_a_batch_of_all_shapes_equals_its_rows(model, processor, pictures):
    for score in ("prefix", "continuation"):
        together = model.detect(**processor(images=pictures, text=PROMPTS), score=score).logits
        alone = [
            model.detect(**processor(images=picture, text=prompt), score=score).logits[0]
            for picture, prompt in zip(pictures, PROMPTS, strict=True)
        ]
        assert torch.allclose(together, torch.stack(alone), atol=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_whole_sentences_are_tokenised_with_the_prompt(prompt, model, processor, pictures):
    """The difference of both sentences does not depend on where the prompt is thought to end."""
    found = model.detect(**processor(images=pictures[0], text=prompt), score="continuation").logits[0]
    sums = []
    for word in ("real", "fake"):
        ids, logits = plain(model, processor, pictures[0], prompt, f"{model.config.forced_prefix} {word} image.")
        words = (ids[1:] < model.config.base_vocab_size).nonzero()[:, 0]  # the picture is not among them
        each = logits[words, : model.config.base_vocab_size].log_softmax(-1).gather(-1, ids[words + 1, None])
        sums.append(each.sum())
    assert torch.allclose(found[1] - found[0], sums[1] - sums[0], atol=1e-4)


@pytest.mark.parametrize("question", [prompt for prompt in PROMPTS if "USER" not in prompt])
def test_the_own_question_of_a_config_may_have_any_shape(question, processor, pictures):
    model = fakevlm(question=question)
    asked = fakevlm().detect(**processor(images=pictures[0], text=question)).logits
    assert torch.allclose(model.detect(processor(images=pictures[0])["pixel_values"]).logits, asked, atol=1e-5)


def test_a_loaded_folder_finds_its_own_tokenizer(tmp_path, model, processor, pictures):
    tiny_fakevlm(tmp_path)
    inputs = processor(images=pictures[0], text=PROMPTS[0])
    loaded = FakeVLMForDeepfakeDetection.from_pretrained(tmp_path)
    assert torch.allclose(loaded.detect(**inputs).logits, model.detect(**inputs).logits, atol=1e-5)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    without = FakeVLMForDeepfakeDetection.from_pretrained(tmp_path)
    assert without.detect(inputs["pixel_values"]).logits.isfinite().all()
    with pytest.raises(ValueError, match="set_verdict_tokens"):
        without.detect(**inputs)


def test_tokens_written_before_this_fix_still_score(processor, pictures):
    model = fakevlm()
    old = {name: value for name, value in model.config.verdict_tokens.items() if name != "kept"}
    pixels = processor(images=pictures[0])["pixel_values"]
    new = model.detect(pixels).logits
    model.config.verdict_tokens = old
    assert torch.equal(model.detect(pixels).logits, new)
