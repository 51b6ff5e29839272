"""The parts of LVLM-DFD on top of ImageBind: class texts, convolutional heads and mask losses."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_lvlm_dfd import LvlmDfdConfig
from .modeling_cached_feature import FeatureKeeper, Sources
from .modeling_imagebind import ImageBindModel

__all__ = [
    "LvlmDfdClassTexts",
    "LvlmDfdClassifier",
    "LvlmDfdImageDecoder",
    "LvlmDfdLocator",
    "LvlmDfdPromptLearner",
    "dice_loss",
    "focal_loss",
]

# The published code calls a focal and a dice loss that it does not include; these are reconstructed from the public
# code of its predecessor (AnomalyGPT).
FOCAL_GAMMA = 2
SMOOTH = 1e-5


class LvlmDfdClassTexts(FeatureKeeper):
    """Per class, the mean of the learned vectors and the sentences' embeddings, normalised to length 1.

    The result depends only on weights, so inference caches it until they change.
    """

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        self.config = config
        self.ctx = nn.Parameter(torch.zeros(config.num_ctx_tokens, config.imagebind_config.projection_dim))

    def token_ids(self, device: torch.device) -> torch.LongTensor:
        """Return (sentences of both classes, longest), padded with 0 on the right, which a causal trunk ignores."""
        sentences = [torch.tensor(ids) for each in self.config.class_token_ids for ids in each]
        return nn.utils.rnn.pad_sequence(sentences, batch_first=True).to(device)

    def compute(self, imagebind: ImageBindModel) -> torch.Tensor:
        """Compute (2, projection_dim), real and fake, each of length 1; with gradients."""
        embeds = imagebind.get_text_features(self.token_ids(self.ctx.device))
        counts = [len(sentences) for sentences in self.config.class_token_ids]
        means = [torch.cat([self.ctx, part]).mean(dim=0) for part in embeds.split(counts)]
        return F.normalize(torch.stack(means), dim=-1)

    def sources(self, imagebind: ImageBindModel) -> Sources:
        return Sources(
            [imagebind.text_model, imagebind.text_projection],
            [self.ctx, imagebind.logit_scale],
            (imagebind.text_model.config._attn_implementation, repr(self.config.class_token_ids)),
        )


class LvlmDfdImageDecoder(nn.Module):
    """One linear layer per tap, from the image trunk into the joint embedding."""

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        imagebind = config.imagebind_config
        self.fc = nn.ModuleList(
            nn.Linear(imagebind.vision_config.hidden_size, imagebind.projection_dim) for _ in config.tap_layers
        )

    def forward(self, taps: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """Project (batch, 1 + patches, width) per tap, CLS first, to (batch, patches, projection_dim)."""
        return [layer(tap[:, 1:]) for layer, tap in zip(self.fc, taps, strict=True)]


class LvlmDfdLocator(nn.Module):
    """Turns the maps into a mask of the manipulated area."""

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        maps, classes, width = len(config.tap_layers), len(config.id2label), config.locator_width
        # The first padding adds the pixels that the last convolution removes.
        self.conv = nn.ModuleList(nn.Conv2d(classes, width, 3, padding=2) for _ in range(maps))
        self.batchnorm = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(maps))
        self.finalconv = nn.Conv2d(maps * width, classes, 3)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Convert (batch, 2, height, width) per tap to logits (batch, 2, height, width), real and fake."""
        layers = zip(self.conv, self.batchnorm, maps, strict=True)
        if not self._can_fold():
            return self.finalconv(torch.cat([norm(F.relu(conv(each))) for conv, norm, each in layers], dim=1))
        # Fixed statistics are a scale and a shift per channel, which the last convolution takes into its weights: it
        # has no padding. Wide maps are then neither normalised nor joined, which is half of a detector's time.
        parts = self.finalconv.weight.split([norm.num_features for norm in self.batchnorm], dim=1)
        logits, bias = [], self.finalconv.bias
        for (conv, norm, each), weight in zip(layers, parts, strict=True):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            bias = bias + weight.sum(dim=(2, 3)) @ (norm.bias - norm.running_mean * scale)
            logits.append(F.conv2d(F.relu_(conv(each)), weight * scale[:, None, None]))
        return torch.stack(logits).sum(dim=0) + bias[:, None, None]

    def _can_fold(self) -> bool:
        """Whether statistics are fixed, and weights are what they seem: offloaded ones arrive when their layer is
        called, and an adapter in place of a layer adds its own."""
        plain = type(self.finalconv) is nn.Conv2d and all(type(norm) is nn.BatchNorm2d for norm in self.batchnorm)
        fixed = not any(norm.training for norm in self.batchnorm)
        return plain and fixed and not any(parameter.is_meta for parameter in self.parameters())


class LvlmDfdClassifier(nn.Module):
    """Turns the maps into a verdict."""

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        classes, widths = len(config.id2label), config.classifier_widths
        self.meta_net = nn.ModuleList(_map_network(classes, widths) for _ in config.tap_layers)
        self.fc1 = nn.Linear(len(config.tap_layers) * widths[-1], config.classifier_hidden_size)
        self.fc2 = nn.Linear(config.classifier_hidden_size, classes)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Convert (batch, 2, height, width) per tap to log-probabilities (batch, 2), real and fake."""
        pooled = [network(each).mean(dim=(2, 3)) for network, each in zip(self.meta_net, maps, strict=True)]
        # Log-probabilities, so that softmax returns the official probabilities.
        return F.log_softmax(self.fc2(F.relu(self.fc1(torch.cat(pooled, dim=1)))), dim=-1)


class LvlmDfdPromptLearner(nn.Module):
    """Turns maps, mask and verdict into tokens for the language model."""

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        hidden, classes = config.text_config.hidden_size, len(config.id2label)
        self.base_prompts = nn.Parameter(torch.randn(config.num_prompt_tokens, hidden))
        self.meta_net1 = _prompt_network(len(config.tap_layers) * classes, config)
        self.meta_net2 = _prompt_network(1, config)
        self.fc = nn.Linear(classes, hidden)
        tokens = config.num_prompt_tokens + 2 * config.prompt_grid**2 + 1
        # Slides along the features; the tokens are its channels.
        self.finalconv = nn.Conv1d(tokens, config.num_prompt_tokens, 3, padding=1)

    def forward(self, maps: list[torch.Tensor], fake_mask: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """
        Args:
            maps: (batch, 2, height, width) per tap.
            fake_mask: (batch, 1, height, width) in [0, 1].
            probabilities: (batch, 2), real and fake.

        Returns:
            (batch, `num_prompt_tokens`, hidden).
        """
        tokens = [
            self.base_prompts.expand(probabilities.shape[0], -1, -1),
            self.meta_net1(torch.cat(maps, dim=1)).flatten(2).transpose(1, 2),
            self.meta_net2(fake_mask).flatten(2).transpose(1, 2),
            self.fc(probabilities).unsqueeze(1),
        ]
        return self.finalconv(torch.cat(tokens, dim=1))


def _map_network(channels: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(width)]
        channels = width
    return nn.Sequential(*layers)


def _prompt_network(channels: int, config: LvlmDfdConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, width in enumerate(config.prompt_widths):
        layers += [nn.MaxPool2d(2)] if index else []
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, config.text_config.hidden_size, config.prompt_kernel_size))


def focal_loss(probabilities: torch.Tensor, mask_labels: torch.Tensor, threshold: float | None) -> torch.Tensor:
    """Return the mean over all pixels of -(1 - p)^2 log p, where p is the probability of the pixel's class.

    Args:
        probabilities: (batch, 2, height, width), real and fake, sum 1.
        mask_labels: (batch, height, width), manipulated share in [0, 1].
        threshold: a pixel above it counts as manipulated; with `None` only a value of 1 does, as in the published
            code.
    """
    manipulated = mask_labels.long() if threshold is None else (mask_labels > threshold).long()
    target = F.one_hot(manipulated, num_classes=2).movedim(-1, 1).to(probabilities.dtype)
    target = target.clamp(SMOOTH, 1 - SMOOTH)
    probability = (target * probabilities).sum(dim=1) + SMOOTH
    return (-((1 - probability) ** FOCAL_GAMMA) * probability.log()).mean()


def dice_loss(fake_mask: torch.Tensor, mask_labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of 1 - (2 sum(p g) + 1) / (sum p + sum g + 1); both (batch, height, width) in [0, 1]."""
    predicted, true = fake_mask.flatten(1), mask_labels.flatten(1).to(fake_mask.dtype)
    shared = (predicted * true).sum(dim=1)
    return (1 - (2 * shared + 1) / (predicted.sum(dim=1) + true.sum(dim=1) + 1)).mean()
