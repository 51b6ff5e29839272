"""`CITATION.cff` is valid, and says of package and papers what pyproject.toml and the card facts say."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from support.source_tree import PROJECT, ROOT

# Citation File Format 1.2.0, unchanged, as cffconvert 2.0.0 (Apache-2.0) carries it.
SCHEMA = ROOT / "tests" / "support" / "cff_1.2.0_schema.json"
PAPERS = ("m2f2_det", "fakevlm", "antifakeprompt", "lvlm_dfd")


@pytest.fixture(scope="module")
def citation() -> dict:
    class Loader(yaml.SafeLoader):
        """Leaves dates as text, as the schema wants them."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return yaml.load((ROOT / "CITATION.cff").read_text(encoding="utf-8"), Loader)


def errors(content: dict) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(content)]


def test_it_is_valid(citation):
    assert errors(citation) == []


@pytest.mark.parametrize("change", [{"license": "Apache"}, {"authors": []}, {"cff-version": "1"}, {"publisher": "x"}])
def test_what_is_wrong_is_found(citation, change):
    assert errors({**citation, **change})


def test_the_package_is_the_one_that_is_built(citation):
    assert [citation[name] for name in ("title", "version", "license", "keywords")] == [
        PROJECT[name] for name in ("name", "version", "license", "keywords")
    ]


@pytest.mark.parametrize("family", PAPERS)
def test_each_familys_paper_is_cited_as_on_its_card(citation, family):
    facts = (ROOT / "hub_cards" / "facts" / f"family_{family}.yaml").read_text(encoding="utf-8")
    first = " ".join(yaml.safe_load(facts)["citations"][0].split())
    (number,) = re.findall(r"arXiv:(\d+\.\d+)", first)
    (paper,) = [paper for paper in citation["references"] if number in paper["url"]]
    assert paper["title"] in first
    assert paper["identifiers"][0]["value"] == f"arXiv:{number}"
    assert family in paper["notes"]
    named = re.match(r"(\w+) et al\.", first)
    assert named is None or named[1] == paper["authors"][0]["family-names"]
