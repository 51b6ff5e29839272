"""Facts about checkpoints that are not measured by a command: `hub_cards/facts/*.yaml`, or the publisher's own file.

`family_<model_type>.yaml`, or for a family of another package the file given in its row, has facts about every
checkpoint of a family: terms of its parts, intended use, limits, architecture, sources. The file of a checkpoint gives
its `family`, overrides what differs, and adds `training_parts` and `training_limits` for its training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from deepfake_detectors.dataset_scripts._files import read_text
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.files import parse_yaml
from deepfake_detectors.modeling.configuration_chat_vlm import FAMILY_FIELD

__all__ = ["fact_names", "family_facts", "read_facts"]

FAMILY_PREFIX = "family_"
REQUIRED = ("title", "summary", "license", "uses", "limits", "architecture", "training", "citations")

LISTS = ("parts", "training_parts", "limits", "training_limits")


def fact_names() -> list[str]:
    """Return the names of the bundled fact files of checkpoints, without suffix."""
    names = (entry.name for entry in _folder().iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and _is_checkpoint(name))


def family_facts(family: str) -> dict[str, Any]:
    """Return the facts about every checkpoint of a family.

    Raises:
        ValueError: for a family without such a file, or a file that is not a mapping.
    """
    row = FAMILIES.get(family)
    if row is not None and row.facts is not None:
        package, _, path = row.facts.partition(":")
        try:
            place = files(package).joinpath(path)
        except ModuleNotFoundError as error:
            raise ValueError(f"The facts of the family {family!r} are in {row.facts}: {error}.") from error
    else:
        place = _folder().joinpath(f"{FAMILY_PREFIX}{family}.yaml")
    if not place.is_file():
        raise ValueError(f"There are no facts about the family {family!r} ({place}); pass a file in `facts`.")
    return _parse(place.read_text(encoding="utf-8"), place)


def read_facts(
    source: str | Path | None, config: Mapping[str, Any], class_name: str, model_name: str
) -> dict[str, Any]:
    """Return the facts for one card, complete and for one class.

    Args:
        source: a YAML file, the name of a bundled one (`fact_names`), or `None` for only those of the family.
        config: config.json of the checkpoint.
        class_name: its class, used to resolve values that are given per class.
        model_name: name of the publication, if the facts do not have one.

    Raises:
        FileNotFoundError: for a file that does not exist (the message lists the bundled names).
        ValueError: for a file that is not a mapping, is about another family or config (see `about`), or lacks
            required entries.
    """
    family = config.get(FAMILY_FIELD, config["model_type"])
    own = {} if source is None else _read(source)
    about = own.get("family", family)
    if about != family:
        raise ValueError(f"{source} has facts about {about!r}, but the model belongs to the family {family!r}.")
    if not isinstance(own.get("about", {}), dict):
        raise ValueError(f"{source}: about is {own['about']!r}, expected fields of the config.")
    for name, value in own.get("about", {}).items():
        if config.get(name) != value:
            raise ValueError(f"{source} is about models with {name}={value!r}, but here it is {config.get(name)!r}.")
    # Facts without a family are complete, like those of the embedded default.
    common = family_facts(family) if source is None or "family" in own else {}
    facts = {key: _for_class(value, family, class_name) for key, value in {**common, **own}.items()}
    facts = {key: value for key, value in facts.items() if value is not None}
    for name in LISTS:
        if not isinstance(facts.get(name, []), list):
            raise ValueError(f"{source}: {name} is {facts[name]!r:.80}, expected a list.")
    # Entries that a checkpoint adds to those of its family.
    facts["parts"] = [*facts.get("parts", []), *facts.pop("training_parts", [])]
    facts["limits"] = [*facts.pop("training_limits", []), *facts.get("limits", [])]
    _add_what_config_says(facts, config)
    facts.setdefault("model_name", model_name)
    facts.setdefault("title", model_name)
    facts.setdefault("library_name", "transformers")
    facts.setdefault("pipeline_tag", "image-classification")
    facts.setdefault("tags", ["deepfake-detection", "deepfake-detectors", family])
    if common:
        facts.setdefault("summary", f"A detector of the family {family} ({class_name}), published by its trainer.")
    if missing := [key for key in REQUIRED if key not in facts or (key == "limits" and not facts[key])]:
        raise ValueError(
            f"{source} lacks {', '.join(missing)}, which the card needs. Add them, or a line `family: {family}` to "
            "use the facts about the family."
        )
    return facts


def _add_what_config_says(facts: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Add sentences of `by_config` (field -> value -> sentence) to the limits, and the base in config.json."""
    for name, sentences in facts.pop("by_config", {}).items():
        if sentence := sentences.get(str(config.get(name)).lower()):
            facts["limits"] = [sentence, *facts["limits"]]
    if (base := config.get("base_model")) and not facts.get("base_models"):
        facts["base_models"] = [{"id": base, "revision": None, "relation": "finetune"}]


def _folder() -> Any:
    return files("deepfake_detectors.hub_cards").joinpath("facts")


def _is_checkpoint(name: str) -> bool:
    """Return facts that are not about a family or a dataset."""
    if name.startswith(FAMILY_PREFIX):
        return False
    fields = yaml.safe_load(_folder().joinpath(name).read_text(encoding="utf-8"))
    return "model_name" in fields


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    bundled = _folder().joinpath(f"{source}.yaml")
    if path.is_file():
        text = read_text(path)
    elif path.name == str(source) and bundled.is_file():
        text = bundled.read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(f"{source} is neither a file nor one of the bundled facts: {', '.join(fact_names())}.")
    return _parse(text, source)


def _parse(text: str, source: Any) -> dict[str, Any]:
    fields = parse_yaml(text, source)
    if not isinstance(fields, dict):
        raise ValueError(f"{source} must contain keys and values, but is a {type(fields).__name__}.")
    return fields


def _for_class(value: Any, family: str, class_name: str) -> Any:
    """Return `value`, or if its keys are the family's model classes, the entry for this class (or `None`)."""
    row = FAMILIES[family]
    classes = {reference.partition(":")[2] for reference in (row.verdict, row.generation) if reference}
    if isinstance(value, dict) and value and value.keys() <= classes:
        return value.get(class_name)
    return value
