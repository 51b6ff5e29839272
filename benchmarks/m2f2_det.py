"""M2F2-Det: what this package skips, shares and batches, against the same weights doing the official work.

    python benchmarks/m2f2_det.py --size full       # real sizes of the detectors, random weights; minutes on a CPU
    python benchmarks/m2f2_det.py                   # mid-size

Both sides of every row use the same random weights and give the same result, which is checked before timing. Quote
the ratios: absolute times belong to the machine named in the first line.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from natural_stop import PUBLISHED_LENGTHS, stopping_after
from PIL import Image
from timing import Comparison, compare, hardware, table
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torchvision.transforms.functional import to_tensor
from transformers import PreTrainedTokenizerFast, pipeline

import deepfake_detectors  # noqa: F401  (registers the task)
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_m2f2_det import judgement_prompt

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# "The image is fake." and its end token: what the published model writes for most pictures.
VERDICT_TOKENS = 6
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}
MEDIUM = {
    "vision_config": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 6,
        "image_size": 336,
        "patch_size": 14,
    },
    "prompt_text_config": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        **NO_TOKENS,
    },
}
QUESTIONS = [
    "Describe the authenticity of the image based on nose, eyebrows.",
    *[f"The {part} in the image is fake, tell me why." for part in ("skin", "nose", "eyes", "eyebrows", "mouth")],
    "Is the image real or fake?",
]


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (299, 299, 3), dtype=np.uint8)) for _ in range(count)]


def detector(variant: str, size: str) -> tuple[M2F2DetForDeepfakeDetection, VerdictProcessor]:
    torch.manual_seed(0)
    fields = {} if size == "full" else MEDIUM
    model = M2F2DetForDeepfakeDetection(M2F2DetConfig(variant=variant, **fields)).to(DEVICE).eval()
    side = model.config.vision_config.image_size
    image_processor = M2F2DetImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return model, VerdictProcessor(image_processor)


@torch.no_grad()
def official_forward(model, processor, unit_tensors):
    """The published order of work: each picture back to bytes and through the processor by itself, every tower layer
    (all hidden states kept), the text tower, and in the bridge variant the whole bridge."""
    rows = [
        processor(images=Image.fromarray((t * 255).byte().permute(1, 2, 0).numpy()), return_tensors="pt")
        for t in unit_tensors
    ]
    pixels = torch.cat([row["pixel_values"] for row in rows]).to(DEVICE)
    states = model.vision_tower(pixels, output_hidden_states=True).hidden_states
    head = model.detector
    head.prompt_encoder._kept = None
    head.prompt_encoder()
    model.config.bridge_fast_path = False
    logits = head(pixels, dict(enumerate(states))).logits
    model.config.bridge_fast_path = True
    return logits


def fast_forward(model, processor, images):
    return model.detect(**processor(images=images, return_tensors="pt").to(DEVICE)).logits


def detector_row(variant: str, size: str, batch: int, repeats: int) -> Comparison:
    model, processor = detector(variant, size)
    images = pictures(batch)
    tensors = [to_tensor(image) for image in images]
    both = official_forward(model, processor, tensors), fast_forward(model, processor, images)
    assert torch.allclose(*both, atol=1e-4), "the two sides disagree"
    return compare(
        f"{variant} detector, batch {batch}",
        lambda: official_forward(model, processor, tensors),
        lambda: fast_forward(model, processor, images),
        repeats,
    )


def pipeline_row(size: str, batch: int, repeats: int) -> Comparison:
    model, processor = detector("cosine", size)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index, image in enumerate(pictures(batch)):
            paths.append(str(Path(folder) / f"{index}.png"))
            image.save(paths[-1])
        judge = pipeline("deepfake-detection", model=model, processor=processor, device=DEVICE)

        def bare():
            return fast_forward(model, processor, [Image.open(path).convert("RGB") for path in paths])

        return compare(f"pipeline, batch {batch}", lambda: judge(paths, batch_size=batch), bare, repeats)


def explaining_model() -> tuple[M2F2DetForConditionalGeneration, M2F2DetProcessor]:
    """Mid-size language model: about 5 times the tower's multiply-adds per picture (LLaVA-1.5-7B: about 20 times)."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator([judgement_prompt(), *QUESTIONS], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    wrapped.add_tokens(["<image>", "<deepfake>"], special_tokens=True)
    torch.manual_seed(0)
    text_config = {
        "vocab_size": len(wrapped),
        "hidden_size": 1024,
        "intermediate_size": 2752,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "eos_token_id": None,  # every side writes the same number of tokens
    }
    model = M2F2DetForConditionalGeneration(M2F2DetConfig(**MEDIUM, text_config=text_config)).to(DEVICE).eval()
    image_processor = M2F2DetImageProcessor()
    return model, M2F2DetProcessor(image_processor, wrapped, image_seq_length=model.config.num_patches)


def language_rows(new_tokens: int, repeats: int) -> list[Comparison]:
    model, processor = explaining_model()
    image = pictures(1)[0]
    pixels = processor(images=image).to(DEVICE)
    greedy = {"do_sample": False, "max_new_tokens": new_tokens}

    end = processor.tokenizer.convert_tokens_to_ids("<unk>")

    def judge_by_text(count: int = 1, **options):
        inputs = processor(images=[image] * count, text=[judgement_prompt()] * count).to(DEVICE)
        return model.generate(**inputs, **{**greedy, **options})

    def judge(count: int = 1):
        return model.detect(**processor(images=[image] * count).to(DEVICE))

    prompts = [processor.explanation_prompt(question) for question in QUESTIONS]
    lengths = PUBLISHED_LENGTHS[: len(QUESTIONS)]

    def stops(places) -> dict:
        return stopping_after([lengths[place] for place in places], end)

    def separate(natural: bool):
        answers = []
        for place, prompt in enumerate(prompts):
            inputs = processor(images=image, text=prompt).to(DEVICE)
            ids = model.generate(**inputs, **{**greedy, **(stops([place]) if natural else {})})
            answers.append(ids[0, inputs["input_ids"].shape[1] :].tolist())
        return answers

    def shared(natural: bool):
        options = {**greedy, **(stops(range(len(prompts))) if natural else {})}
        return model.answer_questions(processor, QUESTIONS, **pixels, **options)

    for natural in (False, True):
        alone = processor.tokenizer.batch_decode(separate(natural), skip_special_tokens=True)
        assert shared(natural) == [text.strip() for text in alone], "the two sides disagree"
    asked = f"{len(QUESTIONS)} questions on one picture, each alone against shared prefill"
    return [
        compare(f"verdict by {new_tokens} tokens of text, without an end token", judge_by_text, judge, repeats),
        compare(
            f"verdict by text that stops by itself ({VERDICT_TOKENS} tokens)",
            lambda: judge_by_text(**stopping_after([VERDICT_TOKENS], end)),
            judge,
            repeats,
        ),
        compare(
            f"the same, {len(QUESTIONS)} pictures at once on both sides",
            lambda: judge_by_text(len(QUESTIONS), **stopping_after([VERDICT_TOKENS] * len(QUESTIONS), end)),
            lambda: judge(len(QUESTIONS)),
            repeats,
        ),
        compare(f"{asked}, {new_tokens} tokens", lambda: separate(False), lambda: shared(False), repeats),
        compare(
            f"{asked}, {min(lengths)} to {max(lengths)} tokens",
            lambda: separate(True),
            lambda: shared(True),
            repeats,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=["medium", "full"], default="medium", help="sizes of the detector rows (default medium)"
    )
    parser.add_argument("--batch", type=int, default=4, help="pictures per detector pass")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--new-tokens", type=int, default=16, help="tokens per answer in the language rows")
    parser.add_argument("--skip-detector", action="store_true", help="language rows only")
    parser.add_argument("--skip-language", action="store_true", help="detector and pipeline rows only")
    options = parser.parse_args()
    print(f"{hardware()}; detector rows: {options.size} size\n")
    if not options.skip_detector:
        rows = [
            detector_row(variant, options.size, options.batch, options.repeats) for variant in ("bridge", "cosine")
        ]
        print(table(rows, "official work", "this package"), "\n")
        print(table([pipeline_row("medium", 16, options.repeats)], "pipeline", "bare preprocessing and model"), "\n")
    if not options.skip_language:
        print(table(language_rows(options.new_tokens, options.repeats), "official way", "this package"))


if __name__ == "__main__":
    main()
