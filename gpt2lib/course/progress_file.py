"""The small JSON file beside the notebooks that keeps how far the reader is.

The environment variable GPT2LIB_PROGRESS names another file, or is "off".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2lib.course.screen import shell
from gpt2lib.course.sources import PACKAGE

FILE = ".gpt2lib-progress.json"
FOLDERS = ("", "my-notebooks", "notebooks")
"""Where it may lie, seen from the folder of the project; `make lab` works in the second."""


@dataclass
class Kept:
    """What the file holds.

    Attributes:
        exercises: id to status and number of attempts.
        guesses: id to notebook, guess, and the result once it was shown.
    """

    exercises: dict[str, dict[str, Any]] = field(default_factory=dict)
    guesses: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise one of several errors if this is not what `save` writes."""
        for entry in self.exercises.values():
            if entry["status"] not in ("right", "wrong", "error"):
                raise ValueError(entry["status"])
            entry["attempts"] = int(entry["attempts"])
        for entry in self.guesses.values():
            entry["guess"], entry["actual"], entry["notebook"]


def file() -> Path | None:
    """Return where results are written, or None: outside a notebook nothing is."""
    chosen = os.environ.get("GPT2LIB_PROGRESS", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen)
    return Path(FILE) if shell() is not None else None


def file_to_read() -> Path | None:
    """Return where results are read, or None if there are none.

    In a notebook that is where they are written. On the command line it is the first that is
    there: in this folder, in `my-notebooks` or `notebooks` of it, or of the project.
    """
    if os.environ.get("GPT2LIB_PROGRESS") or shell() is not None:
        path = file()
        return path if path is not None and path.exists() else None
    return next((path for path in places() if path.exists()), None)


def places() -> Iterator[Path]:
    """Yield where the command line looks, in order."""
    for root in (Path(), PACKAGE.parent):
        for folder in FOLDERS:
            yield root / folder / FILE


def load(path: Path | None) -> Kept:
    """Return what a file holds; nothing if there is none. A damaged file is put aside."""
    if path is None or not path.exists():
        return Kept()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = Kept(dict(content["exercises"]), dict(content.get("guesses", {})))
        kept.check()
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = _free_name(path)
        path.replace(aside)
        print(f"{path.name} is damaged; it is kept as {aside.name}, and counting starts anew.")
        return Kept()
    return kept


def save(path: Path, kept: Kept) -> None:
    """Replace the file in one step."""
    content = {"version": 1, "exercises": kept.exercises, "guesses": kept.guesses}
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(path)


def _free_name(path: Path) -> Path:
    """Return the first of NAME.damaged-1, -2, ... that is not taken."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
