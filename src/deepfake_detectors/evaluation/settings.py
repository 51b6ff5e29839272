"""What a user of an evaluation may choose."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Attributes:
        threshold: P(fake) from which a picture counts as fake.
        resamples: bootstrap resamples of the 95 % intervals; 0 for none.
        seed: of the bootstrap and of FakeVLM's coin.
        encoder: folder or Hub id of the sentence encoder that compares explanations; `None` for no `similarity`.
        spice: whether to run SPICE on explanations.
    """

    threshold: float = 0.5
    resamples: int = 1000
    seed: int = 0
    encoder: str | None = None
    spice: bool = False
