"""Splits that a source has by itself: what they are called, in a dataset or in a folder."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from gpt2lib.data.sources.files import COMPRESSION
from gpt2lib.utils.errors import UserError, nearest

TRAIN = "train"
VAL_NAMES = ("validation", "valid", "val", "dev", "test")
"""What a held-out split may be called; the first that is there is taken."""
_log = logging.getLogger(__name__)


def choose_splits(names: Sequence[str], wanted: str | None, where: str) -> tuple[str, str | None]:
    """Return the split to train on and the one that is held out, None if there is none.

    Raises:
        UserError: if there is no split `wanted`, or it was not said which and there is no train.
    """
    listing = ", ".join(names) or "none at all"
    train = wanted or (names[0] if len(names) == 1 else TRAIN)
    if train not in names:
        hint = nearest(train, names) if wanted else "; choose one with --data.split"
        raise UserError(f"{where} has no split {train!r}, only {listing}{hint}")
    return train, next((name for name in VAL_NAMES if name in names and name != train), None)


def by_name(paths: Sequence[Path], where: str) -> tuple[list[Path], list[Path] | None]:
    """Keep the files apart whose names say which split they are, as the hub's datasets are kept.

    Such a name begins or ends with that of a split, as `train-00000.parquet`, `wiki.valid.txt` and
    `test/a.txt` do. It counts only where there is something to train on and something held out.

    Args:
        paths: files, in order.
        where: what to call them in messages.

    Returns:
        Those to train on, among them those that belong to no split, and those held out, or None
        where the names say nothing.
    """
    base = Path(os.path.commonpath([path.parent for path in paths])).parts
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[_split_of(path, len(base))].append(path)
    named = [name for name in found if name]
    if TRAIN not in named or len(named) == 1:
        return list(paths), None
    _, val = choose_splits(named, None, where)
    assert val is not None
    used = sorted(found[TRAIN] + found[""])
    unused = [f"{name} ({len(found[name])})" for name in named if name not in (TRAIN, val)]
    left_out = f"; not read: {', '.join(unused)}" if unused else ""
    other = f", {len(found[''])} of them of no split" if found[""] else ""
    _log.info(
        "%s is split by its files' names: %d to train on%s, %d (%s) held out%s",
        *(where, len(used), other, len(found[val]), val, left_out),
    )
    return used, found[val]


def _split_of(path: Path, n_base: int) -> str:
    """Return the split that a file's name, or that of a folder that it lies in, says; else ""."""
    packed = path.suffix.lower() in COMPRESSION
    stem = Path(path.stem if packed else path.name).stem
    for part in (stem, *reversed(path.parent.parts[n_base:])):
        words: list[str] = re.findall("[a-z]+", part.lower())
        for word in (*words[:1], *words[-1:]):
            if word in (TRAIN, *VAL_NAMES):
                return word
    return ""
