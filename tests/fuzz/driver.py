"""Change good files at random, decode them, and count what must not happen.

python -m fuzz.driver 10000    (from the folder `tests`, or `make fuzz N=10000`)
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.corpus import Kind, build_corpus

SLOW = 5.0
ODD = (
    None,
    True,
    -1,
    0,
    7,
    0.5,
    1e308,
    10**9,
    10**30,
    "",
    "x",
    "../../x",
    "\ud800",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    "0" * 999,
)
GROWTH = 500  # MB
MARKS = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"{",
    b"[",
    b'"',
    b"-",
    b"9" * 30,
)
WORDS = (b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"1000000000", b"../../x", b"/etc/passwd")


@dataclass
class Outcome:
    """What a run met: `faults` holds each bad case with its reason, once per place it came from."""

    ran: Counter = field(default_factory=Counter)
    read: Counter = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    untyped: int = 0
    slow: int = 0
    growth_mb: float = 0.0
    peak_mb: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count} ({self.read[name]} still read)" for name, count in self.ran.items())
        return (
            f"{sum(self.ran.values())} mutations: {self.untyped} errors that are not typed or do not name the file, "
            f"{self.slow} above {SLOW} s, memory grew by {self.growth_mb:.0f} MB "
            f"(peak {self.peak_mb:.0f} MB). {kinds}."
        )


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return `data` changed in one to four places."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1) if rng.random() < 0.6 else min(len(changed), rng.randrange(64))
        length = rng.choice((1, 1, 2, 4, 8, 64))
        way = rng.randrange(7)
        if way == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            changed[place : place + length] = rng.randbytes(length)
        elif way == 2:
            mark = rng.choice(MARKS + WORDS)
            changed[place : place + len(mark) * rng.randrange(2)] = mark
        elif way == 3:
            del changed[place : place + length]
        elif way == 4:
            changed[place:place] = changed[place : place + length] * rng.choice((1, 3, 100))
        elif way == 5:
            start = rng.randrange(len(other) + 1)
            changed[place : place + length] = other[start : start + length]
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def odd_value(data: bytes, rng: random.Random) -> bytes:
    """Return a JSON object with one value of another type or size, which chance alone rarely makes."""
    content = json.loads(data)
    place: Any = content
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not (isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8):
            break
        place = place[key]
    place[key] = rng.choice(ODD)
    return json.dumps(content).encode()


def fuzz(kinds: Mapping[str, Kind], count: int, folder: Path, seed: int = 0) -> Outcome:
    """Decode `count` mutations, spread over the kinds by their share.

    Args:
        kinds: what `build_corpus` gives.
        count: of mutations.
        folder: to write them in, one at a time.
        seed: of the changes; the same number gives the same files.
    """
    outcome, rng = Outcome(), random.Random(seed)
    for kind in kinds.values():  # libraries are loaded before memory is measured
        for path in kind.seeds:
            _target(kind, path, folder).write_bytes(path.read_bytes())
            kind.decode(_target(kind, path, folder))
    names = rng.choices(list(kinds), [kind.share for kind in kinds.values()], k=count)
    before = _resident_mb()
    for number, name in enumerate(names):
        kind = kinds[name]
        path = rng.choice(kind.seeds)
        target = _target(kind, path, folder)
        if kind.one_object and rng.random() < 0.7:
            data = odd_value(path.read_bytes(), rng)
        else:
            data = mutated(path.read_bytes(), rng.choice(kind.seeds).read_bytes(), rng)
        target.write_bytes(data)
        started = time.monotonic()
        outcome.ran[name] += 1
        try:
            kind.decode(target)
            outcome.read[name] += 1
        except (ValueError, OSError) as error:
            if target.name not in str(error) and str(target.parent) not in str(error):
                _fault(outcome, f"{name}: does not name the file", error, number)
        except Exception as error:  # noqa: BLE001 - this is what the driver looks for
            _fault(outcome, f"{name}: {type(error).__name__}", error, number)
        if (took := time.monotonic() - started) > SLOW:
            outcome.slow += 1
            outcome.faults.setdefault(f"{name}: slow", f"case {number}, {path.name}: {took:.1f} s")
    outcome.growth_mb = _resident_mb() - before
    outcome.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return outcome


def _resident_mb() -> float:
    """What the process holds now; one large picture that was read and let go is no growth."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _target(kind: Kind, seed: Path, folder: Path) -> Path:
    return kind.named or folder / f"mutated{''.join(seed.suffixes)}"


def _fault(outcome: Outcome, what: str, error: Exception, number: int) -> None:
    outcome.untyped += 1
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fuzz/" not in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    outcome.faults.setdefault(f"{what} at {place}", f"case {number}: {type(error).__name__}: {str(error)[:300]}")


def main() -> int:
    """Run as a script; the exit status is 1 where something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        (work := Path(place) / "work").mkdir()
        outcome = fuzz(build_corpus(Path(place)), arguments.count, work, arguments.seed)
    sys.stdout.write(f"{outcome}\n")
    for what, example in sorted(outcome.faults.items()):
        sys.stdout.write(f"  {what}: {example}\n")
    return int(bool(outcome.faults) or outcome.growth_mb > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
