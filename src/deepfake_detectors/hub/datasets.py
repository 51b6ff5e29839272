"""Publish a dataset: Parquet shards and a card in a Hub repository, or in a local folder for review."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from deepfake_detectors.data.parquet import BuiltConfig, build_dataset, find_builds
from deepfake_detectors.data.registry import DATASETS, builder_class, make_builder
from deepfake_detectors.files import read_json_object
from deepfake_detectors.hub.dataset_cards import render_dataset_card
from deepfake_detectors.hub.pushing import check_destination, push_folder

__all__ = ["check_publication", "check_terms", "publish_dataset"]

CARD = "README.md"


def check_terms(dataset: str, private: bool, accepted: bool) -> None:
    """Raise a `ValueError` if a public push would redistribute research-only data.

    Args:
        dataset: key of `DATASETS`.
        private: whether the repository will be private.
        accepted: whether the publisher has confirmed that the terms allow it.
    """
    kind = builder_class(dataset)
    if kind.RESEARCH_ONLY and not private and not accepted:
        raise ValueError(
            f"{kind.NAME} must not be redistributed freely. {kind.TERMS} Push it to a private repository "
            "(`private`), or confirm with `accept_terms` that you have the right to publish it."
        )


def check_publication(
    dataset: str,
    repo: str,
    *,
    private: bool = False,
    accept_terms: bool = False,
    update: bool = False,
    token: str | None = None,
) -> bool:
    """Raise errors of `publish_dataset` that do not depend on the build, before hours of building.

    Args:
        dataset: key of `DATASETS`.
        repo, private, accept_terms, update, token: as in `publish_dataset`.

    Returns:
        Whether the data will be private.

    Raises:
        ValueError, ConnectionError, OSError: as for `check_destination` and `check_terms`.
    """
    private = check_destination(repo, "dataset", private, update, token)
    check_terms(dataset, private, accept_terms)
    return private


def publish_dataset(
    dataset: str | Path,
    repo: str,
    *,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    build_dir: str | Path | None = None,
    private: bool = False,
    accept_terms: bool = False,
    update: bool = False,
    lint: str | Path | None = None,
    dry_run: str | Path | None = None,
    token: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Push a dataset as Parquet with its card; `datasets.load_dataset` reads the result, also in streaming mode.

    Args:
        dataset: a key of `DATASETS`, which is built first; or a folder written by `dataset build`, with one or more
            configs.
        repo: `owner/name`.
        data_dir, config, options: only for a dataset name: as in `make_builder`.
        build_dir: only for a dataset name: folder in which to build and keep it; by default a temporary folder.
        private: whether a new repository is private; an existing one must already be private.
        accept_terms: confirms the right to publish research-only data.
        update: add the commit to an existing repository, if the terms allow its visibility; shards of an earlier
            version are removed, other configs are kept.
        lint: a `lint.json`, whose result is added to the card.
        dry_run: a new or empty folder for the files that would be pushed. Nothing is sent, and terms are not checked.
        token: used instead of the stored login.
        progress: as in `build_dataset`.

    Returns:
        URL of the repository, or the path of the dry run.

    Raises:
        ValueError: for a folder without a finished build, terms that forbid it, a lint of another dataset, build
            arguments with a folder, and as for `make_builder`, `build_dataset` and `push_folder`.
        ConnectionError, OSError: as `push_folder`.
    """
    allowed: dict[str, Any] = {"accept_terms": accept_terms, "update": update, "token": token}
    destination: dict[str, Any] = {**allowed, "private": private, "lint": lint, "dry_run": dry_run}
    if str(dataset) not in DATASETS:
        building = {"data_dir": data_dir, "config": config, "options": options, "build_dir": build_dir}
        if given := [name for name, value in building.items() if value]:
            raise ValueError(f"{dataset} is a folder; {', '.join(given)} are for a dataset given by its name.")
        return _publish_builds(dataset, repo, **destination)
    if dry_run is None:
        check_publication(str(dataset), repo, private=private, **allowed)
    builder = make_builder(str(dataset), data_dir, config, options)
    with _build_place(build_dir) as place:
        built = build_dataset(builder, place, progress=progress)
        return _publish_builds(built.folder, repo, **destination)


@contextmanager
def _build_place(build_dir: str | Path | None) -> Iterator[Path]:
    if build_dir is not None:
        yield Path(build_dir)
        return
    with tempfile.TemporaryDirectory(prefix="deepfake-detectors-") as folder:
        yield Path(folder)


def _publish_builds(
    folder: str | Path,
    repo: str,
    *,
    private: bool,
    accept_terms: bool,
    update: bool,
    lint: str | Path | None,
    dry_run: str | Path | None,
    token: str | None,
) -> str:
    builds = find_builds(folder)
    if dry_run is None:
        # The visibility found there, in case the repository changes in the meantime.
        private = check_publication(
            builds[0].dataset, repo, private=private, accept_terms=accept_terms, update=update, token=token
        )
    found = _read_lint(Path(lint), builds) if lint is not None else None
    kept = _published_configs(builds, repo, token) if update and dry_run is None else None
    card = render_dataset_card(builds, repo, found, kept)
    with tempfile.TemporaryDirectory(prefix="deepfake-detectors-") as staged:
        _stage(builds, card, Path(staged))
        return push_folder(
            staged,
            repo,
            repo_type="dataset",
            message=f"{builder_class(builds[0].dataset).NAME} as Parquet",
            private=private,
            update=update,
            replace=[f"{build.config}/*.parquet" for build in builds],
            dry_run=dry_run,
            token=token,
        )


def _published_configs(builds: list[BuiltConfig], repo: str, token: str | None) -> dict[str, list[dict[str, Any]]]:
    """Return the header entries of the repository's card for configs that are not published again.

    Without them, these configs could not be loaded any more.
    """
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
    """Return the content of a `lint.json`, after checking that its names and counts match these builds."""
    fields = read_json_object(path)
    if not {"dataset", "counts", "findings"} <= fields.keys():
        raise ValueError(f"{path} is not a lint.json of `dataset lint`: it lacks dataset, counts or findings.")
    # The name is "ddvqa (c40)" for a dataset name, "c40" for a built folder, and "NAME (c40)" or "NAME" for a
    # published one.
    name, _, config = str(fields["dataset"]).removesuffix(")").rpartition(" (")
    known = {item.name for item in builder_class(builds[0].dataset).BUILDER_CONFIGS}
    fitting = [build for build in builds if build.config == config or not (name or config in known)]
    if (name in DATASETS and name != builds[0].dataset) or not any(_holds(build, fields) for build in fitting):
        published = f"{builds[0].dataset} ({', '.join(build.config for build in builds)})"
        raise ValueError(
            f"{path} is about {fields['dataset']!r}, but {published} is being published, with other splits or "
            "manipulations. Lint the published folder and pass its lint.json in `lint`."
        )
    return fields


def _holds(build: BuiltConfig, lint: dict[str, Any]) -> bool:
    """Return whether the counts of a lint match a build; lint counts an image once, even if it is in several rows."""
    keys = ("split", "label", "manipulation")
    rows = {tuple(row[key] for key in keys): row["rows"] for row in build.counts}
    pictures = {tuple(row[key] for key in keys): row["pictures"] for row in lint["counts"]}
    return rows.keys() == pictures.keys() and all(pictures[key] <= count for key, count in rows.items())


def _stage(builds: list[BuiltConfig], card: str, target: Path) -> None:
    """Create the layout of the repository with links, because there may not be enough disk space for copies."""
    (target / CARD).write_text(card, encoding="utf-8")
    for build in builds:
        (target / build.config).mkdir()
        for shards in build.splits.values():
            for path in shards:
                (target / build.config / path.name).symlink_to(path.resolve())
