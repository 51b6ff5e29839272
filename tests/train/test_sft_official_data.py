"""The official recipes read the official layout of the data set that they name."""

import json

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.train.train_sft import train_sft
from support.sft_runs import BASES, ON_THIS_MACHINE, SFT_RECIPES, parsed, recipe

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def write_picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def write_fakeclue(root):
    records = []
    for index in range(16):
        label, kind = (1, "real") if index % 2 else (0, "fake")
        name = f"doc/{kind}/{index}.png"
        write_picture(root / "train" / name, index)
        turns = [
            {"from": "human", "value": "<image>Does the image looks real/fake?"},
            {"from": "gpt", "value": f"This is a {kind} image. The text is sharp."},
        ]
        records.append({"image": name, "label": label, "cate": "doc", "conversations": turns})
    (root / "data_json").mkdir()
    (root / "data_json" / "train.json").write_text(json.dumps(records))
    write_picture(root / "test" / "doc" / "real" / "0.png", 99)
    (root / "data_json" / "test.json").write_text(json.dumps([{**records[1], "image": "doc/real/0.png"}]))


def write_faceforensics(root):
    root.mkdir()
    pairs = {split: [[f"{2 * n:03d}", f"{2 * n + 1:03d}"] for n in numbers] for split, numbers in SPLITS.items()}
    for split, names in pairs.items():
        (root / f"{split}.json").write_text(json.dumps(names))
        for seed, (a, b) in enumerate(names):
            for video in (a, b):
                write_picture(root / f"original_sequences/youtube/c23/frames/{video}/000.png", int(video))
            for number, method in enumerate(METHODS, start=1):
                for video in (f"{a}_{b}", f"{b}_{a}"):
                    path = root / f"manipulated_sequences/{method}/c23/frames/{video}/000.png"
                    write_picture(path, [number, seed, int(video[:3])])


SPLITS = {"train": range(6), "val": range(6, 7), "test": range(7, 8)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [("fakevlm_full", write_fakeclue), ("fakevlm_lora", write_fakeclue), ("lvlm_dfd_stage2", write_faceforensics)],
)
def test_official_recipe_on_its_own_data(name, write, tmp_path):
    write(tmp_path / "data")
    changes = {"model_name_or_path": str(BASES[SFT_RECIPES[name]](tmp_path / "base")), "max_steps": 1}
    changes |= {"data_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out"), "validation_fraction": 0.3}
    out = train_sft(*parsed(tmp_path, recipe(name, **ON_THIS_MACHINE) | changes))
    report = json.loads((out / "validation.json").read_text())
    assert report["dataset"] == recipe(name)["dataset"]
    assert report["train_rows"] > report["validation_pictures"] > 1
    assert 0 <= report["metrics"]["eval_auc"] <= 1
