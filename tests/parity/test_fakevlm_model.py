"""Parity of FakeVLM: features, embeddings, logits, loss, greedy ids, verdict scores, training batches."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.modeling.prompting_fakevlm import QUESTION
from support.comparison import assert_within, outputs_of
from support.fakevlm_folders import convert_fakevlm, read_config
from support.golden_files import golden_folder

FOLDER = golden_folder("fakevlm")
GOLDEN = read_config(FOLDER)
RECORDS = json.loads((FOLDER / "records.json").read_text())
CONVERSATIONS = [record["conversations"] for record in RECORDS["records"]]
# What a converted folder asks by itself: the published question, or that of the recordings where it is another.
FIRST_QUESTION = CONVERSATIONS[0][0]["value"]
FIRST_QUESTION = QUESTION if FIRST_QUESTION == f"<image>{QUESTION}" else FIRST_QUESTION
with safe_open(FOLDER / "model_io.safetensors", "pt") as file:
    NAMES = sorted(file.keys())
with safe_open(FOLDER / "collator.safetensors", "pt") as file:
    COLLATED = sorted(file.keys())
WORDS = GOLDEN["text_config"]["vocab_size"]
SENTINEL = GOLDEN["llava_original"]["image_token_sentinel"]
IGNORED = GOLDEN["llava_original"]["ignore_index"]

LOGITS, LOSS, PROBABILITY, PIXELS = 1e-4, 1e-4, 1e-5, 1e-5
STYLES = {"vicuna_pad": ("vicuna_v1", "pad"), "raw_crop": ("raw", "crop"), "chat_crop": ("hf_chat", "crop")}


@pytest.fixture(scope="module")
def goldens():
    return load_file(FOLDER / "model_io.safetensors")


@pytest.fixture(scope="module")
def collated():
    return load_file(FOLDER / "collator.safetensors")


@pytest.fixture(scope="module")
def pictures():
    raw = load_file(FOLDER / "preprocess.safetensors")
    return [Image.fromarray(raw[record["image"]].numpy()) for record in RECORDS["records"]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """style -> (model, processor), each through convert and from_pretrained."""
    root = tmp_path_factory.mktemp("converted")
    found = {}
    for name, (style, aspect) in STYLES.items():
        folder = convert_fakevlm(FOLDER, root / name, prompt_style=style, image_aspect=aspect, question=FIRST_QUESTION)
        found[name] = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    return found


def original_ids(row, mask, config):
    """Our row in the original form: padding left out, one sentinel per picture."""
    ids, found = row[mask.bool()].tolist(), []
    count = config.num_image_tokens
    position = 0
    while position < len(ids):
        if ids[position] == config.image_token_index:
            assert ids[position : position + count] == [config.image_token_index] * count
            found.append(SENTINEL)
            position += count
        else:
            found.append(ids[position])
            position += 1
    return found


def next_token_loss(logits, labels):
    """Over the words only, as the original vocabulary has no more."""
    return F.cross_entropy(logits[:, :-1, :WORDS].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


@pytest.fixture(scope="module")
def trained(loaded, pictures, goldens):
    """name -> (ours, golden, tolerance) of everything under `train.` and the features."""
    model, processor = loaded["vicuna_pad"]
    batch = processor.encode_conversations(CONVERSATIONS, pictures)
    seen = {}

    def keep_embeds(module, args, kwargs):
        seen["embeds"] = kwargs["inputs_embeds"]

    handle = model.model.language_model.register_forward_pre_hook(keep_embeds, with_kwargs=True)
    with torch.no_grad(), outputs_of(model, ["model.multi_modal_projector"]) as kept:
        tower = model.model.vision_tower(batch["pixel_values"], output_hidden_states=True)
        output = model(**batch)
    handle.remove()
    layer = tower.hidden_states[GOLDEN["hf"]["vision_feature_layer"]][:, 1:]
    mask = batch["attention_mask"].bool()
    masked = mask[..., None]
    found = {
        "train.pixel_values": (batch["pixel_values"], PIXELS),
        "vision_features": (layer, LOGITS),
        "image_features": (kept["model.multi_modal_projector"][0], LOGITS),
        # padding is zeros there, and embedded here
        "train.inputs_embeds": (seen["embeds"] * masked, LOGITS),
        "train.logits": (output.logits[..., :WORDS] * masked, LOGITS),
        "train.loss": (next_token_loss(output.logits, batch["labels"]).reshape(1), LOSS),
        "hf.train_input_ids": (batch["input_ids"], 0),
        "train.expanded_labels": (batch["labels"], 0),
        "train.expanded_attention_mask": (mask, 0),
    }
    golden = dict(goldens)
    golden["train.logits"] = goldens["train.logits"] * goldens["train.expanded_attention_mask"][..., None]
    rows = [original_ids(r, m, model.config) for r, m in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    found |= original_forms("train", rows, batch["labels"], goldens, model.config)
    return {name: (ours, golden[name], tolerance) for name, (ours, tolerance) in found.items()}


def original_forms(name, rows, labels, goldens, config):
    """Our right-padded batch as the original code holds it, one sentinel per picture, padded with `<unk>`."""
    length = max(map(len, rows))
    count = config.num_image_tokens
    ids = torch.full((len(rows), length), GOLDEN["text_config"]["pad_token_id"])
    short = torch.full((len(rows), length), IGNORED)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = row.index(SENTINEL)
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = True
        kept = torch.cat([labels[index, : place + 1], labels[index, place + count :]])
        short[index, : len(row)] = kept[: len(row)]
    forms = {"input_ids": ids, "labels": short, "attention_mask": mask}
    return {f"{name}.{key}": (value, 0) for key, value in forms.items()}


def prompts_of(style):
    return RECORDS["vicuna_prompts" if style == "vicuna_pad" else "raw_prompts"]


@pytest.fixture(scope="module")
def generated(loaded, pictures, goldens):
    """name -> (ours, golden, tolerance) of everything under `gen_*` and `crop.`."""
    found = {"crop.pixel_values": (loaded["raw_crop"][1](images=pictures)["pixel_values"], PIXELS)}
    for style in ("vicuna_pad", "raw_crop"):
        model, processor = loaded[style]
        inputs = processor(images=pictures, text=prompts_of(style))
        length = goldens[f"gen_{style}.generated_ids"].shape[1]
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=length, output_logits=True, return_dict_in_generate=True
        )
        start = inputs["input_ids"].shape[1]
        pairs = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        rows = [original_ids(row, mask, model.config) for row, mask in pairs]
        width = max(map(len, rows))
        ids = [[GOLDEN["text_config"]["pad_token_id"]] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        values = {
            "hf_input_ids": (inputs["input_ids"], 0),
            "hf_attention_mask": (inputs["attention_mask"], 0),
            "input_ids": (torch.tensor(ids), 0),
            "attention_mask": (torch.tensor(mask), 0),
            "generated_ids": (output.sequences[:, start:], 0),
            "step_logits": (torch.stack(output.logits, dim=1)[..., :WORDS], LOGITS),
        }
        found |= {f"gen_{style}.{name}": value for name, value in values.items()}
    return {name: (ours, goldens[name], tolerance) for name, (ours, tolerance) in found.items()}


def log_probabilities(model, row, mask, pixels, candidate):
    """Of the tokens of `candidate` behind one unpadded prompt, over the words."""
    prompt = row[mask.bool()]
    ids = torch.cat([prompt, torch.tensor(candidate)])[None]
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels[None]).logits[0, len(prompt) - 1 : -1, :WORDS]
    return logits.log_softmax(-1).gather(1, torch.tensor(candidate)[:, None]).sum()


SCORES = {
    "score_vicuna_pad": ("vicuna_pad", "prefix"),
    "score_raw_crop": ("raw_crop", "prefix"),
    "score_vicuna_full": ("vicuna_pad", "continuation"),
}


@pytest.fixture(scope="module")
def scored(loaded, pictures, goldens):
    """name -> (ours, golden, tolerance) of everything under `score_*`."""
    found = {}
    for name, (style, score) in SCORES.items():
        model, processor = loaded[style]
        prompts = prompts_of(style)
        inputs = processor(images=pictures, text=prompts)
        forced = model.config.forced_prefix if score == "prefix" else ""
        whole = processor(images=pictures, text=[prompt + forced for prompt in prompts])
        tokens = model.config.verdict_tokens
        suffix = "" if score == "prefix" else "_sentence"
        candidates = [tokens[f"{word}{suffix}"] for word in ("real", "fake")]
        candidates = [ids if isinstance(ids, list) else [ids] for ids in candidates]
        assert candidates == list(RECORDS["score_candidate_ids"][name].values())
        logprobs = [
            [log_probabilities(model, row, mask, pixels, candidate) for candidate in candidates]
            for row, mask, pixels in zip(
                whole["input_ids"], whole["attention_mask"], whole["pixel_values"], strict=True
            )
        ]
        output = model.detect(**inputs, score=score)
        values = {
            "hf_input_ids": (whole["input_ids"], 0),
            "hf_attention_mask": (whole["attention_mask"], 0),
            "logprob_real_fake": (torch.tensor(logprobs), LOGITS),
            "p_fake": (output.fake_probability, PROBABILITY),
        }
        found |= {f"{name}.{key}": value for key, value in values.items()}
        if score == "continuation":
            assert_within(output.logits, goldens[f"{name}.logprob_real_fake"], LOGITS)
    return {name: (ours, goldens[name], tolerance) for name, (ours, tolerance) in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_fakevlm_tensor(name, trained, generated, scored):
    found = trained | generated | scored
    assert name in found, "a golden tensor that this test does not reproduce"
    assert_within(*found[name])


@pytest.mark.parametrize("style", ["vicuna_pad", "raw_crop"])
def test_fakevlm_own_prompt_is_the_official_one(style, loaded, pictures):
    """`detect` on pictures alone asks its own question, here that of the first record."""
    model, processor = loaded[style]
    assert processor.explanation_prompt() == model.config.verdict_prompt == prompts_of(style)[0]
    pixels = processor(images=pictures)["pixel_values"]
    asked = processor(images=pictures, text=[prompts_of(style)[0]] * len(pictures))
    assert_within(model.detect(pixels).logits, model.detect(**asked).logits, 1e-5)


@pytest.mark.parametrize("style", ["vicuna_pad", "raw_crop"])
@pytest.mark.parametrize("index", range(len(CONVERSATIONS)))
def test_fakevlm_prompt_of_a_record(style, index, loaded):
    question = CONVERSATIONS[index][0]["value"]
    assert loaded[style][1].explanation_prompt(question) == prompts_of(style)[index]


@pytest.mark.parametrize("text", list(RECORDS["tokenized"]), ids=repr)
def test_fakevlm_tokenised_text(text, loaded):
    for _, processor in loaded.values():
        assert processor.token_ids(text) == RECORDS["tokenized"][text]


@pytest.fixture(scope="module")
def batches(loaded, pictures, collated):
    """name -> (ours, golden, tolerance) of the newer official collator's batches."""
    model, processor = loaded["chat_crop"]
    found = {}
    for name in ("collator", "collator_truncated"):
        limit = int(collated[f"{name}.max_length"])
        batch = processor.encode_conversations(CONVERSATIONS, pictures, max_length=limit, pad_to_max_length=True)
        for key in ("input_ids", "labels", "attention_mask"):
            found[f"{name}.{key}"] = batch[key], 0
        found[f"{name}.max_length"] = torch.tensor([batch["input_ids"].shape[1]]), 0
        if name == "collator":
            with torch.no_grad():
                loss = next_token_loss(model(**batch).logits, batch["labels"])
            found[f"{name}.pixel_values"] = batch["pixel_values"], PIXELS
            found[f"{name}.loss_base_vocab"] = loss.reshape(1), LOSS
    return {name: (ours, collated[name], tolerance) for name, (ours, tolerance) in found.items()}


@pytest.mark.parametrize("name", COLLATED)
def test_fakevlm_collator(name, batches):
    assert name in batches, "a golden tensor that this test does not reproduce"
    assert_within(*batches[name])


def test_fakevlm_raw_style_trains_like_hf_chat(loaded, pictures):
    raw, chat = (
        loaded[name][1].encode_conversations(CONVERSATIONS, pictures)["labels"] for name in ("raw_crop", "chat_crop")
    )
    assert torch.equal(raw, chat)
