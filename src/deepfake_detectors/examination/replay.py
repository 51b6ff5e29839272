"""Replay: repeat a recorded examination and compare the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfake_detectors.examination.examine import Progress, examine
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.record import COMPARED, read_record, record_digest
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.model_folders import model_faults
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.pipelines import check_model_source, resolve_model

__all__ = ["Difference", "Replay", "replay"]

# Explanations are text and are not generated again.
NOT_COMPARED = ("explanation", "explanation_verdict", "mask", "overlay", "license_notice", "measured")
TOLERANCES = {"logits": 1e-4, "fake_probability": 1e-4, "pooled": 1e-4, "box": 0.5, "boxes": 0.5, "landmarks": 0.5}
TOLERANCE = 1e-3  # tolerance for other numbers
# Arguments of `examine` in the options of a record. Explanations are not requested again.
REPEATED = ("head", "finder", "crop", "pooling", "frames", "every", "start", "end", "threshold", "checks", "stability")


@dataclass(frozen=True)
class Difference:
    """A value that differs in the replay.

    Attributes:
        field: its place in the record, such as `frames[3].faces[0].verdicts[0].logits[1]`.
        recorded, now: both values; `None` if one is missing.
    """

    field: str
    recorded: Any
    now: Any


@dataclass(frozen=True)
class Replay:
    """The result of `replay`.

    Attributes:
        differences: differences in the order of the record.
        causes: possible explanations in sentences: another file, other weights, other versions, an edited record.
        record: the record of the new run.
    """

    differences: list[Difference]
    causes: list[str]
    record: dict[str, Any]

    @property
    def equal(self) -> bool:
        """Whether the file, the weights and all numbers are equal."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict: `equal`, `differences` and `causes`."""
        return {
            "equal": self.equal,
            "differences": [vars(difference) for difference in self.differences],
            "causes": self.causes,
        }


def replay(
    record: str | Path,
    file: str | Path | None = None,
    *,
    model: str | Path | DeepfakeDetectionPipeline | Judge | None = None,
    family: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Repeat an examination and compare every number.

    Logits and probabilities must agree to 1e-4, boxes to half a pixel. Explanations are not generated again.

    Args:
        record: `examination.json`, or its folder.
        file: the examined file; by default the file with the recorded name next to the record, in one of the two
            folders above it, or in the working directory.
        model: the detector, if its recorded name is that of a folder.
        family: as in `examine`; by default the recorded family, if the detector is a stock folder.
        device: as in `examine`.
        progress: as in `examine`.

    Raises:
        OSError: if the record, the file or the model is not found.
        ValueError: for a record that cannot be read, and as for `examine`.
    """

    before = read_record(record)
    path = _find_source(Path(record), str(before["source"]["name"])) if file is None else Path(file)
    options = before["options"]
    if isinstance(model, Judge) and family is not None:
        raise ValueError("a loaded `Judge` already has a family; leave out `family`.")
    judge = model if isinstance(model, Judge) else _load(before["model"], model, device, options, family)
    repeated = {name: options[name] for name in REPEATED if options.get(name) is not None}
    try:
        now = examine(path, judge, **repeated, progress=progress).record
    except (ValueError, TypeError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{record} contains options that cannot be repeated: {error}") from error
    # The name of a file may change, but not its content.
    differences = list(_compare("source.sha256", before["source"]["sha256"], now["source"]["sha256"]))
    differences += _compare("model.weights.sha256", _weights(before), _weights(now))
    for name in COMPARED:
        differences += _compare(name, before[name], now[name])
    # Records of earlier versions lack this entry.
    differences += _compare("stability", before.get("stability"), now["stability"])
    if before["record_sha256"] != record_digest(before):
        differences.append(Difference("record_sha256", before["record_sha256"], record_digest(before)))
    return Replay(differences, _causes(before, now), now)


def _find_source(record: Path, name: str) -> Path:
    folder = record.resolve() if record.is_dir() else record.resolve().parent
    places = [folder, *folder.parents[:2], Path.cwd()]
    for place in places:
        # A record is untrusted, so its file name must not point elsewhere.
        if Path(name).name == name and (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"The examined file {name!r} is not next to the record; pass its path in `file`.")


def _load(
    facts: Mapping[str, Any], model: Any, device: str | None, options: Mapping[str, Any], family: str | None
) -> Judge:
    if isinstance(model, DeepfakeDetectionPipeline):
        return Judge(model, batch_size=options["batch_size"], family=family)
    named = facts["name"] if model is None else model
    try:
        if family is None:
            family = _recorded_family(named, facts)
        judge = Judge(named, device, str(facts["dtype"]), batch_size=options["batch_size"], family=family)
    except (OSError, ValueError) as error:
        if model is not None:
            raise
        raise type(error)(
            f"The detector {facts['name']!r} of the record was not found; pass its folder in `model`. {error}"
        ) from error
    return judge


def _recorded_family(model: str | Path, facts: Mapping[str, Any]) -> str | None:
    """Return the recorded family if the folder is a stock one that can have its weights.

    Otherwise a stock folder would be read as a chat model, even if it was not before.
    """
    source = resolve_model(model)
    check_model_source(source)
    row = FAMILIES.get(str(facts["family"]))
    with model_faults(source):
        found = open_checkpoint(source)
    return row.name if row is not None and found.stock and row.stock_model_type == found.model_type else None


def _weights(record: Mapping[str, Any]) -> Any:
    return record["model"]["weights"].get("sha256")


def _compare(field: str, before: Any, now: Any) -> Iterator[Difference]:
    name = field.rsplit(".", 1)[-1].split("[")[0]
    if name in NOT_COMPARED:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _compare(f"{field}.{key}", before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            yield Difference(f"{field} (number of entries)", len(before), len(now))
        for place, (old, new) in enumerate(zip(before, now, strict=False)):
            yield from _compare(f"{field}[{place}]", old, new)
    elif _is_number(before) and _is_number(now):
        if abs(before - now) > TOLERANCES.get(name, TOLERANCE):
            yield Difference(field, before, now)
    elif before != now:
        yield Difference(field, before, now)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _causes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    causes = []
    if before["record_sha256"] != record_digest(before):
        causes.append("edited record: its content does not match its own digest")
    if before["source"]["sha256"] != now["source"]["sha256"]:
        causes.append(
            f"other file: {now['source']['name']} has SHA-256 {now['source']['sha256']}, the record has "
            f"{before['source']['sha256']}"
        )
    if (before["model"]["family"], before["model"]["class"]) != (now["model"]["family"], now["model"]["class"]):
        causes.append(f"other detector: {now['model']['class']}, the record has {before['model']['class']}")
    if _weights(before) != _weights(now):
        if before["model"]["weights"]["of"] != now["model"]["weights"]["of"]:
            causes.append(
                f"weights cannot be compared: the record has a digest of {before['model']['weights']['of']}, this run "
                f"of {now['model']['weights']['of']}"
            )
        else:
            causes.append(f"other weights: SHA-256 {_weights(now)}, the record has {_weights(before)}")
    for field in ("dtype", "device"):
        if before["model"].get(field) != now["model"].get(field):
            causes.append(f"other {field}: {now['model'].get(field)}, the record has {before['model'].get(field)}")
    old, new = before["versions"], now["versions"]
    changed = [
        f"{name} {new.get(name, 'not installed')} (recorded {old.get(name, 'not installed')})"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if changed:
        causes.append(f"other versions: {', '.join(changed)}")
    return causes
