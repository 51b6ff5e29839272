"""Where a detector's config, model and processor come from, whether its folder is ours or a stock one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedConfig
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from deepfake_detectors.families import Family, family_of
from deepfake_detectors.files import read_json_object

__all__ = ["Checkpoint", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder or Hub id whose family is known; no weights are read before `load_model`.

    Attributes:
        source: folder or Hub id.
        family: its row.
        base: the folder or Hub id below it, where `source` is an adapter.
        stock: whether its `model_type` is that of a library class, so that only the family's own classes read it as a
            detector.
    """

    source: str
    base: str | None
    family: Family
    stock: bool

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
        return self.family.load("processor").from_pretrained(self.base or self.source, **options)


def open_checkpoint(source: str | Path, family: str | None = None, config: Any = None, **options: Any) -> Checkpoint:
    """Return what is known of a checkpoint before it is loaded.

    Args:
        source: folder or Hub id.
        family: of a stock folder; see `families.family_of`.
        config: its config, where it is loaded already.
        options: where it lies (`revision` and the like).

    Raises:
        ValueError, UnconvertedCheckpointError: as `families.family_of`.
        OSError: if there is no such checkpoint.
    """
    base = _base_of(Path(source))
    if isinstance(config, PreTrainedConfig):
        fields = config.to_dict()
    else:
        fields = PreTrainedConfig.get_config_dict(base or source, **options)[0]
    row = family_of(fields, base or source, family)
    return Checkpoint(str(source), base, row, stock=fields.get("model_type") != row.name)


def _base_of(folder: Path) -> str | None:
    """Return what the adapter in `folder` was trained on; `None` where it holds a whole model."""
    path = folder / ADAPTER_CONFIG_NAME
    if not path.is_file() or (folder / CONFIG_NAME).is_file():
        return None
    return read_json_object(path).get("base_model_name_or_path")
