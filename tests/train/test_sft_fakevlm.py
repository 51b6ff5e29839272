"""TRL's SFTTrainer on FakeVLM, as any user would call it."""

import pytest
import torch
from transformers import AutoModel

from support.pictures import random_pictures
from support.tiny_models import fakevlm, fakevlm_processor

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")


def test_sft_trains_every_part_and_saves_a_folder_that_loads(tmp_path):
    model, processor = fakevlm(), fakevlm_processor()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = [
        {
            "images": [picture],
            "messages": [
                {"role": "user", "content": "Does the image looks real/fake?"},
                {"role": "assistant", "content": f"This is a {word} image."},
            ],
        }
        for picture, word in zip(random_pictures(4), ("real", "fake", "real", "fake"), strict=True)
    ]
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path),
        max_steps=8,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        assistant_only_loss=True,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
    )
    trainer = trl.SFTTrainer(
        model, args=arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=processor
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    after = model.state_dict()
    for part in ("model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head"):
        assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith(part)), part
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    pixels = processor(images=random_pictures(2))["pixel_values"]
    assert torch.allclose(loaded.detect(pixels).logits, model.eval().detect(pixels).logits, atol=1e-5)
