"""Scoring protocols: the corrected default, and the published ones with their defects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols.antifakeprompt import ANTIFAKEPROMPT
from deepfake_detectors.evaluation.protocols.corrected import CORRECTED, Protocol
from deepfake_detectors.evaluation.protocols.fakevlm import FAKEVLM
from deepfake_detectors.evaluation.protocols.lvlm_dfd import LVLM_DFD
from deepfake_detectors.evaluation.protocols.m2f2_det import M2F2_DET

__all__ = ["DEFAULT_PROTOCOL", "PROTOCOLS", "Protocol", "evaluate_rows", "get_protocol"]

DEFAULT_PROTOCOL = CORRECTED.name
PROTOCOLS = {protocol.name: protocol for protocol in (CORRECTED, M2F2_DET, FAKEVLM, ANTIFAKEPROMPT, LVLM_DFD)}


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises:
        ValueError: for an unknown protocol.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"`protocol` is {name!r}, allowed are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def evaluate_rows(rows: Sequence[Prediction], protocol: Protocol, settings: Settings) -> dict[str, Any]:
    """Score predictions of images.

    Raises:
        ValueError: without predictions, or if they lack data that the protocol needs.
    """
    if not rows:
        raise ValueError("There is nothing to evaluate: there are no predictions.")
    for name in ("score", "text"):
        if protocol.needs == name:
            without = [row.id for row in rows if getattr(row, name) is None]
            if without:
                raise ValueError(
                    f"The protocol {protocol.name} needs a {name} for every image, but {len(without)} of "
                    f"{len(rows)} predictions have none, such as {without[0]}. Add it, or choose another protocol."
                )
    results = protocol.score(rows, settings)
    defects = protocol.defects if protocol.defects_of_rows is None else protocol.defects_of_rows
    return {**results, "defects": dict(defects)}
