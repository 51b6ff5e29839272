"""AntifakePrompt: the common contract, one-pass scoring, variants of the learned word, generation."""

import copy

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.modeling.configuration_antifakeprompt import PROMPTS, AntifakePromptConfig
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import SoftWordEmbedding
from support.detector_tests import DetectorTests
from support.pictures import random_pictures
from support.tiny_models import (
    antifakeprompt,
    antifakeprompt_processor,
    instructblip_fields,
    tiny_antifakeprompt,
)

TOKENS = 6


class TestAntifakePrompt(DetectorTests):
    make_model = staticmethod(antifakeprompt)
    make_processor = staticmethod(antifakeprompt_processor)
    always_float32 = "soft_word"

    def test_gradients_reach_the_head(self, model, processor):
        """Here: the two words, and nothing else, from the training batch of the official task."""
        model = copy.deepcopy(model)
        model.freeze_all_but_soft_words()
        batch = processor.encode_answers([processor.prompt] * 2, ["yes", "no"], images=random_pictures(2))
        model(**batch).loss.backward()
        reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert reached == {
            "qformer.embeddings.word_embeddings.soft_word",
            "language_model.model.embed_tokens.soft_word",
        }
        assert all(word.grad.abs().max() > 0 for word in model.soft_words().values())


@pytest.fixture(scope="module")
def model():
    return antifakeprompt()


@pytest.fixture(scope="module")
def processor():
    return antifakeprompt_processor()


@pytest.fixture(scope="module")
def pixels(processor):
    return processor(images=random_pictures(3))["pixel_values"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_antifakeprompt(tmp_path_factory.mktemp("antifakeprompt"))


# scoring


def test_the_own_prompt_needs_no_text(model, processor, pixels):
    text = processor.tokenize([processor.prompt] * 3, "right")
    assert torch.allclose(model.detect(pixels).logits, model.detect(pixels, **text).logits, atol=1e-6)


def test_one_pass_and_one_position(model, pixels):
    """The language model runs once, over queries and question; the head over one position per picture."""
    lengths, heads = [], []
    decoder, head = model.language_model.get_decoder(), model.language_model.get_output_embeddings()
    handles = [
        decoder.register_forward_pre_hook(
            lambda m, a, kwargs: lengths.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
        head.register_forward_pre_hook(lambda m, a: heads.append(tuple(a[0].shape[:-1]))),
    ]
    model.detect(pixels)
    for handle in handles:
        handle.remove()
    assert lengths == [(3, model.config.num_query_tokens + len(model.config.llm_prompt_ids))]
    assert heads == [(3,)]


@pytest.mark.parametrize("candidates", [["yes", "not sure"], ["not sure at all", "no"]])
def test_answers_of_several_tokens_equal_whole_rows(processor, pixels, candidates):
    model = antifakeprompt(candidates=candidates)
    assert max(len(ids) for ids in model.config.candidate_ids) > 1
    logits = model.detect(pixels).logits
    for column, answer in enumerate(candidates):
        batch = processor.encode_answers([processor.prompt] * 3, [answer] * 3, end=False)
        with torch.no_grad():
            output = model(pixel_values=pixels, **batch)
        scores = output.logits[:, :-1].log_softmax(-1)
        labels = batch["labels"][:, 1:]
        summed = (scores.gather(2, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)).sum(1)
        assert torch.allclose(logits[:, column], summed, atol=1e-4)


def test_padding_on_either_side_scores_alike(model, processor, pixels):
    texts = [PROMPTS["postfix"], PROMPTS["replace"], "What about the eyes [*]?"]
    ids = [processor.answer_ids(answer) for answer in ("yes", "not sure at all")]
    right, left = (
        model.score_candidates(pixels, ids, **processor.tokenize(texts, side)) for side in ("right", "left")
    )
    alone = torch.cat(
        [model.score_candidates(pixels[i : i + 1], ids, **processor.tokenize([t])) for i, t in enumerate(texts)]
    )
    assert torch.allclose(right, alone, atol=1e-4)
    assert torch.allclose(left, alone, atol=1e-4)


def test_the_score_ignores_other_rows_of_the_head(model, pixels):
    changed = copy.deepcopy(model)
    rows = [i for i in range(len(changed.language_model.lm_head.weight)) if [i] not in model.config.candidate_ids]
    with torch.no_grad():
        changed.language_model.lm_head.weight[rows] = 7.0
    assert torch.equal(changed.detect(pixels).logits, model.detect(pixels).logits)


def test_wrong_candidate_lists_are_refused(model, pixels):
    with pytest.raises(ValueError, match=r"\b2 .*\b3 "):
        model.score_candidates(pixels, [[[1], [2]], [[1], [2]]])
    with pytest.raises(ValueError, match="at least one token"):
        model.score_candidates(pixels, [[[1], []]] * 3)


# the learned word


def test_the_tables_are_untouched(model):
    config = model.config
    llm, qformer = model.language_model.get_input_embeddings(), model.qformer.get_input_embeddings()
    assert (len(llm.weight), len(qformer.weight)) == (config.text_config.vocab_size, config.qformer_config.vocab_size)
    assert config.llm_soft_word_id >= len(llm.weight) and config.qformer_soft_word_id >= len(qformer.weight)


def test_soft_word_embedding_swaps_one_row_and_refuses_strangers():
    table = torch.nn.Embedding(5, 3)
    wrapped = SoftWordEmbedding(table, 7, placeholder_ids=[6])
    found = wrapped(torch.tensor([[1, 7, 6]]))
    assert torch.equal(found[0, 0], table.weight[1])
    assert torch.equal(found[0, 1], wrapped.soft_word[0])
    with pytest.raises(IndexError):
        wrapped(torch.tensor([8]))
    found.sum().backward()
    assert wrapped.soft_word.grad is not None


@pytest.mark.parametrize("side", ["qformer", "llm"])
def test_both_words_matter(model, pixels, side):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.soft_words()[f"{side}_soft_word"].neg_()
    assert not torch.allclose(changed.detect(pixels).logits, model.detect(pixels).logits, atol=1e-4)


@pytest.mark.parametrize("position", ["prefix", "replace"])
def test_positions(pixels, position, tmp_path):
    model = antifakeprompt(prompt_position=position, prompt=PROMPTS[position])
    processor = antifakeprompt_processor(prompt=PROMPTS[position])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, found = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert found.prompt == loaded.config.prompt == PROMPTS[position]
    assert loaded.config.llm_prompt_ids == found.llm_ids(PROMPTS[position])
    assert torch.allclose(loaded.detect(pixels).logits, model.detect(pixels).logits, atol=1e-6)


@pytest.mark.parametrize(("side", "other"), [("qformer", "llm"), ("llm", "qformer")])
def test_one_sided_words(pixels, side, other, tmp_path):
    model = antifakeprompt(soft_word_sides=side)
    assert set(model.soft_words()) == {f"{side}_soft_word"}
    processor = antifakeprompt_processor(soft_word_sides=side)
    plain = {"qformer": processor.qformer_ids, "llm": processor.llm_ids}[other](processor.plain_prompt)
    assert getattr(model.config, f"{other}_prompt_ids") == plain
    assert processor.soft_word in getattr(model.config, f"{side}_prompt")
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.allclose(loaded.detect(pixels).logits, model.detect(pixels).logits, atol=1e-6)


def test_vision_norm_has_the_official_epsilon(model):
    assert model.vision_model.post_layernorm.eps == model.config.ln_vision_eps == 1e-5
    assert model.vision_model.encoder.layers[0].layer_norm1.eps == model.config.vision_config.layer_norm_eps


# wrong configs and inputs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_position": "custom", "prompt": "Is it real?"}, "exactly once"),
        ({"prompt_position": "custom", "prompt": "[*] is it [*]?"}, "exactly once"),
        ({"prompt_position": "custom"}, "needs a prompt"),
        ({"prompt": "Is it [*]?"}, "prompt_position='custom'"),
        ({"prompt_position": "infix"}, "'postfix', 'prefix', 'replace', 'custom'"),
        ({"soft_word_sides": "vision"}, "'both', 'qformer', 'llm'"),
        ({"plain_prompt": "Is it [*]?"}, "not at all"),
        ({"candidates": ["yes", "yes"]}, "two different answers"),
        ({"image_token_index": 900, "llm_soft_word_id": 900}, "both 900"),
        ({"llm_prompt_ids": [1, 2, 3]}, "0 times instead of 1"),
        ({"candidate_ids": [[1], []]}, "at least one id"),
    ],
)
def test_wrong_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AntifakePromptConfig(**instructblip_fields(), **fields)


def test_a_seq2seq_language_model_is_refused():
    with pytest.raises(ValueError, match="decoder such as 'llama'"):
        AntifakePromptConfig(**{**instructblip_fields(), "text_config": {"model_type": "t5"}})


def test_pictures_and_questions_must_agree(model, processor, pixels):
    with pytest.raises(ValueError, match=r"^2 .*\b3 "):
        model.detect(pixels, **processor.tokenize([processor.prompt] * 2))
    text = processor.tokenize([processor.prompt] * 3)
    with pytest.raises(ValueError, match="num_query_tokens"):
        model.detect(pixels, **{**text, "input_ids": text["input_ids"][:, 1:]})
    with pytest.raises(ValueError, match="belong together"):
        model.detect(pixels, input_ids=text["input_ids"])


def test_a_config_without_prompt_ids_says_so(pixels):
    model = antifakeprompt()
    model.config.llm_prompt_ids = None
    with pytest.raises(ValueError, match="prompt_fields"):
        model.detect(pixels)
    model = antifakeprompt(candidate_ids=None)
    with pytest.raises(ValueError, match="candidate_ids"):
        model.detect(pixels)


# text


def test_generate_equals_the_stock_loop(model, processor, pixels):
    """Greedy by hand with whole forwards, on questions of different length (padding between picture and text)."""
    texts = [PROMPTS["postfix"], PROMPTS["replace"], "What about the eyes [*]?"]
    ids = model.generate(pixels, **processor.tokenize(texts), do_sample=False, max_new_tokens=3)
    for i, text in enumerate(texts):
        batch = processor.tokenize([text])
        for token in ids[i].tolist():
            with torch.no_grad():
                expected = model(pixels[i : i + 1], **batch).logits[0, -1].argmax()
            assert token == expected
            if token == model.config.text_config.eos_token_id:
                break
            batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([[token]])], dim=1)
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])


def test_explain_shares_the_encoding_and_changes_nothing(model, processor, pixels):
    runs = []
    handle = model.vision_model.register_forward_hook(lambda *_: runs.append(1))
    output = model.explain(processor, pixels, max_new_tokens=TOKENS, num_beams=1)
    handle.remove()
    assert len(runs) == 1
    detection = model.detect(pixels)
    assert torch.equal(output.logits, detection.logits)
    names = [model.config.id2label[int(p >= 0.5)] for p in detection.fake_probability]
    text = processor.tokenize([processor.explanation_question.format(verdict=name) for name in names])
    ids = model.generate(
        pixels, **text, do_sample=False, max_new_tokens=TOKENS, min_new_tokens=1, repetition_penalty=1.5
    )
    assert output.explanations == processor.decode_answers(ids)


def test_greedy_text_of_one_equals_text_of_many(model, processor, pixels):
    options = {"question": "What about the eyes?", "max_new_tokens": TOKENS, "num_beams": 1}
    together = model.explain(processor, pixels, **options).explanations
    alone = [model.explain(processor, pixels[i : i + 1], **options).explanations[0] for i in range(3)]
    assert together == alone
    assert len(set(together)) > 1, "equal texts could not show a mistaken order"


def test_repetition_penalty_sees_the_same_tokens_in_a_padded_batch(model, processor, pixels):
    texts = ["What about the eyes [*]?", f"{PROMPTS['postfix']} Explain why this photo looks fake."]
    options = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}
    together, free = (
        model.generate(pixels[:2], **processor.tokenize(texts), repetition_penalty=penalty, **options)
        for penalty in (5.0, 1.0)
    )
    for i, text in enumerate(texts):
        alone = model.generate(pixels[i : i + 1], **processor.tokenize([text]), repetition_penalty=5.0, **options)
        assert torch.equal(together[i : i + 1], alone)
        assert not torch.equal(together[i], free[i]), "a penalty that changes nothing could not show who sees it"


def test_training_mode_reaches_the_qformer(model, processor, pixels):
    """The official training runs with the Q-Former's dropout."""
    model = copy.deepcopy(model).train()
    text = processor.tokenize([processor.prompt] * 3, "right")
    with torch.no_grad():
        first, second = (model(pixels, **text).logits for _ in range(2))
    assert not torch.equal(first, second)


def test_device_map_loads(folder, pixels):
    pytest.importorskip("accelerate")
    mapped = AutoModel.from_pretrained(folder, device_map="auto")
    plain = AutoModel.from_pretrained(folder)
    assert torch.allclose(mapped.detect(pixels).logits, plain.detect(pixels).logits, atol=1e-6)


def test_4_bit_without_bitsandbytes_is_refused_clearly(folder):
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        from transformers import BitsAndBytesConfig

        with pytest.raises(ImportError, match="bitsandbytes"):
            AutoModel.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    else:
        pytest.skip("bitsandbytes is installed")


def test_linears_in_another_format_leave_the_words_alone(model, pixels):
    """PyTorch's own int8 linears stand for any quantised base: tables, words and verdict stay usable."""
    quantised = copy.deepcopy(model)
    quantised.language_model.model = torch.ao.quantization.quantize_dynamic(
        quantised.language_model.model, {torch.nn.Linear}, dtype=torch.qint8
    )
    assert type(quantised.language_model.get_input_embeddings()) is SoftWordEmbedding
    difference = quantised.detect(pixels).logits - model.detect(pixels).logits
    assert 0 < difference.abs().max() < 0.3
