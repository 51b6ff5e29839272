"""Conversion of AntifakePrompt: every kind of source the release needs, and every way to give the wrong one.

The official files here are the goldens' tiny weights, split and wrapped as the release has them.
"""

import json
import pickle
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, InstructBlipForConditionalGeneration

from deepfake_detectors.conversion import convert
from deepfake_detectors.modeling.image_processing_antifakeprompt import IMAGE_STATISTICS
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE
from support.antifakeprompt_folders import golden_fields, read_config
from support.golden_files import golden_folder
from support.pictures import random_pictures
from support.tiny_models import antifakeprompt, tiny_instructblip

FOLDER = golden_folder("antifakeprompt")
GOLDEN = read_config(FOLDER)
FIELDS = {
    name: value
    for name, value in golden_fields(GOLDEN).items()
    if name not in ("prompt_position", "prompt", "plain_prompt", "candidates", "image_mean", "image_std")
}
WORDS = FOLDER / "released_style_checkpoint.pth"
TOKENIZERS = [FOLDER / "llm_tokenizer", FOLDER / "qformer_tokenizer"]
BASE_PARTS = ("query_tokens", "ln_vision.", "Qformer.", "llm_proj.")


@pytest.fixture(scope="module")
def whole():
    return load_file(FOLDER / "model_lavis.safetensors")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    sources = [FOLDER / "model_lavis.safetensors", WORDS, *TOKENIZERS]
    return convert("antifakeprompt", sources, tmp_path_factory.mktemp("whole") / "out", config=FIELDS)


@pytest.fixture(scope="module")
def parts(whole, tmp_path_factory):
    """The published files one by one: trimmed base, vision tower with its unused last block, language model."""
    folder = tmp_path_factory.mktemp("parts")
    base = {k: v for k, v in whole.items() if k.startswith(BASE_PARTS) and "train_word_embeddings" not in k}
    torch.save({"model": base}, folder / "instruct_blip_trimmed.pth")
    tower = {k.removeprefix("visual_encoder."): v for k, v in whole.items() if k.startswith("visual_encoder.")}
    depth = GOLDEN["vision"]["depth"]
    last = {re.sub(rf"^blocks\.{depth - 1}\.", f"blocks.{depth}.", k): v for k, v in tower.items()}
    tower |= {k: v + 1 for k, v in last.items() if k.startswith(f"blocks.{depth}.")}
    tower |= {"norm.weight": torch.ones(3), "head.weight": torch.ones(3)}
    torch.save(tower, folder / "eva_vit_g.pth")
    llm = folder / "vicuna"
    llm.mkdir()
    weights = {k.removeprefix("llm_model."): v for k, v in whole.items() if k.startswith("llm_model.")}
    del weights["model.train_embed_tokens.weight"]
    save_file(weights, llm / "model.safetensors")
    (llm / "config.json").write_text(json.dumps(FIELDS["text_config"]))
    shutil.copy(TOKENIZERS[0] / "tokenizer.json", llm)
    return [folder / "instruct_blip_trimmed.pth", folder / "eva_vit_g.pth", llm]


def state_of(folder):
    return load_file(folder / "model.safetensors")


def assert_equal_folders(one, other):
    first, second = state_of(one), state_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (one, other)]
    ids = [name for name in configs[0] if name.endswith(("_ids", "_id", "_index"))]
    assert ids and all(configs[0][name] == configs[1][name] for name in ids)


def test_published_parts_give_the_whole(converted, parts, tmp_path):
    fields = {name: value for name, value in FIELDS.items() if name != "text_config"}  # from the folder's config.json
    convert("antifakeprompt", [WORDS, *parts, TOKENIZERS[1]], tmp_path / "out", config=fields)
    assert_equal_folders(converted, tmp_path / "out")


def test_order_of_sources_does_not_matter(converted, parts, tmp_path):
    fields = {name: value for name, value in FIELDS.items() if name != "text_config"}
    convert("antifakeprompt", [TOKENIZERS[1], *reversed(parts), WORDS], tmp_path / "out", config=fields)
    assert_equal_folders(converted, tmp_path / "out")


def test_vicuna_without_rows_for_added_tokens(whole, parts, tmp_path):
    """The published language model has no row for [PAD]; nothing is added to its tables."""
    llm = tmp_path / "vicuna"
    shutil.copytree(parts[2], llm)
    weights = load_file(llm / "model.safetensors")
    rows = GOLDEN["llm"]["base_vocab_size"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:rows].contiguous()
    save_file(weights, llm / "model.safetensors")
    fields = {name: value for name, value in FIELDS.items() if name != "text_config"}
    convert("antifakeprompt", [WORDS, *parts[:2], llm, TOKENIZERS[1]], tmp_path / "out", config=fields)
    model, processor = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModel, AutoProcessor))
    assert len(model.language_model.lm_head.weight) == rows
    goldens = load_file(FOLDER / "model_goldens.safetensors")
    p_fake = model.detect(goldens["pixel_values"]).fake_probability
    assert torch.allclose(p_fake, goldens["main.p_fake"], atol=2e-6)  # the score needs two rows only
    texts = processor.tokenize(["Is this photo real?", "Is this?"])
    assert model.generate(goldens["pixel_values"][:2], **texts, max_new_tokens=2).shape[0] == 2


def test_stock_folder_with_words(tmp_path):
    base = tiny_instructblip(tmp_path / "base")
    model = antifakeprompt()
    words = {
        "Qformer.bert.embeddings.train_word_embeddings.weight": model.soft_words()["qformer_soft_word"].detach(),
        "llm_model.model.train_embed_tokens.weight": model.soft_words()["llm_soft_word"].detach(),
    }
    torch.save({"model": words, "epoch": 1}, tmp_path / "words.pth")
    convert("antifakeprompt", [base, tmp_path / "words.pth"], tmp_path / "full")
    convert(
        "antifakeprompt", [tmp_path / "words.pth"], tmp_path / "adapter", config={"base_model_name_or_path": str(base)}
    )
    full, adapter = (AutoModel.from_pretrained(tmp_path / name) for name in ("full", "adapter"))
    assert full.state_dict().keys() == adapter.state_dict().keys()
    assert all(torch.equal(tensor, adapter.state_dict()[name]) for name, tensor in full.state_dict().items())
    assert full.config.llm_prompt_ids == adapter.config.llm_prompt_ids


def test_released_file_alone_becomes_an_adapter(tmp_path):
    convert("antifakeprompt", [WORDS], tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json",
        ADAPTER_FILE,
        "processor_config.json",
    }
    official = torch.load(WORDS, weights_only=True)["model"]
    words = load_file(tmp_path / "out" / ADAPTER_FILE)
    assert torch.equal(words["llm_soft_word"], official["llm_model.model.train_embed_tokens.weight"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["base_model_name_or_path"] == "Salesforce/instructblip-vicuna-7b"


@pytest.mark.parametrize("variant", list(IMAGE_STATISTICS))
def test_statistics_of_the_variant(variant, tmp_path):
    convert("antifakeprompt", [WORDS], tmp_path / "out", variant=variant)
    settings = json.loads((tmp_path / "out" / "processor_config.json").read_text())["image_processor"]
    assert (settings["image_mean"], settings["image_std"]) == IMAGE_STATISTICS[variant]


def test_statistics_of_an_own_training(tmp_path):
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    convert("antifakeprompt", [WORDS], tmp_path / "out", config=own)
    settings = json.loads((tmp_path / "out" / "processor_config.json").read_text())["image_processor"]
    assert {name: settings[name] for name in own} == own
    refused(tmp_path / "no", [WORDS], "image_mean and image_std", config={"image_mean": [0.1, 0.2, 0.3]})
    refused(tmp_path / "no", [WORDS], "`variant`", config=own, variant="lama")


def test_lama_is_known_by_its_name(tmp_path):
    shutil.copy(WORDS, tmp_path / "COCO_150k_SD2_SD2IP_lama.pth")
    convert("antifakeprompt", [tmp_path / "COCO_150k_SD2_SD2IP_lama.pth"], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["variant"] == "lama"


@pytest.mark.parametrize("side", ["qformer", "llm"])
def test_one_sided_words(whole, side, tmp_path):
    key = {
        "qformer": "Qformer.bert.embeddings.train_word_embeddings.weight",
        "llm": "llm_model.model.train_embed_tokens.weight",
    }
    base = {name: tensor for name, tensor in whole.items() if name not in key.values()}
    save_file(base, tmp_path / "base.safetensors")
    torch.save({"model": {key[side]: whole[key[side]]}}, tmp_path / "word.pth")
    sources = [tmp_path / "base.safetensors", tmp_path / "word.pth", *TOKENIZERS]
    convert("antifakeprompt", sources, tmp_path / "out", config={**FIELDS, "soft_word_sides": side})
    model, processor = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModel, AutoProcessor))
    assert set(model.soft_words()) == {f"{side}_soft_word"}
    assert processor.soft_word_sides == side
    with pytest.raises(ValueError, match=r"missing from the sources.*soft_word_sides"):
        convert("antifakeprompt", sources, tmp_path / "both", config=FIELDS)


def test_other_positions_are_config(tmp_path):
    sources = [FOLDER / "model_lavis.safetensors", *TOKENIZERS]
    convert("antifakeprompt", sources, tmp_path / "out", config={**FIELDS, "prompt_position": "prefix"})
    model, processor = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModel, AutoProcessor))
    assert processor.prompt == model.config.prompt == "[*] Is this photo real?"
    assert model.config.llm_prompt_ids == processor.llm_ids(processor.prompt)


# wrong sources


def refused(tmp_path, sources, message, **options):
    with pytest.raises(ValueError, match=message):
        convert("antifakeprompt", sources, tmp_path / "out", **{"config": FIELDS, **options})
    assert not (tmp_path / "out").exists()


def changed(whole, tmp_path, change):
    tensors = dict(whole)
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    return [tmp_path / "changed.safetensors", *TOKENIZERS]


def test_missing_words_are_refused(whole, tmp_path):
    def change(tensors):
        del tensors["Qformer.bert.embeddings.train_word_embeddings.weight"]
        del tensors["llm_model.model.train_embed_tokens.weight"]

    refused(tmp_path, changed(whole, tmp_path, change), r"learned words are missing.*released .pth")


def test_missing_and_unexpected_keys_are_listed(whole, tmp_path):
    sources = changed(whole, tmp_path, lambda tensors: tensors.pop("ln_vision.weight"))
    refused(tmp_path, sources, r"1 missing: vision_model\.post_layernorm\.weight")
    sources = changed(whole, tmp_path, lambda tensors: tensors.update(stranger=torch.zeros(1)))
    refused(tmp_path, sources, r"1 keys .*stranger")
    sources = changed(whole, tmp_path, lambda tensors: tensors.update({"llm_proj.bias": torch.zeros(2)}))
    refused(tmp_path, sources, r"language_projection\.bias \(2,\) instead of")
    sources = changed(whole, tmp_path, lambda tensors: tensors.pop("visual_encoder.blocks.0.attn.v_bias"))
    refused(tmp_path, sources, "only one of q_bias and v_bias")


def test_the_base_file_alone_lacks_tower_and_language_model(parts, tmp_path):
    refused(tmp_path, [parts[0], WORDS, *TOKENIZERS], "missing")


def test_missing_tokenizers_are_refused(tmp_path):
    refused(tmp_path, [FOLDER / "model_lavis.safetensors", TOKENIZERS[0]], "tokenizer of the Q-Former")
    refused(tmp_path, [FOLDER / "model_lavis.safetensors", TOKENIZERS[1]], "tokenizer of the language model")


def test_different_words_are_refused(whole, tmp_path):
    name = "llm_model.model.train_embed_tokens.weight"
    sources = changed(whole, tmp_path, lambda tensors: tensors.update({name: tensors[name] + 1}))
    refused(tmp_path, [*sources, WORDS], "different learned words")
    shutil.copy(WORDS, tmp_path / "second.pth")
    refused(tmp_path, [*sources, WORDS, tmp_path / "second.pth"], "second file of learned words")


def test_doubled_parts_are_refused(parts, tmp_path):
    refused(tmp_path, [FOLDER / "model_lavis.safetensors", parts[0], *TOKENIZERS], "repeats")
    refused(tmp_path, [FOLDER / "model_lavis.safetensors", parts[2], *TOKENIZERS], "repeats")


def test_strangers_are_refused(tmp_path):
    torch.save({"model": {"backbone.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    refused(tmp_path, [tmp_path / "other.pth"], r"other\.pth .*backbone\.weight")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, [tmp_path / "empty"], "neither weights nor a tokenizer")
    refused(tmp_path, TOKENIZERS, "No AntifakePrompt weights")
    other = tmp_path / "clip"
    other.mkdir()
    save_file({"weight": torch.zeros(1)}, other / "model.safetensors")
    (other / "config.json").write_text(json.dumps({"model_type": "clip"}))
    refused(tmp_path, [other], "type 'clip'")


class Harmful:
    def __reduce__(self):
        return print, ("ran",)


def test_code_in_a_pickle_is_refused(tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"model": Harmful()}))
    refused(tmp_path, [tmp_path / "bad.pth"], "could not be read safely")
    assert "ran" not in capsys.readouterr().out


def test_wrong_options_are_refused(tmp_path):
    refused(tmp_path, [WORDS], "'coco_sd2_sd2ip', 'lama'", variant="sd3")
    base = {**FIELDS, "base_model_name_or_path": "some/base"}
    refused(tmp_path, [FOLDER / "model_lavis.safetensors", *TOKENIZERS], "base_model_name_or_path", config=base)
    refused(tmp_path, [WORDS], "exactly once", config={"prompt_position": "custom", "prompt": "Is it real?"})
    refused(tmp_path, [WORDS], "qformer_soft_word.*soft_word_sides", config={"soft_word_sides": "llm"})


def test_zero_shot_is_instructblip_asked_the_official_question(tmp_path):
    base = tiny_instructblip(tmp_path / "instructblip")
    folder = convert("antifakeprompt", [base], tmp_path / "zero", variant="zero_shot")
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    assert model.config.soft_word_sides == "none" and not model.soft_words()
    pictures = random_pictures(2)
    found = model.detect(processor(images=pictures)["pixel_values"]).logits
    inputs = processor(images=pictures, text=["Is this photo real?"] * 2, padding_side="right")
    stock = InstructBlipForConditionalGeneration.from_pretrained(base).eval()
    stock.vision_model.post_layernorm.eps = model.config.ln_vision_eps  # of the official code
    with torch.no_grad():
        last = stock(**inputs).logits[:, -1]
    expected = last[:, [ids[0] for ids in model.config.candidate_ids]]
    assert torch.allclose(found.softmax(-1), expected.softmax(-1), atol=1e-5)


def test_zero_shot_has_no_learned_words(tmp_path):
    with pytest.raises(ValueError, match=r"'zero_shot'.*released_style_checkpoint"):
        convert("antifakeprompt", [FOLDER / "model_lavis.safetensors", WORDS], tmp_path / "out", variant="zero_shot")
