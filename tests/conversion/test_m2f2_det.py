"""Conversion of M2F2-Det files: every kind the release holds, and every way to give the wrong one.

The official files here are the goldens' tiny weights, wrapped as the release wraps them.
"""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import AutoModel, AutoProcessor

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.conversion import CONVERTERS, convert
from support.golden_files import golden_folder
from support.m2f2_det_folders import cosine_fields, language_model_fields, read_config, stage1_fields
from support.pictures import random_pictures

GOLDENS = golden_folder("m2f2_det")
STAGE_1, COSINE, LLM = GOLDENS / "stage1_detector", GOLDENS / "llava_detector", GOLDENS / "deepfake_llm"


@pytest.fixture(scope="module")
def stage_1():
    return load_file(STAGE_1 / "model.safetensors"), stage1_fields(read_config(STAGE_1))


@pytest.fixture(scope="module")
def cosine():
    return load_file(COSINE / "model.safetensors"), cosine_fields(read_config(COSINE))


@pytest.fixture(scope="module")
def split_cosine(cosine, tmp_path_factory):
    """Detector without tower, and the tower in a file of its own, as released."""
    folder = tmp_path_factory.mktemp("split")
    prefix = "clip_vision_encoder.model."
    detector = {key: value for key, value in cosine[0].items() if not key.startswith(prefix)}
    tower = {f"vision_tower.{key.removeprefix(prefix)}": v for key, v in cosine[0].items() if key.startswith(prefix)}
    torch.save(detector, folder / "M2F2_Det_densenet121.pth")
    torch.save(tower, folder / "vision_tower.pth")
    return folder / "M2F2_Det_densenet121.pth", folder / "vision_tower.pth"


def state_of(folder):
    return load_file(folder / "model.safetensors")


def test_stage_1_pickle_with_its_scheduler_object(stage_1, tmp_path):
    tensors, config = stage_1
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = Adam([weight], weight_decay=1e-6)
    weight.sum().backward()
    optimizer.step()
    official = {
        "epoch": 180,
        "model_state_dict": {f"module.{key}": value for key, value in tensors.items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "iter": 1,
        "scheduler": ReduceLROnPlateau(optimizer, "min", factor=0.4, patience=6, cooldown=5, min_lr=1e-8),
        "val_loss": 0.5,
    }
    torch.save(official, tmp_path / "current_model_180.pth")
    from_pickle = convert("m2f2_det", [tmp_path / "current_model_180.pth"], tmp_path / "a", config=config)
    from_tensors = convert("m2f2_det", [STAGE_1 / "model.safetensors"], tmp_path / "b", config=config)
    first, second = state_of(from_pickle), state_of(from_tensors)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("prefix", ["", "vision_tower.", "vision_tower.vision_tower."])
def test_cosine_with_its_tower_in_either_order(cosine, split_cosine, tmp_path, prefix):
    detector, tower = split_cosine
    renamed = {f"{prefix}{k.removeprefix('vision_tower.')}": v for k, v in torch.load(tower).items()}
    torch.save(renamed, tmp_path / "vision_tower.pth")
    for order in ([detector, tmp_path / "vision_tower.pth"], [tmp_path / "vision_tower.pth", detector]):
        output = tmp_path / f"{order[0].stem}"
        convert("m2f2_det", order, output, config=cosine[1])
        whole = convert(
            "m2f2_det", [COSINE / "model.safetensors"], tmp_path / f"whole-{order[0].stem}", config=cosine[1]
        )
        first, second = state_of(output), state_of(whole)
        assert all(torch.equal(first[name], second[name]) for name in second)


def test_separate_tower_wins_over_the_one_inside(cosine, split_cosine, tmp_path):
    other = {key: value + 1 for key, value in torch.load(split_cosine[1]).items()}
    torch.save(other, tmp_path / "vision_tower.pth")
    sources = [COSINE / "model.safetensors", tmp_path / "vision_tower.pth"]
    converted = state_of(convert("m2f2_det", sources, tmp_path / "out", config=cosine[1]))
    name = "embeddings.class_embedding"
    assert torch.equal(converted[f"vision_tower.{name}"], other[f"vision_tower.vision_model.{name}"])


def refused(tmp_path, sources, message, **options):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        convert("m2f2_det", sources, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "something was left half-written"
    return str(caught.value)


def test_cosine_without_tower(split_cosine, cosine, tmp_path):
    refused(tmp_path, [split_cosine[0]], r"CLIP image tower: add vision_tower\.pth", config=cosine[1])


def test_stage_1_given_as_cosine_and_the_other_way(stage_1, cosine, tmp_path):
    options = {"config": stage_1[1], "variant": "cosine"}
    refused(tmp_path, [STAGE_1 / "model.safetensors"], "cosine .* bridge", **options)
    options = {"config": cosine[1], "variant": "bridge"}
    refused(tmp_path, [COSINE / "model.safetensors"], "bridge.*cosine", **options)


def test_missing_and_unexpected_keys_are_listed(cosine, tmp_path):
    tensors, config = cosine
    less = {key: value for key, value in tensors.items() if key != "output.bias"}
    save_file(less, tmp_path / "less.safetensors")
    refused(tmp_path, [tmp_path / "less.safetensors"], r"1 missing: detector\.classifier\.bias", config=config)
    save_file({**tensors, "mystery.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    refused(tmp_path, [tmp_path / "more.safetensors"], r"key table: mystery\.weight", config=config)


def test_wrong_sizes_point_to_config(tmp_path):
    message = refused(tmp_path, [COSINE / "model.safetensors"], "`config`")
    assert "`config`" in message


def test_foreign_weights_match_nothing(tmp_path):
    save_file({"encoder.weight": torch.zeros(1)}, tmp_path / "bert.safetensors")
    refused(tmp_path, [tmp_path / "bert.safetensors"], r"bert\.safetensors .*first keys are encoder\.weight")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_pickles_that_run_code_are_refused(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model_state_dict": Bomb()}))
    refused(tmp_path, [tmp_path / "evil.pth"], "could not be read safely")
    torch.save({"state": Bomb()}, tmp_path / "evil2.pth")
    refused(tmp_path, [tmp_path / "evil2.pth"], "could not be read safely")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_damaged_files(name, tmp_path):
    whole = tmp_path / f"whole-{name}"
    save = torch.save if name.endswith(".pth") else save_file
    save({"a": torch.zeros(100)}, whole)
    for content in (b"not a checkpoint", b"junk", b"", whole.read_bytes()[:200]):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path, [tmp_path / name], name)


def test_missing_and_doubled_sources(split_cosine, cosine, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        convert("m2f2_det", tmp_path / "absent.pth", tmp_path / "out")
    refused(tmp_path, [], "No detector file")
    refused(tmp_path, [split_cosine[1]], "No detector file")
    refused(tmp_path, [split_cosine[0], split_cosine[0]], "second detector file")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path, [tmp_path / "list.pth"], r"list\.pth")


def test_output_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    refused(tmp_path, [COSINE / "model.safetensors"], "not an empty folder")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_unknown_family_names_the_known(tmp_path):
    with pytest.raises(ValueError, match=f"'llava'; known families: {', '.join(sorted(CONVERTERS))}"):
        convert("llava", [], tmp_path / "out")


# the language model


def test_llava_with_a_detector_file_is_the_start_of_stage_2(tmp_path):
    tensors = load_file(LLM / "model.safetensors")
    fields = language_model_fields(read_config(LLM))
    llava = {key: value for key, value in tensors.items() if not key.startswith("deepfake_")}
    detector = {
        key.removeprefix("deepfake_encoder."): value
        for key, value in tensors.items()
        if key.startswith("deepfake_encoder.")
    }
    save_file(llava, tmp_path / "llava.safetensors")
    torch.save(detector, tmp_path / "M2F2_Det_densenet121.pth")
    sources = [tmp_path / "llava.safetensors", tmp_path / "M2F2_Det_densenet121.pth", LLM / "tokenizer"]
    started = state_of(convert("m2f2_det", sources, tmp_path / "started", config=fields))
    sources = [LLM / "model.safetensors", LLM / "tokenizer"]
    released = state_of(convert("m2f2_det", sources, tmp_path / "released", config=fields))
    assert started.keys() == released.keys()
    differing = {name for name in released if not torch.equal(started[name], released[name])}
    assert differing == {name for name in released if name.startswith("model.deepfake_projector.")}
    spread = started["model.deepfake_projector.linear_2.weight"].std().item()
    assert spread == pytest.approx(0.1, rel=0.1)
    AutoModel.from_pretrained(tmp_path / "started")


def test_stage_1_given_as_the_language_models_detector(tmp_path):
    fields = language_model_fields(read_config(LLM))
    sources = [LLM / "tokenizer", STAGE_1 / "model.safetensors"]
    refused(tmp_path, sources, r"stage-1 \(bridge\) detector.*M2F2_Det_densenet121\.pth", config=fields)


def llm_with_the_towers_of_stage_1(stage_1):
    """The language model's official keys around the image tower of the other goldens, and its config fields."""
    tensors, own = stage_1
    llm = {k: v for k, v in load_file(LLM / "model.safetensors").items() if not k.startswith("model.vision_tower.")}
    for key, value in tensors.items():
        if key.startswith("clip_vision_encoder.model."):
            llm[f"model.vision_tower.vision_tower.{key.removeprefix('clip_vision_encoder.model.')}"] = value
    return llm, {**own, "text_config": language_model_fields(read_config(LLM))["text_config"]}


def test_bridge_detector_inside_the_language_model(stage_1, tmp_path):
    llm, fields = llm_with_the_towers_of_stage_1(stage_1)
    save_file(llm, tmp_path / "llava.safetensors")
    sources = [tmp_path / "llava.safetensors", STAGE_1 / "model.safetensors", LLM / "tokenizer"]
    folder = convert("m2f2_det", sources, tmp_path / "llm", config=fields, variant="bridge")
    alone = convert("m2f2_det", [STAGE_1 / "model.safetensors"], tmp_path / "alone", config=stage_1[1])
    model, verdict = AutoModel.from_pretrained(folder).eval(), AutoModel.from_pretrained(alone).eval()
    assert model.config.variant == "bridge" and model.can_explain
    processor = AutoProcessor.from_pretrained(folder)
    pixels = processor(images=random_pictures(2))["pixel_values"]
    assert torch.equal(model.detect(pixels).logits, verdict.detect(pixels).logits)
    batch = model.explain(processor, pixels, max_new_tokens=4)
    single = [model.explain(processor, pixels[i : i + 1], max_new_tokens=4) for i in range(2)]
    assert batch.explanations == [text for output in single for text in output.explanations]
    again = AutoModelForDeepfakeDetection.from_pretrained(folder).eval()
    assert torch.equal(again.detect(pixels).logits, verdict.detect(pixels).logits)


def test_bridge_detector_is_asked_for_and_given(stage_1, tmp_path):
    llm, fields = llm_with_the_towers_of_stage_1(stage_1)
    save_file(llm, tmp_path / "llava.safetensors")
    sources, options = [tmp_path / "llava.safetensors", LLM / "tokenizer"], {"config": fields, "variant": "bridge"}
    refused(tmp_path, sources, r"add the detector's file \(current_model_180\.pth", **options)
    refused(tmp_path, [*sources, COSINE / "model.safetensors"], "is the cosine detector, but the bridge", **options)
    both = [STAGE_1 / "model.safetensors"] * 2
    refused(tmp_path, [*sources, *both], "is a second detector file", **options)


def test_language_model_without_detector_or_tokenizer(tmp_path):
    tensors = load_file(LLM / "model.safetensors")
    fields = language_model_fields(read_config(LLM))
    save_file({k: v for k, v in tensors.items() if not k.startswith("deepfake_")}, tmp_path / "model.safetensors")
    refused(tmp_path, [tmp_path / "model.safetensors", LLM / "tokenizer"], r"missing: model\.detector", config=fields)
    folder = tmp_path / "no-tokenizer"
    folder.mkdir()
    refused(tmp_path, [LLM / "model.safetensors", folder], "No tokenizer", config=fields)
    refused(tmp_path, [folder], "No weights")


def test_official_config_gives_sizes_and_picture_mode(tmp_path):
    """A folder with LLaVA's own config.json needs no `config` for the language model's sizes."""
    golden = read_config(LLM)
    folder = tmp_path / "llava-v1.5-7b-M2F2-Det"
    shutil.copytree(LLM / "tokenizer", folder)
    shutil.copy(LLM / "model.safetensors", folder)
    llm = golden["llm"]
    official = {
        "model_type": "llava",
        "mm_projector_type": golden["mm_projector_type"],
        "mm_vision_select_layer": golden["mm_vision_select_layer"],
        "image_aspect_ratio": "pad",
        "hidden_size": llm["hidden"],
        "intermediate_size": llm["inter"],
        "num_hidden_layers": llm["layers"],
        "num_attention_heads": llm["heads"],
        "num_key_value_heads": llm["kv"],
        "vocab_size": llm["vocab"],
        "rms_norm_eps": llm["rms_norm_eps"],
    }
    (folder / "config.json").write_text(json.dumps(official))
    converted = convert("m2f2_det", [folder], tmp_path / "out", config=cosine_fields(golden))
    model = AutoModel.from_pretrained(converted)
    assert model.config.text_config.hidden_size == llm["hidden"]
    assert model.config.text_config.vocab_size == llm["vocab"] + 2
    assert AutoProcessor.from_pretrained(converted).image_processor.do_pad
