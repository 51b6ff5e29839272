"""What lies beside the weights of a FakeVLM folder, in this package's form or in the stock Llava one."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPImageProcessor, GenerationConfig, LlavaConfig, LlavaImageProcessor, LlavaProcessor

from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.processing_fakevlm import IMAGE_FIELDS, FakeVLMProcessor

__all__ = ["DISK_FORMATS", "save_configs"]

DISK_FORMATS = ("fakevlm", "llava")
# Of a verdict, and so unknown to a stock loader.
VERDICT_FIELDS = {*FakeVLMConfig.__annotations__, "id2label", "label2id", "model_type", "architectures"}


def save_configs(
    config: FakeVLMConfig, generation: GenerationConfig, processor: FakeVLMProcessor, output: Path, format: str
) -> None:
    """Write config, generation config and processor to `output`.

    Args:
        format: `"fakevlm"`, or `"llava"`: `model_type` llava and a stock `LlavaProcessor` (with torchvision's resize,
            which differs from the official one by at most one grey level).
    """
    generation.save_pretrained(output)
    if format == "fakevlm":
        config.save_pretrained(output)
        processor.save_pretrained(output)
        return
    fields = {name: value for name, value in config.to_dict().items() if name not in VERDICT_FIELDS}
    LlavaConfig(**fields, architectures=["LlavaForConditionalGeneration"]).save_pretrained(output)
    own = processor.image_processor
    settings = {name: getattr(own, name) for name in IMAGE_FIELDS if getattr(own, name) is not None}
    if not settings.pop("do_pad", False):
        image_processor = CLIPImageProcessor(**settings)
    else:
        image_processor = LlavaImageProcessor(**settings, do_pad=True)
    stock = LlavaProcessor(
        image_processor,
        processor.tokenizer,
        patch_size=processor.patch_size,
        vision_feature_select_strategy=processor.vision_feature_select_strategy,
        chat_template=processor.chat_template,
        num_additional_image_tokens=1,
    )
    stock.save_pretrained(output)
    image_processor.save_pretrained(output)  # preprocessor_config.json, which servers on transformers 4 read
