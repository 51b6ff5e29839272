"""AntifakePrompt's verdict: one pass over the question against the official loss of two rows per picture.

    python benchmarks/verdict_antifakeprompt.py                  # two minutes on two CPU cores

Both sides run in one process on the same random weights and give the same scores, which is checked before timing.
The sizes fit a small machine and keep the proportions of the released model: as much work in the vision tower as in
one row of the language model, 32 queries, and a head of the same share. Quote the ratios: absolute times belong to
the machine named in the first line. The ceiling is the ratio of floating point operations, counted while running.
"""

import argparse
import ctypes
import statistics
from pathlib import Path

import torch
from timing import Comparison, compare, hardware
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IGNORED = -100
QUESTION_LENGTH = 7  # of the released prompt, start token included
VOCABULARY = 1240
QFORMER_VOCABULARY = 128
SIZES = {
    "vision_config": {
        "hidden_size": 352,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "initializer_range": 0.02,
    },
    "qformer_config": {
        "vocab_size": QFORMER_VOCABULARY,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 1024,
        "intermediate_size": 2752,
        "num_hidden_layers": 5,
        "num_attention_heads": 8,
        "initializer_range": 0.02,
    },
}


def build() -> AntifakePromptForDeepfakeDetection:
    torch.manual_seed(0)
    config = AntifakePromptConfig(**SIZES)
    config.llm_prompt_ids = [2, 10, 11, 12, 13, config.llm_soft_word_id, 14]
    assert len(config.llm_prompt_ids) == QUESTION_LENGTH
    config.qformer_prompt_ids = [2, 10, 11, 12, 13, config.qformer_soft_word_id, 14, 3]
    config.candidate_ids = [[20], [21]]
    model = AntifakePromptForDeepfakeDetection(config).to(DEVICE).eval()
    with torch.no_grad():
        model.query_tokens.normal_(0, 0.5)
    return model


@torch.no_grad()
def official(model: AntifakePromptForDeepfakeDetection, pixels: torch.Tensor) -> torch.Tensor:
    """`predict_class`: pictures encoded once, a whole row per answer, all logits, the mean loss of each row.

    Returns fake - real in nats, shape (batch,).
    """
    candidates = model.config.candidate_ids
    embeds, mask = model._prefix(pixels, None, {})
    answers = torch.tensor(candidates, device=pixels.device).repeat(len(pixels), 1)
    rows = embeds.repeat_interleave(len(candidates), dim=0)
    rows = torch.cat([rows, model.get_input_embeddings()(answers)], dim=1)
    labels = torch.full(rows.shape[:2], IGNORED, device=pixels.device)
    labels[:, -answers.shape[1] :] = answers
    mask = torch.cat([mask.repeat_interleave(len(candidates), dim=0), torch.ones_like(answers)], dim=1)
    logits = model.language_model(inputs_embeds=rows, attention_mask=mask, use_cache=False).logits.float()
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").mean(dim=1)
    pairs = losses.view(len(pixels), len(candidates)) * (labels.shape[1] - 1)
    return pairs[:, 0] - pairs[:, 1]


def one_pass(model: AntifakePromptForDeepfakeDetection, pixels: torch.Tensor) -> torch.Tensor:
    logits = model.detect(pixels).logits
    return logits[:, 1] - logits[:, 0]


def flops(run, *arguments: object) -> int:
    with FlopCounterMode(display=False) as counter:
        run(*arguments)
    return counter.get_total_flops()


def full_size_flops(rows: int, length: int, head_positions: int) -> float:
    """Floating point operations per picture at the released sizes: products with weights, and of attention."""
    config = AntifakePromptConfig()
    with torch.device("meta"):
        model = AntifakePromptForDeepfakeDetection(config)

    def linears(module: torch.nn.Module) -> int:
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)))

    vision, text = config.vision_config, config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    tower = 2 * linears(model.vision_model) * patches
    tower += 4 * patches**2 * vision.hidden_size * vision.num_hidden_layers
    # queries and question pass the Q-Former; its cross-attention keys and values are made from all patches
    qformer = 0
    tokens = config.num_query_tokens + QUESTION_LENGTH + 1
    for name, module in model.qformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            crossing = "crossattention.attention" in name and name.endswith(("key", "value"))
            qformer += 2 * module.weight.numel() * (patches if crossing else tokens)
    decoder = 2 * linears(model.language_model.model) * length
    decoder += 4 * length**2 * text.hidden_size * text.num_hidden_layers
    head = 2 * text.hidden_size * text.vocab_size * head_positions
    return tower + qformer + rows * (decoder + head)


def peak_megabytes(run, model: AntifakePromptForDeepfakeDetection, pixels: torch.Tensor) -> float:
    """Memory that one run of a side adds to the weights; on the CPU by Linux's own mark of the process."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(model, pixels)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # gives back what the runs before have left in the allocator
    Path("/proc/self/clear_refs").write_text("5")  # sets the mark back to what is resident now
    before = _status_kilobytes("VmRSS")
    run(model, pixels)
    return (_status_kilobytes("VmHWM") - before) / 2**10


def _status_kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def pictures(batch: int) -> torch.Tensor:
    size = AntifakePromptConfig(**SIZES).vision_config.image_size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def row(result: Comparison, batch: int, ceiling: float, peaks: tuple[float, float]) -> str:
    slow, fast = (batch / statistics.median(times) for times in (result.slow, result.fast))
    ratios = result.ratios
    return (
        f"| {result.name} | {slow:.2f} images/s, +{peaks[0]:.0f} MB | {fast:.2f} images/s, +{peaks[1]:.0f} MB | "
        f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) | {ceiling:.2f}x |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="pictures per pass (official: 8)")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each side")
    options = parser.parse_args()
    model = build()
    print(f"{hardware()}; random weights, float32\n")
    print(
        "| AntifakePrompt's verdict | official, two rows | this package, one pass | ratio (range of pairs) | ceiling |"
    )
    print("| --- | --- | --- | --- | --- |")
    for batch in options.batch:
        pixels = pictures(batch)
        peaks = tuple(peak_megabytes(run, model, pixels) for run in (official, one_pass))
        both = official(model, pixels), one_pass(model, pixels)
        assert torch.allclose(*both, atol=1e-4), "the two sides disagree"
        ceiling = flops(official, model, pixels) / flops(one_pass, model, pixels)
        result = compare(
            f"batch {batch}", lambda p=pixels: official(model, p), lambda p=pixels: one_pass(model, p), options.repeats
        )
        print(row(result, batch, ceiling, peaks))
    length = AntifakePromptConfig().num_query_tokens + QUESTION_LENGTH
    whole = full_size_flops(rows=2, length=length + 1, head_positions=length + 1)
    single = full_size_flops(rows=1, length=length, head_positions=1)
    print(
        f"\nAt the released sizes the ceiling is {whole / single:.2f}x ({whole / 1e12:.2f} against {single / 1e12:.2f}"
    )
    print("teraflop per picture).")


if __name__ == "__main__":
    main()
