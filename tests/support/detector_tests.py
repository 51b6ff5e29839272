"""What every detector must pass, once per verdict class; subclasses give the model and its inputs."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from transformers import AutoConfig, AutoModel, PreTrainedModel

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.detection import UnconvertedCheckpointError
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from support.pictures import random_pictures

LOGIT_TOLERANCE = 1e-4  # design contract, fp32


def assert_same(loaded: PreTrainedModel, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Weights and buffers bit for bit; logits but for how kernels treat another memory alignment."""
    found, expected = loaded.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.allclose(loaded.detect(**inputs).logits, model.detect(**inputs).logits, atol=1e-6, rtol=0)


class DetectorTests:
    """Set `make_model`, `make_processor` and, where `detect` needs more than pictures, `extra_inputs`."""

    make_model: ClassVar[Callable[[], PreTrainedModel]]
    make_processor: ClassVar[Callable[[], Any]]
    extra_inputs: ClassVar[dict[str, Any]] = {}
    always_float32: ClassVar[str] = " "  # how the names of weights end that are float32 in every precision

    @pytest.fixture(scope="class")
    def model(self):
        return type(self).make_model()

    @pytest.fixture(scope="class")
    def processor(self):
        return type(self).make_processor()

    def inputs_for(self, processor, pictures):
        return processor(images=pictures, return_tensors="pt", **self.extra_inputs)

    @pytest.fixture(scope="class")
    def inputs(self, processor):
        return self.inputs_for(processor, random_pictures(4))

    @pytest.fixture(scope="class")
    def folder(self, model, processor, tmp_path_factory):
        folder = tmp_path_factory.mktemp("saved")
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    @pytest.mark.parametrize("place", ["cpu", "disk"])
    def test_offloaded_weights_give_the_same_verdicts(self, model, processor, inputs, place, tmp_path):
        expected = model.detect(**inputs).logits
        away = copy.deepcopy(model)
        if place == "cpu":
            cpu_offload(away, execution_device=torch.device("cpu"))
        else:
            disk_offload(away, str(tmp_path), execution_device=torch.device("cpu"))
        assert next(away.parameters()).device.type == "meta"
        assert torch.allclose(away.detect(**inputs).logits, expected, atol=1e-5, rtol=0)
        if not self.extra_inputs:
            judge = DeepfakeDetectionPipeline(model=away, processor=processor)
            found = judge(random_pictures(4), batch_size=2, head=inputs.get("head"))
            assert [row["fake_probability"] for row in found] == pytest.approx(
                expected.softmax(-1)[:, 1].tolist(), abs=1e-4
            )

    def test_the_default_dtype_of_torch_does_not_matter(self, model, processor, inputs):
        expected = model.detect(**inputs).logits
        torch.set_default_dtype(torch.bfloat16)
        try:
            again = self.inputs_for(processor, random_pictures(4))
            assert torch.allclose(model.detect(**again).logits, expected, atol=1e-4, rtol=0)
            if not self.extra_inputs:
                judge = DeepfakeDetectionPipeline(model=model, processor=processor)
                found = judge(random_pictures(4), batch_size=4, head=inputs.get("head"))
                assert [row["fake_probability"] for row in found] == pytest.approx(
                    expected.softmax(-1)[:, 1].tolist(), abs=1e-4
                )
        finally:
            torch.set_default_dtype(torch.float32)

    def test_detect_output(self, model, inputs):
        output = model.detect(**inputs)
        assert output.logits.shape == (4, 2)
        assert output.logits.dtype == torch.float32
        assert not output.logits.requires_grad
        assert torch.allclose(output.fake_probability, output.logits.softmax(-1)[:, 1])

    def test_verdicts_differ_between_pictures(self, model, inputs):
        logits = model.detect(**inputs).logits
        assert (logits - logits[0]).abs().max() > 10 * LOGIT_TOLERANCE, "a detector that ignores its picture"

    def test_batch_of_one_equals_batch_of_n(self, model, processor, inputs):
        together = model.detect(**inputs).logits
        alone = torch.cat([model.detect(**self.inputs_for(processor, [p])).logits for p in random_pictures(4)])
        assert torch.allclose(together, alone, atol=LOGIT_TOLERANCE, rtol=0)

    def test_save_equals_load(self, model, folder, inputs):
        for auto in (AutoModel, AutoModelForDeepfakeDetection):
            loaded = auto.from_pretrained(folder)
            assert type(loaded) is type(model)
            assert_same(loaded, model, inputs)

    def test_sharded_save_equals_load(self, model, tmp_path, inputs):
        model.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert_same(AutoModel.from_pretrained(tmp_path), model, inputs)

    def test_from_config_picks_the_class(self, model):
        config = copy.deepcopy(model.config)
        assert type(AutoModel.from_config(config)) is type(model)

    def test_eager_equals_sdpa(self, folder, inputs):
        eager, sdpa = (
            AutoModel.from_pretrained(folder, attn_implementation=name).detect(**inputs).logits
            for name in ("eager", "sdpa")
        )
        assert torch.allclose(eager, sdpa, atol=LOGIT_TOLERANCE, rtol=0)

    def test_bfloat16_runs_and_stays_close(self, model, folder, inputs):
        half = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
        for name, weight in half.named_parameters():
            expected = torch.float32 if name.endswith(self.always_float32) else torch.bfloat16
            assert weight.dtype == expected, name
        logits = half.detect(**inputs).logits
        assert logits.dtype == torch.float32
        assert torch.allclose(logits, model.detect(**inputs).logits, atol=0.1)

    def test_saved_bfloat16_loads_as_bfloat16(self, model, tmp_path):
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(tmp_path)
        assert AutoModel.from_pretrained(tmp_path).dtype == torch.bfloat16

    def test_gradients_reach_the_head(self, model, inputs):
        model = copy.deepcopy(model)
        model.zero_grad()
        model(**inputs, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        assert any(w.grad is not None and w.grad.abs().max() > 0 for w in model.parameters())

    def test_calibration_moves_the_difference_only(self, model, inputs):
        plain = model.detect(**inputs).logits
        shifted = copy.deepcopy(model)
        shifted.config.calibration = {"scale": 2.0, "bias": -0.5}
        logits = shifted.detect(**inputs).logits
        assert torch.allclose(logits[:, 1] - logits[:, 0], 2.0 * (plain[:, 1] - plain[:, 0]) - 0.5, atol=1e-5)
        assert torch.allclose(logits.mean(-1), plain.mean(-1), atol=1e-5)

    def test_calibration_and_operating_points_are_saved(self, model, tmp_path):
        model = copy.deepcopy(model)
        model.config.calibration = {"scale": 1.5, "bias": 0.25}
        model.config.operating_points = {"fpr@1%": 0.9}
        model.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path)
        assert loaded.calibration == {"scale": 1.5, "bias": 0.25}
        assert loaded.operating_points == {"fpr@1%": 0.9}
        assert loaded.id2label == {0: "real", 1: "fake"}

    def test_missing_weights_are_refused(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        from safetensors.torch import load_file, save_file

        tensors = load_file(tmp_path / "model.safetensors")
        gone = sorted(tensors)[0]
        del tensors[gone]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"1 missing_keys") as caught:
            AutoModel.from_pretrained(tmp_path)
        assert gone in str(caught.value)

    def test_unexpected_weights_are_refused(self, model, tmp_path):
        from safetensors.torch import load_file, save_file

        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors") | {"stranger.weight": torch.zeros(1)}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"stranger\.weight"):
            AutoModel.from_pretrained(tmp_path)

    def test_another_family_is_refused(self, model, tmp_path):
        from transformers import CLIPVisionConfig

        CLIPVisionConfig().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"clip_vision_model"):
            type(model).from_pretrained(tmp_path)

    def test_official_file_has_to_be_converted(self, model, tmp_path):
        torch.save({}, tmp_path / "official.pth")
        for source in (tmp_path, tmp_path / "official.pth"):
            with pytest.raises(UnconvertedCheckpointError) as caught:
                type(model).from_pretrained(source)
            assert (caught.value.family, caught.value.source) == (model.config.model_type, str(source))
