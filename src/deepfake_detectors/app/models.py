"""The detectors of an app, each loaded once, and cached conversations."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers.utils import cached_file

from deepfake_detectors.app.limits import RefusedUpload
from deepfake_detectors.checkpoints import BUILT_IN
from deepfake_detectors.examination.judging import Judge, Reading, public_name
from deepfake_detectors.modeling.conversation import Conversation
from deepfake_detectors.pipelines import load_config, resolve_model

__all__ = ["Conversations", "Models", "converse_about"]

logger = logging.getLogger(__name__)


class Models:
    """Detectors by the names in the menu; each is loaded on first use.

    Args:
        models: folders, Hub ids or names of built-in checkpoints; the first is selected at the start.
        device, dtype: as in `pipelines.load_detector`.
        family: family of the stock folders in `models`, as in `pipelines.pipeline`.

    Attributes:
        names: names in the menu: those given, then the built-in ones.

    Raises:
        ValueError, OSError: for a model that does not exist; weights are not read for this check.
    """

    def __init__(
        self,
        models: Sequence[str | Path] = (),
        device: str | None = None,
        dtype: str = "auto",
        family: str | None = None,
    ) -> None:
        if family is not None and not models:
            raise ValueError(f"family is {family!r}, but there is no `model` that it could apply to.")
        self._device, self._dtype = device, dtype
        self._families: dict[str, str | None] = {}
        self._sources: dict[str, str] = {}
        for model, said in [*((model, family) for model in models), *((name, None) for name in BUILT_IN)]:
            source, _ = load_config(model, said)
            self._families.setdefault(source, said)
            name, number = public_name(source), 1
            while self._sources.get(name, source) != source:
                number += 1
                name = f"{public_name(source)} ({number})"
            self._sources[name] = source
        self.names = list(self._sources)
        self._judges: dict[str, Judge] = {}
        self._lock = threading.Lock()

    def judge(self, name: str | None = None) -> Judge:
        """Return a loaded detector; `None` means the first one.

        Raises:
            ValueError: for a name that is not in `names`.
            RefusedUpload: a `ValueError`, if its weights cannot be loaded; the reason is logged.
        """
        name = self.names[0] if name is None else name
        if name not in self._sources:
            raise ValueError(f"There is no detector {name!r}. Choose one of {', '.join(self.names)}.")
        with self._lock:
            if name not in self._judges:
                try:
                    self._judges[name] = Judge(
                        self._sources[name],
                        self._device,
                        self._dtype,
                        family=self._families[self._sources[name]],
                    )
                except (ValueError, ImportError, OSError) as error:
                    logger.exception("The detector %s cannot be loaded", name)
                    raise RefusedUpload(
                        f"The detector {name} cannot be loaded here. The server log has the reason."
                    ) from error
            return self._judges[name]

    def card(self, name: str) -> str:
        """Return terms, limits and card of a detector as Markdown."""
        facts = self.judge(name).facts
        parts = [f"## {name}"]
        if facts["license_notice"]:
            parts.append(f"**Terms:** {facts['license_notice']}")
        if facts["limits"]:
            parts.append("**Limits:**\n\n" + "\n".join(f"- {limit}" for limit in facts["limits"]))
        path = cached_file(
            resolve_model(self._sources[name]), "README.md", _raise_exceptions_for_missing_entries=False
        )
        if path is not None:
            parts.append(ModelCard(Path(path).read_text(encoding="utf-8")).text)
        return "\n\n".join(parts)


class Conversations:
    """The most recent conversations, so that another question does not encode the image again.

    They contain cached images and questions, but nothing that identifies users: the history is sent with each
    question.

    Args:
        most: number of conversations to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Any, Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, begin: Callable[[], Conversation]) -> Conversation:
        """Return the conversation for a key; `begin` creates it if it is not cached."""
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= self._most:
                    self._kept.popitem(last=False)
                self._kept[key] = begin()
            self._kept.move_to_end(key)
            return self._kept[key]


def converse_about(judge: Judge, image: Image.Image, reading: Reading) -> Conversation:
    """Return a conversation about one image or face crop.

    Raises:
        ValueError: if the detector cannot converse.
    """
    model = judge.pipeline.model
    prepared: Mapping[str, Any] = judge.prepare(image, reading)
    inputs = {}
    for name, value in prepared.items():
        if isinstance(value, torch.Tensor):
            value = value.to(model.device)
            value = value.to(model.dtype) if value.is_floating_point() else value
        inputs[name] = value
    return model.converse(judge.pipeline.processor, **inputs)
