"""The CNN branch of M2F2-Det: any timm network, an architecture table, or the residual-energy encoder."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models.densenet import DenseNet

from .modeling_residual_energy import EncoderFeatures, ResidualEnergyEncoder

__all__ = ["CnnEncoder", "build_encoder", "feature_shapes"]


class CnnEncoder(nn.Module):
    """A convolutional network without a head, whose map is averaged over space.

    Args:
        network: the network; its children keep their own names.
        num_features: channels of the last map.
        features: name of the method or child of `network` that computes the map.
    """

    def __init__(self, network: nn.Module, num_features: int, features: str = "forward_features") -> None:
        super().__init__()
        self.network = network
        self.num_features = num_features
        self.features = features

    def forward(self, pixel_values: torch.Tensor) -> EncoderFeatures:
        """Encode `pixel_values` (batch, 3, height, width); return the map and its mean (batch, num_features)."""
        dtype = next(self.network.parameters()).dtype
        feature_map = getattr(self.network, self.features)(pixel_values.to(dtype))
        if feature_map.ndim != 4:
            raise ValueError(
                f"The encoder {type(self.network).__name__} returns features of shape {tuple(feature_map.shape)}, "
                "but M2F2-Det averages a (batch, channels, height, width) map; choose a convolutional network."
            )
        return EncoderFeatures(feature_map, feature_map.mean(dim=(2, 3)), None)

    def forward_with_taps(
        self, pixel_values: torch.Tensor, layers: Sequence[str]
    ) -> tuple[EncoderFeatures, list[torch.Tensor]]:
        """Encode, and also return the outputs (batch, channels, height, width) of the modules in `layers`."""
        taps: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Any:
            return lambda module, args, output: taps.__setitem__(name, output)

        handles = [self.network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
        try:
            features = self(pixel_values)
        finally:
            for handle in handles:
                handle.remove()
        return features, [taps[name] for name in layers]


def build_encoder(spec: dict[str, Any]) -> nn.Module:
    """Build the CNN that `M2F2DetConfig.encoder_config` describes, with random weights.

    Raises:
        ValueError: if the network is unknown or the table lacks a field.
        ImportError: if timm is needed and missing.
    """
    options = {name: value for name, value in spec.items() if name != "type"}
    builder = {
        "timm": _timm_network,
        "efficientnet": _efficientnet_from_table,
        "densenet": _densenet_from_table,
        "residual_energy": ResidualEnergyEncoder,
    }[spec["type"]]
    try:
        return builder(**options)
    except TypeError as error:  # an unknown or missing field of the table
        raise ValueError(f"encoder_config {spec} does not fit type {spec['type']!r}: {error}") from error


def feature_shapes(encoder: CnnEncoder, image_size: int, layers: Sequence[str]) -> tuple[torch.Size, list[torch.Size]]:
    """Return the shapes (1, channels, height, width) of the last map and of the named layers for a square image.

    Uses a copy on the meta device, without computing anything.
    """
    known = {name for name, _ in encoder.network.named_modules()}
    unknown = [name for name in layers if name not in known]
    if unknown:
        children = ", ".join(name for name in sorted(known) if name.count(".") < 2 and name)
        raise ValueError(f"The encoder has no layer {', '.join(unknown)}; its first layers are: {children}.")
    ghost = copy.deepcopy(encoder).to("meta").eval()
    features, taps = ghost.forward_with_taps(torch.empty(1, 3, image_size, image_size, device="meta"), layers)
    return features.feature_map.shape, [tap.shape for tap in taps]


def _timm_network(name: str) -> CnnEncoder:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"The encoder {name!r} comes from timm, which is not installed: pip install timm") from error
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:12]) or "see timm.list_models()"
        raise ValueError(f"timm does not have a network {name!r}. Similar names: {near}.")
    network = timm.create_model(name, pretrained=False, num_classes=0)
    norm = getattr(getattr(network, "features", None), "norm5", None)
    if norm is not None:
        # timm ends DenseNet's features with a ReLU; the official code averages the map before it.
        norm.act = nn.Identity()
    return CnnEncoder(network, network.num_features)


def _efficientnet_from_table(blocks: Sequence[Sequence[int]], num_features: int) -> CnnEncoder:
    """Build an EfficientNet; `blocks` has rows `[expand, kernel, stride, in, out, layers]`."""
    try:
        from timm.models._efficientnet_builder import decode_arch_def
        from timm.models.efficientnet import EfficientNet
    except ImportError as error:
        raise ImportError("An EfficientNet table needs timm, which is not installed: pip install timm") from error
    rows = [
        [f"{'ds' if expand == 1 else 'ir'}_r{layers}_k{kernel}_s{stride}_e{expand}_c{width}_se0.25"]
        for expand, kernel, stride, _, width, layers in blocks
    ]
    network = EfficientNet(
        decode_arch_def(rows),
        num_classes=0,
        num_features=num_features,
        stem_size=blocks[0][3],
        act_layer=nn.SiLU,
        round_chs_fn=_keep_width,
    )
    return CnnEncoder(network, num_features)


def _keep_width(channels: float, *_: Any, **__: Any) -> int:
    return int(channels)


def _densenet_from_table(
    growth_rate: int, block_config: Sequence[int], num_init_features: int, bn_size: int
) -> CnnEncoder:
    network = DenseNet(growth_rate, tuple(block_config), num_init_features, bn_size)
    width = network.classifier.in_features
    network.classifier = nn.Identity()
    return CnnEncoder(network, width, features="features")
