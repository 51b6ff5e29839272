"""FakeVLM: the detector contract, three ways to score, explanations from the verdict's prefill, folders."""

import copy
import importlib.util
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    pipeline,
)

import deepfake_detectors
from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.configuration_fakevlm import SCORES
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.prompting_fakevlm import PROMPT_STYLES
from support.detector_tests import LOGIT_TOLERANCE, DetectorTests, assert_same
from support.fakevlm_folders import write_stock_folder
from support.golden_files import golden_folder
from support.pictures import random_pictures
from support.tiny_models import fakevlm, fakevlm_config, fakevlm_processor, fakevlm_tokenizer, tiny_fakevlm

TOKENS = 10
QUESTION = "What about the eyes?"


class TestFakeVLM(DetectorTests):
    make_model = staticmethod(fakevlm)
    make_processor = staticmethod(fakevlm_processor)

    def test_gradients_reach_the_head(self, processor):
        """The loss of a generator is over tokens, and reaches tower, projector and language model."""
        model = fakevlm()
        conversations = [
            [{"from": "human", "value": "<image>Q?"}, {"from": "gpt", "value": f"This is a {word} image."}]
            for word in ("real", "fake")
        ]
        model(**processor.encode_conversations(conversations, random_pictures(2))).loss.backward()
        for part in (
            model.model.vision_tower.encoder.layers[0],
            model.model.multi_modal_projector,
            model.model.language_model,
            model.lm_head,
        ):
            assert any(w.grad is not None and w.grad.abs().max() > 0 for w in part.parameters())

    def test_missing_weights_are_refused(self, model, tmp_path):
        """Names on disk are not those in memory; the message has the latter."""
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        for gone in ("language_model.lm_head.weight", "multi_modal_projector.linear_1.bias"):
            del tensors[gone]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"2 missing_keys: lm_head\.weight, model\.multi_modal"):
            AutoModel.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def model():
    return fakevlm()


@pytest.fixture(scope="module")
def processor():
    return fakevlm_processor()


@pytest.fixture(scope="module")
def pictures():
    return random_pictures(3)


@pytest.fixture(scope="module")
def pixels(processor, pictures):
    return processor(images=pictures)["pixel_values"]


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return write_stock_folder(golden_folder("fakevlm"), tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def outspoken():
    """A model that soon names real or fake."""
    model = fakevlm()
    with torch.no_grad():
        for word in ("real", "fake"):
            model.lm_head.weight[model.config.verdict_tokens[word]] *= 4
    return model


def words(model, processor, pictures, prompts, **options):
    inputs = processor(images=pictures, text=prompts)
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS, **options)
    return processor.decode_answers(ids[:, inputs["input_ids"].shape[1] :])


# scores


def test_prefix_score_is_the_next_token_behind_the_forced_words(model, processor, pictures, pixels):
    prompt = processor.explanation_prompt() + "\nThis is a"
    inputs = processor(images=pictures, text=[prompt] * 3)
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    real, fake = (processor.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("real", "fake"))
    assert torch.allclose(model.detect(pixels).logits, logits[:, [real, fake]], atol=1e-5)


def test_prefix_score_is_one_prefill_and_one_position_of_the_vocabulary(pixels):
    model = fakevlm()
    lengths, positions = [], []
    model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    model.lm_head.register_forward_hook(lambda module, args, output: positions.append(output.shape[1]))
    model.detect(pixels)
    tokens = model.config.verdict_tokens
    assert lengths == [len(tokens["prompt"]) - 1 + model.config.num_image_tokens + len(tokens["prefix"])]
    assert positions == [1]


def test_continuation_score_is_the_probability_of_the_sentences(model, processor, pixels):
    scored = model.detect(pixels, score="continuation").logits
    prompt = processor.token_ids(processor.explanation_prompt())
    for column, word in enumerate(("real", "fake")):
        sentence = model.config.verdict_tokens[f"{word}_sentence"]
        ids = torch.tensor([prompt + sentence] * 3)
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=pixels).logits[..., : model.config.base_vocab_size]
        each = logits[:, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, ids[:, len(prompt) :, None])
        assert torch.allclose(scored[:, column], each.sum((1, 2)), atol=1e-4)


def test_continuation_of_sentences_of_different_length(processor, pixels):
    model = fakevlm()
    tokens = dict(model.config.verdict_tokens)
    tokens["fake_sentence"] = tokens["fake_sentence"][:-2]
    model.config.verdict_tokens = tokens
    prompt = processor.token_ids(processor.explanation_prompt())
    ids = torch.tensor([prompt + tokens["fake_sentence"]] * 3)
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels).logits[..., : model.config.base_vocab_size]
    each = logits[:, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, ids[:, len(prompt) :, None])
    found = model.detect(pixels, score="continuation").logits[:, 1]
    assert torch.allclose(found, each.sum((1, 2)), atol=1e-4)


def test_generated_score_is_read_where_the_answer_names_a_verdict(outspoken, processor, pictures, pixels):
    output = outspoken.detect(pixels, score="generate")
    assert torch.isfinite(output.logits).all(), "the model of this test should name a verdict"
    tokens = outspoken.config.verdict_tokens
    prompt = processor.token_ids(processor.explanation_prompt())
    for index, answer in enumerate(output.generated_ids.tolist()):
        step = next(i for i, token in enumerate(answer) if token in (tokens["real"], tokens["fake"]))
        ids = torch.tensor([prompt + answer[:step]])
        with torch.no_grad():
            logits = outspoken(input_ids=ids, pixel_values=pixels[index : index + 1]).logits[0, -1]
        assert torch.allclose(output.logits[index], logits[[tokens["real"], tokens["fake"]]], atol=1e-4)
        named = "real" if answer[step] == tokens["real"] else "fake"
        assert named == ("real", "fake")[int(output.fake_probability[index] > 0.5)]
    assert set(processor.read_verdicts(output.generated_ids)) <= {"real", "fake", "undetermined"}


def test_an_answer_without_a_verdict_has_no_score(pixels):
    model = fakevlm()
    with torch.no_grad():
        for word in ("real", "fake"):
            model.lm_head.weight[model.config.verdict_tokens[word]] = 0
    output = model.detect(pixels, score="generate")
    assert output.logits.isnan().all() and output.generated_ids.shape[0] == 3


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_calibrated_and_batch_invariant(score, outspoken, pixels):
    model = copy.deepcopy(outspoken)
    together = model.detect(pixels, score=score).logits
    alone = torch.cat([model.detect(row[None], score=score).logits for row in pixels])
    assert torch.allclose(together, alone, atol=LOGIT_TOLERANCE)
    model.config.calibration = {"scale": 2.0, "bias": 1.0}
    moved = model.detect(pixels, score=score).logits
    assert torch.allclose(moved[:, 1] - moved[:, 0], 2 * (together[:, 1] - together[:, 0]) + 1, atol=1e-4)


@pytest.mark.parametrize("score", SCORES)
def test_config_chooses_the_score(score, outspoken, pixels):
    model = copy.deepcopy(outspoken)
    model.config.score = score
    assert torch.equal(model.detect(pixels).logits, outspoken.detect(pixels, score=score).logits)


@pytest.mark.parametrize("score", SCORES)
def test_left_padded_prompts_score_as_unpadded_ones(score, outspoken, processor, pictures):
    prompts = [processor.explanation_prompt(q) for q in ("Real?", "Does it look real or fake? Tell me now.", QUESTION)]
    inputs = processor(images=pictures, text=prompts)
    assert not inputs["attention_mask"].all()
    together = outspoken.detect(**inputs, score=score).logits
    alone = [
        outspoken.detect(**processor(images=picture, text=prompt), score=score).logits
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]
    assert torch.allclose(together, torch.cat(alone), atol=LOGIT_TOLERANCE)


def test_detect_refuses(model, processor, pictures, pixels):
    with pytest.raises(ValueError, match="'logit', allowed are 'prefix', 'continuation', 'generate'"):
        model.detect(pixels, score="logit")
    right = processor(images=pictures[:2], text=["<image>a", "<image>a longer one"], padding_side="right")
    with pytest.raises(ValueError, match="padding_side='left'"):
        model.detect(**right)
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        model.detect(**{**processor(images=pictures, text=["<image>a"] * 3), "pixel_values": pixels[:2]})


# explanations


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_explain_equals_detect_and_generate(style, pictures):
    model, processor = fakevlm(prompt_style=style), fakevlm_processor(prompt_style=style)
    pixels = processor(images=pictures)
    for question in (None, QUESTION):
        output = model.explain(processor, **pixels, question=question, max_new_tokens=TOKENS)
        assert torch.allclose(output.logits, model.detect(**pixels).logits, atol=1e-6)
        prompt = processor.explanation_prompt(question)
        assert output.explanations == words(model, processor, pictures, [prompt] * 3)
    assert len(set(output.explanations)) > 1, "equal texts could not show a mistaken order"


@pytest.mark.parametrize("question", [None, QUESTION])
def test_explain_reads_picture_and_prompt_once(question, processor, pixels):
    model = fakevlm()
    towers, lengths = [], []
    model.model.vision_tower.register_forward_hook(lambda *_: towers.append(1))
    model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    model.explain(processor, pixel_values=pixels, question=question, max_new_tokens=4)
    assert towers == [1]
    prefill, rest, *steps = lengths
    assert prefill > model.config.num_image_tokens
    assert rest == 1 if question is None else rest < len(processor.tokenizer(question).input_ids) + 2
    assert steps == [1] * 3


@pytest.mark.parametrize("score", SCORES)
def test_explain_with_every_score(score, outspoken, processor, pictures, pixels):
    model = copy.deepcopy(outspoken)
    model.config.score = score
    towers = []
    model.model.vision_tower.register_forward_hook(lambda *_: towers.append(1))
    output = model.explain(processor, pixel_values=pixels, max_new_tokens=TOKENS)
    assert towers == [1]
    assert torch.allclose(output.logits, outspoken.detect(pixels, score=score).logits, atol=1e-4)
    prompts = [processor.explanation_prompt()] * 3
    assert output.explanations == words(outspoken, processor, pictures, prompts)
    verdicts = processor.read_verdicts(processor.tokenizer(output.explanations, padding=True).input_ids)
    assert output.explanation_verdicts == [None if v == "undetermined" else v for v in verdicts]
    assert any(output.explanation_verdicts)


def test_explain_with_a_question_in_front_of_the_picture(model, processor, pictures, pixels):
    question = "Look at <image> now. Real?"
    output = model.explain(processor, pixel_values=pixels, question=question, max_new_tokens=TOKENS)
    assert output.explanations == words(model, processor, pictures, [question] * 3)


def test_explain_with_beams(model, processor, pictures, pixels):
    output = model.explain(processor, pixel_values=pixels, num_beams=2, max_new_tokens=TOKENS)
    prompts = [processor.explanation_prompt()] * 3
    assert output.explanations == words(model, processor, pictures, prompts, num_beams=2)


def test_greedy_batch_of_one_equals_batch_of_n(model, processor, pictures):
    prompts = [processor.explanation_prompt(q) for q in ("Real?", "Does it look real or fake? Tell me now.", QUESTION)]
    alone = [words(model, processor, [p], [t])[0] for p, t in zip(pictures, prompts, strict=True)]
    assert words(model, processor, pictures, prompts) == alone


def test_explain_refuses_another_processor(model, pixels):
    with pytest.raises(ValueError, match=r"prompt_style 'hf_chat'.*'raw'"):
        model.explain(fakevlm_processor(prompt_style="hf_chat"), pixel_values=pixels)
    other = fakevlm_processor()
    other.tokenizer = fakevlm_tokenizer(300)
    other.image_token_id = other.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(ValueError, match="does not belong to this model"):
        model.explain(other, pixel_values=pixels)


# folders


def keys_of(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_stock_folder_loads_with_nothing_missing(stock, pictures):
    """TRAP 1: a subclass does not inherit the renaming of the stock class, and would start its head at random."""
    ours, info = FakeVLMForDeepfakeDetection.from_pretrained(stock, output_loading_info=True)
    assert not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])
    theirs = LlavaForConditionalGeneration.from_pretrained(stock)
    assert all(
        torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    processor = FakeVLMProcessor.from_pretrained(stock)
    inputs = processor(images=pictures, text=["<image>Real?"] * 3)
    with torch.no_grad():
        assert torch.equal(ours(**inputs).logits, theirs(**inputs).logits)


def test_stock_folder_gets_every_image_token(stock, pictures):
    """TRAP 2: folders of the 4.45 era give one image token too few, or have no patch size at all."""
    config = json.loads((stock / "processor_config.json").read_text())
    assert "num_additional_image_tokens" not in config and config["patch_size"] is None
    processor = FakeVLMProcessor.from_pretrained(stock)
    model = FakeVLMForDeepfakeDetection.from_pretrained(stock)
    ids = processor(images=pictures[0], text="<image>Real?")["input_ids"][0].tolist()
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    assert ids.count(model.config.image_token_index) == side**2 == processor.num_image_tokens


def test_full_size_processor_makes_576_tokens():
    processor = FakeVLMProcessor(fakevlm_processor().image_processor, fakevlm_tokenizer())
    size = {"height": 336, "width": 336}
    processor.image_processor.crop_size, processor.image_processor.size = size, {"shortest_edge": 336}
    ids = processor(images=random_pictures(1), text="<image>")["input_ids"][0].tolist()
    assert ids.count(processor.image_token_id) == processor.num_image_tokens == 576


def test_stock_folder_keeps_its_key_names(stock, tmp_path):
    model = FakeVLMForDeepfakeDetection.from_pretrained(stock)
    model.save_pretrained(tmp_path)
    assert keys_of(tmp_path) == keys_of(stock)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "fakevlm" and saved["architectures"] == ["FakeVLMForDeepfakeDetection"]
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is FakeVLMForDeepfakeDetection
    pixels = {"pixel_values": torch.randn(2, 3, *[model.config.vision_config.image_size] * 2)}
    assert_same(again, model, pixels)


def test_keys_on_disk_are_those_of_the_stock_class(model, tmp_path):
    model.save_pretrained(tmp_path / "ours")
    parts = {name: getattr(model.config, name) for name in ("vision_config", "text_config", "image_token_index")}
    LlavaForConditionalGeneration(LlavaConfig(**parts)).save_pretrained(tmp_path / "stock")
    assert keys_of(tmp_path / "ours") == keys_of(tmp_path / "stock")


def test_stock_folder_with_other_settings(stock):
    model = FakeVLMForDeepfakeDetection.from_pretrained(stock, prompt_style="hf_chat", score="continuation")
    assert model.config.verdict_tokens["text"].endswith("ASSISTANT: This is a")
    assert model.config.score == "continuation" and model.config.model_type == "fakevlm"


def test_another_style_makes_other_verdict_tokens(tmp_path):
    tiny_fakevlm(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, prompt_style="vicuna_v1")
    assert model.config.verdict_tokens == fakevlm(prompt_style="vicuna_v1").config.verdict_tokens
    assert model.config.verdict_tokens != fakevlm().config.verdict_tokens


def test_stock_folder_without_our_class_says_what_to_do(stock):
    for load in (
        AutoModelForDeepfakeDetection.from_pretrained,
        lambda folder: pipeline("deepfake-detection", model=str(folder)),
        lambda folder: deepfake_detectors.pipeline(model=str(folder)),
    ):
        with pytest.raises(ValueError, match=r"FakeVLMForDeepfakeDetection.*convert"):
            load(stock)


def test_a_head_that_is_missing_is_refused(stock, tmp_path):
    folder = tmp_path / "headless"
    shutil.copytree(stock, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys: lm_head\.weight"):
        FakeVLMForDeepfakeDetection.from_pretrained(folder)


def test_auto_classes(tmp_path, pictures):
    tiny_fakevlm(tmp_path)
    for auto in (AutoModel, AutoModelForDeepfakeDetection, AutoModelForImageTextToText):
        assert type(auto.from_pretrained(tmp_path)) is FakeVLMForDeepfakeDetection
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor) is FakeVLMProcessor
    assert torch.equal(
        processor(images=pictures)["pixel_values"], fakevlm_processor()(images=pictures)["pixel_values"]
    )


# verdict tokens


def test_candidates_of_several_tokens_are_refused_at_load(tmp_path):
    tiny_fakevlm(tmp_path)
    tokenizer = fakevlm_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    merges = state["model"]["merges"]
    state["model"]["merges"] = [m for m in merges if "".join(m) != "▁fake"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"'fake' is \d tokens"):
        FakeVLMForDeepfakeDetection.from_pretrained(tmp_path, prompt_style="hf_chat")


def test_tokenizer_of_another_model_is_refused(tmp_path):
    tiny_fakevlm(tmp_path)
    fakevlm_tokenizer(300).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="<image> with id"):
        FakeVLMForDeepfakeDetection.from_pretrained(tmp_path, prompt_style="hf_chat")


def test_a_model_without_verdict_tokens_says_so(pixels):
    model = FakeVLMForDeepfakeDetection(fakevlm_config()).eval()
    with pytest.raises(ValueError, match="set_verdict_tokens"):
        model.detect(pixels)
    model.set_verdict_tokens(fakevlm_tokenizer())
    assert model.detect(pixels).logits.shape == (3, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prompt_style": "chat"}, "'raw', 'hf_chat', 'vicuna_v1'"),
        ({"image_aspect": "square"}, "'crop', 'pad'"),
        ({"score": "logits"}, "'prefix', 'continuation', 'generate'"),
        ({"verdict_rule": "word"}, "'official', 'strict'"),
        ({"image_token_index": 10_000}, "must include it"),
        ({"base_vocab_size": 0}, "expected 1 to"),
        ({"question": "<image> or <image>?"}, "<image> 2 times"),
        ({"vision_config": {"image_size": 50, "patch_size": 14}}, "not a multiple"),
    ],
)
def test_config_errors(overrides, message):
    with pytest.raises(ValueError, match=message):
        fakevlm_config(**overrides)


# precision, training, pipeline


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(dtype, tmp_path, processor, pixels):
    tiny_fakevlm(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    output = model.explain(processor, pixel_values=pixels.to(dtype), max_new_tokens=3)
    assert output.logits.dtype == torch.float32 and len(output.explanations) == 3


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_4_bit_without_bitsandbytes_is_refused_clearly(tmp_path):
    tiny_fakevlm(tmp_path)
    with pytest.raises(ImportError, match="bitsandbytes"):
        AutoModel.from_pretrained(tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True))


def test_device_map_auto(tmp_path, pixels, model):
    tiny_fakevlm(tmp_path)
    placed = AutoModel.from_pretrained(tmp_path, device_map="auto")
    assert torch.allclose(placed.detect(pixels).logits.cpu(), model.detect(pixels).logits, atol=1e-4)


def test_backbone_lines_up_with_input_ids(model, processor, pictures):
    """What TRL's fused head relies on: backbone times `lm_head` are the logits."""
    inputs = processor(images=pictures, text=["<image>Real?"] * 3)
    with torch.no_grad():
        states = model.base_model(**inputs).last_hidden_state
        assert states.shape[:2] == inputs["input_ids"].shape
        assert torch.allclose(model.get_output_embeddings()(states), model(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pipeline(batch_size, tmp_path, pictures, model, processor, pixels):
    tiny_fakevlm(tmp_path)
    judge = pipeline("deepfake-detection", model=str(tmp_path))
    rows = judge(pictures, batch_size=batch_size)
    expected = model.detect(pixels).fake_probability
    assert [row["fake_probability"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)
    explained = judge(pictures, explain=True, batch_size=batch_size, generate_kwargs={"max_new_tokens": TOKENS})
    texts = words(model, processor, pictures, [processor.explanation_prompt()] * 3)
    assert [row["explanation"] for row in explained] == texts
