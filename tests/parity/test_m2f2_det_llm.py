"""Parity of M2F2-Det's language model: tokens, labels, merged embeddings, logits, loss, gradients, greedy text."""

import json
import re

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.prompting_m2f2_det import (
    DEEPFAKE_MARKER,
    JUDGEMENT_QUESTION,
    inference_prompt,
    judgement_prompt,
    training_prompt,
)
from support.comparison import assert_within, outputs_of
from support.golden_files import golden_folder
from support.m2f2_det_folders import convert_language_model, read_config

FOLDER = golden_folder("m2f2_det") / "deepfake_llm"
GOLDEN = read_config(FOLDER)
PROMPTS = json.loads((FOLDER / "prompts.json").read_text())
TRAINING, GENERATION = PROMPTS["train_examples"], PROMPTS["generation_examples"]
with safe_open(FOLDER / "io.safetensors", "pt") as file:
    NAMES = sorted(file.keys())

DETECTOR, EMBEDS, LOSS, LOGITS, GRADIENT = 1e-5, 2e-5, 1e-5, 1e-4, 1e-5


@pytest.fixture(scope="module")
def goldens():
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert_language_model(FOLDER.parent, tmp_path_factory.mktemp("llm") / "converted")


@pytest.fixture(scope="module")
def model(folder):
    return AutoModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def pictures():
    return [Image.open(FOLDER / f"image_{i}.png") for i in range(GOLDEN["batch_size"])]


@pytest.fixture(scope="module")
def batch(processor, pictures):
    return processor.encode_conversations([example["conversation"] for example in TRAINING], pictures)


def official_ids(ids, config):
    """Our ids in the official form: one negative id per placeholder."""
    patches, found, position = config.num_patches, [], 0
    while position < len(ids):
        token = ids[position]
        if token == config.image_token_id:
            assert ids[position : position + patches] == [token] * patches
            found.append(PROMPTS["image_token_index"])
            position += patches
            continue
        found.append(PROMPTS["deepfake_token_index"] if token == config.deepfake_token_id else token)
        position += 1
    return found


def valid(row, mask):
    return row[mask.bool()]


@pytest.fixture(scope="module")
def run(model, batch, goldens):
    """name -> (tensor, golden, tolerance); padded positions are left out of both sides."""
    model.zero_grad()
    for weight in model.model.detector.parameters():
        weight.requires_grad_(False)
    model.model.vision_tower.requires_grad_(False)
    names = ["model.deepfake_projector", "model.language_model", "model.language_model.layers.0"]
    seen = {}

    def keep_embeds(module, args, kwargs):
        seen["embeds"] = kwargs["inputs_embeds"]

    handle = model.model.language_model.register_forward_pre_hook(keep_embeds, with_kwargs=True)
    with outputs_of(model, names) as kept:
        output = model(**batch)
    handle.remove()
    output.loss.backward()
    mask = goldens["merged_attention_mask"]
    vocabulary = goldens["logits_last_valid"].shape[-1]
    supervised = batch["labels"][:, 1:] != -100
    ends = batch["attention_mask"].sum(1) - 1
    projector, mm_projector = model.model.deepfake_projector, model.model.multi_modal_projector
    with torch.no_grad():
        state = model.model.vision_tower(batch["pixel_values"][:1], output_hidden_states=True).hidden_states
        sweep = projector(goldens["sweep_probs"].flatten(0, 1)).unsqueeze(1)
        half = model(**{**batch, "pixel_values": batch["pixel_values"].half().float()}).loss
        image_rows = mm_projector(state[GOLDEN["mm_vision_select_layer"]])
    merged = {
        "merged_inputs_embeds": (seen["embeds"], EMBEDS),
        "hidden_state_1": (kept["model.language_model.layers.0"][0], LOGITS),
        "last_hidden_state": (kept["model.language_model"][0].last_hidden_state, LOGITS),
    }
    found = {
        name: (valid(ours, batch["attention_mask"]), valid(goldens[name], mask), tolerance)
        for name, (ours, tolerance) in merged.items()
    }
    rows = torch.arange(len(ends))
    plain = {
        "detector_logits": (output.detector_logits, DETECTOR),
        "deepfake_probs": (output.detector_logits.softmax(-1).unsqueeze(1), DETECTOR),
        "deepfake_token_embeds": (kept["model.deepfake_projector"][0].unsqueeze(1), EMBEDS),
        "image_token_embeds_with_cls_row": (image_rows, EMBEDS),
        "sweep_tokens": (sweep, EMBEDS),
        "logits_at_supervised_positions": (output.logits[:, :-1][supervised][:, :vocabulary], LOGITS),
        "logits_last_valid": (output.logits[rows, ends, :vocabulary], LOGITS),
        "loss": (output.loss.reshape(1), LOSS),
        "loss_fp16_rounded_pixels": (half.reshape(1), LOSS),
    }
    modules = {"deepfake_projector": projector, "mm_projector": mm_projector}
    for name in NAMES:
        if match := re.fullmatch(r"grad_(deepfake_projector|mm_projector)\.(0|2)\.(weight|bias)", name):
            linear = modules[match[1]].linear_1 if match[2] == "0" else modules[match[1]].linear_2
            plain[name] = (getattr(linear, match[3]).grad, GRADIENT)
    return found | {name: (ours, goldens[name], tolerance) for name, (ours, tolerance) in plain.items()}


TOKEN_TENSORS = {"input_ids", "labels", "attention_mask", "merged_labels", "merged_attention_mask"}
# inputs of other tests
INPUTS = {"pixel_values_u8", "sweep_probs"}


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in TOKEN_TENSORS | INPUTS and not re.match(r"gen(\d|batch)", n)]
)
def test_m2f2_det_llm_tensor(name, run):
    assert name in run, "a golden tensor that this test does not reproduce"
    assert_within(*run[name])


def test_m2f2_det_llm_pictures_are_equal(processor, pictures, goldens):
    raw = processor(images=pictures, do_rescale=False, do_normalize=False)["pixel_values"]
    assert torch.equal(raw.to(torch.uint8), goldens["pixel_values_u8"])


# tokens and labels


@pytest.mark.parametrize("index", range(len(TRAINING)))
def test_m2f2_det_llm_training_prompt(index):
    assert training_prompt(TRAINING[index]["conversation"])[0] == TRAINING[index]["prompt"]


@pytest.mark.parametrize("index", range(len(TRAINING)))
def test_m2f2_det_llm_training_tokens_and_labels(index, batch, model):
    mask = batch["attention_mask"][index].bool()
    ids, labels = batch["input_ids"][index][mask].tolist(), batch["labels"][index][mask].tolist()
    assert official_ids(ids, model.config) == TRAINING[index]["input_ids"]
    kept = [label for token, label in zip(ids, labels, strict=True) if token != model.config.image_token_id]
    without = [
        label
        for token, label in zip(TRAINING[index]["input_ids"], TRAINING[index]["labels"], strict=True)
        if token != PROMPTS["image_token_index"]
    ]
    assert kept == without


def test_m2f2_det_llm_merged_labels_and_mask(batch, goldens):
    assert torch.equal(batch["attention_mask"], goldens["merged_attention_mask"].to(torch.int64))
    assert torch.equal(batch["labels"], goldens["merged_labels"])


def test_m2f2_det_llm_collated_ids(batch, goldens, model):
    for row, mask, expected, seen in zip(
        batch["input_ids"], batch["attention_mask"], goldens["input_ids"], goldens["attention_mask"], strict=True
    ):
        assert official_ids(row[mask.bool()].tolist(), model.config) == expected[seen.bool()].tolist()
    assert (batch["labels"] != -100).sum() == (goldens["labels"] != -100).sum()


def candidates_for(prompt):
    """What this package asks with the question of a prompt, in the form of either task of the official evaluation."""
    question = prompt.partition(f"{DEEPFAKE_MARKER}\n")[2].removesuffix(" ###Assistant:").strip()
    return {inference_prompt(question), judgement_prompt().replace(JUDGEMENT_QUESTION, question)}


@pytest.mark.parametrize("index", range(len(GENERATION)))
def test_m2f2_det_llm_generation_prompt(index, processor, model, goldens):
    prompt = GENERATION[index]["prompt"]
    assert prompt in candidates_for(prompt)
    ids = processor.token_ids(prompt)
    assert official_ids(ids, model.config) == GENERATION[index]["input_ids"]
    assert goldens[f"gen{index}_input_ids"][0].tolist() == GENERATION[index]["input_ids"]
    assert len(ids) == goldens[f"gen{index}_inputs_embeds_len"].item()


# greedy text


def generate(model, processor, pictures, prompts):
    inputs = processor(images=pictures, text=prompts)
    output = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=GOLDEN["max_new_tokens"],
        output_logits=True,
        return_dict_in_generate=True,
    )
    return output.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(output.logits, dim=1)


@pytest.mark.parametrize("index", range(len(GENERATION)))
def test_m2f2_det_llm_greedy(index, model, processor, pictures, goldens):
    expected = goldens[f"gen{index}_sequence_with_placeholder_bos"][1:]
    step_logits = goldens[f"gen{index}_step_logits"]
    matching = []
    for picture in pictures:  # the goldens do not say which picture was asked about
        ids, logits = generate(model, processor, [picture], [GENERATION[index]["prompt"]])
        with torch.no_grad():
            probs = model(**processor(images=picture, text=GENERATION[index]["prompt"])).detector_logits.softmax(-1)
        if torch.allclose(probs, goldens[f"gen{index}_deepfake_probs"][0], atol=DETECTOR):
            matching.append((ids[0], logits[0]))
    assert matching
    assert matching[0][0].tolist() == expected.tolist() == GENERATION[index]["new_tokens"]
    assert_within(matching[0][1][:, : step_logits.shape[-1]], step_logits, LOGITS)


@pytest.mark.parametrize("index", range(len(GENERATION)))
def test_m2f2_det_llm_text_in_official_form(index, processor):
    entry = GENERATION[index]
    text = processor.decode_answers(torch.tensor([entry["new_tokens"]]), skip_special_tokens=False)[0]
    assert text == entry["decoded_official_style"]


def our_ids(official, config):
    """Official ids in our form: `<image>` once per patch."""
    placeholders = {
        PROMPTS["image_token_index"]: [config.image_token_id] * config.num_patches,
        PROMPTS["deepfake_token_index"]: [config.deepfake_token_id],
    }
    return [token for entry in official for token in placeholders.get(entry, [entry])]


def test_m2f2_det_llm_greedy_batch(model, processor, pictures, goldens):
    ids = torch.tensor([our_ids(row, model.config) for row in goldens["genbatch_input_ids"].tolist()])
    expected = goldens["genbatch_sequences_with_placeholder_bos"][:, 1:]
    pixels = processor(images=pictures[: len(ids)])
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": expected.shape[1]}
    output = model.generate(input_ids=ids, **pixels, **options)
    assert output[:, ids.shape[1] :].tolist() == expected.tolist()


def test_m2f2_det_llm_detect_needs_no_language_model(folder, model, processor, pictures, goldens):
    inputs = processor(images=pictures)
    assert_within(model.detect(**inputs).logits, goldens["detector_logits"], DETECTOR)
    verdict = AutoModelForDeepfakeDetection.from_pretrained(folder)
    assert type(verdict).__name__ == "M2F2DetForDeepfakeDetection"
    assert_within(verdict.detect(**inputs).logits, goldens["detector_logits"], DETECTOR)
