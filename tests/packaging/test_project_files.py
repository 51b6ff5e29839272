"""Issue forms are forms that GitHub takes, and links between the project's own files lead somewhere."""

from __future__ import annotations

import re

import pytest
import yaml

from support.source_tree import ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests
ELEMENTS = {"markdown": {"value"}, "input": {"label"}, "textarea": {"label"}, "dropdown": {"label", "options"}}
ELEMENTS["checkboxes"] = {"label", "options"}
PAGES = ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "THIRD_PARTY_NOTICES.md")


@pytest.mark.parametrize("path", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem)
def test_an_issue_form(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}
    assert form["name"] and form["description"]
    inputs = [element for element in form["body"] if element["type"] != "markdown"]
    assert inputs, "GitHub refuses a form of text alone"
    identities = [element["id"] for element in inputs]
    assert len(set(identities)) == len(identities)
    labels = [element["attributes"]["label"] for element in inputs]
    assert len(set(labels)) == len(labels)
    for element in form["body"]:
        assert set(element) <= {"type", "id", "attributes", "validations"}
        assert ELEMENTS[element["type"]] <= set(element["attributes"])
        if element["type"] == "dropdown":
            options = element["attributes"]["options"]
            assert all(isinstance(option, str) for option in options), "a bare yes or no is not text in YAML"
            assert len(set(options)) == len(options)


def test_whoever_reports_a_verdict_confirms_that_no_private_image_is_shown():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "wrong_verdict.yml").read_text(encoding="utf-8"))
    (boxes,) = [element for element in form["body"] if element["type"] == "checkboxes"]
    assert all(option["required"] for option in boxes["attributes"]["options"])
    assert form["body"][0]["type"] == "markdown"
    assert "private image" in form["body"][0]["attributes"]["value"]


def test_vulnerabilities_are_led_away_from_public_issues():
    config = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text(encoding="utf-8"))
    assert config["blank_issues_enabled"] is False
    assert [link["url"] for link in config["contact_links"] if link["url"].endswith("/security/advisories/new")]


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name):
    """Linked files, and paths and make targets in backticks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    linked = [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:tests|src|modeling|train|hub_cards|examples)/[\w./-]+)`", text)
    paths = [path for path in paths if not re.search(r"(?:\b|_)name\b", path)]  # patterns for a new family
    assert [path for path in linked + paths if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([\w-]+)", text, re.MULTILINE))
    assert named <= targets
