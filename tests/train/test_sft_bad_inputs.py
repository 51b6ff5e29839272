"""What fine-tuning refuses, in which words, and that nothing is half-written then."""

import json

import pytest
import yaml

from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.train.train_sft import parse_sft_recipe, train_sft
from deepfake_detectors.train.trainers import DetectionCallback
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import BASES, ON_THIS_MACHINE, parsed, recipe
from support.tiny_models import tiny_antifakeprompt, tiny_m2f2_det


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: build(tmp_path_factory.mktemp(family)) for family, build in BASES.items()}


@pytest.fixture
def run(bases, data, tmp_path, monkeypatch):
    """Stage 2 of M2F2-Det with changes; leaves `out` behind if it wrote anything."""
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)

    def train(name="m2f2_det_stage2", **changes):
        fields = recipe(name, **ON_THIS_MACHINE)
        fields |= {"model_name_or_path": str(bases["m2f2_det"]), "data_dir": str(data), "validation_fraction": 0.3}
        fields |= {"output_dir": str(tmp_path / "out"), "max_steps": 1, **changes}
        return train_sft(*parsed(tmp_path, fields))

    return train


def written(folder):
    """Files below the output folder; an empty folder is none."""
    return [path for path in (folder / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 0.1}, "learning_rat"),
        ({"mirror": True}, "mirror"),
        ({"model_name_or_path": None}, "model_name_or_path"),
        (
            {"train_only": ["deepfake_projektor"]},
            "deepfake_projektor.*model.detector",
        ),
        ({"use_peft": True}, "train_only.*use_peft"),
        ({"train_vision": False}, "train_vision=False"),
        ({"conversation": "chat"}, "'chat'.*'dataset', 'verdict'"),
        ({"dataset_config": "c40_judge"}, "dataset_config.*dataset_configs"),
        ({"dataset_configs": ["c40"]}, "ddvqa.*c40"),
        ({"dataset": "imagenet"}, "'imagenet'.*ddvqa"),
        ({"validation_pictures": 1}, "validation_pictures is 1"),
        ({"cpu_threads": 0}, "cpu_threads is 0"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"packing": True}, "packing and padding_free"),
        ({"max_length": 12}, "max_length=12"),
        (
            {"push_to_hub": True, "hub_strategy": "every_save"},
            "'every_save'.*'end'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_recipes(run, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)
    assert written(tmp_path) == []


def test_a_finished_training_outlives_a_failing_evaluation(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(DetectionCallback, "measure", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    assert M2F2DetForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "validation.json").exists()


def test_bases_that_cannot_be_fine_tuned(run, tmp_path):
    verdicts = tiny_m2f2_det(tmp_path / "verdicts")
    with pytest.raises(ValueError, match="M2F2DetForDeepfakeDetection"):
        run(model_name_or_path=str(verdicts))
    soft_words = tiny_antifakeprompt(tmp_path / "soft_words")
    with pytest.raises(ValueError, match=r"'antifakeprompt'.*m2f2_det, fakevlm"):
        run(model_name_or_path=str(soft_words))


def test_missing_picture(run, tmp_path):
    tree = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)))
    gone = tree / "images_c40" / "train" / "5_000.jpg"
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=r"images_c40/train/5_000\.jpg"):
        run(data_dir=str(tree))
    assert written(tmp_path) == []


def test_empty_split(run, tmp_path):
    tree = write_tree(tmp_path / "ddvqa", stems(range(4)), stems(range(20, 22)))
    with pytest.raises(ValueError, match=r"'validation'.*train"):
        run(data_dir=str(tree), train_split="validation")
    for path in (tree / "images_c40" / "train").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="images_c40/train"):
        run(data_dir=str(tree))
    assert written(tmp_path) == []


def test_split_of_one_class(run, tmp_path):
    tree = write_tree(tmp_path / "ddvqa", [f"5_{video:03d}" for video in range(8)], stems(range(20, 22)))
    with pytest.raises(ValueError, match=r"training split .*\d+ real, 0 fake"):
        run(data_dir=str(tree))
    assert written(tmp_path) == []


def test_missing_recipe(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        parse_sft_recipe(["--config", str(tmp_path / "nowhere.yaml")])


class TestResuming:
    @pytest.fixture(scope="class")
    def checkpoint(self, bases, data, tmp_path_factory):
        """Of FakeVLM with LoRA, after one step."""
        folder = tmp_path_factory.mktemp("run")
        fields = recipe("fakevlm_lora", **ON_THIS_MACHINE)
        fields |= {"model_name_or_path": str(bases["fakevlm"]), "data_dir": str(data), "dataset": "ddvqa"}
        fields |= {"dataset_configs": ["c40_judge"], "validation_fraction": 0.3, "output_dir": str(folder / "out")}
        fields |= {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
        return train_sft(*parsed(folder, fields)) / "checkpoint-1"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("m2f2_det_stage3", r"a checkpoint of FakeVLMForDeepfakeDetection, but this run trains M2F2DetForCond"),
            ("m2f2_det_stage2", r"a checkpoint of an adapter, but this run trains"),
        ],
    )
    def test_another_family_or_kind(self, run, checkpoint, tmp_path, name, message):
        with pytest.raises(ValueError, match=message):
            run(name, dataset_configs=["c40_judge"], resume_from_checkpoint=str(checkpoint))
        assert written(tmp_path) == []

    def test_whole_model_of_another_family(self, run, bases, tmp_path):
        other = tmp_path / "checkpoint-1"
        other.mkdir()
        (other / "config.json").write_text((bases["fakevlm"] / "config.json").read_text())
        (other / "trainer_state.json").write_text(json.dumps({}))
        said = r"FakeVLMForDeepfakeDetection of family fakevlm, .* M2F2DetFor.* of family m2f2_det"
        with pytest.raises(ValueError, match=said):
            run(resume_from_checkpoint=str(other))

    def test_model_that_is_no_checkpoint(self, run, bases):
        with pytest.raises(ValueError, match="resume_from_checkpoint"):
            run(resume_from_checkpoint=str(bases["m2f2_det"]))

    def test_nothing_there(self, run, tmp_path):
        with pytest.raises(FileNotFoundError, match="checkpoint-"):
            run(resume_from_checkpoint="true")
        with pytest.raises(FileNotFoundError, match="resume_from_checkpoint"):
            run(resume_from_checkpoint=str(tmp_path / "nowhere"))


def test_recipe_that_is_no_mapping(tmp_path):
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(["learning_rate"]))
    with pytest.raises(ValueError, match=r"list\.yaml"):
        parse_sft_recipe(["--config", str(tmp_path / "list.yaml")])
