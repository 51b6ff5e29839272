"""Is a copy of a dataset complete? Compares the raw files with the published counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors.data.registry import open_builder

if TYPE_CHECKING:
    from deepfake_detectors.dataset_scripts._builder import Finding, RawBuilder, Unit

__all__ = ["CheckResult", "check_dataset"]


@dataclass
class CheckResult:
    """What `check_dataset` found.

    Attributes:
        rows: rows per (split, label, manipulation).
        units: images or videos per (split, label, manipulation).
        findings: what is wrong (`error`) or good to know (`warning`, `note`).
    """

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    units: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return all(finding.level != "error" for finding in self.findings)


def check_dataset(
    dataset: str | RawBuilder,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    *,
    decode: bool = False,
    max_pixels: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> CheckResult:
    """Compare the raw files with the published counts, without writing anything.

    Args:
        dataset: a key of `DATASETS`, or a builder from `make_builder`, which has the next three already.
        data_dir, config, options: as in `make_builder`.
        decode: also decode every image.
        max_pixels: width times height of an image that is decoded, by default 100 million.
        progress: called with the number of rows decoded since the last call.

    Returns:
        Counts and findings. If the builder refuses the copy, its error is one of the findings.

    Raises:
        ValueError, FileNotFoundError, ImportError: as `make_builder`.
    """
    from deepfake_detectors.dataset_scripts._builder import Finding

    builder = open_builder(dataset, data_dir, config, options, max_pixels)
    result = CheckResult()
    refused: list[Finding] = []
    try:
        for split, units in builder.inspect(Path(builder.config.data_dir)).items():
            for unit in units:
                key = (split, unit.columns["label"], unit.columns["manipulation"] or "")
                result.units[key] += 1
                result.rows[key] += unit.rows
                if decode and (error := _decoding_error(builder, unit, progress)):
                    refused.append(Finding("error", error))
    except (ValueError, OSError) as error:
        refused.append(Finding("error", str(error)))
    result.findings = [*builder.findings, *refused]
    return result


def _decoding_error(builder: Any, unit: Unit, progress: Callable[[int], None] | None) -> str:
    try:
        for _ in builder.examples(unit):
            if progress is not None:
                progress(1)
    except (ValueError, OSError) as error:
        return str(error)
    return ""
