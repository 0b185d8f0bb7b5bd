"""Refuse what must not be committed in a notebook or in figures/: one line for each problem."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from common import FIGURES, NOTEBOOKS, find_notebooks
from figure_list import README, figure_list, figures_of

from gpt2lib.course.registry import find
from gpt2lib.course.sources import listing_of, resolve
from gpt2lib.utils.errors import UserError

LARGEST = 800_000
ABSOLUTE = re.compile(
    r"(?<![\w.])(/(?:home|root|work|tmp|Users|private|var/folders)/[\w.]|[A-Z]:\\\\?Users\\)"
)
EXERCISE = re.compile(r"""\b(?:check|hint|solution)\(\s*["']([\w-]+)["']""")


def problems_of(path: Path) -> Iterator[str]:
    """Yield what is wrong with one notebook."""
    if path.stat().st_size > LARGEST:
        yield f"{path.stat().st_size:,} bytes; at most {LARGEST:,} are allowed"
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:
        yield f"not a valid notebook: {str(error).splitlines()[0]}"
        return
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"the kernel is {name!r}; it must be 'python3'"
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    if code and not any(c.outputs for c in code):
        yield f"no outputs; run `make render NB={path.name[:2]}`"
    else:
        counts = [c.execution_count for c in code]
        if counts != list(range(1, len(code) + 1)):
            yield f"execution counts are not 1, 2, 3, …: {counts}"
    for i, cell in enumerate(notebook.cells):
        for problem in _problems_of_cell(cell):
            yield f"cell {i}: {problem}"


def _problems_of_cell(cell: Any) -> Iterator[str]:
    for text in [cell.source, *map(_text, cell.get("outputs", []))]:
        found = ABSOLUTE.search(text)
        if found:
            line = next(row for row in text.splitlines() if found.group() in row)
            yield f"an absolute path: {line.strip()[:80]}"
    for id in EXERCISE.findall(cell.source):
        try:
            find(id)
        except UserError as error:
            yield str(error)
    for output in cell.get("outputs", []):
        text = _text(output)
        if output.output_type == "error":
            yield f"an error: {output.ename}: {output.evalue[:80]}"
        elif "Traceback (most recent call last)" in text:
            yield "a traceback in the output"
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            yield "a widget, which shows nothing without its kernel"
        yield from _stale_source(output.get("metadata", {}).get("gpt2lib", {}), output)


def _text(output: Any) -> str:
    """Return all the text of an output."""
    parts = [output.get("text", ""), *output.get("traceback", [])]
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/") or kind == "application/json":
            parts.append(data if isinstance(data, str) else str(data))
    return "\n".join(parts)


def _stale_source(record: dict[str, Any], output: Any) -> Iterator[str]:
    """Compare what `show_source` showed with what it would show now."""
    if "source" not in record:
        return
    path = record["source"]
    try:
        now = listing_of(resolve(path), only=record["only"], docstrings=record["docstrings"])
    except (ImportError, AttributeError, UserError) as error:
        yield f"show_source({path}): the library no longer has it ({error})"
        return
    shown = output.data.get("text/markdown", "")
    if f"```python\n{now.code}```" not in shown or now.sha256 != record["sha256"]:
        yield f"show_source({path}) differs from the library; run `make render`"
    elif now.markdown != shown:
        yield f"show_source({path}): the lines have moved; run `python tools/render.py --links`"


def problems_of_figures(notebooks: list[Path], folder: Path) -> Iterator[str]:
    """Yield what is wrong in figures/: every file must be listed, and made by a notebook."""
    made = [f for path in notebooks for f in figures_of(path)]
    names = [f.name for f in made]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"figures: {name!r} is made by two cells"
    there = {p.name for p in folder.iterdir() if p.name != README} if folder.is_dir() else set()
    for file in sorted(there - {f"{n}.png" for n in names}):
        yield f"figures/{file}: no notebook makes it"
    for file in sorted({f"{n}.png" for n in names} - there):
        yield f"figures/{file} is missing; run `make render`"
    readme = folder / README
    if made and (not readme.is_file() or readme.read_text(encoding="utf-8") != figure_list(made)):
        yield "figures/README.md is not up to date; run `make render`"


def main(argv: list[str] | None = None) -> int:
    """Check all notebooks and figures/; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Check the committed notebooks and figures.")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    args = parser.parse_args(argv)
    notebooks = find_notebooks(folder=args.notebooks)
    problems = [f"{path.name}: {p}" for path in notebooks for p in problems_of(path)]
    problems += problems_of_figures(notebooks, args.figures)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    else:
        print(f"{len(notebooks)} notebooks are clean")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
