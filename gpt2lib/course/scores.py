"""How far the reader is: kept beside the notebooks, and shown as a table."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lib.course import guesses, progress_file, registry
from gpt2lib.course.contents import NOTEBOOKS, exercise_cells, link, notebook_file
from gpt2lib.course.exercise import CheckResult, Exercise
from gpt2lib.course.progress_file import file
from gpt2lib.course.screen import shell, show
from gpt2lib.utils.errors import UserError

WIDTH = 10
"""Characters of a full bar."""


def load() -> dict[str, dict[str, Any]]:
    """Return what is kept of exercises: id to status and number of attempts."""
    return progress_file.load(file()).exercises


def record(result: CheckResult) -> None:
    """Keep a result. What was right once stays right.

    An untouched stub is not recorded, nor is the library's function under the learner's name.
    """
    path = file()
    if path is None or result.status in ("not attempted", "handed on"):
        return
    kept = progress_file.load(path)
    entry = kept.exercises.setdefault(result.exercise, {"status": result.status, "attempts": 0})
    entry["attempts"] += 1
    if entry["status"] != "right":
        entry["status"] = result.status
    progress_file.save(path, kept)


@dataclass(frozen=True)
class _Row:
    """A notebook: how many of its exercises are done, and the first that is not."""

    number: str
    title: str
    done: int
    of: int
    next: Exercise | None

    @property
    def bar(self) -> str:
        full = WIDTH * self.done // self.of
        return "█" * full + "░" * (WIDTH - full)


def progress(file: str | Path | None = None) -> None:
    """Show how many exercises of each notebook are done, which is next, and how good guesses were.

    Args:
        file: what to read, if it is not beside the notebook or where `make lab` keeps it.

    Raises:
        UserError: if `file` is not there, or what is kept cannot be read.
    """
    path = Path(file) if file is not None else progress_file.file_to_read()
    if file is not None and path is not None and not path.is_file():
        raise UserError(f"{path} is not there; a notebook's folder has {progress_file.FILE}")
    try:
        kept = progress_file.load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    rows = _rows(kept)
    head = f"{sum(r.done for r in rows)} of {sum(r.of for r in rows)} exercises done."
    if shell() is None:
        head += f" (read from {path.as_posix()})" if path else f" (no {progress_file.FILE} is here)"
    said = guesses.summary(kept.guesses)
    folder = path.parent if path is not None else Path()
    upcoming = next((row.next for row in rows if row.next), None)
    links = {r.next.id: _links(r, folder) for r in rows if r.next}
    last = "All done."
    if upcoming:
        last = f'Next: notebook {upcoming.notebook}, "{upcoming.id}": {upcoming.title}.'
    lines = [f"{r.number}  {r.title:<26} {r.bar} {r.done} of {r.of}" for r in rows]
    rest = [*([f"Guesses: {said}"] if said else []), last]
    show("\n".join([head, *lines, *rest]), html=_html(head, rows, links, rest))


def _rows(kept: progress_file.Kept) -> list[_Row]:
    rows = []
    exercises = registry.all_exercises()
    right = {id for id, entry in kept.exercises.items() if entry["status"] == "right"}
    for number, title in NOTEBOOKS.items():
        here = [e for e in exercises.values() if e.notebook == number]
        open_ = [e for e in here if e.id not in right]
        if here:
            first = open_[0] if open_ else None
            rows.append(_Row(number, title, len(here) - len(open_), len(here), first))
    return rows


def _links(row: _Row, folder: Path) -> str:
    """Return a link to the next exercise of a notebook, or "" where the notebook is not."""
    notebook = notebook_file(row.number, folder)
    if notebook is None or row.next is None:
        return ""
    return link(notebook, exercise_cells(notebook).get(row.next.id, ""))


def _html(head: str, rows: list[_Row], links: dict[str, str], rest: list[str]) -> str:
    cells = "".join(
        f"<tr><td>{r.number}</td><td>{html.escape(r.title)}</td><td><code>{r.bar}</code></td>"
        f"<td>{r.done} of {r.of}</td><td>{_anchor(r, links)}</td></tr>"
        for r in rows
    )
    names = "<th></th><th>notebook</th><th></th><th>done</th><th>next</th>"
    table = f"<table><thead><tr>{names}</tr></thead><tbody>{cells}</tbody></table>"
    after = "".join(f"<p>{html.escape(line)}</p>" for line in rest)
    return f"<p>{html.escape(head)}</p>{table}{after}"


def _anchor(row: _Row, links: dict[str, str]) -> str:
    if row.next is None:
        return ""
    target, name = links.get(row.next.id, ""), html.escape(row.next.id)
    return f'<a href="{html.escape(target)}">{name}</a>' if target else name
