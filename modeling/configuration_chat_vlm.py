"""`chat_vlm`: any vision-language chat model, with a question that turns it into a detector.

A folder of this family is still a folder of its chat model: `config.json` is the stock one (`model_type` `qwen2_5_vl`,
`gemma3` ...), with the fields of `ChatVlmConfig` added. Stock loaders and `transformers serve` can therefore load it
without this package.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import CONFIG_NAME

from .configuration_detection import ID2LABEL, LABEL2ID, check_detection_fields

__all__ = [
    "ANSWERS",
    "FAMILY_FIELD",
    "QUESTION",
    "ChatVlmConfig",
    "check_answers",
    "is_chat_model",
]

QUESTION = "Is this image real or fake? Answer with one word, real or fake."
EXPLANATION_QUESTION = "Is this image real or fake? Explain what in the image shows it."
ANSWERS = {"real": ["Real", "real"], "fake": ["Fake", "fake"]}
# The key in config.json for our family, next to the stock `model_type`.
FAMILY_FIELD = "detector_family"
CLASSES = ("real", "fake")
# Keys that point to code in the folder; they belong to this class, not to the chat model's.
CODE_FIELDS = ("auto_map", "custom_pipelines")
CARRIED = (*CODE_FIELDS, "dtype")


def is_chat_model(model_type: str | None) -> bool:
    """Return whether `AutoModelForImageTextToText` loads folders of this `model_type`."""
    return model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def check_answers(answers: Any) -> None:
    """Raise a `ValueError` unless this is `{"real": [texts], "fake": [texts]}` without a text in both classes."""
    whole = isinstance(answers, Mapping) and set(answers) == set(CLASSES)
    if not whole or not all(
        isinstance(texts, (list, tuple)) and texts and all(isinstance(text, str) and text for text in texts)
        for texts in answers.values()
    ):
        raise ValueError(f"answers is {answers!r}, expected {{'real': [texts], 'fake': [texts]}} without empty texts.")
    if both := sorted(set(answers["real"]) & set(answers["fake"])):
        raise ValueError(
            f"answers has {', '.join(map(repr, both))} in both classes; each text can belong to only one."
        )


class ChatVlmConfig(PreTrainedConfig):
    """
    Args:
        vlm_config: config of the chat model, or its fields with `model_type`.
        question: the question for a verdict.
        answers: `{"real": [...], "fake": [...]}`, the answers whose probabilities are compared; a class gets the sum
            over its answers. A beginning that all answers share is added to the prompt and not compared.
        system_prompt: system message of the conversation; `None` uses the chat template's own.
        explanation_question: the question for an explanation; `None` uses `question`.
        answer_tokens: ids of the answers in the checkpoint's own tokenizer; made at load, see
            `prompting_chat_vlm.answer_tokens`.
        trained: whether the model was fine-tuned to answer `question`; otherwise it answers zero-shot, with unknown
            accuracy.
        base_model: Hub id of the model this detector is based on; `None` if unknown.
        calibration, operating_points, decision_band: see `configuration_detection`.

    Raises:
        ValueError: for a model that cannot chat about images, or a field out of range.
    """

    model_type = "chat_vlm"
    sub_configs = {"vlm_config": AutoConfig}
    keys_to_ignore_at_inference = ["cache", "past_key_values", "image_hidden_states", "rope_deltas"]

    vlm_config: Any = None
    question: str = QUESTION
    answers: dict[str, list[str]] | None = None
    system_prompt: str | None = None
    explanation_question: str | None = EXPLANATION_QUESTION
    answer_tokens: dict[str, Any] | None = None
    trained: bool = False
    base_model: str | None = None
    calibration: dict[str, float] | None = None
    operating_points: dict[str, float] | None = None
    decision_band: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.vlm_config, Mapping):
            fields = dict(self.vlm_config)
            kind = fields.pop("model_type", None)
            _require_chat_model(kind)
            self.vlm_config = AutoConfig.for_model(kind, **fields)
        if not isinstance(self.vlm_config, PreTrainedConfig):
            raise ValueError(f"vlm_config is {self.vlm_config!r}, expected the config of a vision-language model.")
        _require_chat_model(self.vlm_config.model_type)
        if self.image_token_id is None:
            raise ValueError(
                f"The config of {self.vlm_config.model_type} has no image token (image_token_id, image_token_index), "
                "so it cannot be asked about an image. Choose a chat model that takes images."
            )
        super().__post_init__(**kwargs)
        if self.architectures is None:
            self.architectures = ["ChatVlmForDeepfakeDetection"]
        if self.answers is None:
            self.answers = copy.deepcopy(ANSWERS)
        check_answers(self.answers)
        self.answers = {name: list(self.answers[name]) for name in CLASSES}
        for name in ("question", "explanation_question", "system_prompt"):
            value = getattr(self, name)
            if not (value is None and name != "question") and not (isinstance(value, str) and value.strip()):
                raise ValueError(f"{name} is {value!r}, expected a text{'' if name == 'question' else ' or None'}.")
        check_detection_fields(self)

    def get_text_config(self, *args: Any, **kwargs: Any) -> Any:
        """Return the config of the chat model's language part."""
        return self.vlm_config.get_text_config(*args, **kwargs)

    @property
    def image_token_id(self) -> int | None:
        """Id of the placeholder token for images."""
        named = (getattr(self.vlm_config, name, None) for name in ("image_token_id", "image_token_index"))
        return next((found for found in named if found is not None), None)

    @classmethod
    def own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that belong to this class and not to the chat model."""
        names = {*cls.__annotations__, "id2label", "label2id"} - {"vlm_config"}
        return {name: value for name, value in fields.items() if name in names}

    def detector_fields(self) -> dict[str, Any]:
        """Return the fields that config.json has in addition to the chat model's own."""
        found = {name: getattr(self, name) for name in type(self).__annotations__ if name != "vlm_config"}
        labels = {"id2label": {str(index): name for index, name in ID2LABEL.items()}, "label2id": dict(LABEL2ID)}
        return {FAMILY_FIELD: self.model_type, **found, **labels}

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Build the config as the base class does; a stock config becomes `vlm_config`."""
        fields, kwargs = super().get_config_dict(*args, **kwargs)
        return cls.nested(fields), kwargs

    @classmethod
    def nested(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of this class for a stock config, which may or may not include ours.

        Raises:
            ValueError: for a `model_type` that is not a chat model.
        """
        if fields.get("model_type") == cls.model_type:
            return dict(fields)
        _require_chat_model(fields.get("model_type"))
        own = cls.own_fields(fields) if fields.get(FAMILY_FIELD) == cls.model_type else {}
        carried = {name: fields[name] for name in CARRIED if fields.get(name) is not None}
        stock = {name: value for name, value in fields.items() if name not in (*own, *CODE_FIELDS, FAMILY_FIELD)}
        return {"model_type": cls.model_type, **carried, **own, "vlm_config": stock}

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the chat model's config.json with the fields of this class added to the stock ones."""
        self.vlm_config.save_pretrained(save_directory)
        self.add_to(Path(save_directory) / CONFIG_NAME)

    def add_to(self, path: Path) -> None:
        """Add the fields of this class to the stock config.json at `path`."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        # The class name of ours must not decide which stock class is loaded.
        for name in CODE_FIELDS:
            fields.pop(name, None)
            if value := vars(self).get(name):
                fields[name] = value
        path.write_text(json.dumps({**fields, **self.detector_fields()}, indent=2) + "\n", encoding="utf-8")


def _require_chat_model(model_type: str | None) -> None:
    if not is_chat_model(model_type):
        raise ValueError(
            f"model_type is {model_type!r}, which is not a vision-language model that answers in text. Allowed are "
            f"the {len(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)} types that AutoModelForImageTextToText loads, "
            "such as qwen2_5_vl, qwen3_vl, internvl, smolvlm, gemma3 and llava_onevision."
        )
