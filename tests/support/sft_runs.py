"""Tiny bases, and fine-tuning runs of the recipes on them, in this process or another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepfake_detectors.train import train_sft
from support.tiny_models import SENTENCES, tiny_chat_vlm, tiny_fakevlm, tiny_lvlm_dfd_llm, tiny_m2f2_det_llm

RECIPES = Path(train_sft.__file__).parent / "recipes"
LAUNCH = Path(train_sft.__file__).parent / "launch"
SPLITS, JUDGEMENTS, EXPLANATIONS = ("train", "test"), "train_DDVQA_format_judge_only.json", "test_explanation.jsonl"
# recipe -> family; the miniature of each has `_mini` behind its name
SFT_RECIPES = {
    "fakevlm_full": "fakevlm",
    "fakevlm_lora": "fakevlm",
    "m2f2_det_stage2": "m2f2_det",
    "m2f2_det_stage3": "m2f2_det",
    "lvlm_dfd_stage2": "lvlm_dfd",
    "chat_vlm_lora": "chat_vlm",
}
BASES = {
    "fakevlm": lambda folder: tiny_fakevlm(folder, prompt_style="hf_chat"),
    "m2f2_det": tiny_m2f2_det_llm,
    "lvlm_dfd": tiny_lvlm_dfd_llm,
    "chat_vlm": lambda folder: tiny_chat_vlm(folder, **SENTENCES),
}
# What a recipe for eight GPUs needs to run here.
ON_THIS_MACHINE = {
    "use_cpu": True,
    "bf16": False,
    "tf32": None,
    "gradient_checkpointing": False,
    "dataloader_num_workers": 0,
    "report_to": "none",
    "cpu_threads": 1,
    "disable_tqdm": True,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
}


def recipe(name: str, **changes: Any) -> dict[str, Any]:
    """A committed recipe with changes."""
    return {**yaml.safe_load((RECIPES / f"{name}.yaml").read_text()), **changes}


def write_recipe(path: Path, fields: dict[str, Any]) -> list[str]:
    """Options of the command line that read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(fields))
    return ["--config", str(path)]


def parsed(folder: Path, fields: dict[str, Any]) -> tuple[Any, ...]:
    return train_sft.parse_sft_recipe(write_recipe(folder / "recipe.yaml", fields))


def command(*launcher: str, module: str = "deepfake_detectors.train.train_sft") -> list[str]:
    """`accelerate launch` of the script."""
    return [sys.executable, "-m", "accelerate.commands.launch", *launcher, "-m", module]


def offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def run_in_two_processes(options: list[str], module: str = "deepfake_detectors.train.train_sft") -> None:
    """`accelerate launch` of the script as two processes on CPU, to its end."""
    # `--cpu --num_processes 2` would silently run one.
    launcher = command("--multi_gpu", "--num_processes", "2", "--main_process_port", "0", module=module)
    done = subprocess.run(launcher + options, env=offline(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def assert_two_equal_one(alone: Path, two: Path, step: int, rel: float = 1e-5) -> None:
    """Two output folders, of one process and of really two: at every step the same losses, which vary."""
    processes = [json.loads((folder / "validation.json").read_text())["processes"] for folder in (alone, two)]
    assert processes == [1, 2]
    assert (two / f"checkpoint-{step}" / "rng_state_1.pth").is_file()  # written by the second process
    first, second = losses(alone, step), losses(two, step)
    assert len(second) == step
    assert max(first) - min(first) > 0.05
    assert second == pytest.approx(first, rel=rel)


def losses(output: Path, step: int | str) -> list[float]:
    """Logged training losses of a checkpoint."""
    state = json.loads((output / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def few_real_pictures(source: Path, folder: Path, train: int = 60, test: int = 4) -> Path:
    """A DD-VQA folder with the training pictures of the first `train` target videos and `test` test pictures."""

    def copy(split: str, stems: set[str]) -> None:
        (folder / "images_c40" / split).mkdir(parents=True)
        for stem in stems:
            shutil.copy(source / "images_c40" / split / f"{stem}.jpg", folder / "images_c40" / split)

    found = {split: sorted(path.stem for path in (source / "images_c40" / split).iterdir()) for split in SPLITS}
    targets = sorted({stem.split("_")[1] for stem in found["train"]})[:train]
    chosen = {stem for stem in found["train"] if stem.split("_")[1] in targets}
    asked = set(found["test"][:: len(found["test"]) // test])
    copy("train", chosen)
    copy("test", asked)
    (folder / "splits").mkdir()
    judgements = json.loads((source / "splits" / JUDGEMENTS).read_text())
    kept = [entry for entry in judgements if Path(entry["image"]).stem in chosen]
    (folder / "splits" / JUDGEMENTS).write_text(json.dumps(kept))
    lines = (source / "splits" / EXPLANATIONS).read_text().splitlines()
    kept = [line for line in lines if next(iter(json.loads(line))).rsplit("_", 1)[0] in asked]
    (folder / "splits" / EXPLANATIONS).write_text("\n".join(kept) + "\n")
    for path in (source / "annotations" / "train_set").rglob("*.json"):
        entries = json.loads(path.read_text())
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({stem: entry for stem, entry in entries.items() if stem in chosen}))
    return folder
