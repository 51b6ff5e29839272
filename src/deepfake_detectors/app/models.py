"""The detectors of an app: which there are, loaded once each, and conversations that are kept ready."""

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
    """Detectors by the names that a person chooses from; a detector is loaded when it is first asked for.

    Args:
        models: folders, Hub ids or names of built-in checkpoints; the first is chosen at start.
        device, dtype: as in `pipelines.load_detector`.
        family: of the stock folders in `models`, as in `pipelines.pipeline`.

    Attributes:
        names: to choose from: those given, then the built-in ones.

    Raises:
        ValueError, OSError: for a model that there is not; weights are not read for that.
    """

    def __init__(
        self,
        models: Sequence[str | Path] = (),
        device: str | None = None,
        dtype: str = "auto",
        family: str | None = None,
    ) -> None:
        if family is not None and not models:
            raise ValueError(f"family is {family!r}, but no model is given that it could be said of.")
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
        """Return a detector, ready to examine files; the first one for `None`.

        Raises:
            ValueError: for a name that is not in `names`.
            RefusedUpload: a `ValueError`, where its weights cannot be loaded; the reason is logged.
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
                        f"The detector {name} cannot be loaded here. Whoever runs this page finds out why in its log."
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
    """The last few conversations, so that a further question encodes no picture again.

    They hold what was read of pictures and questions, and nothing by which a question could be told whose it was:
    the history comes with each question.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Any, Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, begin: Callable[[], Conversation]) -> Conversation:
        """Return the conversation of a key; `begin` makes one that is not kept."""
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= self._most:
                    self._kept.popitem(last=False)
                self._kept[key] = begin()
            self._kept.move_to_end(key)
            return self._kept[key]


def converse_about(judge: Judge, image: Image.Image, reading: Reading) -> Conversation:
    """Return a conversation about one picture, or crop of a face.

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
