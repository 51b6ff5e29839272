"""What the official code recorded of training, through the training code: label masks, losses, gradients, steps."""

import json

import datasets
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from deepfake_detectors.train.arguments import SftModelArguments, SftTrainingArguments
from deepfake_detectors.train.families import load_for_sft
from deepfake_detectors.train.optimization import train_only
from deepfake_detectors.train.sft_data import ConversationCollator
from deepfake_detectors.train.trainers import DetectorSFTTrainer
from support.fakevlm_folders import convert_fakevlm
from support.fakevlm_folders import read_config as read_fakevlm_config
from support.golden_files import golden_folder
from support.lvlm_dfd_folders import convert_golden
from support.lvlm_dfd_golden_runs import NO, SECOND_TURN, YES, assembled, golden_parts, gradient_of, labels_by_picture
from support.m2f2_det_folders import convert_language_model
from support.sft_runs import ON_THIS_MACHINE

FAKEVLM, LVLM_DFD = golden_folder("fakevlm"), golden_folder("lvlm_dfd")
M2F2_DET = golden_folder("m2f2_det") / "deepfake_llm"
# Soft masks are another case of the detector's losses; words and their loss are those of the hard ones.
CASES = [
    case for case in json.loads((LVLM_DFD / "config.json").read_text())["meta"]["training"] if not case["soft_mask"]
]
MARKERS = ("<image>", "<deepfake>")
RATE = 1e-3
LOSS, GRADIENT = 1e-5, 1e-5


def rows_of(conversations, pictures, labels=None):
    """Conversations as the builders give them: without markers, in chat spelling."""
    messages = []
    for conversation in conversations:
        turns = [(turn["from"], turn["value"]) for turn in conversation]
        for marker in MARKERS:
            turns = [(speaker, text.replace(marker, "")) for speaker, text in turns]
        roles = {"human": "user", "gpt": "assistant"}
        messages.append([{"role": roles[speaker], "content": text.strip()} for speaker, text in turns])
    labels = [0] * len(messages) if labels is None else labels
    return [
        {"image": picture, "label": label, "messages": each}
        for picture, label, each in zip(pictures, labels, messages, strict=True)
    ]


def build(folder, rows, output, train=None, max_length=None):
    """The trainer as the script builds it."""
    model, processor, family = load_for_sft(SftModelArguments(model_name_or_path=str(folder)))
    if train is not None:
        train_only(model, train)
    settings = {**ON_THIS_MACHINE, "output_dir": str(output), "per_device_train_batch_size": len(rows)}
    settings |= {"max_steps": 1, "learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    return DetectorSFTTrainer(
        model=model,
        args=SftTrainingArguments(**settings, max_length=max_length),
        train_dataset=datasets.Dataset.from_list(rows),
        data_collator=ConversationCollator(family, processor, "dataset", max_length),
        processing_class=processor,
        own_loss=family.own_loss,
        detector=family.detector,
    )


def one_step(trainer, rows):
    """Loss and, left in the model, gradients of the first training step, as Trainer's loop makes it."""
    batch = trainer.data_collator(rows)
    tokens = trainer._get_num_items_in_batch([batch], trainer.args.device)
    assert tokens == (batch["labels"] != -100).sum()
    return trainer.training_step(trainer.model, batch, tokens)


# M2F2-Det


@pytest.fixture(scope="module")
def m2f2_det(tmp_path_factory):
    folder = convert_language_model(M2F2_DET.parent, tmp_path_factory.mktemp("m2f2_det") / "converted")
    examples = json.loads((M2F2_DET / "prompts.json").read_text())["train_examples"]
    pictures = [Image.open(M2F2_DET / f"image_{index}.png") for index in range(len(examples))]
    rows = rows_of([example["conversation"] for example in examples], pictures)
    return folder, rows, load_file(M2F2_DET / "io.safetensors")


def test_m2f2_det_label_masks(m2f2_det, tmp_path):
    folder, rows, goldens = m2f2_det
    batch = build(folder, rows, tmp_path).data_collator(rows)
    assert torch.equal(batch["labels"], goldens["merged_labels"])
    assert torch.equal(batch["attention_mask"], goldens["merged_attention_mask"].long())
    assert batch["class_labels"].tolist() == [row["label"] for row in rows]


def golden_gradients(goldens):
    """Our parameter name -> the official gradient."""
    ours = {"deepfake_projector": "deepfake_projector", "mm_projector": "multi_modal_projector"}
    found = {}
    for name in goldens:
        if name.startswith("grad_"):
            module, index, kind = name.removeprefix("grad_").split(".")
            found[f"model.{ours[module]}.linear_{1 if index == '0' else 2}.{kind}"] = goldens[name]
    return found


def test_m2f2_det_loss_and_gradients(m2f2_det, tmp_path):
    folder, rows, goldens = m2f2_det
    trainer = build(folder, rows, tmp_path, ["model.deepfake_projector", "model.multi_modal_projector"])
    loss = one_step(trainer, rows)
    assert loss.item() == pytest.approx(goldens["loss"].item(), abs=LOSS)
    expected, parameters = golden_gradients(goldens), dict(trainer.model.named_parameters())
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(parameters[name].grad, gradient, atol=GRADIENT, rtol=0)


def test_m2f2_det_stage_2_makes_the_official_adamw_step(m2f2_det, tmp_path):
    """`trainer.train()` moves the projector by what AdamW makes of the official gradients, and nothing else."""
    folder, rows, goldens = m2f2_det
    trainer = build(folder, rows, tmp_path, ["model.deepfake_projector"])
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    gradients = {k: v for k, v in golden_gradients(goldens).items() if "deepfake_projector" in k}
    copies = {name: before[name].clone().requires_grad_() for name in gradients}
    for name, copy in copies.items():
        copy.grad = gradients[name].clone()
    torch.nn.utils.clip_grad_norm_(list(copies.values()), trainer.args.max_grad_norm)
    torch.optim.AdamW(copies.values(), lr=RATE, weight_decay=0.0).step()
    trainer.train()
    after = trainer.model.state_dict()
    assert {name for name in after if not torch.equal(before[name], after[name])} == set(copies)
    for name, copy in copies.items():
        # Where a gradient is of the size of rounding errors, the first step's direction is too.
        sure = gradients[name].abs() > 1e-3 * gradients[name].abs().max()
        assert sure.float().mean() > 0.5
        torch.testing.assert_close(after[name][sure], copy.detach()[sure], atol=RATE * 0.01, rtol=0)


# FakeVLM


@pytest.fixture(scope="module")
def fakevlm(tmp_path_factory):
    root = tmp_path_factory.mktemp("fakevlm")
    styles = {"chat_crop": ("hf_chat", "crop"), "vicuna_pad": ("vicuna_v1", "pad")}
    folders = {
        name: convert_fakevlm(FAKEVLM, root / name, prompt_style=style, image_aspect=aspect)
        for name, (style, aspect) in styles.items()
    }
    records = json.loads((FAKEVLM / "records.json").read_text())["records"]
    raw = load_file(FAKEVLM / "preprocess.safetensors")
    pictures = [Image.fromarray(raw[record["image"]].numpy()) for record in records]
    # 1 is real in the records and fake here
    rows = rows_of([record["conversations"] for record in records], pictures, [1 - r["label"] for r in records])
    return folders, rows


@pytest.mark.parametrize("name", ["collator", "collator_truncated"])
def test_fakevlm_label_masks(fakevlm, tmp_path, name):
    """The newer official collator; it pads to a fixed length, this one to the longest row."""
    folders, rows = fakevlm
    golden = load_file(FAKEVLM / "collator.safetensors")
    limit = int(golden[f"{name}.max_length"])
    batch = build(folders["chat_crop"], rows, tmp_path, max_length=limit).data_collator(rows)
    length = batch["input_ids"].shape[1]
    for key in ("input_ids", "labels", "attention_mask"):
        assert torch.equal(batch[key], golden[f"{name}.{key}"][:, :length].long())
    assert not golden[f"{name}.attention_mask"][:, length:].any()
    if f"{name}.pixel_values" in golden:
        torch.testing.assert_close(batch["pixel_values"], golden[f"{name}.pixel_values"], atol=1e-5, rtol=0)


def test_fakevlm_label_masks_of_the_first_release(fakevlm, tmp_path):
    folders, rows = fakevlm
    golden = load_file(FAKEVLM / "model_io.safetensors")
    batch = build(folders["vicuna_pad"], rows, tmp_path).data_collator(rows)
    assert torch.equal(batch["input_ids"], golden["hf.train_input_ids"])
    assert torch.equal(batch["labels"], golden["train.expanded_labels"])
    assert torch.equal(batch["attention_mask"].bool(), golden["train.expanded_attention_mask"])


def test_fakevlm_loss(fakevlm, tmp_path):
    """The official logits, with the rows that only the HF vocabulary has, give the loss that the trainer sees."""
    folders, rows = fakevlm
    golden = load_file(FAKEVLM / "model_io.safetensors")
    words = read_fakevlm_config(FAKEVLM)["text_config"]["vocab_size"]
    trainer = build(folders["vicuna_pad"], rows, tmp_path)
    loss = one_step(trainer, rows)
    batch = trainer.data_collator(rows)
    with torch.no_grad():
        added = trainer.model(**batch).logits[..., words:]
    logits, labels = torch.cat([golden["train.logits"], added], dim=-1), golden["train.expanded_labels"]
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    few = F.cross_entropy(golden["train.logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    assert few.item() == pytest.approx(golden["train.loss"].item(), abs=1e-4)  # the labels are the official ones


# LVLM-DFD


@pytest.fixture(scope="module")
def lvlm_dfd(tmp_path_factory):
    # What the published training forward does, where it differs from this package's defaults.
    legacy = {"prob_token_mode": "two_rows", "legacy_truncate_middle": True, "mask_threshold": None}
    return convert_golden(LVLM_DFD, tmp_path_factory.mktemp("lvlm_dfd"), config=legacy), golden_parts(LVLM_DFD)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["tag"])
def test_lvlm_dfd_label_masks_loss_and_gradients(case, lvlm_dfd, tmp_path):
    """Stage 2's own parts; the batch norms between them rest, as they did when the gradients were recorded."""
    folder, (golden, outputs, pictures) = lvlm_dfd
    parts = ["base_prompts", "fc", "finalconv"]
    rows = lvlm_dfd_rows(case, golden, outputs, pictures)
    train = ["image_projection", *(f"prompt_learner.{part}" for part in parts)]
    trainer = build(folder, rows, tmp_path, train, max_length=golden["dims"]["max_tgt_len"])
    trainer.processing_class.score_source = "by_batch"
    with torch.no_grad():
        _, (_, mask, targets) = assembled(trainer.model.eval(), trainer.data_collator(rows))
    assert torch.equal(targets, outputs[f"{case['tag']}/targets"].long())
    assert torch.equal(mask, outputs[f"{case['tag']}/attention_mask"].long())
    loss = one_step(trainer, rows)
    assert loss.item() == pytest.approx(case["lm_loss"], abs=1e-4)
    if case is not CASES[0]:  # the one whose gradients were recorded
        return
    compared = 0
    for name, expected in outputs.items():
        if name.startswith(("grad/prompt_learner.", "grad/llama_proj.")):
            found = gradient_of(trainer.model, name.removeprefix("grad/"))
            torch.testing.assert_close(found, expected, atol=1e-2 * expected.abs().max().item(), rtol=0)
            compared += 1
    assert compared


def lvlm_dfd_rows(case, golden, outputs, pictures):
    labels = labels_by_picture(golden["meta"]["training"], outputs)
    conversations = []
    for index in case["images"]:
        pairs = [(golden["question"], YES if labels[index] else NO)]
        pairs += [SECOND_TURN[index]] if index in SECOND_TURN else []
        conversations.append(
            [{"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair, strict=True)]
        )
    return rows_of(conversations, [pictures[i] for i in case["images"]], [labels[i] for i in case["images"]])
