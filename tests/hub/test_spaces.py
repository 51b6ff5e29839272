"""A Space: what its folder holds, that it is pushed as one, and that it starts offline."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import RepoCard
from packaging.requirements import Requirement

from deepfake_detectors import publish_space
from support.hub_server import use_hub
from support.source_tree import ROOT

FILES = {"README.md", "app.py", "packages.txt", "requirements.txt"}


def test_a_space_is_a_folder_that_loads_a_published_model(tmp_path):
    target = tmp_path / "space"
    assert publish_space("me/detector", "me/try-it", dry_run=target) == str(target)
    assert {path.name for path in target.iterdir()} == FILES
    header = RepoCard.load(target / "README.md").data
    assert (header.sdk, header.app_file, header.models) == ("gradio", "app.py", ["me/detector"])
    lines = [Requirement(line) for line in (target / "requirements.txt").read_text().split()]
    pins = {line.name: str(line.specifier) for line in lines}
    assert all(re.fullmatch(r"==[\d.]+\w*", pin) for pin in pins.values())
    assert lines[0].name == "deepfake-detectors" and "app" in lines[0].extras
    assert pins["gradio"] == f"=={header.sdk_version}" and {"torch", "transformers"} <= pins.keys()
    program = (target / "app.py").read_text()
    compile(program, "app.py", "exec")
    assert 'build("me/detector")' in program


def test_a_space_is_pushed(monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        place = publish_space("m2f2-det-mini", "tester/page", private=True)
        assert place == f"{hub.url}/spaces/tester/page"
        repository = hub.repository("space", "tester/page")
        assert repository.private and set(repository.files) >= FILES
        with pytest.raises(ValueError, match="exists already"):
            publish_space("m2f2-det-mini", "tester/page")


def test_what_a_space_cannot_load_is_refused(tmp_path):
    for model, words in ((str(tmp_path), "Publish it first"), ("mine", "expected a Hub id"), ("a b/c", "Repo id")):
        with pytest.raises(ValueError, match=words):
            publish_space(model, "me/try-it", dry_run=tmp_path / "space")
    assert not (tmp_path / "space").exists()


def test_the_command(tmp_path):
    from typer.testing import CliRunner

    from deepfake_detectors_cli import app

    def run(*arguments):
        return CliRunner().invoke(app, ["publish", *map(str, arguments)])

    done = run("--model", "m2f2-det-mini", "--space", "me/try-it", "--dry-run", tmp_path / "space")
    assert done.exit_code == 0 and (tmp_path / "space" / "app.py").is_file()
    assert run("--model", "m2f2-det-mini").exit_code == 2
    both = run("--model", "m2f2-det-mini", "--space", "me/a", "--repo", "me/b")
    assert both.exit_code == 2
    with_facts = run("--model", "m2f2-det-mini", "--space", "me/a", "--without-results")
    assert with_facts.exit_code == 2 and "--without-results" in with_facts.stderr


@pytest.mark.slow
def test_a_space_starts_offline(tmp_path):
    """Its program alone, in a new process that can reach no Hub."""
    pytest.importorskip("gradio", reason="the app needs the extra [app]")
    publish_space("m2f2-det-mini", "me/try-it", dry_run=tmp_path / "space")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
    }
    process = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path / "space", env=environment)
    try:
        assert "m2f2-det-mini" in page_of(port, process)
    finally:
        process.terminate()
        process.wait(20)


def page_of(port: int, process: subprocess.Popen, seconds: float = 120.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the Space ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the Space did not start")


def test_the_dockerfile_installs_what_the_space_does():
    text = (ROOT / "Dockerfile").read_text()
    from deepfake_detectors.hub.spaces import EXTRAS

    extras = re.search(r'"\.\[(.*?)\]"', text)
    assert extras is not None and set(extras[1].split(",")) == set(EXTRAS.split(","))
    assert (Path(ROOT) / "constraints.txt").is_file() and "constraints.txt" in text
