"""Model folders that bring code of their own, or settings that no library expects."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
class C(PreTrainedConfig):
    model_type = "evil"
class M(PreTrainedModel):
    config_class = C
class P(ProcessorMixin):
    pass
class T:
    pass
"""
AUTO_MAP = {
    "AutoConfig": "evil.C",
    "AutoModel": "evil.M",
    "AutoModelForImageTextToText": "evil.M",
    "AutoModelForDeepfakeDetection": "evil.M",
    "AutoProcessor": "evil.P",
    "AutoImageProcessor": "evil.P",
    "AutoTokenizer": ["evil.T", "evil.T"],
}


def _edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **fields}))


def _unknown_type(folder: Path) -> None:
    _edit(folder / "config.json", model_type="evil", auto_map=AUTO_MAP)


def _known_type(folder: Path) -> None:
    _edit(folder / "config.json", auto_map=AUTO_MAP)


def _own_pipeline(folder: Path) -> None:
    task = {"deepfake-detection": {"impl": "evil.M", "pt": ["AutoModel"]}}
    _edit(folder / "config.json", auto_map=AUTO_MAP, custom_pipelines=task)


def _processor(folder: Path) -> None:
    _edit(folder / "processor_config.json", processor_class="Evil", auto_map=AUTO_MAP)


def _image_processor(folder: Path) -> None:
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    content["image_processor"] = {**content["image_processor"], "image_processor_type": "Evil", "auto_map": AUTO_MAP}
    path.write_text(json.dumps(content))


def _tokenizer(folder: Path) -> None:
    _edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map=AUTO_MAP)


def _nested(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    for name in [name for name in fields if name.endswith("_config") and isinstance(fields[name], dict)]:
        fields[name] = {**fields[name], "model_type": "evil", "auto_map": AUTO_MAP}
    (folder / "config.json").write_text(json.dumps(fields))


# what is changed -> how
BRINGING_CODE: dict[str, Callable[[Path], None]] = {
    "unknown model_type": _unknown_type,
    "known model_type": _known_type,
    "pipeline": _own_pipeline,
    "processor": _processor,
    "image processor": _image_processor,
    "tokenizer": _tokenizer,
    "nested config": _nested,
}


def with_code(model: str | Path, folder: Path, kind: str) -> tuple[Path, Path]:
    """Copy `model` and let it bring code; also give the file that appears if the code runs."""
    shutil.copytree(model, folder)
    marker = folder.with_name(f"{folder.name}-ran")
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (place / "evil.py").write_text(CODE.format(marker=str(marker)))
    BRINGING_CODE[kind](folder)
    return folder, marker


def adapter_on(base: Path, folder: Path) -> Path:
    """A LoRA folder that names `base`."""
    folder.mkdir()
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    _edit(folder / "adapter_config.json", base_model_name_or_path=str(base), **fields)
    return folder


def _fields(**fields: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **fields}).encode()


# how the bytes of `config.json` are changed
HOSTILE_CONFIGS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "not JSON": lambda content: content[:-9],
    "not UTF-8": lambda content: content + b"\xff",
    "a list": lambda content: b"[]",
    "a number": lambda content: b"7",
    "deep": lambda content: b"[" * 2_000_000,
    "deep inside": lambda content: content.rstrip()[:-1] + b', "x": ' + b'{"a":' * 2_000_000,
    "twice": lambda content: b'{"x": 1, "x": 2, ' + content.lstrip()[1:],
    "many digits": lambda content: content.rstrip()[:-1] + b', "x": ' + b"9" * 5000 + b"}",
    "huge picture": _fields(vision_config={"image_size": 10**9, "patch_size": 1}),
    "huge model": _fields(vision_config={"num_hidden_layers": 10**9}),
    "huge width": _fields(vision_config={"hidden_size": 10**12}),
    "no patch": _fields(vision_config={"patch_size": 0, "image_size": 28}),
    "config of a string": _fields(vision_config="wide"),
    "config of a list": _fields(vision_config=[1, 2]),
    "model_type of a list": _fields(model_type=["m2f2_det"]),
    "model_type of null": _fields(model_type=None),
    "architectures of a number": _fields(architectures=7),
    "dtype of a word": _fields(dtype="float33"),
    "dtype of a list": _fields(dtype=[1]),
    "labels of a list": _fields(id2label=["real", "fake"]),
    "calibration of a word": _fields(calibration="strong"),
    "points of a list": _fields(operating_points=[0.5]),
    "variant of a dict": _fields(variant={}),
    "quantization of a word": _fields(quantization_config="int8"),
    "auto_map of a word": _fields(auto_map="evil"),
    "base of a number": _fields(base_model_name_or_path=7),
}
