"""The sheet of an examination: one self-contained page for readers."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from deepfake_detectors.examination.decision import NOT_APPLICABLE, decision_in_words
from deepfake_detectors.examination.faces import DEFAULT_FINDER
from deepfake_detectors.examination.sampling import frame_name
from deepfake_detectors.examination.timeline import draw_timeline
from deepfake_detectors.examination.tracks import DEFAULT_POOLING
from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["SHEET_FILE", "headline", "reading_in_words", "render_sheet"]

SHEET_FILE = "sheet.html"
TEMPLATE = "sheet.html.jinja"
# Limits that keep a sheet small enough to send: sides in pixels, and numbers of images.
FRAME_SIDE, CROP_SIDE, STRIP_SIDE = 960, 288, 112
MAX_FACES, MAX_STRIP = 12, 16
TONES = {"likely fake": "fake", "likely real": "real", "inconclusive": "open", NOT_APPLICABLE: "none", None: "none"}
# Options that a command omits, and those that do not apply to images.
DEFAULTS = {"batch_size": 4, "checks": True, "pooling": DEFAULT_POOLING, "frames": 32, "finder": DEFAULT_FINDER}
LABELS = {"fps": "Frames per second", "mime": "Type", "mode": "Colours", "audio": "Sound"}
UNITS = {"duration": " seconds", "rotation": " degrees", "bit_rate": " bits per second"}
OF_VIDEOS = ("pooling", "frames", "every", "start", "end")


def render_sheet(record: Mapping[str, Any], pictures: Path) -> str:
    """Return the sheet as HTML.

    Args:
        record: record of an examination.
        pictures: folder with the images of the record.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"probability": _probability, "clock": _clock}
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    moving = record["kind"] == "video"
    return template.render(
        record=record,
        moving=moving,
        tone=TONES[record["decision"]],
        decision=decision_in_words(record["decision"]),
        headline=headline(record),
        readings=[reading_in_words(record, said) for said in record["readings"]],
        frames=_frames(record, pictures),
        faces=_faces(record, pictures),
        hidden_faces=max(0, len(record["tracks"]) - MAX_FACES),
        timeline=draw_timeline(record),
        provenance=_provenance(record["provenance"]),
        checks=_checks(record),
        facts=_facts(record),
        commands=_commands(record),
        stability=_stability(record),
    )


# ---- words ----------------------------------------------------------------------------------------------------------


def headline(record: Mapping[str, Any]) -> str:
    """Return the decision of a record in one sentence."""
    kind, deciding = record["kind"], record["deciding"]
    if record["decision"] == NOT_APPLICABLE:
        return f"No verdict can be given on this {kind}: {_sentence(record['reason'])}"
    what = f"This {kind}"
    if deciding["subject"] == "faces":
        others = len({track["id"] for track in record["tracks"]}) > 1
        what = f"Face {deciding['track']} in this {kind}" if others else f"The face in this {kind}"
    said = next(item for item in record["readings"] if item["head"] == deciding["head"])
    if record["decision"] is None:
        return f"{what} scores P(fake) {_probability(record['fake_probability'])}, which does not allow a decision."
    if record["decision"] == "inconclusive":
        return f"{what} cannot be classified: {_sentence(record['reason'])}"
    fake = record["decision"] == "likely fake"
    rate = said["band"]["false_alarm_rate" if fake else "miss_rate"]
    return (
        f"{what} is “{record['decision']}”: P(fake) is {_probability(record['fake_probability'])}. "
        f"{_percent(rate)} of {'real' if fake else 'fake'} images get the same decision."
    )


def _sentence(reason: str) -> str:
    return reason if reason.endswith(".") else f"{reason}."


def reading_in_words(record: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return one verdict (`title`, `words`, `tone`) with the rates measured for it (`lines`, `status`)."""
    moving = record["kind"] == "video"
    lines = []
    band = said["band"]
    status = None
    if said["reason"]:
        status = f"{'Not judged' if said['fake_probability'] is None else 'Inconclusive'}: {_sentence(said['reason'])}"
    if said["fake_probability"] is None:
        pass
    elif band is None:
        lines.append(
            "Uncalibrated: no decision band was fitted for this checkpoint, so the error rate of such a number is "
            "unknown. Do not treat it as a verdict."
        )
    else:
        lines.append(
            f"Measured on images that were not used to fit the limits: {_percent(band['false_alarm_rate'])} of real "
            f"ones are “likely fake”, {_percent(band['miss_rate'])} of fakes are “likely real”, and "
            f"{_percent(band['coverage'])} get an answer. Fitted on: {_sentence(band['fitted_on'])}"
        )
        notes = []
        if said["judged"] > 1:
            notes.append(
                f"{said['judged']} faces were scored and the worst one counts, so a false alarm is more likely"
            )
        if moving:
            notes.append("the rates are for single images; they were not measured for pooled video frames")
        if notes:
            lines.append(f"Mind: {'; '.join(notes)}.")
    return {
        **said,
        "title": _title(record, said),
        "status": status,
        "lines": lines,
        "tone": TONES[said["decision"]],
        "words": decision_in_words(said["decision"]),
        "decides": len(record["readings"]) > 1 and said["head"] == record["deciding"]["head"],
    }


def _stability(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the verdicts of re-encoded copies; `None` without copies."""
    found = record.get("stability")
    if not found:
        return None
    total = len(found["variants"])
    words = (
        f"{found['flips']} of {total} copies give another verdict."
        if found["flips"]
        else "None of the copies changes the verdict."
    )
    return {"words": words, "titles": [_title(record, said).lower() for said in record["readings"]]}


def _title(record: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    whole = "Whole frames" if record["kind"] == "video" else "Whole image"
    title = "Faces" if said["subject"] == "faces" else whole
    return title if said["head"] is None else f"{title} (head {said['head']})"


def _checks(record: Mapping[str, Any]) -> list[str]:
    """Return the failed checks, with the number of frames."""
    found: dict[tuple[str, bool], list[Any]] = {}
    counts = {False: len(record["frames"]), True: sum(len(frame["faces"]) for frame in record["frames"])}
    for frame in record["frames"]:
        for of_face, part in ((False, frame), *((True, face) for face in frame["faces"])):
            if part["check"] is not None:
                found.setdefault((part["check"]["name"], of_face), []).append(part["check"])
    return [
        f"{name[:1].upper()}{name[1:]}"
        + (
            f" ({len(checks)} of {counts[of_face]} {'faces' if of_face else 'frames'})"
            if record["kind"] == "video" or of_face
            else ""
        )
        + f": {_sentence(checks[0]['reason'])}"
        + ("" if checks[0]["applicable"] else " Not judged.")
        for (name, of_face), checks in found.items()
    ]


def _provenance(found: Mapping[str, Any]) -> dict[str, Any]:
    c2pa = found["c2pa"]
    rows: list[tuple[str, str]] = []
    notes: list[str] = []
    if c2pa["status"] == "present":
        untrusted = "signingCredential.untrusted" in c2pa["validation_codes"]
        claim = "says that a trained model made this file or part of it" if c2pa["ai_generated"] else None
        rows = [
            ("Manifest", "present"),
            ("Validation", ", ".join([c2pa["validation_state"] or "unknown", *c2pa["validation_codes"]])),
            ("Issuer of the certificate", c2pa["issuer"] or "not named"),
            ("Signed by", c2pa["signed_by"] or "not named"),
            ("Signed at", c2pa["signed_at"] or "no trusted time"),
            ("Written by", c2pa["claim_generator"] or "not named"),
            ("Claim about AI", claim or "none: the manifest does not claim that a model made it"),
            ("Actions", ", ".join(action for action in c2pa["actions"] if action) or "none named"),
            ("Source types", ", ".join(c2pa["source_types"]) or "none named"),
        ]
        if c2pa["validation_state"] == "Invalid":
            notes.append("The manifest does not match the file: one of the two was changed after signing.")
        elif untrusted:
            notes.append(
                "The signature matches the file, but its certificate was not checked against a list of trusted "
                "issuers: anybody can create such a certificate."
            )
    else:
        words = {"absent": "absent", "not read": "not read", "unreadable": "could not be read"}
        rows = [("Manifest", words[c2pa["status"]])]
        notes.append(str(c2pa["detail"]))
        if c2pa["status"] == "absent":
            notes.append(
                "Most files do not have any, and platforms often remove them. "
                "This is neither evidence for nor against."
            )
    return {"rows": rows, "notes": notes, "camera": found["camera"], "remarks": found["remarks"]}


def _facts(record: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the identification of file, detector and run."""
    source, model, options = record["source"], record["model"], record["options"]
    container = [
        (LABELS.get(name, _label(name)), _text(value) + UNITS.get(name, ""))
        for name, value in record["container"].items()
        if value is not None
    ]
    settings = [
        (_label(name), _text(value))
        for name, value in options.items()
        if value not in (None, False) and name != "crop" and (record["kind"] == "video" or name not in OF_VIDEOS)
    ]
    crops = {str(said["crop"]["name"]): said["crop"] for said in record["readings"] if said["crop"] is not None}
    for name, crop in crops.items():
        described = ", ".join(f"{key} {_text(value)}" for key, value in crop.items() if key not in ("name", "source"))
        settings.append(("Crop of faces", f"{name} ({described})"))
    return [
        (
            "File",
            [
                ("Name", source["name"]),
                ("SHA-256", source["sha256"]),
                ("Size", f"{source['bytes']:,} bytes"),
                *container,
            ],
        ),
        (
            "Detector",
            [
                ("Name", model["name"]),
                ("Family", f"{model['family']} ({model['class']})"),
                ("Revision", model["revision"] or "none (not from the Hub)"),
                ("Weights, SHA-256", f"{model['weights']['sha256'] or 'unknown'} ({model['weights']['of']})"),
                ("Precision, device", f"{model['dtype']}, {model['device']}"),
            ],
        ),
        ("Settings", settings),
        ("Versions", [(name, number) for name, number in record["versions"].items()]),
    ]


def _commands(record: Mapping[str, Any]) -> list[str]:
    name, options = record["source"]["name"], record["options"]
    words = ["deepfake-detectors", "examine", name, "--model", record["model"]["name"]]
    for option, value in options.items():
        if option == "checks" and value is False:
            words.append("--no-checks")
        if value in (None, False) or DEFAULTS.get(option) == value or option == "crop":
            continue
        words.append(f"--{option.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    if options["crop"] is not None:
        words += ["--crop", options["crop"]["name"]]
    return [
        shlex.join([*words, "--output", "examinations"]),
        shlex.join(["deepfake-detectors", "replay", "examination.json", "--file", name]),
    ]


# ---- images -------------------------------------------------------------------------------------------------------


def _frames(record: Mapping[str, Any], pictures: Path) -> list[dict[str, Any]]:
    """Return the shown frames, worst first, with the boxes of their faces."""
    order = [index for said in record["readings"] for index in said["worst_frames"]]
    entries = {frame["index"]: frame for frame in record["frames"]}
    shown = []
    for index in dict.fromkeys(order or list(entries)[:1]):
        frame = entries[index]
        file = pictures / "frames" / f"{frame_name(index)}.jpg"
        if not file.is_file():
            continue
        shown.append(
            {
                **frame,
                "picture": _inlined(file, FRAME_SIDE),
                "boxes": [
                    {
                        "left": face["box"][0],
                        "top": face["box"][1],
                        "width": face["box"][2] - face["box"][0],
                        "height": face["box"][3] - face["box"][1],
                        "track": face["track"],
                        "tone": TONES[max((verdict["decision"] for verdict in face["verdicts"]), key=_gravity)],
                        "score": max(verdict["fake_probability"] for verdict in face["verdicts"]),
                    }
                    for face in frame["faces"]
                    if face["verdicts"]
                ],
                "stroke": max(frame["width"], frame["height"]) / 280,
                "text": max(frame["width"], frame["height"]) / 36,
                "descriptions": _descriptions(frame["verdicts"], pictures),
            }
        )
    return shown


def _gravity(decision: str | None) -> int:
    return ("none", "real", "open", "fake").index(TONES[decision])


def _faces(record: Mapping[str, Any], pictures: Path) -> list[dict[str, Any]]:
    """Return the tracks, worst first: their worst crops, and a strip through time."""
    entries = {frame["index"]: frame for frame in record["frames"]}
    bands = {said["head"]: said["band"] for said in record["readings"]}
    ranked = sorted(record["tracks"], key=lambda track: (-_gravity(track["decision"]), -track["pooled"]))
    shown = []
    for track in ranked[:MAX_FACES]:
        found = {index: _verdict_of(entries[index], track) for index in track["frames"]}
        step = max(1, -(-len(found) // MAX_STRIP))
        shown.append(
            {
                **track,
                "tone": TONES[track["decision"]],
                "words": decision_in_words(track["decision"]),
                "band": bands[track["head"]],
                "crops": [
                    {
                        "picture": _inlined(pictures / found[index]["crop"], CROP_SIDE),
                        "seconds": entries[index]["seconds"],
                        "fake_probability": found[index]["fake_probability"],
                    }
                    for index in track["worst_frames"]
                ],
                "strip": [
                    {
                        "picture": _inlined(pictures / verdict["crop"], STRIP_SIDE),
                        "seconds": entries[index]["seconds"],
                        "fake_probability": verdict["fake_probability"],
                    }
                    for index, verdict in list(found.items())[::step]
                ]
                if len(found) > 1
                else [],
                "descriptions": _descriptions([found[index] for index in track["worst_frames"]], pictures),
            }
        )
    return shown


def _verdict_of(frame: Mapping[str, Any], track: Mapping[str, Any]) -> Mapping[str, Any]:
    face = next(face for face in frame["faces"] if face["track"] == track["id"])
    return next(verdict for verdict in face["verdicts"] if verdict["head"] == track["head"])


def _descriptions(verdicts: Sequence[Mapping[str, Any]], pictures: Path) -> list[dict[str, Any]]:
    """Return explanations and masks of verdicts that have them."""
    return [
        {
            "explanation": verdict.get("explanation"),
            "explanation_verdict": verdict.get("explanation_verdict"),
            "overlay": _inlined(pictures / verdict["overlay"], 480) if verdict.get("overlay") else None,
        }
        for verdict in verdicts
        if verdict.get("explanation") or verdict.get("overlay")
    ]


def _inlined(file: Path, side: int) -> str:
    """Return an image of at most `side` pixels as a data URL."""
    image = load_image(file)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    content = BytesIO()
    image.save(content, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


# ---- numbers --------------------------------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _probability(value: float) -> str:
    return f"{min(max(value, 0.001), 0.999):.3f}" if 0 < value < 1 else f"{value:.0f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _label(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items() if item is not None)
    return "none" if value is None else str(value)
