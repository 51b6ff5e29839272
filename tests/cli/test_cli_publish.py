"""`deepfake-detectors publish` as typed: what it says, and how it ends."""

import json

import pytest
from huggingface_hub import ModelCard

from support.hub_server import use_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as server:
        yield server


def test_push(shell, model, hub, tmp_path) -> None:
    result = shell("publish", "--model", model, "--repo", "tester/mine", "--without-results", "--private")
    assert result.exit_code == 0, result.stderr
    assert f"Published {hub.url}/tester/mine" in result.stderr
    assert hub.repository("model", "tester/mine").private

    again = shell("publish", "--model", model, "--repo", "tester/mine", "--without-results")
    assert again.exit_code == 1 and "exists already" in again.stderr and "update" in again.stderr
    update = (
        "publish",
        "--model",
        model,
        "--repo",
        "tester/mine",
        "--without-results",
        "--update",
        "--message",
        "Two",
    )
    assert shell(*update).exit_code == 0
    assert hub.repository("model", "tester/mine").messages[-1] in ("Two", "Publish mine with deepfake-detectors")


def test_results_of_evaluate_reach_the_card(shell, model, photos, tmp_path) -> None:
    """The numbers of one command in the card of the other."""
    report = tmp_path / "report"
    fakes = (photos / "deeper").rename(tmp_path / "fakes")
    folders = ("--real-dir", photos, "--fake-dir", fakes)
    measured = shell("evaluate", "--model", model, *folders, "--resamples", "5", "--output", report)
    assert measured.exit_code == 0, measured.stderr
    target = tmp_path / "dry"
    result = shell("publish", "--model", model, "--repo", "me/mine", "--results", report, "--dry-run", target)
    assert result.exit_code == 0, result.stderr
    assert str(tmp_path / "dry" / "README.md") in result.stderr
    card = ModelCard.load(target / "README.md")
    metrics = json.loads((report / "results.json").read_text())["metrics"]
    found = {entry.metric_type: entry.metric_value for entry in card.data.eval_results}
    assert found == {name: entry["value"] for name, entry in metrics.items() if entry["value"] is not None}
    assert str(tmp_path) not in str(card), "local folders are nobody's business"


def test_wrong_requests_end_in_one_line(shell, model, tmp_path, monkeypatch) -> None:
    with use_hub(monkeypatch, tmp_path / "home", token=None) as hub:
        for arguments, words in [
            (("--model", tmp_path / "nowhere", "--repo", "me/x", "--without-results"), "nowhere"),
            (("--model", model, "--repo", "me/x"), "results.json"),
            (("--model", model, "--repo", "me/x", "--without-results"), "not logged in"),
            (("--model", model, "--repo", "x", "--without-results"), "write owner/name"),
            (("--model", model, "--repo", "me/x", "--base", "a/b", "--without-results"), "base"),
        ]:
            dry = ("--dry-run", tmp_path / "dry") if words in ("nowhere", "base") else ()
            result = shell("publish", *arguments, *dry)
            assert result.exit_code == 1, words
            assert words in result.stderr and "Traceback" not in result.stderr
        assert hub.requests == []
    assert not (tmp_path / "dry").exists()
