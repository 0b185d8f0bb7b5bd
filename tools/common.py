"""What the notebook tools share: where notebooks lie, and a closed room to run them in."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
NOTEBOOKS = REPO / "notebooks"
FIGURES = REPO / "figures"


def find_notebooks(prefix: str = "", folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the notebooks whose file names begin with `prefix`; exit with one line if none do."""
    found = sorted(folder.glob("*.ipynb"))
    chosen = [path for path in found if path.name.startswith(prefix)]
    if not chosen:
        names = ", ".join(path.stem for path in found) or "none at all"
        sys.exit(f"no notebook begins with {prefix!r}; there are {names}")
    return chosen


def closed_room(folder: Path, *, fast: bool) -> dict[str, str]:
    """Prepare an environment in which a kernel runs this Python, and reaches no network.

    Args:
        folder: an empty temporary folder; the kernel's description is written there.
        fast: whether notebooks take their small numbers.

    Returns:
        Environment variables for a subprocess that starts kernels.
    """
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    description = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(description), encoding="utf-8")
    block = str(Path(__file__).parent / "no_network")
    paths = [block, *filter(None, [os.environ.get("PYTHONPATH")])]
    changes = {
        "JUPYTER_PATH": str(folder / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),  # nobody's start-up files
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TQDM_DISABLE": "1",  # bars are never the same twice
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "GPT2LIB_PROGRESS": "off",
        "GPT2LIB_FAST": "1" if fast else "0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    environment = {**os.environ, **changes}
    environment.pop("GPT2LIB_FIGURES", None)
    return environment


def copy_for_run(notebook: Path, folder: Path) -> Path:
    """Copy a notebook to `folder`/notebooks, so that nothing it writes reaches the repository."""
    target = folder / "notebooks" / notebook.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(notebook, target)
    return target
