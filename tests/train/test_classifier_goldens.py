"""Golden losses, gradients and optimizer steps through the training loop of every classifier stage."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.registration import AutoModelForDeepfakeDetection
from deepfake_detectors.train.optimization import freeze_modules
from deepfake_detectors.train.soft_words import AnswerCollator, SoftWordTrainer
from deepfake_detectors.train.trainers import ClassifierTrainer, LoraTrainer
from support import antifakeprompt_folders, lvlm_dfd_folders, m2f2_det_folders
from support.classifier_runs import Rows, logged, train_on
from support.comparison import assert_within, to_pictures
from support.golden_files import golden_folder
from support.lvlm_dfd_golden_runs import golden_parts, gradient_of, training_batch
from support.sft_runs import recipe

OPTIMIZER_KEYS = (
    "optimizer",
    "optim",
    "learning_rate",
    "learning_rates",
    "weight_decay",
    "decay_everything",
    "adam_beta1",
    "adam_beta2",
)
# In place of the recipes' 1e-6 and 1e-3, of which one step shows nothing.
VISIBLE_DECAY = 0.5


def optimizer_of(name):
    return {key: value for key, value in recipe(name).items() if key in OPTIMIZER_KEYS}


def first_adam_step(weight, gradient, rate, decay, coupled, epsilon=1e-8):
    """Where the first step must end: Adam's bias correction leaves gradient / |gradient|."""
    weight, gradient = weight.double(), gradient.double()
    if coupled:
        gradient = gradient + decay * weight
    else:
        weight = weight * (1 - rate * decay)
    return weight - rate * gradient / (gradient.abs() + epsilon)


def assert_first_step(trainer, keeper, rate_of, decay_of, coupled):
    """Every weight with a gradient is where Adam puts it; every other one has not moved."""
    moved = 0
    for name, weight in trainer.model.named_parameters():
        before = keeper.weights[0][name]
        if name not in keeper.gradients[0]:
            assert torch.equal(weight, before), name
            continue
        rate = rate_of(name)
        expected = first_adam_step(before, keeper.gradients[0][name], rate, decay_of(name), coupled)
        # Where a gradient is not far above epsilon, float32 leaves a share of the step open.
        assert_within(weight, expected, 0.01 * rate)
        moved += 1
    assert moved


def items_of(pixels, labels):
    return [{"pixel_values": row, "labels": label} for row, label in zip(pixels, labels, strict=True)]


class TestM2F2DetBridge:
    folder = golden_folder("m2f2_det") / "stage1_detector"
    # official groups -> ours; the others get no gradient, or rounding noise that the fast path leaves out
    groups = {
        "clip_vision_alpha": "detector.vision_alpha",
        "clip_text_alpha": "detector.text_alpha",
        "deepfake_encoder": "detector.encoder.",
        "deepfake_proj": "detector.encoder_proj.",
        "vision_proj": "detector.vision_proj.",
        "bridge_adapter_proj.bridge_adapter_proj": "detector.bridge.score",
        "bridge_adapter_proj.bridge_adapter_reduction": "detector.bridge.reduction",
        "output": "detector.classifier.",
    }

    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("bridge")
        converted = m2f2_det_folders.convert_stage1(self.folder.parent, folder / "converted")
        goldens = load_file(self.folder / "io.safetensors")
        model, processor = AutoModel.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
        pixels = processor(images=to_pictures(goldens["images_u8"]), return_tensors="pt")["pixel_values"]
        labels = torch.tensor([0] + [1] * (len(pixels) - 1))
        model.freeze_unused()
        freeze_modules(model, recipe("m2f2_det_stage1_bridge")["freeze"])
        settings = {**optimizer_of("m2f2_det_stage1_bridge"), "weight_decay": VISIBLE_DECAY}
        return goldens, *train_on(
            ClassifierTrainer, model, processor, items_of(pixels, labels), folder / "out", **settings
        )

    def test_loss(self, run):
        goldens, trainer, _ = run
        assert recipe("m2f2_det_stage1_bridge")["weight_decay"] == 1e-6
        assert logged(trainer) == pytest.approx(goldens["ce_loss_labels_011"].tolist(), abs=1e-5)

    def test_gradients(self, run):
        census = json.loads((self.folder / "gradient_census.json").read_text())
        found = run[2].gradients[0]
        for official, own in self.groups.items():
            peak = max(gradient.abs().max().item() for name, gradient in found.items() if name.startswith(own))
            assert peak == pytest.approx(census[official][2], rel=1e-4, abs=1e-6), official
        assert all(name.startswith(tuple(self.groups.values())) for name in found)

    def test_adam_with_coupled_decay(self, run):
        _, trainer, keeper = run
        assert type(trainer.optimizer.optimizer) is torch.optim.Adam
        assert_first_step(
            trainer,
            keeper,
            lambda name: 3e-3 if name == "detector.text_alpha" else 1e-3,
            lambda name: VISIBLE_DECAY,
            True,
        )


class TestM2F2DetCosine:
    folder = golden_folder("m2f2_det") / "llava_detector"

    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("cosine")
        converted = m2f2_det_folders.convert_cosine(self.folder.parent, folder / "converted")
        golden = m2f2_det_folders.read_config(self.folder)
        model, processor = AutoModel.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
        pictures = [Image.open(self.folder / f"image_{index}.png") for index in range(golden["batch_size"])]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        labels = torch.tensor([0] + [1] * (len(pixels) - 1))
        model.freeze_unused()
        freeze_modules(model, recipe("m2f2_det_stage1_cosine")["freeze"])
        settings = {**optimizer_of("m2f2_det_stage1_cosine"), "weight_decay": VISIBLE_DECAY}
        return load_file(self.folder / "io.safetensors"), *train_on(
            ClassifierTrainer, model, processor, items_of(pixels, labels), folder / "out", **settings
        )

    def test_loss_and_gradients(self, run):
        goldens, trainer, keeper = run
        assert logged(trainer) == pytest.approx(goldens["ce_loss_labels_011"].tolist(), abs=1e-5)
        found = keeper.gradients[0]
        assert_within(found["detector.classifier.weight"], goldens["grad_output_weight"], 1e-5)
        assert_within(found["detector.prompt_encoder.prompt_tokens"], goldens["grad_prompt_tokens"], 1e-5)
        alphas = torch.stack([found["detector.vision_alpha"], found["detector.text_alpha"]])
        assert_within(alphas, goldens["grad_alphas_vision_text"], 1e-5)

    def test_adam_moves_the_prompt_at_the_base_rate(self, run):
        _, trainer, keeper = run
        assert "detector.prompt_encoder.prompt_tokens" in keeper.gradients[0]
        assert_first_step(
            trainer,
            keeper,
            lambda name: 3e-3 if name == "detector.text_alpha" else 1e-3,
            lambda name: VISIBLE_DECAY,
            True,
        )


class TestLvlmDfd:
    folder = golden_folder("lvlm_dfd")
    # What the published forward does, where it differs from this package's defaults.
    official = {"prob_token_mode": "two_rows", "legacy_truncate_middle": True, "mask_threshold": None}

    @pytest.fixture(scope="class")
    def workspace(self, tmp_path_factory):
        workspace = tmp_path_factory.mktemp("lvlm")
        golden, outputs, pictures = golden_parts(self.folder)
        folder = lvlm_dfd_folders.convert_golden(self.folder, workspace, "kept", lora="adapter", config=self.official)
        processor = AutoProcessor.from_pretrained(folder)
        return workspace, golden, outputs, pictures, folder, processor

    def test_losses_and_step_of_the_detector_alone(self, workspace, tmp_path):
        folder, golden, outputs, pictures, _, processor = workspace
        folded = lvlm_dfd_folders.convert_golden(self.folder, folder, "folded", config=self.official)
        model = AutoModelForDeepfakeDetection.from_pretrained(folded)
        names = {"pixel_values": "pixel_values", "labels": "class_labels", "mask_labels": "mask_labels"}
        batches = []
        for case in golden["meta"]["training"]:
            batch = training_batch(case, golden, outputs, processor, pictures)
            rows = range(len(batch["class_labels"]))
            batches.append([{ours: batch[theirs][row] for ours, theirs in names.items()} for row in rows])
        expected = [sum(case[name] for name in ("focal", "dice", "bce")) for case in golden["meta"]["training"]]
        untrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        settings = {**optimizer_of("lvlm_dfd_stage1"), "weight_decay": VISIBLE_DECAY}
        trainer, keeper = train_on(ClassifierTrainer, model, processor, batches[0], tmp_path, **settings)
        assert logged(trainer) == pytest.approx(expected[:1], abs=3e-4)
        decayed = set(trainer.get_decay_parameter_names(model))
        assert_first_step(
            trainer,
            keeper,
            lambda name: 1e-4 if name.startswith("detector.imagebind.") else 1e-3,
            lambda name: VISIBLE_DECAY if name in decayed else 0.0,
            False,
        )
        model.load_state_dict(untrained)
        found = [trainer.evaluate(Rows(items))["eval_loss"] for items in batches]
        assert found == pytest.approx(expected, abs=3e-4)

    def test_gradients_of_all_four_losses_through_lora(self, workspace, tmp_path):
        from peft import PeftModel

        _, golden, outputs, pictures, folder, processor = workspace
        case = golden["meta"]["training"][0]
        batch = dict(training_batch(case, golden, outputs, processor, pictures))
        model = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), folder / "adapter", is_trainable=True)
        model.requires_grad_(True)
        items = [{"number": torch.tensor(row)} for row in range(len(batch["class_labels"]))]
        trainer, keeper = train_on(
            LoraTrainer, model, processor, items, tmp_path, collator=lambda rows: batch, learning_rate=0.0
        )
        expected = sum(case[name] for name in ("lm_loss", "focal", "dice", "bce"))
        assert logged(trainer) == pytest.approx([expected], abs=3e-4)
        for name, gradient in keeper.gradients[0].items():
            dict(model.named_parameters())[name].grad = gradient
        wanted = [name for name in outputs if name.startswith("grad_full/")]
        assert wanted
        for name in wanted:
            found, golden_gradient = gradient_of(model, name.removeprefix("grad_full/")), outputs[name]
            assert_within(found, golden_gradient, 1e-2 * golden_gradient.abs().max().item())


class TestAntifakePrompt:
    folder = golden_folder("antifakeprompt")

    @pytest.fixture(scope="class")
    def parts(self, tmp_path_factory):
        converted = antifakeprompt_folders.convert_golden(self.folder, tmp_path_factory.mktemp("afp") / "converted")
        golden = antifakeprompt_folders.read_config(self.folder)
        goldens = load_file(self.folder / "model_goldens.safetensors")
        return converted, golden, goldens

    def test_loss_gradients_and_five_steps(self, parts, tmp_path):
        converted, golden, goldens = parts
        model, processor = AutoModel.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
        model.freeze_all_but_soft_words()
        model.config.base_model_name_or_path = str(converted)
        pictures = [Image.fromarray(goldens[f"raw.{index}"].numpy()) for index in range(golden["batch"])]
        pixels = processor(images=pictures)["pixel_values"]
        labels = torch.tensor([processor.candidates.index(answer) for answer in golden["train_text_output"]])
        settings = {**optimizer_of("antifakeprompt"), "learning_rate": 1e-2}  # the goldens' rate
        trainer, keeper = train_on(
            SoftWordTrainer,
            model,
            processor,
            items_of(pixels, labels),
            tmp_path,
            collator=AnswerCollator(processor),
            max_steps=len(goldens["adamw.losses"]),
            **settings,
        )
        first = keeper.gradients[0]
        assert len(first) == 2
        for name, gradient in first.items():
            side = "qformer" if name.startswith("qformer.") else "llm"
            assert_within(gradient, goldens[f"train.grad_{side}_word"], 1e-4)
        assert logged(trainer) == pytest.approx(goldens["adamw.losses"].tolist(), abs=1e-4)
        words = model.soft_words()
        assert_within(words["qformer_soft_word"], goldens["adamw.qformer_word"], 1e-4)
        assert_within(words["llm_soft_word"], goldens["adamw.llm_word"], 1e-4)
