"""The timeline of a video as SVG: P(fake) of every track through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["TIMELINE_FILE", "draw_timeline"]

TIMELINE_FILE = "timeline.svg"
WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 24, 22, 40
LINES = 6  # number of tracks to draw, those with the highest P(fake)
# Distinguishable for colour-blind readers (Okabe and Ito), on white and on black.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b58900", "#56b4e9")
STYLE = (
    ".tl{font:12px system-ui,sans-serif}.tl text{fill:#3c4650}.tl .grid{stroke:#8a949e;stroke-opacity:.35}"
    ".tl .fakezone{fill:#c62828;fill-opacity:.12}.tl .realzone{fill:#1b7a43;fill-opacity:.12}"
    "@media (prefers-color-scheme:dark){.tl text{fill:#c9d1d9}}"
    "@media print{.tl text{fill:#3c4650}}"
)


def draw_timeline(record: Mapping[str, Any]) -> str | None:
    """Return the plot as an SVG document; `None` for an image, and if nothing was scored.

    Lines are faces (solid) and whole frames (dashed), with a point for each frame. The shaded ranges of P(fake) are
    "likely fake" and "likely real" in the deciding decision band.

    Args:
        record: record of an examination.
    """
    if record["kind"] != "video":
        return None
    lines = _lines(record)
    if not lines:
        return None
    times = [frame["seconds"] for frame in record["frames"]]
    first, last = min(times), max(times)
    parts = [*_zones(record), *_axes(first, last)]
    for number, (name, points, dashed) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        places = [(_x(seconds, first, last), _y(value)) for seconds, value in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        legend = LEFT + (number % 3) * 236
        height = HEIGHT + 6 + (number // 3) * 18
        parts.append(
            f'<line x1="{legend}" y1="{height - 4}" x2="{legend + 22}" y2="{height - 4}" stroke="{colour}" '
            f'stroke-width="3"{dash}/><text x="{legend + 28}" y="{height}">{escape(name)}</text>'
        )
    height = HEIGHT + 14 + 18 * ((len(lines) - 1) // 3)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tl" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="P(fake) of every track through time"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _lines(record: Mapping[str, Any]) -> list[tuple[str, Sequence[tuple[float, float]], bool]]:
    """Return name, points (seconds, P(fake)) and whether they are for whole frames; worst first."""
    found: dict[tuple[Any, Any], list[tuple[float, float]]] = {}
    for frame in record["frames"]:
        for verdict in frame["verdicts"]:
            found.setdefault((None, verdict["head"]), []).append((frame["seconds"], verdict["fake_probability"]))
        for face in frame["faces"]:
            for verdict in face["verdicts"]:
                key = (face["track"], verdict["head"])
                found.setdefault(key, []).append((frame["seconds"], verdict["fake_probability"]))
    pooled = {(track["id"], track["head"]): track["pooled"] for track in record["tracks"]}
    pooled |= {
        (None, said["head"]): said["fake_probability"] for said in record["readings"] if said["subject"] == "picture"
    }
    ranked = sorted(found, key=lambda key: -(pooled.get(key) or 0.0))[:LINES]
    return [
        (
            f"{'whole frames' if track is None else f'face {track}'}, {record['pooling']} {pooled[track, head]:.2f}",
            found[track, head],
            track is None,
        )
        for track, head in ranked
    ]


def _x(seconds: float, first: float, last: float) -> float:
    span = last - first
    return LEFT + (WIDTH - LEFT - RIGHT) * ((seconds - first) / span if span else 0.5)


def _y(value: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)


def _zones(record: Mapping[str, Any]) -> list[str]:
    head = record["deciding"]["head"]
    band = next((said["band"] for said in record["readings"] if said["head"] == head), None)
    if band is None:
        return []
    width = WIDTH - LEFT - RIGHT
    return [
        f'<rect class="fakezone" x="{LEFT}" y="{_y(1):.1f}" width="{width}" height="{_y(band["high"]) - _y(1):.1f}"/>',
        f'<rect class="realzone" x="{LEFT}" y="{_y(band["low"]):.1f}" width="{width}" '
        f'height="{_y(0) - _y(band["low"]):.1f}"/>',
        f'<text x="{WIDTH - RIGHT - 6}" y="{_y(1) + 14:.1f}" text-anchor="end">likely fake</text>',
        f'<text x="{WIDTH - RIGHT - 6}" y="{_y(0) - 6:.1f}" text-anchor="end">likely real</text>',
    ]


def _axes(first: float, last: float) -> list[str]:
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for number in range(6):
        seconds = first + (last - first) * number / 5
        x = _x(seconds, first, last) if last > first else _x(first, first, last)
        label = f"{int(seconds // 60)}:{seconds % 60:04.1f}"
        parts.append(f'<text x="{x:.1f}" y="{_y(0) + 18:.1f}" text-anchor="middle">{label}</text>')
        if last <= first:
            break
    parts.append(f'<text x="{LEFT}" y="{TOP - 3}" font-size="11">P(fake)</text>')
    return parts
