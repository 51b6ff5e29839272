"""Parity of AntifakePrompt with the official modules: features, scores, losses, gradients, steps and texts."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoProcessor

from support.antifakeprompt_folders import convert_golden, read_config
from support.comparison import outputs_of
from support.golden_files import golden_folder

FOLDER = golden_folder("antifakeprompt")
GOLDEN = read_config(FOLDER)
with safe_open(FOLDER / "model_goldens.safetensors", "pt") as file:
    NAMES = sorted(file.keys())
INPUTS = [name for name in NAMES if re.fullmatch(r"raw\.\d+", name)]
# of the goldens' README
TOLERANCE = 1e-4
GENERATION = {
    "gen_greedy": {"repetition_penalty": 1.0},
    "gen_greedy_rep15": {"repetition_penalty": 1.5},
    "gen_beam5": {"num_beams": 5, "repetition_penalty": 1.5, "length_penalty": 1.0},
}
ADAMW = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}
MODULES = {
    "vit_block0": "vision_model.encoder.layers.0",
    "vit_out": "vision_model.encoder",
    "image_embeds": "vision_model",
    "qformer_embeddings": "qformer.embeddings",
    "qformer_last_hidden": "qformer",
    "llm_proj": "language_projection",
}


@pytest.fixture(scope="module")
def goldens():
    return load_file(FOLDER / "model_goldens.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert_golden(FOLDER, tmp_path_factory.mktemp("antifakeprompt") / "converted")


@pytest.fixture(scope="module")
def model(folder):
    model = AutoModel.from_pretrained(folder)
    model.freeze_all_but_soft_words()
    return model


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def pictures(goldens):
    return [Image.fromarray(goldens[f"raw.{i}"].numpy()) for i in range(GOLDEN["batch"])]


@pytest.fixture(scope="module")
def ids_of(processor):
    return lambda answers: [processor.answer_ids(answer) for answer in answers]


@pytest.fixture(scope="module")
def official(model, processor):
    """Ids in the official numbering: the learned word and the padding are numbered by our tokenizers."""

    def renumber(ids, side):
        own = {"llm": (model.config.llm_soft_word_id, processor.tokenizer.pad_token_id)}.get(
            side, (model.config.qformer_soft_word_id, processor.qformer_tokenizer.pad_token_id)
        )
        theirs = (GOLDEN[side]["soft_word_id"], GOLDEN[side]["pad_token_id"])
        result = ids.clone()
        for ours, golden in zip(own, theirs, strict=True):
            result[ids == ours] = golden
        return result

    return renumber


def full_rows(model, processor, pictures, texts, candidates):
    """The official order of work: every picture once per candidate, each row with its answer, loss on the answer.

    `candidates` is a list per picture. Returns the output, the batch and the embeddings the language model read.
    """
    count = len(candidates[0])
    repeated = [text for text in texts for _ in range(count)]
    answers = [answer for row in candidates for answer in row]
    batch = processor.encode_answers(repeated, answers, images=[p for p in pictures for _ in range(count)], end=False)
    seen = {}

    def keep(module, args, kwargs):
        seen["embeds"] = kwargs["inputs_embeds"]

    handle = model.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    with outputs_of(model, set(MODULES.values())) as kept, torch.no_grad():
        output = model(**batch)
    handle.remove()
    once = {name: first_tensor(kept[module][0])[::count] for name, module in MODULES.items()}
    return output, batch, seen["embeds"], once


def first_tensor(output):
    if isinstance(output, torch.Tensor):
        return output
    return output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]


def row_losses(logits, labels):
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    return losses.mean(dim=1)  # over ignored positions too, as the official code does


def valid(ours, golden, mask):
    """Padded positions are left out of both sides."""
    keep = mask.bool()
    return ours[keep], golden[keep]


def add_scoring(found, prefix, goldens, model, processor, pictures, official, texts, candidates):
    """Everything the golden file has under `prefix`, from the full rows and from the one-pass scores."""
    output, batch, embeds, once = full_rows(model, processor, pictures, texts, candidates)
    count = len(candidates[0])
    losses = row_losses(output.logits, batch["labels"]).view(-1, count)
    positions = batch["labels"].shape[1] - 1
    inputs = processor(images=pictures, text=texts, padding_side="right", require_soft_word=False)
    ids = [[processor.answer_ids(answer) for answer in row] for row in candidates]
    nll = model.score_candidates(**inputs, candidates=ids)
    mask = batch["attention_mask"]
    question_mask = torch.cat(
        [torch.ones(len(texts), GOLDEN["num_query_token"], dtype=torch.long), inputs["qformer_attention_mask"]], 1
    )
    ours = {
        **once,
        "qformer_input_ids": official(inputs["qformer_input_ids"], "qformer"),
        "qformer_attention_mask": question_mask,
        "llm_prompt_ids": official(inputs["input_ids"][:1, GOLDEN["num_query_token"] :], "llm"),
        "llm_inputs_embeds": embeds,
        "llm_attention_mask": mask,
        "llm_labels": batch["labels"],
        "llm_logits": output.logits,
        "llm_loss": losses.flatten(),
        "losses": losses,
        "ranks": nll.argsort(dim=-1),
        "nll": nll,
    }
    for name, tensor in ours.items():
        if f"{prefix}.{name}" in goldens:
            golden = goldens[f"{prefix}.{name}"]
            if name in ("llm_inputs_embeds", "llm_logits"):
                tensor, golden = valid(tensor, golden, mask)
            elif name in ("qformer_embeddings", "qformer_last_hidden"):
                tensor, golden = valid(tensor, golden, question_mask)
            found[f"{prefix}.{name}"] = (tensor, golden)
    # The one-pass score is checked as well as the full rows.
    torch.testing.assert_close(nll / positions, goldens[f"{prefix}.losses"], atol=TOLERANCE, rtol=TOLERANCE)


def add_nested(found, goldens, model, processor, pictures, texts, candidates):
    """A list of answers per picture: officially each picture by itself, padded to its own longest answer."""
    losses = []
    for picture, text, row in zip(pictures, texts, candidates, strict=True):
        output, batch, _, _ = full_rows(model, processor, [picture], [text], [row])
        losses.append(row_losses(output.logits, batch["labels"]))
    losses = torch.stack(losses)
    ids = [[processor.answer_ids(answer) for answer in row] for row in candidates]
    nll = model.score_candidates(**processor(images=pictures, text=texts, padding_side="right"), candidates=ids)
    found["nested.losses"] = (losses, goldens["nested.losses"])
    found["nested.ranks"] = (nll.argsort(dim=-1), goldens["nested.ranks"])


def add_segments(found, goldens, model, processor, pictures, texts, candidates):
    """Segments of candidates, each averaged over its own number of positions."""
    count = sum(bool(re.fullmatch(r"cand3_seg2\.llm_labels\.\d+", name)) for name in NAMES)
    size = len(candidates) // count
    losses = []
    for segment in range(count):
        part = candidates[segment * size : None if segment == count - 1 else (segment + 1) * size]
        rows = processor.encode_answers(
            [text for text in texts for _ in part], [a for _ in texts for a in part], end=False
        )
        found[f"cand3_seg2.llm_labels.{segment}"] = (rows["labels"], goldens[f"cand3_seg2.llm_labels.{segment}"])
        inputs = processor(images=pictures, text=texts, padding_side="right")
        nll = model.score_candidates(**inputs, candidates=[processor.answer_ids(answer) for answer in part])
        losses.append(nll / (rows["labels"].shape[1] - 1))
    losses = torch.cat(losses, dim=1)
    found["cand3_seg2.losses"] = (losses, goldens["cand3_seg2.losses"])
    found["cand3_seg2.ranks"] = (losses.argsort(dim=-1), goldens["cand3_seg2.ranks"])


def add_training(found, prefix, goldens, model, processor, pictures, texts, answers):
    batch = processor.encode_answers(texts, answers, images=pictures)
    model.zero_grad()
    seen = {}

    def keep(module, args, kwargs):
        seen["embeds"] = kwargs["inputs_embeds"].detach()

    handle = model.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    output = model(**batch)
    handle.remove()
    output.loss.backward()
    words = model.soft_words()
    mask = batch["attention_mask"]
    ours = {
        "loss": output.loss.detach(),
        "grad_qformer_word": words["qformer_soft_word"].grad.clone(),
        "grad_llm_word": words["llm_soft_word"].grad.clone(),
        "llm_labels": batch["labels"],
        "llm_attention_mask": mask,
        "llm_inputs_embeds": seen["embeds"],
        "llm_logits": output.logits.detach(),
    }
    for name, tensor in ours.items():
        golden = goldens[f"{prefix}.{name}"]
        if name in ("llm_inputs_embeds", "llm_logits"):
            tensor, golden = valid(tensor, golden, mask)
        found[f"{prefix}.{name}"] = (tensor, golden)
    return batch


@pytest.fixture(scope="module")
def run(model, processor, pictures, goldens, official, folder):
    """name -> (ours, golden)."""
    found = {}
    batch = len(pictures)
    shared = (goldens, model, processor, pictures)
    prompt = [GOLDEN["prompt"]] * batch
    pair, three = GOLDEN["candidates"], GOLDEN["candidates3"]
    add_scoring(found, "main", *shared, official, prompt, [pair] * batch)
    add_scoring(found, "zeroshot", *shared, official, [processor.plain_prompt] * batch, [pair] * batch)
    add_scoring(found, "cand3", *shared, official, prompt, [three] * batch)
    add_scoring(found, "mixed", *shared, official, GOLDEN["mixed_prompts"], [three] * batch)
    add_nested(found, *shared, prompt, GOLDEN["nested_candidates"])
    add_segments(found, *shared, prompt, three)

    pixels = processor(images=pictures)["pixel_values"]
    found["pixel_values"] = (pixels, goldens["pixel_values"])
    output = model.detect(pixel_values=pixels)
    found["main.p_fake"] = (output.fake_probability, goldens["main.p_fake"])
    found["main.pred_label"] = (output.logits.argmax(dim=-1), goldens["main.pred_label"])

    inputs = processor(images=pictures, text=prompt)
    for name, settings in GENERATION.items():
        golden = goldens[f"{name}.ids"][:, 1:]  # the first is the old library's start id
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=golden.shape[1], **settings)
        found[f"{name}.ids"] = (ids, golden)

    add_training(found, "train_mixed", *shared, GOLDEN["mixed_prompts"], GOLDEN["train_mixed_text_output"])
    training = add_training(found, "train", *shared, prompt, GOLDEN["train_text_output"])
    trained = AutoModel.from_pretrained(folder)
    trained.freeze_all_but_soft_words()
    optimizer = torch.optim.AdamW([weight for weight in trained.parameters() if weight.requires_grad], **ADAMW)
    losses = []
    for _ in goldens["adamw.losses"]:
        optimizer.zero_grad()
        loss = trained(**training).loss
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    words = trained.soft_words()
    found["adamw.losses"] = (torch.stack(losses), goldens["adamw.losses"])
    found["adamw.qformer_word"] = (words["qformer_soft_word"].detach(), goldens["adamw.qformer_word"])
    found["adamw.llm_word"] = (words["llm_soft_word"].detach(), goldens["adamw.llm_word"])
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if name not in INPUTS])
def test_antifakeprompt_tensor(name, run):
    assert name in run, "a golden tensor that this test does not reproduce"
    ours, golden = run[name]
    assert ours.shape == golden.shape
    if golden.is_floating_point():
        torch.testing.assert_close(ours, golden, atol=TOLERANCE, rtol=TOLERANCE)
    else:
        assert torch.equal(ours, golden)


def test_antifakeprompt_probability_to_1e_6(run):
    ours, golden = run["main.p_fake"]
    torch.testing.assert_close(ours, golden, atol=2e-6, rtol=0)


def test_antifakeprompt_positions_of_the_official_mean(run, model, processor):
    rows = processor.encode_answers([GOLDEN["prompt"]], GOLDEN["candidates"][:1], end=False)
    assert rows["labels"].shape[1] - 1 == GOLDEN["T_minus_1_main"]


@pytest.mark.parametrize("entry", GOLDEN["tokenization"], ids=lambda entry: entry["text"])
def test_antifakeprompt_tokenization(entry, processor, official):
    text = entry["text"]
    ids = torch.tensor(processor.llm_ids(text))
    assert official(ids, "llm").tolist() == entry["llm_ids"]
    assert processor.tokenizer.convert_ids_to_tokens(ids.tolist()) == entry["llm_tokens"]
    if "qformer_ids" in entry:
        assert official(torch.tensor(processor.qformer_ids(text)), "qformer").tolist() == entry["qformer_ids"]


def test_antifakeprompt_generated_text(goldens, processor):
    """The old tokenizer writes broken UTF-8 otherwise than the new one, so bytes are left out: the rest, in order."""
    for name, texts in GOLDEN["generated_text"].items():
        for ids, text in zip(goldens[f"{name}.ids"][:, 1:], texts, strict=True):
            runs = [[]]
            for token in ids.tolist():
                if re.fullmatch(r"<0x..>", processor.tokenizer.convert_ids_to_tokens(token)):
                    runs.append([])
                else:
                    runs[-1].append(token)
            words = [run for run in runs if run]  # none, where the whole answer is bytes
            decoded = processor.decode_answers(words)
            assert len(decoded) == len(words)
            assert re.search(".*?".join(re.escape(part) for part in decoded), text, re.DOTALL)


def test_antifakeprompt_eager_attention_gives_the_same(folder, pictures, processor, goldens):
    eager = AutoModel.from_pretrained(folder, attn_implementation="eager")
    p_fake = eager.detect(**processor(images=pictures)).fake_probability
    torch.testing.assert_close(p_fake, goldens["main.p_fake"], atol=2e-6, rtol=0)


def test_antifakeprompt_released_words_equal_the_models(model):
    words = torch.load(FOLDER / "released_style_checkpoint.pth", weights_only=True)["model"]
    ours = model.soft_words()
    assert torch.equal(ours["qformer_soft_word"], words["Qformer.bert.embeddings.train_word_embeddings.weight"])
    assert torch.equal(ours["llm_soft_word"], words["llm_model.model.train_embed_tokens.weight"])


def test_antifakeprompt_raw_pictures_are_bytes(goldens):
    assert len(INPUTS) == GOLDEN["batch"]
    assert all(goldens[name].numpy().dtype == np.uint8 for name in INPUTS)
