"""Check whether a JPEG without an end marker still has its complete image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

__all__ = ["END", "complete_jpeg"]

END = b"\xff\xd9"
COEFFICIENTS = 64
PROGRESSIVE = 0xC2
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
# Filling for the missing end. A decoder would read the bits missing from a truncated image from here, after each
# restart marker if one is due.
PATTERNS = (b"\x00", b"\xfe", b"\x9d\x36\xe1\x52\xb7\x0c\x68\xdb", b"\x55\x2a\xcb")
FILLINGS = tuple(
    pattern * 256 + b"".join(bytes((0xFF, 0xD0 + number)) + pattern * 32 for number in range(8)) * 2
    for pattern in PATTERNS
)


def complete_jpeg(content: bytes, pixels: Callable[[bytes], bytes]) -> bytes | None:
    """Add the end marker to a JPEG without one; return `None` if part of its image is missing.

    Every scan must be present, and the decoder must not need anything after the last one: different fillings before
    the end marker must give the same pixels.

    Args:
        content: bytes of the file.
        pixels: function that decodes a JPEG, for comparison.
    """
    if not _has_every_scan(content):
        return None
    found = {hashlib.sha256(pixels(content + filling + END)).digest() for filling in FILLINGS}
    return content + END if len(found) == 1 else None


def _has_every_scan(content: bytes) -> bool:
    """Return whether the scans contain all coefficients of all components completely."""
    missing: dict[int, list[int]] = {}
    progressive = False
    place = 2
    while True:
        place = content.find(b"\xff", place)
        if place < 0 or place + 1 >= len(content):
            break
        marker = content[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == 0 or marker in ALONE:  # inside a scan
            place += 2
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        body = content[place + 4 : place + 2 + length]
        if length < 2 or len(body) < length - 2:
            return False
        if marker in FRAMES:
            progressive = marker == PROGRESSIVE
            # The lowest bit that each coefficient still lacks; coefficients that never appeared get 1 more than the
            # maximum.
            missing = {body[6 + 3 * index]: [99] * COEFFICIENTS for index in range(body[5])}
        elif marker == 0xDA:
            components = body[1 : 1 + 2 * body[0] : 2]
            start, end, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            lowest = bits & 15 if progressive else 0
            span = range(start, end + 1) if progressive else range(COEFFICIENTS)
            for component in components:
                for index in span:
                    missing[component][index] = lowest
        place += 2 + length
    return bool(missing) and not any(any(lacks) for lacks in missing.values())
