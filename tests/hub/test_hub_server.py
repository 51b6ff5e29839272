"""The small Hub of the tests against the clients that other tests use it with."""

import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from support.hub_server import HubServer, use_hub
from support.pictures import random_pictures


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def rows():
    features = Features({"image": Image(), "label": ClassLabel(names=["real", "fake"]), "video_id": Value("string")})
    return Dataset.from_dict(
        {"image": random_pictures(4), "label": [0, 1, 1, 0], "video_id": ["a", "b", "b", "c"]}, features=features
    )


def test_data_set_is_pushed_loaded_and_streamed(hub, rows):
    rows.push_to_hub("tester/faces", config_name="c23", split="test", private=True)
    rows.select([1]).push_to_hub("tester/faces", config_name="c40", split="test")
    loaded = load_dataset("tester/faces", "c23", split="test")
    assert loaded.features == rows.features
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(loaded, rows, strict=True))
    streamed = list(load_dataset("tester/faces", "c23", split="test", streaming=True))
    assert [row["video_id"] for row in streamed] == ["a", "b", "b", "c"]
    assert np.array_equal(streamed[2]["image"], rows[2]["image"])
    assert datasets.get_dataset_config_names("tester/faces") == ["c23", "c40"]
    parquet = [path for path in hub.repository("dataset", "tester/faces").files if path.endswith(".parquet")]
    assert sorted(path.split("/")[0] for path in parquet) == ["c23", "c40"]


def test_what_is_missing_is_said_to_be(hub):
    HfApi().create_repo("tester/empty")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("tester/empty", "config.json")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("tester/empty", "config.json", revision="v9")
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("tester/nowhere")
    assert list(HfApi().list_repo_files("tester/empty")) == [".gitattributes"]


def test_earlier_commits_stay(hub):
    api = HfApi()
    api.create_repo("tester/notes")
    first = api.upload_file(path_or_fileobj=b"one", path_in_repo="a/note", repo_id="tester/notes")
    api.upload_file(path_or_fileobj=b"two", path_in_repo="a/note", repo_id="tester/notes")

    assert Path(hf_hub_download("tester/notes", "a/note", revision=first.oid)).read_text() == "one"
    assert Path(hf_hub_download("tester/notes", "a/note")).read_text() == "two"


@pytest.mark.slow
def test_process_of_its_own(tmp_path):
    with HubServer() as hub:
        program = "from huggingface_hub import HfApi; print(HfApi().whoami()['name'])"
        environment = {"PATH": "/usr/bin:/bin", **hub.environment(tmp_path)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "tester", done.stderr
