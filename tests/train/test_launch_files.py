"""The launch files: accelerate reads each, and the FSDP2 one splits every family's model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from support.sft_runs import BASES, LAUNCH, offline

FILES = {"one_gpu": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
TESTS = Path(__file__).parents[1]


def test_every_file_is_known():
    assert {path.stem for path in LAUNCH.glob("*.yaml")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(LAUNCH / f"{name}.yaml"))  # refuses unknown keys
    assert config.distributed_type.value == FILES[name]
    assert config.mixed_precision == "bf16"
    assert config.use_cpu is False
    assert (config.num_processes == 1) == (name == "one_gpu")
    stages = {"zero2": 2, "zero3": 3}
    assert config.deepspeed_config.get("zero_stage") == stages.get(name)
    assert bool(config.fsdp_config) == (name == "fsdp2")


def test_whole_weights_are_saved():
    """What a checkpoint holds must load with `from_pretrained`."""
    assert load_config_from_file(str(LAUNCH / "fsdp2.yaml")).fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert load_config_from_file(str(LAUNCH / "zero3.yaml")).deepspeed_config["zero3_save_16bit_model"] is True


@pytest.mark.slow
def test_fsdp2_splits_every_family(tmp_path):
    """Loss, gradients and verdicts of the split models equal those of the whole ones."""
    bases = [str(build(tmp_path / family)) for family, build in BASES.items()]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / "fsdp2.yaml")]
    launcher += ["--num_processes", "2", "--main_process_port", "0", str(TESTS / "support" / "fsdp2_dry_pass.py")]
    environment = {**offline(), "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(launcher + bases, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = dict(line.split(": ") for line in done.stdout.splitlines() if line.endswith(" parts"))
    assert set(parts) == set(BASES)
    assert all(int(count.split()[0]) > 3 for count in parts.values())
