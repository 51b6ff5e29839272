"""FakeVLM's verdict: the one-prefill score against the official evaluation's work and against a short answer."""

from typing import Any

import numpy as np
import torch
from natural_stop import stopping_after
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from verdict_row import Row

from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION, build_prompt

__all__ = ["fakevlm_rows"]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The official script pads the text to this before the picture's tokens take the place of one.
OFFICIAL_TEXT_LENGTH = 1024
OFFICIAL_STEPS = 256  # at most; the fixed length of the first row
# Where an answer stops by itself. Assumed: FakeVLM's own answers are not published.
ASSUMED_STEPS = 64
BATCH = 8


def build() -> tuple[FakeVLMForDeepfakeDetection, FakeVLMProcessor]:
    """Real picture size and prompt; every other size cut down, language model to tower as in LLaVA-1.5-7B.

    There: 6.6 billion weights read by 589 tokens, 0.30 billion by 577, and 2 % of the former in the vocabulary.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator([QUESTION, "This is a real image.", "This is a fake image."], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    wrapped.add_tokens(["<image>"], special_tokens=True)
    config = FakeVLMConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": 336,
            "patch_size": 14,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 1024,
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "eos_token_id": None,  # every answer has the full length
        },
        image_token_index=wrapped.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = FakeVLMForDeepfakeDetection(config).to(DEVICE).eval()
    model.set_verdict_tokens(wrapped)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = wrapped.pad_token_id
    size = {"height": 336, "width": 336}
    image_processor = FakeVLMImageProcessor(size={"shortest_edge": 336}, crop_size=size)
    return model, FakeVLMProcessor(image_processor, wrapped)


def multiply_adds(model: FakeVLMForDeepfakeDetection, prefill: int, steps: int) -> float:
    """Of one picture: tower, `prefill` positions, `steps` further tokens; attention and vocabulary included."""
    vision, text = model.config.vision_config, model.config.text_config
    seen = model.config.num_image_tokens + 1
    tower = seen * sum(w.numel() for w in model.model.vision_tower.encoder.parameters())
    tower += vision.num_hidden_layers * 2 * seen**2 * vision.hidden_size
    layers = sum(w.numel() for w in model.model.language_model.layers.parameters())
    total = prefill + steps
    attention = text.num_hidden_layers * total**2 * text.hidden_size  # causal: half of 2 n^2 h
    projector = seen * sum(w.numel() for w in model.model.multi_modal_projector.parameters())
    return tower + projector + total * layers + attention + (1 + steps) * model.lm_head.weight.numel()


def fakevlm_rows() -> list[Row]:
    model, processor = build()
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    prompt = build_prompt()
    short = len(processor.token_ids(prompt))
    long = OFFICIAL_TEXT_LENGTH - 1 + processor.num_image_tokens

    def answer(length: int | None, steps: int, count: int = 1, **options: Any) -> Any:
        inputs = processor(images=[picture] * count, text=[prompt] * count).to(DEVICE)
        if length is not None:
            padding = length - inputs["input_ids"].shape[1]
            for name, value in {"input_ids": processor.tokenizer.pad_token_id, "attention_mask": 0}.items():
                inputs[name] = torch.nn.functional.pad(inputs[name], (padding, 0), value=value)
        return model.generate(**inputs, do_sample=False, **{"max_new_tokens": steps, **options})

    def stopped_answer(length: int | None, count: int = 1) -> Any:
        end = processor.tokenizer.convert_tokens_to_ids("</s>")
        return answer(length, ASSUMED_STEPS, count, **stopping_after([ASSUMED_STEPS] * count, end))

    def verdict(count: int = 1) -> torch.Tensor:
        return model.detect(**processor(images=[picture] * count).to(DEVICE)).logits

    details = {"output_logits": True, "return_dict_in_generate": True}
    first = [answer(length, 1, **details).logits[0] for length in (long, None)]
    assert torch.allclose(*first, atol=1e-4), "padding changed the answer"
    assert answer(long, 5).shape[1] == long + 5
    forced = processor(images=picture, text=prompt + model.config.forced_prefix).to(DEVICE)
    with torch.no_grad():
        tokens = model.config.verdict_tokens
        expected = model(**forced).logits[:, -1, [tokens["real"], tokens["fake"]]]
    assert torch.allclose(verdict(), expected, atol=1e-4), "the score is not the model's own"

    assert stopped_answer(long).shape[1] == long + ASSUMED_STEPS

    ours = multiply_adds(model, short + len(model.config.verdict_tokens["prefix"]), 0)
    return [
        Row(
            f"FakeVLM: official evaluation, {long} positions and {OFFICIAL_STEPS} tokens",
            lambda: answer(long, OFFICIAL_STEPS),
            verdict,
            multiply_adds(model, long, OFFICIAL_STEPS) / ours,
        ),
        Row(
            f"FakeVLM: the same, stopping by itself after {ASSUMED_STEPS} tokens",
            lambda: stopped_answer(long),
            verdict,
            multiply_adds(model, long, ASSUMED_STEPS) / ours,
        ),
        Row(
            f"FakeVLM: the same, {BATCH} pictures at once on both sides",
            lambda: stopped_answer(long, BATCH),
            lambda: verdict(BATCH),
            multiply_adds(model, long, ASSUMED_STEPS) / ours,
            BATCH,
        ),
        Row(
            f"FakeVLM: short prompt ({short} positions), {ASSUMED_STEPS} tokens, {BATCH} at once on both sides",
            lambda: stopped_answer(None, BATCH),
            lambda: verdict(BATCH),
            multiply_adds(model, short, ASSUMED_STEPS) / ours,
            BATCH,
        ),
    ]
