"""Downloads an image: with one time limit for everything, a size limit, and no access to private networks."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import urllib.request
from functools import cache
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import httpx

from .image_sources import InputImageError, without_credentials

__all__ = ["URL_MAX_BYTES", "URL_TIMEOUT", "RequestClock", "download"]

URL_TIMEOUT = 20.0  # seconds for the whole download: a server that sends slowly must not block a batch forever
URL_MAX_BYTES = 100 * 2**20
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def download(url: str, name: str, timeout: float, max_bytes: int, allow_private_hosts: bool) -> bytes:
    """Return the content of an http(s) URL.

    Args:
        url: the URL; redirects are followed, and every host is checked.
        name: its name in error messages.
        timeout: seconds for everything: DNS, connections, redirects, headers, content.
        max_bytes: limit for the content.
        allow_private_hosts: also download from loopback, link-local and private addresses.

    Raises:
        InputImageError: for anything that goes wrong; without the credentials of the URL.
    """
    if constants.HF_HUB_OFFLINE:
        raise InputImageError(f"{name}: could not be downloaded, because HF_HUB_OFFLINE is set.", name)
    clock = RequestClock(timeout)
    try:
        for _ in range(MAX_REDIRECTS + 1):
            target = httpx.URL(url)
            if target.scheme not in ("http", "https") or not target.host:
                raise InputImageError(
                    f"{name}: redirects to {without_credentials(url)}, which is not an http(s) URL.", name
                )
            found = _read(target, name, clock, max_bytes, allow_private_hosts)
            if isinstance(found, bytes):
                return found
            url = str(target.join(found))
        raise InputImageError(f"{name}: more than {MAX_REDIRECTS} redirects.", name)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
        if isinstance(error, InputImageError):
            raise
        if clock.is_over or isinstance(error, (httpx.TimeoutException, TimeoutError)):
            raise InputImageError(f"{name}: not downloaded within {timeout:g} seconds.", name) from None
        # From None, because httpx's message about a URL may contain its credentials.
        raise InputImageError(f"{name}: could not be downloaded ({without_credentials(str(error))}).", name) from None
    finally:
        clock.stop()


class RequestClock:
    """One time limit for several connections: when it expires, the open one is closed.

    Socket timeouts restart with every byte, so a server that sends its headers slowly could outlast them.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.connection: Any = None
        self.lock = threading.Lock()
        self.timer = threading.Timer(max(seconds, 0.0), self._cut)
        self.timer.daemon = True
        self.timer.start()

    @property
    def left(self) -> float:
        return max(self.end - time.monotonic(), 0.001)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Remember the connection that httpx has just opened."""
        if event == "connection.connect_tcp.complete":
            with self.lock:
                self.connection = info["return_value"].get_extra_info("socket")
            if self.is_over:
                self._cut()

    def _cut(self) -> None:
        with self.lock:
            if self.connection is not None:
                try:
                    self.connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # closed in the meantime

    def stop(self) -> None:
        self.timer.cancel()
        with self.lock:
            self.connection = None


def _read(target: httpx.URL, name: str, clock: RequestClock, max_bytes: int, allow_private_hosts: bool) -> bytes | str:
    """Return the content, or the target of a redirect."""
    fault: Exception | None = None
    for place, headers, extensions in _ways(target, name, clock, allow_private_hosts):
        if clock.is_over:
            break
        try:
            with _client().stream(
                "GET",
                place,
                headers={**headers, "Accept-Encoding": "identity"},
                extensions={**extensions, "trace": clock.trace},
                timeout=clock.left,
                follow_redirects=False,
            ) as response:
                return _content(response, name, clock, max_bytes)
        except httpx.ConnectError as error:
            fault = error  # try the next address of the host
    raise fault if fault is not None else TimeoutError


def _content(response: httpx.Response, name: str, clock: RequestClock, max_bytes: int) -> bytes | str:
    if response.status_code in REDIRECTS and "location" in response.headers:
        return str(response.headers["location"])
    if response.status_code != 200:
        raise InputImageError(f"{name}: the server answered {response.status_code} {response.reason_phrase}.", name)
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > max_bytes:
            raise InputImageError(f"{name}: larger than the limit of {max_bytes} bytes for a download.", name)
        if clock.is_over:
            raise TimeoutError
    if clock.is_over:  # closed, which looks like the end if the server did not send a length
        raise TimeoutError
    return bytes(content)


@cache
def _client() -> httpx.Client:
    # Without keep-alive, because each connection must be registered with the time limit.
    return httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))


def _ways(
    target: httpx.URL, name: str, clock: RequestClock, allow_private_hosts: bool
) -> list[tuple[httpx.URL, dict[str, str], dict[str, Any]]]:
    """Return the request by address: a name that is resolved twice can have two answers."""
    behind_proxy = target.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(target.host)
    try:
        addresses = _addresses(target, clock)
    except socket.gaierror:
        if not behind_proxy:
            raise
        addresses = []  # the proxy may know names that this machine does not
    private = [address for address in addresses if not _is_public(address)]
    if private and not allow_private_hosts:
        raise InputImageError(
            f"{name}: {target.host} is {private[0]}, an address of this machine or a private network; "
            "`allow_private_hosts=True` allows it.",
            name,
        )
    if behind_proxy:
        return [(target, {}, {})]
    host = target.netloc.decode("ascii")
    return [
        (target.copy_with(host=str(address)), {"Host": host}, {"sni_hostname": target.host}) for address in addresses
    ]


def _addresses(target: httpx.URL, clock: RequestClock) -> list[Any]:
    found: list[Any] = []

    def look_up() -> None:
        try:
            host = target.raw_host.decode("ascii").strip("[]")
            port = target.port or (443 if target.scheme == "https" else 80)
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    # The system's resolver does not have a time limit.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(clock.left)
    if thread.is_alive() or not found:
        raise TimeoutError
    if isinstance(found[0], Exception):
        raise found[0]
    return [ipaddress.ip_address(address) for address in dict.fromkeys(entry[4][0] for entry in found)]


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast
