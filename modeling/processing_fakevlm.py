"""Images and texts for FakeVLM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature, LlavaProcessor, PreTrainedConfig
from transformers.image_utils import make_flat_list_of_images
from transformers.utils import CONFIG_NAME

from .configuration_fakevlm import IMAGE_ASPECTS
from .detection import HUB_ARGUMENTS, DetectorProcessorMixin
from .image_processing_clip import FakeVLMImageProcessor
from .prompting_fakevlm import CHAT_TEMPLATES, IMAGE_MARKER, QUESTION, build_prompt, text_ids, training_text
from .verdict_parsing import parse_fakevlm_verdict

__all__ = ["FakeVLMProcessor"]

IGNORED = -100
IMAGE_FIELDS = (
    *("size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor"),
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad"),
)


class FakeVLMProcessor(DetectorProcessorMixin, LlavaProcessor):
    """
    A `LlavaProcessor` that always counts image tokens correctly and has FakeVLM's prompts.

    Args:
        image_processor: a `FakeVLMImageProcessor`; the settings of another CLIP or LLaVA image processor are copied to
            one, because only the PIL backend equals the official preprocessing.
        tokenizer: tokenizer of the language model, with `<image>` as an added token.
        patch_size, vision_feature_select_strategy: values of the model, which `from_pretrained` reads from the
            folder's config.
        chat_template: by default the training template of `prompt_style`.
        image_token: the placeholder, repeated once per image token.
        num_additional_image_tokens: always 1, the CLS token of CLIP. Folders written before transformers 4.46 do not
            have it, and the library's default of 0 is then one image token too few.
        prompt_style: `"raw"`, `"hf_chat"` or `"vicuna_v1"`, see `FakeVLMConfig`.
        image_aspect: `"crop"` or `"pad"`; by default that of the image processor.
        question: the default question.

    Raises:
        ValueError: for a tokenizer without `<image>`, or an unknown style or aspect.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | None = 14,
        vision_feature_select_strategy: str | None = "default",
        chat_template: str | None = None,
        image_token: str = IMAGE_MARKER,
        num_additional_image_tokens: int = 1,
        prompt_style: str = "raw",
        image_aspect: str | None = None,
        question: str = QUESTION,
        **kwargs: Any,
    ) -> None:
        if image_token not in tokenizer.get_vocab():
            raise ValueError(
                f"The tokenizer does not have the token {image_token}; add it with "
                f"tokenizer.add_tokens([{image_token!r}], special_tokens=True)"
            )
        build_prompt(question, prompt_style)  # refuse an unknown style now, not at the first question
        if image_aspect not in (None, *IMAGE_ASPECTS):
            raise ValueError(f"image_aspect is {image_aspect!r}, allowed are {', '.join(map(repr, IMAGE_ASPECTS))}.")
        image_processor = _own_image_processor(image_processor)
        if image_aspect is not None:
            image_processor.do_pad = image_aspect == "pad"
        self.image_aspect = "pad" if image_processor.do_pad else "crop"
        self.prompt_style = prompt_style
        self.question = question
        if tokenizer.pad_token is None:
            tokenizer.pad_token = "<pad>" if "<pad>" in tokenizer.get_vocab() else tokenizer.unk_token
        super().__init__(
            image_processor,
            tokenizer,
            patch_size=patch_size,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template or CHAT_TEMPLATES[prompt_style],
            image_token=image_token,
            num_additional_image_tokens=1,
            **kwargs,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load like the base class; settings missing from the processor's files come from the model's config."""
        fields = _model_fields(pretrained_model_name_or_path, kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, **{**fields, **kwargs})

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any) -> BatchFeature:
        """
        Args:
            images: one image or a list, one per prompt; enough for a verdict without `text`.
            text: prompts, each with one `<image>` (or none without images).
            kwargs: arguments of `LlavaProcessor`. Defaults: `padding=True`, `padding_side="left"` (to generate),
                `return_tensors="pt"`.

        Returns:
            `pixel_values` (images, 3, size, size), and with text also `input_ids`, `attention_mask` (prompts, length).

        Raises:
            ValueError: if the numbers of markers and images differ; the message has both numbers.
        """
        if images is None and text is None:
            raise ValueError("FakeVLMProcessor needs images, text or both.")
        kwargs.setdefault("return_tensors", "pt")
        if text is None:
            return BatchFeature({"pixel_values": self.image_processor(images, **kwargs)["pixel_values"]})
        self._check_markers([text] if isinstance(text, str) else text, images)
        kwargs = {"padding": True, "padding_side": "left", **kwargs}
        return super().__call__(images=images, text=text, **kwargs)

    def _check_markers(self, prompts: Sequence[str], images: Any) -> None:
        pictures = 0 if images is None else len(make_flat_list_of_images(images))
        counts = [prompt.count(self.image_token) for prompt in prompts]
        if sum(counts) != pictures:
            raise ValueError(
                f"The prompts contain {sum(counts)} {self.image_token} markers, but {pictures} images were given; "
                "each image needs one marker."
            )
        for prompt, count in zip(prompts, counts, strict=True):
            if pictures and count != 1:
                raise ValueError(
                    f"A prompt contains {count} {self.image_token} markers, but FakeVLM takes one image at a time: "
                    f"{prompt[:120]!r}"
                )

    @property
    def num_image_tokens(self) -> int:
        """Number of image tokens per image."""
        crop = self.image_processor.crop_size
        patches = (crop["height"] // self.patch_size) * (crop["width"] // self.patch_size)
        return patches + (self.vision_feature_select_strategy == "full")

    def explanation_prompt(self, question: str | None = None, history: Sequence[tuple[str, str]] = ()) -> str:
        """Return a prompt for one image in this processor's style; `None` uses the processor's own question.

        Args:
            question: the newest question.
            history: earlier questions and answers, oldest first.
        """
        question = self.question if question is None else question
        return build_prompt(question, self.prompt_style, history, self.tokenizer.eos_token)

    def suggested_questions(self, verdict: str) -> list[str]:
        """Return the questions the weights were trained on; they do not name the verdict."""
        return [self.question]

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of one prompt with its begin token, with `<image>` repeated `num_image_tokens` times."""
        return text_ids(self.tokenizer, self._expanded(text))

    def _expanded(self, text: str) -> str:
        return text.replace(self.image_token, self.image_token * self.num_image_tokens)

    def decode_answers(self, new_ids: torch.Tensor) -> list[str]:
        """Decode generated ids (prompts, new tokens) to stripped texts, without prompt and padding."""
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in new_ids]

    def read_verdicts(self, new_ids: torch.Tensor, rule: str = "official", undetermined: str = "keep") -> list[str]:
        """Return the verdict in each generated answer (prompts, new tokens); see `parse_fakevlm_verdict`."""
        return [parse_fakevlm_verdict(text, rule, undetermined=undetermined) for text in self.decode_answers(new_ids)]

    def encode_conversations(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        images: Any,
        max_length: int | None = None,
        pad_to_max_length: bool = False,
    ) -> BatchFeature:
        """Build a training batch like the official collators: right-padded, with loss only on answers and their end.

        Args:
            conversations: see `training_text`; the template is that of `prompt_style`.
            images: one image per conversation.
            max_length: truncate rows to this many tokens (official: 1024 in the newer code, 2048 in the first). A
                truncated row loses its end token. `None` does not truncate.
            pad_to_max_length: pad all rows to `max_length`, as in the newer code (same loss, more work).

        Returns:
            `pixel_values`, and `input_ids`, `attention_mask`, `labels` (conversations, length); labels are -100 where
            not supervised.

        Raises:
            ValueError: if the numbers of markers and images differ, or if `max_length` removes an answer completely or
                cuts the tokens of an image.
        """
        if pad_to_max_length and max_length is None:
            raise ValueError("pad_to_max_length needs a max_length.")
        texts = [training_text(turns, self.prompt_style, self.tokenizer.eos_token) for turns in conversations]
        self._check_markers([text for text, _ in texts], images)
        rows, labels = [], []
        for text, spans in texts:
            ids, supervised = self._supervised(text, spans)
            ids, supervised = ids[:max_length], supervised[:max_length]
            if not any(supervised) or ids.count(self.image_token_id) != self.num_image_tokens:
                raise ValueError(
                    f"max_length={max_length} removes the answer, or cuts the image's "
                    f"{self.num_image_tokens} tokens: {text[-120:]!r}"
                )
            rows.append(ids)
            labels.append([token if learn else IGNORED for token, learn in zip(ids, supervised, strict=True)])
        length = max_length if pad_to_max_length and max_length else max(map(len, rows))

        def padded(values: list[list[int]], fill: int) -> torch.Tensor:
            return torch.tensor([[*row, *[fill] * (length - len(row))] for row in values])

        return BatchFeature(
            {
                "input_ids": padded(rows, self.tokenizer.pad_token_id),
                "attention_mask": padded([[1] * len(row) for row in rows], 0),
                "labels": padded(labels, IGNORED),
                **self(images=images),
            }
        )

    def _supervised(self, text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int], list[bool]]:
        """Return the ids with the begin token, and which of them are supervised."""
        grown = len(self.image_token) * (self.num_image_tokens - 1)
        marker = text.find(self.image_token)
        spans = [(a + grown, b + grown) if 0 <= marker < a else (a, b) for a, b in spans]
        encoded = self.tokenizer(self._expanded(text), add_special_tokens=False, return_offsets_mapping=True)
        learn = [any(a <= start < b for a, b in spans) for start, _ in encoded["offset_mapping"]]
        return [self.tokenizer.bos_token_id, *encoded["input_ids"]], [False, *learn]


def _own_image_processor(image_processor: Any) -> FakeVLMImageProcessor:
    # Compared by name, because remote code from the Hub makes this class another object.
    if type(image_processor).__name__ == FakeVLMImageProcessor.__name__:
        return image_processor
    settings = {name: getattr(image_processor, name) for name in IMAGE_FIELDS if hasattr(image_processor, name)}
    return FakeVLMImageProcessor(**{name: value for name, value in settings.items() if value is not None})


def _model_fields(source: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the image settings from the model's config in the same folder; empty without a config."""
    if Path(str(source)).is_dir() and not (Path(str(source)) / CONFIG_NAME).exists():
        return {}
    hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config = PreTrainedConfig.get_config_dict(source, **hub_kwargs)[0]
    fields = {}
    if "patch_size" in config.get("vision_config", {}):
        fields["patch_size"] = config["vision_config"]["patch_size"]
    if "vision_feature_select_strategy" in config:
        fields["vision_feature_select_strategy"] = config["vision_feature_select_strategy"]
    return fields
