"""The table of families from `families.toml` and plug-in packages."""

from __future__ import annotations

import importlib
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from deepfake_detectors.modeling.configuration_chat_vlm import FAMILY_FIELD, is_chat_model
from deepfake_detectors.modeling.detection import LLAVA_CODE_FIELDS, UnconvertedCheckpointError

__all__ = [
    "ENTRY_POINT_GROUP",
    "FAMILIES",
    "Family",
    "PluginError",
    "family_of",
    "leave_out",
    "refuse_unconverted",
    "require_family",
    "resolve",
]

logger = logging.getLogger(__name__)

# Loading an entry point must only need its mapping. A package whose other modules may be imported before this one must
# end its `__init__` with `import deepfake_detectors`; otherwise its classes are looked up while they are being
# created.
ENTRY_POINT_GROUP = "deepfake_detectors.families"


class PluginError(ImportError):
    """Raised for a broken package that adds a family."""


@dataclass(frozen=True)
class Family:
    """One row of the table. The fields are documented in `families.toml`; references are written `module:Name`.

    `plugin` is the entry point of a family that another package adds, `None` for those of this package.
    """

    name: str
    title: str
    judges: str
    config: str
    verdict: str
    processor: str
    image_processor: str
    generation: str | None = None
    paper: str | None = None
    code: str | None = None
    doors: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stock_model_type: str | None = None
    any_chat_model: bool = False
    llava_fork: bool = False
    official: tuple[Mapping[str, str], ...] = ()
    converter: str | None = None
    converts_hub_ids: bool = False
    facts: str | None = None
    training: str | None = None
    sft: str | None = None
    served: str | None = None
    mini: str | None = None
    plugin: str | None = None

    def load(self, role: str) -> Any:
        """Return the object that the field `role` refers to, such as the class for `"verdict"`.

        Raises:
            ValueError: if the row lacks this field.
        """
        reference = getattr(self, role)
        if reference is None:
            raise ValueError(f"The family {self.name!r} has no {role}.")
        return resolve(reference)

    def where_released(self) -> str:
        """Return a sentence about the official checkpoints with a leading space; `""` if none are known."""
        known = [f"{item['id']} ({item['where']})" for item in self.official if "where" in item]
        return f" Official weights of {self.title}: {', '.join(known)}." if known else ""

    @property
    def model_classes(self) -> tuple[Any, ...]:
        """Return the model classes, the verdict class first."""
        return tuple(dict.fromkeys(self.load(role) for role in ("verdict", "generation") if getattr(self, role)))


def resolve(reference: str) -> Any:
    """Return the object for `module:Name`."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _row(name: str, values: Mapping[str, Any], plugin: str | None = None) -> Family:
    """Check and return a row.

    Raises:
        ValueError: for a missing or unknown key.
    """
    known = {item.name: item for item in fields(Family) if item.name not in ("name", "plugin")}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"The family {name!r} has unknown keys {', '.join(unknown)}; known are {', '.join(known)}.")
    needed = {key for key, item in known.items() if item.default is MISSING and item.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"The family {name!r} lacks the keys {', '.join(missing)}.")
    return Family(name=name, plugin=plugin, **{**values, "official": tuple(values.get("official", ()))})


def _read_table() -> dict[str, Family]:
    """Read the package's own rows, then those of installed plug-ins."""
    text = files("deepfake_detectors").joinpath("families.toml").read_text(encoding="utf-8")
    table = {name: _row(name, values) for name, values in tomllib.loads(text).items()}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            if point.name in table:
                raise PluginError("a family with this name already exists")
            table[point.name] = _plugin_row(point)
        except PluginError as error:
            _warn(point.name, point.value, error)
    return table


def _plugin_row(point: EntryPoint) -> Family:
    try:
        return _row(point.name, dict(point.load()), plugin=point.value)
    except Exception as error:  # external code may raise any error
        raise PluginError(f"{type(error).__name__}: {error}") from error


def _warn(name: str, plugin: str | None, reason: Exception) -> None:
    logger.warning("Skipped the plug-in family %s (%s): %s", name, plugin, reason)


_table = _read_table()
FAMILIES: Mapping[str, Family] = MappingProxyType(_table)


def leave_out(family: Family, reason: Exception) -> None:
    """Remove a broken plug-in from `FAMILIES` with a warning."""
    del _table[family.name]
    _warn(family.name, family.plugin, reason)


def require_family(name: str | None, what: str) -> Family:
    """Return the family of that name.

    Args:
        name: a `model_type`.
        what: the object with this `model_type`, for the message.

    Raises:
        ValueError: naming the known families.
    """
    if name is None or name not in FAMILIES:
        raise ValueError(
            f"{what} has model_type {name!r}, which is not a detector family. Known families: {', '.join(FAMILIES)}. "
            "Convert official weights first with convert(family, sources, output)."
        )
    return FAMILIES[name]


def family_of(fields: Mapping[str, Any], source: Any, family: str | None = None) -> Family:
    """Return the family of a checkpoint, or the one used for a stock folder.

    A stock folder, whose `model_type` is not that of a family, is resolved by its Hub id, or else by `family`, or else
    as a zero-shot chat model, with a warning in the log.

    Args:
        fields: its config.json.
        source: the folder or Hub id.
        family: family given by the caller.

    Raises:
        UnconvertedCheckpointError: for weights that must be converted first.
        ValueError: for an unknown `family`, one that contradicts the folder, or a folder without a family.
    """
    if family is not None:
        require_family(family, f"family={family!r}")
    found = fields.get("model_type")
    own = fields.get(FAMILY_FIELD, found)
    if own in FAMILIES:
        if family not in (None, own):
            raise ValueError(f"family is {family!r}, but {source} is a checkpoint of the family {own!r}.")
        return FAMILIES[own]
    refuse_unconverted(fields, source)
    for row in FAMILIES.values():
        for released in row.official:
            if released["id"] == str(source) and family in (None, row.name):
                if released["loads"] != "stock":
                    raise UnconvertedCheckpointError(
                        f"{source} contains official {row.name} weights.", row.name, source
                    )
                return row
    chat = next((row for row in FAMILIES.values() if row.any_chat_model and is_chat_model(found)), None)
    if family is None:
        if chat is None:
            classes = ", ".join(fields.get("architectures") or ["no class named"])
            return require_family(found, f"{source} ({classes})")
        others = [repr(row.name) for row in FAMILIES.values() if row.stock_model_type == found]
        hint = f" If it contains weights of {' or '.join(others)}, set `family`." if others else ""
        _remark_zero_shot(str(source), str(found), hint)
        return chat
    row = FAMILIES[family]
    if row is chat or row.stock_model_type == found:
        return row
    if row.stock_model_type is None and not row.any_chat_model:
        raise UnconvertedCheckpointError(f"{source} is a checkpoint of model_type {found!r}.", family, source)
    raise ValueError(f"{source} is a checkpoint of model_type {found!r}, which {family} cannot read.")


@cache
def _remark_zero_shot(source: str, model_type: str, hint: str) -> None:
    logger.warning(
        "%s (model_type %s) was not trained as a deepfake detector: it is used zero-shot as chat_vlm, its scores are "
        "uncalibrated, and its accuracy is unknown.%s",
        source,
        model_type,
        hint,
    )


def refuse_unconverted(fields: Mapping[str, Any], source: Any) -> None:
    """Raise an `UnconvertedCheckpointError` for a folder from LLaVA's original code or its forks.

    Args:
        fields: its config.json.
        source: the folder, for the message.
    """
    found = fields.get("model_type")
    if any(name in fields for name in LLAVA_CODE_FIELDS):
        forks = [name for name, row in FAMILIES.items() if row.llava_fork]
        fault = f"{source} (model_type {found!r}) was written by a fork of the LLaVA code: {' or '.join(forks)}."
        raise UnconvertedCheckpointError(fault, forks[0] if len(forks) == 1 else None, source)
