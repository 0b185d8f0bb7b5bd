"""Execute one notebook in place; `render.py` starts this on a copy, in a closed room."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

CELL_SECONDS = 3600


def main() -> int:
    """Run the notebook named by the first argument; print the error of a cell that fails."""
    path = Path(sys.argv[1])
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(error)
        return 1
    nbformat.write(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
