"""The table of contents: numbers are fixed, so that nothing is ever renumbered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

NOTEBOOKS = {
    "00": "Start here",
    "01": "Tokens",
    "02": "Data",
    "03": "What is a good loss?",
    "04": "Attention",
    "05": "Positions",
    "06": "Assembly",
    "07": "Initialisation and tying",
    "08": "One step",
    "09": "Bigger than memory",
    "10": "The same numbers twice",
    "11": "Sampling",
    "12": "GPT-2 itself",
    "13": "Long context",
    "14": "Tuning",
    "15": "Bug clinic",
    "16": "Full training",
}

HEADING = re.compile(r"^### Exercise: \S.*$", re.MULTILINE)
"""How every exercise is headed."""
CHECK = re.compile(r"""=\s*check\(\s*["']([\w-]+)["']""")


def notebook_file(number: str, folder: Path) -> Path | None:
    """Return the notebook of a number in a folder, or None; newer copies come after it."""
    return next(iter(sorted(folder.glob(f"{number}_*.ipynb"))), None)


def exercise_cells(notebook: Path) -> dict[str, str]:
    """Return the id of the cell where each exercise of a notebook begins, by the exercise's id.

    It is the cell with the heading, or the check where none is of the course's form.
    """
    found: dict[str, str] = {}
    heading = None
    try:
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown" and HEADING.search(source):
                heading = cell
            elif cell["cell_type"] == "code":
                for id in CHECK.findall(source):
                    found[id] = (heading or cell)["id"]
                    heading = None
    except (OSError, ValueError, KeyError, TypeError):  # being written, or of an old format
        pass
    return found


def link(notebook: Path, cell: str = "") -> str:
    """Return what leads to a cell from a notebook in the same folder, in JupyterLab.

    By the cell's id and not by a heading, which it finds only in a notebook that is open.
    """
    return quote(notebook.name) + (f"#cell-id={quote(cell)}" if cell else "")
