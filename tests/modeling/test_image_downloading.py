"""Downloads end on one clock, reach no inner host unasked, and tell no credentials."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest
from huggingface_hub import constants
from PIL import Image

from deepfake_detectors.modeling import image_downloading
from deepfake_detectors.modeling.image_loading import InputImageError, describe_image_source, load_image

RED = (255, 0, 0)


def picture() -> bytes:
    stream = BytesIO()
    Image.new("RGB", (4, 4), RED).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def serving(answer: Callable[[socket.socket, str], None]) -> Iterator[int]:
    """A server that says to each connection what `answer` writes; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                answer(connection, connection.recv(65536).decode("latin-1"))
            except OSError:
                pass  # the client hung up

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def whole(connection: socket.socket, _: str) -> None:
    content = picture()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)


def drip_headers(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        connection.sendall(b"X-%d: a\r\n" % number)
        time.sleep(0.1)


def drip_content(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")  # without a length: a cut reads like an end
    for byte in picture() * 10:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def informational(connection: socket.socket, _: str) -> None:
    for _number in range(200):
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.1)


def silence(_: socket.socket, __: str) -> None:
    time.sleep(8)


@pytest.mark.parametrize("answer", [drip_headers, drip_content, informational, silence])
def test_one_clock_over_everything(answer: Callable[[socket.socket, str], None]) -> None:
    with serving(answer) as port:
        start = time.monotonic()
        with pytest.raises(InputImageError, match=r"within 0\.7 seconds"):
            load_image(f"http://127.0.0.1:{port}/x.png", timeout=0.7, allow_private_hosts=True)
        assert time.monotonic() - start < 2


def test_a_chain_of_redirects_has_the_same_clock_and_an_end() -> None:
    def slowly_on(connection: socket.socket, request: str) -> None:
        time.sleep(0.3 if "/slow" in request else 0)
        place = request.split()[1]
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {place}x\r\nContent-Length: 0\r\n\r\n".encode())

    with serving(slowly_on) as port:
        start = time.monotonic()
        with pytest.raises(InputImageError, match=r"within 0\.8 seconds"):
            load_image(f"http://127.0.0.1:{port}/slow", timeout=0.8, allow_private_hosts=True)
        assert time.monotonic() - start < 2
        with pytest.raises(InputImageError, match="redirects"):
            load_image(f"http://127.0.0.1:{port}/", allow_private_hosts=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_this_machine_is_not_read_unasked(host: str) -> None:
    asked = []

    def answer(connection: socket.socket, request: str) -> None:
        asked.append(request)
        whole(connection, request)

    with serving(answer) as port, pytest.raises(InputImageError):
        load_image(f"http://{host}:{port}/x.png", timeout=3)
    assert not asked


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::a00:1]",
    ],
)
def test_inner_networks_are_not_read_unasked(address: str) -> None:
    with pytest.raises(InputImageError, match="allow_private_hosts"):
        load_image(f"http://{address}/x.png", timeout=1)


def lookups(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let names have these addresses, one after the other; gives the names that were looked up."""
    seen: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, **options: object) -> list[object]:
        if not str(host).endswith(".example"):
            return real(host, port, *args, **options)
        seen.append(host)
        return real(answers[min(len(seen), len(answers)) - 1], port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return seen


def test_a_redirect_to_an_inner_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_loopback(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/x\r\nContent-Length: 0\r\n\r\n")

    public = image_downloading._is_public
    monkeypatch.setattr(
        image_downloading, "_is_public", lambda address: str(address) == "127.0.0.1" or public(address)
    )
    with serving(to_loopback) as port, pytest.raises(InputImageError, match=r"127\.0\.0\.2"):
        load_image(f"http://127.0.0.1:{port}/x.png", timeout=3)


def test_a_name_is_looked_up_once_and_that_address_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def answer(connection: socket.socket, request: str) -> None:
        heard.append(request)
        whole(connection, request)

    seen = lookups(monkeypatch, "127.0.0.1", "192.0.2.1")
    with serving(answer) as port:
        assert load_image(f"http://rebound.example:{port}/x.png", allow_private_hosts=True).getpixel((0, 0)) == RED
        assert seen == ["rebound.example"]
        assert f"host: rebound.example:{port}" in heard[0].lower()


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "x" * 64 + ".example", "-", "é" * 80])
def test_bad_host_names_are_typed_errors(host: str) -> None:
    with pytest.raises(InputImageError):
        load_image(f"http://{host}/x.jpg", timeout=3)


def test_credentials_are_never_echoed() -> None:
    def missing(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with serving(missing) as port:
        for url in (
            f"http://me:hunter2@127.0.0.1:{port}/x.png?token=hunter2&size=3",
            f"http://me:hunter2@127.0.0.1:{port}/x.png?X-Amz-Signature=hunter2",
            "http://me:hunter2@a..b/x.png",
            "http://me:hunter2@127.0.0.1:1/x.png",
        ):
            for allow in (True, False):
                with pytest.raises(InputImageError) as caught:
                    load_image(url, allow_private_hosts=allow, timeout=2)
                assert "hunter2" not in str(caught.value) + caught.value.source
                assert caught.value.__cause__ is None
    assert describe_image_source("https://u:p@h/x?size=3") == "https://***@h/x?size=3"


def test_credentials_are_sent_to_their_own_host_only() -> None:
    heard: list[str] = []

    def other(connection: socket.socket, request: str) -> None:
        heard.append(request)
        whole(connection, request)

    with serving(other) as second:

        def send_on(connection: socket.socket, request: str) -> None:
            heard.append(request)
            place = f"http://127.0.0.1:{second}/x"
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())

        with serving(send_on) as first:
            load_image(f"http://me:secret@127.0.0.1:{first}/x.png", allow_private_hosts=True)
    assert "authorization" in heard[0].lower() and "authorization" not in heard[1].lower()
