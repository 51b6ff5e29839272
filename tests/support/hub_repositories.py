"""What the small Hub of the tests holds: repositories with their commits, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field

__all__ = ["HubError", "Repositories", "Repository", "entry", "is_large", "name_of", "sha256"]


class HubError(Exception):
    """An answer that is no success; `code` is the Hub's own name of the failure, where it has one."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    """Whether clients send this file to the store of large files before they name it in a commit."""
    return path.endswith((".safetensors", ".parquet", ".arrow"))


def name_of(path: str, content: bytes) -> str:
    """Name of a file's content, by which clients see that it has not changed: git's, or the one in the large store."""
    return sha256(content) if is_large(path) else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(files: dict[str, bytes], path: str) -> dict[str, object]:
    """How the Hub lists a file or, if `path` is none of `files`, a folder."""
    if path not in files:
        return {"type": "directory", "path": path, "oid": name_of("", path.encode()), "size": 0}
    content = files[path]
    listed: dict[str, object] = {
        "type": "file",
        "path": path,
        "oid": name_of(path, content),
        "size": len(content),
    }
    if is_large(path):
        listed["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return listed


@dataclass
class Repository:
    """`commits` maps each sha, oldest first, to the whole tree `{path: content}` at that commit."""

    kind: str
    name: str
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """What lies on `main` now."""
        return self.commits[self.branches["main"]]

    def add_commit(self, files: dict[str, bytes], message: str, branch: str = "main") -> str:
        tree = sorted((path, name_of(path, content)) for path, content in files.items())
        listing = json.dumps([self.kind, self.name, len(self.commits), tree])
        sha = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """Sha and tree of a branch, or of a commit by its sha."""
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, self.commits[sha]

    def apply(self, lines: bytes, branch: str, store: dict[str, bytes]) -> str:
        """Add one commit from the client's NDJSON: everything in it or nothing. `store` holds the large files."""
        sha, files = self.resolve(branch)
        files, message = dict(files), ""
        for line in lines.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", sha) != sha:
                    raise HubError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in store:
                    raise HubError(400, f"{value['path']} was never uploaded")
                files[value["path"]] = store[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: content for path, content in files.items() if not path.startswith(folder)}
            else:
                raise HubError(400, f"this server takes no {key} in a commit")
        return self.add_commit(files, message, branch)

    def tree(self, revision: str, folder: str, recursive: bool) -> list[dict[str, object]]:
        """Files and folders below `folder`, as the Hub lists them."""
        _, files = self.resolve(revision)
        prefix = f"{folder}/" if folder else ""
        inside = sorted(path for path in files if path.startswith(prefix))
        if folder and not inside:
            raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries: dict[str, dict[str, object]] = {}
        for path in inside:
            parts = path.removeprefix(prefix).split("/")
            deepest = len(parts) if recursive else 1
            for depth in range(1, deepest + 1):
                listed = prefix + "/".join(parts[:depth])
                entries[listed] = entry(files, listed)
        return list(entries.values())


class Repositories:
    """All repositories, by kind (`model`, `dataset`, `space`) and `owner/name`."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], Repository] = {}
        self.store: dict[str, bytes] = {}  # large files by their sha256, committed or not

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._all

    def create(self, kind: str, name: str, private: bool = False) -> Repository:
        repository = self._all[kind, name] = Repository(kind, name, private)
        repository.add_commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial")
        return repository

    def delete(self, kind: str, name: str) -> None:
        self.find(kind, name)
        del self._all[kind, name]

    def find(self, kind: str, name: str) -> Repository:
        if (kind, name) not in self._all:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self._all[kind, name]
