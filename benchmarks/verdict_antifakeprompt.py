"""AntifakePrompt's verdict: one pass over the question against the official loss of two rows per picture.

Both sides give the same scores, which is checked before timing. The sizes fit a small machine and keep the
proportions of the released model: as much work in the vision tower as in one row of the language model, 32 queries,
and a head of the same share. The ceiling is the ratio of floating point operations, counted while running.
"""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from verdict_row import Row

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


def pictures(batch: int) -> torch.Tensor:
    size = AntifakePromptConfig(**SIZES).vision_config.image_size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def antifakeprompt_rows(batch: int = 8) -> list[Row]:
    """`batch` pictures per pass; 8 is the official script's."""
    model = build()
    pixels = pictures(batch)
    both = official(model, pixels), one_pass(model, pixels)
    assert torch.allclose(*both, atol=1e-4), "the two sides disagree"
    ceiling = flops(official, model, pixels) / flops(one_pass, model, pixels)
    length = AntifakePromptConfig().num_query_tokens + QUESTION_LENGTH
    whole = full_size_flops(rows=2, length=length + 1, head_positions=length + 1)
    single = full_size_flops(rows=1, length=length, head_positions=1)
    name = (
        f"AntifakePrompt: two candidate rows per picture, batch {batch} (at the released sizes {whole / single:.2f}x)"
    )
    return [Row(name, lambda: official(model, pixels), lambda: one_pass(model, pixels), ceiling, batch)]
