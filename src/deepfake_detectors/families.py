"""The table of families: what `families.toml` and plug-in packages say, as objects."""

from __future__ import annotations

import importlib
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from deepfake_detectors.modeling.detection import LLAVA_CODE_FIELDS, UnconvertedCheckpointError

__all__ = [
    "ENTRY_POINT_GROUP",
    "FAMILIES",
    "Family",
    "PluginError",
    "leave_out",
    "refuse_unconverted",
    "require_family",
    "resolve",
]

logger = logging.getLogger(__name__)

# Loading an entry point must not need more than its mapping. A package whose other modules may be imported before this
# one ends its `__init__` with `import deepfake_detectors`; else its classes are looked for while they are being made.
ENTRY_POINT_GROUP = "deepfake_detectors.families"


class PluginError(ImportError):
    """A package that adds a family to this one is broken."""


@dataclass(frozen=True)
class Family:
    """One row of the table. `families.toml` says what each field means; references are written `module:Name`.

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
    llava_fork: bool = False
    official: tuple[Mapping[str, str], ...] = ()
    converter: str | None = None
    converts_hub_ids: bool = False
    facts: str | None = None
    training: str | None = None
    sft: str | None = None
    mini: str | None = None
    plugin: str | None = None

    def load(self, role: str) -> Any:
        """Return what the field `role` refers to, such as the class behind `"verdict"`.

        Raises:
            ValueError: if the row leaves that field out.
        """
        reference = getattr(self, role)
        if reference is None:
            raise ValueError(f"The family {self.name!r} has no {role}.")
        return resolve(reference)

    def where_released(self) -> str:
        """Return a sentence on where the official checkpoints are, with a blank in front; `""` where none is known."""
        known = [f"{item['id']} ({item['where']})" for item in self.official if "where" in item]
        return f" Official weights of {self.title}: {', '.join(known)}." if known else ""

    @property
    def model_classes(self) -> tuple[Any, ...]:
        """Model classes, the verdict class first."""
        return tuple(dict.fromkeys(self.load(role) for role in ("verdict", "generation") if getattr(self, role)))


def resolve(reference: str) -> Any:
    """Return the object that `module:Name` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _row(name: str, values: Mapping[str, Any], plugin: str | None = None) -> Family:
    """Check and return a row.

    Raises:
        ValueError: for a key that is missing or not known.
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
                raise PluginError("a family of this name exists already")
            table[point.name] = _plugin_row(point)
        except PluginError as error:
            _warn(point.name, point.value, error)
    return table


def _plugin_row(point: EntryPoint) -> Family:
    try:
        return _row(point.name, dict(point.load()), plugin=point.value)
    except Exception as error:  # code of others may raise anything
        raise PluginError(f"{type(error).__name__}: {error}") from error


def _warn(name: str, plugin: str | None, reason: Exception) -> None:
    logger.warning("The plug-in family %s (%s) was left out: %s", name, plugin, reason)


_table = _read_table()
FAMILIES: Mapping[str, Family] = MappingProxyType(_table)


def leave_out(family: Family, reason: Exception) -> None:
    """Take a broken plug-in out of `FAMILIES`, with a warning that names it."""
    del _table[family.name]
    _warn(family.name, family.plugin, reason)


def require_family(name: str | None, what: str) -> Family:
    """Return the family of that name.

    Args:
        name: a `model_type`.
        what: what has it, for the message.

    Raises:
        ValueError: naming the known families.
    """
    if name is None or name not in FAMILIES:
        raise ValueError(
            f"{what} has model_type {name!r}, which is not a detector family. Known families: {', '.join(FAMILIES)}. "
            "Convert official weights first with convert(family, sources, output)."
        )
    return FAMILIES[name]


def refuse_unconverted(fields: Mapping[str, Any], source: Any) -> None:
    """Raise an error for a folder that may hold a detector in another form.

    Args:
        fields: its config.json.
        source: the folder, for the message.

    Raises:
        UnconvertedCheckpointError: for a folder of LLaVA's own code or its forks, and for one of a stock class in
            whose layout checkpoints of a family are published.
    """
    found = fields.get("model_type")
    if any(name in fields for name in LLAVA_CODE_FIELDS):
        forks = [name for name, row in FAMILIES.items() if row.llava_fork]
        fault = f"{source} (model_type {found!r}) was written by a fork of the LLaVA code: {' or '.join(forks)}."
        raise UnconvertedCheckpointError(fault, forks[0] if len(forks) == 1 else None, source)
    for name, row in FAMILIES.items():
        if row.stock_model_type is not None and row.stock_model_type == found:
            verdict = row.verdict.partition(":")[2]
            fault = (
                f"{source} is a checkpoint of model_type {found!r}. If it holds {name} weights, "
                f"{verdict}.from_pretrained loads it as it is; everything else needs a folder that names its family."
            )
            raise UnconvertedCheckpointError(fault, name, source)
