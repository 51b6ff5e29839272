"""Push a folder to the Hub, as a model, a dataset or a Space: in one commit, completely or not at all.

```python
push_folder("m2f2-published", "owner/m2f2", private=True)
push_folder("ddvqa-published", "owner/ddvqa", repo_type="dataset", dry_run="look-first")
```
"""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from deepfake_detectors.outputs import written_whole

__all__ = ["REPO_TYPES", "check_destination", "files_to_push", "find_pickles", "push_folder"]

logger = logging.getLogger(__name__)

# Repository type -> prefix of its URL path.
REPO_TYPES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
CARD = "README.md"
HUBS_OWN = ".gitattributes"  # the Hub itself adds it to new repositories
BLOCK = 1 << 20  # bytes read at a time
LIBRARY = "deepfake-detectors"
LOGIN_REMEDY = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access."
# Version control, caches and files of file managers are never published.
NEVER_PUSHED = [".*", "**/.*", "__pycache__/*", "**/__pycache__/*"]
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
# Pickles of protocol 2 or later start with this byte and the protocol.
PICKLE_BEGINS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def push_folder(
    folder: str | Path,
    repo: str,
    *,
    repo_type: str = "model",
    message: str | None = None,
    private: bool = False,
    update: bool = False,
    replace: Sequence[str] = (),
    dry_run: str | Path | None = None,
    token: str | None = None,
) -> str:
    """Create a repository and commit the files of a folder, except hidden ones.

    Everything is checked as far as possible before the first write; the files are then sent in one commit. If that
    fails, a repository created for it is removed again. Repeating the call after a kill continues: it fills a
    repository that is still empty, and sends nothing to one that already has the same files.

    Args:
        folder: the folder to push; its README.md is the card.
        repo: `owner/name`.
        repo_type: `"model"`, `"dataset"` or `"space"`.
        message: commit message.
        private: whether a new repository is private; an existing one must already be private.
        update: add the commit to an existing repository.
        replace: patterns (such as `"*.safetensors"`) of files to delete from an existing repository if the folder does
            not have them, so that no file from an older version remains.
        dry_run: a new or empty folder for the files that would be pushed; nothing is sent, and no token is needed.
        token: used instead of the stored login.

    Returns:
        URL of the repository, or the path of the dry run.

    Raises:
        ValueError: for a folder without files or card or with a pickle, an invalid repository type or name, a missing
            or refused token, an existing repository, a public one that should be private, or a card that the Hub
            refuses.
        ConnectionError: if the Hub cannot be reached or is disabled by HF_HUB_OFFLINE.
        OSError: if the Hub returns another error.
    """
    folder = Path(folder)
    _check_names(repo, repo_type)
    names = files_to_push(folder)
    if dry_run is not None:
        with written_whole(dry_run, remedy="choose another `dry_run`") as target:
            for name in names:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, target / name)
        return str(dry_run)

    message = message or f"Upload with deepfake-detectors: {folder.resolve().name}"
    api = HfApi(token=_token(token), library_name=LIBRARY)
    with _clear_errors(api, repo_type, repo):
        # The Hub checks cards only after the upload has started, so the card is validated first.
        RepoCard.load(folder / CARD).validate(repo_type)
        found = _existing(api, repo_type, repo, private)
        address = f"{api.endpoint}/{REPO_TYPES[repo_type]}{repo}"
        if found is not None and not update and (held := _strange_files(found, private)):
            if (
                set(held) == set(names)
                and found.private == private
                and _same_content(api, repo_type, repo, folder, names)
            ):
                return address
            raise ValueError(f"The {repo_type} repository {repo} exists already. {_EXISTS_REMEDY}")
        created = found is None
        if created:
            sdk = "gradio" if repo_type == "space" else None
            api.create_repo(repo, repo_type=repo_type, private=private, space_sdk=sdk)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names
        ]
        complete = False
        try:
            if replace and not created:
                present = api.list_repo_files(repo, repo_type=repo_type)
                stale = filter_repo_objects(present, allow_patterns=list(replace))
                operations += [CommitOperationDelete(path_in_repo=name) for name in stale if name not in names]
            api.create_commit(repo, operations, commit_message=message, repo_type=repo_type)
            complete = True
        finally:
            if created and not complete:
                _remove_again(api, repo_type, repo)
    return address


def check_destination(
    repo: str,
    repo_type: str = "model",
    private: bool = False,
    update: bool = False,
    token: str | None = None,
    again: str | Path | None = None,
) -> bool:
    """Raise errors of `push_folder` that do not depend on the contents, before the folder is created.

    Args:
        repo, repo_type, private, update, token: as in `push_folder`.
        again: a checkpoint folder. A model repository with weights of about the same size may come from a call that
            was killed at its end, which `push_folder` decides by comparing the files.

    Returns:
        Whether the pushed files will be private, in an existing or a new repository.

    Raises:
        ValueError, ConnectionError, OSError: as for `push_folder`.
    """
    _check_names(repo, repo_type)
    api = HfApi(token=_token(token), library_name=LIBRARY)
    with _clear_errors(api, repo_type, repo):
        api.whoami()
        found = _existing(api, repo_type, repo, private)
        if found is not None and not update and (held := _strange_files(found, private)):
            # Whether it already has the same files, from a killed call, can only be checked once they exist.
            weights = [name for name in held if name.endswith(".safetensors")]
            if again is None or found.private != private or not _alike(api, repo, weights, Path(again)):
                raise ValueError(f"The {repo_type} repository {repo} exists already. {_EXISTS_REMEDY}")
    return private if found is None else bool(found.private)


_EXISTS_REMEDY = "Choose another name, or add a commit to it with `update`."
_DRY_RUN_REMEDY = "Without a connection, `dry_run` writes the files to a folder instead."


def _check_names(repo: str, repo_type: str) -> None:
    if repo_type not in REPO_TYPES:
        raise ValueError(f"repo_type is {repo_type!r}, allowed are {', '.join(REPO_TYPES)}.")
    validate_repo_id(repo)
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} does not have an owner; write owner/name.")


def _existing(api: HfApi, repo_type: str, repo: str, private: bool) -> Any:
    """Return the Hub's information about the repository; `None` if it does not exist."""
    if not api.repo_exists(repo, repo_type=repo_type):
        return None
    found = api.repo_info(repo, repo_type=repo_type)
    if private and not found.private:
        raise ValueError(
            f"The {repo_type} repository {repo} exists and is public, but `private` requires a private one. Make it "
            "private in its settings on the Hub, or choose another name."
        )
    return found


def _strange_files(found: Any, private: bool) -> list[str]:
    """Return the files of a repository; empty if it may be one that the same call created but did not fill."""
    names = [item.rfilename for item in found.siblings or ()]
    if set(names) <= {HUBS_OWN}:
        return [] if found.private == private else [HUBS_OWN]
    return [name for name in names if name != HUBS_OWN]


def _alike(api: HfApi, repo: str, weights: Sequence[str], folder: Path) -> bool:
    """Return whether the weights on the Hub have about the same size as the local ones."""
    here = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    there = sum(entry.size for entry in _entries(api, "model", repo, weights))
    return here > 0 and abs(here - there) <= max(here // 20, 1 << 16)


def _entries(api: HfApi, repo_type: str, repo: str, names: Sequence[str]) -> list[RepoFile]:
    """Return the Hub's information about files of a repository."""
    found = api.get_paths_info(repo, list(names), repo_type=repo_type) if names else []
    return [entry for entry in found if isinstance(entry, RepoFile)]


def _same_content(api: HfApi, repo_type: str, repo: str, folder: Path, names: Sequence[str]) -> bool:
    """Return whether these files have the same content locally and on the Hub."""
    for entry in _entries(api, repo_type, repo, names):
        path = folder / entry.path
        if path.stat().st_size != entry.size:
            return False
        large = getattr(entry, "lfs", None)
        digest = sha256() if large else sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() != (large.sha256 if large else entry.blob_id):
            return False
    return True


@contextmanager
def _clear_errors(api: HfApi, repo_type: str, repo: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConnectionError(f"The Hub is disabled by HF_HUB_OFFLINE. {_DRY_RUN_REMEDY}") from error
    except HfHubHTTPError as error:
        raise _explained(error, repo_type, repo) from error
    except HTTPError as error:
        raise ConnectionError(
            f"{api.endpoint} cannot be reached ({type(error).__name__}: {error}). {_DRY_RUN_REMEDY}"
        ) from error


def _remove_again(api: HfApi, repo_type: str, repo: str) -> None:
    try:
        api.delete_repo(repo, repo_type=repo_type, missing_ok=True)
    except HTTPError as error:  # the original failure is the one to report
        logger.warning(
            "The %s repository %s was created, is empty and could not be removed again (%s).", repo_type, repo, error
        )


def find_pickles(folder: str | Path) -> list[str]:
    """Return the pickled files in `folder`, by their suffix or their content, as paths relative to it."""
    folder = Path(folder)
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file() and _is_pickle(path)]


def _is_pickle(path: Path) -> bool:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        begin = file.read(4)
    if begin == b"PK\x03\x04" and zipfile.is_zipfile(path):  # torch's container
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    return begin.startswith(PICKLE_BEGINS)


def files_to_push(folder: Path) -> list[str]:
    """Return the files of `folder` that `push_folder` would push, as paths relative to it.

    Raises:
        ValueError: as for `push_folder`, for problems with the folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; pass the folder with the files to push.")
    every = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    names = list(filter_repo_objects(every, ignore_patterns=NEVER_PUSHED))
    if not names:
        raise ValueError(f"{folder} does not contain files to push.")
    if CARD not in names:
        raise ValueError(f"{folder} has no {CARD}, which is required for publishing.")
    if pickles := [name for name in find_pickles(folder) if name in names]:
        raise ValueError(
            f"{folder} contains pickled files, which run code when loaded and are never pushed: "
            f"{', '.join(pickles)}. Remove them; weights are published as safetensors."
        )
    return names


def _token(token: str | None) -> str:
    found = token or get_token()
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"The Hub is disabled by HF_HUB_OFFLINE. {_DRY_RUN_REMEDY}")
    if not found:
        raise ValueError(f"You are not logged in to the Hub: no token was found. {LOGIN_REMEDY}")
    return found


def _explained(error: HfHubHTTPError, repo_type: str, repo: str) -> Exception:
    said = error.server_message or str(error)
    status = error.response.status_code
    if status == 401:
        return ValueError(f"The Hub refused the token ({said}). {LOGIN_REMEDY}")
    if status == 403:
        return ValueError(
            f"The token does not allow writing to {repo} ({said}). Use the owner's token, or another owner."
        )
    if status == 409:
        return ValueError(f"The {repo_type} repository {repo} exists already ({said}). {_EXISTS_REMEDY}")
    return OSError(f"The Hub answered {status} for {repo}: {said}. Nothing was pushed.")
