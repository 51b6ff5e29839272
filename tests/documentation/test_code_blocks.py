"""Every code block of README and docs runs as it stands, page by page, or says why it is not run."""

from __future__ import annotations

import pytest

from support.documents import PAGES, Session, blocks, make_what_is_named
from support.source_tree import ROOT

# Why a block may be left out; what follows a semicolon says where else it is run.
REASONS = {
    "needs official weights",
    "needs the dataset",
    "needs a server",
    "needs an account on the Hub",
    "installs software",
    "serves until it is stopped",
    "trains for an hour",
    "works on this repository",
}
SHOWN = ("text", "json", "")  # languages of blocks that nobody runs
WITH_CODE = [
    page for page in PAGES if any(block.language in ("bash", "python") and not block.mark for block in blocks(page))
]


def test_pages_with_code_are_found():
    assert {"README.md", "train.md", "evaluate.md"} <= {page.name for page in WITH_CODE}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_not_run_says_why(page):
    for block in blocks(page):
        assert block.language in (*Session.LANGUAGES, *SHOWN), block
        if block.mark:
            assert block.mark.partition(";")[0] in REASONS, block


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    code = [block for block in blocks(page) if block.language in Session.LANGUAGES and not block.mark]
    make_what_is_named(tmp_path, "\n".join(block.text for block in code))
    session = Session()
    for block in code:
        session.run(block)
