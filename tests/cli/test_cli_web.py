"""`deepfake-detectors app` as typed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest


def test_a_wrong_auth_ends_before_anything_is_loaded(shell, tmp_path) -> None:
    (tmp_path / "empty").write_text("")
    for value, words in (
        ("maria", "USER:FILE"),
        (f"maria:{tmp_path / 'nowhere'}", str(tmp_path / "nowhere")),
        (f"maria:{tmp_path / 'empty'}", str(tmp_path / "empty")),
    ):
        result = shell("app", "--auth", value)
        assert result.exit_code == 2 and words in result.stderr, value


def test_a_model_that_there_is_not(shell, tmp_path) -> None:
    pytest.importorskip("gradio", reason="the app needs the extra [app]")
    result = shell("app", "--model", tmp_path / "nowhere")
    assert result.exit_code == 2 and "nowhere" in result.stderr


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(tmp_path) -> None:
    pytest.importorskip("gradio", reason="the app needs the extra [app]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deepfake_detectors_cli", "app", "--model", "m2f2-det-mini", "--port", str(port)]
    # Tests of the page in this process set Gradio's folder, which a child would inherit.
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    environment["TMPDIR"] = str(tmp_path)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "The page is at" not in said:
            assert process.poll() is None
            said = process.stderr.readline()
        assert f"http://127.0.0.1:{port}" in said
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as page:
            assert page.status == 200
        assert [path.name for path in tmp_path.glob("deepfake-detectors-app-*")]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        time.sleep(0.1)
        assert not list(tmp_path.glob("deepfake-detectors-app-*")), "uploads and results are removed"
    finally:
        process.kill()
