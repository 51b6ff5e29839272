"""Declared key tables: every official key is mapped to exactly one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["KeyTable", "check_complete", "rename_keys"]

# (pattern of the whole official key, replacement); `None` drops the key.
KeyTable = Sequence[tuple[str, "str | Callable[[re.Match[str]], str] | None"]]


def rename_keys(keys: Iterable[str], table: KeyTable, what: str) -> dict[str, str]:
    """Return official key -> our key, using the first row whose pattern matches the whole key.

    Raises:
        ValueError: listing keys without a matching row, or keys mapped to the same place.
    """
    renamed: dict[str, str] = {}
    unknown: list[str] = []
    for key in keys:
        for pattern, replacement in table:
            match = re.fullmatch(pattern, key)
            if match is None:
                continue
            if replacement is not None:
                renamed[key] = replacement(match) if callable(replacement) else match.expand(replacement)
            break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"{what}: {len(unknown)} keys do not match any row of its key table: {_listing(unknown)}.")
    doubled = (
        sorted({name for name in renamed.values() if list(renamed.values()).count(name) > 1})
        if len(set(renamed.values())) < len(renamed)
        else []
    )
    if doubled:
        raise ValueError(f"{what}: several keys mean the same tensor: {_listing(doubled)}.")
    return renamed


def check_complete(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Compare two maps of names to tensors (or anything with a `shape`).

    Raises:
        ValueError: listing missing and unexpected names and differing shapes.
    """
    missing, unexpected = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    differing = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(found))
        if tuple(found[name].shape) != tuple(wanted[name].shape)
    ]
    faults = [
        f"{len(names)} {kind}: {_listing(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("with the wrong shape", differing))
        if names
    ]
    if faults:
        raise ValueError(
            f"{what} does not fit the model. {'; '.join(faults)}. If the sizes differ from the released ones, pass "
            "them in `config`."
        )


def _listing(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
