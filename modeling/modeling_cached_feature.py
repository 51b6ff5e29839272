"""Cache for a feature that depends only on weights: computed once, and again whenever the weights change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["FeatureKeeper", "Sources", "Watched"]


class Sources(NamedTuple):
    """What a feature depends on.

    Attributes:
        parts: modules that it reads.
        weights: further parameters that it reads; few and small, because all their values are looked at.
        settings: whatever else; compared by equality.
    """

    parts: Sequence[nn.Module]
    weights: Sequence[torch.Tensor]
    settings: Any = None


class FeatureKeeper(nn.Module):
    """Base of modules that give the same feature for every picture: `sources` and `compute` are theirs."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[Watched, torch.Tensor] | None = None
        self._fixed: torch.Tensor | None = None

    def fix(self) -> None:
        """Treat the cached feature as a constant, as an exported graph does, until `release` is called.

        A module without a cached feature is left unchanged: the model does not use it.
        """
        self._fixed = None if self._kept is None else self._kept[1]

    def release(self) -> None:
        """Undo `fix`."""
        self._fixed = None

    def sources(self, *arguments: Any) -> "Sources":
        """What the feature depends on; `arguments` are those of `compute`."""
        raise NotImplementedError

    def compute(self, *arguments: Any) -> torch.Tensor:
        """The feature, with gradients where they are on."""
        raise NotImplementedError

    def watch(self, *arguments: Any) -> "Watched | None":
        """Look at the weights, for the next `forward`; `None` where nothing may be kept.

        Call it before work that does not need the feature. On a CUDA device the values of the weights then travel to
        the host while that work is queued, and the device does not wait.
        """
        found = self.sources(*arguments)
        everything = [*found.weights, *(weight for part in found.parts for weight in part.parameters())]
        if self._fixed is not None or not self._may_keep(everything):
            return None
        places = [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in everything]
        return Watched((found.settings, _adapters(found.parts), places), _Values(everything, found.weights))

    def forward(self, *arguments: Any, watched: "Watched | None" = None) -> torch.Tensor:
        """The feature, from an earlier call where nothing has changed since.

        Args:
            arguments: of `compute`.
            watched: what `watch` gave in this very call of the model; looked at now if `None`.
        """
        if self._fixed is not None:
            return self._fixed
        watched = watched or self.watch(*arguments)
        if watched is None:
            self._kept = None
            return self.compute(*arguments)
        if self._kept is None or not watched.same(self._kept[0]):
            self._kept = (watched, self.compute(*arguments))
        return self._kept[1]

    def _may_keep(self, weights: Sequence[torch.Tensor]) -> bool:
        """Return whether caching is safe: outside training, autocast and compilation, and with readable weights."""
        return not (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or any(weight.grad is not None or weight.is_meta or weight.is_inference() for weight in weights)
            or torch.is_autocast_enabled(weights[0].device.type)
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


class _Values:
    """A sample of every weight, and the sum of some, as they were when it was made.

    They show writes that are not counted: through `.data`, or by fused optimizers.
    """

    def __init__(self, weights: Sequence[torch.Tensor], summed: Sequence[torch.Tensor]) -> None:
        exact = torch.float32 if weights[0].device.type == "mps" else torch.float64
        groups: dict[Any, list[torch.Tensor]] = {}
        for weight in weights:
            groups.setdefault((weight.device, weight.dtype), []).append(weight.reshape(-1)[weight.numel() // 2])
        for weight in summed:
            groups.setdefault((weight.device, exact), []).append(weight.sum(dtype=exact))
        self._hosted = [_on_the_way(torch.stack(values)) for values in groups.values()]

    def read(self) -> list[torch.Tensor]:
        """The values on the host."""
        for _, arrived in self._hosted:
            if arrived is not None:
                arrived.synchronize()
        return [values for values, _ in self._hosted]


def _on_the_way(values: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """A copy on the host, and the event that says when it is there (`None`: now)."""
    if values.device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(values.device))
    return host, arrived


@dataclass(frozen=True)
class Watched:
    """The state of the weights at one moment.

    Attributes:
        stamp: what the host knows: addresses, write counts, adapters and settings.
        values: what only the device knows.
    """

    stamp: Any
    values: _Values

    def same(self, other: "Watched") -> bool:
        """Whether nothing has changed from one moment to the other."""
        if self.stamp != other.stamp:
            return False
        return all(map(torch.equal, self.values.read(), other.values.read()))
