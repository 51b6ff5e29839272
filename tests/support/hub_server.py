"""A small Hub on loopback, standard library only, for the real clients of `huggingface_hub` and `datasets`.

```python
from support.hub_server import HubServer, use_hub

with HubServer() as hub:
    subprocess.run([...], env={**os.environ, **hub.environment(tmp_path)})     # a process of its own
    hub.repository("model", "tester/detector").files["config.json"]            # what has arrived
    hub.requests                                                               # "POST /api/repos/create", ...

def test_push(monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path) as hub:                                # this process, logged in
        HfApi().upload_folder(...)
```

It keeps everything in memory and checks what the Hub checks: tokens, private repositories, names that are taken,
parents of commits, the header of a card. Large files go the way without Xet, which a plain server cannot speak.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.hub_repositories import Repositories, Repository
from support.hub_requests import TOKEN, USER, HubRequest

__all__ = ["TOKEN", "USER", "HubServer", "use_hub"]

# Settings of the clients, which they read when they are imported, as environment variable and as attribute.
SETTINGS = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}


class HubServer:
    """Context manager; `url` is the endpoint while it lasts."""

    def __init__(self) -> None:
        self.repositories = Repositories()
        self.requests: list[str] = []
        self.lock = threading.RLock()
        # Answers to requests whose "METHOD /path" matches a pattern, before anything else is looked at.
        self.failures: list[tuple[str, int]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Request", (HubRequest,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def repository(self, kind: str, name: str) -> Repository:
        """The repository of that kind (`model` or `dataset`) and full name."""
        return self.repositories.find(kind, name)

    def fail(self, pattern: str, status: int) -> None:
        """From now on answer requests whose `METHOD /path` matches `pattern` with `status`."""
        self.failures.append((pattern, status))

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Variables for a process whose clients shall talk to this server; `home` keeps their cache and login."""
        variables = {**SETTINGS, "HF_ENDPOINT": self.url, "HF_HOME": str(home / "hf_home"), "NO_PROXY": "127.0.0.1"}
        return {**variables, "HF_TOKEN": token} if token else variables


@contextmanager
def use_hub(monkeypatch: Any, home: Path, token: str | None = TOKEN) -> Iterator[HubServer]:
    """A server for the clients of this very process, which have read their settings already.

    Args:
        monkeypatch: pytest's fixture; it undoes the settings.
        home: folder for the cache.
        token: `None` for a user who is not logged in.
    """
    import datasets.config
    import transformers.utils.hub
    from huggingface_hub import constants, hf_api

    with HubServer() as hub:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "no_token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "no_tokens"))
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub_cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # made on first use, with the endpoint of then
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        monkeypatch.setattr(
            datasets.config, "HUB_DATASETS_URL", hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}"
        )
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets_cache")
        yield hub
