"""From a built data set to a repository on the Hub: Parquet shards and a card, or the same in a folder to look at."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from deepfake_detectors.data.parquet import BuiltConfig, find_builds
from deepfake_detectors.data.registry import DATASETS, builder_class
from deepfake_detectors.hub.dataset_cards import render_dataset_card
from deepfake_detectors.hub.pushing import check_destination, push_folder

__all__ = ["check_publication", "check_terms", "publish_builds"]

CARD = "README.md"


def check_terms(dataset: str, private: bool, accepted: bool) -> None:
    """Raise a `ValueError` where a public push would pass on what may be used for research only.

    Args:
        dataset: key of `DATASETS`.
        private: whether the repository will be private.
        accepted: whether the publisher has said that the terms allow it.
    """
    kind = builder_class(dataset)
    if kind.RESEARCH_ONLY and not private and not accepted:
        raise ValueError(
            f"{kind.NAME} may not be passed on freely. {kind.TERMS} Push it to a private repository (--private), or "
            "say with --accept-terms that you have the right to publish it."
        )


def check_publication(
    dataset: str,
    repo: str,
    *,
    private: bool = False,
    accept_terms: bool = False,
    exist_ok: bool = False,
    token: str | None = None,
) -> bool:
    """What `publish_builds` would refuse whatever is built; better known before hours of building.

    Args:
        dataset: key of `DATASETS`.
        repo, private, accept_terms, exist_ok, token: as in `publish_builds`.

    Returns:
        Whether the data will be private there.

    Raises:
        ValueError, ConnectionError, OSError: as `check_destination` and `check_terms`.
    """
    private = check_destination(repo, "dataset", private, exist_ok, token)
    check_terms(dataset, private, accept_terms)
    return private


def publish_builds(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    accept_terms: bool = False,
    exist_ok: bool = False,
    lint: str | Path | None = None,
    dry_run: str | Path | None = None,
    token: str | None = None,
) -> str:
    """Push what `dataset build` wrote, with its card; `datasets.load_dataset` reads the result, streaming too.

    Args:
        folder: one config, or the folder above several.
        repo: `owner/name`.
        private: whether a new repository is private; an existing one must be so already.
        accept_terms: the publisher has the right to publish data that is for research only.
        exist_ok: add the commit to a repository that exists, whose visibility the terms must allow; shards of an
            earlier version go, other configs stay.
        lint: a `lint.json`, whose result the card states.
        dry_run: a new or empty folder that gets what would be pushed. Nothing is sent, and nothing is refused for its
            terms.
        token: instead of the one of the login.

    Returns:
        Address of the repository, or the path of the dry run.

    Raises:
        ValueError: for a folder that holds no finished build, terms that forbid it, a lint of another data set, and as
            `push_folder`.
        ConnectionError, OSError: as `push_folder`.
    """
    builds = find_builds(folder)
    if dry_run is None:
        # As it is found to be there, so that nothing goes elsewhere if the repository changes meanwhile.
        private = check_publication(
            builds[0].dataset, repo, private=private, accept_terms=accept_terms, exist_ok=exist_ok, token=token
        )
    found = _read_lint(Path(lint), builds) if lint is not None else None
    kept = _published_configs(builds, repo, token) if exist_ok and dry_run is None else None
    card = render_dataset_card(builds, repo, found, kept)
    with tempfile.TemporaryDirectory() as staged:
        _stage(builds, card, Path(staged))
        return push_folder(
            staged,
            repo,
            repo_type="dataset",
            message=f"{builder_class(builds[0].dataset).NAME} as Parquet",
            private=private,
            exist_ok=exist_ok,
            replace=[f"{build.config}/*.parquet" for build in builds],
            dry_run=dry_run,
            token=token,
        )


def _published_configs(builds: list[BuiltConfig], repo: str, token: str | None) -> dict[str, list[dict[str, Any]]]:
    """What the header of the repository's card says of configs that are not published anew, without which nobody can
    load them any more."""
    try:
        data = DatasetCard.load(repo, repo_type="dataset", token=token).data
    except (RepositoryNotFoundError, EntryNotFoundError):
        return {}
    anew = {build.config for build in builds}
    kept = {}
    for key in ("configs", "dataset_info"):
        listed = data.get(key) or []
        listed = [listed] if isinstance(listed, dict) else listed
        kept[key] = [
            {name: value for name, value in item.items() if name != "default"}
            for item in listed
            if item.get("config_name", "default") not in anew
        ]
    return kept


def _read_lint(path: Path, builds: list[BuiltConfig]) -> dict[str, Any]:
    """Content of a `lint.json` about these builds, known by their names and counts."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict) or not {"dataset", "counts", "findings"} <= fields.keys():
        raise ValueError(f"{path} is no lint.json of dataset lint: it lacks dataset, counts or findings.")
    # By name it is "ddvqa (c40)", of a built folder "c40", of a published one "NAME (c40)" or "NAME".
    name, _, config = str(fields["dataset"]).removesuffix(")").rpartition(" (")
    known = {item.name for item in builder_class(builds[0].dataset).BUILDER_CONFIGS}
    fitting = [build for build in builds if build.config == config or not (name or config in known)]
    if (name in DATASETS and name != builds[0].dataset) or not any(_holds(build, fields) for build in fitting):
        published = f"{builds[0].dataset} ({', '.join(build.config for build in builds)})"
        raise ValueError(
            f"{path} is about {fields['dataset']!r}, which is not what is published: {published}, with its splits and "
            "manipulations. Lint the folder that is published, deepfake-detectors dataset lint FOLDER --output DIR, "
            "and pass --lint DIR/lint.json."
        )
    return fields


def _holds(build: BuiltConfig, lint: dict[str, Any]) -> bool:
    """Whether the counts of a lint can be those of a build; lint counts a picture once, in however many rows it is."""
    keys = ("split", "label", "manipulation")
    rows = {tuple(row[key] for key in keys): row["rows"] for row in build.counts}
    pictures = {tuple(row[key] for key in keys): row["pictures"] for row in lint["counts"]}
    return rows.keys() == pictures.keys() and all(pictures[key] <= count for key, count in rows.items())


def _stage(builds: list[BuiltConfig], card: str, target: Path) -> None:
    """The layout of the repository, as links: the shards may be larger than the disk has room for."""
    (target / CARD).write_text(card, encoding="utf-8")
    for build in builds:
        (target / build.config).mkdir()
        for shards in build.splits.values():
            for path in shards:
                (target / build.config / path.name).symlink_to(path.resolve())
