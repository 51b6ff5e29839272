"""The cache has one name up to transformers 5.23 and another from 5.24 on; ours take both and warn of neither."""

import copy
import logging
import warnings

import pytest
import torch
import transformers
from transformers import DynamicCache, LlamaConfig, pipeline
from transformers.modeling_outputs import CausalLMOutputWithPast

from deepfake_detectors.modeling.generation_cache import RoomyLayer, cache_keyword, cache_of, roomy_cache
from support.pictures import random_pictures
from support.tiny_models import (
    lvlm_dfd_llm,
    m2f2_det_llm,
    tiny_antifakeprompt,
    tiny_fakevlm,
    tiny_lvlm_dfd,
    tiny_lvlm_dfd_llm,
    tiny_m2f2_det,
    tiny_m2f2_det_llm,
)

LANGUAGE_MODELS = {"m2f2_det": m2f2_det_llm, "lvlm_dfd": lvlm_dfd_llm}
FOLDERS = {
    "m2f2_det": tiny_m2f2_det,
    "m2f2_det-llm": tiny_m2f2_det_llm,
    "fakevlm": tiny_fakevlm,
    "fakevlm-continuation": lambda folder: tiny_fakevlm(folder, score="continuation"),
    "antifakeprompt": tiny_antifakeprompt,
    "lvlm_dfd": tiny_lvlm_dfd,
    "lvlm_dfd-llm": tiny_lvlm_dfd_llm,
}


@pytest.fixture(scope="module", params=LANGUAGE_MODELS)
def model(request):
    return LANGUAGE_MODELS[request.param]()


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@torch.no_grad()
def test_forward_takes_either_name(model, name):
    ids = torch.tensor([[1, 20, 30, 40, 50, 60]])
    whole = model(input_ids=ids, use_cache=False)
    assert cache_of(whole) is None
    cache = DynamicCache(config=model.config.get_text_config())
    first = model(input_ids=ids[:, :4], use_cache=True, **{name: cache})
    assert isinstance(first, CausalLMOutputWithPast)
    assert cache_of(first) is cache and cache.get_seq_length() == 4
    second = model(input_ids=ids[:, 4:], use_cache=True, **{name: cache_of(first)})
    torch.testing.assert_close(second.logits, whole.logits[:, 4:], atol=1e-5, rtol=1e-5)


def test_forward_refuses_both_names(model):
    cache = DynamicCache(config=model.config.get_text_config())
    with pytest.raises(ValueError, match="past_key_values"):
        model(input_ids=torch.tensor([[1, 2]]), cache=cache, past_key_values=cache)


def test_library_models_take_the_keyword_of_the_helper(model):
    language_model = model.get_decoder()
    cache = DynamicCache(config=model.config.get_text_config())
    output = language_model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True, **cache_keyword(cache))
    assert cache_of(output) is cache and cache.get_seq_length() == 3


class Said(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.mark.parametrize("name", FOLDERS)
def test_no_library_warns_when_the_pipeline_judges_and_explains(name, tmp_path):
    folder = FOLDERS[name](tmp_path / name)
    said = Said()
    loggers = [logging.getLogger(library) for library in ("transformers", "torch", "peft")]
    logging.Logger.warning_once.cache_clear()  # what was said once in this process must be said again
    for logger in loggers:
        logger.addHandler(said)
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_warning()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            judge = pipeline("deepfake-detection", model=str(folder))
            explain = judge.model.can_explain
            options = {"explain": True, "generate_kwargs": {"max_new_tokens": 4}} if explain else {}
            row = judge(random_pictures(1)[0], **options)
            if explain and hasattr(judge.model, "answer_questions"):
                features = judge.processor(images=random_pictures(1), return_tensors="pt")
                judge.model.answer_questions(judge.processor, ["Real?", "Why?"], max_new_tokens=4, **features)
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        for logger in loggers:
            logger.removeHandler(said)
    assert 0 <= row["fake_probability"] <= 1
    assert said.lines == []


def test_a_cache_with_room_holds_what_a_plain_one_does():
    generator = torch.Generator().manual_seed(0)
    config = LlamaConfig(num_hidden_layers=2, num_attention_heads=2, hidden_size=8, intermediate_size=8)
    plain, roomy = DynamicCache(config=config), roomy_cache(config)
    assert all(type(layer) is RoomyLayer for layer in roomy.layers)

    def both(tokens, batch):
        for layer in range(2):
            states = torch.randn(2, batch, 2, tokens, 4, generator=generator).unbind()
            for expected, found in zip(plain.update(*states, layer), roomy.update(*states, layer), strict=True):
                assert torch.equal(expected, found)

    both(5, 3)
    for _ in range(RoomyLayer.ROOM + 2):  # over the end of the room
        both(1, 3)
    for change in (
        lambda cache: cache.crop(-4),
        lambda cache: cache.batch_repeat_interleave(2),
        lambda cache: cache.reorder_cache(torch.tensor([5, 0, 0, 1, 2, 4])),
        lambda cache: cache.batch_select_indices(torch.tensor([3, 1])),
    ):
        change(plain), change(roomy)
        both(2, len(plain.layers[0].keys))
        both(1, len(plain.layers[0].keys))
    assert plain.get_seq_length() == roomy.get_seq_length()
    kept = roomy.layers[0].keys.clone()
    copied = copy.deepcopy(roomy)
    both(1, 2)
    assert torch.equal(copied.layers[0].keys, kept)  # a copy has room of its own
