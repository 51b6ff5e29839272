"""`deepfake_detectors.pipeline`, and the stock call without a model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel

import deepfake_detectors
from deepfake_detectors.checkpoints import built_in_path
from deepfake_detectors.modeling.detection import UnconvertedCheckpointError
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_m2f2_det(tmp_path_factory.mktemp("detector"))


def test_folder_as_string_as_path_and_loaded(folder: Path) -> None:
    (picture,) = random_pictures(1)
    loaded = {"model": AutoModel.from_pretrained(folder), "processor": AutoProcessor.from_pretrained(folder)}
    rows = []
    for arguments in ({"model": folder}, {"model": str(folder)}, {"task": "deepfake-detection", **loaded}):
        detector = deepfake_detectors.pipeline(**arguments, threshold=0.25)
        assert type(detector) is DeepfakeDetectionPipeline
        rows.append(detector(picture))
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["threshold"] == 0.25


def test_download_options_are_no_pipeline_options(folder: Path) -> None:
    assert deepfake_detectors.pipeline(model=folder, local_files_only=True)


def test_another_task_hints_at_model(folder: Path) -> None:
    with pytest.raises(ValueError, match=str(folder)):
        deepfake_detectors.pipeline(str(folder))


@pytest.mark.parametrize("name", ["current_model_180.pth", "pytorch_model-00001-of-00002.bin"])
def test_official_files_say_what_converts_them(tmp_path: Path, name: str) -> None:
    official = tmp_path / name
    official.write_bytes(b"weights")
    for model in (tmp_path, official):
        with pytest.raises(UnconvertedCheckpointError, match=name) as caught:
            deepfake_detectors.pipeline(model=model)
        assert (caught.value.family, caught.value.source) == (None, str(official))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        deepfake_detectors.pipeline(model=tmp_path)


@pytest.mark.parametrize("name", ["absent", "a/b/absent"])
def test_a_missing_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        deepfake_detectors.pipeline(model=tmp_path / name)


def test_a_model_of_another_kind(tmp_path: Path, folder: Path) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Bert"):
        deepfake_detectors.pipeline(model=tmp_path, processor=AutoProcessor.from_pretrained(folder))


@pytest.mark.slow
def test_the_stock_call_without_a_model_works_offline_and_shows_the_terms_once(tmp_path: Path) -> None:
    random_pictures(1)[0].save(tmp_path / "face.png")
    program = (
        "import deepfake_detectors; from transformers import pipeline\n"
        "for _ in range(2): print(pipeline('deepfake-detection')('face.png')['label'])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2 and set(done.stdout.split()) <= {"real", "fake"}
    notice = json.loads((built_in_path() / "config.json").read_text())["license_notice"]
    assert done.stderr.count(notice) == 1


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", None])
def test_a_folder_of_the_original_llava_code_says_what_converts_it(tmp_path: Path, model_type: str | None) -> None:
    fields = {"mm_projector_type": "mlp2x_gelu", **({"model_type": model_type} if model_type else {})}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "model.safetensors").write_bytes(b"")
    for load in (
        lambda: deepfake_detectors.pipeline(model=tmp_path),
        lambda: deepfake_detectors.AutoModelForDeepfakeDetection.from_pretrained(tmp_path),
    ):
        with pytest.raises(UnconvertedCheckpointError, match="m2f2_det or fakevlm") as caught:
            load()
        assert (caught.value.family, caught.value.source) == (None, str(tmp_path))


def test_a_config_without_a_model_type_says_what_converts_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnconvertedCheckpointError):
        deepfake_detectors.pipeline(model=tmp_path)


def test_public_names_resolve() -> None:
    missing = {}
    for name in deepfake_detectors.__all__:
        assert name in dir(deepfake_detectors)
        try:
            getattr(deepfake_detectors, name)
        except (ImportError, AttributeError) as error:
            missing[name] = error
    assert not missing
    assert callable(deepfake_detectors.convert) and callable(deepfake_detectors.merge)
    with pytest.raises(AttributeError, match="no_such_name"):
        deepfake_detectors.no_such_name  # noqa: B018
