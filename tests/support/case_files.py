"""Inputs that once went wrong, where they lie beside the real data; tests make the rest themselves."""

from pathlib import Path

import pytest

from support.real_data import ROOT

CASES = Path(ROOT).parent / "cases" if ROOT else Path("no cases")

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="there is no folder `cases` beside DEEPFAKE_DATA")
