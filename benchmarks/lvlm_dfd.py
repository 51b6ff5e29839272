"""LVLM-DFD: what this package skips, folds and batches, against the same weights doing the official work.

    python benchmarks/lvlm_dfd.py                   # mid-size, random weights; minutes on a CPU

Both sides of every row use the same random weights and give the same result, which is checked before timing. Quote
the ratios: absolute times belong to the machine named in the first line.
"""

import argparse
import statistics

import numpy as np
import torch
from natural_stop import PUBLISHED_LENGTHS, stopping_after
from PIL import Image
from timing import Comparison, compare, hardware, seconds, table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.processing_lvlm_dfd import OPENING, QUESTION, LvlmDfdProcessor, score_sentence

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LORA_RANK = 32
TEXT_CONTEXT = 77
# The encoder's depth and the heads are the released ones, widths are about a third. The language model has 14 times
# the encoder's parameters (released: about 11 times).
MEDIUM = {
    "imagebind_config": {
        "vision_config": {
            "hidden_size": 320,
            "intermediate_size": 1280,
            "num_hidden_layers": 16,
            "num_attention_heads": 4,
        },
        "text_config": {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 12,
            "num_attention_heads": 4,
        },
        "projection_dim": 256,
    },
    "tap_layers": [7, 11, 15],
    "stop_token_id": None,
}
LANGUAGE = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2752,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "eos_token_id": None,  # every side writes the same number of tokens
    "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
}


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (320, 320, 3), dtype=np.uint8)) for _ in range(count)]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word and per digit: prompts about as long as Vicuna's (87 positions)."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator([OPENING, QUESTION, "Assistant ##", *map(score_sentence, range(101))], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def mid_size() -> tuple[LvlmDfdForConditionalGeneration, LvlmDfdProcessor]:
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    config = LvlmDfdConfig(**MEDIUM, text_config={**LANGUAGE, "vocab_size": len(tokenizer)})
    model = LvlmDfdForConditionalGeneration(config).to(DEVICE).eval()
    size = config.image_size
    image_processor = LvlmDfdImageProcessor(size={"height": size, "width": size})
    return model, LvlmDfdProcessor(image_processor, tokenizer, stop_token_id=None)


class OfficialWork:
    """The published order of work on our weights, one picture at a time.

    The picture is loaded into two tensors; the stem is a 3-d convolution over the picture shown twice; attention keeps
    q, k and v in one packed module and its LoRA beside the MLP weights; every picture runs the text trunk twice at the
    full context; verdict and mask come together with a whole answer (`new_tokens=0` leaves it out).
    """

    def __init__(self, model: LvlmDfdForConditionalGeneration, processor: LvlmDfdProcessor) -> None:
        self.model, self.processor = model, processor
        self.imagebind = model.detector.imagebind
        self.kernel = self.imagebind.vision_model.embeddings.patch_embedding.weight.unsqueeze(2) / 2
        self.kernel = self.kernel.repeat(1, 1, 2, 1, 1)
        self.adapters, self.attentions = {}, {}
        for trunk in (self.imagebind.vision_model, self.imagebind.text_model):
            for layer in trunk.layers:
                for linear in (layer.mlp.fc1, layer.mlp.fc2):
                    self._split(linear)
                self.attentions[layer] = self._packed(layer.self_attn)

    def _split(self, linear: torch.nn.Linear) -> None:
        a = torch.randn(LORA_RANK, linear.in_features, device=DEVICE) / linear.in_features**0.5
        b = 0.01 * torch.randn(linear.out_features, LORA_RANK, device=DEVICE)
        self.adapters[linear] = (linear.weight.detach() - b @ a, a, b)

    def _packed(self, attention) -> torch.nn.MultiheadAttention:
        packed = torch.nn.MultiheadAttention(attention.embed_dim, attention.num_heads, device=DEVICE).eval()
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        packed.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
        packed.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
        packed.out_proj.load_state_dict(attention.out_proj.state_dict())
        return packed

    def _linear(self, linear: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        weight, a, b = self.adapters[linear]
        return F.linear(x, weight, linear.bias) + F.linear(F.linear(x, a), b)

    def _trunk(self, layers, x: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        x, outputs = x.transpose(0, 1), []  # sequence first
        for layer in layers:
            normed = layer.layer_norm1(x)
            x = x + self.attentions[layer](normed, normed, normed, need_weights=False, attn_mask=mask)[0]
            hidden = F.gelu(self._linear(layer.mlp.fc1, layer.layer_norm2(x)))
            x = x + self._linear(layer.mlp.fc2, hidden)
            outputs.append(x.transpose(0, 1))
        return outputs

    def _class_texts(self) -> torch.Tensor:
        texts, text_model = self.model.detector.class_texts, self.imagebind.text_model
        mask = torch.full((TEXT_CONTEXT, TEXT_CONTEXT), float("-inf"), device=DEVICE).triu(1)
        means = []
        for sentences in self.model.config.class_token_ids:
            ids = torch.tensor([[*s, *[0] * (TEXT_CONTEXT - len(s))] for s in sentences], device=DEVICE)
            state = self._trunk(text_model.layers, text_model.embeddings(ids), mask)[-1]
            end = text_model.final_layer_norm(state[torch.arange(len(ids)), ids.argmax(-1)])
            embeds = F.normalize(self.imagebind.text_projection(end), dim=-1)
            embeds = embeds * self.imagebind.logit_scale.exp().clamp(max=self.imagebind.config.max_logit_scale)
            means.append(torch.cat([texts.ctx, embeds]).mean(dim=0))
        return F.normalize(torch.stack(means), dim=-1)

    @torch.no_grad()
    def __call__(self, image: Image.Image, new_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.processor(images=image, crop_mode="center_crop")  # made and thrown away
        pixels = self.processor(images=image)["pixel_values"].to(DEVICE)
        detector, vision = self.model.detector, self.imagebind.vision_model
        patches = F.conv3d(pixels.unsqueeze(2).repeat(1, 1, 2, 1, 1), self.kernel, stride=(2, *self.kernel.shape[-2:]))
        embeddings = vision.embeddings
        tokens = torch.cat([embeddings.class_embedding.expand(1, 1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        state = vision.pre_layernorm(tokens + embeddings.position_embedding.weight)
        outputs = self._trunk(vision.layers, state, None)
        pooled = vision.post_layernorm(outputs[-1][:, 0])
        texts = self._class_texts()

        # What follows does not differ: our code, on these features.
        def official_vision(*_, **__):
            from deepfake_detectors.modeling.modeling_imagebind import ImageBindTrunkOutput

            taps = tuple(outputs[tap] for tap in self.model.config.tap_layers)
            return ImageBindTrunkOutput(last_hidden_state=outputs[-1], pooler_output=pooled, block_outputs=taps)

        ours = vision.forward, detector.class_texts.forward
        vision.forward, detector.class_texts.forward = official_vision, lambda *_: texts
        try:
            found = self.model.encode_pictures(pixels)
        finally:
            vision.forward, detector.class_texts.forward = ours
        if not new_tokens:
            return found.evidence.logits, found.evidence.mask
        text = self.processor.tokenize([self.processor.dialogue_prompt()]).to(DEVICE)
        self.model.generate(**text, pictures=found, max_new_tokens=new_tokens)
        return found.evidence.logits, found.evidence.mask


def verdict_rows(model, processor, batch: int, new_tokens: int, repeats: int) -> list[Comparison]:
    official, images = OfficialWork(model, processor), pictures(batch)

    def ours(count: int):
        return model.detect(processor(images=images[:count])["pixel_values"].to(DEVICE))

    logits, masks = zip(*(official(image, 1) for image in images), strict=True)
    together = ours(batch)
    assert torch.allclose(torch.cat(logits), together.logits, atol=1e-3), "the two sides disagree on the verdict"
    assert torch.allclose(torch.cat(masks), together.mask, atol=1e-3), "the two sides disagree on the mask"

    def row(count: int, tokens: int) -> Comparison:
        answers = "with its answer" if tokens else "without its answer"
        return compare(
            f"verdict and mask, batch {count}; official path {answers}",
            lambda: [official(image, tokens) for image in images[:count]],
            lambda: ours(count),
            repeats,
        )

    return [row(count, tokens) for tokens in (new_tokens, 0) for count in (1, batch)]


def answer_rows(model, processor, batch: int, new_tokens: int, repeats: int) -> list[Comparison]:
    """Explanations one by one and together: all of one length, and each as long as a published answer."""
    images = pictures(batch)
    lengths = (PUBLISHED_LENGTHS * batch)[:batch]
    end = processor.tokenizer.convert_tokens_to_ids("<unk>")

    def answers(group, **options):
        pixels = processor(images=group)["pixel_values"].to(DEVICE)
        return model.explain(processor, pixels, **options).explanations

    def row(name: str, options) -> Comparison:
        def single():
            return [answers([image], **options([place]))[0] for place, image in enumerate(images)]

        def together():
            return answers(images, **options(range(batch)))

        # Rounded to bfloat16, sums of a batch may tip a word; random weights hardly prefer any.
        assert model.dtype != torch.float32 or together() == single(), "the two sides disagree"
        return compare(name, single, together, repeats)

    return [
        row(f"{batch} explanations of {new_tokens} tokens", lambda places: {"max_new_tokens": new_tokens}),
        row(
            f"{batch} explanations that stop by themselves, {min(lengths)} to {max(lengths)} tokens",
            lambda places: stopping_after([lengths[place] for place in places], end),
        ),
    ]


def stage_table(model, processor, batch: int, new_tokens: int, repeats: int) -> str:
    """Where the time of explanations goes, and what each part gains from a batch."""
    pixels = processor(images=pictures(batch))["pixel_values"].to(DEVICE)
    costs = []
    for count in (1, batch):
        text = processor.tokenize([processor.dialogue_prompt()] * count).to(DEVICE)
        encoded = model.encode_pictures(pixels[:count])
        works = (
            lambda count=count: model.encode_pictures(pixels[:count]),
            lambda text=text, encoded=encoded: model.generate(**text, pictures=encoded, max_new_tokens=1),
            lambda text=text, encoded=encoded: model.generate(**text, pictures=encoded, max_new_tokens=new_tokens),
        )
        detector, first, answer = (_median(work, repeats) / count for work in works)
        costs.append((detector, first, answer - first, detector + answer))
    names = ("detector, mask and forgery prompts", "prefill", f"{new_tokens - 1} decoding steps", "together")
    rows = [
        f"| {name} | {1000 * one:.0f} ms | {1000 * many:.0f} ms | {one / many:.2f}x |"
        for name, one, many in zip(names, *costs, strict=True)
    ]
    head = f"| per picture | batch 1 | batch {batch} | ratio |\n| --- | --- | --- | --- |"
    return "\n".join([head, *rows])


@torch.no_grad()
def _median(work, repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = seconds()
        work()
        times.append(seconds() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="pictures per batch")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each side")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens per answer")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="with --skip-verdicts")
    parser.add_argument("--skip-verdicts", action="store_true", help="the explanations only")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    print(f"{hardware()}; mid-size, {options.dtype}, answers of {options.new_tokens} tokens without an end token\n")
    model, processor = mid_size()
    model = model.to(dtype)
    sizes = options.batch, options.new_tokens, options.repeats
    if not options.skip_verdicts:
        print(table(verdict_rows(model, processor, *sizes), "official path (batch 1)", "this package"), "\n")
    print(stage_table(model, processor, *sizes), "\n")
    print(table(answer_rows(model, processor, *sizes), "one by one", "one batch"))


if __name__ == "__main__":
    main()
