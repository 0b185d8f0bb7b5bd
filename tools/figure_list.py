"""figures/README.md: which notebook cell makes each figure, told by the notebooks' outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nbformat

README = "README.md"


@dataclass(frozen=True)
class Figure:
    """A figure and the cell that makes it."""

    name: str
    alt: str
    notebook: str
    cell: int


def figures_of(notebook: Path) -> list[Figure]:
    """Return the figures in the outputs of a notebook."""
    found = []
    for i, cell in enumerate(nbformat.read(notebook, as_version=4).cells):
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get("gpt2lib", {})
            if "figure" in record:
                found.append(Figure(record["figure"], record["alt"], notebook.name, i))
    return found


def figure_list(figures: list[Figure]) -> str:
    """Return the text of figures/README.md."""
    head = (
        "# Figures\n\nMade by `make render`; do not edit. Each is the output of a notebook cell "
        "(cells are counted from 0).\n\n"
        "| file | notebook | cell | what it shows |\n|---|---|---|---|\n"
    )
    rows = [
        f"| [{f.name}.png]({f.name}.png) | [{f.notebook}](../notebooks/{f.notebook}) | {f.cell} "
        f"| {f.alt.replace('|', '&#124;')} |\n"
        for f in sorted(figures, key=lambda f: (f.notebook, f.cell, f.name))
    ]
    return head + "".join(rows)
