"""How far the reader is: a small JSON file beside the notebooks, and a table made from it.

The environment variable GPT2LIB_PROGRESS names another file, or is "off".
"""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import Any

from gpt2lib.course import registry
from gpt2lib.course.contents import NOTEBOOKS
from gpt2lib.course.exercise import CheckResult
from gpt2lib.course.screen import shell, show

FILE = ".gpt2lib-progress.json"
WIDTH = 10
"""Characters of a full bar."""


def file() -> Path | None:
    """Return where results are kept, or None: outside a notebook nothing is written."""
    chosen = os.environ.get("GPT2LIB_PROGRESS", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen)
    return Path(FILE) if shell() is not None else None


def load() -> dict[str, dict[str, Any]]:
    """Return what is kept: id to status and number of attempts. A damaged file is put aside."""
    path = file()
    if path is None or not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["exercises"]
        for entry in kept.values():
            if entry["status"] not in ("right", "wrong", "error"):
                raise ValueError(entry["status"])
            entry["attempts"] = int(entry["attempts"])
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = _free_name(path)
        path.replace(aside)
        print(f"{path.name} is damaged; it is kept as {aside.name}, and counting starts anew.")
        return {}
    return dict(kept)


def record(result: CheckResult) -> None:
    """Keep a result. What was right once stays right; untouched stubs are not recorded."""
    path = file()
    if path is None or result.status == "not attempted":
        return
    kept = load()
    entry = kept.setdefault(result.exercise, {"status": result.status, "attempts": 0})
    entry["attempts"] += 1
    if entry["status"] != "right":
        entry["status"] = result.status
    text = json.dumps({"version": 1, "exercises": kept}, indent=1, sort_keys=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)


def progress() -> None:
    """Show how many exercises of each notebook are done, and which is next."""
    kept = load()
    rows: list[tuple[str, str, int, int]] = []
    next_one = None
    exercises = registry.all_exercises()
    for number, title in NOTEBOOKS.items():
        here = [e for e in exercises.values() if e.notebook == number]
        done = [e for e in here if kept.get(e.id, {}).get("status") == "right"]
        if here:
            rows.append((number, title, len(done), len(here)))
        next_one = next_one or next((e for e in here if e not in done), None)
    total, of = sum(r[2] for r in rows), sum(r[3] for r in rows)
    if next_one:
        last = f'Next: notebook {next_one.notebook}, "{next_one.id}": {next_one.title}.'
    else:
        last = "All done."
    head = f"{total} of {of} exercises done."
    text = "\n".join(
        [head, *(f"{n}  {t:<26} {_bar(d, o)} {d} of {o}" for n, t, d, o in rows), last]
    )
    cells = "".join(
        f"<tr><td>{n}</td><td>{html.escape(t)}</td><td><code>{_bar(d, o)}</code></td>"
        f"<td>{d} of {o}</td></tr>"
        for n, t, d, o in rows
    )
    table = (
        "<table><thead><tr><th></th><th>notebook</th><th></th><th>done</th></tr></thead>"
        f"<tbody>{cells}</tbody></table>"
    )
    show(text, html=f"<p>{head}</p>{table}<p>{html.escape(last)}</p>")


def _bar(done: int, of: int) -> str:
    full = WIDTH * done // of
    return "█" * full + "░" * (WIDTH - full)


def _free_name(path: Path) -> Path:
    """Return the first of NAME.damaged-1, -2, ... that is not taken."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
