"""Cache for a feature that depends only on weights: computed once, and again whenever the weights change."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["FeatureKeeper"]


class FeatureKeeper(nn.Module):
    """Base class of modules that return the same feature for every image."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[Any, torch.Tensor] | None = None
        self._fixed: torch.Tensor | None = None

    def fix(self) -> None:
        """Treat the cached feature as a constant, as an exported graph does, until `release` is called.

        A module without a cached feature is left unchanged: the model does not use it.
        """
        self._fixed = None if self._kept is None else self._kept[1]

    def release(self) -> None:
        """Undo `fix`."""
        self._fixed = None

    def keep(
        self,
        compute: Callable[[], torch.Tensor],
        parts: Iterable[nn.Module],
        weights: Sequence[torch.Tensor] = (),
        settings: Any = None,
    ) -> torch.Tensor:
        """Return the feature, from the cache if nothing has changed since it was computed.

        Args:
            compute: computes the feature.
            parts: modules that it depends on.
            weights: its own parameters that it depends on; few and small, because all their values are compared.
            settings: anything else it depends on, compared by equality.
        """
        if self._fixed is not None:
            return self._fixed
        parts = list(parts)
        everything = [*weights, *(weight for part in parts for weight in part.parameters())]
        if not self._may_keep(everything):
            self._kept = None
            return compute()
        stamp = (settings, _adapters(parts), _stamp(everything, weights))
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, compute())
        return self._kept[1]

    def _may_keep(self, weights: Sequence[torch.Tensor]) -> bool:
        """Return whether caching is safe: outside training, autocast and compilation, and with readable weights."""
        return not (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.is_autocast_enabled(weights[0].device.type)
            or any(weight.grad is not None or weight.is_meta or weight.is_inference() for weight in weights)
        )

    # An extra safeguard: weights are usually replaced here.
    def train(self, mode: bool = True) -> "FeatureKeeper":
        self._kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "FeatureKeeper":
        self._kept = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)


def _adapters(parts: Iterable[nn.Module]) -> list[Any]:
    """Return the state of PEFT layers, which switch and merge without replacing a weight."""
    return [
        (module.disable_adapters, tuple(module.active_adapters), tuple(module.merged_adapters))
        for part in parts
        for module in part.modules()
        if hasattr(module, "merged_adapters")
    ]


def _stamp(weights: Sequence[torch.Tensor], summed: Sequence[torch.Tensor]) -> Any:
    """Return values that change with the weights: address, write count, and a sample of the values.

    The sample catches writes that are not counted (through `.data`, or by fused optimizers).
    """
    samples = [weight.detach().reshape(-1)[weight.numel() // 2] for weight in weights]
    sums = [weight.detach().double().sum() for weight in summed]
    values = torch.stack([value.double() for value in (*samples, *sums)]).tolist()
    return values, [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights]
