"""What lies in a folder that `dataset build` wrote, read from its Parquet files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors.data.parquet import STATE_FILE
from deepfake_detectors.data.registry import BUILDERS

if TYPE_CHECKING:
    import datasets

__all__ = ["BuiltConfig", "find_builds", "read_build"]

REMEDY = "Write it with: deepfake-detectors dataset build"


@dataclass(frozen=True)
class BuiltConfig:
    """One config of a data set as Parquet.

    Attributes:
        folder: with the shards.
        dataset: key of `BUILDERS`.
        version: of the builder that wrote it.
        config: name of the config.
        features: schema of the rows.
        splits: split -> its shards, in order.
        counts: rows per `split`, `label` and `manipulation`.
    """

    folder: Path
    dataset: str
    version: str
    config: str
    features: datasets.Features
    splits: dict[str, list[Path]]
    counts: list[dict[str, Any]]

    def info(self) -> datasets.DatasetInfo:
        """What the Hub shows of it: features, and per split rows and bytes."""
        import datasets
        import pyarrow.parquet as pq

        split_infos = datasets.SplitDict(dataset_name=self.dataset)
        for name, shards in self.splits.items():
            metadata = [pq.read_metadata(path) for path in shards]
            rows = sum(item.num_rows for item in metadata)
            size = sum(item.row_group(i).total_byte_size for item in metadata for i in range(item.num_row_groups))
            split_infos.add(datasets.SplitInfo(name, num_bytes=size, num_examples=rows))
        download = sum(path.stat().st_size for shards in self.splits.values() for path in shards)
        return datasets.DatasetInfo(
            features=self.features,
            config_name=self.config,
            splits=split_infos,
            download_size=download,
            dataset_size=sum(item.num_bytes for item in split_infos.values()),
        )


def find_builds(folder: str | Path) -> list[BuiltConfig]:
    """The configs in a folder: itself, if it was written as one, else those directly below it.

    Raises:
        ValueError: for a folder without any, or with configs of several data sets or an unfinished one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. {REMEDY}")
    places = [folder] if (folder / STATE_FILE).is_file() else sorted(folder.glob(f"*/{STATE_FILE}"))
    builds = [read_build(place if place.is_dir() else place.parent) for place in places]
    if not builds:
        raise ValueError(f"{folder} holds nothing that `dataset build` wrote (no {STATE_FILE}). {REMEDY}")
    if len(sets := sorted({build.dataset for build in builds})) > 1:
        raise ValueError(f"{folder} holds configs of several data sets ({', '.join(sets)}); publish them one by one.")
    return builds


def read_build(folder: Path) -> BuiltConfig:
    """One config.

    Raises:
        ValueError: for a build that is not finished, or of an unknown builder.
    """
    import datasets
    import pyarrow.parquet as pq

    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    splits = {name: [folder / file for file in done["files"]] for name, done in state["splits"].items()}
    absent = [path.name for shards in splits.values() for path in shards if not path.is_file()]
    if not state.get("complete") or absent or not splits:
        raise ValueError(
            f"The build in {folder} is not finished{': missing ' + ', '.join(absent[:3]) if absent else ''}. Run "
            "`dataset build` again; it goes on where it stopped."
        )
    names = [name for name, place in BUILDERS.items() if place.split(":")[1] == state["builder"]]
    if not names:
        raise ValueError(f"{folder} was built by {state['builder']}, which this package does not know.")
    features = datasets.Features.from_arrow_schema(pq.read_schema(next(iter(splits.values()))[0]))
    counts: Counter[tuple[str, str, str]] = Counter()
    for split, shards in splits.items():
        for path in shards:
            for batch in pq.ParquetFile(path).iter_batches(columns=["label", "manipulation"]):
                labels = (features["label"].int2str(label) for label in batch["label"].to_pylist())
                counts.update(
                    (split, label, method or "")
                    for label, method in zip(labels, batch["manipulation"].to_pylist(), strict=True)
                )
    keys = ("split", "label", "manipulation")
    order = list(splits)
    listed = [
        dict(zip(keys, key, strict=True)) | {"rows": count}
        for key, count in sorted(
            counts.items(), key=lambda item: (order.index(item[0][0]), item[0][1] != "real", item)
        )
    ]
    return BuiltConfig(folder, names[0], state["version"], folder.name, features, splits, listed)
