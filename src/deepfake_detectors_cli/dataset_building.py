"""What `dataset build` and `dataset publish` share: open a builder, write its Parquet under progress bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepfake_detectors_cli.console import fail, progress_bars
from deepfake_detectors_cli.dataset_options import read_options

__all__ = ["build_parquet", "open_builder"]


def open_builder(name: str, data_dir: Path | None, config: str | None, options: list[str] | None) -> Any:
    """The builder; ends the command where it refuses what it was given."""
    from deepfake_detectors.data.parquet import make_builder

    try:
        builder = make_builder(name, data_dir, config, read_options(options))
        builder.log_findings = False  # they are printed in full at the end
        return builder
    except (ValueError, OSError, ImportError) as error:
        fail(error)


def build_parquet(
    builder: Any, output: Path, overwrite: bool = False, shard_megabytes: int = 500
) -> tuple[dict[str, int], set[str]]:
    """Rows per split, and the splits that were built rather than found finished; ends the command at an error."""
    from deepfake_detectors.data.parquet import write_parquet

    tasks: dict[str, Any] = {}
    with progress_bars() as bars:

        def advance(split: str, rows: int, expected: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(split, total=expected)
            bars.advance(tasks[split], rows)

        try:
            return write_parquet(builder, output, overwrite, shard_megabytes * 2**20, advance), set(tasks)
        except (ValueError, OSError, ImportError) as error:
            fail(error, code=1)
