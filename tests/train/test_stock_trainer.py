"""The stock `Trainer`, without `label_names`, trains and evaluates every verdict class."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from deepfake_detectors.evaluation.metrics import detection_metrics
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.train.sft_data import ConversationCollator
from deepfake_detectors.train.soft_words import AnswerCollator
from support.pictures import random_pictures
from support.tiny_clip_probe import clip_probe, clip_probe_processor
from support.tiny_models import (
    antifakeprompt,
    antifakeprompt_processor,
    fakevlm,
    fakevlm_processor,
    lvlm_dfd,
    lvlm_verdict_processor,
    m2f2_det,
    verdict_processor,
)

CLASSES = {
    "m2f2_det bridge": (lambda: m2f2_det("bridge"), verdict_processor),
    "m2f2_det cosine": (m2f2_det, verdict_processor),
    "lvlm_dfd": (lvlm_dfd, lvlm_verdict_processor),
    "clip_probe": (clip_probe, clip_probe_processor),
}
LABELS = [0, 1, 0, 1, 0]


def rows(processor, **columns):
    pixels = processor(images=random_pictures(len(LABELS)), return_tensors="pt")["pixel_values"]
    return [
        {"pixel_values": pixels[row], "labels": label, **{name: values[row] for name, values in columns.items()}}
        for row, label in enumerate(LABELS)
    ]


def metrics(prediction):
    logits = prediction.predictions
    return {"auc": detection_metrics(prediction.label_ids, logits[:, 1] - logits[:, 0], threshold=0.0).auc}


def settings(folder, **changes):
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        max_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        **changes,
    )


@pytest.mark.parametrize("name", CLASSES)
def test_evaluates_and_keeps_the_best(name, tmp_path):
    make_model, make_processor = CLASSES[name]
    items = rows(make_processor())
    arguments = settings(
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        learning_rate=1e-3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_auc",
    )
    trainer = Trainer(
        model=make_model(), args=arguments, train_dataset=items, eval_dataset=items, compute_metrics=metrics
    )
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(history) == 2
    assert trainer.state.best_metric == max(entry["eval_auc"] for entry in history)

    found = trainer.evaluate()
    pixels = torch.stack([item["pixel_values"] for item in items]).to(trainer.model.device)
    with torch.no_grad():
        logits = trainer.model.eval()(pixels).logits.float()
    # The mean over pictures, whatever the size of the last batch.
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    if name.startswith("m2f2_det"):  # LVLM-DFD's own loss weighs pictures
        assert found["eval_loss"] == pytest.approx(float(expected), abs=1e-5)
    assert found["eval_auc"] == detection_metrics(LABELS, (logits[:, 1] - logits[:, 0]).numpy(), threshold=0.0).auc


WRITERS = {
    "fakevlm": (
        fakevlm,
        fakevlm_processor,
        lambda processor: ConversationCollator(FAMILIES["fakevlm"].load("sft"), processor, "verdict", None),
    ),
    "antifakeprompt": (antifakeprompt, antifakeprompt_processor, AnswerCollator),
}


@pytest.mark.parametrize("name", WRITERS)
def test_verdicts_in_words_are_evaluated_by_their_tokens(name, tmp_path):
    make_model, make_processor, make_collator = WRITERS[name]
    processor = make_processor()
    collate = make_collator(processor)
    if name == "fakevlm":
        items = [
            {"image": picture, "label": label}
            for picture, label in zip(random_pictures(len(LABELS)), LABELS, strict=True)
        ]
    else:
        items = [{**item, "labels": torch.tensor(item["labels"])} for item in rows(processor.image_processor)]

    def batch(rows):
        return {key: value for key, value in collate(rows).items() if key != "class_labels"}

    trainer = Trainer(
        model=make_model(),
        args=settings(tmp_path, save_strategy="no", remove_unused_columns=False),
        train_dataset=items,
        eval_dataset=items,
        data_collator=batch,
        compute_metrics=lambda prediction: {"labels": len(prediction.label_ids)},
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_labels"] == len(LABELS)
    with torch.no_grad():
        expected = trainer.model.eval()(**batch(items[:2])).loss
    assert 0.0 < found["eval_loss"] < 10 * float(expected)


def test_masks_are_learned_where_their_column_is_named(tmp_path):
    side = lvlm_dfd().config.image_size
    masks = torch.rand(len(LABELS), side, side).round()
    losses = {}
    for names in (["labels"], ["labels", "mask_labels"]):
        trainer = Trainer(
            model=lvlm_dfd(),
            args=settings(tmp_path, label_names=names),
            eval_dataset=rows(lvlm_verdict_processor(), mask_labels=masks),
        )
        losses[len(names)] = trainer.evaluate()["eval_loss"]
    assert losses[2] > losses[1] + 0.1


def test_any_other_keyword_is_refused():
    with pytest.raises(TypeError, match="mask_label"):
        m2f2_det()(torch.zeros(1, 3, 56, 56), mask_label=torch.zeros(1, 4, 4))
