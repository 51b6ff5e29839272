"""An environment like this one but without this package, and programs that run there.

```python
site = site_without_package(tmp_path / "site")
answers = run_without_package(site, {"first": (PROGRAM, argument), ...}, home=tmp_path)
```

A program is a source text. It finds its arguments in `arguments` and puts what it found, in the form of JSON, into
`answer`. Every program has a process of its own, in which nothing was imported before but libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["run_without_package", "site_without_package"]

# Forked from one process that has paid for importing the libraries. Were the package importable, nothing were proven.
RUNNER = """
import importlib.util, json, os, sys, traceback
assert importlib.util.find_spec("deepfake_detectors") is None, "the package is installed here"
import torch, transformers, peft, timm
from transformers import (AutoModel, AutoProcessor, CLIPVisionModel, InstructBlipForConditionalGeneration,
                          LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor, pipeline)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
for name, (program, *arguments) in json.load(sys.stdin).items():
    child = os.fork()
    if child == 0:
        try:
            names = {"arguments": arguments}
            exec(program, names)
            answer = names["answer"]
        except BaseException:
            answer = {"error": traceback.format_exc()}
        print("\\n" + json.dumps({name: answer}), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def site_without_package(folder: Path, python: str = sys.executable) -> Path:
    """Make a folder of links to every distribution that `python` finds but this one, and return it."""
    folder.mkdir(parents=True)
    found = subprocess.run([python, "-c", "import sys; print(*sys.path, sep='\\n')"], capture_output=True, text=True)
    for entry in [Path(path) for path in found.stdout.splitlines() if path.endswith("site-packages")]:
        for child in sorted(entry.iterdir()):
            # .pth files would put other folders, and editable installations, on the path again.
            if child.suffix == ".pth" or "deepfake_detectors" in child.name or (folder / child.name).exists():
                continue
            (folder / child.name).symlink_to(child)
    return folder


def run_without_package(
    site: Path,
    programs: Mapping[str, tuple[Any, ...]],
    home: Path,
    python: str = sys.executable,
    **environment: str,
) -> dict[str, Any]:
    """Run programs one after the other.

    Args:
        site: see `site_without_package`.
        programs: name -> source text and its arguments, which must be JSON.
        home: working folder, and home of the caches.
        python: the interpreter; `site` was made with it.
        environment: further variables.

    Returns:
        Name -> answer; of a program that failed `{"error": <traceback>}`.
    """
    variables = {
        "PATH": os.defpath,
        "PYTHONPATH": str(site),
        "PYTHONNOUSERSITE": "1",
        "HF_HOME": str(home / "hf_home_without"),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    done = subprocess.run(
        [python, "-S", "-c", RUNNER],  # -S: the site-packages of this interpreter stay out
        input=json.dumps({name: [str(part) for part in program] for name, program in programs.items()}),
        capture_output=True,
        text=True,
        env=variables,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    answers: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            answers |= json.loads(line)
    assert set(answers) == set(programs), done.stdout + done.stderr
    return answers
