"""Publish a dataset: Parquet shards and a card in a repository on the Hub, or the same in a folder to look at."""

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
    """Raise a `ValueError` where a public push would pass on what may be used for research only.

    Args:
        dataset: key of `DATASETS`.
        private: whether the repository will be private.
        accepted: whether the publisher has said that the terms allow it.
    """
    kind = builder_class(dataset)
    if kind.RESEARCH_ONLY and not private and not accepted:
        raise ValueError(
            f"{kind.NAME} may not be passed on freely. {kind.TERMS} Push it to a private repository (`private`), "
            "or say with `accept_terms` that you have the right to publish it."
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
    """Refuse what `publish_dataset` would refuse whatever is built; better known before hours of building.

    Args:
        dataset: key of `DATASETS`.
        repo, private, accept_terms, update, token: as in `publish_dataset`.

    Returns:
        Whether the data will be private there.

    Raises:
        ValueError, ConnectionError, OSError: as `check_destination` and `check_terms`.
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
    """Push a dataset as Parquet with its card; `datasets.load_dataset` reads the result, streaming too.

    Args:
        dataset: a key of `DATASETS`, which is built first; or a folder that `dataset build` wrote, of one config or of
            several.
        repo: `owner/name`.
        data_dir, config, options: of a dataset by its name: as in `make_builder`.
        build_dir: of a dataset by its name: where it is built, and kept; by default a temporary folder.
        private: whether a new repository is private; an existing one must be so already.
        accept_terms: the publisher has the right to publish data that is for research only.
        update: add the commit to a repository that exists, whose visibility the terms must allow; shards of an
            earlier version go, other configs stay.
        lint: a `lint.json`, whose result the card states.
        dry_run: a new or empty folder that gets what would be pushed. Nothing is sent, and nothing is refused for its
            terms.
        token: instead of the one of the login.
        progress: as in `build_dataset`.

    Returns:
        Address of the repository, or the path of the dry run.

    Raises:
        ValueError: for a folder that does not hold a finished build, terms that forbid it, a lint of another dataset,
            arguments of a build beside a folder, and as `make_builder`, `build_dataset` and `push_folder`.
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
        # As it is found to be there, so that nothing goes elsewhere if the repository changes meanwhile.
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
    """Return what the header of the repository's card says of configs that are not published anew.

    Without it nobody could load them any more.
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
    """Return the content of a `lint.json` about these builds, known by their names and counts."""
    fields = read_json_object(path)
    if not {"dataset", "counts", "findings"} <= fields.keys():
        raise ValueError(f"{path} is not a lint.json of `dataset lint`: it lacks dataset, counts or findings.")
    # By name it is "ddvqa (c40)", of a built folder "c40", of a published one "NAME (c40)" or "NAME".
    name, _, config = str(fields["dataset"]).removesuffix(")").rpartition(" (")
    known = {item.name for item in builder_class(builds[0].dataset).BUILDER_CONFIGS}
    fitting = [build for build in builds if build.config == config or not (name or config in known)]
    if (name in DATASETS and name != builds[0].dataset) or not any(_holds(build, fields) for build in fitting):
        published = f"{builds[0].dataset} ({', '.join(build.config for build in builds)})"
        raise ValueError(
            f"{path} is about {fields['dataset']!r}, which is not what is published: {published}, with its splits and "
            "manipulations. Lint the folder that is published and give its lint.json in `lint`."
        )
    return fields


def _holds(build: BuiltConfig, lint: dict[str, Any]) -> bool:
    """Whether the counts of a lint can be those of a build; lint counts an image once, in however many rows it is."""
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
