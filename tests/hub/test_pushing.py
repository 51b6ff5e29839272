"""Folders pushed with the real client to a Hub on loopback: all of it or nothing, and never a pickle."""

import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, constants, snapshot_download

from deepfake_detectors.hub.pushing import check_destination, find_pickles, push_folder
from support.hub_server import TOKEN, use_hub

CARD = """---
license: mit
tags:
- deepfake-detection
---

# A card
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "deeper" / "words.txt").write_text("ä")
    (folder / ".hidden").write_text("mine")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").write_text("mine too")
    return folder


PUSHED = {"README.md", "config.json", "deeper/words.txt"}


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_pushed_folder_comes_back(hub, folder, tmp_path, repo_type):
    url = push_folder(folder, "tester/thing", repo_type=repo_type, message="First words", private=True)
    assert url == f"{hub.url}/{'datasets/' if repo_type == 'dataset' else ''}tester/thing"
    repository = hub.repository(repo_type, "tester/thing")
    assert repository.private and repository.messages[-1] == "First words"
    assert set(repository.files) == PUSHED | {".gitattributes"}
    back = Path(snapshot_download("tester/thing", repo_type=repo_type))
    for name in PUSHED:
        assert (back / name).read_bytes() == (folder / name).read_bytes()


def test_dry_run_writes_what_would_be_pushed_and_asks_nobody(monkeypatch, folder, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home", token=None) as hub:
        push_folder(folder, "tester/thing", dry_run=tmp_path / "dry")
        assert hub.requests == []
    found = {path.relative_to(tmp_path / "dry").as_posix() for path in (tmp_path / "dry").rglob("*") if path.is_file()}
    assert found == PUSHED
    with pytest.raises(ValueError, match=r"dry exists and is not an empty folder.*`dry_run`"):
        push_folder(folder, "tester/thing", dry_run=tmp_path / "dry")


def test_repository_that_exists_is_left_alone(hub, folder):
    push_folder(folder, "tester/thing")
    before = dict(hub.repository("model", "tester/thing").files)
    (folder / "config.json").write_text('{"changed": true}')
    with pytest.raises(ValueError, match=r"model repository tester/thing exists already.*`update`"):
        push_folder(folder, "tester/thing")
    assert hub.repository("model", "tester/thing").files == before


def test_private_is_never_pushed_to_a_public_repository(hub, folder):
    push_folder(folder, "tester/thing")
    before = dict(hub.repository("model", "tester/thing").files)
    (folder / "config.json").write_text('{"changed": true}')
    for step in (push_folder, lambda _, *names, **options: check_destination(*names, **options)):
        with pytest.raises(ValueError, match=r"tester/thing exists and is public, but `private` .*in its settings"):
            step(folder, "tester/thing", private=True, update=True)
    assert hub.repository("model", "tester/thing").files == before
    hub.repository("model", "tester/thing").private = True
    push_folder(folder, "tester/thing", private=True, update=True)
    assert hub.repository("model", "tester/thing").files != before
    assert check_destination("tester/thing", update=True)
    assert not check_destination("tester/other")


def test_update_replaces_what_it_is_told_to(hub, folder):
    (folder / "old.safetensors").write_bytes(b"1")
    push_folder(folder, "tester/thing")
    (folder / "old.safetensors").rename(folder / "new.safetensors")
    (folder / "deeper" / "words.txt").unlink()
    push_folder(folder, "tester/thing", update=True, replace=["*.safetensors"])
    files = hub.repository("model", "tester/thing").files
    assert "new.safetensors" in files and "old.safetensors" not in files
    assert "deeper/words.txt" in files, "only what matches goes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repo_type": "bucket"}, r"repo_type is 'bucket', allowed are model, dataset, space"),
        ({"repo": "nameless"}, r"'nameless' .*owner/name"),
        ({"repo": "a/b/c"}, r"a/b/c"),
        ({"folder": "nowhere"}, r"nowhere is not a folder"),
    ],
)
def test_request_that_makes_no_sense(hub, folder, options, message):
    with pytest.raises(ValueError, match=message):
        push_folder(**({"folder": folder, "repo": "tester/thing"} | options))
    assert hub.requests == []


def test_folder_without_card(hub, folder):
    (folder / "README.md").unlink()
    with pytest.raises(ValueError, match=r"has no README\.md"):
        push_folder(folder, "tester/thing")
    assert hub.requests == []


def test_nobody_logged_in(monkeypatch, folder, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home", token=None) as hub:
        with pytest.raises(ValueError, match=r"not logged in.*hf auth login.*HF_TOKEN"):
            push_folder(folder, "tester/thing")
        assert hub.requests == []


def test_refused_token(hub, folder):
    with pytest.raises(ValueError, match=r"refused the token.*hf auth login"):
        push_folder(folder, "tester/thing", token="hf_somebody_else")
    assert ("model", "tester/thing") not in hub.repositories


def test_repository_of_somebody_else(hub, folder):
    with pytest.raises(ValueError, match=r"somebody/thing"):
        push_folder(folder, "somebody/thing")
    assert ("model", "somebody/thing") not in hub.repositories


def test_token_may_be_given(monkeypatch, folder, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home", token=None) as hub:
        push_folder(folder, "tester/thing", token=TOKEN)
        assert ("model", "tester/thing") in hub.repositories


def test_card_that_the_hub_refuses(hub, folder):
    (folder / "README.md").write_text(CARD.replace("license: mit", "license: other"))
    with pytest.raises(ValueError, match=r"no license_name"):
        push_folder(folder, "tester/thing")
    assert ("model", "tester/thing") not in hub.repositories


def test_failed_commit_leaves_no_repository(hub, folder):
    hub.fail("POST .*/commit/", 500)
    with pytest.raises(OSError, match=r"answered 500 for tester/thing.*Nothing was pushed"):
        push_folder(folder, "tester/thing")
    assert ("model", "tester/thing") not in hub.repositories


def test_empty_repository_that_stays_is_reported(hub, folder, caplog):
    hub.fail("POST .*/commit/", 500)
    hub.fail("DELETE", 500)
    with pytest.raises(OSError, match=r"answered 500 for tester/thing"):
        push_folder(folder, "tester/thing")
    assert "tester/thing" in caplog.text


def test_failed_update_leaves_the_repository(hub, folder):
    push_folder(folder, "tester/thing")
    before = dict(hub.repository("model", "tester/thing").files)
    (folder / "config.json").write_text('{"changed": true}')
    hub.fail("POST .*/commit/", 500)
    with pytest.raises(OSError, match=r"answered 500"):
        push_folder(folder, "tester/thing", update=True)
    assert hub.repository("model", "tester/thing").files == before


def test_offline(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE.*`dry_run`"):
        push_folder(folder, "tester/thing")


def test_no_server(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9 cannot be reached.*`dry_run`"):
        push_folder(folder, "tester/thing")


def test_pickles_are_never_pushed(hub, folder):
    torch.save({"weight": torch.zeros(2)}, folder / "innocent.data")
    (folder / "deeper" / "state").write_bytes(pickle.dumps([1]))
    (folder / "training_args.bin").write_bytes(b"")
    assert find_pickles(folder) == ["deeper/state", "innocent.data", "training_args.bin"]
    with pytest.raises(ValueError, match=r"never pushed: deeper/state, innocent\.data, training_args\.bin"):
        push_folder(folder, "tester/thing")
    assert hub.requests == []


def test_server_asks_for_the_token(monkeypatch, folder, tmp_path):
    """The server of these tests refuses what the Hub would refuse."""
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        push_folder(folder, "tester/secret", private=True)
        monkeypatch.delenv("HF_TOKEN")
        assert not HfApi().repo_exists("tester/secret")
        with pytest.raises(OSError):
            HfApi().create_repo("tester/other")
        with pytest.raises(ValueError, match="license_name"):
            ModelCard("---\nlicense: other\n---\n").validate()
    assert "POST /api/repos/create" in hub.requests


def test_an_empty_repository_of_a_killed_push_is_filled(hub, folder):
    HfApi().create_repo("tester/begun", private=True)
    with pytest.raises(OSError, match="500"):
        hub.fail("POST /api/models/tester/begun/commit", 500)
        push_folder(folder, "tester/begun", private=True)
    hub.failures.clear()
    assert check_destination("tester/begun", private=True) is True
    push_folder(folder, "tester/begun", private=True)
    assert "config.json" in hub.repository("model", "tester/begun").files


def test_a_second_push_of_the_same_files_does_nothing(hub, folder):
    (folder / "README.md").write_text(CARD + "Made with deepfake-detectors.")
    (folder / "model.safetensors").write_bytes(b"weights")
    address = push_folder(folder, "tester/twice")
    check_destination("tester/twice", again=folder)
    with pytest.raises(ValueError, match="exists already"):
        check_destination("tester/twice")
    assert push_folder(folder, "tester/twice") == address
    assert len(hub.repository("model", "tester/twice").commits) == 2  # the Hub's own, and ours
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes(b"changed")
        with pytest.raises(ValueError, match="exists already"):
            push_folder(folder, "tester/twice")
    assert len(hub.repository("model", "tester/twice").commits) == 2
