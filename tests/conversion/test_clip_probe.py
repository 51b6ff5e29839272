"""CLIP towers from folders, from an int8 ONNX export and from their bare weights; published linear heads."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.conversion import convert
from deepfake_detectors.conversion.clip_probe import TOWER_TABLE
from deepfake_detectors.conversion.key_table import rename_keys
from support.pictures import random_pictures

VISION = {
    "hidden_size": 128,  # two attention heads of 64, as the shapes say
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 24,
}
HEADS = {"picture": {"layers": [2]}, "face": {"features": ["patch_mean"], "layers": [3], "subject": "faces"}}


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return torch.round(weight / scale).to(torch.int8), scale


def write_onnx(path, tower, zero_point: int = 0, rename=lambda name: name):
    """What matters of `quantize_dynamic`'s output: named products of int8 matrices, everything else in floats."""
    onnx = pytest.importorskip("onnx", reason="reading ONNX files needs the extra [probe]")
    tensors, nodes, number = [], [], 0
    linear = {name for name, module in tower.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, value in tower.state_dict().items():
        module = name.removesuffix(".weight")
        if name == module or module not in linear:
            tensors.append(onnx.numpy_helper.from_array(value.numpy(), name))
            continue
        number += 1
        values, scale = quantised(value)
        base = f"onnx::MatMul_{number}"
        matrix = np.ascontiguousarray(values.numpy().T)
        parts = {
            "quantized": (matrix.astype(np.int16) + zero_point).astype(np.int8),
            "scale": scale[:, 0].numpy(),
            "zero_point": np.full(matrix.shape[1], zero_point, dtype=np.int8),
        }
        tensors += [onnx.numpy_helper.from_array(array, f"{base}_{kind}") for kind, array in parts.items()]
        # "vision_model.encoder.layers.0.mlp.fc1" is exported as "/vision_model/encoder/layers.0/mlp/fc1"
        node = "/" + re.sub(r"\.(?!\d)", "/", module)
        inputs = ["x_quantized", f"{base}_quantized", "x_zero_point", f"{base}_zero_point"]
        nodes.append(
            onnx.helper.make_node("MatMulInteger", inputs, [f"y{number}"], name=rename(f"{node}/MatMul_quant"))
        )
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "tower", [], [], tensors)), path)
    return path


def states(tower, pixels):
    return tower(pixels, output_hidden_states=True).hidden_states


def test_folder_of_a_whole_clip(tmp_path, pixels):
    text = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 8, "projection_dim": 24}
    torch.manual_seed(0)
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)).eval()
    whole.save_pretrained(tmp_path / "clip", max_shard_size="60KB")
    assert len(list((tmp_path / "clip").glob("*.safetensors"))) > 1
    folder = convert("clip_probe", [tmp_path / "clip"], tmp_path / "out", config={"heads": HEADS})
    model = AutoModelForDeepfakeDetection.from_pretrained(folder)
    assert model.config.vision_config.num_hidden_layers == 3, "layers behind the deepest one that is read are dropped"
    expected = whole.vision_model(pixels, output_hidden_states=True).hidden_states
    assert torch.allclose(model.features(pixels, "face"), expected[3][:, 1:].mean(1), atol=1e-5)
    wanted = torch.cat([expected[2][:, 0], expected[2][:, 1:].mean(1)], dim=-1)
    assert torch.allclose(model.features(pixels, "picture"), wanted, atol=1e-5)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor(images=random_pictures(2), return_tensors="pt")["pixel_values"].shape == (2, 3, 28, 28)


def test_int8_export_is_dequantised_exactly_and_stays_int8(tmp_path, tower, pixels):
    file = write_onnx(tmp_path / "encoder.onnx", tower)
    folder = convert("clip_probe", [file], tmp_path / "out", layers=2)
    model = AutoModel.from_pretrained(folder)
    assert model.config.encoder_storage == "int8"
    vision = model.config.vision_config
    assert (vision.num_hidden_layers, vision.image_size, vision.patch_size, vision.num_attention_heads) == (
        2,
        28,
        14,
        2,
    )
    source = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
    for name, found in model.vision_tower.state_dict().items():
        expected = source[name]
        if name.endswith(("proj.weight", "fc1.weight", "fc2.weight")):
            values, scale = quantised(expected)
            expected = values.float() * scale
        assert torch.equal(found, expected), name
    assert (
        load_file(folder / "encoder.safetensors")["vision_tower.encoder.layers.0.mlp.fc1.weight"].dtype == torch.int8
    )
    assert torch.isfinite(model.detect(pixels).logits).all()


def test_zero_points_are_subtracted(tmp_path, tower):
    sources = [write_onnx(tmp_path / f"zero{point}.onnx", tower, point) for point in (0, -1)]
    plain, moved = (
        AutoModel.from_pretrained(convert("clip_probe", [source], tmp_path / source.stem, layers=2)).state_dict()
        for source in sources
    )
    assert all(torch.equal(moved[name], value) for name, value in plain.items())


def test_foreign_onnx_files_are_refused(tmp_path, tower):
    strange = write_onnx(tmp_path / "strange.onnx", tower, rename=lambda name: name.replace("MatMul_quant", "Gemm"))
    with pytest.raises(ValueError, match="Gemm"):
        convert("clip_probe", [strange], tmp_path / "out")
    (tmp_path / "broken.onnx").write_bytes(b"\x0bnot an onnx file")
    with pytest.raises(ValueError, match=r"broken\.onnx"):
        convert("clip_probe", [tmp_path / "broken.onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def published_head(tmp_path):
    """As UniversalFakeDetect saves its linear layer."""
    torch.manual_seed(1)
    head = {"weight": torch.randn(1, 24), "bias": torch.randn(1)}
    torch.save({"fc.weight": head["weight"], "fc.bias": head["bias"]}, tmp_path / "fc_weights.pth")
    return tmp_path / "fc_weights.pth", head


def test_published_linear_head(tmp_path, tower, pixels, published_head):
    file, head = published_head
    tower.save_pretrained(tmp_path / "tower")
    folder = convert("clip_probe", [file, tmp_path / "tower"], tmp_path / "out")
    model = AutoModelForDeepfakeDetection.from_pretrained(folder)
    expected = torch.sigmoid(tower(pixels).image_embeds @ head["weight"][0] + head["bias"])
    assert torch.allclose(model.detect(pixels).fake_probability, expected, atol=1e-5)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.image_processor.heads["picture"]["do_resize"] is False


def test_bare_weights_say_their_sizes(tmp_path, tower, pixels):
    save_file(tower.state_dict(), tmp_path / "vision.safetensors")
    folder = convert("clip_probe", [tmp_path / "vision.safetensors"], tmp_path / "out", config={"heads": HEADS})
    model = AutoModel.from_pretrained(folder)
    assert torch.allclose(model.features(pixels, "face"), states(tower, pixels)[3][:, 1:].mean(1), atol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path, tower, published_head):
    file, _ = published_head
    folder = tmp_path / "tower"
    tower.save_pretrained(folder)
    with pytest.raises(ValueError, match="No CLIP tower"):
        convert("clip_probe", [file], tmp_path / "out")
    with pytest.raises(ValueError, match="second CLIP tower"):
        convert("clip_probe", [folder, folder], tmp_path / "out")
    with pytest.raises(ValueError, match="second head"):
        convert("clip_probe", [folder, file, file], tmp_path / "out")
    with pytest.raises(ValueError, match="layers is 9"):
        convert("clip_probe", [folder], tmp_path / "out", layers=9)
    with pytest.raises(ValueError, match="all 4 layers"):
        convert("clip_probe", [folder, file], tmp_path / "out", layers=2)
    torch.save({"fc.weight": torch.zeros(1, 7), "fc.bias": torch.zeros(1)}, tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"\(1, 7\) instead of \(1, 24\)"):
        convert("clip_probe", [folder, tmp_path / "narrow.pth"], tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="'llama'"):
        convert("clip_probe", [tmp_path / "other"], tmp_path / "out")
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "layers.1.mlp.fc1.weight" in name)
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.fc1\.weight"):
        convert("clip_probe", [folder], tmp_path / "out")


def test_every_row_of_the_key_table_is_used():
    keys = [
        "vision_model.embeddings.position_ids",
        "embeddings.class_embedding",
        "vision_model.encoder.layers.0.mlp.fc1.weight",
        "visual_projection.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_projection.weight",
        "logit_scale",
    ]
    assert list(rename_keys(keys, TOWER_TABLE, "keys").values()) == [
        "vision_tower.embeddings.class_embedding",
        "vision_tower.encoder.layers.0.mlp.fc1.weight",
        "visual_projection.weight",
    ]
    with pytest.raises(ValueError, match=r"decoder\.weight"):
        rename_keys(["decoder.weight"], TOWER_TABLE, "keys")
