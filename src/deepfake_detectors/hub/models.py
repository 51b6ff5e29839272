"""Publish a checkpoint: a folder with a card that loads with and without this package."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from deepfake_detectors.facts import read_facts
from deepfake_detectors.files import read_json_object, weights_digest
from deepfake_detectors.hub.assembling import LICENSE_FILES, Assembled, Base, assemble
from deepfake_detectors.hub.model_cards import (
    Publication,
    card_terms,
    render_model_card,
    training_bases,
    training_data,
)
from deepfake_detectors.hub.pushing import check_destination, files_to_push, push_folder
from deepfake_detectors.outputs import written_whole
from deepfake_detectors.pipelines import resolve_model

__all__ = ["STALE_PATTERNS", "publish_model"]

logger = logging.getLogger(__name__)

RESULTS, VALIDATION, EXPLANATIONS = "results.json", "validation.json", "explanations.json"
REQUIRED = ("protocol", "inputs", "metrics", "versions")  # required keys of results.json
TERMS_FILE = "LICENSE.md"
# Files of an older version that must not stay next to a newer one.
STALE_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.py")


def publish_model(
    model: str | Path,
    repo: str,
    *,
    results: str | Path | None = None,
    without_results: bool = False,
    facts: str | Path | None = None,
    base: str | None = None,
    private: bool = False,
    update: bool = False,
    message: str | None = None,
    dry_run: str | Path | None = None,
    token: str | None = None,
) -> str:
    """Assemble, describe and push one checkpoint.

    The repository gets safetensors weights (or only the adapter), config, processor, generation config, the code of
    its classes and of the pipeline, its terms, and a card whose `model-index` comes from `results`. Pickles from
    training are left out.

    Args:
        model: a folder that `from_pretrained` of this package loads, a built-in name, AntifakePrompt's learned words,
            or a PEFT adapter of a detector.
        repo: `owner/name`.
        results: `results.json` of `evaluate`, or its folder; by default the one in the model folder.
        without_results: publish without measured results; the card says so.
        facts: a YAML file or the name of a bundled one (`facts.fact_names`), such as `published_fakevlm`; by default
            the facts about the family.
        base: for an adapter, the Hub id of its base, with `@revision` to pin it in the card; by default the one in the
            adapter's config.
        private, update, message, dry_run, token: as in `push_folder`.

    Returns:
        URL of the repository, or the path of the dry run.

    Raises:
        ValueError, FileNotFoundError: for a folder that is not a checkpoint, pickled weights, results that are
            missing, damaged or from another model, incomplete facts, an adapter whose base has no Hub id, and as for
            `push_folder`. Nothing is written in these cases.
    """
    folder = Path(resolve_model(model))
    measured = _read_results(folder, results, without_results)
    validation, explanations = (
        read_json_object(folder / name) if (folder / name).is_file() else None for name in (VALIDATION, EXPLANATIONS)
    )
    if dry_run is None:  # before loading gigabytes
        check_destination(repo, "model", private, update, token, again=folder)
    with _workplace(dry_run) as target:
        found = assemble(folder, target, base=Base.parse(base) if base else None)
        _check_measured(measured or {}, folder, found.family)
        described = read_facts(facts, found.config, found.class_name, repo.split("/")[-1])
        _write_card(found, described, measured, validation, explanations, repo, target)
        files_to_push(target)  # the rules of publishing also apply to a dry run
        if dry_run is not None:
            return str(dry_run)
        return push_folder(
            target,
            repo,
            message=message or f"Publish {described['model_name']} with deepfake-detectors",
            private=private,
            update=update,
            replace=STALE_PATTERNS,
            token=token,
        )


def _write_card(
    found: Assembled,
    facts: dict[str, Any],
    results: dict[str, Any] | None,
    validation: dict[str, Any] | None,
    explanations: dict[str, Any] | None,
    repo: str,
    target: Path,
) -> None:
    if found.adapter:
        facts = {**facts, "library_name": found.library}
    publication = Publication(
        repo=repo,
        parameters=found.parameters,
        adapter=found.adapter,
        explains=found.explains,
        localizes=found.localizes,
        bases=[found.base.as_card_entry()] if found.base else training_bases(facts, validation),
        datasets=training_data(facts, validation),
        licenses=[name for name in LICENSE_FILES if name != facts.get("license_link") and (target / name).is_file()],
    )
    try:
        card = render_model_card(facts, results, validation, found.config, publication, explanations)
    except (KeyError, UndefinedError) as error:
        raise ValueError(
            f"Facts, results.json or validation.json lack an entry that the card needs: {error}."
        ) from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"Facts, results.json or validation.json have values of the wrong type: {error}.") from error
    (target / "README.md").write_text(card, encoding="utf-8")
    if facts.get("license_link") == TERMS_FILE:
        rows = [f"| {part['name']} | {part['terms']} |" for part in facts["parts"]]
        table = ["| contents or origin of the official weights of this family | terms |", "| --- | --- |", *rows]
        text = "\n".join(
            ["# Terms", "", card_terms(facts, found.config), "", *table, "", "Comes without any warranty.", ""]
        )
        (target / TERMS_FILE).write_text(text, encoding="utf-8")
    elif (link := facts.get("license_link")) and "://" not in link and not (target / link).is_file():
        raise ValueError(
            f"The facts refer to the licence file {link}, which the model folder does not have; add it there."
        )


def _read_results(folder: Path, results: str | Path | None, without: bool) -> dict[str, Any] | None:
    if without:
        if results is not None:
            raise ValueError("Pass `results` or `without_results`, not both.")
        return None
    path = Path(results) if results is not None else folder / RESULTS
    if path.is_dir():
        path = path / RESULTS
    if not path.is_file():
        if results is None and not folder.is_dir():
            return None  # assemble gives a better error for the folder
        raise FileNotFoundError(
            f"{path} does not exist. Measure the model with evaluate({str(folder)!r}, ...) and pass its results.json "
            "in `results`, or publish `without_results`, which the card will mention."
        )
    fields = read_json_object(path)
    if missing := [name for name in REQUIRED if not isinstance(fields.get(name), dict)]:
        raise ValueError(f"{path} is not a results.json of `evaluate`: it lacks {', '.join(missing)}.")
    return fields


def _check_measured(results: dict[str, Any], folder: Path, family: str) -> None:
    """Refuse results of another model; results without model information are accepted."""
    remedy = (
        f"Measure this model with evaluate({str(folder)!r}, ...) and pass its results.json in `results`, or publish "
        "`without_results`."
    )
    if (other := results.get("model_type") or family) != family:
        raise ValueError(f"The results are for a {other!r}, but {folder} is a {family!r}. {remedy}")
    measured = results.get("weights")
    if measured is not None and measured != (found := weights_digest(str(folder))):
        raise ValueError(
            f"The results are for other weights (sha256 {measured[:12]}...) than those in {folder} "
            f"({str(found)[:12]}...). {remedy}"
        )


@contextmanager
def _workplace(dry_run: str | Path | None) -> Iterator[Path]:
    """Yield the folder to fill: it becomes `dry_run` once complete, or is temporary."""
    if dry_run is not None:
        with written_whole(dry_run, remedy="choose another `dry_run`") as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="deepfake-detectors-") as name:
        yield Path(name)
