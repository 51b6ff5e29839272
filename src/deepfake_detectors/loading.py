"""Where a detector's config, model and processor come from, whether its folder is ours or a stock one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedConfig

from deepfake_detectors.families import Family, family_of

__all__ = ["Checkpoint", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder or Hub id whose family is known; no weights are read before `load_model`.

    Attributes:
        source: folder or Hub id.
        family: its row.
        stock: whether its `model_type` is that of a library class, so that only the family's own classes read it as a
            detector.
    """

    source: str
    family: Family
    stock: bool

    def load_config(self, **options: Any) -> Any:
        """Return the detector's config; `options` as in `from_pretrained`."""
        if self.stock:
            return self.family.load("verdict").config_of_stock(self.source, **options)
        return AutoConfig.from_pretrained(self.source, **{"trust_remote_code": False, **options})

    def load_model(self, **options: Any) -> Any:
        """Return the detector; `options` as in `from_pretrained`."""
        loader = self.family.load("verdict") if self.stock else AutoModel
        return loader.from_pretrained(self.source, **{"trust_remote_code": False, **options})

    def load_processor(self, **options: Any) -> Any:
        """Return the detector's processor; `options` as in `from_pretrained`."""
        loader = self.family.load("processor") if self.stock else AutoProcessor
        return loader.from_pretrained(self.source, **{"trust_remote_code": False, **options})


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
    if isinstance(config, PreTrainedConfig):
        fields = config.to_dict()
    else:
        fields = PreTrainedConfig.get_config_dict(source, **options)[0]
    row = family_of(fields, source, family)
    return Checkpoint(str(source), row, stock=fields.get("model_type") != row.name)
