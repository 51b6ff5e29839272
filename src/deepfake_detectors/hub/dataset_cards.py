"""Cards of datasets: facts with sources, counts from the Parquet files, and terms from the builder."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import yaml
from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

from deepfake_detectors.data.lint.findings import control_rows
from deepfake_detectors.data.parquet import BuiltConfig
from deepfake_detectors.data.registry import builder_class
from deepfake_detectors.markup import as_markdown

__all__ = ["COLUMN_TEXTS", "dataset_facts", "render_dataset_card"]

TEMPLATE = "dataset_card.md.jinja"
REQUIRED = ("summary", "license", "tags", "origin", "polarity", "splits", "counts", "defects", "limits", "citations")
COLUMN_TEXTS = {
    "id": "unique, the same on every machine",
    "image": "the image",
    "label": "0 real, 1 fake",
    "manipulation": "method or generator; `real` for real images",
    "family": "swap, reenact, synthesis, edit or inpaint",
    "video_id": "the video, as `<dataset>/<method>/<name>`",
    "group_id": "connected component over shared source material; make splits by this",
    "target_id": "video or person that provides head and scene",
    "source_id": "video or person that provides identity or expression",
    "frame": "number of the frame in its video",
    "compression": "level of compression, if the dataset has several",
    "category": "what the image shows, or its class",
    "file_format": "format of the source file, detected from its content",
    "mask": "white where the image was manipulated",
    "question": "the question",
    "answer": "the first reference answer",
    "answers": "all reference answers",
    "messages": "question and answer as a chat",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST_SIZE = "1M<n<10M"


def dataset_facts(name: str) -> dict[str, Any]:
    """Return the bundled facts of a dataset, `hub_cards/facts/dataset_<name>.yaml`.

    Raises:
        ValueError: for a dataset without facts, or facts that lack required entries.
    """
    path = files("deepfake_detectors.hub_cards").joinpath("facts", f"dataset_{name}.yaml")
    if not path.is_file():
        raise ValueError(f"There are no facts about {name!r}; add hub_cards/facts/dataset_{name}.yaml.")
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    if missing := [key for key in REQUIRED if key not in facts]:
        raise ValueError(f"The facts about {name!r} lack {', '.join(missing)}, which the card needs.")
    return facts


def render_dataset_card(
    builds: Sequence[BuiltConfig],
    repo: str,
    lint: dict[str, Any] | None = None,
    kept: dict[str, list[dict[str, Any]]] | None = None,
) -> str:
    """Return the card as Markdown after a YAML header with `configs` and `dataset_info`.

    Args:
        builds: configs of one dataset.
        repo: `owner/name`, for the example.
        lint: content of a `lint.json`, whose controls, errors and warnings are added to the card.
        kept: `configs` and `dataset_info` from the header of the repository's card, for configs that do not change.

    Raises:
        ValueError: as for `dataset_facts`.
    """
    name = builds[0].dataset
    facts, kind = dataset_facts(name), builder_class(name)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["plain"] = as_markdown
    template = files("deepfake_detectors.hub_cards").joinpath(TEMPLATE).read_text(encoding="utf-8")
    body = environment.from_string(template).render(
        title=kind.NAME if name != "image_folder" else repo.rpartition("/")[2],
        facts=facts,
        terms=kind.TERMS,
        research_only=kind.RESEARCH_ONLY,
        homepage=kind.HOMEPAGE,
        layout=kind.LAYOUT,
        layout_verified=kind.LAYOUT_VERIFIED,
        builder=kind.__name__,
        version=builds[0].version,
        package_version=version("deepfake-detectors"),
        repo=repo,
        contents=builds,
        columns=list(dict.fromkeys(column for build in builds for column in build.features)),
        column_texts=COLUMN_TEXTS,
        lint=_lint_part(lint) if lint else None,
        kept=[item["config_name"] for item in (kept or {}).get("configs", [])],
    )
    return f"---\n{_header(builds, facts, kind.NAME, kept or {})}\n---\n\n{body}"


def _header(
    builds: Sequence[BuiltConfig], facts: dict[str, Any], title: str, kept: dict[str, list[dict[str, Any]]]
) -> str:
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs

    rows = sum(row["rows"] for build in builds for row in build.counts)
    asks = any("question" in build.features for build in builds)
    data = DatasetCardData(
        license=facts["license"],
        license_name=facts.get("license_name"),
        license_link=facts.get("license_link"),
        pretty_name=title,
        language=["en"] if asks else None,
        task_categories=["image-classification", *(["visual-question-answering"] if asks else [])],
        size_categories=[next((text for limit, text in SIZES if rows < limit), LARGEST_SIZE)],
        tags=["deepfake-detection", "deepfake-detectors", *facts["tags"]],
    )
    for key, entries in kept.items():
        data[key] = entries  # those of the builds are added
    DatasetInfosDict({build.config: build.info() for build in builds}).to_dataset_card_data(data)
    MetadataConfigs(
        {
            build.config: {
                "data_files": [{"split": split, "path": f"{build.config}/{split}-*"} for split in build.splits],
                **({"default": True} if number == 0 else {}),
            }
            for number, build in enumerate(builds)
        }
    ).to_dataset_card_data(data)
    return data.to_yaml()


def _lint_part(lint: dict[str, Any]) -> dict[str, Any]:
    worth = [item for item in lint["findings"] if item["level"] in ("error", "warning")]
    # These are about the publisher's raw copy and contain local folder names.
    findings = [item for item in worth if item["code"] not in ("raw-files", "unreadable")]
    return {"dataset": lint["dataset"], "controls": control_rows(lint["findings"]), "findings": findings}
