"""This package's answers to everything in the LVLM-DFD golden files, by golden name."""

import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from deepfake_detectors.conversion.key_table import rename_keys
from deepfake_detectors.conversion.lvlm_dfd import CHECKPOINT_TABLE
from support.lvlm_dfd_folders import read_config

# The goldens' README gives these words; they are in no file.
YES = "Yes, this is a deepfake image."
NO = "No, this is not a deepfake image, it is a pristine image."
SECOND_TURN = {1: ("Which region of the face is manipulated?", "No region.")}


def pictures_of(goldens: Path) -> list[Image.Image]:
    tensors = load_file(goldens / "preprocess.safetensors")
    count = sum(re.fullmatch(r"image_\d+", name) is not None for name in tensors)
    return [Image.fromarray(tensors[f"image_{index}"].numpy()) for index in range(count)]


def labels_by_picture(cases: list[dict[str, Any]], outputs: dict[str, torch.Tensor]) -> dict[int, int]:
    labels = {}
    for case in cases:
        onehot = outputs.get(f"{case['tag']}/labels_onehot")
        if onehot is not None:
            labels |= dict(zip(case["images"], onehot.argmax(dim=1).tolist(), strict=True))
    return labels


def training_batch(case, golden, outputs, processor, pictures):
    """Inputs of one golden training case, and whether it has soft masks."""
    labels = labels_by_picture(golden["meta"]["training"], outputs)
    processor.score_source = "by_batch"
    conversations = [
        [(golden["question"], YES if labels[index] else NO), *([SECOND_TURN[index]] if index in SECOND_TURN else [])]
        for index in case["images"]
    ]
    batch = processor.encode_conversations(
        conversations, [pictures[index] for index in case["images"]], max_length=golden["dims"]["max_tgt_len"]
    )
    mask = outputs[f"{case['tag'] if case['soft_mask'] else 'train_b2'}/mask_gt_fake"]
    mask = mask.float() / 255 if mask.dtype == torch.uint8 else mask
    classes = torch.tensor([labels[index] for index in case["images"]])
    masks = torch.stack([mask[0, 0] if label else torch.zeros_like(mask[0, 0]) for label in classes])
    return {**batch, "class_labels": classes, "mask_labels": masks}


def assembled(model, batch):
    names = ("input_ids", "attention_mask", "prompt_start_ids", "score_prompt_ids", "labels")
    pictures = model.encode_pictures(batch["pixel_values"])
    return pictures, model.assemble(pictures, *(batch[name] for name in names), padding_side="right")


class Collector:
    """Keeps what the decoder and the two networks of the prompt learner give while a batch runs."""

    def __init__(self, model: Any) -> None:
        self.seen: dict[str, Any] = {}
        learner = model.prompt_learner
        modules = {"patch_tokens": model.detector.image_decoder, "fpl_meta1": learner.meta_net1}
        modules |= {"fpl_meta2": learner.meta_net2, "fpl_fc": learner.fc}
        for name, module in modules.items():
            module.register_forward_hook(lambda _, __, output, name=name: self.seen.__setitem__(name, output))


@torch.no_grad()
def inference_answers(model, processor, pictures, golden) -> dict[str, torch.Tensor]:
    """All `infer*`, from one batch of all pictures where the goldens are from single calls."""
    kept = Collector(model).seen
    inputs = processor(images=pictures, text=[processor.dialogue_prompt(golden["question"])] * len(pictures))
    encoded = model.encode_pictures(inputs["pixel_values"])
    evidence, taps = encoded.evidence, model.config.tap_layers
    blocks = model.detector.imagebind.vision_model(inputs["pixel_values"], block_outputs=taps).block_outputs
    new_tokens = max(entry["max_new_tokens"] for entry in golden["meta"]["inference"])
    generated = model.generate(**inputs, max_new_tokens=new_tokens)
    embedding = model.detector.imagebind.get_image_features(inputs["pixel_values"])
    found: dict[str, torch.Tensor] = {}
    for i in range(len(pictures)):
        row = slice(i, i + 1)
        text = processor(images=pictures[i], text=processor.dialogue_prompt(golden["question"]))
        _, (embeds, _, _) = assembled(model, {**text, "labels": None})
        logits = model.language_model(inputs_embeds=embeds).logits
        answers = {
            "class_probs": evidence.probabilities[row],
            "forgery_prompts": encoded.prompt_tokens[row],
            "generated_ids": generated[row],
            "inputs_embeds": embeds,
            "locator_mask": evidence.mask[row].unsqueeze(1),
            "vision_embedding": embedding[row],
            "prefill_logits": logits if i == 0 else logits[:, -1:],
        }
        answers |= {name: kept[name] for name in ("fpl_meta1", "fpl_meta2", "fpl_fc")}  # of the single run above
        for level, tap in enumerate(taps):
            answers[f"anomaly_lowres_{level}"] = evidence.patch_maps[level][row]
            answers[f"anomaly_map_{level}"] = evidence.maps[level][row]
            answers[f"patch_tokens_{level}"] = kept["patch_tokens"][level]
            answers[f"tap_layer{tap}"] = blocks[level][row].transpose(0, 1)
        found |= {f"infer{i}/{name}": tensor.clone() for name, tensor in answers.items()}
    return found


@torch.no_grad()
def text_answers(model, length: int) -> dict[str, torch.Tensor]:
    texts, imagebind = model.detector.class_texts, model.detector.imagebind
    found = {"text/text_features": texts(imagebind).unsqueeze(0)}
    ids = torch.nn.functional.pad(texts.token_ids(model.device), (0, length - texts.token_ids(model.device).shape[1]))
    counts = [len(sentences) for sentences in model.config.class_token_ids]
    for name, rows in zip(model.config.class_names, ids.split(counts), strict=True):
        found[f"text/{name}_token_ids"] = rows
        found[f"text/{name}_sentence_embeddings"] = imagebind.get_text_features(rows)
    return found


def training_answers(case, batch, model, outputs) -> dict[str, torch.Tensor]:
    """All of one training case; the model then holds the gradients of the sum of its losses."""
    kept = Collector(model).seen
    model.zero_grad()
    with torch.no_grad():
        encoded, (embeds, mask, targets) = assembled(model, batch)
    output = model(**batch)
    output.loss.backward()
    taps = model.config.tap_layers
    with torch.no_grad():
        last = model.detector.imagebind.vision_model(batch["pixel_values"], block_outputs=taps).block_outputs[-1]
    evidence = encoded.evidence
    onehot = torch.nn.functional.one_hot(batch["class_labels"], num_classes=2).float()
    answers = {
        "attention_mask": mask,
        "targets": targets,
        "inputs_embeds": embeds * mask.unsqueeze(-1),
        "labels_onehot": onehot,
        "class_probs": output.class_logits.exp(),
        "forgery_prompts": encoded.prompt_tokens,
        "image_embeds_projected": encoded.image_tokens.squeeze(1),
        "logits": output.logits * mask.unsqueeze(-1),
        "patch_tokens_last": kept["patch_tokens"][-1],
        "tap_last": last.transpose(0, 1),
        **{f"anomaly_lowres_{level}": each for level, each in enumerate(evidence.patch_maps)},
        **{
            f"locator_mask_image{index}": output.mask[row : row + 1].unsqueeze(1)
            for row, index in enumerate(case["images"])
        },
        "lm_loss": output.lm_loss,
        "focal": output.focal_loss,
        "dice": output.dice_loss,
        "bce": output.class_loss,
    }
    return {f"{case['tag']}/{name}": tensor.detach().clone() for name, tensor in answers.items()}


def gradient_of(model, official: str) -> torch.Tensor:
    """Gradient of the parameter with this official name; `model` may be wrapped by PEFT."""
    (name,) = rename_keys([official], CHECKPOINT_TABLE, "gradients").values()
    parameters = dict(model.named_parameters())
    match = re.fullmatch(r"(.+)\.lora_([AB])", name)
    candidates = [name]
    if match:
        candidates = [f"base_model.model.{match[1]}.lora_{match[2]}.default.weight"]
    elif name not in parameters:
        candidates = [f"base_model.model.{name}"]
    return parameters[candidates[0]].grad


def golden_parts(goldens: Path):
    return read_config(goldens), load_file(goldens / "outputs.safetensors"), pictures_of(goldens)
