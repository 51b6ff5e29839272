"""Pages of the site that say what the code says: a page for each dataset, the commands, tables, and three files."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import click
import typer.testing
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from deepfake_detectors.data.registry import DATASETS, builder_class, dataset_info
from deepfake_detectors.families import FAMILIES
from deepfake_detectors_cli import app as command_line

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/deepfake-detectors/deepfake-detectors/blob/main/"
LOADS = {"stock": "as they are", "convert": "after `convert`"}
COPIES = {"contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md", "changelog.md": "CHANGELOG.md"}


def on_startup(**command: object) -> None:
    """Lay the sources out as they are installed: the API reference looks for them before `on_config`."""
    runpy.run_path(str(ROOT / ".ci/check_types.py"))["lay_out"](ROOT / "build/docs")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the dataset pages."""
    pages = next(section["Datasets"] for section in config.nav or [] if "Datasets" in section)
    pages.extend({entry.title: f"datasets/{name}.md"} for name, entry in sorted(DATASETS.items()))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated."""
    pages = {f"datasets/{name}.md": dataset_page(name) for name in DATASETS}
    pages["commands.md"] = commands_page()
    for page, source in COPIES.items():
        pages[page] = outside_links((ROOT / source).read_text("utf-8"))
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables where a page asks for them by a comment."""
    markdown = markdown.replace("<!-- table: datasets -->", datasets_table())
    return re.sub(r"<!-- table: weights of (\w+) -->", lambda found: weights_table(found[1]), markdown)


def outside_links(text: str) -> str:
    """Let links to files of the repository point at the repository; links between pages stay."""
    return re.sub(r"\]\((?!https?:|#)(?:docs/([^)]+\.md[^)]*)|([^)]+))\)", _link, text)


def _link(found: re.Match[str]) -> str:
    return f"]({found[1]})" if found[1] else f"]({REPOSITORY}{found[2]})"


def weights_table(family: str) -> str:
    """Return the released checkpoints of a family as a table."""
    rows = [
        f"| [`{weights['id']}`]({weights['where']}) | {LOADS[weights['loads']]} | {weights['terms']} |"
        for weights in FAMILIES[family].official
    ]
    return "\n".join(["| released weights | how they load | terms |", "| --- | --- | --- |", *rows])


def datasets_table() -> str:
    """Return a row for each dataset."""
    rows = [
        f"| [{entry.title}]({name}.md) | `{name}` | {', '.join(f'`{config}`' for config in entry.configs)} "
        f"| {'yes' if entry.layout_verified else 'no'} | {entry.terms} |"
        for name, entry in sorted(DATASETS.items())
    ]
    head = "| dataset | name | configs | layout compared with an original copy | terms |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def dataset_page(name: str) -> str:
    """Return the page of a dataset, from the attributes and docstrings of its builder."""
    kind, facts = builder_class(name), dataset_info(name)
    module = inspect.getdoc(inspect.getmodule(kind)) or ""
    summary, _, layout = module.partition("\n\n")
    lines = [f"# {facts['title']}", summary, inspect.getdoc(kind) or "", "## Terms", facts["terms"]]
    lines += [f"[Home page]({facts['homepage']})." if facts["homepage"] else "", facts["get_it"]]
    lines += ["## Layout", *_paragraphs(layout or f"    {facts['layout']}")]
    if not facts["layout_verified"]:
        lines.append(
            "Layout or counts come from publications and other code: nobody compared them with an original copy."
        )
    lines += ["## Use", "<!-- not run: needs the dataset -->"]
    lines.append(
        f"```bash\ndeepfake-detectors dataset check {name} --data-dir {name}/\n"
        f"deepfake-detectors dataset build {name} --data-dir {name}/ --output parquet/{name}\n```"
    )
    lines += ["## Configs and options", f"Configs: {', '.join(f'`{config}`' for config in facts['configs'])}."]
    lines += list(_options(kind.BUILDER_CONFIG_CLASS))
    if facts["published_counts"]:
        lines += ["## Published counts", "| config | split | real | fake |\n| --- | --- | ---: | ---: |"]
        for config, splits in facts["published_counts"].items():
            for split, counts in splits.items():
                lines[-1] += f"\n| `{config}` | {split} | {counts.get('real', '')} | {counts.get('fake', '')} |"
    return "\n\n".join(line for line in lines if line) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs of a docstring; those that are indented are code."""
    for paragraph in text.split("\n\n"):
        code = all(line.startswith("    ") for line in paragraph.splitlines())
        yield f"```text\n{inspect.cleandoc(paragraph)}\n```" if code else paragraph


def _options(kind: type) -> Iterator[str]:
    """Yield a list item for each option, in the words of the config classes that have them."""
    told: set[str] = set()
    for owner in kind.__mro__:
        text = inspect.cleandoc(owner.__doc__ or "") if "__doc__" in owner.__dict__ else ""
        _, _, arguments = text.partition("Args:\n")
        arguments = arguments.partition("\n\n")[0]
        for names, words in re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
            if names not in told:
                told.add(names)
                yield f"- `{names}`: {' '.join(words.split())}"


def commands_page() -> str:
    """Return the help of every command."""
    lines = ["# Commands", "What `deepfake-detectors COMMAND --help` prints."]
    runner = typer.testing.CliRunner()
    for words in _command_names():
        shown = runner.invoke(command_line, [*words, "--help"], terminal_width=88, catch_exceptions=False)
        lines += [f"## {' '.join(words)}", f"```text\n{shown.output.strip()}\n```"]
    return "\n\n".join(lines) + "\n"


def _command_names() -> Iterator[list[str]]:
    group = typer.main.get_command(command_line)
    context = click.Context(group)
    for name in group.list_commands(context):
        _, inner, _ = group.resolve_command(context, [name])  # what stands in the group is imported only here
        names = inner.list_commands(click.Context(inner)) if hasattr(inner, "list_commands") else []
        yield from [[name, sub] for sub in names] or [[name]]
