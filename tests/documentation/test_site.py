"""The README is short and its links lead somewhere; the site builds, and every page fits a phone and a desk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.source_tree import ROOT

LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
OUTSIDE_THE_SITE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def test_readme_is_read_to_the_end():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900


@pytest.mark.parametrize("name", OUTSIDE_THE_SITE)
def test_links_lead_to_files(name):
    missing = [link for link in LINK.findall((ROOT / name).read_text("utf-8")) if not (ROOT / link).exists()]
    assert missing == []


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built strictly: a dead link between pages, or a page without a place, fails."""
    pytest.importorskip("mkdocs", reason="the site needs the extra [docs], which the pinned environment has")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_each_dataset_and_command_has_its_place(site):
    from deepfake_detectors.data.registry import DATASETS
    from deepfake_detectors_cli.app import COMMANDS

    for name in DATASETS:
        assert f"dataset build {name}" in re.sub(r"<[^>]+>", "", (site / f"datasets/{name}/index.html").read_text())
    commands = (site / "commands/index.html").read_text()
    for name in set(COMMANDS) - {"dataset"}:
        assert f'<h2 id="{name}">' in commands
    assert 'id="dataset-build"' in commands


@pytest.mark.slow
def test_no_placeholder_is_left(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<!-- table:" not in text and "<!-- lead:" not in text, page
        assert "To be written" not in text, page


@pytest.mark.slow
def test_pages_fit_and_load_nothing_from_elsewhere(site):
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no Chromium on PATH")
    from playwright.sync_api import sync_playwright

    pages = sorted(site.rglob("index.html"))
    assert len(pages) > 40
    elsewhere, wide, errors = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for width, height in ((390, 844), (1280, 900)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("request", lambda request: elsewhere.append(request.url) if "file:" not in request.url else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            for path in pages:
                page.goto(path.as_uri(), wait_until="load")
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    wide.append((width, str(path.relative_to(site))))
        browser.close()
    assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == []
    assert wide == []
    assert errors == []
