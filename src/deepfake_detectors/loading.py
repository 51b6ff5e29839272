"""Where a detector's config, model and processor come from, whether its folder is ours or a stock one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedConfig
from transformers.utils import CONFIG_NAME, find_adapter_config_file

from deepfake_detectors.families import FAMILIES, Family, family_of
from deepfake_detectors.files import read_json_object
from deepfake_detectors.modeling.detection import UnconvertedCheckpointError

__all__ = ["Checkpoint", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder or Hub id whose family is known; no weights are read before `load_model`.

    Attributes:
        source: folder or Hub id.
        family: its row.
        base: the folder or Hub id below it, where `source` is an adapter.
        model_type: what its config.json says.
    """

    source: str
    base: str | None
    family: Family
    model_type: str

    @property
    def stock(self) -> bool:
        """Whether only the family's own classes read it as a detector, because its `model_type` is a library's."""
        return self.model_type != self.family.name

    def load_config(self, **options: Any) -> Any:
        """Return the detector's config; `options` as in `from_pretrained`."""
        if self.stock:
            return self.family.load("verdict").config_of_stock(self.base or self.source, **options)
        return AutoConfig.from_pretrained(self.base or self.source, **{"trust_remote_code": False, **options})

    def load_model(self, **options: Any) -> Any:
        """Return the detector; `options` as in `from_pretrained`."""
        options = {"trust_remote_code": False, **options}
        if not self.stock:
            return AutoModel.from_pretrained(self.source, **options)
        with self._naming_other_families():
            model = self.family.load("verdict").from_pretrained(self.base or self.source, **options)
        if self.base is not None:
            model.load_adapter(self.source)
        return model

    def load_processor(self, **options: Any) -> Any:
        """Return the detector's processor; `options` as in `from_pretrained`."""
        options = {"trust_remote_code": False, **options}
        if not self.stock:
            return AutoProcessor.from_pretrained(self.source, **options)
        # What is asked stands in the base's config.json.
        with self._naming_other_families():
            return self.family.load("processor").from_pretrained(self.base or self.source, **options)

    @contextmanager
    def _naming_other_families(self) -> Iterator[None]:
        """Where a folder cannot be asked as a chat model, say whose weights it may hold instead."""
        try:
            yield
        except UnconvertedCheckpointError:
            raise
        except ValueError as error:
            other = next((row for row in FAMILIES.values() if row.stock_model_type == self.model_type), None)
            if other is None or other is self.family:
                raise
            verdict = other.verdict.partition(":")[2]
            raise UnconvertedCheckpointError(
                f"{self.source} is a checkpoint of model_type {self.model_type!r} that cannot be asked as a chat "
                f"model ({error}). If it holds {other.name} weights, {verdict}.from_pretrained and "
                f"family={other.name!r} load it as it is.",
                other.name,
                self.source,
            ) from error


def open_checkpoint(source: str | Path, family: str | None = None, config: Any = None, **options: Any) -> Checkpoint:
    """Return what is known of a checkpoint before it is loaded.

    Args:
        source: folder or Hub id.
        family: of a stock folder; see `families.family_of`.
        config: its config, where it is loaded already.
        options: where to find it (such as `revision`).

    Raises:
        ValueError, UnconvertedCheckpointError: as `families.family_of`.
        OSError: if there is no such checkpoint.
    """
    base = None
    if isinstance(config, PreTrainedConfig):
        fields = config.to_dict()
        base = _base_of(source, options)
    else:
        missing = None
        try:
            fields = PreTrainedConfig.get_config_dict(source, **options)[0]
        except OSError as error:
            fields, missing = {}, error
        if "model_type" not in fields and (base := _base_of(source, options)) is not None:
            fields = PreTrainedConfig.get_config_dict(base, token=options.get("token"))[0]
        elif missing is not None:
            raise missing
    row = family_of(fields, base or source, family)
    return Checkpoint(str(source), base, row, str(fields.get("model_type")))


def _base_of(source: str | Path, options: dict[str, Any]) -> str | None:
    """Return what an adapter was trained on; `None` where `source` is a whole model."""
    if (Path(source) / CONFIG_NAME).is_file():
        return None
    path = find_adapter_config_file(str(source), **options)
    return None if path is None else read_json_object(Path(path)).get("base_model_name_or_path")
