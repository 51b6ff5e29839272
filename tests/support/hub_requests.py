"""Answers of the small Hub of the tests: which address does what, and to whom."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from support.hub_repositories import HubError, Repository, entry, is_large, name_of, sha256

__all__ = ["TOKEN", "USER", "HubRequest"]

TOKEN = "hf_loopback"
USER = "tester"

_NAME = r"(?P<name>[\w.-]+?(?:/[\w.-]+?)?)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_NAME}"
_REVISION = r"(?P<revision>[^/]+)"


class HubRequest(BaseHTTPRequestHandler):
    """One request; `hub` is the `HubServer` that holds what it is about."""

    hub: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence: `requests` of the server has it all."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{method} {url.path}"
        with self.hub.lock:
            self.hub.requests.append(request)
            try:
                for pattern, status in self.hub.failures:
                    if re.search(pattern, request):
                        raise HubError(status, "this failure was asked for by the test")
                for methods, pattern, act in _ROUTES:
                    if method in methods and (match := re.fullmatch(pattern, url.path)):
                        act(self, **{key: unquote(value or "") for key, value in match.groupdict().items()})
                        return
                raise HubError(404, f"no such page: {request}")
            except HubError as error:
                headers = {"X-Error-Code": error.code} if error.code else {}
                self._send_json({"error": error.message}, error.status, {**headers, "X-Error-Message": error.message})

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    # who asks

    def _logged_in(self) -> bool:
        given = self.headers.get("Authorization")
        if given is None:
            return False
        if given != f"Bearer {TOKEN}":
            raise HubError(401, "Invalid credentials in Authorization header")
        return True

    def _require_owner(self, name: str) -> None:
        if not self._logged_in():
            raise HubError(401, "Invalid username or password.")
        owner = name.split("/")[0]
        if owner != USER:
            raise HubError(403, f"You don't have the rights to write under the namespace {owner!r}")

    def _readable(self, kind: str, name: str) -> Repository:
        repository = self.hub.repositories.find(kind, name)
        if repository.private and not self._logged_in():
            raise HubError(401, "Repository not found", "RepoNotFound")  # the Hub does not tell that it exists
        return repository

    def _writable(self, kind: str, name: str) -> Repository:
        self._require_owner(name)
        return self.hub.repositories.find(kind, name)

    # what is asked

    def whoami(self) -> None:
        if not self._logged_in():
            raise HubError(401, "Invalid username or password.")
        self._send_json({"type": "user", "name": USER, "auth": {"accessToken": {"role": "write"}}, "orgs": []})

    def create(self) -> None:
        wish = json.loads(self.body)
        name = f"{wish.get('organization') or USER}/{wish['name']}"
        self._require_owner(name)
        kind = wish.get("type") or "model"
        answer = {"url": f"{self.hub.url}/{'' if kind == 'model' else f'{kind}s/'}{name}", "name": name}
        if kind == "space" and not wish.get("sdk"):
            raise HubError(400, "a Space needs an sdk")
        if (kind, name) in self.hub.repositories:
            self._send_json({"error": f"You already created this {kind} repo: {name}", **answer}, 409)
            return
        self.hub.repositories.create(kind, name, private=wish.get("visibility") == "private")
        self._send_json(answer)

    def delete(self) -> None:
        wish = json.loads(self.body)
        name = f"{wish.get('organization') or USER}/{wish['name']}"
        self._require_owner(name)
        self.hub.repositories.delete(wish.get("type") or "model", name)
        self._send_json({})

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        header = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
        errors = []
        if header:
            try:
                fields = yaml.safe_load(header[1])
            except yaml.YAMLError as error:
                fields = {}
                errors.append(f"not YAML: {error}")
            errors += _card_errors(fields)
        status = 400 if errors else 200
        self._send_json({"errors": [{"message": error} for error in errors], "warnings": []}, status)

    def preupload(self, kind: str, name: str, revision: str) -> None:
        _, files = self._writable(kind, name).resolve(revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            known = files.get(file["path"])
            mode = "lfs" if is_large(file["path"]) else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            answers.append(answer if known is None else {**answer, "oid": name_of(file["path"], known)})
        self._send_json({"files": answers})

    def commit(self, kind: str, name: str, revision: str) -> None:
        sha = self._writable(kind, name).apply(self.body, revision, self.hub.repositories.store)
        self._send_json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def large_files(self, kind: str, name: str) -> None:
        self._writable(kind or "model", name)
        objects = []
        for wish in json.loads(self.body)["objects"]:
            where = {"upload": {"href": f"{self.hub.url}/large/{wish['oid']}"}}
            known = wish["oid"] in self.hub.repositories.store
            objects.append(wish if known else {**wish, "actions": where})
        self._send_json({"transfer": "basic", "objects": objects})

    def keep(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise HubError(400, "the content is not what was announced")
        self.hub.repositories.store[oid] = self.body
        self._send(b"")

    def branch(self, kind: str, name: str, revision: str) -> None:
        repository = self._writable(kind, name)
        if revision in repository.branches:
            raise HubError(409, f"Reference already exists: refs/heads/{revision}")
        repository.branches[revision] = repository.branches["main"]
        self._send_json({})

    def information(self, kind: str, name: str, revision: str = "") -> None:
        repository = self._readable(kind, name)
        sha, files = repository.resolve(revision or "main")
        self._send_json(
            {
                "id": name,
                "sha": sha,
                "private": repository.private,
                "disabled": False,
                "gated": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )

    def refs(self, kind: str, name: str) -> None:
        branches = self._readable(kind, name).branches
        listed = [{"name": key, "ref": f"refs/heads/{key}", "targetCommit": sha} for key, sha in branches.items()]
        self._send_json({"branches": listed, "converts": [], "tags": []})

    def tree(self, kind: str, name: str, revision: str, folder: str) -> None:
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        self._send_json(self._readable(kind, name).tree(revision, folder.strip("/"), recursive))

    def paths(self, kind: str, name: str, revision: str) -> None:
        _, files = self._readable(kind, name).resolve(revision)
        entries = []
        for path in parse_qs(self.body.decode())["paths"]:
            if path in files or any(file.startswith(f"{path}/") for file in files):
                entries.append(entry(files, path))
        self._send_json(entries)

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        sha, files = self._readable(kind or "model", name).resolve(revision)
        headers = {"X-Repo-Commit": sha}
        if path not in files:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self._send(b"Entry not found", 404, headers)
            return
        content = files[path]
        headers |= {"ETag": f'"{name_of(path, content)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or wanted.groups() == ("", ""):
            self._send(content, headers=headers)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= len(content):
            self._send(b"", 416, {**headers, "Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(content[start:stop], 206, headers)


_ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), "/api/whoami-v2", HubRequest.whoami),
    (("POST",), "/api/repos/create", HubRequest.create),
    (("DELETE",), "/api/repos/delete", HubRequest.delete),
    (("POST",), "/api/validate-yaml", HubRequest.validate_yaml),
    (("POST",), rf"{_API}/preupload/{_REVISION}", HubRequest.preupload),
    (("POST",), rf"{_API}/commit/{_REVISION}", HubRequest.commit),
    (("POST",), rf"{_API}/branch/{_REVISION}", HubRequest.branch),
    (("POST",), rf"{_API}/paths-info/{_REVISION}", HubRequest.paths),
    (("GET",), rf"{_API}/tree/{_REVISION}(?P<folder>/.*)?", HubRequest.tree),
    (("GET",), rf"{_API}/revision/{_REVISION}", HubRequest.information),
    (("GET",), rf"{_API}/refs", HubRequest.refs),
    (("GET",), _API, HubRequest.information),
    (("POST",), rf"/(?:(?P<kind>dataset|space)s/)?{_NAME}\.git/info/lfs/objects/batch", HubRequest.large_files),
    (("PUT",), "/large/(?P<oid>[0-9a-f]{64})", HubRequest.keep),
    (("GET", "HEAD"), rf"/(?:(?P<kind>dataset|space)s/)?{_NAME}/resolve/{_REVISION}/(?P<path>.+)", HubRequest.resolve),
]


def _card_errors(fields: Any) -> list[str]:
    """What the Hub refuses in the header of a card, as far as it matters here."""
    if not isinstance(fields, dict):
        return ["the header is no mapping"]
    errors = [f"{key} is empty" for key, value in fields.items() if value is None]
    if fields.get("license") == "other" and not fields.get("license_name"):
        errors.append('license is "other" but there is no license_name')
    for model in fields.get("model-index", []):
        for result in model["results"]:
            metrics = result.get("metrics") or []
            if not metrics or not {"type", "name"} <= result["dataset"].keys() or "type" not in result["task"]:
                errors.append(f"incomplete result in model-index: {result}")
            for metric in metrics:
                if metric.get("type") is None or metric.get("value") is None:
                    errors.append(f"metric without type or value: {metric}")
    return errors
