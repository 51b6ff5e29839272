"""The ranges that pyproject.toml declares are the versions that are run: newest, pinned and oldest."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from support.source_tree import PROJECT, ROOT, pins

EXTRAS = PROJECT["optional-dependencies"]
FOR_USERS = set("data eval lint train probe faces video provenance heic app scale export all".split())
ONLY_PINNED = ("dev", "docs")  # tools that every version of the libraries is checked with


def declared(*left_out: str) -> list[Requirement]:
    """Return everything that the core and the extras ask for, apart from the package itself."""
    asked = [*PROJECT["dependencies"], *(line for name in EXTRAS if name not in left_out for line in EXTRAS[name])]
    return [found for line in asked if (found := Requirement(line)).name != PROJECT["name"]]


def lower_bound(requirement: Requirement) -> Version:
    return next(Version(one.version) for one in requirement.specifier if one.operator == ">=")


def test_the_extras_are_those_of_the_design():
    assert set(EXTRAS) == FOR_USERS | {"test", "docs", "dev"}
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == FOR_USERS - {"all"}


@pytest.mark.parametrize(("file", "left_out"), [("constraints.txt", ()), ("constraints-oldest.txt", ONLY_PINNED)])
def test_each_library_is_pinned_within_its_range(file, left_out):
    pinned = pins(file)
    unpinned = [found.name for found in declared(*left_out) if canonicalize_name(found.name) not in pinned]
    assert unpinned == []
    outside = [
        str(found) for found in declared(*left_out) if pinned[canonicalize_name(found.name)] not in found.specifier
    ]
    assert outside == []


def test_the_lower_bounds_are_the_oldest_versions_run():
    pinned = pins("constraints-oldest.txt")
    untried = {
        str(found): str(pinned[canonicalize_name(found.name)])
        for found in declared(*ONLY_PINNED)
        if pinned[canonicalize_name(found.name)] != lower_bound(found)
    }
    assert untried == {}


def test_no_file_names_where_packages_are_downloaded_from():
    for name in ("pyproject.toml", "constraints.txt", "constraints-oldest.txt", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|\s@\s+\w+://", text), name
