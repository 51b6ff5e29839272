"""Servers that speak OpenAI's chat completions: `transformers serve`, and a small one whose answers a test chooses."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

START_SECONDS = 180


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def transformers_serve(folder):
    """The address of `transformers serve FOLDER` on loopback."""
    port = free_port()
    options = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = (folder.parent / "serve.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "transformers.cli.transformers", *options],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=folder.parent,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START_SECONDS * 4):
            assert process.poll() is None, (folder.parent / "serve.log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.25)
        yield address
    finally:
        process.kill()
        process.wait()
        log.close()


@contextmanager
def chat_server(answer):
    """The address of a server that answers `answer(request)`: a status and a JSON value, or bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, said = answer({**request, "path": self.path})
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content)
            except ConnectionError:
                pass  # whoever asked has gone

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def asked(request):
    """The picture and the question of a request."""
    shown, said = request["messages"][-1]["content"]
    content = base64.b64decode(shown["image_url"]["url"].partition(",")[2])
    return Image.open(io.BytesIO(content)).convert("RGB"), said["text"]


def completion(text, tokens=None):
    """An answer; `tokens` are `(token, {alternative: log-probability})`."""
    listed = [
        {
            "token": token,
            "logprob": alternatives[token],
            "top_logprobs": [{"token": piece, "logprob": value} for piece, value in alternatives.items()],
        }
        for token, alternatives in tokens or []
    ]
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [{**choice, "logprobs": {"content": listed} if listed else None}]}
