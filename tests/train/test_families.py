"""Hooks that the table of families names: every row with one is served, a row without gets an error that says so."""

import dataclasses

import pytest
import torch

from deepfake_detectors.families import FAMILIES
from deepfake_detectors.train.arguments import ClassifierTrainingArguments, ModelArguments, SftTrainingArguments
from deepfake_detectors.train.families import ClassifierTraining, SftFamily, build_model, require_hooks
from deepfake_detectors.train.mini import MINI, tiny_model
from deepfake_detectors.train.trainers import ClassifierTrainer
from support.tiny_models import tiny_fakevlm, tiny_instructblip


@pytest.mark.parametrize("name", FAMILIES)
def test_named_hooks_are_what_training_expects(name):
    row = FAMILIES[name]
    if row.training is not None:
        training = row.load("training")
        assert issubclass(training, ClassifierTraining)
        assert issubclass(training.trainer_class, ClassifierTrainer)
    if row.sft is not None:
        assert isinstance(row.load("sft"), SftFamily)
        assert row.generation is not None


@pytest.mark.parametrize("generates", [False, True])
@pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.mini])
def test_tiny_models_follow_seed_and_config(name, generates):
    model, processor = tiny_model(name, generates=generates, operating_points={"eer": 0.25})
    assert type(model) in FAMILIES[name].model_classes
    assert not model.training
    assert model.config.operating_points == {"eer": 0.25}
    assert isinstance(processor.image_processor, FAMILIES[name].load("image_processor"))
    again, other = (tiny_model(name, generates=generates, seed=seed)[0].state_dict() for seed in (0, 1))
    assert all(torch.equal(weight, again[key]) for key, weight in model.state_dict().items())
    assert any(not torch.equal(weight, other[key]) for key, weight in again.items())


def test_size_is_that_of_the_pictures():
    sides = [tiny_model("fakevlm", **options)[0].config.vision_config.image_size for options in ({}, {"size": MINI})]
    assert sides == [56, 224]


@pytest.mark.parametrize(("name", "role"), [("fakevlm", "training"), ("antifakeprompt", "sft")])
def test_a_row_without_hooks_names_those_that_have_them(name, role):
    with pytest.raises(ValueError, match=rf"`{role}`.*m2f2_det") as caught:
        require_hooks(FAMILIES[name], role, name)
    assert ("train_sft" if role == "training" else "train_classifier") in str(caught.value)


def test_fakevlm_is_not_trained_as_a_classifier(tmp_path):
    with pytest.raises(ValueError, match=r"'fakevlm'.*train_sft"):
        build_model(ModelArguments(model_name_or_path=str(tiny_fakevlm(tmp_path))))


def test_a_stock_base_finds_its_family(tmp_path):
    model, _, training = build_model(ModelArguments(model_name_or_path=str(tiny_instructblip(tmp_path))))
    assert training.family.name == model.config.model_type == "antifakeprompt"
    with pytest.raises(ValueError, match=r"antifakeprompt.*model_name_or_path"):
        build_model(ModelArguments(model_type="antifakeprompt"))


class OtherTrainer(ClassifierTrainer):
    """Of a package of somebody else."""


class OtherTraining(ClassifierTraining):
    """Hooks of a package of somebody else."""

    trainer_class = OtherTrainer
    base_model_types = ("somebodys_base",)


def test_a_plug_in_family_brings_its_own_hooks(monkeypatch):
    row = dataclasses.replace(FAMILIES["m2f2_det"], training=f"{__name__}:OtherTraining", sft=None)
    monkeypatch.setattr("deepfake_detectors.train.families.FAMILIES", {**FAMILIES, "m2f2_det": row})
    _, _, training = build_model(ModelArguments(model_type="m2f2_det", model_config={"variant": "cosine"} | SMALL))
    assert isinstance(training, OtherTraining)
    assert training.trainer_class is OtherTrainer
    with pytest.raises(ValueError, match="`sft`"):
        require_hooks(row, "sft", "m2f2_det")


SMALL = {
    name: value
    for name, value in tiny_model("m2f2_det")[0].config.to_dict().items()
    if name in ("vision_config", "prompt_text_config", "encoder_config", "hidden_size")
}


@pytest.mark.parametrize("kind", [ClassifierTrainingArguments, SftTrainingArguments])
@pytest.mark.filterwarnings("error::FutureWarning")
def test_recipes_may_use_the_name_that_every_version_knows(kind, tmp_path):
    arguments = kind(output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=True)
    assert arguments.gradient_checkpointing
