"""Forty hostile requests on loopback: nothing of the host is read, nothing ends the app, memory stays bounded."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deepfake_detectors.app.limits import MIB, Limits
from support.app_page import MODEL, PORTRAIT, served
from support.source_tree import ROOT

pytest.importorskip("gradio", reason="the app needs the extra [app]")
httpx = pytest.importorskip("httpx")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow

SECRET = "only-the-host-may-read-this"
LIMITS = Limits(file_bytes=8 * MIB, picture_bytes=4 * MIB, upload_seconds=4.0, uploads=6, queue=6)
PATIENCE = 60.0


@pytest.fixture(scope="module")
def secret(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("host") / "secret.txt"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def url(secret):
    with served(limits=LIMITS) as url:
        upload(url, PORTRAIT.read_bytes())  # everything that is loaded once is loaded
        data = [file_data(upload(url, PORTRAIT.read_bytes())), MODEL]
        assert call(url, "examine", data)[0] == "complete"
        yield url


def upload(url, content, name="a.jpg"):
    response = httpx.post(f"{url}/gradio_api/upload", files={"files": (name, content)}, timeout=PATIENCE)
    return response.json()[0] if response.status_code == 200 else response


def file_data(path, **more):
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def call(url, name, data):
    """Event and text of a call through the queue."""
    begun = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": data}, timeout=PATIENCE)
    if begun.status_code != 200:
        return str(begun.status_code), begun.text
    text = httpx.get(f"{url}/gradio_api/call/{name}/{begun.json()['event_id']}", timeout=PATIENCE).text
    return ("complete" if "event: complete" in text else "error"), text


def alive(url):
    return call(url, "detect", [file_data(upload(url, PORTRAIT.read_bytes())), MODEL])[0] == "complete"


def raw(url, lines, body=b"", seconds=20.0):
    """What a server answers to bytes that no client would send."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=seconds) as connection:
        connection.sendall("\r\n".join([*lines, "Host: x", "", ""]).encode("latin-1") + body)
        answer = b""
        try:
            while block := connection.recv(65536):
                answer += block
                if len(answer) > 1_000_000:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return answer.decode("latin-1")


def png(width, height, rows=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


ROUTES = [
    "/gradio_api/file={secret}",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=//etc/passwd",
    "/gradio_api/file=%2Fetc%2Fpasswd",
    "/gradio_api/file=../../../../../../etc/passwd",
    "/gradio_api/file=..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/gradio_api/file=file:///etc/passwd",
    "/gradio_api/file={workspace}/../../etc/passwd",
    "/gradio_api/file={workspace}",
    "/gradio_api/file={root}/pyproject.toml",
    "/gradio_api/file=pyproject.toml",
    "/gradio_api/file=/proc/self/environ",
    "/gradio_api/file=http://127.0.0.1:{port}/config",
    "/gradio_api/proxy=http://127.0.0.1:{port}/config",
    "/file={secret}",
    "/static/../../../../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/assets/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
    "/gradio_api/custom_component/1/client/component/..%2f..%2fetc%2fpasswd",
    "/gradio_api/stream/a/b/1/playlist.m3u8",
]


@pytest.mark.parametrize("route", ROUTES)
def test_no_file_of_the_host_is_served(url, secret, route):
    import os

    filled = route.format(secret=secret, workspace=os.environ["GRADIO_TEMP_DIR"], root=ROOT, port=urlsplit(url).port)
    answer = raw(url, [f"GET {filled} HTTP/1.1", "Connection: close"])
    assert answer.split(" ", 2)[1] in ("403", "404", "400")
    for content in (SECRET, "root:", "[project]", "PATH=", '"components"'):
        assert content not in answer


def test_gradios_own_cache_in_the_working_directory_is_not_served(url, tmp_path, monkeypatch):
    """Gradio would serve it to everybody; what lies there belongs to other programs."""
    (tmp_path / "other.txt").write_text(SECRET)
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", str(tmp_path))
    answer = httpx.get(f"{url}/gradio_api/file={tmp_path}/other.txt")
    assert answer.status_code == 403 and SECRET not in answer.text


def test_an_address_is_told_from_an_upload(url):
    from deepfake_detectors.app.parts import _names_address

    assert _names_address([{"value": [{"path": "https://example.org/a.jpg"}]}])
    assert not _names_address([{"path": "/tmp/a.jpg", "url": "http://127.0.0.1/a.jpg"}, "http://example.org", None, 3])


FORGED = [
    lambda secret: file_data(str(secret)),
    lambda secret: file_data("/etc/passwd", url="/etc/passwd", orig_name="a.jpg"),
    lambda secret: file_data("../../../../etc/passwd"),
    lambda secret: file_data("http://127.0.0.1:9/x.jpg"),
    lambda secret: file_data("file:///etc/passwd"),
    lambda secret: {"path": str(secret)},
    lambda secret: str(secret),
    lambda secret: file_data("\x00"),
    lambda secret: ["a", {"path": "x"}],
    lambda secret: 7,
]


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_a_file_that_was_not_uploaded_is_not_read(url, secret, number):
    outcome, text = call(url, "examine", [FORGED[number](secret), MODEL])
    assert outcome != "complete"
    assert SECRET not in text and "root:" not in text and str(secret) not in text


def test_bodies_are_bounded(url):
    boundary = "Content-Type: multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    # Longer than a file may be, said and not said; many files in one; a message that is a file.
    assert upload(url, b"x" * (9 * MIB)).status_code == 413
    answer = raw(url, ["POST /gradio_api/upload HTTP/1.1", boundary, f"Content-Length: {1 << 40}"], part + b"x" * 99)
    assert answer.split(" ", 2)[1] in ("408", "413", "400")
    block = f"{MIB:x}\r\n".encode() + b"x" * MIB + b"\r\n"
    endless = f"{len(part):x}\r\n".encode() + part + b"\r\n" + block * 12
    try:
        answer = raw(url, ["POST /gradio_api/upload HTTP/1.1", boundary, "Transfer-Encoding: chunked"], endless)
        assert not answer or answer.split(" ", 2)[1] == "413"
    except (BrokenPipeError, ConnectionResetError):
        pass  # hung up before all was sent
    files = [("files", (f"{n}.jpg", b"x" * (3 * MIB))) for n in range(5)]
    assert httpx.post(f"{url}/gradio_api/upload", files=files, timeout=PATIENCE).status_code == 413
    message = {"data": ["x" * (3 * MIB), MODEL]}
    assert httpx.post(f"{url}/gradio_api/call/detect", json=message, timeout=PATIENCE).status_code == 413
    assert alive(url)


def test_slow_bodies_are_cut_off(url):
    begun = time.monotonic()
    answer = raw(
        url, ["POST /gradio_api/call/detect HTTP/1.1", "Content-Type: application/json", "Content-Length: 50"], b"{"
    )
    assert answer.split(" ", 2)[1] == "408" and time.monotonic() - begun < 15


BOMBS = {
    "pixels.png": png(60_000, 60_000),
    "strip.png": png(2_000_000, 1),
    "filled.png": png(20_000, 20_000, b"\0" * (20_000 * 60_001 // 8)),
    "short.jpg": PORTRAIT.read_bytes()[:3000],
    "empty.jpg": b"",
    "page.html": b"<script>alert(1)</script>",
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "clip.mp4": b"\x00\x00\x00\x18ftypmp42" + b"\xff" * 5000,
    "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_other_kinds_of_files_get_a_sentence(url, name):
    path = upload(url, BOMBS[name], name)
    assert isinstance(path, str)
    begun = time.monotonic()
    outcome, text = call(url, "examine", [file_data(path), MODEL])
    assert outcome == "error" and time.monotonic() - begun < 20
    assert "Traceback" not in text and "root:" not in text


def test_names_of_uploads_lead_nowhere(url):
    import os

    workspace = Path(os.environ["GRADIO_TEMP_DIR"])
    for name in ("../../../../tmp/escaped.jpg", "/tmp/escaped.jpg", "..\\..\\escaped.jpg", "a" * 3000 + ".jpg"):
        found = upload(url, PORTRAIT.read_bytes(), name)
        if isinstance(found, str):
            assert Path(found).resolve().is_relative_to(workspace)
    assert not Path("/tmp/escaped.jpg").exists()
    assert alive(url)


def test_fifty_at_once(url):
    """Some are done, the others are told that the app is busy, and memory stays below a gigabyte more."""
    process = psutil.Process()
    before, most, done = process.memory_info().rss, [0], threading.Event()

    def watch():
        while not done.wait(0.1):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    path = upload(url, PORTRAIT.read_bytes())
    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(lambda _: call(url, "examine", [file_data(path), MODEL]), range(50)))
    done.set()
    watcher.join()
    outcomes = [outcome for outcome, _ in results]
    assert outcomes.count("complete") >= 1 and set(outcomes) <= {"complete", "503", "error"}
    assert "503" in outcomes
    assert most[0] - before < 1 << 30
    numbers = {
        json.loads(text.split("data: ")[-1])[0]["fake_probability"] for out, text in results if out == "complete"
    }
    assert len(numbers) == 1
    assert alive(url)
