"""The README can be typed from top to bottom: it has the commands that `make stranger` takes from it."""

from __future__ import annotations

import pytest
from strangers_path import STEPS, PathBlocked, Stranger, commands_of, option, steps_of

from support.source_tree import ROOT

PAGE = """
Text with `pip install nothing`.

<!-- not run -->
```bash
git clone https://example.org/it && cd it
pip install ".[app,eval]"   # some gigabytes
```
```python
pip install wrong
```
```bash
deepfake-detectors detect photo.jpg
deepfake-detectors examine clip.mp4 --output report
deepfake-detectors app
deepfake-detectors evaluate --real-dir a --fake-dir b \\
    --output "a report"
accelerate launch --cpu -m x --dataset_options '{"real": "a b"}' --output_dir mine
deepfake-detectors publish --model mine --dry-run look
```
"""


def test_commands_are_the_words_of_the_bash_blocks():
    commands = commands_of(PAGE)
    assert commands[:3] == [
        ["git", "clone", "https://example.org/it"],
        ["cd", "it"],
        ["pip", "install", ".[app,eval]"],
    ]
    steps = steps_of(PAGE)
    assert list(steps) == list(STEPS)
    assert option(steps["evaluate two folders"], "--output") == "a report"
    assert option(steps["fine-tune a miniature"], "--dataset_options") == '{"real": "a b"}'


def test_a_step_that_the_readme_lost_is_named():
    with pytest.raises(PathBlocked, match=r"open the page.*deepfake-detectors app"):
        steps_of(PAGE.replace("deepfake-detectors app\n", ""))
    with pytest.raises(PathBlocked, match="--output_dir"):
        option(["accelerate", "launch", "--output_dir"], "--output_dir")


def test_what_is_installed_is_this_checkout(tmp_path):
    stranger = Stranger(tmp_path, PAGE)
    assert stranger.from_checkout("deepfake-detectors[app,eval]") == f"{ROOT}[app,eval]"
    assert stranger.from_checkout("deepfake-detectors") == str(ROOT)
    assert stranger.from_checkout("deepfake-detectors-extra") == "deepfake-detectors-extra"
    stranger.place = tmp_path / "clone"
    assert stranger.from_checkout(".[app]") == f"{tmp_path / 'clone'}[app]"


def test_a_command_that_fails_ends_the_path(tmp_path):
    stranger = Stranger(tmp_path, PAGE)
    with pytest.raises(PathBlocked, match=r"exit code 3(.|\n)*why it failed"):
        stranger.type(["sh", "-c", "echo why it failed >&2; exit 3"])
    with pytest.raises(PathBlocked, match="no-such-command"):
        stranger.type(["no-such-command"])


def test_the_readme_has_every_step():
    steps = steps_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert steps["install"][2].startswith((".[", "deepfake-detectors["))
